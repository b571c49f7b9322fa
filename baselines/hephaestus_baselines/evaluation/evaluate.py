"""Assessment of one run's predictions."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from hephaestus_baselines.config.tasks import TASK_SPECS, ScoringUnit
from hephaestus_baselines.evaluation.alarms import detect_events, trace_alarm_curve
from hephaestus_baselines.evaluation.bootstrap import RESAMPLES, bootstrap_gaps, bootstrap_intervals
from hephaestus_baselines.evaluation.calibration import assess_calibration
from hephaestus_baselines.evaluation.controls import predict_control
from hephaestus_baselines.evaluation.metrics import (
    GROUPINGS,
    cases_by_unit,
    choose_threshold,
    count_false_alarms,
    fixed_threshold,
    score_by_group,
    score_predictions,
)
from hephaestus_baselines.evaluation.predictions import PredictedItem, Predictions
from hephaestus_baselines.evaluation.result_schema import (
    Assessment,
    ControlScores,
    Threshold,
    UnitScores,
)
from hephaestus_baselines.evaluation.same_places import score_same_places
from hephaestus_build.core.errors import UsageError


def evaluate_predictions(
    validation: Predictions,
    test: Predictions,
    *,
    controls: Mapping[str, Callable[[PredictedItem], float]] | None = None,
    pixel_controls: Mapping[str, tuple[Predictions, Predictions]] | None = None,
    seed: int = 0,
    resamples: int = RESAMPLES,
    units: Sequence[ScoringUnit] | None = None,
) -> Assessment:
    """Choose thresholds on `validation`, and score both parts with them, beside controls.

    Parameters
    ----------
    validation, test : Predictions
        Predictions of one model on one split.
    controls : mapping of str to callable, optional
        Scores of items by controls that look at no image (:mod:`hephaestus_baselines.evaluation.controls`).
    pixel_controls : mapping of str to tuple of Predictions, optional
        Validation and test predictions of controls with pixels, of the same items.
    seed : int
        Seed of the bootstrap intervals.
    resamples : int
        Number of bootstrap resamples.
    units : sequence of str, optional
        Units to score, ``interferograms`` among them; by default all of the task.

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
    scored: dict[ScoringUnit, UnitScores] = {}
    for unit in units or TASK_SPECS[test.source.task].units:
        seen, unseen = cases_by_unit(validation, unit), cases_by_unit(test, unit)
        threshold = choose_threshold(seen, unit)
        against: dict[str, tuple[Predictions, Predictions]] = {}
        if unit in ("pixels", "all-pixels"):
            against |= pixel_controls or {}
        else:
            for name, score in (controls or {}).items():
                against[name] = predict_control(name, score, seen), predict_control(name, score, unseen)
        scored[unit] = UnitScores(
            threshold=threshold,
            validation=score_predictions(seen, threshold),
            test=score_predictions(unseen, threshold),
            test_at_half=score_predictions(unseen, fixed_threshold(unseen, unit)),
            intervals=bootstrap_intervals(unseen, threshold, seed=seed, resamples=resamples),
            groups={kind: score_by_group(unseen, threshold, kind) for kind in GROUPINGS},
            controls={
                name: compare_with_control((unseen, threshold), found, seed=seed, resamples=resamples)
                for name, found in against.items()
            },
        )
    alarms = scored["interferograms"].threshold
    known, interferograms = validation.by_interferogram(), test.by_interferogram()
    return Assessment(
        units=scored,
        false_alarms=count_false_alarms(test, alarms),
        same_places=score_same_places(test),
        events=detect_events(interferograms, alarms.value),
        alarm_curve=trace_alarm_curve(interferograms),
        calibration=assess_calibration(known, interferograms),
    )


def compare_with_control(
    model: tuple[Predictions, Threshold],
    control: tuple[Predictions, Predictions],
    *,
    seed: int = 0,
    resamples: int = RESAMPLES,
) -> ControlScores:
    """Return the scores of a control beside a model, with the gaps between them.

    Parameters
    ----------
    model : tuple of Predictions and Threshold
        Test predictions of a model in a unit, and its threshold.
    control : tuple of Predictions
        Validation and test predictions of the control, on the same items. Its threshold is chosen on
        validation, as the model's is.
    seed : int
        Seed of the bootstrap intervals.
    resamples : int
        Number of bootstrap resamples.
    """
    unit = model[1].unit
    seen, unseen = (cases_by_unit(found, unit) for found in control)
    threshold = choose_threshold(seen, unit)
    alarms = unit == "interferograms"
    events = detect_events(unseen, threshold.value) if alarms else None
    return ControlScores(
        threshold=threshold,
        test=score_predictions(unseen, threshold),
        gaps=bootstrap_gaps(model, (unseen, threshold), seed=seed, resamples=resamples),
        events=events and events.model_copy(update={"detections": []}),
        budgets=trace_alarm_curve(unseen).budgets if alarms else {},
    )
