"""Scores of kinds of deformation, for any weights of the windows, so that intervals follow by resampling.

Every function takes weights of shape (..., N) and returns scores of shape (...); NaN where one is undefined.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from hephaestus_baselines.evaluation.metrics import RankedScores, compute_rates

Values = npt.NDArray[Any]


def score_classes(
    truth: npt.NDArray[np.bool], probability: Values, threshold: Values, weight: Values
) -> dict[str, Values]:
    """Return average precision and F1 of each class, each of shape (A, ...).

    Parameters
    ----------
    truth : numpy.ndarray
        bool (N, A).
    probability : numpy.ndarray
        (N, A).
    threshold : numpy.ndarray
        (A,): a class is predicted from here.
    weight : numpy.ndarray
        (..., N).
    """
    areas, f1 = [], []
    for place in range(truth.shape[1]):
        label, said = truth[:, place], probability[:, place]
        areas.append(RankedScores(label, said).compute_areas(weight)["average_precision"])
        predicted = said >= threshold[place]
        counts = [weight[..., chosen].sum(-1) for chosen in (
            label & predicted, ~label & predicted, label & ~predicted)]  # fmt: skip
        f1.append(compute_rates(*counts)["f1"])
    return {"average_precision": np.array(areas), "f1": np.array(f1)}


def best_f1_threshold(truth: npt.NDArray[np.bool], probability: Values) -> float:
    """Return the probability from which a class is predicted with the highest F1; 0.5 without a case."""
    if not truth.any():
        return 0.5
    tried = np.unique(probability)
    predicted = probability >= tried[:, None]
    hits = (predicted & truth).sum(1)
    f1 = compute_rates(hits, (predicted & ~truth).sum(1), truth.sum() - hits)["f1"]
    best = np.flatnonzero(f1 == f1.max())
    # the middle of several equally good ones
    return float(tried[best[len(best) // 2]])


def score_levels(truth: Values, predicted: Values, levels: int, weight: Values) -> dict[str, Values]:
    """Return mean absolute error, quadratic kappa and accuracy of ordered levels.

    Parameters
    ----------
    truth, predicted : numpy.ndarray
        int (N,), 0 to `levels` - 1.
    levels : int
    weight : numpy.ndarray
        (..., N).
    """
    total = weight.sum(-1)
    off = np.abs(truth - predicted)
    steps = np.arange(levels)
    distance = (steps[:, None] - steps) ** 2
    ours, theirs = (
        np.stack([weight[..., values == step].sum(-1) for step in steps], -1) for values in (truth, predicted)
    )
    with np.errstate(invalid="ignore", divide="ignore"):
        expected = np.einsum("...i,ij,...j->...", ours, distance, theirs) / total
        # without any spread there is no agreement beyond chance
        kappa = 1 - (weight * off**2).sum(-1) / np.where(expected > 0, expected, np.nan)
        return {
            "mae": (weight * off).sum(-1) / total,
            "quadratic_kappa": kappa,
            "accuracy": (weight * (off == 0)).sum(-1) / total,
        }


def macro(scores: Values, kept: npt.NDArray[np.bool]) -> Values:
    """Return the mean over the kept classes, (...), of scores (A, ...); undefined ones are left out."""
    chosen = scores[kept]
    known = ~np.isnan(chosen)
    count = known.sum(0)
    total = np.where(known, chosen, 0).sum(0)
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)


def interval(drawn: Values, level: float) -> tuple[float, float]:
    """Return the percentile interval of the defined values; NaN if there is none."""
    known = drawn[~np.isnan(drawn)]
    if not known.size:
        return float("nan"), float("nan")
    low, high = np.quantile(known, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def gaps(model: Mapping[str, Values], control: Mapping[str, Values]) -> dict[str, Values]:
    """Return by how much a model is better than a control; of an error, how much smaller it is."""
    return {
        name: (control[name] - values if name == "mae" else values - control[name])
        for name, values in model.items()
    }
