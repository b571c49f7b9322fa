"""Decimation of images: every n-th pixel of every n-th row, as in the group ``overview``."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from hephaestus_build.core.grid import Grid

#: Factor of a cube whose record states none, and its limits.
DEFAULT_FACTOR, MIN_FACTOR, MAX_FACTOR = 8, 2, 64


@dataclass(frozen=True)
class Decimation:
    """Decimation by a factor along either axis.

    A pixel is taken as it is, never averaged: an average over the jump of the phase from pi to -pi is wrong.

    Parameters
    ----------
    factor : int
        Pixels of the image for each one that is taken.

    Examples
    --------
    Of 20 rows, those with the positions 4 and 12 are taken.

    >>> Decimation(8).first(20), Decimation(8).count(20)
    (4, 2)
    """

    factor: int

    def first(self, size: int) -> int:
        """Return the position of the first pixel taken of `size`: the middle of the first `factor`."""
        return min(self.factor, size) // 2

    def count(self, size: int) -> int:
        """Return the number of pixels taken of `size`, at least one."""
        return -(-(size - self.first(size)) // self.factor)

    def shape(self, shape: tuple[int, int]) -> tuple[int, int]:
        """Return rows and columns of the decimated image, from those of the image."""
        return self.count(shape[0]), self.count(shape[1])

    def grid(self, grid: Grid) -> Grid:
        """Return the grid whose pixel centres are those of the pixels taken."""
        dx, dy = self.factor * grid.dx, self.factor * grid.dy
        west = grid.west + (self.first(grid.width) + 0.5) * grid.dx - dx / 2
        north = grid.north - (self.first(grid.height) + 0.5) * grid.dy + dy / 2
        height, width = self.shape(grid.shape)
        return Grid(width, height, west, north, dx, dy)

    def assemble(
        self,
        strips: Iterable[tuple[int, npt.NDArray[Any]]],
        shape: tuple[int, int],
        dtype: npt.DTypeLike,
    ) -> npt.NDArray[Any]:
        """Return the decimated image of an image that is given as strips of columns.

        Parameters
        ----------
        strips : iterable of (int, numpy.ndarray)
            First column and values of each strip, of the full height; columns beyond the image are ignored.
            Where there is no strip, the result is 0.
        shape : tuple of int
            Rows and columns of the image.
        dtype : dtype
            dtype of the values.
        """
        height, width = shape
        top, left = self.first(height), self.first(width)
        taken = np.zeros(self.shape(shape), dtype)
        for column, values in strips:
            start = (left - column) % self.factor
            part = values[top : height : self.factor, start : width - column : self.factor]
            at = (column + start - left) // self.factor
            taken[:, at : at + part.shape[1]] = part
        return taken
