"""Inference: a trained model and its predictions for windows."""

from __future__ import annotations

import os
import platform
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from hephaestus_baselines.config.channels import InputChannels, have_scale
from hephaestus_baselines.config.run_config import Recipe
from hephaestus_baselines.config.tasks import TASK_SPECS, Task, require_detection
from hephaestus_baselines.data.batch_expansion import ChannelStack, expand_batch
from hephaestus_baselines.data.dataset_items import DatasetItem
from hephaestus_baselines.data.preparation import PreparedData
from hephaestus_baselines.data.sample_attributes import SampleAttributes
from hephaestus_baselines.data.window_dataset import WindowDataset
from hephaestus_baselines.evaluation.predictions import (
    PredictedItem,
    PredictionCollector,
    PredictionSource,
)
from hephaestus_baselines.models.architectures import build_model
from hephaestus_baselines.training.checkpoints import (
    METADATA_KEY,
    CheckpointMetadata,
    DamagedCheckpointError,
    load_safetensors_weights,
    load_weights,
    read_checkpoint,
)
from hephaestus_baselines.training.exported_model import read_exported_model
from hephaestus_build.core.concurrency import exit_with_parent
from hephaestus_build.core.errors import HephaestusError, UsageError
from hephaestus_build.core.plain_text import sanitize_text
from hephaestus_build.dataset.splits import SplitPart

T = TypeVar("T")
#: Default number of windows per batch.
DEFAULT_BATCH_SIZE = 16
#: Parts of the errors that torch raises when a reader process is killed or shared memory is full.
_READER_SIGNS = (
    "DataLoader worker", "shared memory", "shm", "No space left on device", "Too many open files",
    "received 0 items of ancdata",
)  # fmt: skip


@dataclass(frozen=True)
class TrainedModel:
    """A model ready to predict.

    Attributes
    ----------
    recipe : Recipe
    model : torch.nn.Module
        Maps normalised channels to logits; in eval mode, on its device.
    moments : mapping of str to (mean, deviation)
        Mean and standard deviation by which each channel is normalised.
    trained_on_simulated : bool
        Whether it was trained on simulated data.
    split_sha256 : str
        Hash of the split that it was trained on.
    epoch : int
        The best epoch, whose weights these are, from 1.
    best_score : float
        Value of the metric `metric_name` on validation windows.
    metric_name : str
        ``average precision``, ``F1`` for segmentation, or ``macro F1`` for kinds of deformation.
    samples_per_second : float
        Training throughput, reading included.
    """

    recipe: Recipe
    model: nn.Module
    moments: Mapping[str, tuple[float, float]]
    trained_on_simulated: bool
    split_sha256: str
    epoch: int
    best_score: float
    metric_name: str
    samples_per_second: float

    @property
    def inputs(self) -> InputChannels:
        """The channels of each step."""
        return self.recipe.inputs

    @property
    def device(self) -> torch.device:
        """The device of the model."""
        return next(self.model.parameters()).device

    def predict_probabilities(self, batch: Mapping[str, Tensor]) -> Tensor:
        """Return the probability of deformation, or of each class of its kind, float32 on its device.

        Parameters
        ----------
        batch : mapping of str to Tensor
            Compact windows of a ``WindowDataset``, on any device.

        Returns
        -------
        Tensor
            (B,); for segmentation (B, S, S); (B, K) of the K classes of a kind.

        Raises
        ------
        HephaestusError
            If any of them is not a number, which maps would show as no data.
        """
        stack = ChannelStack(self.inputs, self.recipe.steps, self.moments)
        with torch.inference_mode():
            inputs = to_channels_last(stack(expand_on_device(batch, self.device)))
            probability = logits_to_probability(self.model(inputs), self.recipe.task)
            if not bool(probability.isfinite().all()):
                raise HephaestusError(
                    f"{self.recipe.key}: the model returned invalid probabilities: its training diverged, or "
                    "its weights or normalisation are damaged; take another model, or train it with a "
                    "smaller --set learning_rate"
                )
            return probability


def load_trained_model(path: Path, device: str = "auto", *, unsealed: bool = False) -> TrainedModel:
    """Read a trained model: a checkpoint, or the folder of an exported model; no code in it runs.

    Parameters
    ----------
    path : pathlib.Path
        Checkpoint of :func:`~hephaestus_baselines.training.trainer.train_model`, or a folder that
        ``hephaestus benchmark export-model`` wrote.
    device : str
        Device of the model.
    unsealed : bool
        Whether to accept a checkpoint without a content hash.

    Raises
    ------
    HephaestusError
        If the model is missing, damaged, or was not written by this project.
    """
    target = resolve_device(device)
    if path.is_dir():
        exported = read_exported_model(path)
        told = exported.description
        return TrainedModel(
            told.recipe,
            _build_trained(
                path, told.recipe, lambda model: load_safetensors_weights(model, exported.weights), target
            ),
            told.normalisation,
            told.simulated,
            told.split_sha256,
            told.epoch,
            told.validation_score,
            selection_metric_name(told.recipe.task),
            told.samples_per_second,
        )
    content = read_checkpoint(path, unsealed=unsealed)
    about: CheckpointMetadata = content[METADATA_KEY]
    recipe = about.recipe
    weights = model_weights(content["state_dict"])
    if set(about.moments) != set(recipe.inputs.channels) or not about.history:
        raise _misfit(path, recipe, "its channels or epochs are not those of its recipe")
    if not have_scale(about.moments):
        raise _misfit(path, recipe, "it has a mean or deviation by which no channel can be normalised")
    last = about.history[-1]
    return TrainedModel(
        recipe,
        _build_trained(path, recipe, lambda model: load_weights(model, weights), target),
        about.moments,
        about.simulated,
        about.split_sha256,
        last.epoch,
        last.validation_score,
        selection_metric_name(recipe.task),
        float(np.median([row.samples_per_second for row in about.history])),
    )


def load_deformation_model(
    path: Path, device: str = "auto", *, unsealed: bool = False, what: str = "a map"
) -> TrainedModel:
    """Read a trained model that tells deformation from none; see :func:`load_trained_model`.

    Parameters
    ----------
    path, device, unsealed
        As of :func:`load_trained_model`.
    what : str
        What needs it, to begin the message of an error.

    Raises
    ------
    UsageError
        If the model tells the kind of deformation.
    """
    trained = load_trained_model(path, device, unsealed=unsealed)
    require_detection(trained.recipe.task, what)
    return trained


def model_weights(state: Mapping[Any, Any]) -> dict[str, Any]:
    """Return the arrays of the model, by name, from the state that a checkpoint holds."""
    return {
        str(name).removeprefix("model."): values
        for name, values in state.items()
        if str(name).startswith("model.")
    }


def _build_trained(
    path: Path, recipe: Recipe, load: Callable[[nn.Module], None], target: torch.device
) -> nn.Module:
    """Return the model of a recipe with the weights of a file, ready to predict."""
    channels = len(recipe.inputs.stacked_channels(recipe.steps))
    try:
        model = build_model(recipe.model, recipe.task, channels, size=recipe.size, looks=recipe.looks)
        load(model)
    except (RuntimeError, ValueError) as error:
        raise _misfit(path, recipe, error) from error
    return model.to(memory_format=torch.channels_last).to(target).eval()


def _misfit(path: Path, recipe: Recipe, why: object) -> DamagedCheckpointError:
    return DamagedCheckpointError(
        f"{path} does not fit the model {recipe.model} of this version ({sanitize_text(why, 200)}); train it "
        "again"
    )


def selection_metric_name(task: Task) -> str:
    """Return the name of the metric that selects the best epoch."""
    if TASK_SPECS[task].tells_kind:
        return "macro F1"
    return "F1" if TASK_SPECS[task].per_pixel else "average precision"


def make_window_dataset(
    recipe: Recipe, items: Sequence[DatasetItem], prepared: PreparedData
) -> WindowDataset:
    """Return the data set of `items`."""
    return WindowDataset(
        items,
        prepared.stores,
        size=recipe.size,
        atmosphere=recipe.atmosphere != "none",
        volcanic_only=recipe.positives == "volcanic",
        task=recipe.task,
        # no more than the cores that this run may use: runs in parallel would slow each other down
        threads=torch.get_num_threads(),
    )


def make_data_loader(windows: Dataset[T], workers: int, **options: Any) -> DataLoader[T]:
    """Return a loader whose workers, if any, are spawned: forking a process with threads can deadlock."""
    if workers:
        options |= {
            "multiprocessing_context": "spawn",
            "persistent_workers": True,
            # torch looks for the parent only once the worker runs: if it was killed before, another process
            # has taken its place, and the worker would never end
            "worker_init_fn": _watch_parent,
        }
    return DataLoader(windows, num_workers=workers, pin_memory=torch.cuda.is_available(), **options)


def _watch_parent(_: int) -> None:
    exit_with_parent()


@contextmanager
def translate_reader_errors(what: str, workers: int) -> Iterator[None]:
    """Convert torch's errors of reader processes to one that says what to do.

    Parameters
    ----------
    what : str
        What was read, such as the key of a run.
    workers : int
        Number of reader processes.

    Raises
    ------
    HephaestusError
        If a reader process was killed, or there is too little shared memory for its batches.
    """
    try:
        yield
    except (RuntimeError, OSError) as error:
        text = " ".join(str(error).split())
        if not workers or not any(sign in text for sign in _READER_SIGNS):
            raise
        raise HephaestusError(
            f"{what}: a reader process ended or found no shared memory ({sanitize_text(text, 160)}); run the "
            f"same command again with fewer workers (--set workers={workers // 2}), a smaller batch_size, or "
            f"more memory and shared memory (docker run --shm-size=8g); it goes on from the last epoch"
        ) from error


def make_collector(
    recipe: Recipe, part: SplitPart, items: Sequence[DatasetItem], prepared: PreparedData
) -> PredictionCollector:
    """Return a collector of predictions for `items`."""
    split = prepared.split
    source = PredictionSource(recipe.task, recipe.key, split.name, split.sha256, prepared.is_simulated)
    return PredictionCollector(source, part, [make_predicted_item(item, prepared) for item in items])


def make_predicted_item(item: DatasetItem, prepared: PreparedData) -> PredictedItem:
    """Return the description of an item, independent of any model."""
    keys = [(item.frame, pair) for pair in item.pairs]
    known = [prepared.attributes.get(key, SampleAttributes("")) for key in keys]
    tile = item.tile
    events = {event for key in keys for event in prepared.events.get(key, ())}
    return PredictedItem(
        item.frame,
        item.pairs,
        item.positive,
        (tile.row, tile.column, tile.size) if tile else None,
        tuple(sorted(events)),
        known[0].region,
        tuple(sorted({word for one in known for word in one.activities})),
        tuple(sorted({word for one in known for word in one.intensities})),
        tuple(
            sorted({prepared.event_volcanoes[event] for event in events & prepared.event_volcanoes.keys()})
        ),
        item.sliver,
    )


def expand_on_device(batch: Mapping[str, Tensor], device: torch.device) -> dict[str, Tensor]:
    """Return the named fields of compact windows on a device, with ``inside``, the pixels that count."""
    batch = {name: values.to(device, non_blocking=True) for name, values in batch.items()}
    fields = expand_batch(batch)
    inside = batch["inside"].unsqueeze(1)
    return {**fields, "inside": inside.expand_as(fields["valid"])}


def to_channels_last(inputs: Tensor) -> Tensor:
    """Return `inputs` in channels-last memory format, the fastest for convolutions."""
    return inputs.contiguous(memory_format=torch.channels_last)


def logits_to_probability(logits: Tensor, task: Task = "classification") -> Tensor:
    """Return the probability of deformation, float32 (B, ...), from logits (B, 2, ...).

    Of a task that tells the kind of deformation it is that of each class, (B, K) from (B, K).
    """
    probability = logits.float().softmax(dim=1)
    return probability if TASK_SPECS[task].tells_kind else probability[:, 1]


def describe_device(device: torch.device) -> str:
    """Return a readable description of a torch device."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"CPU ({platform.processor() or platform.machine()}), {torch.get_num_threads()} threads"


def resolve_device(name: str) -> torch.device:
    """Return a device by name; ``auto`` is the first GPU, or the CPU if there is none.

    Raises
    ------
    UsageError
        If the name is unknown or there is no such device.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise UsageError(f"{name!r} is not a device; choose auto, cpu, cuda or cuda:1") from error
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise UsageError(f"there is no device {name} here; choose auto or cpu")
    if device.type == "cuda":
        # torch reads it at the first matrix product of a process, which may come before any training: the
        # same run would be computed otherwise after a trial of batch sizes than without one
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    return device
