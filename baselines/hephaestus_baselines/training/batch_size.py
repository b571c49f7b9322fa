"""Choice of the number of samples of a step, where a recipe leaves it to the program.

The largest power of two is chosen whose step fits into the memory of the device with a margin, and that
leaves an epoch enough steps. On a GPU steps of that model are tried, forward and backward, on empty
images. On a CPU too large a step would end the process, so that its memory is counted on a small one.

The choice is written into ``recipe.yaml`` of the run and into its checkpoints. A run that goes on elsewhere
keeps it, as another size of the steps is another training.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks

from hephaestus_baselines.config.run_config import Recipe, read_recipe
from hephaestus_baselines.models.architectures import build_model
from hephaestus_baselines.models.losses import effective_gamma, focal_loss
from hephaestus_build.core.errors import HephaestusError, UsageError
from hephaestus_build.core.machine.limits import read_machine_limits

log = logging.getLogger(__name__)

RUN_RECIPE_FILE = "recipe.yaml"
#: Share of the free memory that a step may take; the rest is for readers, fragments and validation.
_USABLE_SHARE = 0.8
#: An epoch keeps at least this many steps, however few samples it has.
_MIN_STEPS = 16
#: Numbers of float32 that fields, augmentation and their copies take for each input channel and pixel.
_COPIES_OF_INPUT = 6
#: Copies of the parameters: weights, gradients and the two moments of AdamW.
_COPIES_OF_PARAMETERS = 4


def settle_batch_size(
    recipe: Recipe,
    folder: Path,
    draws: int,
    device: torch.device,
    *,
    try_step: Callable[[int], None] | None = None,
) -> Recipe:
    """Return the recipe with the number of samples of a step; chosen once for a run.

    Parameters
    ----------
    recipe : Recipe
        Returned unchanged unless its ``batch_size`` is ``auto``.
    folder : pathlib.Path
        Folder of the run, where ``recipe.yaml`` keeps the choice.
    draws : int
        Samples of an epoch.
    device : torch.device
    try_step : callable, optional
        Makes a step of the given number of samples; it raises :class:`torch.OutOfMemoryError` if the memory
        does not suffice. By default a step of the recipe's model.

    Raises
    ------
    HephaestusError
        If not even the smallest step fits.
    """
    if recipe.batch_size != "auto":
        return recipe
    if known := _read_choice(recipe, folder):
        log.warning("run %s: keeps the batch size %d that was chosen when it began", recipe.key, known)
        return recipe.model_copy(update={"chosen_batch": known})
    most = min(recipe.largest_batch, max(2, draws // _MIN_STEPS))
    step = try_step or make_step_trial(recipe, device)
    count = largest_fitting_batch(step, most)
    if not count:
        raise HephaestusError(
            f"run {recipe.key}: not even 2 samples of {recipe.size} pixels fit into the memory of "
            f"{device}; choose a smaller window (--set size=256), a smaller model or another device"
        )
    log.info("run %s: batch size %d, chosen for %s (at most %d)", recipe.key, count, device, most)
    chosen = recipe.model_copy(update={"chosen_batch": count})
    folder.mkdir(parents=True, exist_ok=True)
    chosen.write(folder / RUN_RECIPE_FILE)
    return chosen


def largest_fitting_batch(try_step: Callable[[int], None], most: int) -> int:
    """Return the largest power of two from 2 to `most` whose step fits; 0 if 2 do not.

    Parameters
    ----------
    try_step : callable
        Raises :class:`torch.OutOfMemoryError` if a step of the given number of samples does not fit.
    most : int
        Upper limit, 2 or more.
    """
    found, count = 0, 2
    while count <= most:
        try:
            try_step(count)
        except torch.OutOfMemoryError:
            break
        found, count = count, 2 * count
    return found


def make_step_trial(recipe: Recipe, device: torch.device) -> Callable[[int], None]:
    """Return a function that tries a step of a recipe's model on a device.

    Parameters
    ----------
    recipe : Recipe
    device : torch.device

    Returns
    -------
    callable
        Takes a number of samples, and raises :class:`torch.OutOfMemoryError` if their step does not fit.
    """
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        channels = len(recipe.inputs.stacked_channels(recipe.steps))
        model = build_model(recipe.model, recipe.task, channels, size=recipe.size, looks=recipe.looks)
    model = model.to(memory_format=torch.channels_last).to(device).train()
    if device.type == "cuda":
        return lambda count: _try_on_gpu(recipe, model, channels, count, device)
    usable = read_machine_limits().usable_memory
    needed = _count_step_bytes(recipe, model, channels)

    def compare(count: int) -> None:
        if usable is not None and needed(count) > _USABLE_SHARE * usable:
            raise torch.OutOfMemoryError(f"{count} samples need {needed(count)} bytes")

    return compare


def _try_on_gpu(recipe: Recipe, model: nn.Module, channels: int, count: int, device: torch.device) -> None:
    torch.cuda.empty_cache()
    free, _ = torch.cuda.mem_get_info(device)
    before = torch.cuda.memory_allocated(device)
    torch.cuda.reset_peak_memory_stats(device)
    try:
        _run_step(recipe, model, channels, count, device)
        taken = torch.cuda.max_memory_allocated(device) - before
    finally:
        model.zero_grad(set_to_none=True)
        torch.cuda.empty_cache()
    taken += _other_bytes(recipe, model, channels, count)
    if taken > _USABLE_SHARE * free:
        raise torch.OutOfMemoryError(f"{count} samples take {taken} of {free} bytes")


def _run_step(recipe: Recipe, model: nn.Module, channels: int, count: int, device: torch.device) -> None:
    shape = count, channels, recipe.size, recipe.size
    images = torch.zeros(shape, device=device).contiguous(memory_format=torch.channels_last)
    bf16 = resolve_precision(recipe, device) == "bf16-mixed"
    with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
        logits = model(images)
    target = torch.zeros((count, *logits.shape[2:]), dtype=torch.long, device=device)
    loss: Tensor = focal_loss(logits, target, effective_gamma(recipe.loss, recipe.focal_gamma))
    loss.mean().backward()


def _count_step_bytes(recipe: Recipe, model: nn.Module, channels: int) -> Callable[[int], int]:
    """Return the memory of a step by its number of samples, counted on a step of two."""
    saved: dict[int, int] = {}

    def keep(values: Tensor) -> Tensor:
        storage = values.untyped_storage()
        saved[storage.data_ptr()] = storage.nbytes()
        return values

    with torch.random.fork_rng(devices=[]), saved_tensors_hooks(keep, lambda values: values):
        _run_step(recipe, model, channels, 2, torch.device("cpu"))
    model.zero_grad(set_to_none=True)
    # what the backward pass adds is at most as large as what it reads
    each = sum(saved.values())
    return lambda count: each * count + _other_bytes(recipe, model, channels, count)


def _other_bytes(recipe: Recipe, model: nn.Module, channels: int, count: int) -> int:
    """Return the memory of a step besides activations: parameters, optimiser, the fields of its windows."""
    parameters = sum(values.numel() for values in model.parameters())
    inputs = count * channels * recipe.size**2
    return 4 * (_COPIES_OF_PARAMETERS * parameters + _COPIES_OF_INPUT * inputs)


def resolve_precision(recipe: Recipe, device: torch.device) -> Literal["32-true", "16-mixed", "bf16-mixed"]:
    """Return the precision of a run on a device: ``auto`` is bf16 on GPUs that compute in it, else 32 bit."""
    if recipe.precision != "auto":
        return recipe.precision
    has = device.type == "cuda" and torch.cuda.get_device_capability(device)[0] >= 8
    return "bf16-mixed" if has else "32-true"


def _read_choice(recipe: Recipe, folder: Path) -> int:
    """Return the number that the folder of a run keeps; 0 if there is none of this run."""
    try:
        known = read_recipe(folder / RUN_RECIPE_FILE)
    except UsageError:
        return 0
    return known.chosen_batch if known.key == recipe.key else 0
