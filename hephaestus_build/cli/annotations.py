"""``hephaestus annotations``: summary and defects of the annotations, and their masks."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from hephaestus_build.cli.console import err, out, print_json, print_table
from hephaestus_build.cli.options import JSON_OPTION
from hephaestus_build.core.errors import HephaestusError
from hephaestus_build.core.frames import Frame
from hephaestus_build.core.grid import Grid
from hephaestus_build.core.plain_text import count_of
from hephaestus_build.core.progress import show_progress
from hephaestus_build.core.settings import load_settings
from hephaestus_build.dataset.published_counts import compare_table_1
from hephaestus_build.sources.annotations.archive import (
    PUBLISHED_BYTES,
    Annotations,
    fetch_annotations,
    find_annotations,
)
from hephaestus_build.sources.annotations.record import Defect

app = typer.Typer(
    help="What the experts wrote: counts, defects, masks; and the published archive.",
    no_args_is_help=True,
    rich_markup_mode=None,
    add_completion=False,
)

ArchiveOption = Annotated[
    Path | None,
    typer.Option(
        help="Annotations: an archive, a folder or a file. Default: what the settings name or was fetched."
    ),
]
#: Equal findings beyond this many share one line of the text output.
_MAX_UNFOLDED = 12


def read_selected_annotations(archive: Path | None) -> Annotations:
    """Return the annotations that the user named, else those of the settings."""
    settings = load_settings(annotations=str(archive) if archive else None)
    annotations = find_annotations(settings)
    if not len(annotations):
        raise HephaestusError(
            f"no annotations in {settings.data_dir}; get the published ones with "
            "`hephaestus annotations fetch`, or name an archive with --archive"
        )
    return annotations


@app.command("summary")
def summarize_annotations(archive: ArchiveOption = None, as_json: bool = JSON_OPTION) -> None:
    """Count labels, activity types, intensity levels and phases, beside the paper's Table 1."""
    annotations = read_selected_annotations(archive)
    result = compare_table_1(annotations)
    result |= {
        "annotations": len(annotations),
        "frames": len(annotations.frames),
        "polygons": sum(len(item.polygons) for item in annotations),
        "defects": len(annotations.defects),
        "source": annotations.source,
        "sha256": annotations.sha256,
        "simulated": any(frame.is_simulated for frame in annotations.frames),
    }
    if as_json:
        print_json(result)
        return
    published = result["absent_pairs"] > 0
    numbers = ("files", *(("without absent", "paper", "difference") if published else ()))
    rows = []
    for name, words in result["files"].items():
        for number, (word, count) in enumerate(words.items()):
            row = [name if number == 0 else "", word, str(count)]
            if published:
                left = result["without_absent_pairs"][name].get(word, 0)
                paper = result["paper"][name].get(word, 0)
                row += [str(left), str(paper), f"{left - paper:+d}" if left != paper else ""]
            rows.append(row)
    print_table(("", "", *numbers), rows, numbers=numbers)
    simulated = "; simulated frames are among them" if result["simulated"] else ""
    out.print(
        f"{count_of(result['annotations'], 'annotation')} of {count_of(result['frames'], 'frame')}, "
        f"{count_of(result['polygons'], 'polygon')}, {count_of(result['defects'], 'defect')} "
        f"(hephaestus annotations defects){simulated}"
    )
    if published and result["difference"]:
        differences = ", ".join(
            f"{word} {count:+d}" for words in result["difference"].values() for word, count in words.items()
        )
        out.print(
            f"Without the {count_of(result['absent_pairs'], 'absent pair')} the files differ from the "
            f"paper's Table 1 in {differences}; nothing is adjusted."
        )


@app.command()
def defects(
    archive: ArchiveOption = None,
    every: Annotated[bool, typer.Option("--all", help="One line a finding, none folded.")] = False,
    as_json: bool = JSON_OPTION,
) -> None:
    """List every defect in the files: which file, what, and what was done about it."""
    annotations = read_selected_annotations(archive)
    if as_json:
        print_json({"defects": [asdict(item) for item in annotations.defects]})
        return
    rows: list[tuple[str, str, str]] = []
    groups: dict[tuple[str, str], list[Defect]] = defaultdict(list)
    for item in annotations.defects:
        groups[item.what, item.action].append(item)
    for (what, action), items in groups.items():
        if len(items) > _MAX_UNFOLDED and not every:
            files = f"{items[0].file} ... {items[-1].file} ({count_of(len(items), 'file')}; --all lists them)"
            rows.append((files, what, action))
            continue
        rows += [(item.file, what, action) for item in items]
    print_table(("file", "what", "what is done"), rows, folded=("what", "what is done"))
    count = len({item.file for item in annotations.defects})
    out.print(
        f"{count_of(len(annotations.defects), 'defect')} in {count_of(count, 'file')}; "
        f"{count_of(len(annotations), 'annotation')} read"
    )


@app.command()
def fetch(
    url: Annotated[str | None, typer.Option(help="Address to take instead of the published one.")] = None,
    sha256: Annotated[str | None, typer.Option(help="What its SHA-256 must be.")] = None,
    data_dir: Annotated[
        Path | None, typer.Option(help="Folder of cubes/, the cache and the results.")
    ] = None,
    as_json: bool = JSON_OPTION,
) -> None:
    """Download the published annotations, check them, and put them where every command finds them."""
    settings = load_settings(data_dir=data_dir)
    with show_progress() as listener:
        stage = "kB of annotations"
        listener.stage(stage, 0 if url or settings.annotations else PUBLISHED_BYTES // 1000)
        received = 0

        def advance(count: int) -> None:
            nonlocal received
            listener.advance(stage, (received + count) // 1000 - received // 1000)
            received += count

        path = fetch_annotations(settings, url=url, sha256=sha256, progress=advance)
    if as_json:
        print_json({"path": str(path), "bytes": path.stat().st_size})
    else:
        err.print(f"the annotations are at {path}")


@app.command()
def masks(
    archive: ArchiveOption = None,
    cubes: Annotated[
        Path | None, typer.Option(help="Folder of cubes whose grids to draw on; else the implied ones.")
    ] = None,
    as_json: bool = JSON_OPTION,
) -> None:
    """Draw every polygon at 100 m and say what is lost: area, overlaps, and rows if the era is wrong."""
    from hephaestus_build.report.mask_report import report_masks  # counting does not need it

    annotations = read_selected_annotations(archive)
    findings = report_masks(annotations, _grid_lookup(cubes))
    if as_json:
        frames = [{**item.summarize(), "each": [asdict(p) for p in item.polygons]} for item in findings]
        print_json({"frames": frames})
        return
    columns = {
        "frame": "frame",
        "rows, columns": "shape",
        "grid": "grid_from",
        "preview": "projection",
        "polygons": "polygons",
        "km2": "area_km2",
        "area kept": "area_kept",
        "worst": "worst_error",
        "hidden px": "hidden_pixels",
        "beyond": "beyond_grid",
        "rows if wrong era": "rows_moved_most",
    }
    rows = []
    for item in findings:
        row = item.summarize()
        flag = "uncertain" if item.uncertain else ""
        rows.append([*(row[key] for key in columns.values()), flag])
    print_table((*columns, ""), rows, numbers=columns.keys() - {"frame", "grid", "preview"})
    polygons = [polygon for item in findings for polygon in item.polygons]
    area, pixels = sum(item.area for item in polygons), sum(item.pixels for item in polygons)
    out.print(
        f"{count_of(len(polygons), 'polygon')}; {pixels / area if area else 1:.4%} of their area is kept, "
        f"{count_of(sum(item.hidden for item in polygons), 'pixel')} under a smaller polygon"
    )
    for item in findings:
        if item.uncertain:
            out.print(f"{item.frame}: {item.uncertain}")


def _grid_lookup(cubes: Path | None) -> Callable[[Frame], tuple[Grid, str] | None]:
    from hephaestus_build.cube.georeference import read_cube_grid as grid_of_cube
    from hephaestus_build.cube.reading.dataset import open_pinned_cube
    from hephaestus_build.report.mask_report import grid_from_registry

    def grid_of(frame: Frame) -> tuple[Grid, str] | None:
        path = cubes / f"{frame}.zarr" if cubes else None
        if path and path.exists():
            with open_pinned_cube(path, chunks=None) as cube:
                return grid_of_cube(cube), "cube"
        return grid_from_registry(frame)

    return grid_of
