"""The DEMs of frames on a device: a frame's travels there once, and windows are cut there."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from hephaestus_baselines.data.augmentation import copy_to_device
from hephaestus_baselines.data.packed_batches import WindowPlace
from hephaestus_build.cube.reading.window_reader import WindowReader

#: Most bytes of all DEMs together, by the type of the device; with more, windows travel with their DEM.
#: The 38 published frames take 1.2 GB.
_LARGEST_TERRAIN: Mapping[str, int] = {"cpu": 1 << 30, "cuda": 4 << 30}


class FrameTerrain:
    """DEMs of frames, each read when a window of the frame is first cut.

    Parameters
    ----------
    stores : mapping of frame id to pathlib.Path
        Each frame's pinned cube.
    device : torch.device
    """

    def __init__(self, stores: Mapping[str, Path], device: torch.device) -> None:
        self.stores, self.device = stores, device
        self._heights: dict[str, Tensor] = {}

    def cut(self, places: Sequence[WindowPlace], size: int) -> Tensor:
        """Return the DEM of windows: float32 (B, size, size), m, NaN beyond the frame."""
        windows = torch.full((len(places), size, size), math.nan, device=self.device)
        for window, place in zip(windows, places, strict=True):
            heights = self._read_frame(place.frame)
            part = heights[place.row : place.row + size, place.column : place.column + size]
            window[: part.shape[0], : part.shape[1]] = part
        return windows

    def _read_frame(self, frame: str) -> Tensor:
        if frame not in self._heights:
            reader = WindowReader(self.stores[frame])
            heights = reader.read("dem", None, 0, 0, np.empty(reader.shape, np.float32))
            self._heights[frame] = copy_to_device(torch.from_numpy(heights), self.device)
        return self._heights[frame]


def fits_device(shapes: Mapping[str, tuple[int, int]], device: torch.device) -> bool:
    """Return whether the DEMs of frames of these shapes may be kept on a device."""
    pixels = sum(rows * columns for rows, columns in shapes.values())
    return 0 < 4 * pixels <= _LARGEST_TERRAIN.get(device.type, 0)
