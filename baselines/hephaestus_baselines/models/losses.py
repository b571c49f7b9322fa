"""Loss functions of training, per window or per pixel."""

from __future__ import annotations

import torch
from torch import Tensor

from hephaestus_baselines.config.run_config import LossName


def focal_loss(
    logits: Tensor, target: Tensor, gamma: float, *, alpha: float | None = None, detached: bool = False
) -> Tensor:
    """Return the focal loss -(1 - p)^gamma log p, where p is the predicted probability of the true class.

    With gamma 0 this is the cross-entropy. The gradient includes that of the weight (1 - p)^gamma.

    Parameters
    ----------
    logits : Tensor
        (B, classes, ...), of any float type; computed in float32.
    target : Tensor
        int64 (B, ...), the true class.
    gamma : float
        Focusing exponent, 0 or more; larger values reduce the weight of well-classified cases.
    alpha : float, optional
        Weight of class 0; all others have the weight 1 - alpha. By default, all have the weight 1.
    detached : bool
        Whether the weight (1 - p)^gamma has no gradient.

    Returns
    -------
    Tensor
        float32 (B, ...).
    """
    chosen = logits.float().log_softmax(dim=1).gather(1, target.unsqueeze(1)).squeeze(1)
    share = 1.0 if alpha is None else torch.where(target == 0, alpha, 1 - alpha)
    if gamma == 0:
        return -chosen * share
    # expm1 is accurate where p is near 1; the gradient at exactly 0 is undefined for gamma below 1
    doubt = (-torch.expm1(chosen)).clamp(min=torch.finfo(torch.float32).tiny)
    if detached:
        doubt = doubt.detach()
    return -(doubt**gamma) * chosen * share


def effective_gamma(loss: LossName, focal_gamma: float) -> float:
    """Return the focal exponent of a named loss; 0 for the cross-entropy."""
    return focal_gamma if loss == "focal" else 0.0


def weighted_mean(loss: Tensor, weight: Tensor) -> Tensor:
    """Return the mean of `loss`, (B, ...), weighted by `weight` (broadcastable); 0 if all weights are 0."""
    weight = weight.expand_as(loss)
    return (loss * weight).sum() / weight.sum().clamp(min=torch.finfo(torch.float32).tiny)
