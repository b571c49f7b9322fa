"""What training minimises, per window or per pixel. Pure functions of tensors."""

from __future__ import annotations

import torch
from torch import Tensor

from hephaestus_baselines.config.run_config import LossName


def focal_loss(logits: Tensor, target: Tensor, gamma: float) -> Tensor:
    """Return -(1 - p)^gamma log p, where p is the probability that the model gives the truth.

    With gamma 0 this is the cross-entropy. The weight (1 - p)^gamma has a gradient too.

    Parameters
    ----------
    logits : Tensor
        (B, classes, ...), of any float type; the arithmetic is float32.
    target : Tensor
        int64 (B, ...), the true class.
    gamma : float
        How much less what is already right counts, 0 or more.

    Returns
    -------
    Tensor
        float32 (B, ...).
    """
    chosen = logits.float().log_softmax(dim=1).gather(1, target.unsqueeze(1)).squeeze(1)
    if gamma == 0:
        return -chosen
    # expm1 keeps digits where p is near 1; exactly 0 has no gradient for gamma below 1
    doubt = (-torch.expm1(chosen)).clamp(min=torch.finfo(torch.float32).tiny)
    return -(doubt**gamma) * chosen


def effective_gamma(loss: LossName, focal_gamma: float) -> float:
    """Return the exponent of a named loss."""
    return focal_gamma if loss == "focal" else 0.0


def weighted_mean(loss: Tensor, weight: Tensor) -> Tensor:
    """Return the mean of `loss`, (B, ...), by `weight`, (B, ...) of a shape that fits; 0 if all weigh 0."""
    weight = weight.expand_as(loss)
    return (loss * weight).sum() / weight.sum().clamp(min=torch.finfo(torch.float32).tiny)
