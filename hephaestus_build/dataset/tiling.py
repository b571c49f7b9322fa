"""Tilings: the placement of the crops of a frame that a model is given.

Each tiling states whether it used the label. Scores on crops that were placed by the label do not describe a
model in operation, where there is no label.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from hephaestus_build.core.bounds import Bounds
from hephaestus_build.core.errors import HephaestusError, UsageError
from hephaestus_build.core.frames import Frame
from hephaestus_build.core.grid import Grid
from hephaestus_build.core.volcanoes import volcanoes_of_frame
from hephaestus_build.dataset.samples import Sample

TilingMode = Literal["whole-frame", "volcano-centred", "grid", "label-centred"]
TILING_MODES: tuple[TilingMode, ...] = ("whole-frame", "volcano-centred", "grid", "label-centred")
#: Mode of validation and test unless another one is chosen: it leaves out no part of a frame.
DEFAULT_TILING: TilingMode = "whole-frame"
#: Side length of a crop in pixels, as in the paper.
TILE_SIZE = 512
#: Number of random offsets that ``label-centred`` tries, as in the published code.
_LABEL_TRIES = 10


@dataclass(frozen=True, order=True)
class Tile:
    """A square window of a frame.

    Attributes
    ----------
    row, column : int
        First row and column in the frame; not negative.
    size : int
        Number of rows and columns. The tile extends beyond a frame that is smaller than it.
    core : tuple of int
        Half-open ranges (top, bottom, left, right) of the frame's rows and columns for which predictions of
        this tile are used.
    taken : tuple of tuple of int
        Parts of the core, in the same form, that belong to earlier tiles, so that no pixel counts twice.
    """

    row: int
    column: int
    size: int
    core: tuple[int, int, int, int]
    taken: tuple[tuple[int, int, int, int], ...] = ()

    @property
    def inside(self) -> npt.NDArray[np.bool]:
        """Whether a pixel counts in this tile: bool, shape (size, size)."""
        counts = np.zeros((self.size, self.size), bool)
        for value, (top, bottom, left, right) in ((True, self.core), *((False, part) for part in self.taken)):
            counts[top - self.row : bottom - self.row, left - self.column : right - self.column] = value
        return counts

    def read(self, values: npt.NDArray[Any], fill: float = 0) -> npt.NDArray[Any]:
        """Return the tile's part of `values`, padded to the size of the tile.

        Parameters
        ----------
        values : numpy.ndarray
            Values of the frame, shape (..., rows, columns).
        fill : float
            Value of pixels beyond the frame.

        Returns
        -------
        numpy.ndarray
            Shape (..., size, size); a view if no padding is needed.
        """
        part = values[..., self.row : self.row + self.size, self.column : self.column + self.size]
        rows, columns = part.shape[-2:]
        if (rows, columns) == (self.size, self.size):
            return part
        result = np.full((*values.shape[:-2], self.size, self.size), fill, values.dtype)
        result[..., :rows, :columns] = part
        return result

    def write(self, values: npt.NDArray[Any], target: npt.NDArray[Any]) -> None:
        """Copy the core of `values`, shape (..., size, size), to its position in `target`, the frame."""
        top, bottom, left, right = self.core
        target[..., top:bottom, left:right] = values[
            ..., top - self.row : bottom - self.row, left - self.column : right - self.column
        ]


@dataclass(frozen=True)
class Tiling:
    """The tiles of one sample and how they were placed.

    Attributes
    ----------
    mode : str
        One of :data:`TILING_MODES`.
    uses_label : bool
        Whether the placement depends on the label.
    shape : tuple of int
        Rows and columns of the frame.
    tiles : tuple of Tile
        The tiles.
    """

    mode: TilingMode
    uses_label: bool
    shape: tuple[int, int]
    tiles: tuple[Tile, ...]


def tile_whole_frame(shape: tuple[int, int], size: int = TILE_SIZE) -> Tiling:
    """Return the smallest regular arrangement of tiles that covers a frame.

    Tiles overlap if the frame is not a multiple of `size`. Their cores do not overlap, so a score over the
    cores counts every pixel of the frame once. For example, 1,000 columns are covered by two tiles of 512,
    which start at the columns 0 and 488; their cores meet in the middle of the overlap, at column 500.
    """
    rows, columns = (_even_starts(extent, size, -(-extent // size)) for extent in shape)
    tiles = tuple(
        Tile(row, column, size, (top, bottom, left, right))
        for row, top, bottom in _starts_with_cores(rows, size, shape[0])
        for column, left, right in _starts_with_cores(columns, size, shape[1])
    )
    return Tiling("whole-frame", False, shape, tiles)


def tile_around_volcanoes(frame: Frame, grid: Grid, size: int = TILE_SIZE) -> Tiling:
    """Return one tile for each volcano of the catalogue in a frame, which is what observatories watch.

    A tile is centred on its volcano, or moved into the frame where it would extend beyond it. It needs no
    label: the places of volcanoes are known before anything deforms. Where tiles overlap, pixels count in the
    first one, in the order of the volcanoes' names.

    Parameters
    ----------
    frame : Frame
        The frame.
    grid : Grid
        Its grid.
    size : int
        Rows and columns of a tile.

    Raises
    ------
    HephaestusError
        If no volcano of the catalogue lies in the frame.
    """
    volcanoes = volcanoes_of_frame(frame, Bounds(*grid.bounds))
    if not volcanoes:
        raise HephaestusError(
            f"{frame}: no volcano of the catalogue lies in the frame, so there is nothing to centre windows "
            f"on; choose another tiling, such as {DEFAULT_TILING}"
        )
    corners = []
    for volcano in volcanoes:
        assert volcano.latitude is not None
        assert volcano.longitude is not None
        centre = (grid.north - volcano.latitude) / grid.dy, (volcano.longitude - grid.west) % 360 / grid.dx
        corners.append(
            tuple(
                min(max(round(middle) - size // 2, 0), max(0, extent - size))
                for middle, extent in zip(centre, grid.shape, strict=True)
            )
        )
    tiles: list[Tile] = []
    for row, column in dict.fromkeys(corners):
        tile = _tile_with_full_core(row, column, size, grid.shape)
        parts = [part for other in tiles if (part := _intersect(tile.core, other.core))]
        tiles.append(replace(tile, taken=tuple(parts)))
    return Tiling("volcano-centred", False, grid.shape, tuple(tiles))


def tile_on_grid(shape: tuple[int, int], size: int = TILE_SIZE, count: int = 3) -> Tiling:
    """Return `count` x `count` tiles spaced evenly over a frame, or fewer if they would overlap.

    The cost is bounded for a frame of any size, but pixels in the gaps between tiles are not covered.

    Parameters
    ----------
    shape : tuple of int
        Rows and columns of the frame.
    size : int
        Rows and columns of a tile.
    count : int
        Maximum number of tiles along each side.
    """
    rows, columns = (_even_starts(extent, size, max(1, min(count, extent // size))) for extent in shape)
    tiles = tuple(_tile_with_full_core(row, column, size, shape) for row in rows for column in columns)
    return Tiling("grid", False, shape, tiles)


def tile_around_label(mask: npt.NDArray[Any], sample: Sample, size: int = TILE_SIZE, seed: int = 0) -> Tiling:
    """Return one tile placed around the label by the rule of the published code; kept for comparison.

    1. The tile is centred on the middle of the deformation's bounding box, or of the frame if there is none.
    2. It is moved by up to a quarter tile along each axis, at random, and back into the frame.
    3. Step 2 is repeated until the tile has a deforming pixel, ten times at most. The published code fails
       then; here, the tile is centred on the deforming pixel nearest to the middle.

    Deformation larger than half a tile may thus be cut off.

    Parameters
    ----------
    mask : numpy.ndarray
        ``deformation_mask`` of the sample, shape (rows, columns); for a series, the union of the masks.
    sample : Sample
        The sample; together with `seed`, it seeds the random numbers.
    size : int
        Rows and columns of the tile.
    seed : int
        Seed of the random numbers.
    """
    shape = (mask.shape[0], mask.shape[1])
    digest = hashlib.sha256(f"{seed} {sample.frame} {sample.pair}".encode()).digest()
    chance = np.random.default_rng(int.from_bytes(digest[:8], "big"))
    room = np.maximum(0, np.array(shape) - size)
    deforming = np.argwhere(mask)
    if deforming.size:
        middle = (deforming.min(axis=0) + deforming.max(axis=0)) // 2
    else:
        middle = (np.array(shape) - 1) // 2
    start = middle - size // 2
    for _ in range(_LABEL_TRIES):
        start = np.clip(start + chance.integers(-(size // 4), size // 4 + 1, 2), 0, room)
        inside = (deforming >= start) & (deforming < start + size)
        if not deforming.size or inside.all(axis=1).any():
            break
    else:
        nearest = deforming[np.square(deforming - middle).sum(axis=1).argmin()]
        start = np.clip(nearest - size // 2, 0, room)
    row, column = start.tolist()
    return Tiling("label-centred", True, shape, (_tile_with_full_core(row, column, size, shape),))


def choose_tiles(
    mode: str,
    sample: Sample,
    grid: Grid,
    size: int = TILE_SIZE,
    *,
    mask: npt.NDArray[Any] | None = None,
) -> Tiling:
    """Return the tiles of a sample in the given mode.

    Parameters
    ----------
    mode : str
        One of :data:`TILING_MODES`.
    sample : Sample
        The sample; of a series, any member.
    grid : Grid
        Grid of the sample's frame.
    size : int
        Rows and columns of a tile.
    mask : numpy.ndarray, optional
        ``deformation_mask``, shape (rows, columns); used by ``label-centred`` only.

    Raises
    ------
    UsageError
        If the mode does not exist, or ``label-centred`` is used without a mask.
    HephaestusError
        If no volcano lies in the frame, for ``volcano-centred``.
    """
    if mode == "whole-frame":
        return tile_whole_frame(grid.shape, size)
    if mode == "volcano-centred":
        return tile_around_volcanoes(sample.frame, grid, size)
    if mode == "grid":
        return tile_on_grid(grid.shape, size)
    if mode != "label-centred":
        raise UsageError(f"there is no tiling mode {mode!r}; choose one of {', '.join(TILING_MODES)}")
    if mask is None:
        raise UsageError(
            f"label-centred crops depend on the label: give the sample's mask, or choose {DEFAULT_TILING}"
        )
    return tile_around_label(mask, sample, size)


def _even_starts(extent: int, size: int, count: int) -> list[int]:
    """Return the starts of `count` tiles, evenly spaced from edge to edge; a single tile is centred."""
    room = max(0, extent - size)
    if count == 1:
        return [room // 2]
    return [round(index * room / (count - 1)) for index in range(count)]


def _starts_with_cores(starts: list[int], size: int, extent: int) -> list[tuple[int, int, int]]:
    """Return (start, core start, core end) of each tile; cores meet in the middle of an overlap."""
    ends = [(start + size + after) // 2 for start, after in pairwise(starts)] + [extent]
    return list(zip(starts, [0, *ends[:-1]], ends, strict=True))


def _intersect(
    one: tuple[int, int, int, int], other: tuple[int, int, int, int]
) -> tuple[int, int, int, int] | None:
    """Return the common part of two cores; None if there is none."""
    top, left = max(one[0], other[0]), max(one[2], other[2])
    bottom, right = min(one[1], other[1]), min(one[3], other[3])
    return (top, bottom, left, right) if top < bottom and left < right else None


def _tile_with_full_core(row: int, column: int, size: int, shape: tuple[int, int]) -> Tile:
    core = (row, min(row + size, shape[0]), column, min(column + size, shape[1]))
    return Tile(row, column, size, core)
