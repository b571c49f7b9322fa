"""Which part of a frame a model sees; each choice says whether it looked at the label.

A test that chooses its crops by the label scores what nobody can run: without the label there is no crop.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import numpy as np

from hephaestus_build.core.errors import UsageError
from hephaestus_build.dataset.samples import Sample

TilingMode = Literal["whole-frame", "grid", "label-centred"]
TILING_MODES: tuple[TilingMode, ...] = ("whole-frame", "grid", "label-centred")
#: Pixels a side, as in the paper.
TILE_SIZE = 512


@dataclass(frozen=True, order=True)
class Tile:
    """A square window of a frame.

    Attributes
    ----------
    row, column : int
        Where it begins; never negative.
    size : int
        Rows and columns. It may reach beyond a frame that is smaller than itself.
    core : tuple of int
        First and last + 1 row, first and last + 1 column of the frame that this tile answers for.
    """

    row: int
    column: int
    size: int
    core: tuple[int, int, int, int]

    def read(self, values: np.ndarray, fill: float = 0) -> np.ndarray:
        """Return the tile's part of `values`, shape (..., rows, columns), filled up to (..., size, size)."""
        part = values[..., self.row : self.row + self.size, self.column : self.column + self.size]
        rows, columns = part.shape[-2:]
        if (rows, columns) == (self.size, self.size):
            return part
        result = np.full((*values.shape[:-2], self.size, self.size), fill, values.dtype)
        result[..., :rows, :columns] = part
        return result

    def write(self, values: np.ndarray, target: np.ndarray) -> None:
        """Put the core of `values`, shape (..., size, size), in its place in `target`."""
        top, bottom, left, right = self.core
        target[..., top:bottom, left:right] = values[
            ..., top - self.row : bottom - self.row, left - self.column : right - self.column
        ]


@dataclass(frozen=True)
class Tiling:
    """The tiles of one sample and how they were chosen.

    Attributes
    ----------
    mode : str
        Name of the choice.
    uses_label : bool
        Whether the label decided where the tiles lie.
    shape : tuple of int
        Rows and columns of the frame.
    tiles : tuple of Tile
    """

    mode: TilingMode
    uses_label: bool
    shape: tuple[int, int]
    tiles: tuple[Tile, ...]


def tile_whole_frame(shape: tuple[int, int], size: int = TILE_SIZE) -> Tiling:
    """Cover a frame with the fewest tiles in straight rows.

    The tiles overlap where the frame is no multiple of `size`; their cores meet without overlap, so that
    a score over the cores counts every pixel of the frame once.
    """
    rows, columns = (_even_starts(extent, size, -(-extent // size)) for extent in shape)
    tiles = tuple(
        Tile(row, column, size, (top, bottom, left, right))
        for row, top, bottom in _starts_with_cores(rows, size, shape[0])
        for column, left, right in _starts_with_cores(columns, size, shape[1])
    )
    return Tiling("whole-frame", False, shape, tiles)


def tile_on_grid(shape: tuple[int, int], size: int = TILE_SIZE, count: int = 3) -> Tiling:
    """Spread `count` x `count` tiles evenly over a frame, fewer where they would overlap.

    A fixed, cheap choice for a frame of any size: it leaves gaps, and says nothing of what lies in them.
    """
    rows, columns = (_even_starts(extent, size, max(1, min(count, extent // size))) for extent in shape)
    tiles = tuple(_tile_with_full_core(row, column, size, shape) for row in rows for column in columns)
    return Tiling("grid", False, shape, tiles)


def tile_around_label(mask: np.ndarray, sample: Sample, size: int = TILE_SIZE, seed: int = 0) -> Tiling:
    """Choose one tile as the published benchmark does: around the label. Kept for comparison.

    With deformation, the tile lies at random such that it holds all of it, or its middle where that is
    larger than a tile; without, at a random offset of up to a quarter tile from the frame's centre.

    Parameters
    ----------
    mask : numpy.ndarray
        ``deformation_mask`` of the sample, shape (rows, columns); of a series, the union of its masks.
    sample : Sample
        Decides, with `seed`, on the random numbers.
    size : int
        Rows and columns of the tile.
    seed : int
        Another seed gives other offsets.
    """
    shape = (mask.shape[0], mask.shape[1])
    digest = hashlib.sha256(f"{seed} {sample.frame} {sample.pair}".encode()).digest()
    chance = np.random.default_rng(int.from_bytes(digest[:8], "big"))
    starts = []
    for axis, extent in enumerate(shape):
        marked = np.flatnonzero(mask.any(axis=1 - axis))
        room = max(0, extent - size)
        if not len(marked):
            low = high = (extent - size) // 2
            low, high = low - size // 4, high + size // 4
        elif (span := int(marked[-1] - marked[0]) + 1) > size:
            low = high = int(marked[0]) + (span - size) // 2
        else:
            low, high = int(marked[-1]) + 1 - size, int(marked[0])
        low, high = min(max(low, 0), room), min(max(high, 0), room)
        starts.append(int(chance.integers(low, high + 1)))
    row, column = starts
    return Tiling("label-centred", True, shape, (_tile_with_full_core(row, column, size, shape),))


def choose_tiles(
    mode: str,
    shape: tuple[int, int],
    size: int = TILE_SIZE,
    *,
    mask: np.ndarray | None = None,
    sample: Sample | None = None,
    seed: int = 0,
) -> Tiling:
    """Return the tiles that the mode of that name chooses; only ``label-centred`` is given the label.

    Raises
    ------
    UsageError
        If there is no such mode, or the one that looks at the label was not given it.
    """
    if mode == "whole-frame":
        return tile_whole_frame(shape, size)
    if mode == "grid":
        return tile_on_grid(shape, size)
    if mode != "label-centred":
        raise UsageError(f"there is no way to tile called {mode!r}; choose {', '.join(TILING_MODES)}")
    if mask is None or sample is None:
        raise UsageError(
            "label-centred crops look at the label: give the sample and its mask, or choose grid"
        )
    return tile_around_label(mask, sample, size, seed)


def _even_starts(extent: int, size: int, count: int) -> list[int]:
    """Return the starts of `count` tiles from edge to edge; a lone tile lies in the middle."""
    room = max(0, extent - size)
    if count == 1:
        return [room // 2]
    return [round(index * room / (count - 1)) for index in range(count)]


def _starts_with_cores(starts: list[int], size: int, extent: int) -> list[tuple[int, int, int]]:
    """Return each start with the core that ends in the middle of the overlap with the next tile."""
    ends = [(start + size + after) // 2 for start, after in pairwise(starts)] + [extent]
    return list(zip(starts, [0, *ends[:-1]], ends, strict=True))


def _tile_with_full_core(row: int, column: int, size: int, shape: tuple[int, int]) -> Tile:
    core = (row, min(row + size, shape[0]), column, min(column + size, shape[1]))
    return Tile(row, column, size, core)
