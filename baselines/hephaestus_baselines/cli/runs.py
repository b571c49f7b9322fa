"""``hephaestus benchmark run``, ``plan`` and ``tables``: the runs of a preset."""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hephaestus_baselines.cli.cubes import select_benchmark_cubes
from hephaestus_baselines.cli.options import (
    AllowUnseenOption,
    BatchOption,
    BenchmarkCubesOption,
    BenchmarkSimulatedOption,
    BenchmarkWorldOption,
    DeviceOption,
    FieldsOption,
    PartOption,
    PresetArgument,
    ResultsOption,
    TasksOption,
    UncheckedOption,
    WeightsOption,
    format_command,
    parse_batch,
    parse_fields,
)
from hephaestus_build.cli.console import (
    err,
    out,
    print_fields,
    print_json,
    print_notice,
    print_table,
    worst_exit_code,
)
from hephaestus_build.cli.options import JSON_OPTION, DataDirOption, MixedOption, parse_part
from hephaestus_build.core.atomic_io import require_writable
from hephaestus_build.core.errors import MissingProductsError
from hephaestus_build.core.extras import check_extra
from hephaestus_build.core.machine.user_paths import local_path
from hephaestus_build.core.plain_text import count_of
from hephaestus_build.core.progress import show_progress
from hephaestus_build.core.settings import load_settings
from hephaestus_build.core.terminal import sanitize_lines

if TYPE_CHECKING:
    from hephaestus_baselines.config.run_config import Recipe
    from hephaestus_baselines.experiments.cost_estimate import CostEstimate
    from hephaestus_baselines.experiments.experiment_grid import ExperimentGrid, RunOutcome


def run(
    preset: PresetArgument = "small",
    cubes: BenchmarkCubesOption = None,
    simulated: BenchmarkSimulatedOption = False,
    world: BenchmarkWorldOption = 0,
    mixed: MixedOption = False,
    results: ResultsOption = None,
    part: PartOption = "1/1",
    weights: WeightsOption = None,
    batch: BatchOption = None,
    fields: FieldsOption = None,
    tasks: TasksOption = None,
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
        preset,
        cubes,
        simulated,
        mixed,
        results,
        part,
        weights,
        fields,
        data_dir,
        tasks=tasks,
        batch=batch,
        unchecked=unchecked,
        world=world,
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


def plan(
    preset: PresetArgument = "small",
    cubes: BenchmarkCubesOption = None,
    simulated: BenchmarkSimulatedOption = False,
    world: BenchmarkWorldOption = 0,
    mixed: MixedOption = False,
    results: ResultsOption = None,
    part: PartOption = "1/1",
    weights: WeightsOption = None,
    batch: BatchOption = None,
    fields: FieldsOption = None,
    tasks: TasksOption = None,
    unchecked: UncheckedOption = False,
    data_dir: DataDirOption = None,
    as_json: bool = JSON_OPTION,
) -> None:
    """Estimate what the runs of a preset need: samples, epochs, hours, disk space."""
    bench, share = _open_experiment_grid(
        preset,
        cubes,
        simulated,
        mixed,
        results,
        part,
        weights,
        fields,
        data_dir,
        tasks=tasks,
        batch=batch,
        unchecked=unchecked,
        world=world,
    )
    from hephaestus_baselines.experiments.cost_estimate import estimate_cost

    found = estimate_cost(bench, share)
    if as_json:
        print_json(found.to_json())
    else:
        _print_cost_estimate(found, out)


def tables(
    preset: PresetArgument = "small",
    cubes: BenchmarkCubesOption = None,
    simulated: BenchmarkSimulatedOption = False,
    world: BenchmarkWorldOption = 0,
    mixed: MixedOption = False,
    results: ResultsOption = None,
    weights: WeightsOption = None,
    batch: BatchOption = None,
    fields: FieldsOption = None,
    tasks: TasksOption = None,
    unchecked: UncheckedOption = False,
    allow_unseen: AllowUnseenOption = False,
    markdown: Annotated[
        bool, typer.Option("--markdown", help="Print Markdown on a terminal too, as in a pipe.")
    ] = False,
    data_dir: DataDirOption = None,
    as_json: bool = JSON_OPTION,
) -> None:
    """Write the tables and figures of all finished runs, including those copied from other machines.

    Where the cubes are gone, tables are made of the results alone; pictures of predictions are left out.
    """
    bench, _ = _open_experiment_grid(
        preset, cubes, simulated, mixed, results, "1/1", weights, fields, data_dir, tasks=tasks,
        batch=batch, unchecked=unchecked, results_alone=True, world=world,
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
    tasks: Sequence[str] | None = None,
    batch: str | None = None,
    unchecked: bool = False,
    results_alone: bool = False,
    world: int = 0,
) -> tuple[ExperimentGrid, tuple[int, int]]:
    """Return the grid that the options describe, and the part of it to execute.

    With `results_alone` cubes need not be there, and none are made.
    """
    check_extra("baselines", "the benchmark")
    from hephaestus_baselines.config.run_config import read_preset
    from hephaestus_baselines.data.simulated_cubes import benchmark_folder
    from hephaestus_baselines.experiments.experiment_grid import open_experiment_grid

    share = parse_part(part)
    chosen = read_preset(preset)
    if tasks:
        chosen = chosen.select_tasks(tasks)
    changes = parse_fields(fields or ())
    if weights:
        changes["weights"] = local_path("--weights", weights)
    if batch:
        changes["batch_size"] = parse_batch(batch)
    recipes = chosen.make_recipes(**changes)  # reports wrong options before cubes are built
    if not results_alone:
        _require_known_models(recipes)
    if results:
        require_writable(results, "--results")
    settings = load_settings(data_dir=data_dir)
    home = settings.for_simulated() if simulated else settings
    folder = f"results-{world}" if world else "results"
    known = (results or home.data_dir / folder) / chosen.name / "runs"
    if simulated and not cubes and results_alone and known.is_dir():
        cubes, simulated, world = home.data_dir / benchmark_folder(world) / "cubes", False, 0
    taken = select_benchmark_cubes(
        settings, cubes, simulated=simulated, mixed=mixed, world=world, required=False
    )
    bench = open_experiment_grid(
        chosen,
        taken.stores or cubes or settings.cubes_dir,
        results or (taken.settings if taken.stores else home).data_dir / folder,
        mixed=mixed,
        command=format_command(sys.argv[1:]),
        unchecked=unchecked,
        results_alone=results_alone,
        **changes,
    )
    return bench, share


def _require_known_models(recipes: Iterable[Recipe]) -> None:
    """Raise UsageError if a run's model is unknown, or for another task."""
    from hephaestus_baselines.config.architecture_catalog import find_architecture

    for model, task, method in dict.fromkeys((run.model, run.task, run.method) for run in recipes):
        if method == "trained":
            find_architecture(model, task)
        else:
            from hephaestus_baselines.models.architectures import find_timm_network

            find_timm_network(model)


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
        chosen = end.result.recipe.get("chosen_batch")
        batch = f"  batch {chosen}" if chosen else ""
        err.print(f"{index:>4}  {end.recipe.key}  {state}{batch}  {format_headline_score(end.result)}")
    else:
        state = "failed" if end.error else "running in another process"
        err.print(f"{index:>4}  {end.recipe.key}  {state}")


def format_headline_score(result: Any) -> str:
    """Return a run's headline score on test, with that of the best control computed beside it."""
    from hephaestus_baselines.evaluation.kind_schema import KindRunResult
    from hephaestus_baselines.reporting.headline import find_kind_headline
    from hephaestus_baselines.reporting.table_schema import HEADLINE_SCORE

    if isinstance(result, KindRunResult):
        told = find_kind_headline(result)
        beside = (
            result.assessment.controls[told.control].scores[told.score].value if told.control else math.nan
        )
        return (
            f"macro F1 {_format_score(told.value)} ({told.control or 'no control'} {_format_score(beside)})"
        )
    unit: Any = "pixels" if result.task == "segmentation" else "items"
    name = HEADLINE_SCORE[unit]
    found = result.assessment.units[unit]
    controls = {"chance": found.test.chance[name], "always deformation": found.test.constant[name]}
    controls |= {control: scores.test.values[name] for control, scores in found.controls.items()}
    best = max(controls, key=lambda control: -1.0 if math.isnan(controls[control]) else controls[control])
    title = "F1" if name == "f1" else "average precision"
    return f"{title} {_format_score(found.test.values[name])} ({best} {_format_score(controls[best])})"


def _format_score(value: float) -> str:
    return "undefined" if math.isnan(value) else f"{value:.3f}"


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
