"""Assessment: everything that is said about one run's predictions."""

from __future__ import annotations

from hephaestus_baselines.evaluation.bootstrap import RESAMPLES, intervals
from hephaestus_baselines.evaluation.metrics import (
    GROUPS,
    UNITS,
    by_group,
    cases_of,
    choose_threshold,
    false_alarms,
    fixed_threshold,
    score,
)
from hephaestus_baselines.evaluation.predictions import Predictions
from hephaestus_baselines.evaluation.result_schema import Assessment, Unit, UnitScores
from hephaestus_build.core.errors import UsageError


def assess(
    validation: Predictions, test: Predictions, *, seed: int = 0, resamples: int = RESAMPLES
) -> Assessment:
    """Choose thresholds on `validation` and score both parts with them.

    Parameters
    ----------
    validation, test : Predictions
        Of one model on one split.
    seed : int
        Of the intervals' resamples.
    resamples : int

    Raises
    ------
    UsageError
        If the two are not validation and test of one model.
    """
    if (validation.part, test.part) != ("validation", "test") or validation.source != test.source:
        raise UsageError(
            f"{validation.part} of {validation.source.model} and {test.part} of {test.source.model} do not "
            "go together: give validation and test of one run"
        )
    units: dict[Unit, UnitScores] = {}
    for unit in UNITS[test.source.task]:
        seen, unseen = cases_of(validation, unit), cases_of(test, unit)
        threshold = choose_threshold(seen, unit)
        units[unit] = UnitScores(
            threshold=threshold,
            validation=score(seen, threshold),
            test=score(unseen, threshold),
            test_at_half=score(unseen, fixed_threshold(unseen, unit)),
            intervals=intervals(unseen, threshold, seed=seed, resamples=resamples),
            groups={kind: by_group(unseen, threshold, kind) for kind in GROUPS},
        )
    return Assessment(units=units, false_alarms=false_alarms(test, units["interferograms"].threshold))
