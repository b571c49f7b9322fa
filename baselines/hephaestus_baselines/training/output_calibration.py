"""Calibration of a model in its last layer, so that its probabilities are those of the validation part.

Slope and offset of the logits (Platt scaling) are fitted on the validation windows of each epoch, and written
into the weights of the checkpoint that is kept. Ranking and scores stay the same; whatever reads the
checkpoint predicts calibrated probabilities.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from hephaestus_baselines.evaluation.calibration import fit_platt
from hephaestus_baselines.evaluation.predictions import PROBABILITY_BINS, Predictions
from hephaestus_baselines.models.architectures import CLASS_COUNT
from hephaestus_build.core.errors import HephaestusError

#: With fewer windows of one kind than this, nothing is fitted.
_MIN_CASES = 5
#: A smaller slope would make all probabilities alike: such a model is left as it is.
_MIN_SLOPE = 0.01


def fit_output(predictions: Predictions, weight: npt.NDArray[np.floating]) -> tuple[float, float]:
    """Return slope and offset of the logits; (1, 0) where there are too few windows of one kind.

    Parameters
    ----------
    predictions : Predictions
        Windows of the validation part; for a segmentation, with the histograms of their pixels.
    weight : numpy.ndarray
        (N,): how many windows of the part each of them stands for.
    """
    label = np.asarray(predictions.label, bool)
    chosen = np.asarray(predictions.scored, bool)
    if min(int(label[chosen].sum()), int((~label[chosen]).sum())) < _MIN_CASES:
        return 1.0, 0.0
    if predictions.pixels is None:
        slope, offset = fit_platt(label[chosen], predictions.probability[chosen], weight[chosen])
    else:
        counts = np.tensordot(weight, predictions.pixels["data"].astype(np.float64), 1)
        centres = (np.arange(PROBABILITY_BINS) + 0.5) / PROBABILITY_BINS
        truth = np.repeat([False, True], PROBABILITY_BINS)
        slope, offset = fit_platt(truth, np.tile(centres, 2), counts.ravel())
    return (slope, offset) if slope >= _MIN_SLOPE else (1.0, 0.0)


def sampling_weights(positive: Sequence[bool], chosen: Sequence[int]) -> npt.NDArray[np.float64]:
    """Return for each chosen window how many windows of its kind it stands for.

    Parameters
    ----------
    positive : sequence of bool
        For each window of the part, whether it shows deformation.
    chosen : sequence of int
        Positions of the chosen ones.
    """
    flags = np.asarray(positive, bool)
    taken = flags[np.asarray(chosen, int)]
    share = {kind: (flags == kind).sum() / max((taken == kind).sum(), 1) for kind in (False, True)}
    return np.array([float(share[bool(kind)]) for kind in taken])


def calibrate_output(
    model: nn.Module, state: Mapping[str, Any], slope: float, offset: float, prefix: str = ""
) -> dict[str, Any]:
    """Return the state of a model whose logits are mapped by `slope` and `offset`.

    Parameters
    ----------
    model : torch.nn.Module
        Its last layer with two outputs gives the logits.
    state : mapping of str to Tensor
        The model's state, which is not changed.
    slope, offset : float
        The difference of the two logits becomes ``slope * difference + offset``.
    prefix : str
        Prefix of the model's names in `state`.
    """
    name = f"{prefix}{find_output_layer(model)}"
    weight, bias = state[f"{name}.weight"], state[f"{name}.bias"]
    raised: Tensor = slope * bias + torch.tensor([0.0, offset], dtype=bias.dtype, device=bias.device)
    return {**state, f"{name}.weight": slope * weight, f"{name}.bias": raised}


def find_output_layer(model: nn.Module) -> str:
    """Return the name of the layer of a model that gives the two logits.

    Raises
    ------
    HephaestusError
        If it has none with a bias.
    """
    found = [
        name
        for name, layer in model.named_modules()
        if isinstance(layer, nn.Linear | nn.Conv2d)
        and layer.weight.shape[0] == CLASS_COUNT
        and layer.bias is not None
    ]
    if not found:
        raise HephaestusError("the model has no last layer with two outputs, so it cannot be calibrated")
    return found[-1]
