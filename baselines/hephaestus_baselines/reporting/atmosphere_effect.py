"""Effect of the atmosphere: runs with it against runs without, all else equal, as paired differences."""

from __future__ import annotations

import json
import math
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence

from hephaestus_baselines.config.tasks import DetectionTask, ScoringUnit
from hephaestus_baselines.evaluation.bootstrap import bootstrap_gaps
from hephaestus_baselines.evaluation.predictions import Predictions
from hephaestus_baselines.evaluation.result_schema import Gap, RunResult
from hephaestus_baselines.reporting.table_schema import AtmosphereEffect
from hephaestus_build.core.errors import HephaestusError

#: Scores that are compared, by task and unit.
_COMPARED: Mapping[DetectionTask, tuple[tuple[ScoringUnit, tuple[str, ...]], ...]] = {
    "classification": (
        ("items", ("f1", "auroc", "average_precision")),
        ("interferograms", ("f1", "auroc", "average_precision")),
    ),
    "segmentation": (
        ("pixels", ("f1", "iou")),
        ("interferograms", ("f1", "auroc", "average_precision")),
    ),
}


def match_atmosphere_runs(results: Sequence[RunResult]) -> Iterator[tuple[RunResult, RunResult]]:
    """Yield runs with atmosphere, each with the run without that is equal in everything else."""
    without = {_other_settings(result): result for result in results if not result.atmosphere}
    for result in results:
        if result.atmosphere and (other := without.get(_other_settings(result))):
            yield result, other


def measure_atmosphere_effects(
    results: Sequence[RunResult], read: Callable[[RunResult], Predictions], problems: list[str]
) -> list[AtmosphereEffect]:
    """Return the effect of the atmosphere on the scores of each setting, over its seeds.

    Parameters
    ----------
    results : sequence of RunResult
        Finished runs.
    read : callable
        Returns the test predictions of a run.
    problems : list of str
        Descriptions of what cannot be read or compared are appended here.
    """
    found: dict[tuple[str, ScoringUnit, str], list[tuple[RunResult, Gap]]] = defaultdict(list)
    for result, other in match_atmosphere_runs(results):
        try:
            ours, theirs = read(result), read(other)
            for unit, scores in _COMPARED[result.task]:
                gaps = bootstrap_gaps(
                    (ours, result.assessment.units[unit].threshold),
                    (theirs, other.assessment.units[unit].threshold),
                    seed=result.seed,
                )
                for score in scores:
                    found[_setting(result), unit, score].append((result, gaps[score]))
        except HephaestusError as error:
            problems.append(f"{result.key}: no effect of the atmosphere: {error}")
    return [_summarize(unit, score, members) for (_, unit, score), members in found.items()]


def _summarize(unit: ScoringUnit, score: str, members: Sequence[tuple[RunResult, Gap]]) -> AtmosphereEffect:
    first = members[0][0]
    gaps = [gap for _, gap in members]
    means = [gap.value for gap in gaps if not math.isnan(gap.value)]
    return AtmosphereEffect(
        task=first.task,
        model=first.model,
        series=first.series,
        form=str(first.recipe.get("atmosphere", "")),
        unit=unit,
        score=score,
        seeds=[result.seed for result, _ in members],
        mean=sum(means) / len(means) if means else math.nan,
        low=min((gap.low for gap in gaps if not math.isnan(gap.low)), default=math.nan),
        high=max((gap.high for gap in gaps if not math.isnan(gap.high)), default=math.nan),
    )


def _other_settings(result: RunResult) -> str:
    """Return everything that tells a run from others, except for the atmosphere."""
    kept = {name: value for name, value in result.recipe.items() if name not in ("atmosphere", "workers")}
    return json.dumps([result.task, result.model, result.series, result.split.sha256, kept], sort_keys=True)


def _setting(result: RunResult) -> str:
    kept = {
        name: value for name, value in result.recipe.items() if name not in ("seed", "workers", "devices")
    }
    return json.dumps([result.task, result.model, result.series, kept], sort_keys=True)
