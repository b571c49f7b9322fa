"""Coarse grid of nodes for smooth fields that are costly to compute, with interpolation to all pixels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from hephaestus_build.core.grid import Grid
from hephaestus_build.simulation.world.random_fields import upsample_bilinear


@dataclass(frozen=True)
class CoarseGrid:
    """Every `step`-th pixel of a grid, plus one row and one column so that nodes surround all pixels.

    Attributes
    ----------
    grid : Grid
        The full-resolution grid.
    step : int
        Distance between nodes, pixels.
    """

    grid: Grid
    step: int

    @classmethod
    def with_spacing(cls, grid: Grid, metres: float, most: int) -> CoarseGrid:
        """Return nodes about `metres` apart, or further apart to keep at most `most` per side.

        Parameters
        ----------
        grid : Grid
            The full-resolution grid.
        metres : float
            Wanted distance between nodes.
        most : int
            Largest number of nodes along the longer side.
        """
        near = round(metres / grid.pixel_size_m()[1])
        return cls(grid, max(1, near, -(-max(grid.shape) // most)))

    @property
    def shape(self) -> tuple[int, int]:
        """Number of rows and columns of nodes."""
        return -(-self.grid.height // self.step) + 1, -(-self.grid.width // self.step) + 1

    @property
    def rows(self) -> npt.NDArray[Any]:
        """Pixel row of each row of nodes; the last ones may lie beyond the grid."""
        return np.arange(self.shape[0]) * self.step

    @property
    def columns(self) -> npt.NDArray[Any]:
        """Pixel column of each column of nodes; the last ones may lie beyond the grid."""
        return np.arange(self.shape[1]) * self.step

    def interpolate(self, values: npt.NDArray[Any], every: int = 1) -> npt.NDArray[np.float32]:
        """Interpolate `values` from the nodes to every `every`-th pixel, bilinearly, as float32."""
        rows, columns = (np.arange(0, size, every) / self.step for size in self.grid.shape)
        return upsample_bilinear(values, rows, columns)
