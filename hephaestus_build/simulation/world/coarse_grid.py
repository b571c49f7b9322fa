"""Points every few pixels of a grid, for what is smooth and costly: computed there, interpolated between."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from hephaestus_build.core.grid import Grid
from hephaestus_build.simulation.world.random_fields import upsample_bilinear


@dataclass(frozen=True)
class CoarseGrid:
    """Every `step`-th pixel of a grid, and one row and column beyond, so that all pixels lie between nodes.

    Attributes
    ----------
    grid : Grid
        The pixels.
    step : int
        Pixels from one node to the next.
    """

    grid: Grid
    step: int

    @classmethod
    def with_spacing(cls, grid: Grid, metres: float, most: int) -> CoarseGrid:
        """Return nodes about `metres` apart, or further where there would be more than `most` a side."""
        near = round(metres / grid.pixel_size_m()[1])
        return cls(grid, max(1, near, -(-max(grid.shape) // most)))

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns of nodes."""
        return -(-self.grid.height // self.step) + 1, -(-self.grid.width // self.step) + 1

    @property
    def rows(self) -> np.ndarray:
        """The row of each node; the last ones may lie beyond the grid."""
        return np.arange(self.shape[0]) * self.step

    @property
    def columns(self) -> np.ndarray:
        """The column of each node; the last ones may lie beyond the grid."""
        return np.arange(self.shape[1]) * self.step

    def interpolate(self, values: np.ndarray, every: int = 1) -> np.ndarray:
        """Interpolate `values` at the nodes to every `every`-th pixel, bilinear, float32."""
        rows, columns = (np.arange(0, size, every) / self.step for size in self.grid.shape)
        return upsample_bilinear(values, rows, columns)
