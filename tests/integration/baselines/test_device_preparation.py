"""Tests of what is done to a batch on the device: no waiting for the device, and the values of before."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import nullcontext

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from hephaestus_baselines.config.channels import InputChannels
from hephaestus_baselines.config.run_config import AUGMENTATIONS, RotationMode
from hephaestus_baselines.data import augmentation
from hephaestus_baselines.data.augmentation import BatchTransforms, draw_transforms
from hephaestus_baselines.data.batch_expansion import ChannelStack, expand_batch

needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU here")


def compact_batch(count: int = 6, steps: int = 2, size: int = 24) -> dict[str, Tensor]:
    chance = torch.Generator().manual_seed(7)
    phase = torch.rand((count, steps, size, size), generator=chance) * 6 - 3
    phase[:, :, :3] = 0
    return {
        "phase": phase,
        "coherence": torch.randint(0, 256, phase.shape, generator=chance).to(torch.uint8),
        "mask": (torch.rand(phase.shape, generator=chance) > 0.8).to(torch.uint8),
        "dem": torch.rand((count, size, size), generator=chance) * 900,
        "atmosphere": torch.rand((count, steps, 2, 3, 4, 4), generator=chance),
        "rows": torch.linspace(0, 3, size).expand(count, -1),
        "columns": torch.linspace(0, 3, size).expand(count, -1),
        "inside": torch.ones((count, size, size), dtype=torch.bool),
    }


def fields_of(batch: dict[str, Tensor]) -> dict[str, Tensor]:
    fields = expand_batch(batch)
    return {**fields, "inside": batch["inside"].unsqueeze(1).expand_as(fields["valid"])}


def reference_transforms(fields: dict[str, Tensor], changes: BatchTransforms) -> dict[str, Tensor]:
    """Apply transforms to copies of the chosen samples, and write these back by their positions."""
    result, steps = dict(fields), fields["insar_difference"].shape[1]
    for kind, flags in {"warp": changes.is_moved, "blur": changes.blur_sigma > 0}.items():
        chosen = flags.nonzero().squeeze(1)
        if not len(chosen):
            continue
        shared = {name for name, values in result.items() if steps > 1 and values.stride(1) == 0}
        part = {name: (value[:, :1] if name in shared else value)[chosen] for name, value in result.items()}
        if kind == "warp":
            kept = None if changes.kept is None else changes.kept[flags]
            changed = augmentation._warp(part, changes.affine[flags], kept)
        else:
            changed = augmentation._blur(part, changes.blur_sigma[flags])
        for name, values in changed.items():
            old = result[name][:, :1] if name in shared else result[name]
            new = old.index_copy(0, chosen, values.to(old.dtype))
            result[name] = new.expand_as(result[name]) if name in shared else new
    return result


@pytest.mark.parametrize("rotation", ["full", "published"])
@pytest.mark.parametrize("steps", [1, 3])
def test_transforms_have_the_values_of_a_reference_bit_for_bit(rotation: RotationMode, steps: int) -> None:
    fields = fields_of(compact_batch(steps=steps))
    for seed in range(4):
        changes = draw_transforms(6, AUGMENTATIONS, torch.Generator().manual_seed(seed), rotation=rotation)
        ours, reference = (
            augmentation.apply_transforms(fields, changes),
            reference_transforms(fields, changes),
        )
        for name, values in reference.items():
            torch.testing.assert_close(ours[name], values, rtol=0, atol=0, equal_nan=True, msg=name)


class WaitingCopies(TorchDispatchMode):
    """Records copies between devices for which the host would wait."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        result = function(*args, **(kwargs or {}))
        if isinstance(result, Tensor) and args and isinstance(args[0], Tensor):
            asynchronous = (kwargs or {}).get("non_blocking") or (len(args) > 2 and args[2] is True)
            if args[0].device != result.device and not asynchronous:
                self.found.append(str(function))
        return result


def stack_for(steps: int) -> ChannelStack:
    inputs = InputChannels("both")
    return ChannelStack(inputs, steps, dict.fromkeys(inputs.channels, (0.5, 2.0)))


def test_no_value_on_the_device_is_needed_on_the_host(monkeypatch: pytest.MonkeyPatch) -> None:
    """On the meta device tensors have no values: whatever needs one on the host raises an error."""
    monkeypatch.setattr(torch, "autocast", lambda *_, **__: nullcontext())  # it does not know this device
    batch = {name: values.to("meta") for name, values in compact_batch().items()}
    changes = draw_transforms(6, AUGMENTATIONS, torch.Generator().manual_seed(1), rotation="published")
    assert changes.is_moved.any()
    assert (changes.blur_sigma > 0).any()
    with WaitingCopies() as copies:
        placed = augmentation.place_transforms(changes, torch.device("meta"))
        images = stack_for(2)(augmentation.transform_on_device(fields_of(batch), placed))
    assert images.shape == (6, 18, 24, 24)
    assert copies.found == []
    with pytest.raises((RuntimeError, NotImplementedError)):
        bool(images.isnan().any())
    with WaitingCopies() as copies:
        torch.zeros(3).to("meta")
    assert len(copies.found) == 1


@pytest.fixture
def no_waiting() -> Iterator[None]:
    """Let CUDA raise an error where the host would wait for the device."""
    torch.cuda.set_sync_debug_mode("error")
    yield
    torch.cuda.set_sync_debug_mode("default")


@needs_gpu
def test_a_gpu_is_never_waited_for(no_waiting: None) -> None:
    device = torch.device("cuda")
    batch = {
        name: values.pin_memory().to(device, non_blocking=True) for name, values in compact_batch().items()
    }
    for seed in range(4):
        changes = draw_transforms(6, AUGMENTATIONS, torch.Generator().manual_seed(seed))
        placed = augmentation.place_transforms(changes, device)
        stack_for(2)(augmentation.transform_on_device(fields_of(batch), placed))
