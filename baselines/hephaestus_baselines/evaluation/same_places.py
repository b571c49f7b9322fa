"""Scores on windows matched by place: each window with deformation beside quiet ones of the same place.

Where positives lie on volcanoes and negatives anywhere, a model that knows the place scores well and has seen
nothing. Here, a window of a frame counts only if it has deformation in some interferograms of the part and
none in others. The quiet ones are weighted so that each place has as much weight with deformation as without.
A score that depends on the place alone then has an area under the ROC curve of exactly 0.5.
"""

from __future__ import annotations

import math
from collections import defaultdict

import numpy as np
import numpy.typing as npt

from hephaestus_baselines.evaluation.metrics import RankedScores
from hephaestus_baselines.evaluation.predictions import Predictions
from hephaestus_baselines.evaluation.result_schema import SamePlaceScores


def weigh_same_places(predictions: Predictions) -> npt.NDArray[np.float64]:
    """Return the weight of each item among those matched by place, float64 of shape (N,).

    Items with deformation have the weight 1, quiet ones of the same place share the weight of these, and all
    others have the weight 0. For example, if a window has deformation in 2 interferograms and none in 8, each
    of the 8 has the weight 1/4.
    """
    places: dict[tuple[str, tuple[int, int, int] | None], list[int]] = defaultdict(list)
    for index, row in enumerate(predictions.rows):
        if predictions.scored[index]:
            places[row.frame, row.tile].append(index)
    weight = np.zeros(len(predictions))
    for members in places.values():
        at = np.array(members)
        deforming = predictions.label[at]
        positives = int(deforming.sum())
        if 0 < positives < len(at):
            weight[at] = np.where(deforming, 1.0, positives / (len(at) - positives))
    return weight


def score_same_places(predictions: Predictions) -> SamePlaceScores:
    """Return the scores of items matched by place; NaN if no place has both kinds."""
    weight = weigh_same_places(predictions)
    chosen = weight > 0
    deforming = chosen & predictions.label
    undefined = not chosen.any()
    areas = {"auroc": math.nan, "average_precision": math.nan}
    if not undefined:
        found = RankedScores(predictions.label, predictions.probability).compute_areas(weight)
        areas = {name: float(value) for name, value in found.items()}
    return SamePlaceScores(
        places=len(
            {(row.frame, row.tile) for row, kept in zip(predictions.rows, chosen, strict=True) if kept}
        ),
        positives=int(deforming.sum()),
        quiet=int(chosen.sum() - deforming.sum()),
        auroc=areas["auroc"],
        average_precision=areas["average_precision"],
        undefined="no window has deformation in some interferograms and none in others" if undefined else "",
    )
