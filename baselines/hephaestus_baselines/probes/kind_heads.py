"""Heads on frozen features that tell the kind of deformation."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from hephaestus_baselines.probes.logistic_regression import (
    PENALTIES,
    FeatureScale,
    LogisticRegression,
    fit_logistic_regression,
)
from hephaestus_baselines.probes.window_probes import choose_by_score

Features = npt.NDArray[np.float32]


@dataclass(frozen=True)
class KindHead:
    """A logistic regression for each of several yes-or-no questions.

    Attributes
    ----------
    scale : FeatureScale
    regressions : tuple of LogisticRegression
        One for each class, or of levels one for each step: whether a window is above it.
    ordered : bool
        Whether classes are levels.
    penalty : float
        Chosen on validation.
    """

    scale: FeatureScale
    regressions: tuple[LogisticRegression, ...]
    ordered: bool
    penalty: float

    def predict(self, features: Features) -> npt.NDArray[np.float32]:
        """Return the probability of each class, float32 (N, K)."""
        inputs = self.scale.apply(features)
        said = np.stack([one.predict(inputs) for one in self.regressions], axis=1).astype("f8")
        if self.ordered:
            # it cannot be more probable to be above a higher level, so each is at most the one before
            above = np.minimum.accumulate(said, axis=1)
            edges = np.ones((len(said), 1))
            return -np.diff(np.concatenate([edges, above, 0 * edges], axis=1), axis=1).astype("f4")
        return (said / np.maximum(said.sum(axis=1, keepdims=True), 1e-12)).clip(0, 1).astype("f4")


def fit_kind_head(
    training: Features,
    label: npt.NDArray[np.integer],
    classes: int,
    score: Callable[[KindHead], float],
    *,
    ordered: bool,
) -> KindHead:
    """Return the head whose penalty has the highest score.

    Parameters
    ----------
    training : numpy.ndarray
        float32 (N, F), features of training windows.
    label : numpy.ndarray
        int (N,), their classes.
    classes : int
        Number of classes K.
    score : callable
        Returns how well a head does on validation.
    ordered : bool
        Whether classes are levels.
    """
    truth = label[:, None] > np.arange(classes - 1) if ordered else label[:, None] == np.arange(classes)
    scale = FeatureScale.of(training)
    inputs = scale.apply(training)
    heads: list[KindHead] = []
    for penalty in PENALTIES:
        before = heads[-1].regressions if heads else (None,) * truth.shape[1]
        fitted = tuple(
            fit_logistic_regression(inputs, truth[:, place], penalty, before[place])
            for place in range(truth.shape[1])
        )
        heads.append(KindHead(scale, fitted, ordered, penalty))
    return choose_by_score(heads, score)
