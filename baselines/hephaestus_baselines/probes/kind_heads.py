"""Heads on frozen features that tell the kind of deformation, and controls that look at no image."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from hephaestus_baselines.evaluation.metrics import RankedScores
from hephaestus_baselines.probes.deformation_kinds import INTENSITY_LEVELS
from hephaestus_baselines.probes.kind_scores import score_levels
from hephaestus_baselines.probes.logistic_regression import (
    PENALTIES,
    FeatureScale,
    LogisticRegression,
    fit_logistic_regression,
)
from hephaestus_baselines.probes.window_probes import choose_by_score

Features = npt.NDArray[np.float32]
Flags = npt.NDArray[np.bool]


@dataclass(frozen=True)
class KindHead:
    """A logistic regression for each of several yes-or-no questions.

    Attributes
    ----------
    scale : FeatureScale
    regressions : tuple of LogisticRegression
    penalty : float
        Chosen on validation.
    """

    scale: FeatureScale
    regressions: tuple[LogisticRegression, ...]
    penalty: float

    def predict(self, features: Features) -> npt.NDArray[np.float32]:
        """Return the probability of each answer, float32 (N, questions)."""
        inputs = self.scale.apply(features)
        return np.stack([one.predict(inputs) for one in self.regressions], axis=1)


def fit_activity_head(training: Features, truth: Flags, validation: Features, known: Flags) -> KindHead:
    """Return a head for the types of activity, bool (N, A), whose mean average precision is best."""

    def score(head: KindHead) -> float:
        said = head.predict(validation)
        areas = [
            float(RankedScores(known[:, place], said[:, place]).compute_areas()["average_precision"])
            for place in range(known.shape[1])
            if known[:, place].any() and not known[:, place].all()
        ]
        return float(np.mean(areas)) if areas else float("nan")

    heads = _fit_penalties(training, truth)
    return choose_by_score(heads, score)


def fit_intensity_head(
    training: Features,
    level: npt.NDArray[np.int64],
    validation: Features,
    known: npt.NDArray[np.int64],
) -> KindHead:
    """Return a head for the levels, int (N,): whether a window is above each; the smallest error is best."""
    above = level[:, None] > np.arange(len(INTENSITY_LEVELS) - 1)
    everything = np.ones(len(known))

    def score(head: KindHead) -> float:
        said = predict_levels(head.predict(validation))
        return -float(score_levels(known, said, len(INTENSITY_LEVELS), everything)["mae"])

    return choose_by_score(_fit_penalties(training, above), score)


def predict_levels(above: npt.NDArray[np.float32]) -> npt.NDArray[np.int64]:
    """Return the levels, int64 (N,), of the probabilities of being above each, (N, levels - 1).

    It cannot be more probable to be above a higher level, so each is at most the one before.
    """
    return (np.minimum.accumulate(above, axis=1) > 0.5).sum(axis=1)


def _fit_penalties(training: Features, truth: Flags) -> list[KindHead]:
    scale = FeatureScale.of(training)
    inputs = scale.apply(training)
    heads: list[KindHead] = []
    for penalty in PENALTIES:
        before = heads[-1].regressions if heads else (None,) * truth.shape[1]
        fitted = tuple(
            fit_logistic_regression(inputs, truth[:, place], penalty, before[place])
            for place in range(truth.shape[1])
        )
        heads.append(KindHead(scale, fitted, penalty))
    return heads


def shares_by_frame(frames: Sequence[str], truth: Flags, asked: Sequence[str]) -> npt.NDArray[np.float32]:
    """Return how often the training windows of each asked frame show each class, float32 (M, A).

    A frame without any takes the share in all frames.
    """
    names = np.asarray(frames)
    overall = truth.mean(axis=0)
    known = {name: truth[names == name].mean(axis=0) for name in set(frames)}
    return np.stack([known.get(name, overall) for name in asked]).astype("f4")


def median_levels(
    frames: Sequence[str], level: npt.NDArray[np.int64], asked: Sequence[str]
) -> npt.NDArray[np.int64]:
    """Return the median level of the training windows of each asked frame, or of all frames, int64 (M,)."""
    names = np.asarray(frames)
    known = {name: _median(level[names == name]) for name in set(frames)}
    overall = _median(level)
    return np.array([known.get(name, overall) for name in asked], dtype=np.int64)


def _median(level: npt.NDArray[np.int64]) -> int:
    return int(np.sort(level)[(len(level) - 1) // 2])  # the lower of two middle ones
