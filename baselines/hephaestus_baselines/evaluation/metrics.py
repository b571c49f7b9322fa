"""Scores of predictions, with the scores of random and constant predictors for comparison.

Thresholds are chosen on the validation part only: `choose_threshold` rejects other predictions, and
`score_predictions` accepts no plain number, only a `Threshold` of the same model and split.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from functools import cached_property
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt

from hephaestus_baselines.config.tasks import TASK_SPECS, ScoringUnit
from hephaestus_baselines.evaluation.predictions import PROBABILITY_BINS, PixelSet, PredictedItem, Predictions
from hephaestus_baselines.evaluation.result_schema import (
    FalseAlarms,
    FrameAlarms,
    Scores,
    Threshold,
)
from hephaestus_build.core.errors import UsageError
from hephaestus_build.core.frames import Pair

#: The scores of each unit, in the order of the paper's tables.
METRICS_BY_UNIT: Mapping[ScoringUnit, tuple[str, ...]] = {
    "items": ("precision", "recall", "f1", "auroc", "average_precision"),
    "interferograms": ("precision", "recall", "f1", "auroc", "average_precision"),
    "pixels": ("precision", "recall", "f1", "iou"),
    "all-pixels": ("precision", "recall", "f1", "iou"),
}
_PIXEL_SET_BY_UNIT: Mapping[ScoringUnit, PixelSet] = {"pixels": "data", "all-pixels": "all"}
GROUPINGS: Mapping[str, Callable[[PredictedItem], tuple[str, ...]]] = {
    "frame": lambda row: (row.frame,),
    "region": lambda row: (row.region,) if row.region else (),
    "activity_type": lambda row: row.activity_types,
    "intensity": lambda row: row.intensities,
    "volcano": lambda row: row.volcanoes,
}
#: Properties of deformation: groups that only items with deformation belong to. Intensity counts fringes.
DeformationKind = Literal["intensity", "activity_type", "volcano"]
DEFORMATION_KINDS: tuple[DeformationKind, ...] = get_args(DeformationKind)
_DAYS_PER_YEAR = 365.25


def compute_rates(
    true_positives: npt.NDArray[Any] | float,
    false_positives: npt.NDArray[Any] | float,
    false_negatives: npt.NDArray[Any] | float,
) -> dict[str, npt.NDArray[Any]]:
    """Return precision, recall, F1 and IoU of counts, elementwise; NaN where they are undefined.

    Precision is undefined without predicted positives; recall, F1 and IoU without deformation to find. F1
    and IoU are 0 where there is deformation to find and none is predicted.
    """
    hit, false, missed = (
        np.asarray(value, "f8") for value in (true_positives, false_positives, false_negatives)
    )
    sought = np.where(hit + missed > 0, 1.0, np.nan)
    with np.errstate(invalid="ignore", divide="ignore"):
        return {
            "precision": hit / (hit + false),
            "recall": hit / (hit + missed),
            "f1": sought * 2 * hit / (2 * hit + false + missed),
            "iou": sought * hit / (hit + false + missed),
        }


@dataclass(frozen=True)
class RankedScores:
    """Items ranked by probability, sorted once for any number of weightings.

    Parameters
    ----------
    label : numpy.ndarray
        bool, shape (N,), the truth.
    probability : numpy.ndarray
        Shape (N,), the predictions.
    """

    label: np.ndarray
    probability: np.ndarray

    @cached_property
    def _negatives(self) -> np.ndarray:
        quiet = np.flatnonzero(~self.label)
        return quiet[np.argsort(self.probability[quiet], kind="stable")]

    @cached_property
    def _positives(self) -> np.ndarray:
        deforming = np.flatnonzero(self.label)
        return deforming[np.argsort(-self.probability[deforming], kind="stable")]

    def compute_areas(self, weight: npt.NDArray[Any] | None = None) -> dict[str, npt.NDArray[Any]]:
        """Return the area under the ROC curve and the average precision.

        Parameters
        ----------
        weight : numpy.ndarray, optional
            Weight of each item, shape (..., N); 1 by default.

        Returns
        -------
        dict
            ``auroc`` (a tie counts half) and ``average_precision`` (precision summed over the steps of
            recall, without interpolation), each of shape (...); NaN without positives, ``auroc`` also
            without negatives.
        """
        if weight is None:
            weight = np.ones(len(self.label))
        positives, negatives = self._positives, self._negatives
        found, scores = self.probability[positives], self.probability[negatives]
        weights = weight[..., positives].astype("f8")
        below = np.zeros((*weight.shape[:-1], len(negatives) + 1))
        np.cumsum(weight[..., negatives], axis=-1, out=below[..., 1:])
        total, quiet = weights.sum(-1), below[..., -1]
        lower = below[..., np.searchsorted(scores, found, "left")]
        not_higher = below[..., np.searchsorted(scores, found, "right")]
        # tied probabilities share one cut, so all ties count in the precision of each
        last = np.searchsorted(-found, -found, "right") - 1
        hits = np.cumsum(weights, axis=-1)[..., last]
        with np.errstate(invalid="ignore", divide="ignore"):
            auroc = (weights * (lower + not_higher)).sum(-1) / (2 * total * quiet)
            precision = hits / (hits + quiet[..., None] - lower)
            average = np.where(weights > 0, weights * precision, 0).sum(-1) / total
        return {"auroc": auroc, "average_precision": average}


def count_at_or_above(pixels: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Return the number of pixels at or above each bin of histograms, shape (..., BINS)."""
    return np.cumsum(pixels[..., ::-1], axis=-1, dtype=np.int64)[..., ::-1]


def threshold_bin(value: float) -> int:
    """Return the histogram bin that begins at a threshold.

    Raises
    ------
    ValueError
        If no bin begins there, so that the pixels above it cannot be counted.
    """
    step = round(value * PROBABILITY_BINS)
    if step / PROBABILITY_BINS != value or not 0 <= step < PROBABILITY_BINS:
        raise ValueError(f"pixels are counted in steps of 1/{PROBABILITY_BINS}; {value} is no such step")
    return step


def choose_threshold(validation: Predictions, unit: ScoringUnit) -> Threshold:
    """Choose the threshold with the highest F1 on the validation part; of equally good ones, the middle.

    Raises
    ------
    UsageError
        If the predictions are of another part; a threshold chosen on the test part would bias its scores.
    """
    if validation.part != "validation":
        raise UsageError(
            f"a threshold is chosen on validation, not on {validation.part}: give validation's predictions"
        )
    cases = cases_by_unit(validation, unit)
    if unit in _PIXEL_SET_BY_UNIT:
        assert cases.pixels is not None
        quiet, deforming = cases.pixels[_PIXEL_SET_BY_UNIT[unit]].sum(axis=0, dtype=np.int64)
        value = (
            _best_bin(count_at_or_above(deforming), count_at_or_above(quiet)) / PROBABILITY_BINS
            if deforming.any()
            else None
        )
    else:
        value = _best_probability(cases.label, cases.probability)
    if value is None:
        reason = "validation has no deformation to choose it by"
        return fixed_threshold(validation, unit).model_copy(update={"reason": reason})
    return _make_threshold(validation, unit, value, "validation")


def fixed_threshold(predictions: Predictions, unit: ScoringUnit, value: float = 0.5) -> Threshold:
    """Return a threshold with a given value, not chosen on data."""
    return _make_threshold(predictions, unit, value, "nothing")


def _make_threshold(predictions: Predictions, unit: ScoringUnit, value: float, chosen_on: str) -> Threshold:
    source = predictions.source
    return Threshold.model_validate(
        {
            "value": value,
            "unit": unit,
            "chosen_on": chosen_on,
            "model": source.model,
            "split_sha256": source.sha256,
        }
    )


def _best_bin(hits: np.ndarray, false: np.ndarray) -> int:
    f1 = compute_rates(hits, false, hits[0] - hits)["f1"]
    first = last = int(np.argmax(f1))
    while last + 1 < len(f1) and f1[last + 1] == f1[first]:
        last += 1
    return (first + last + 1) // 2


def _best_probability(label: np.ndarray, probability: np.ndarray) -> float | None:
    if not label.any():
        return None
    values = np.unique(probability)[::-1]  # every distinct cut, the strictest first
    place = np.searchsorted(-values, -probability)
    hits, all_ = (
        np.cumsum(np.bincount(place, weights, len(values))) for weights in (label.astype("f8"), None)
    )
    best = int(np.argmax(compute_rates(hits, all_ - hits, label.sum() - hits)["f1"]))
    if best + 1 == len(values):
        return float(values[best])
    middle = np.float32((float(values[best]) + float(values[best + 1])) / 2)
    return float(middle if middle > values[best + 1] else values[best])


def cases_by_unit(predictions: Predictions, unit: ScoringUnit) -> Predictions:
    """Return the predictions with one case per `unit`.

    Raises
    ------
    UsageError
        If the task is not scored in that unit.
    """
    if unit not in TASK_SPECS[predictions.source.task].units:
        raise UsageError(f"a {predictions.source.task} is not scored by {unit}")
    if unit == "interferograms":
        return predictions.by_interferogram()
    return predictions.select(predictions.scored) if unit in ("items", "deforming-items") else predictions


def count_confusion(predictions: Predictions, threshold: Threshold) -> npt.NDArray[np.int64]:
    """Return the confusion counts of each case.

    Parameters
    ----------
    predictions : Predictions
        Cases of the threshold's unit.
    threshold : Threshold

    Returns
    -------
    numpy.ndarray
        int64, shape (N, 4): true positives, false positives, false negatives, true negatives, in pixels or
        in cases.
    """
    if threshold.unit in _PIXEL_SET_BY_UNIT:
        assert predictions.pixels is not None
        pixels, step = predictions.pixels[_PIXEL_SET_BY_UNIT[threshold.unit]], threshold_bin(threshold.value)
        above, below = (
            part.sum(axis=-1, dtype=np.int64) for part in (pixels[..., step:], pixels[..., :step])
        )
        return np.stack([above[:, 1], above[:, 0], below[:, 1], below[:, 0]], axis=1)
    label, alarm = predictions.label, predictions.probability >= np.float32(threshold.value)
    return np.stack([label & alarm, ~label & alarm, label & ~alarm, ~label & ~alarm], axis=1).astype("i8")


def score_predictions(predictions: Predictions, threshold: Threshold) -> Scores:
    """Score predictions at a threshold, in the threshold's unit.

    Raises
    ------
    UsageError
        If the threshold belongs to another model or another split.
    """
    source = predictions.source
    if (threshold.model, threshold.split_sha256) != (source.model, source.sha256):
        raise UsageError(
            f"this threshold was chosen for {threshold.model}, not for {source.model} on {source.split}: "
            "choose one with choose_threshold"
        )
    return _compute_scores(cases_by_unit(predictions, threshold.unit), threshold)


def _compute_scores(cases: Predictions, threshold: Threshold) -> Scores:
    hit, false, missed, quiet = (int(value) for value in count_confusion(cases, threshold).sum(axis=0))
    positives, items = hit + missed, hit + false + missed + quiet
    found = {name: float(value) for name, value in compute_rates(hit, false, missed).items()}
    if threshold.unit not in _PIXEL_SET_BY_UNIT:
        areas = RankedScores(cases.label, cases.probability).compute_areas()
        found |= {name: float(value) for name, value in areas.items()}
    names = METRICS_BY_UNIT[threshold.unit]
    chance, constant = baseline_scores(positives, items)
    return Scores(
        items=items,
        positives=positives,
        true_positives=hit,
        false_positives=false,
        false_negatives=missed,
        true_negatives=quiet,
        threshold=threshold.value,
        values={name: found[name] for name in names},
        undefined={
            name: _undefined_reason(name, positives, items) for name in names if math.isnan(found[name])
        },
        chance={name: chance[name] for name in names},
        constant={name: constant[name] for name in names},
    )


def _undefined_reason(name: str, positives: int, items: int) -> str:
    if not items:
        return "nothing to score"
    if name == "precision":
        return "nothing was predicted"
    return "no deformation to find" if not positives else "deformation everywhere"


def baseline_scores(positives: int, items: int) -> tuple[dict[str, float], dict[str, float]]:
    """Return the expected scores of a random predictor and of one that always predicts deformation.

    Let p be the fraction of items with deformation. The random predictor predicts deformation with
    probability p; its precision, recall and F1 are p, and its IoU is p / (2 - p). The constant predictor has
    precision and IoU p, recall 1 and F1 2p / (1 + p), the best F1 without looking at the data. Both have
    AUROC 0.5 and average precision p.
    """
    share = positives / items if positives else math.nan
    half = 0.5 if 0 < positives < items else math.nan
    chance = {"precision": share, "recall": share, "f1": share, "iou": share / (2 - share)}
    constant = {
        "precision": share,
        "recall": 1.0 if positives else math.nan,
        "f1": 2 * share / (1 + share),
        "iou": share,
    }
    ranks = {"auroc": half, "average_precision": share}
    return chance | ranks, constant | ranks


def score_by_group(predictions: Predictions, threshold: Threshold, kind: str) -> dict[str, Scores]:
    """Score each frame, region, activity type, intensity or volcano separately.

    Frames and regions are scored on their own items. Activity type, intensity and volcano are properties of
    deformation: items and interferograms that show one are scored against all items without deformation, so
    recall and AUROC measure how well this kind is found. False alarms have no kind, so precision, F1 and
    average precision are undefined. Pixels are scored within the items that show the kind.

    Parameters
    ----------
    predictions : Predictions
    threshold : Threshold
    kind : {"frame", "region", "activity_type", "intensity", "volcano"}

    Returns
    -------
    dict of str to Scores
        Scores by name, sorted.
    """
    cases = cases_by_unit(predictions, threshold.unit)
    members: dict[str, list[int]] = defaultdict(list)
    for place, row in enumerate(cases.rows):
        for name in GROUPINGS[kind](row):
            members[name].append(place)
    against_quiet = kind in DEFORMATION_KINDS and threshold.unit not in _PIXEL_SET_BY_UNIT
    result = {}
    for name, places in sorted(members.items()):
        chosen = np.zeros(len(cases), bool)
        chosen[places] = True
        if against_quiet:
            chosen = (chosen & cases.label) | ~cases.label
        scores = score_predictions(cases.select(chosen), threshold)
        result[name] = _without_precision(scores) if against_quiet else scores
    return result


def _without_precision(scores: Scores) -> Scores:
    names = ("precision", "f1", "average_precision")
    nan = dict.fromkeys(names, math.nan)
    reason = dict.fromkeys(names, "false alarms have no activity type, intensity or volcano")
    return scores.model_copy(
        update={
            "values": scores.values | nan,
            "chance": scores.chance | nan,
            "constant": scores.constant | nan,
            "undefined": scores.undefined | reason,
        }
    )


def count_false_alarms(predictions: Predictions, threshold: Threshold) -> FalseAlarms:
    """Count false alarms per frame and year of observation.

    A false alarm is an interferogram (or series) without deformation in the frame, one of whose tiles
    reaches the threshold. False alarms that end on the same acquisition are one alarm day, since an
    observatory is alerted once. A frame is observed on the days spanned by any of its interferograms here,
    with deformation or without: days spanned several times count once, and gaps do not count. A year has
    365.25 days.

    Parameters
    ----------
    predictions : Predictions
    threshold : Threshold
        Threshold of the unit ``interferograms``.
    """
    cases = cases_by_unit(predictions, threshold.unit)
    alarm = count_confusion(cases, threshold)[:, 1] > 0
    frames: dict[str, list[int]] = defaultdict(list)
    for place, row in enumerate(cases.rows):
        frames[row.frame].append(place)
    counted = {}
    for frame, places in sorted(frames.items()):
        spans = [date_span(cases.rows[place]) for place in places]
        days = {end for (_, end), place in zip(spans, places, strict=True) if alarm[place]}
        counted[frame] = FrameAlarms(
            interferograms=int((~cases.label[places]).sum()),
            false_alarms=int(alarm[places].sum()),
            alarm_days=len(days),
            years=count_observed_days(spans) / _DAYS_PER_YEAR,
        )
    total = FrameAlarms(
        interferograms=sum(frame.interferograms for frame in counted.values()),
        false_alarms=sum(frame.false_alarms for frame in counted.values()),
        alarm_days=sum(frame.alarm_days for frame in counted.values()),
        years=math.fsum(frame.years for frame in counted.values()),
    )
    defined = total.interferograms > 0
    return FalseAlarms(
        per_frame_year=total.false_alarms / total.years if defined else math.nan,
        days_per_frame_year=total.alarm_days / total.years if defined else math.nan,
        total=total,
        frames=counted,
        threshold=threshold.value,
        undefined="" if defined else "no interferogram without deformation",
    )


def date_span(row: PredictedItem) -> tuple[date, date]:
    """Return the first and the last day of an item's interferograms."""
    dates = [day for name in row.pairs for day in Pair.parse(name).dates]
    return min(dates), max(dates)


def count_observed_days(spans: Sequence[tuple[date, date]]) -> int:
    """Return the length in days of the union of spans, each a first and a last day."""
    total, reach = 0, date.min
    for start, end in sorted(spans):
        total += max(0, (end - max(start, reach)).days)
        reach = max(reach, end)
    return total
