"""``hephaestus statistics``: means and deviations of the channels, from training samples alone."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from hephaestus_build.cli.console import err, load_command_settings, out, print_json, print_table
from hephaestus_build.cli.options import JSON_OPTION, DataDirOption, MixedOption, SimulatedOption
from hephaestus_build.cli.splits_samples import split_path
from hephaestus_build.core.errors import HephaestusError, MissingProductsError, UsageError
from hephaestus_build.core.machine.user_paths import local_path
from hephaestus_build.core.plain_text import count_of
from hephaestus_build.core.progress import show_progress
from hephaestus_build.core.settings import Settings
from hephaestus_build.cube.discovery import are_simulated, cubes_dir_for, list_cubes
from hephaestus_build.dataset.channel_statistics import ChannelStatistics, read_statistics, update_statistics
from hephaestus_build.dataset.published_counts import PUBLISHED_CHANNEL_STATISTICS
from hephaestus_build.dataset.running_moments import MASKING_CONVENTIONS, MaskingConvention
from hephaestus_build.dataset.splits import Split, read_split

app = typer.Typer(
    help="Means and deviations of the channels over the training samples of a split.",
    no_args_is_help=True,
    rich_markup_mode=None,
    add_completion=False,
)

SplitArgument = Annotated[
    str, typer.Argument(metavar="SPLIT", help="Name of a written split, or the path of one (.json).")
]
ConventionOption = Annotated[
    str,
    typer.Option("--convention", help="valid: pixels with data. published: zeros included, as published."),
]


@app.command()
def update(
    split: SplitArgument,
    cubes: Annotated[
        Path | None, typer.Option(help="Folder of the cubes; default: those of the data folder.")
    ] = None,
    simulated: SimulatedOption = False,
    mixed: MixedOption = False,
    afresh: Annotated[bool, typer.Option("--afresh", help="Measure everything again.")] = False,
    data_dir: DataDirOption = None,
    as_json: bool = JSON_OPTION,
) -> None:
    """Measure what is new in the cubes and write the statistics beside them.

    Those of a split of simulated samples come to <data>/simulated/statistics.
    Exits with 3 if training samples of the split are in no cube here; the statistics are those of the others.
    """
    settings = load_command_settings(simulated, data_dir=data_dir)
    chosen = read_split(_resolve_split_path(split, settings))
    stores = _find_split_cubes(chosen, cubes, settings, mixed)
    kind = are_simulated(stores.values(), mixed=mixed) or chosen.is_simulated
    path = _statistics_path(chosen.name, settings.for_simulated() if kind else settings)
    previous = read_statistics(path) if path.is_file() and not afresh else None
    with show_progress() as listener:
        statistics = update_statistics(
            chosen, stores, previous, threads=settings.worker_count, listener=listener
        )
    if not statistics.products:
        raise HephaestusError(
            f"no cube of the split {chosen.name} is in {cubes or settings.cubes_dir}; "
            "build one with `hephaestus build FRAME`"
        )
    statistics.write(path)
    if as_json:
        print_json(_statistics_json(statistics, path))
    else:
        _print_statistics(statistics, "valid")
        err.print(f"written to {path}")
    if missing := statistics.missing:
        names = ", ".join(sorted(missing)[:3]) + (", ..." if len(missing) > 3 else "")
        raise MissingProductsError(
            f"in no cube here: {count_of(sum(missing.values()), 'training sample')} of "
            f"{count_of(len(missing), 'frame')} ({names}); build them with `hephaestus build FRAME`, "
            "then run the same command again"
        )


@app.command("show")
def show_statistics(
    split: SplitArgument,
    convention: ConventionOption = "valid",
    simulated: SimulatedOption = False,
    data_dir: DataDirOption = None,
    as_json: bool = JSON_OPTION,
) -> None:
    """Show the statistics of a split as they were last written, and whether the split has changed since."""
    if convention not in MASKING_CONVENTIONS:
        raise UsageError(f"there is no convention {convention!r}; choose {' or '.join(MASKING_CONVENTIONS)}")
    settings = load_command_settings(simulated, data_dir=data_dir)
    name = Path(split).stem if split.endswith(".json") else split
    written = _resolve_split_path(split, settings)
    apart = written.is_file() and read_split(written).is_simulated
    path = _statistics_path(name, settings.for_simulated() if apart else settings)
    statistics = read_statistics(path)
    if written.is_file() and read_split(written).sha256 != statistics.sha256:
        raise HephaestusError(
            f"the split {name} has changed since; run `hephaestus statistics update {split}` again"
        )
    if as_json:
        print_json(_statistics_json(statistics, path))
    else:
        _print_statistics(statistics, convention)


def _resolve_split_path(split: str, settings: Settings) -> Path:
    return Path(local_path("SPLIT", split)) if split.endswith(".json") else split_path(split, settings)


def _find_split_cubes(split: Split, cubes: Path | None, settings: Settings, mixed: bool) -> dict[str, Path]:
    """Return the cubes of the frames that a split trains on, as many as there are."""
    frames = {sample.frame for sample in split.parts["train"]}
    if cubes:
        found = {path.stem: path for path in list_cubes([cubes])}
    else:
        home = settings.for_simulated() if split.is_simulated and not mixed else settings
        found = {frame.id: cubes_dir_for(home, frame) / f"{frame}.zarr" for frame in frames}
    return {frame.id: found[frame.id] for frame in frames if frame.id in found and found[frame.id].exists()}


def _statistics_path(name: str, settings: Settings) -> Path:
    return settings.data_dir / "statistics" / f"{name}.json"


def _statistics_json(statistics: ChannelStatistics, path: Path) -> dict[str, object]:
    content = statistics.to_json()
    kept = {key: value for key, value in content.items() if key not in ("products", "weights")}
    missing = [{"frame": frame, "samples": count} for frame, count in statistics.missing.items()]
    return {**kept, "missing": missing, "path": str(path)}


def _print_statistics(statistics: ChannelStatistics, convention: MaskingConvention) -> None:
    published = convention == "published"
    numbers = ("mean", "std", "values", *(("published mean", "published std") if published else ()))
    rows = []
    for name, item in statistics.moments_by_channel(convention).items():
        row = [name, f"{item.mean:.6g}", f"{item.std:.6g}", str(item.count)]
        if published:
            row += [f"{value:.6g}" for value in PUBLISHED_CHANNEL_STATISTICS[name]]
        rows.append(row)
    print_table(("channel", *numbers), rows, numbers=numbers)
    frames = len(statistics.weights)
    simulated = ", simulated" if statistics.simulated else ""
    out.print(
        f"{convention} values of the training samples of {statistics.split} ({statistics.sha256[:12]}), "
        f"{count_of(frames, 'frame')}{simulated}"
    )
