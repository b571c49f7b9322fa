"""Batches of compact windows in one buffer, written by readers and copied to the device in one piece."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.utils.data import Dataset, get_worker_info

#: Fields of which only zero or not counts; they travel as bits.
_BIT_FIELDS = ("mask", "inside")
#: Each field begins at a multiple of this many bytes.
_ALIGNMENT = 64


class WindowPlace(NamedTuple):
    """A window's frame, first row and first column."""

    frame: str
    row: int
    column: int


class FieldSlot(NamedTuple):
    """Where a field of all samples lies in a buffer.

    Attributes
    ----------
    offset : int
        First byte.
    shape : tuple of int
        Of all samples, as stored: (B, ...).
    dtype : torch.dtype
        As stored.
    bits : bool
        Whether the last axis holds eight pixels a byte.
    """

    offset: int
    shape: tuple[int, ...]
    dtype: torch.dtype
    bits: bool


@dataclass(frozen=True)
class PackedBatch:
    """The compact windows of one batch in one buffer.

    Attributes
    ----------
    part : str
        The part of the split that the windows belong to.
    buffer : Tensor
        uint8 (N,), on the host; the fields lie in it one after the other.
    slots : mapping of str to FieldSlot
        Place of each field.
    places : tuple of WindowPlace or None
        Places of the windows, for what is cut on the device; None if nothing is.
    """

    part: str
    buffer: Tensor
    slots: Mapping[str, FieldSlot]
    places: tuple[WindowPlace, ...] | None = None

    def __len__(self) -> int:
        """Return the number of windows."""
        return self.slots["index"].shape[0]

    def pin_memory(self) -> PackedBatch:
        """Return the batch in pinned memory, from which copies to a GPU run beside other work."""
        return replace(self, buffer=self.buffer.pin_memory())

    def read_host_field(self, name: str) -> Tensor:
        """Return a field on the host."""
        return _view(self.buffer, self.slots[name])

    def unpack(self, device: torch.device) -> dict[str, Tensor]:
        """Copy the buffer to a device, in one piece and without waiting, and return its fields there."""
        buffer = self.buffer.to(device, non_blocking=True)
        return {name: _unpack(buffer, name, slot) for name, slot in self.slots.items()}


class WindowsOfPart(NamedTuple):
    """What a batch sampler yields: a part, and the draws of one of its batches."""

    part: str
    draws: Sequence[Any]


class DirectWindows(Protocol):
    """A data set that writes a window into arrays that it is given."""

    def layout(self) -> Mapping[str, tuple[tuple[int, ...], np.dtype[Any]]]:
        """Return the shape and dtype of each field of a window."""

    def read_into(self, draw: Any, out: Mapping[str, npt.NDArray[Any]]) -> WindowPlace:
        """Write the fields named in `out`, and return the place of the window."""


class PackedWindows(Dataset[PackedBatch]):
    """Batches of the windows of several parts; a DataLoader's batch sampler yields :class:`WindowsOfPart`.

    Parameters
    ----------
    parts : mapping of str to Dataset
        Data set of each part. One with ``layout`` and ``read_into`` (:class:`DirectWindows`) writes into the
        buffer itself; others return dictionaries of tensors.
    leave_out : sequence of str
        Fields that do not travel, of data sets that write themselves: they are cut on the device.
    """

    def __init__(self, parts: Mapping[str, Any], leave_out: Sequence[str] = ()) -> None:
        self.parts, self.leave_out = dict(parts), tuple(leave_out)

    def __getitems__(self, order: WindowsOfPart) -> PackedBatch:
        """Return a batch; in a worker process its buffer is shared memory, which is not copied again."""
        part, draws = order
        windows = self.parts[part]
        if hasattr(windows, "read_into"):
            kept = {name: what for name, what in windows.layout().items() if name not in self.leave_out}
            slots, buffer = _allocate(kept, len(draws))
            arrays = {name: _view(buffer, slot).numpy() for name, slot in slots.items()}
            whole = {name: np.empty(*kept[name]) for name, slot in slots.items() if slot.bits}
            places = []
            for number, draw in enumerate(draws):
                out = {
                    name: whole[name] if slot.bits else arrays[name][number, ...]
                    for name, slot in slots.items()
                }
                places.append(windows.read_into(draw, out))
                for name, values in whole.items():
                    arrays[name][number] = np.packbits(values != 0, axis=-1)
            return PackedBatch(part, buffer, slots, tuple(places))
        return pack_samples(part, [windows[draw] for draw in draws])


def pack_samples(part: str, samples: Sequence[Mapping[str, Tensor]]) -> PackedBatch:
    """Return a batch of samples, dictionaries of tensors whose shapes are equal."""
    first = {name: value.numpy() for name, value in samples[0].items()}
    slots, buffer = _allocate(
        {name: (value.shape, value.dtype) for name, value in first.items()}, len(samples)
    )
    for name, slot in slots.items():
        array = _view(buffer, slot).numpy()
        for number, sample in enumerate(samples):
            values = sample[name].numpy()
            array[number] = np.packbits(values != 0, axis=-1) if slot.bits else values
    return PackedBatch(part, buffer, slots)


def return_batch(batch: PackedBatch) -> PackedBatch:
    """Return a batch as it is: the ``collate_fn`` of a DataLoader of :class:`PackedWindows`."""
    return batch


def _allocate(
    layout: Mapping[str, tuple[tuple[int, ...], np.dtype[Any]]], count: int
) -> tuple[dict[str, FieldSlot], Tensor]:
    slots, end = {}, 0
    for name, (shape, dtype) in layout.items():
        bits = name in _BIT_FIELDS and len(shape) > 0 and shape[-1] % 8 == 0
        stored = (*shape[:-1], shape[-1] // 8) if bits else shape
        kind = torch.uint8 if bits else torch.from_numpy(np.empty(0, dtype)).dtype
        slots[name] = FieldSlot(end, (count, *stored), kind, bits)
        end += -(-count * int(np.prod(stored)) * kind.itemsize // _ALIGNMENT) * _ALIGNMENT
    if get_worker_info() is None:
        return slots, torch.empty(end, dtype=torch.uint8)
    shared = torch.UntypedStorage._new_shared(end)  # as torch's own default_collate does
    return slots, torch.empty(0, dtype=torch.uint8).set_(shared)


def _view(buffer: Tensor, slot: FieldSlot) -> Tensor:
    size = int(np.prod(slot.shape)) * slot.dtype.itemsize
    return buffer[slot.offset : slot.offset + size].view(slot.dtype).view(slot.shape)


def _unpack(buffer: Tensor, name: str, slot: FieldSlot) -> Tensor:
    values = _view(buffer, slot)
    if not slot.bits:
        return values
    shifts = torch.arange(7, -1, -1, dtype=torch.uint8, device=buffer.device)
    pixels = ((values.unsqueeze(-1) >> shifts) & 1).flatten(-2)
    return pixels.bool() if name == "inside" else pixels
