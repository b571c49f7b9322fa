"""Probes that classify windows by their features: a linear one, and one of nearest neighbours.

What a probe leaves open (the penalty, the number of neighbours) is chosen by the average precision of the
validation part.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from hephaestus_baselines.evaluation.metrics import RankedScores
from hephaestus_baselines.probes.feature_cache import WindowFeatures
from hephaestus_baselines.probes.logistic_regression import (
    PENALTIES,
    FeatureScale,
    LogisticRegression,
    fit_logistic_regression,
)

T = TypeVar("T")
#: Numbers of neighbours that are tried.
NEIGHBOURS: tuple[int, ...] = (100, 50, 20, 10, 5, 1)
#: A neighbour's vote weighs exp(similarity / temperature).
_TEMPERATURE = 0.07
#: Windows that are compared with all training windows at once.
_BLOCK = 1024


@dataclass(frozen=True)
class FittedProbe:
    """A probe that is fitted.

    Attributes
    ----------
    predict : callable
        Returns the probability of deformation, float32 (N,), of features (N, F).
    parameters : int
        Numbers that were fitted.
    choice : dict
        What was chosen on validation.
    """

    predict: Callable[[npt.NDArray[np.float32]], npt.NDArray[np.float32]]
    parameters: int
    choice: dict[str, float]


def fit_linear_probe(
    training: WindowFeatures, validation: WindowFeatures, scored: npt.NDArray[np.bool]
) -> FittedProbe:
    """Return the logistic regression whose penalty is best on validation.

    Parameters
    ----------
    training, validation : WindowFeatures
        Windows of both parts.
    scored : numpy.ndarray
        bool (N,): the validation windows that are scored as windows.
    """
    scale = FeatureScale.of(training.features)
    inputs, known = scale.apply(training.features), scale.apply(validation.features[scored])
    fitted: dict[float, LogisticRegression] = {}
    last: LogisticRegression | None = None
    for penalty in PENALTIES:
        last = fitted[penalty] = fit_logistic_regression(inputs, training.label, penalty, last)
    best = choose_by_score(
        PENALTIES, lambda penalty: _rank(validation.label[scored], fitted[penalty].predict(known))
    )
    return FittedProbe(
        lambda features: fitted[best].predict(scale.apply(features)),
        fitted[best].coefficients.size + 1,
        {"penalty": best},
    )


def fit_knn_probe(
    training: WindowFeatures, validation: WindowFeatures, scored: npt.NDArray[np.bool]
) -> FittedProbe:
    """Return the probe of the nearest training windows whose number is best on validation.

    Similarity is the cosine of standardised features. Parameters are those of :func:`fit_linear_probe`.
    """
    scale = FeatureScale.of(training.features)
    bank, label = _directions(scale, training.features), training.label.astype("f4")

    def predict(features: npt.NDArray[np.float32], neighbours: int) -> npt.NDArray[np.float32]:
        said = [
            _vote(_directions(scale, features[at : at + _BLOCK]) @ bank.T, label, neighbours)
            for at in range(0, len(features), _BLOCK)
        ]
        return np.concatenate([np.empty(0, "f4"), *said])

    tried = [count for count in NEIGHBOURS if count <= len(bank)] or [len(bank)]
    known = validation.features[scored]
    best = choose_by_score(tried, lambda count: _rank(validation.label[scored], predict(known, count)))
    return FittedProbe(lambda features: predict(features, best), 0, {"neighbours": float(best)})


def choose_by_score(choices: Iterable[T], score: Callable[[T], float]) -> T:
    """Return the choice with the highest score, the first of several; the first if all are undefined."""
    tried = list(choices)
    scores = [score(choice) for choice in tried]
    return tried[max(range(len(tried)), key=lambda at: -math.inf if math.isnan(scores[at]) else scores[at])]


def _rank(label: npt.NDArray[Any], probability: npt.NDArray[np.float32]) -> float:
    return float(RankedScores(label > 0, probability).compute_areas()["average_precision"])


def _directions(scale: FeatureScale, features: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    values = scale.apply(features)
    lengths = np.linalg.norm(values, axis=1, keepdims=True)
    return (values / np.maximum(lengths, 1e-12)).astype("f4")


def _vote(
    similarity: npt.NDArray[np.float32], label: npt.NDArray[np.float32], neighbours: int
) -> npt.NDArray[np.float32]:
    """Return the weighted share of deformation among the nearest, float32 (N,)."""
    # stable, so that equally similar windows are taken in one order on every machine
    nearest = np.argsort(-similarity, axis=1, kind="stable")[:, :neighbours]
    near = np.take_along_axis(similarity, nearest, axis=1).astype("f8")
    weight = np.exp((near - near[:, :1]) / _TEMPERATURE)
    share = (weight * label[nearest]).sum(1) / weight.sum(1)
    return np.clip(share, 0, 1).astype("f4")
