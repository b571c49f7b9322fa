"""Collection of predictions on a device, whose values are read back without waiting for the last steps."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from hephaestus_baselines.config.tasks import TASK_SPECS
from hephaestus_baselines.evaluation.predictions import (
    PROBABILITY_BINS,
    PixelSet,
    PredictionCollector,
    Predictions,
)
from hephaestus_baselines.training.readback import Readback
from hephaestus_build.core.errors import HephaestusError


class BatchCollector:
    """Hands the predictions of batches to a collector; the host does not wait for them.

    Parameters
    ----------
    collector : PredictionCollector
    """

    def __init__(self, collector: PredictionCollector) -> None:
        self._collector = collector
        self._readback: Readback[tuple[Tensor, Tensor]] = Readback(self._hand_over)

    def add(self, index: Tensor, label: Tensor, fields: Mapping[str, Tensor], probability: Tensor) -> None:
        """Add a batch of B windows.

        Parameters
        ----------
        index, label : Tensor
            (B,), on the host: positions in the rows of the collector, and labels.
        fields : mapping of str to Tensor
            ``mask``, ``inside`` and ``valid`` of the windows, on the device.
        probability : Tensor
            (B,); for segmentation (B, S, S); (B, K) of the K classes of a kind of deformation.
        """
        made = {"share": data_shares(fields)}
        if TASK_SPECS[self._collector.source.task].per_pixel:
            made |= {"proper": _are_probabilities(probability), **_histograms(probability, fields)}
        else:
            made["probability"] = probability
        self._readback.add((index, label), made)

    def finish(self) -> Predictions:
        """Return the predictions of all batches.

        Raises
        ------
        HephaestusError
            If an item has no prediction, or one that is no probability.
        """
        self._readback.finish()
        return self._collector.finish()

    def _hand_over(self, told: tuple[Tensor, Tensor], host: dict[str, npt.NDArray[Any]]) -> None:
        index, label = (values.numpy() for values in told)
        share = host.pop("share")
        if "probability" in host:
            self._collector.add(index, label, host["probability"], data_share=share)
            return
        _check_probabilities(host.pop("proper"))
        self._collector.add(index, label, pixels=_count_by_set(host), data_share=share)


def data_shares(fields: Mapping[str, Tensor]) -> Tensor:
    """Return the share of the pixels of each window's core that have data, float32 (B,)."""
    inside = fields["inside"][:, 0]
    return (inside & fields["valid"].any(1)).flatten(1).sum(1) / inside.flatten(1).sum(1).clamp(min=1)


def count_histograms_on_device(
    probability: Tensor, fields: Mapping[str, Tensor]
) -> dict[PixelSet, npt.NDArray[Any]]:
    """Count pixels by truth and probability on the device, and wait for the counts.

    The result equals that of :func:`~hephaestus_baselines.evaluation.predictions.count_pixel_histograms`.

    Parameters
    ----------
    probability : Tensor
        (B, S, S).
    fields : mapping of str to Tensor
        Fields of the same windows.

    Raises
    ------
    HephaestusError
        If a value is no probability.
    """
    _check_probabilities(_are_probabilities(probability))
    return _count_by_set(
        {name: counts.cpu().numpy() for name, counts in _histograms(probability, fields).items()}
    )


def _are_probabilities(values: Tensor) -> Tensor:
    return ((values >= 0) & (values <= 1)).all()


def _check_probabilities(proper: Any) -> None:
    """Raise HephaestusError unless all values were: NaN and values outside 0 to 1 are counted in some bin."""
    if not bool(proper):
        raise HephaestusError(
            "the model returned invalid probabilities (its training may have diverged); "
            "start it again with a lower learning rate"
        )


def _histograms(probability: Tensor, fields: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the counts of each set of pixels, int32 (B, 2, BINS); the host does not wait for them."""
    count = len(probability)
    truth = (fields["mask"] > 0).any(1).long()
    # what is no probability must not count outside of the bins
    step = (probability.nan_to_num() * PROBABILITY_BINS).long().clamp(0, PROBABILITY_BINS - 1)
    first = torch.arange(count, device=probability.device).view(-1, 1, 1) * 2
    place = ((first + truth) * PROBABILITY_BINS + step).flatten()
    inside = fields["inside"][:, 0]
    counted: dict[PixelSet, Tensor] = {"data": inside & fields["valid"].any(1), "all": inside}
    # a selection of pixels, and torch.bincount, would wait for the number of them
    empty = torch.zeros(count * 2 * PROBABILITY_BINS, dtype=torch.int32, device=probability.device)
    return {
        name: empty.scatter_add(0, place, chosen.flatten().int()).view(count, 2, PROBABILITY_BINS)
        for name, chosen in counted.items()
    }


def _count_by_set(counts: Mapping[str, npt.NDArray[Any]]) -> dict[PixelSet, npt.NDArray[Any]]:
    found: dict[PixelSet, npt.NDArray[Any]] = {}
    names: tuple[PixelSet, ...] = ("data", "all")
    for name in names:
        found[name] = counts[name].astype(np.uint32)
    return found
