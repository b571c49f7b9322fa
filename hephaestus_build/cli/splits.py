"""``hephaestus splits``: who learns from what, who is tested on what, and what leaks between them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from hephaestus_build.cli.annotations import ArchiveOption, read_selected_annotations
from hephaestus_build.cli.console import (
    err,
    load_command_settings,
    out,
    print_json,
    print_table,
)
from hephaestus_build.cli.options import JSON_OPTION, DataDirOption, MixedOption, SimulatedOption
from hephaestus_build.cli.splits_samples import (
    describe_source,
    read_annotations_of_kind,
    read_selected_samples,
    split_path,
)
from hephaestus_build.cli.splits_tables import print_audit, print_counts, print_coverage
from hephaestus_build.core.atomic_io import translate_os_errors, write_atomic
from hephaestus_build.core.errors import HephaestusError, UsageError
from hephaestus_build.core.plain_text import count_of, sanitize_text
from hephaestus_build.core.registry import published_frames
from hephaestus_build.core.settings import load_settings
from hephaestus_build.cube.discovery import select_cubes
from hephaestus_build.dataset.coverage import (
    find_earthquakes_alone,
    summarize_coverage,
    visible_from_annotations,
    visible_in_cubes,
)
from hephaestus_build.dataset.deformation_events import DeformationEvent, find_events
from hephaestus_build.dataset.published_counts import PUBLISHED_TABLE_2, compare_table_2
from hephaestus_build.dataset.samples import (
    SERIES_LENGTH,
    samples_from_annotations,
)
from hephaestus_build.dataset.split_leakage import audit_split
from hephaestus_build.dataset.splits import (
    Split,
    make_split,
    read_split,
    split_names,
    split_rule,
)
from hephaestus_build.dataset.tiling import DEFAULT_TILING, TILE_SIZE, TILING_MODES, TilingMode

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
    result = {**compare_table_2(split), "source": describe_source(source)}
    if as_json:
        print_json(result)
        return
    print_counts(result["counts"], PUBLISHED_TABLE_2 if name == "paper" else None)
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
            print_audit(result)
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
        annotations = read_annotations_of_kind(archive, mixed)
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
        print_coverage(found, "; without earthquakes" if volcanic else "")


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


@app.command()
def figures(
    archive: ArchiveOption = None,
    mixed: MixedOption = False,
    to: Annotated[Path, typer.Option(help="Folder of the pictures.")] = Path("docs/figures"),
    as_json: bool = JSON_OPTION,
) -> None:
    """Draw samples over time, positives per frame, lengths of series, the map, and networks of pairs."""
    from hephaestus_build.report import dataset_figures as draw  # matplotlib takes a second to load

    annotations = read_annotations_of_kind(archive, mixed)
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
