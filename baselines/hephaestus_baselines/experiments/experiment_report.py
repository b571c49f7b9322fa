"""The report of a grid: tables and figures of its finished runs, and of folds that are scored together."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

from hephaestus_baselines.config.architecture_catalog import MODELS
from hephaestus_baselines.config.run_config import Recipe
from hephaestus_baselines.config.tasks import ScoringUnit
from hephaestus_baselines.evaluation.assess_kinds import compare_kinds
from hephaestus_baselines.evaluation.bootstrap import bootstrap_gaps
from hephaestus_baselines.evaluation.controls import make_controls
from hephaestus_baselines.evaluation.kind_schema import KindRunResult, read_kind_reports
from hephaestus_baselines.evaluation.predictions import PredictedItem, Predictions
from hephaestus_baselines.evaluation.result_schema import Gap, RunResult
from hephaestus_baselines.experiments.experiment_grid import AnyResult, ExperimentGrid
from hephaestus_baselines.experiments.pooled_folds import group_folds, pool_folds
from hephaestus_baselines.reporting.aggregate_tables import make_result_tables
from hephaestus_baselines.reporting.atmosphere_effect import measure_atmosphere_effects
from hephaestus_baselines.reporting.published_scores import PublishedSize
from hephaestus_baselines.reporting.table_schema import TrainedControlGaps
from hephaestus_build.core.errors import HephaestusError

_TEST_PREDICTIONS_FILE = "test.npz"


def write_experiment_report(
    bench: ExperimentGrid, problems: list[str] | None = None, *, allow_unseen: bool = False
) -> list[Path]:
    """Write the tables and figures of finished runs; return the files.

    Parameters
    ----------
    bench : ExperimentGrid
        The grid.
    problems : list of str, optional
        Descriptions of damaged files, which are skipped, are appended here.
    allow_unseen : bool
        Whether to write tables although the windows show too little of the deformation.

    Raises
    ------
    UsageError
        If the windows show less than nine tenths of the positives, unless `allow_unseen`.
    HephaestusError
        If no run is finished or a file cannot be written. Also if a file is damaged and `problems` is not
        given; tables and figures of the other runs have been written then.
    """
    from hephaestus_baselines.reporting.run_figures import write_run_figures

    found: list[str] = []
    results = bench.read_results(found)
    if found and not results:
        raise HephaestusError(found[0])
    gaps = _compare_with_trained_controls(bench, results, found)
    homes = {recipe.key: bench.run_folder(recipe) for recipe in bench.recipes}
    detection = [result for result in results if isinstance(result, RunResult)]
    shown, shown_gaps = detection, gaps
    pooled: dict[str, Predictions] = {}
    if bench.folds and detection:
        shown, shown_gaps, pooled = _pool(bench, detection, homes, found)
    effects = measure_atmosphere_effects(
        shown,
        lambda result: pooled.get(result.key) or Predictions.read(homes[result.key] / _TEST_PREDICTIONS_FILE),
        found,
    )
    sizes = {name: PublishedSize(model.published_parameters, model.note) for name, model in MODELS.items()}
    told = [result for result in results if isinstance(result, KindRunResult)]
    every: list[AnyResult] = [*shown, *told]
    kinds = read_kind_reports(bench.folder.parent, every[0].split.sha256, found) if every else []
    tables = make_result_tables(every, shown_gaps, effects, sizes, kinds, allow_unseen=allow_unseen)
    written = list(tables.write(bench.folder))
    prepared = None if bench.cubes is None else bench.prepare_run_data
    written += write_run_figures(bench.folder, results, homes, prepared, found)
    if problems is not None:
        problems += found
    elif found:
        more = f" (and {len(found) - 1} more files)" if len(found) > 1 else ""
        raise HephaestusError(f"{found[0]}{more}")
    return written


def _pool(
    bench: ExperimentGrid, results: Sequence[RunResult], homes: Mapping[str, Path], problems: list[str]
) -> tuple[list[RunResult], dict[str, TrainedControlGaps], dict[str, Predictions]]:
    """Return one result for each setting and seed with all folds finished, gaps to controls, predictions.

    Raises
    ------
    HephaestusError
        If there is none, or none can be scored.
    """
    complete = [members for members in group_folds(results) if len(members) == len(bench.folds)]
    if not complete:
        raise HephaestusError(
            f"no run has all of its {len(bench.folds)} folds finished; go on with `hephaestus benchmark run`"
        )
    pooled: list[tuple[RunResult, Predictions]] = []
    for members in complete:
        try:
            pooled.append(pool_folds(members, homes, partial(_fold_controls, bench)))
        except HephaestusError as error:
            problems.append(str(error))
    if not pooled:
        raise HephaestusError(problems[-1])
    gaps: dict[str, TrainedControlGaps] = {}
    for result, ours in pooled:
        for control, theirs in pooled:
            name = control.recipe.get("control")
            same = (control.task, control.series) == (result.task, result.series)
            if name and same and not result.recipe.get("control"):
                gaps.setdefault(result.key, {})[name] = _gaps_by_unit(result, ours, control, theirs)
    return [result for result, _ in pooled], gaps, {result.key: ours for result, ours in pooled}


def _fold_controls(bench: ExperimentGrid, recipe: Recipe) -> dict[str, Callable[[PredictedItem], float]]:
    """Return the controls of a run that kept no scores of them, from the cubes."""
    if bench.cubes is None:
        raise HephaestusError(
            f"{recipe.key}: an earlier version scored it and kept no scores of its controls, which read the "
            f"cubes ({bench.without_cubes})"
        )
    return make_controls(recipe, bench.prepare_run_data(recipe))


def _gaps_by_unit(
    result: AnyResult, ours: Predictions, control: AnyResult, theirs: Predictions
) -> dict[ScoringUnit, dict[str, Gap]]:
    if isinstance(result, KindRunResult):
        return {"deforming-items": compare_kinds([(ours, theirs)], result.assessment.kept, seed=result.seed)}
    assert isinstance(control, RunResult)
    return {
        unit: bootstrap_gaps(
            (ours, result.assessment.units[unit].threshold),
            (theirs, control.assessment.units[unit].threshold),
            seed=result.seed,
        )
        for unit in result.assessment.units
    }


def _compare_with_trained_controls(
    bench: ExperimentGrid, results: Sequence[AnyResult], problems: list[str]
) -> dict[str, TrainedControlGaps]:
    """Return the gaps of each run to the trained controls of its task and input, by the run's key.

    Predictions of both are needed; runs whose predictions are elsewhere have no gap.
    """
    recipes = {recipe.key: recipe for recipe in bench.recipes}
    controls = [result for result in results if recipes[result.key].control]
    gaps: dict[str, TrainedControlGaps] = {}
    for result in results:
        if recipes[result.key].control:
            continue
        for control in controls:
            if (control.task, control.series, control.split.sha256) != (
                result.task, result.series, result.split.sha256,
            ):  # fmt: skip
                continue
            try:
                ours, theirs = (
                    Predictions.read(bench.run_folder(recipes[one.key]) / _TEST_PREDICTIONS_FILE)
                    for one in (result, control)
                )
            except HephaestusError as error:
                problems.append(f"{result.key}: no gap to {recipes[control.key].control}: {error}")
                continue
            gaps.setdefault(result.key, {})[recipes[control.key].control] = _gaps_by_unit(
                result, ours, control, theirs
            )
    return gaps
