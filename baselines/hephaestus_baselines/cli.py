"""Commands of ``hephaestus benchmark``: train and score models on the cubes, and predict with them.

The heavy modules of this package are imported when a command runs, so that help works without PyTorch.
"""

from __future__ import annotations

import math
import os
import shlex
import sys
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hephaestus_build.cli.console import (
    err,
    out,
    print_fields,
    print_json,
    print_notice,
    print_table,
    worst_exit_code,
)
from hephaestus_build.cli.options import JSON_OPTION, DataDirOption, MixedOption
from hephaestus_build.core.errors import MissingProductsError, UsageError
from hephaestus_build.core.extras import check_extra
from hephaestus_build.core.frames import Pair
from hephaestus_build.core.parsing import parse_yaml
from hephaestus_build.core.plain_text import count_of, sanitize_text
from hephaestus_build.core.progress import show_progress
from hephaestus_build.core.settings import Settings, load_settings, local_path
from hephaestus_build.core.terminal import sanitize_lines
from hephaestus_build.cube.discovery import BENCHMARK_FOLDER, find_cube, select_cubes, settings_for_cube

if TYPE_CHECKING:
    from hephaestus_baselines.detectability.detectability_report import DetectabilityReport
    from hephaestus_baselines.detectability.detection_limits import DetectionCurve, DetectionLimit
    from hephaestus_baselines.experiments.cost_estimate import CostEstimate
    from hephaestus_baselines.experiments.experiment_grid import ExperimentGrid, RunOutcome

app = typer.Typer(
    help="Train and score models on the cubes, and map their predictions.",
    no_args_is_help=True,
    rich_markup_mode=None,
    add_completion=False,
)

_DATE_FORMATS = ["%Y-%m-%d", "%Y%m%d"]
PresetArgument = Annotated[str, typer.Argument(help="small, paper, legacy, or the path of a YAML file.")]
BenchmarkCubesOption = Annotated[
    Path | None, typer.Option(help="Folder of the cubes. Default: cubes/ in the data folder.")
]
BenchmarkSimulatedOption = Annotated[
    bool, typer.Option("--simulated", help="Use cubes of the embedded archive, built once and kept.")
]
ResultsOption = Annotated[
    Path | None,
    typer.Option(help="Folder of the results. Default: results/ in the data folder, or in its simulated/."),
]
PartOption = Annotated[str, typer.Option(help="Execute only the i-th of n parts of the runs, such as 2/4.")]
FieldsOption = Annotated[
    list[str] | None,
    typer.Option("--set", help="Change a field of all runs, such as epochs=3; may be repeated."),
]
WeightsOption = Annotated[
    str | None, typer.Option(help="imagenet, none (from scratch), or a folder with the ImageNet weights.")
]
UncheckedOption = Annotated[
    bool,
    typer.Option("--unchecked", help="Do not compare cube data with its published hashes."),
]
AllowUnseenOption = Annotated[
    bool,
    typer.Option(
        "--allow-unseen",
        help="Write tables although the windows show less than 90 % of the interferograms with deformation.",
    ),
]
DeviceOption = Annotated[str, typer.Option(help="auto, cpu or cuda.")]


@app.command()
def run(
    preset: PresetArgument = "small",
    cubes: BenchmarkCubesOption = None,
    simulated: BenchmarkSimulatedOption = False,
    mixed: MixedOption = False,
    results: ResultsOption = None,
    part: PartOption = "1/1",
    weights: WeightsOption = None,
    fields: FieldsOption = None,
    device: DeviceOption = "auto",
    at_a_time: Annotated[
        int, typer.Option("--at-a-time", min=1, max=64, help="Concurrent runs, each in its own process.")
    ] = 1,
    unchecked: UncheckedOption = False,
    allow_unseen: AllowUnseenOption = False,
    data_dir: DataDirOption = None,
    as_json: bool = JSON_OPTION,
) -> None:
    """Execute the runs of a preset, each once, then write its tables and figures.

    The command can be stopped at any time; repeat it to resume. Exits with 1 if a run failed, and with 3 if
    none failed and some are still running in another process.
    """
    # silence the resource tracker, which warns when it removes shared memory of a stopped run
    os.environ.setdefault("PYTHONWARNINGS", "ignore:resource_tracker")
    bench, share = _open_experiment_grid(
        preset, cubes, simulated, mixed, results, part, weights, fields, data_dir, unchecked=unchecked
    )
    from hephaestus_baselines.experiments.cost_estimate import estimate_cost
    from hephaestus_baselines.experiments.experiment_grid import run_experiments
    from hephaestus_baselines.experiments.experiment_report import write_experiment_report

    _print_cost_estimate(estimate_cost(bench, share), err)
    ended = []
    with show_progress() as listener:
        runs = run_experiments(bench, part=share, device=device, at_a_time=at_a_time, listener=listener)
        for index, end in enumerate(runs, 1):
            ended.append(end)
            _print_run(end, index)
    # if no run is finished, the failures printed below say why
    problems: list[str] = []
    paths = (
        write_experiment_report(bench, problems, allow_unseen=allow_unseen)
        if bench.has_results_for_tables()
        else []
    )
    if bench.folds and not paths:
        err.print(f"no tables yet: no run has finished all {count_of(len(bench.folds), 'fold')}")
    if as_json:
        print_json({"runs": [_outcome_json(end) for end in ended], "files": [str(path) for path in paths]})
    else:
        _print_tables(paths)
    _print_failures(ended)
    told = {end.error for end in ended}
    problems = [problem for problem in problems if problem not in told]
    for problem in problems:
        print_notice(problem)
    codes = [
        1 if end.error else MissingProductsError.exit_code if end.is_running_elsewhere else 0 for end in ended
    ]
    raise typer.Exit(1 if problems else worst_exit_code(codes))


@app.command()
def plan(
    preset: PresetArgument = "small",
    cubes: BenchmarkCubesOption = None,
    simulated: BenchmarkSimulatedOption = False,
    mixed: MixedOption = False,
    results: ResultsOption = None,
    part: PartOption = "1/1",
    weights: WeightsOption = None,
    fields: FieldsOption = None,
    unchecked: UncheckedOption = False,
    data_dir: DataDirOption = None,
    as_json: bool = JSON_OPTION,
) -> None:
    """Estimate what the runs of a preset need: samples, epochs, hours, disk space."""
    bench, share = _open_experiment_grid(
        preset, cubes, simulated, mixed, results, part, weights, fields, data_dir, unchecked=unchecked
    )
    from hephaestus_baselines.experiments.cost_estimate import estimate_cost

    found = estimate_cost(bench, share)
    if as_json:
        print_json(found.to_json())
    else:
        _print_cost_estimate(found, out)


@app.command()
def tables(
    preset: PresetArgument = "small",
    cubes: BenchmarkCubesOption = None,
    simulated: BenchmarkSimulatedOption = False,
    mixed: MixedOption = False,
    results: ResultsOption = None,
    weights: WeightsOption = None,
    fields: FieldsOption = None,
    unchecked: UncheckedOption = False,
    allow_unseen: AllowUnseenOption = False,
    markdown: Annotated[
        bool, typer.Option("--markdown", help="Print Markdown on a terminal too, as in a pipe.")
    ] = False,
    data_dir: DataDirOption = None,
    as_json: bool = JSON_OPTION,
) -> None:
    """Write the tables and figures of all finished runs, including those copied from other machines.

    Where the cubes are gone, what needs them is left out and said: pictures of predictions, and folds that
    are scored together.
    """
    bench, _ = _open_experiment_grid(
        preset, cubes, simulated, mixed, results, "1/1", weights, fields, data_dir, unchecked=unchecked,
        results_alone=True,
    )  # fmt: skip
    from hephaestus_baselines.experiments.experiment_report import write_experiment_report

    if bench.cubes is None:
        print_notice(
            f"{bench.without_cubes}; tables are made of the results alone, pictures of predictions left out"
        )
    problems: list[str] = []
    paths = write_experiment_report(bench, problems, allow_unseen=allow_unseen)
    if as_json:
        print_json({"files": [str(path) for path in paths]})
    else:
        _print_tables(paths, markdown=markdown)
    for problem in problems:
        print_notice(problem)
    if problems:
        raise typer.Exit(1)


@app.command()
def predict(
    frame: Annotated[str, typer.Argument(help="Frame id, volcano with a single frame, or path of a cube.")],
    checkpoint: Annotated[Path, typer.Option(help="Checkpoint: best.ckpt in the folder of a run.")],
    pairs: Annotated[
        list[str] | None, typer.Option(help="Only this pair, such as 20200101_20200113; may be repeated.")
    ] = None,
    since: Annotated[
        datetime | None,
        typer.Option(formats=_DATE_FORMATS, help="Leave out pairs that begin before this day."),
    ] = None,
    new: Annotated[bool, typer.Option("--new", help="Only pairs without a map of this checkpoint.")] = False,
    to: Annotated[
        Path | None, typer.Option(help="Folder of the maps. Default: predictions/ in the data folder.")
    ] = None,
    device: DeviceOption = "auto",
    unsealed: Annotated[
        bool, typer.Option("--unsealed", help="Accept a checkpoint without a seal, as of other programs.")
    ] = False,
    unchecked: UncheckedOption = False,
    data_dir: DataDirOption = None,
    as_json: bool = JSON_OPTION,
) -> None:
    """Predict maps of the probability of deformation, as GeoTIFFs, pictures and <frame>.zarr."""
    check_extra("baselines", "the benchmark")
    from hephaestus_baselines.mapping.predict_frame import PairFilter
    from hephaestus_baselines.mapping.predict_frame import predict_frame_maps as predict_frame

    settings = load_settings(data_dir=data_dir)
    wanted = PairFilter(tuple(Pair.parse(name) for name in pairs or ()), since.date() if since else None, new)
    cube = _find_cube_to_map(frame, settings)
    folder = to or settings_for_cube(cube, settings).data_dir / "predictions"
    written = []
    with show_progress() as listener:
        maps = predict_frame(
            checkpoint,
            cube,
            folder,
            wanted,
            device=device,
            unsealed=unsealed,
            unchecked=unchecked,
            listener=listener,
        )
        for item in maps:
            written.append(item)
            if not as_json and item.geotiff:
                out.print(f"{item.name}: highest {item.highest:.3f}  {item.geotiff}")
    made = sum(item.geotiff is not None for item in written)
    if as_json:
        print_json({"maps": [item.to_json() for item in written]})
    else:
        err.print(f"{count_of(made, 'map')} written to {folder}, {len(written) - made} already there")


@app.command()
def detectability(
    checkpoint: Annotated[Path, typer.Option(help="Checkpoint: best.ckpt in the folder of a run.")],
    cubes: BenchmarkCubesOption = None,
    simulated: BenchmarkSimulatedOption = False,
    mixed: MixedOption = False,
    places: Annotated[
        int, typer.Option(min=1, max=100_000, help="Places for each frame, each with one source.")
    ] = 60,
    false_alarms: Annotated[
        float,
        typer.Option(
            "--false-alarms", min=0.001, max=0.5, help="Share of quiet windows that may raise an alarm."
        ),
    ] = 0.05,
    seed: Annotated[int, typer.Option(min=0, help="Seed of places, sources and noise.")] = 0,
    to: Annotated[
        Path | None, typer.Option(help="Folder of the report. Default: detectability/ beside the checkpoint.")
    ] = None,
    device: DeviceOption = "auto",
    unsealed: Annotated[
        bool, typer.Option("--unsealed", help="Accept a checkpoint without a seal, as of other programs.")
    ] = False,
    unchecked: UncheckedOption = False,
    data_dir: DataDirOption = None,
    as_json: bool = JSON_OPTION,
) -> None:
    """Measure how small a deformation a model finds: known sources are added to quiet interferograms."""
    check_extra("baselines", "the benchmark")
    from hephaestus_baselines.data.cube_integrity import CubeIntegrityChecker
    from hephaestus_baselines.data.simulated_cubes import ensure_benchmark_cubes
    from hephaestus_baselines.detectability.detectability_report import write_detectability
    from hephaestus_baselines.detectability.injection_experiment import measure_detectability
    from hephaestus_baselines.mapping.predict_frame import require_checkpoint

    if cubes and simulated:
        raise UsageError("--simulated uses its own cubes: leave out --cubes or --simulated")
    require_checkpoint(checkpoint)
    settings = load_settings(data_dir=data_dir)
    with show_progress() as listener:
        if simulated:
            cubes = ensure_benchmark_cubes(settings, listener=listener)
        taken = select_cubes(settings, [cubes] if cubes else [], mixed=mixed)
        if taken.notice:
            print_notice(taken.notice)
        report, injected = measure_detectability(
            checkpoint,
            {store.stem: store for store in taken.stores},
            places=places,
            false_alarms=false_alarms,
            seed=seed,
            device=device,
            unsealed=unsealed,
            mixed=mixed,
            checker=None if unchecked else CubeIntegrityChecker(None, listener),
            listener=listener,
        )
    paths = write_detectability(to or checkpoint.parent / "detectability", report, injected)
    if not report.same_split:
        print_notice(
            f"the split of these cubes is not that of training: some interferograms of their {report.split} "
            "test part may have been trained on"
        )
    if as_json:
        kept = (
            "model", "simulated", "same_split", "false_alarm_rate", "threshold", "test_windows",
            "test_false_alarms",
        )  # fmt: skip
        described = {name: getattr(report, name) for name in kept}
        print_json({**described, "limits": _limits_json(report), "files": [str(path) for path in paths]})
        return
    _print_detectability(report)
    for path in paths:
        err.print(str(path))


def _print_detectability(report: DetectabilityReport) -> None:
    marked = " (simulated)" if report.simulated else ""
    achieved = f"{report.test_false_alarms} of {report.test_windows} windows of the test part"
    print_fields(
        f"detection of added sources{marked}",
        {
            "model": report.model,
            "alarm above": f"{report.threshold:.4f}, which {report.false_alarm_rate:.1%} of "
            f"{report.validation_windows} quiet validation windows exceed",
            "without a source": f"{achieved} raise an alarm, as a model that looks at no image would",
        },
    )
    rows = [
        [kind, name, str(curve.places), *(_format_limit(limit) for limit in curve.limits)]
        for kind, name, curve in _curves(report)
    ]
    print_table(["by", "", "places", "half found from", "9 of 10 found from"], rows)


def _curves(report: DetectabilityReport) -> list[tuple[str, str, DetectionCurve]]:
    """Return the curves of a report, each with what its places have in common."""
    groups = {"all": {"all places": report.all}, "frame": report.by_frame, "source": report.by_kind}
    groups |= {"extent": report.by_extent, "coherence": report.by_coherence}
    return [(kind, name, curve) for kind, curves in groups.items() for name, curve in curves.items()]


def _limits_json(report: DetectabilityReport) -> list[dict[str, Any]]:
    return [
        {
            "by": kind,
            "group": name,
            **({"frame": name} if kind == "frame" else {}),
            "places": curve.places,
            **limit.model_dump(mode="json"),
        }
        for kind, name, curve in _curves(report)
        for limit in curve.limits
    ]


def _format_limit(limit: DetectionLimit) -> str:
    if math.isnan(limit.displacement_cm):
        return limit.note.split(",")[0]
    low = "below" if math.isnan(limit.low_cm) else f"{limit.low_cm:.2g}"
    high = "more" if math.isnan(limit.high_cm) else f"{limit.high_cm:.2g}"
    return f"{limit.displacement_cm:.2g} cm ({low} to {high}), {limit.fringes:.2g} fringes"


def _find_cube_to_map(target: str, settings: Settings) -> Path:
    """Return the path of a cube, preferring that of the simulated benchmark for its frames."""
    own = settings.for_simulated().data_dir / BENCHMARK_FOLDER / "cubes" / f"{target}.zarr"
    if not own.exists():
        return find_cube(target, settings)
    print_notice(f"{target}: using the cube of the simulated benchmark, {own}; give a path to use another")
    return own


def _open_experiment_grid(
    preset: str,
    cubes: Path | None,
    simulated: bool,
    mixed: bool,
    results: Path | None,
    part: str,
    weights: str | None,
    fields: Sequence[str] | None,
    data_dir: Path | None,
    unchecked: bool = False,
    results_alone: bool = False,
) -> tuple[ExperimentGrid, tuple[int, int]]:
    """Return the grid that the options describe, and the part of it to execute.

    With `results_alone` cubes need not be there, and none are made.
    """
    check_extra("baselines", "the benchmark")
    from hephaestus_baselines.config.run_config import read_preset
    from hephaestus_baselines.data.simulated_cubes import ensure_benchmark_cubes
    from hephaestus_baselines.experiments.experiment_grid import open_experiment_grid

    if cubes and simulated:
        raise UsageError("--simulated uses its own cubes: leave out --cubes or --simulated")
    share = parse_part(part)
    chosen = read_preset(preset)
    changes = parse_fields(fields or ())
    if weights:
        changes["weights"] = local_path("--weights", weights)
    chosen.make_recipes(**changes)  # reports wrong options before cubes are built
    settings = load_settings(data_dir=data_dir)
    home = settings.for_simulated() if simulated else settings
    known = (results or home.data_dir / "results") / chosen.name / "runs"
    if simulated and results_alone and known.is_dir():
        cubes = home.data_dir / BENCHMARK_FOLDER / "cubes"
    elif simulated:
        with show_progress() as listener:
            cubes = ensure_benchmark_cubes(settings, listener=listener)
    taken = select_cubes(settings, [cubes] if cubes else [], mixed=mixed)
    if taken.notice:
        print_notice(taken.notice)
    bench = open_experiment_grid(
        chosen,
        taken.stores or cubes or settings.cubes_dir,
        results or (taken.settings if taken.stores else home).data_dir / "results",
        mixed=mixed,
        command=format_command(sys.argv[1:]),
        unchecked=unchecked,
        results_alone=results_alone,
        **changes,
    )
    return bench, share


def parse_part(text: str) -> tuple[int, int]:
    """Parse ``i/n`` into (i, n).

    Raises
    ------
    UsageError
        If `text` has another form, or i is not between 1 and n.
    """
    number, slash, count = text.partition("/")
    if not (slash and number.isdecimal() and count.isdecimal() and 1 <= int(number) <= int(count)):
        raise UsageError(f"--part {text!r} is not a valid part: give i/n with i from 1 to n, such as 2/4")
    return int(number), int(count)


def parse_fields(texts: Sequence[str]) -> dict[str, Any]:
    """Parse ``name=value`` texts into fields, with values as YAML.

    Raises
    ------
    UsageError
        If a text has another form or its value is not YAML.
    """
    fields = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not (equals and name):
            raise UsageError(f"--set {text!r}: write name=value, such as --set epochs=3")
        try:
            fields[name] = parse_yaml(value)
        except ValueError as error:
            shown = sanitize_text(text, 80)
            raise UsageError(
                f"--set {shown!r}: its value is not YAML ({sanitize_text(error, 100)})"
            ) from error
    return fields


def format_command(arguments: Sequence[str]) -> str:
    """Return the command line for the records, with each path reduced to its last part."""
    return shlex.join(["hephaestus", *(_strip_path(text) for text in arguments)])


def _strip_path(text: str) -> str:
    name, equals, value = text.rpartition("=") if text.startswith("-") else ("", "", text)
    path = Path(value)
    return f"{name}{equals}{path.name if path.is_absolute() or '..' in path.parts else value}"


def _print_cost_estimate(found: CostEstimate, to: Any) -> None:
    number, count = found.part
    share = "" if count == 1 else f", part {number} of {count}"
    rows: dict[str, Any] = {
        "runs": f"{found.runs}, {found.finished} of them finished"
        + (" (on simulated data)" if found.simulated else ""),
        "models": ", ".join(found.models),
        "epochs": "-".join(str(value) for value in sorted(set(found.epochs))),
    }
    for kind, counts in found.samples.items():
        rows[f"samples, {kind}"] = ", ".join(f"{value} {name}" for name, value in counts.items())
    for part, covered in found.coverage.items():
        rows[f"seen, {part}"] = f"{covered.seen} of {covered.positives} positives"
    for item in found.hours:
        rows[f"time, {item.source}"] = f"{_format_duration(item.hours)} for {count_of(item.runs, 'run')}"
    if found.unknown:
        rows["time, not known yet"] = count_of(found.unknown, "run")
    rows["disk"] = f"{found.disk_bytes / 1e9:.1f} GB"
    print_fields(f"{found.preset}{share}", rows, to)
    if found.changed:
        print_notice(
            f"the cubes of {', '.join(found.changed)} have changed since this grid began; it continues with "
            f"the generations that it began with"
        )


def _format_duration(hours: float) -> str:
    return f"{hours:.1f} h" if hours >= 1.5 else f"{hours * 60:.0f} min"


def _print_run(end: RunOutcome, index: int) -> None:
    if end.result is not None:
        seconds = sum(end.result.seconds.values())
        state = "was finished" if end.was_finished else f"{seconds:.0f} s"
        err.print(f"{index:>4}  {end.recipe.key}  {state}  {format_headline_score(end.result)}")
    else:
        state = "failed" if end.error else "running in another process"
        err.print(f"{index:>4}  {end.recipe.key}  {state}")


def format_headline_score(result: Any) -> str:
    """Return a run's headline score on test, with that of the best control computed beside it."""
    from hephaestus_baselines.reporting.aggregate_tables import HEADLINE_SCORE

    unit: Any = "pixels" if result.task == "segmentation" else "items"
    name = HEADLINE_SCORE[unit]
    found = result.assessment.units[unit]
    controls = {"chance": found.test.chance[name], "always deformation": found.test.constant[name]}
    controls |= {control: scores.test.values[name] for control, scores in found.controls.items()}
    best = max(controls, key=lambda control: -1.0 if math.isnan(controls[control]) else controls[control])
    title = "F1" if name == "f1" else "average precision"
    return f"{title} {found.test.values[name]:.3f} ({best} {controls[best]:.3f})"


def _outcome_json(end: RunOutcome) -> dict[str, Any]:
    return {
        "key": end.recipe.key,
        "state": "failed"
        if end.error
        else "elsewhere"
        if end.is_running_elsewhere
        else "kept"
        if end.was_finished
        else "done",
        **({"error": end.error} if end.error else {}),
    }


def _print_tables(paths: Sequence[Path], *, markdown: bool = False) -> None:
    """Print the tables: as Markdown in a pipe or if asked for, else set for the terminal."""
    for path in paths:
        if path.suffix == ".md":
            text = sanitize_lines(path.read_text(encoding="utf-8"))
            if markdown or not sys.stdout.isatty():
                typer.echo(text)
            else:
                _print_rendered(text)
    for path in paths:
        err.print(str(path))


def _print_rendered(text: str) -> None:
    from hephaestus_baselines.reporting.plain_tables import PlainTable, plain_tables

    for part in plain_tables(text):
        if isinstance(part, PlainTable):
            print_table(part.columns, part.rows, numbers=part.columns[1:])
        else:
            out.print(part)


def _print_failures(ended: Sequence[RunOutcome]) -> None:
    """Print failed runs, one line for each cause, and the number of runs in other processes."""
    reasons: dict[str, list[RunOutcome]] = {}
    for end in ended:
        if end.error:
            reasons.setdefault(end.error.partition(": ")[2], []).append(end)
    for reason, ends in reasons.items():
        more = f" and {count_of(len(ends) - 1, 'more run')}" if len(ends) > 1 else ""
        print_notice(f"{ends[0].recipe.key}{more}: {reason}")
    if elsewhere := sum(end.is_running_elsewhere for end in ended):
        print_notice(
            f"{count_of(elsewhere, 'run')} still going on in another process; later "
            "`hephaestus benchmark tables` joins all"
        )
