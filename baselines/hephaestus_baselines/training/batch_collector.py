"""Collection of predictions on a device, whose values are read back without waiting for the last steps."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from hephaestus_baselines.evaluation.predictions import (
    PROBABILITY_BINS,
    PixelSet,
    PredictionCollector,
    Predictions,
)
from hephaestus_build.core.errors import HephaestusError

#: Batches whose values may still be on their way from the device.
_UNDER_WAY = 2


class BatchCollector:
    """Hands the predictions of batches to a collector.

    On a GPU values are copied to the host behind the step that made them, and looked at two batches later, so
    that the host launches steps without waiting for one. On a CPU they are there at once.

    Parameters
    ----------
    collector : PredictionCollector
    """

    def __init__(self, collector: PredictionCollector) -> None:
        self._collector = collector
        self._under_way: deque[tuple[Any, Tensor, Tensor, dict[str, Tensor]]] = deque()

    def add(self, index: Tensor, label: Tensor, fields: Mapping[str, Tensor], probability: Tensor) -> None:
        """Add a batch of B windows.

        Parameters
        ----------
        index, label : Tensor
            (B,), on the host: positions in the rows of the collector, and labels.
        fields : mapping of str to Tensor
            ``mask``, ``inside`` and ``valid`` of the windows, on the device.
        probability : Tensor
            (B,); for segmentation (B, S, S).
        """
        made = {"share": data_shares(fields)}
        if self._collector.source.task == "classification":
            made["probability"] = probability
        else:
            made |= {"proper": _are_probabilities(probability), **_histograms(probability, fields)}
        # to pinned memory, if from a GPU
        host = {name: values.to("cpu", non_blocking=True) for name, values in made.items()}
        on_gpu = probability.is_cuda
        copied = torch.cuda.current_stream(probability.device).record_event() if on_gpu else None
        self._under_way.append((copied, index, label, host))
        while len(self._under_way) > (_UNDER_WAY if on_gpu else 0):
            self._hand_over()

    def finish(self) -> Predictions:
        """Return the predictions of all batches.

        Raises
        ------
        HephaestusError
            If an item has no prediction, or one that is no probability.
        """
        while self._under_way:
            self._hand_over()
        return self._collector.finish()

    def _hand_over(self) -> None:
        copied, index, label, host = self._under_way.popleft()
        if copied is not None:
            copied.synchronize()
        share = host.pop("share").numpy()
        if "probability" in host:
            self._collector.add(index.numpy(), label.numpy(), host["probability"].numpy(), data_share=share)
            return
        _check_probabilities(host.pop("proper"))
        pixels = _count_by_set(host)
        self._collector.add(index.numpy(), label.numpy(), pixels=pixels, data_share=share)


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
    return _count_by_set({name: counts.cpu() for name, counts in _histograms(probability, fields).items()})


def _are_probabilities(values: Tensor) -> Tensor:
    return ((values >= 0) & (values <= 1)).all()


def _check_probabilities(proper: Tensor) -> None:
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


def _count_by_set(counts: Mapping[str, Tensor]) -> dict[PixelSet, npt.NDArray[Any]]:
    found: dict[PixelSet, npt.NDArray[Any]] = {}
    names: tuple[PixelSet, ...] = ("data", "all")
    for name in names:
        found[name] = counts[name].numpy().astype(np.uint32)
    return found
