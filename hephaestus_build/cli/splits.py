"""``hephaestus splits``: who learns from what, who is tested on what, and what leaks between them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from hephaestus_build.cli.annotations import ArchiveOption, read_selected_annotations
from hephaestus_build.cli.console import (
    err,
    load_command_settings,
    out,
    print_json,
    print_notice,
    print_table,
)
from hephaestus_build.cli.options import JSON_OPTION, DataDirOption, MixedOption, SimulatedOption
from hephaestus_build.core.atomic_io import translate_os_errors, write_atomic
from hephaestus_build.core.errors import HephaestusError, UsageError
from hephaestus_build.core.plain_text import count_of, sanitize_text
from hephaestus_build.core.registry import published_frames
from hephaestus_build.core.settings import Settings, load_settings
from hephaestus_build.cube.discovery import CubeSelection, select_cubes
from hephaestus_build.cube.reading.dataset import open_pinned_cube
from hephaestus_build.dataset.coverage import (
    Coverage,
    CoverageCounts,
    find_earthquakes_alone,
    summarize_coverage,
    visible_from_annotations,
    visible_in_cubes,
)
from hephaestus_build.dataset.deformation_events import DeformationEvent, find_events
from hephaestus_build.dataset.published_counts import PUBLISHED_TABLE_2, compare_table_2
from hephaestus_build.dataset.samples import (
    SERIES_LENGTH,
    Sample,
    samples_from_annotations,
    samples_from_cube,
)
from hephaestus_build.dataset.split_leakage import SplitAudit, audit_split
from hephaestus_build.dataset.splits import (
    PARTS,
    SIMULATED_SOURCE,
    Split,
    make_split,
    read_split,
    split_names,
    split_rule,
)
from hephaestus_build.dataset.tiling import DEFAULT_TILING, TILE_SIZE, TILING_MODES, TilingMode
from hephaestus_build.sources.annotations.archive import Annotations

app = typer.Typer(
    help="Named splits into train, validation and test: counts, leaks, artefacts.",
    no_args_is_help=True,
    rich_markup_mode=None,
    add_completion=False,
)

CubesOption = Annotated[
    list[Path] | None,
    typer.Option(
        help="Take the samples from cubes (a folder of them, or one; may be repeated), not from files."
    ),
]
SplitNameArgument = Annotated[
    str, typer.Argument(help="Name of the split; `hephaestus splits list` names them all.")
]
SplitNamesArgument = Annotated[list[str] | None, typer.Argument(help="Names of splits; all unless given.")]
SeriesLengthOption = Annotated[int, typer.Option(min=1, help="Interferograms in a series.")]


@app.command("list")
def list_splits(data_dir: DataDirOption = None, as_json: bool = JSON_OPTION) -> None:
    """Name all splits, what they do, what they promise, and which are written."""
    settings = load_settings(data_dir=data_dir)
    rows = []
    for name in split_names():
        rule, path = split_rule(name), split_path(name, settings)
        row: dict[str, Any] = {
            "split": name,
            "version": rule.version,
            "rule": rule.rule,
            "promises": list(rule.promises),
            "legacy": rule.legacy,
            "path": str(path) if path.is_file() else None,
        }
        if path.is_file():
            split = read_split(path)
            row |= {"sha256": split.sha256, "simulated": split.is_simulated}
        rows.append(row)
    if as_json:
        print_json({"splits": rows})
        return
    lines = []
    last_rule = ""
    for row in rows:
        rule_text = "as above" if row["rule"] == last_rule else row["rule"]
        last_rule = row["rule"]
        promises = ", ".join(row["promises"]) or "nothing (legacy)"
        written = row.get("sha256", "no")[:12] + (" (simulated)" if row.get("simulated") else "")
        lines.append((row["split"], promises, written, rule_text))
    print_table(("split", "promises", "written", "rule"), lines, folded=("promises", "written", "rule"))


@app.command("summary")
def summarize_split(
    name: Annotated[str, typer.Argument(help="Name of the split.")] = "paper",
    archive: ArchiveOption = None,
    cubes: CubesOption = None,
    simulated: SimulatedOption = False,
    mixed: MixedOption = False,
    length: SeriesLengthOption = SERIES_LENGTH,
    as_json: bool = JSON_OPTION,
) -> None:
    """Count samples and series of every part, beside the paper's Table 2."""
    rule = split_rule(name)
    samples, source = read_selected_samples(archive, cubes, simulated=simulated, mixed=mixed)
    split = make_split(rule, samples, source=source, length=length)
    result = {**compare_table_2(split), "source": _describe_source(source)}
    if as_json:
        print_json(result)
        return
    _print_counts(result["counts"], PUBLISHED_TABLE_2 if name == "paper" else None)
    for reason, count in result["left_out"].items():
        out.print(f"left out: {count_of(count, 'sample')} ({reason})")
    mark = "; simulated frames are among them" if split.is_simulated else ""
    out.print(f"split {name}, version {split.version}, sha256 {split.sha256}{mark}")


@app.command("audit")
def audit_splits(
    names: SplitNamesArgument = None,
    archive: ArchiveOption = None,
    cubes: CubesOption = None,
    simulated: SimulatedOption = False,
    mixed: MixedOption = False,
    file: Annotated[Path | None, typer.Option(help="Audit this written split instead.")] = None,
    as_json: bool = JSON_OPTION,
) -> None:
    """Say what leaks between the parts of splits, and what weighs too much in them.

    Exits with 1 if a split breaks one of its promises.
    """
    if file and names:
        raise UsageError("name splits or a file, not both; see `hephaestus splits audit --help`")
    if file:
        splits = [read_split(file)]
    else:
        rules = [split_rule(name) for name in names or split_names()]
        samples, source = read_selected_samples(archive, cubes, simulated=simulated, mixed=mixed)
        splits = [make_split(rule, samples, source=source) for rule in rules]
    # cubes hold masks, not polygons: without an archive nothing can be said of events
    annotations = read_selected_annotations(archive) if archive or not (cubes or simulated) else None
    events = None if annotations is None else find_events(annotations)
    results = [audit_split(split, events, annotations=annotations) for split in splits]
    if as_json:
        print_json({"splits": [result.to_json() for result in results]})
    else:
        for result in results:
            _print_audit(result)
    if broken := [result.split for result in results if not result.passed]:
        raise HephaestusError(f"promises are broken by {', '.join(broken)}; see the audit above")


@app.command("coverage")
def show_coverage(
    name: Annotated[str, typer.Argument(help="Name of the split.")] = "strict-temporal",
    tiling: Annotated[
        str, typer.Option(help=f"Placement of the windows: {', '.join(TILING_MODES)}.")
    ] = DEFAULT_TILING,
    size: Annotated[int, typer.Option(min=1, max=8192, help="Rows and columns of a window.")] = TILE_SIZE,
    positives: Annotated[
        Literal["any", "volcanic"], typer.Option(help="Deformation that counts: any, or volcanic.")
    ] = "any",
    archive: ArchiveOption = None,
    cubes: CubesOption = None,
    simulated: SimulatedOption = False,
    mixed: MixedOption = False,
    as_json: bool = JSON_OPTION,
) -> None:
    """Say how much of the annotated deformation the windows of a tiling contain, whatever the model.

    An interferogram is seen if at least half of its deforming pixels lie in the windows together, and touched
    if any does. The annotations alone are needed: outlines are placed on the grids that they imply.
    """
    mode = parse_tiling(tiling)
    rule = split_rule(name)
    volcanic = positives == "volcanic"
    events: list[DeformationEvent] = []
    if cubes or simulated:
        samples, source = read_selected_samples(None, cubes, simulated=simulated, mixed=mixed)
        split = make_split(rule, samples, source=source)
        taken = select_cubes(load_command_settings(simulated), cubes or (), mixed=mixed)
        stores = {path.stem: path.resolve() for path in taken.stores}
        visible = visible_in_cubes(split.all_samples, stores, mode, size, volcanic_only=volcanic)
    else:
        annotations = _read_annotations_of_kind(archive, mixed)
        split = make_split(
            rule, samples_from_annotations(annotations), source={"annotations": annotations.sha256}
        )
        visible = visible_from_annotations(split.all_samples, annotations, mode, size, volcanic_only=volcanic)
        events = [event for event in find_events(annotations) if not (volcanic and event.is_earthquake)]
    shaken = find_earthquakes_alone(visible) if volcanic else frozenset()
    found = summarize_coverage(split, mode, size, visible, events=events, leave_out=shaken)
    if as_json:
        print_json({**found.to_json(), "deformation": positives})
    else:
        _print_coverage(found, "; without earthquakes" if volcanic else "")


def parse_tiling(text: str) -> TilingMode:
    """Return the tiling mode called `text`.

    Raises
    ------
    UsageError
        If there is none.
    """
    for mode in TILING_MODES:
        if mode == text:
            return mode
    raise UsageError(
        f"there is no tiling {sanitize_text(text, 60)!r}; choose one of {', '.join(TILING_MODES)}"
    )


@app.command("write")
def write_splits(
    names: SplitNamesArgument = None,
    archive: ArchiveOption = None,
    cubes: CubesOption = None,
    simulated: SimulatedOption = False,
    mixed: MixedOption = False,
    length: SeriesLengthOption = SERIES_LENGTH,
    to: Annotated[
        Path | None,
        typer.Option(
            help="Folder; default <data_dir>/splits, of simulated samples <data_dir>/simulated/splits."
        ),
    ] = None,
    data_dir: DataDirOption = None,
    as_json: bool = JSON_OPTION,
) -> None:
    """Write splits as the files that training reads.

    A split of simulated samples never replaces one of real samples, nor the other way round.
    """
    rules = [split_rule(name) for name in names or split_names()]
    settings = load_settings(data_dir=data_dir)
    samples, source = read_selected_samples(
        archive, cubes, simulated=simulated, mixed=mixed, data_dir=data_dir
    )
    splits = [make_split(rule, samples, source=source, length=length) for rule in rules]
    homes = [
        to or (settings.for_simulated() if item.is_simulated else settings).data_dir / "splits"
        for item in splits
    ]
    for split, folder in zip(splits, homes, strict=True):
        _refuse_to_replace(folder / f"{split.name}.json", split)
    rows = []
    for rule, split, folder in zip(rules, splits, homes, strict=True):
        path = folder / f"{rule.name}.json"
        split.write(path)
        rows.append({"split": rule.name, "sha256": split.sha256, "path": str(path), "counts": split.counts})
        if not as_json:
            err.print(f"{rule.name}  {split.sha256[:12]}  {path}")
    if as_json:
        print_json({"splits": rows})


def split_path(name: str, settings: Settings) -> Path:
    """Return the file of a split: of real samples, or of simulated ones where there is no other."""
    path, other = (home.data_dir / "splits" / f"{name}.json" for home in (settings, settings.for_simulated()))
    return other if other.is_file() and not path.is_file() else path


def _refuse_to_replace(path: Path, split: Split) -> None:
    """Refuse to put simulated samples in the place of real ones, or real ones in that of simulated ones."""
    if not path.is_file():
        return
    try:
        before = read_split(path).is_simulated
    except HephaestusError:
        return  # of no use to anybody: it may be replaced
    if before != split.is_simulated:
        kinds = {True: "simulated", False: "real"}
        raise UsageError(
            f"{path} is a split of {kinds[before]} samples, and these are {kinds[split.is_simulated]}: name "
            f"another folder with --to"
        )


def read_selected_samples(
    archive: Path | None,
    cubes: Sequence[Path] | None,
    *,
    simulated: bool = False,
    mixed: bool = False,
    data_dir: Path | None = None,
) -> tuple[list[Sample], dict[str, str | int]]:
    """Return the samples of cubes, if there are any named, else of the annotations; and where from.

    Parameters
    ----------
    archive : pathlib.Path, optional
        Annotations; by default what the settings lead to.
    cubes : sequence of pathlib.Path, optional
        Folders of cubes, or cubes.
    simulated : bool
        Take the simulated cubes, where none are named.
    mixed : bool
        Whether real and simulated samples may be taken together.
    data_dir : pathlib.Path, optional
        Where the simulated cubes are.
    """
    if not cubes and not simulated:
        annotations = _read_annotations_of_kind(archive, mixed)
        samples = samples_from_annotations(annotations)
        return samples, {"annotations": annotations.sha256, "absent_pairs": "absent_pairs.json"}
    taken = _require_cubes(cubes or (), load_command_settings(simulated, data_dir=data_dir), mixed)
    samples, source = [], {}
    for path in taken.stores:
        with open_pinned_cube(path, chunks=None) as cube:
            found = samples_from_cube(cube)
            source[path.stem] = f"generation {Path(cube.encoding['source']).parent.name}"
        samples += found
    if not samples:
        raise HephaestusError("the cubes hold no annotated interferogram; name an archive with --archive")
    marks = {SIMULATED_SOURCE: "as the cubes say"} if taken.settings.is_simulated else {}
    return samples, {"cubes": len(source), **source, **marks}


def _describe_source(source: dict[str, str | int]) -> dict[str, Any]:
    """Return as JSON values where samples come from: the frames of cubes in a list."""
    if "cubes" not in source:
        return dict(source)
    number = {name: str(text).removeprefix("generation ") for name, text in source.items()}
    return {
        "cubes": [
            {"frame": name, "generation": int(text)}
            for name, text in number.items()
            if name not in ("cubes", SIMULATED_SOURCE)
        ]
    }


def _read_annotations_of_kind(archive: Path | None, mixed: bool) -> Annotations:
    annotations = read_selected_annotations(archive)
    frames = {frame.is_simulated: frame for frame in annotations.frames}
    if len(frames) == 2 and not mixed:
        raise UsageError(
            f"the annotations are of real frames and of simulated ones, such as {frames[False]} and "
            f"{frames[True]}: name an archive of one kind with --archive, or --mixed to take both"
        )
    return annotations


def _require_cubes(cubes: Sequence[Path], settings: Settings, mixed: bool) -> CubeSelection:
    taken = select_cubes(settings, cubes, mixed=mixed)
    if not taken.stores:
        where = cubes[0] if cubes else settings.cubes_dir
        raise HephaestusError(f"there are no cubes in {where}; build one with `hephaestus build FRAME`")
    if taken.notice:
        print_notice(taken.notice)
    return taken


def _print_counts(counts: dict[str, Any], published: Any) -> None:
    columns = [(kind, sign) for kind in ("single", "series") for sign in ("positive", "negative")]
    numbers = [f"{kind} {sign}" for kind, sign in columns]
    rows = []
    for part in (*PARTS, "sum"):
        row = [part]
        for kind, sign in columns:
            count = counts[part][kind][sign]
            paper = published[part][kind][sign] if published else count
            row.append(str(count) if count == paper else f"{count} (paper {paper})")
        rows.append(row)
    print_table(("part", *numbers), rows, numbers=numbers)


def _print_coverage(found: Coverage, mark: str) -> None:
    mark += "; simulated" if found.split.is_simulated else ""
    out.print(
        f"{found.split.name}  {found.split.sha256[:12]}  {found.tiling} windows of {found.size} pixels{mark}"
    )
    numbers = ("positives", "seen", "share", "touched", "pixels", "uncertain", "events seen")
    rows: list[list[str]] = []
    totals = set()
    for part in PARTS:
        coverage = found.parts[part]
        totals.add(len(rows))
        rows.append([part, *_coverage_cells(coverage.total)])
        rows += [[f"  {region}", *_coverage_cells(counts)] for region, counts in coverage.regions.items()]
    print_table(("part", *numbers), rows, numbers=numbers, styles=dict.fromkeys(totals, "bold"))
    unknown = {name for part in found.parts.values() for name, c in part.frames.items() if c.unknown}
    if unknown:
        err.print(
            f"not counted: positives of {', '.join(sorted(unknown))}, whose grid the annotations do not "
            f"imply; name their cubes with --cubes"
        )


def _coverage_cells(counts: CoverageCounts) -> list[str]:
    share = "" if not counts.positives else f"{counts.share_seen:.0%}"
    pixels = "" if not counts.pixels else f"{counts.pixels_inside / counts.pixels:.1%}"
    events = f"{len(counts.events_seen)} of {len(counts.events)}" if counts.events else ""
    seen = [str(counts.positives), str(counts.seen), share, str(counts.touched), pixels]
    return [*seen, str(counts.uncertain), events]


def _print_audit(result: SplitAudit) -> None:
    kept = ", ".join(f"{name} {'kept' if good else 'BROKEN'}" for name, good in result.promises.items())
    simulated = "  (simulated frames are among them)" if result.simulated else ""
    out.print(f"\n{result.split}  {result.sha256[:12]}  promises: {kept or 'nothing'}{simulated}")
    if result.unchecked:
        out.print(f"  not checked: {', '.join(result.unchecked)}; name the annotations with --archive")
    single = {part: counts["single"] for part, counts in result.counts.items()}
    out.print("  " + "; ".join(f"{p} {c['positive']}/{c['negative']}" for p, c in single.items()))
    for leak in result.leaks:
        where = " and ".join(leak.parts)
        text = f"{leak.shared} {leak.kind} in both {where}"
        if leak.kind == "boundaries":
            text = f"{leak.shared} pairs of {where} reach beyond its window"
        elif leak.kind == "places":
            text = f"{leak.shared} interferograms of {leak.parts[1]} deform where {leak.parts[0]} does"
        out.print(f"  {text}: {leak.samples} samples, {leak.positives} positive")
        out.print(f"    most: {'; '.join(leak.examples[:3])}")
    for weight in result.weights:
        text = f"  {weight.part}: positives in {count_of(len(weight.frames), 'frame')} "
        text += f"of {count_of(len(weight.regions), 'region')}"
        if weight.dominant:
            shares = {**weight.regions, **weight.frames}
            text += "; dominated by " + ", ".join(
                f"{name} ({shares[name] / weight.positives:.0%})" for name in weight.dominant
            )
        if weight.new:
            text += f"; none of {', '.join(weight.new)} has a positive in train"
        out.print(text)
    for item in result.repeats:
        out.print(
            f"  {item.part}: {item.repeating} of {item.series} series hold an interferogram twice, "
            f"{item.overlapping} share one with another series"
        )


@app.command()
def figures(
    archive: ArchiveOption = None,
    mixed: MixedOption = False,
    to: Annotated[Path, typer.Option(help="Folder of the pictures.")] = Path("docs/figures"),
    as_json: bool = JSON_OPTION,
) -> None:
    """Draw samples over time, positives per frame, lengths of series, the map, and networks of pairs."""
    from hephaestus_build.report import dataset_figures as draw  # matplotlib takes a second to load

    annotations = _read_annotations_of_kind(archive, mixed)
    samples = samples_from_annotations(annotations)
    paper, *others = (
        make_split(split_rule(name), samples) for name in ("paper", "strict-temporal", "unseen-event")
    )
    pictures = {
        "samples-over-time": draw.plot_samples_over_time([paper, *others]),
        "positives-per-frame": draw.plot_positives_per_frame(paper),
        "series-lengths": draw.plot_series_lengths(paper),
    }
    registry = published_frames()
    known = {frame.id: registry[frame.id] for frame in annotations.frames if frame.id in registry}
    if known:
        pictures["map-of-frames"] = draw.plot_frame_map(known, find_events(annotations))
    boundaries = split_rule("paper").boundaries
    for frame in annotations.frames:
        pictures[f"networks/{frame}"] = draw.plot_pair_network(
            frame, annotations.for_frame(frame), boundaries
        )
    paths = []
    for name, figure in pictures.items():
        path = to / f"{name}.png"
        with translate_os_errors(f"figure {path}", setting="--to"):
            write_atomic(path, draw.encode_png(figure))
        paths.append(str(path))
    if as_json:
        print_json({"files": paths})
    else:
        err.print(f"{count_of(len(paths), 'figure')} in {to}")
