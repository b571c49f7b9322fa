"""Scores of answers among several classes, all from confusion matrices, which resamples of events weigh.

Classes are rare and uneven, and a type that is common must not hide the others: the means weigh each class
alike. Of ordered classes errors have a size, in steps.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from hephaestus_baselines.config.tasks import TASK_SPECS
from hephaestus_baselines.evaluation.predictions import Predictions

Values = npt.NDArray[Any]
#: Scores that are errors: less is better.
ERRORS = ("mae", "macro_mae")


def predict_classes(probability: Values, *, ordered: bool) -> npt.NDArray[np.int64]:
    """Return the answers, int64 (N,), of the probabilities of the classes, (N, K).

    Of ordered classes the answer is the median of the distribution, which has the smallest expected error in
    steps; otherwise the most probable class.
    """
    if not ordered:
        return np.argmax(probability, axis=1)
    reached = np.cumsum(probability, axis=1, dtype=np.float64)
    return np.argmax(reached >= 0.5 * reached[:, -1:], axis=1)


def count_confusion_by_cluster(
    truth: Values, answers: Values, classes: int, clusters: Values
) -> npt.NDArray[np.float64]:
    """Return the confusion matrix of each cluster, (C, K, K): rows are the truth, columns the answers."""
    counts = np.zeros((int(clusters.max(initial=-1)) + 1, classes, classes))
    np.add.at(counts, (clusters, truth, answers), 1)
    return counts


def score_classes(confusion: Values) -> dict[str, Values]:
    """Return precision, recall and F1 of each class, (..., K), of confusion matrices (..., K, K).

    Precision is undefined (NaN) without such an answer; recall and F1 without such a case.
    """
    hits = np.diagonal(confusion, axis1=-2, axis2=-1)
    shown, said = confusion.sum(-1), confusion.sum(-2)
    with np.errstate(invalid="ignore", divide="ignore"):
        return {
            "precision": hits / said,
            "recall": hits / shown,
            "f1": np.where(shown > 0, 2 * hits / (shown + said), np.nan),
        }


def score_confusion(confusion: Values, kept: npt.NDArray[np.bool], *, ordered: bool) -> dict[str, Values]:
    """Return the scores over all classes, (...), of confusion matrices (..., K, K).

    Parameters
    ----------
    confusion : numpy.ndarray
        Rows are the truth.
    kept : numpy.ndarray
        bool (K,): the classes in the means. With less than two of them a mean says nothing, and is NaN.
    ordered : bool
        Whether classes are levels: then with mean absolute error in steps, over all windows and as a mean
        over classes, and quadratic kappa.
    """
    classes = score_classes(confusion)
    total = confusion.sum((-2, -1))
    steps = np.arange(confusion.shape[-1])
    off = np.abs(steps[:, None] - steps)
    with np.errstate(invalid="ignore", divide="ignore"):
        scores = {
            "macro_f1": _mean_of_kept(classes["f1"], kept),
            "balanced_accuracy": _mean_of_kept(classes["recall"], kept),
            "accuracy": np.trace(confusion, axis1=-2, axis2=-1) / total,
        }
        if ordered:
            shown, said = confusion.sum(-1), confusion.sum(-2)
            errors = (confusion * off).sum(-1)
            expected = np.einsum("...i,ij,...j->...", shown, off**2, said) / total
            scores |= {
                "mae": errors.sum(-1) / total,
                "macro_mae": _mean_of_kept(errors / shown, kept),
                # without any spread there is no agreement beyond chance
                "quadratic_kappa": 1
                - (confusion * off**2).sum((-2, -1)) / np.where(expected > 0, expected, np.nan),
            }
    return scores


def rate_kinds(validation: Predictions) -> float:
    """Return the score by which an epoch or a penalty is chosen: macro F1 over the classes that are shown.

    It is the accuracy where one class alone is shown, and NaN without any.
    """
    found = validation.select(validation.scored)
    spec = TASK_SPECS[validation.source.task]
    answers = predict_classes(found.probability, ordered=spec.ordered)
    everything = np.zeros(len(found), int)
    counted = count_confusion_by_cluster(found.label, answers, len(spec.classes), everything).sum(0)
    scores = score_confusion(counted, counted.sum(-1) > 0, ordered=spec.ordered)
    score = float(scores["macro_f1"])
    return float(scores["accuracy"]) if math.isnan(score) else score


def compare_scores(model: Mapping[str, Values], control: Mapping[str, Values]) -> dict[str, Values]:
    """Return by how much a model is better than a control; of an error, how much smaller it is."""
    return {
        name: (control[name] - values if name in ERRORS else values - control[name])
        for name, values in model.items()
    }


def _mean_of_kept(scores: Values, kept: npt.NDArray[np.bool]) -> Values:
    """Return the mean over the kept classes, (...), of scores (..., K); undefined ones are left out."""
    if kept.sum() < 2:
        return np.full(scores.shape[:-1], np.nan)
    chosen = scores[..., kept]
    known = ~np.isnan(chosen)
    count = known.sum(-1)
    total = np.where(known, chosen, 0).sum(-1)
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)
