"""Calibration: whether a probability of 0.8 is right in eight of ten cases, and a mapping that makes it so.

The mapping is fitted on the validation part, and what it is worth is measured on the test part. It is
monotonic, so it changes no ranking and no decision at a threshold that is mapped too.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
from scipy.optimize import minimize

from hephaestus_baselines.evaluation.predictions import Predictions
from hephaestus_baselines.evaluation.result_schema import CalibrationScores, ReliabilityBin

#: Bins of the reliability diagram and of the expected calibration error: each has as many cases.
BINS = 10
#: With fewer validation cases of one kind than this, no mapping is fitted.
_MIN_CASES = 5
_EPSILON = 1e-6


def fit_platt(
    label: npt.NDArray[np.bool],
    probability: npt.NDArray[np.floating],
    weight: npt.NDArray[np.floating] | None = None,
) -> tuple[float, float]:
    """Return slope and offset of the logits that make probabilities most likely.

    The calibrated probability is ``1 / (1 + exp(-(slope * logit + offset)))``, where the slope is not
    negative. Labels are smoothed as Platt (1999) proposes, so that a perfect ranking does not lead to an
    infinite slope.

    Parameters
    ----------
    label : numpy.ndarray
        bool, shape (N,): the truth.
    probability : numpy.ndarray
        Shape (N,), 0 to 1.
    weight : numpy.ndarray, optional
        Shape (N,): how many cases each of them stands for; 1 by default.
    """
    weight = np.ones(label.shape) if weight is None else np.asarray(weight, np.float64)
    positives, negatives = float(weight[label].sum()), float(weight[~label].sum())
    target = np.where(label, (positives + 1) / (positives + 2), 1 / (negatives + 2))
    logits = _logit(probability)

    def cost(parameters: npt.NDArray[np.float64]) -> tuple[float, npt.NDArray[np.float64]]:
        slope, offset = parameters
        raised = slope * logits + offset
        value = float((weight * (np.logaddexp(0, raised) - target * raised)).sum())
        excess = weight * (_sigmoid(raised) - target)
        return value, np.array([(excess * logits).sum(), excess.sum()])

    found = minimize(
        cost, np.array([1.0, 0.0]), jac=True, bounds=[(0, None), (None, None)], method="L-BFGS-B"
    )
    return float(found.x[0]), float(found.x[1])


def apply_platt(
    probability: npt.NDArray[np.floating], slope: float, offset: float
) -> npt.NDArray[np.float64]:
    """Return calibrated probabilities; see :func:`fit_platt`."""
    return _sigmoid(slope * _logit(probability) + offset)


def brier_score(label: npt.NDArray[np.bool], probability: npt.NDArray[np.floating]) -> float:
    """Return the mean squared difference between probability and truth; NaN without cases."""
    return float(((probability - label) ** 2).mean()) if label.size else math.nan


def reliability_bins(
    label: npt.NDArray[np.bool], probability: npt.NDArray[np.floating], bins: int = BINS
) -> list[ReliabilityBin]:
    """Return the mean probability and the share of positives in bins of equally many cases, ascending.

    Cases of equal probability count as equally positive, wherever bins part them: their order says nothing.
    """
    order = np.argsort(probability, kind="stable")
    _, place, count = np.unique(probability, return_inverse=True, return_counts=True)
    positive = (np.bincount(place, weights=label) / count)[place] if len(order) else label
    return [
        ReliabilityBin(
            cases=len(part),
            probability=float(probability[part].mean()),
            share=float(positive[part].mean()),
        )
        for part in np.array_split(order, min(bins, len(order)) or 1)
        if len(part)
    ]


def expected_calibration_error(bins: list[ReliabilityBin]) -> float:
    """Return the mean distance between probability and share of positives; NaN without cases."""
    if not (cases := sum(one.cases for one in bins)):
        return math.nan
    return math.fsum(one.cases * abs(one.probability - one.share) for one in bins) / cases


def assess_calibration(validation: Predictions, test: Predictions) -> CalibrationScores:
    """Fit a mapping on validation, and measure calibration on test before and after it.

    Parameters
    ----------
    validation, test : Predictions
        Cases of one unit.
    """
    label, known = validation.label, validation.probability
    fitted = min(int(label.sum()), int((~label).sum())) >= _MIN_CASES
    slope, offset = fit_platt(label, known) if fitted else (1.0, 0.0)
    mapped = apply_platt(test.probability, slope, offset)
    before, after = reliability_bins(test.label, test.probability), reliability_bins(test.label, mapped)
    share = float(test.label.mean()) if len(test) else math.nan
    return CalibrationScores(
        slope=slope,
        offset=offset,
        fitted_on="validation" if fitted else "nothing",
        brier=brier_score(test.label, test.probability),
        brier_calibrated=brier_score(test.label, mapped),
        brier_constant=share * (1 - share),
        ece=expected_calibration_error(before),
        ece_calibrated=expected_calibration_error(after),
        bins=before,
        bins_calibrated=after,
    )


def _logit(probability: npt.NDArray[np.floating]) -> npt.NDArray[np.float64]:
    clipped = np.clip(np.asarray(probability, np.float64), _EPSILON, 1 - _EPSILON)
    return np.log(clipped) - np.log1p(-clipped)


def _sigmoid(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    return 1 / (1 + np.exp(-values))
