"""Training one run, and what it leaves: a checkpoint that says all that is needed to predict with it.

Signatures; the bodies follow.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor, nn

from baselines.inputs import Inputs
from baselines.items import Item
from baselines.predictions import Predictions
from baselines.prepare import Prepared
from baselines.recipe import Recipe
from hephaestus_build.progress import Listener


@dataclass(frozen=True)
class Trained:
    """A model ready to predict.

    Attributes
    ----------
    recipe : Recipe
    model : torch.nn.Module
        In eval mode, on `device`: normalised channels to logits.
    moments : mapping of str to (mean, deviation)
        What channels are normalised by.
    simulated : bool
        Whether it learnt from simulated data.
    split_sha256 : str
        Of the split that it was trained on.
    epoch, score : int, float
        The epoch that was kept and its `measure` on validation.
    measure : str
        ``average precision`` or ``F1``.
    """

    recipe: Recipe
    model: nn.Module
    moments: Mapping[str, tuple[float, float]]
    simulated: bool
    split_sha256: str
    epoch: int
    score: float
    measure: str

    @property
    def inputs(self) -> Inputs:
        """The channels of each step."""
        return self.recipe.inputs

    def probabilities(self, batch: Mapping[str, Tensor]) -> Tensor:
        """Return the probability of deformation of a compact batch: (B,), or (B, S, S) of its pixels."""
        raise NotImplementedError


def fit(
    recipe: Recipe,
    prepared: Prepared,
    folder: Path,
    *,
    device: str = "auto",
    listener: Listener | None = None,
) -> Path:
    """Train, or go on from ``<folder>/last.ckpt``; return the best checkpoint, ``<folder>/best.ckpt``.

    Best is the epoch with the highest average precision (classification) or F1 over pixels at its best
    threshold (segmentation) on the validation part. The folder also gets ``metrics.csv``, one row an epoch,
    and TensorBoard's log.
    """
    raise NotImplementedError


def load(checkpoint: Path, device: str = "cpu") -> Trained:
    """Read a checkpoint that :func:`fit` wrote."""
    raise NotImplementedError


def infer(
    trained: Trained,
    items: Sequence[Item],
    prepared: Prepared,
    *,
    device: str = "auto",
    batch_size: int | None = None,
    workers: int = 0,
    listener: Listener | None = None,
) -> Predictions:
    """Predict `items`, one row each, in their order."""
    raise NotImplementedError
