"""``hephaestus splits``: who learns from what, who is tested on what, and what leaks between them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from hephaestus_build.audit import Audit, audit
from hephaestus_build.cli.annotations import Archive, read_archive
from hephaestus_build.cli.common import Json, err, out, print_json
from hephaestus_build.cube.reader import open_cube
from hephaestus_build.errors import HephaestusError, UsageError
from hephaestus_build.events import find_events
from hephaestus_build.files import explained, write_atomic
from hephaestus_build.paper import TABLE_2, table_2
from hephaestus_build.registry import published_frames
from hephaestus_build.samples import SERIES_LENGTH, Sample, samples_from_annotations, samples_from_cube
from hephaestus_build.settings import load_settings
from hephaestus_build.splits import PARTS, make_split, read_split, split_names, split_rule

app = typer.Typer(
    help="Named splits into train, validation and test: counts, leaks, artefacts.",
    no_args_is_help=True,
    rich_markup_mode=None,
    add_completion=False,
)

Cubes = Annotated[
    list[Path] | None,
    typer.Option(
        help="Take the samples from cubes (a folder of them, or one; may be repeated), not from files."
    ),
]
Name = Annotated[str, typer.Argument(help="Name of the split; `hephaestus splits list` names them all.")]
Names = Annotated[list[str] | None, typer.Argument(help="Names of splits; all unless given.")]
Length = Annotated[int, typer.Option(min=1, help="Interferograms in a series.")]
DataDir = Annotated[Path | None, typer.Option(help="Folder of cubes/, the cache and the results.")]


@app.command("list")
def list_splits(data_dir: DataDir = None, as_json: bool = Json) -> None:
    """Name all splits, what they do, what they promise, and which are written."""
    folder = load_settings(data_dir=data_dir).data_dir / "splits"
    rows = []
    for name in split_names():
        rule, path = split_rule(name), folder / f"{name}.json"
        row: dict[str, Any] = {
            "name": name,
            "version": rule.version,
            "rule": rule.rule,
            "promises": list(rule.promises),
            "legacy": rule.legacy,
            "written": str(path) if path.is_file() else None,
        }
        if path.is_file():
            row["sha256"] = read_split(path).sha256
        rows.append(row)
    if as_json:
        print_json(rows)
        return
    table = Table(box=None, pad_edge=False)
    for title in ("split", "promises", "written", "rule"):
        table.add_column(title, overflow="fold")
    said = ""
    for row in rows:
        rule_text = "as above" if row["rule"] == said else row["rule"]
        said = row["rule"]
        table.add_row(
            row["name"],
            ", ".join(row["promises"]) or "nothing (legacy)",
            row.get("sha256", "no")[:12],
            rule_text,
        )
    out.print(table)


@app.command()
def summary(
    name: Annotated[str, typer.Argument(help="Name of the split.")] = "paper",
    archive: Archive = None,
    cubes: Cubes = None,
    length: Length = SERIES_LENGTH,
    as_json: bool = Json,
) -> None:
    """Count samples and series of every part, beside the paper's Table 2."""
    rule = split_rule(name)
    samples, source = read_samples(archive, cubes)
    split = make_split(rule, samples, source=source, length=length)
    result = {**table_2(split), "source": source}
    if as_json:
        print_json(result)
        return
    out.print(_counts_table(result["counts"], TABLE_2 if name == "paper" else None))
    for reason, count in result["left_out"].items():
        out.print(f"left out: {count} samples ({reason})")
    simulated = "; simulated frames are among them" if split.simulated else ""
    out.print(f"split {name}, version {split.version}, sha256 {split.sha256}{simulated}")


@app.command("audit")
def audit_splits(
    names: Names = None,
    archive: Archive = None,
    cubes: Cubes = None,
    file: Annotated[Path | None, typer.Option(help="Audit this written split instead.")] = None,
    as_json: bool = Json,
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
        samples, source = read_samples(archive, cubes)
        splits = [make_split(rule, samples, source=source) for rule in rules]
    # cubes hold masks, not polygons: without an archive nothing can be said of events
    events = find_events(read_archive(archive)) if archive or not cubes else None
    results = [audit(split, events) for split in splits]
    if as_json:
        print_json([result.to_json() for result in results])
    else:
        for result in results:
            _print_audit(result)
    if broken := [result.split for result in results if not result.passed]:
        raise HephaestusError(f"promises are broken by {', '.join(broken)}; see the audit above")


@app.command()
def write(
    names: Names = None,
    archive: Archive = None,
    cubes: Cubes = None,
    length: Length = SERIES_LENGTH,
    to: Annotated[Path | None, typer.Option(help="Folder; default <data_dir>/splits.")] = None,
    data_dir: DataDir = None,
    as_json: bool = Json,
) -> None:
    """Write splits as the files that training reads."""
    rules = [split_rule(name) for name in names or split_names()]
    folder = to or load_settings(data_dir=data_dir).data_dir / "splits"
    samples, source = read_samples(archive, cubes)
    rows = []
    for rule in rules:
        split = make_split(rule, samples, source=source, length=length)
        path = folder / f"{rule.name}.json"
        split.write(path)
        rows.append({"name": rule.name, "sha256": split.sha256, "path": str(path), "counts": split.counts})
        if not as_json:
            err.print(f"{rule.name}  {split.sha256[:12]}  {path}")
    if as_json:
        print_json(rows)


def read_samples(
    archive: Path | None, cubes: Sequence[Path] | None
) -> tuple[list[Sample], dict[str, str | int]]:
    """Return the samples of cubes, if there are any named, else of the annotations; and where from."""
    if not cubes:
        annotations = read_archive(archive)
        samples = samples_from_annotations(annotations)
        return samples, {"annotations": annotations.sha256, "absent_pairs": "absent_pairs.json"}
    samples, source = [], {}
    for path in _cube_paths(cubes):
        with open_cube(path, chunks=None) as cube:
            found = samples_from_cube(cube)
            source[path.stem] = f"generation {Path(cube.encoding['source']).parent.name}"
        samples += found
    if not samples:
        raise HephaestusError("the cubes hold no annotated interferogram; name an archive with --archive")
    return samples, {"cubes": len(source), **source}


def _cube_paths(cubes: Sequence[Path]) -> list[Path]:
    paths: list[Path] = []
    for given in cubes:
        paths += [given] if given.suffix == ".zarr" else sorted(given.glob("*.zarr"))
    if not paths:
        raise HephaestusError(f"there are no cubes in {cubes[0]}; build one with `hephaestus build FRAME`")
    return paths


def _counts_table(counts: dict[str, Any], published: Any) -> Table:
    table = Table(box=None, pad_edge=False)
    table.add_column("part")
    columns = [(kind, sign) for kind in ("single", "series") for sign in ("positive", "negative")]
    for kind, sign in columns:
        table.add_column(f"{kind} {sign}", justify="right")
    for part in (*PARTS, "sum"):
        row = [part]
        for kind, sign in columns:
            count = counts[part][kind][sign]
            paper = published[part][kind][sign] if published else count
            row.append(str(count) if count == paper else f"{count} (paper {paper})")
        table.add_row(*row)
    return table


def _print_audit(result: Audit) -> None:
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
        out.print(f"  {text}: {leak.samples} samples, {leak.positives} positive")
        out.print(f"    most: {'; '.join(leak.examples[:3])}")
    for weight in result.weights:
        text = f"  {weight.part}: positives in {len(weight.frames)} frames of {len(weight.regions)} regions"
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
    archive: Archive = None,
    to: Annotated[Path, typer.Option(help="Folder of the pictures.")] = Path("docs/figures"),
    as_json: bool = Json,
) -> None:
    """Draw samples over time, positives per frame, the frames' map and each frame's pair network."""
    from hephaestus_build.report import figures as draw  # matplotlib takes a second to load

    annotations = read_archive(archive)
    samples = samples_from_annotations(annotations)
    paper, *others = (
        make_split(split_rule(name), samples) for name in ("paper", "strict-temporal", "unseen-event")
    )
    pictures = {
        "samples-over-time": draw.samples_over_time([paper, *others]),
        "positives-per-frame": draw.positives_per_frame(paper),
    }
    registry = published_frames()
    known = {frame.id: registry[frame.id] for frame in annotations.frames if frame.id in registry}
    if known:
        pictures["map-of-frames"] = draw.map_of_frames(known, find_events(annotations))
    boundaries = split_rule("paper").boundaries
    for frame in annotations.frames:
        pictures[f"networks/{frame}"] = draw.pair_network(frame, annotations.of(frame), boundaries)
    paths = []
    for name, figure in pictures.items():
        path = to / f"{name}.png"
        with explained(f"figure {path}"):
            write_atomic(path, draw.to_png(figure))
        paths.append(str(path))
    if as_json:
        print_json(paths)
    else:
        err.print(f"{len(paths)} figures are in {to}")
