"""Predictions of a trained model for the items of a part of a split, read and prepared as in training."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from hephaestus_baselines.data.dataset_items import DatasetItem
from hephaestus_baselines.data.packed_batches import PackedWindows, WindowsOfPart, return_batch
from hephaestus_baselines.data.preparation import PreparedData
from hephaestus_baselines.data.terrain import FrameTerrain, fits_device
from hephaestus_baselines.data.window_dataset import WindowDataset
from hephaestus_baselines.evaluation.predictions import Predictions
from hephaestus_baselines.training.batch_collector import BatchCollector
from hephaestus_baselines.training.batch_preparation import BatchPreparation
from hephaestus_baselines.training.inference import (
    DEFAULT_BATCH_SIZE,
    TrainedModel,
    expand_on_device,
    logits_to_probability,
    make_collector,
    make_data_loader,
    make_window_dataset,
    resolve_device,
    translate_reader_errors,
)
from hephaestus_baselines.training.prefetch import make_preparation_stream, prepare_ahead
from hephaestus_baselines.training.readback import Readback
from hephaestus_build.core.progress import NullListener, ProgressListener
from hephaestus_build.dataset.splits import SplitPart

#: Receives the probabilities of the pixels of windows, float32 (B, S, S), with their items.
MapReceiver = Callable[[Sequence[DatasetItem], npt.NDArray[np.float32]], None]
#: The maps of batches on their way from a device, with their items.
MapReadback = Readback[Sequence[DatasetItem]]


def predict_items(
    trained: TrainedModel,
    items: Sequence[DatasetItem],
    prepared: PreparedData,
    *,
    part: SplitPart | None = None,
    device: str | None = None,
    batch_size: int | None = None,
    workers: int = 0,
    listener: ProgressListener | None = None,
    on_map: MapReceiver | None = None,
) -> Predictions:
    """Predict items of one part of a split.

    Batches travel and are prepared as in training: on a GPU beside the step before, on a CPU before
    their own.

    Parameters
    ----------
    trained : TrainedModel
    items : sequence of DatasetItem
        Items of one part.
    prepared : PreparedData
        The data that the items belong to.
    part : str, optional
        Name of the part; by default the part that has the first item.
    device : str, optional
        Device to move the model to first.
    batch_size : int, optional
        Windows per batch.
    workers : int
        Number of reader processes.
    listener : ProgressListener, optional
        Receives progress.
    on_map : callable, optional
        Receives the maps of a segmentation.

    Returns
    -------
    Predictions
        One row per item, in the order of `items`.
    """
    listener = listener or NullListener()
    recipe = trained.recipe
    if device is not None:
        trained.model.to(resolve_device(device))
    found: list[SplitPart] = [name for name, known in prepared.items.items() if items[0] in known]
    chosen = part or found[0]
    target, size = trained.device, batch_size or DEFAULT_BATCH_SIZE
    terrain = FrameTerrain(prepared.stores, target) if fits_device(prepared.shapes, target) else None
    windows = PackedWindows(
        {chosen: make_window_dataset(recipe, items, prepared)},
        leave_out=() if terrain is None else ("dem",),
    )
    order = [
        WindowsOfPart(chosen, range(at, min(at + size, len(items)))) for at in range(0, len(items), size)
    ]
    loader = make_data_loader(windows, workers, batch_sampler=order, collate_fn=return_batch)
    preparation = BatchPreparation(recipe, trained.moments, (), terrain=terrain, device=target)
    batches = prepare_ahead(loader, preparation.prepare_validation, make_preparation_stream(target))
    collector = BatchCollector(make_collector(recipe, chosen, items, prepared))
    maps = read_back_maps(on_map) if on_map is not None else None
    stage = f"{recipe.model}: {chosen}"
    listener.stage(stage, len(items))
    with translate_reader_errors(stage, workers):
        for batch in batches:
            with torch.inference_mode():
                probability = logits_to_probability(trained.model(batch["inputs"]), recipe.task)
                index, label = (batch["batch"][name] for name in ("index", "label"))
                collector.add(index, label, batch["fields"], probability)
            if maps is not None:
                maps.add([items[place] for place in index.tolist()], {"maps": probability})
            listener.advance(stage, len(index))
        if maps is not None:
            maps.finish()
    return collector.finish()


def read_back_maps(receive: MapReceiver) -> MapReadback:
    """Return what hands the maps of batches, named ``maps``, to a receiver."""

    def hand_over(items: Sequence[DatasetItem], arrays: dict[str, npt.NDArray[Any]]) -> None:
        receive(items, arrays["maps"])

    return Readback(hand_over)


def read_ahead(
    windows: WindowDataset, draws: Sequence[Sequence[Any]], workers: int, device: torch.device
) -> Iterator[tuple[dict[str, Tensor], dict[str, Tensor]]]:
    """Yield batches of windows, as they are on the host and as fields on a device.

    Parameters
    ----------
    windows : WindowDataset
    draws : sequence of sequences of draws
        Those of each batch.
    workers : int
        Number of reader processes.
    device : torch.device
        On a GPU a batch is copied and expanded beside the step before.
    """

    def prepare(batch: dict[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        return batch, expand_on_device(batch, device)

    loader = make_data_loader(windows, workers, batch_sampler=draws)
    return prepare_ahead(loader, prepare, make_preparation_stream(device))
