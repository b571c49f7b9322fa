"""Preparation of a batch on its device: model inputs, labels and loss weights from compact windows."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from hephaestus_baselines.config.run_config import Recipe
from hephaestus_baselines.data.augmentation import (
    PlacedTransforms,
    copy_to_device,
    draw_transforms,
    place_transforms,
    transform_on_device,
)
from hephaestus_baselines.data.batch_expansion import ChannelStack, expand_batch
from hephaestus_baselines.data.packed_batches import PackedBatch
from hephaestus_baselines.data.samplers import derive_seed
from hephaestus_baselines.data.terrain import FrameTerrain
from hephaestus_baselines.training.inference import to_channels_last

log = logging.getLogger(__name__)

#: Steps of a run from which compiling its preparation for a GPU pays: it takes about a minute.
_COMPILED_STEPS = 2000


class BatchPreparation:
    """Prepares the batches of one run; the host never waits for the device.

    Parameters
    ----------
    recipe : Recipe
    moments : mapping of str to (mean, deviation)
        Mean and standard deviation by which each channel is normalised.
    labels : sequence of bool
        Labels of the training items, for a control with permuted ones.
    terrain : FrameTerrain, optional
        DEMs of windows that travel without.
    device : torch.device
    rank : int
        Index of this device, if several train together.
    steps : int
        Steps of the run; many are worth compiling the preparation on a GPU.
    """

    def __init__(
        self,
        recipe: Recipe,
        moments: Mapping[str, tuple[float, float]],
        labels: Sequence[bool],
        *,
        terrain: FrameTerrain | None = None,
        device: torch.device,
        rank: int = 0,
        steps: int = 0,
    ) -> None:
        self.recipe, self.labels, self.terrain, self.device, self.rank = recipe, labels, terrain, device, rank
        self._stack = ChannelStack(recipe.inputs, recipe.steps, moments)
        self._make_inputs: Callable[..., tuple[Tensor, dict[str, Tensor]]] = self._expand_and_stack
        if device.type == "cuda" and steps >= _COMPILED_STEPS:
            self.compile_inputs()

    def compile_inputs(self, **options: Any) -> None:
        """Compile what is done to a batch on the device; see :func:`compile_with_fallback`."""
        self._make_inputs = compile_with_fallback(self._expand_and_stack, **options)

    def prepare_training(self, batch: PackedBatch, step: int) -> dict[str, Any]:
        """Return ``inputs``, ``label`` and ``weight`` of a batch; its random numbers follow from its step."""
        recipe = self.recipe
        generator = torch.Generator().manual_seed(derive_seed(recipe.seed, step, self.rank, 1))
        with torch.no_grad():
            compact = self._unpack(batch)
            label = compact["label"]
            if recipe.shuffle_labels:
                label = self._shuffle_labels(batch, compact, generator)
            placed = PlacedTransforms()
            if recipe.augmentations:
                changes = draw_transforms(
                    len(batch),
                    recipe.augmentations,
                    generator,
                    rotation=recipe.rotation,
                    aspect=batch.read_host_field("aspect") if recipe.rotation == "metric" else None,
                    steps=recipe.steps,
                )
                placed = place_transforms(changes, self.device)
            inputs, fields = self._make_inputs(compact, placed)
            if not recipe.shuffle_labels:
                # a crop may have cut off the deformation
                shown = (fields["mask"] > 0).flatten(1).any(1)
                label = torch.where(shown, label, -1) if recipe.spec.tells_kind else shown.long()
            return self._add_targets(inputs, fields, label, compact["weight"])

    def prepare_validation(self, batch: PackedBatch) -> dict[str, Any]:
        """Return the same of a batch as it is, with its ``fields``, and its ``batch`` fields on the host."""
        with torch.no_grad():
            compact = self._unpack(batch)
            inputs, fields = self._make_inputs(compact, PlacedTransforms())
            prepared = self._add_targets(inputs, fields, compact["label"], compact["weight"])
        host = {name: batch.read_host_field(name) for name in ("index", "label")}
        return {**prepared, "fields": fields, "batch": host}

    def _unpack(self, batch: PackedBatch) -> dict[str, Tensor]:
        compact = batch.unpack(self.device)
        if "dem" not in compact:
            assert self.terrain is not None
            assert batch.places is not None
            compact["dem"] = self.terrain.cut(batch.places, self.recipe.size)
        return compact

    def _expand_and_stack(
        self, compact: dict[str, Tensor], placed: PlacedTransforms
    ) -> tuple[Tensor, dict[str, Tensor]]:
        fields = expand_batch(compact)
        fields["inside"] = compact["inside"].unsqueeze(1).expand_as(fields["valid"])
        fields = transform_on_device(fields, placed)
        return to_channels_last(self._stack(fields)), {
            name: fields[name] for name in ("mask", "inside", "valid")
        }

    def _add_targets(
        self, inputs: Tensor, fields: Mapping[str, Tensor], label: Tensor, weight: Tensor
    ) -> dict[str, Any]:
        weight = weight if self.recipe.confidence_weights else torch.ones_like(weight)
        if self.recipe.spec.per_pixel:
            label = (fields["mask"] > 0).any(1).long()
            weight = weight.view(-1, 1, 1) * fields["inside"][:, 0]
        elif self.recipe.spec.tells_kind:  # windows without a known class teach nothing
            label, weight = label.clamp(min=0), weight * (label >= 0)
        return {"inputs": inputs, "label": label, "weight": weight}

    def _shuffle_labels(
        self, batch: PackedBatch, compact: dict[str, Tensor], generator: torch.Generator
    ) -> Tensor:
        """Return labels, and put masks into `compact`, that are unrelated to the windows."""
        if self.recipe.task == "classification":
            labels = [self.labels[index] for index in batch.read_host_field("index").tolist()]
            return copy_to_device(torch.tensor(labels).long(), self.device)
        if self.recipe.spec.tells_kind:
            order = copy_to_device(torch.randperm(len(batch), generator=generator), self.device)
            return compact["label"][order]
        mask = compact["mask"]
        order = copy_to_device(torch.randperm(len(mask), generator=generator), self.device)
        # also shift the masks: the position of a volcano in its frame predicts where it deforms
        down, along = torch.randint(mask.shape[-1], (2,), generator=generator).tolist()
        compact["mask"] = mask[order].roll((down, along), (-2, -1))
        return compact["label"]


def compile_with_fallback(function: Callable[..., Any], **options: Any) -> Callable[..., Any]:
    """Return `function` compiled by torch; the function itself, and a line in the log, if that fails.

    Parameters
    ----------
    function : callable
        Returns the same for the same arguments, so that it may be called again.
    **options
        Of ``torch.compile``.
    """
    compiled = torch.compile(function, dynamic=True, **options)
    works = True

    def call(*arguments: Any) -> Any:
        nonlocal works
        if works:
            try:
                return compiled(*arguments)
            except torch.OutOfMemoryError:
                raise
            except Exception as error:  # a compiler can fail in many ways, and nothing depends on it
                works = False
                reason = (str(error).splitlines() or [""])[0]
                log.warning(
                    "batches are prepared without compiling (%s: %.160s); training is a little slower",
                    type(error).__name__, reason,
                )  # fmt: skip
        return function(*arguments)

    return call
