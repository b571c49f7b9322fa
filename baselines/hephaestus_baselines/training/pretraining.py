"""Training on simulated interferograms, from which a run with the weights ``simulated`` starts.

The windows come from :class:`~hephaestus_baselines.data.simulated_windows.SimulatedWindows`: no cube is read,
and none of their places is that of a volcano in a cube. The weights are kept in ``pretrained.ckpt`` of the
run, with its recipe and a hash of the content.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Subset

from hephaestus_baselines.config.run_config import Recipe
from hephaestus_baselines.data.augmentation import augment_batch
from hephaestus_baselines.data.batch_expansion import ChannelStack
from hephaestus_baselines.data.samplers import derive_seed
from hephaestus_baselines.data.simulated_windows import SimulatedWindows
from hephaestus_baselines.evaluation.result_schema import library_versions
from hephaestus_baselines.models.architectures import build_model
from hephaestus_baselines.models.losses import effective_gamma, focal_loss, weighted_mean
from hephaestus_baselines.training.batch_size import resolve_precision
from hephaestus_baselines.training.checkpoints import (
    METADATA_KEY,
    CheckpointMetadata,
    DamagedCheckpointError,
    read_checkpoint,
    write_checkpoint,
)
from hephaestus_baselines.training.inference import expand_on_device, make_data_loader, to_channels_last
from hephaestus_baselines.training.reader_count import count_readers
from hephaestus_baselines.training.schedule import cosine_schedule
from hephaestus_build.core.progress import ProgressListener

log = logging.getLogger(__name__)

PRETRAINED_CHECKPOINT_FILE = "pretrained.ckpt"
#: Numbers that keep the random numbers of this stage apart from those of training.
_STAGE, _WINDOWS, _AUGMENTATION, _DROPOUT = 7, 1, 2, 3


def ensure_pretrained(
    recipe: Recipe,
    moments: Mapping[str, tuple[float, float]],
    folder: Path,
    device: torch.device,
    listener: ProgressListener,
) -> Path:
    """Return the path of ``pretrained.ckpt`` in the folder of a run; train it if it is not there.

    Parameters
    ----------
    recipe : Recipe
        The run's configuration: model, channels, augmentation, loss and rate are its own.
    moments : mapping of str to (mean, deviation)
        By which each channel is normalised, as in training.
    folder : pathlib.Path
        Folder of the run.
    device : torch.device
    listener : ProgressListener
        Receives progress.
    """
    path = folder / PRETRAINED_CHECKPOINT_FILE
    if path.exists():
        try:
            if read_checkpoint(path)[METADATA_KEY].recipe.key == recipe.key:
                return path
        except DamagedCheckpointError as error:
            log.warning("run %s: %s; it is trained again", recipe.key, str(error).partition("; ")[0])
    weights = _train_on_simulated(recipe, moments, device, listener)
    metadata = CheckpointMetadata(
        recipe=recipe,
        moments=dict(moments),
        simulated=True,
        split_sha256="",
        generations={},
        versions=library_versions(),
        history=[],
    )
    write_checkpoint({"state_dict": weights, METADATA_KEY: metadata.model_dump()}, path)
    return path


def read_pretrained_weights(path: Path) -> dict[str, Tensor]:
    """Return the arrays of ``pretrained.ckpt`` by the names of the model.

    Raises
    ------
    HephaestusError
        If the file is missing or damaged.
    """
    state = read_checkpoint(path)["state_dict"]
    return {str(name).removeprefix("model."): values for name, values in state.items()}


def _train_on_simulated(
    recipe: Recipe,
    moments: Mapping[str, tuple[float, float]],
    device: torch.device,
    listener: ProgressListener,
) -> dict[str, Tensor]:
    torch.manual_seed(derive_seed(recipe.seed, _STAGE))
    channels = len(recipe.inputs.stacked_channels(recipe.steps))
    model = build_model(recipe.model, recipe.task, channels, size=recipe.size, looks=recipe.looks)
    model = model.to(memory_format=torch.channels_last).to(device).train()
    stack = ChannelStack(recipe.inputs, recipe.steps, moments)
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=recipe.learning_rate, weight_decay=recipe.weight_decay, fused=True
    )
    windows = SimulatedWindows(
        recipe.pretraining_windows,
        derive_seed(recipe.seed, _STAGE, _WINDOWS) % 2**32,
        size=recipe.size,
        steps=recipe.steps,
    )
    size = max(2, recipe.samples_per_step)
    count = max(
        1, len(windows) // size
    )  # batches of one window cannot be normalised: the last few are left out
    used = Subset(windows, range(min(len(windows), count * size)))
    loader: DataLoader[dict[str, Tensor]] = make_data_loader(
        used, count_readers(recipe, device), batch_size=size
    )
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: cosine_schedule(step, count))
    stage = f"{recipe.model}: simulated interferograms"
    listener.stage(stage, count)
    bf16 = resolve_precision(recipe, device) == "bf16-mixed"
    for step, batch in enumerate(loader):
        torch.manual_seed(derive_seed(recipe.seed, _STAGE, _DROPOUT, step))
        generator = torch.Generator().manual_seed(derive_seed(recipe.seed, _STAGE, _AUGMENTATION, step))
        inputs, target, weight = _prepare(recipe, stack, batch, generator, device)
        with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
            logits = model(inputs)
        loss = weighted_mean(
            focal_loss(
                logits,
                target,
                effective_gamma(recipe.loss, recipe.focal_gamma),
                alpha=recipe.focal_alpha if recipe.loss == "focal" else None,
                detached=recipe.focal_detached,
            ),
            weight,
        )
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        scheduler.step()
        listener.advance(stage)
    return _weights(model)


def _prepare(
    recipe: Recipe,
    stack: ChannelStack,
    batch: Mapping[str, Tensor],
    generator: torch.Generator,
    device: torch.device,
) -> tuple[Tensor, Tensor, Tensor]:
    """Return inputs, labels and weights of the loss."""
    fields = augment_batch(
        expand_on_device(batch, device),
        recipe.augmentations,
        generator,
        rotation=recipe.rotation,
        aspect=batch["aspect"],
    )
    mask = fields["mask"] > 0
    inputs = to_channels_last(stack(fields))
    if recipe.task == "segmentation":
        return inputs, mask.any(1).long(), fields["inside"][:, 0].float()
    return inputs, mask.flatten(1).any(1).long(), torch.ones(len(mask), device=device)


def _weights(model: nn.Module) -> dict[str, Tensor]:
    return {f"model.{name}": values.detach().cpu() for name, values in model.state_dict().items()}
