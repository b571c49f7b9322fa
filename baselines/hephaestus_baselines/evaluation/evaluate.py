"""Assessment of one run's predictions."""

from __future__ import annotations

from hephaestus_baselines.evaluation.bootstrap import RESAMPLES, bootstrap_intervals
from hephaestus_baselines.evaluation.metrics import (
    GROUPINGS,
    UNITS_BY_TASK,
    cases_by_unit,
    choose_threshold,
    count_false_alarms,
    fixed_threshold,
    score_by_group,
    score_predictions,
)
from hephaestus_baselines.evaluation.predictions import Predictions
from hephaestus_baselines.evaluation.result_schema import Assessment, ScoringUnit, UnitScores
from hephaestus_build.core.errors import UsageError


def evaluate_predictions(
    validation: Predictions, test: Predictions, *, seed: int = 0, resamples: int = RESAMPLES
) -> Assessment:
    """Choose thresholds on `validation`, and score both parts with them.

    Parameters
    ----------
    validation, test : Predictions
        Predictions of one model on one split.
    seed : int
        Seed of the bootstrap intervals.
    resamples : int
        Number of bootstrap resamples.

    Raises
    ------
    UsageError
        If the predictions are not of the validation and test parts of one model.
    """
    if (validation.part, test.part) != ("validation", "test") or validation.source != test.source:
        raise UsageError(
            f"{validation.part} of {validation.source.model} and {test.part} of {test.source.model} do not "
            "go together: give validation and test of one run"
        )
    units: dict[ScoringUnit, UnitScores] = {}
    for unit in UNITS_BY_TASK[test.source.task]:
        seen, unseen = cases_by_unit(validation, unit), cases_by_unit(test, unit)
        threshold = choose_threshold(seen, unit)
        units[unit] = UnitScores(
            threshold=threshold,
            validation=score_predictions(seen, threshold),
            test=score_predictions(unseen, threshold),
            test_at_half=score_predictions(unseen, fixed_threshold(unseen, unit)),
            intervals=bootstrap_intervals(unseen, threshold, seed=seed, resamples=resamples),
            groups={kind: score_by_group(unseen, threshold, kind) for kind in GROUPINGS},
        )
    return Assessment(units=units, false_alarms=count_false_alarms(test, units["interferograms"].threshold))
