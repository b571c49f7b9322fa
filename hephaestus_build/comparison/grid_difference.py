"""Where one grid lies relative to another, and the part that both have."""

from __future__ import annotations

from dataclasses import dataclass

from hephaestus_build.core.grid import Grid

#: Grids whose corners differ by no more are the same, degrees.
GRID_TOLERANCE = 1e-6


@dataclass(frozen=True)
class GridDifference:
    """Where one grid lies relative to another.

    Attributes
    ----------
    east, south : float
        Offset of the second's first corner, in pixels of the first.
    corner_deg : float
        Largest difference of a corner, degrees.
    pixel_ratio : float
        Largest ratio of the pixel sizes, at least 1.
    """

    east: float
    south: float
    corner_deg: float
    pixel_ratio: float

    @classmethod
    def between(cls, first: Grid, second: Grid) -> GridDifference:
        """Return the difference of two grids; longitudes that differ by whole turns are the same."""
        second = second.in_turn_of(first)
        ratios = [a / b for a, b in ((first.dx, second.dx), (first.dy, second.dy))]
        return cls(
            (second.west - first.west) / first.dx,
            (first.north - second.north) / first.dy,
            max(abs(a - b) for a, b in zip(first.bounds, second.bounds, strict=True)),
            max(max(ratio, 1 / ratio) for ratio in ratios),
        )

    @property
    def is_same(self) -> bool:
        """Whether the grids are the same."""
        return self.corner_deg <= GRID_TOLERANCE

    def shared(self, first: Grid, second: Grid) -> tuple[Crop, Crop] | None:
        """Return the part that both grids have, in each; None where pixels do not fall on pixels."""
        offsets = round(self.south), round(self.east)
        apart = max(abs(self.south - offsets[0]), abs(self.east - offsets[1]))
        if apart > 0.01 or (self.pixel_ratio - 1) * max(first.shape) > 0.01:
            return None
        crops = []
        for offset, height, other in zip(offsets, first.shape, second.shape, strict=True):
            begin, end = max(0, offset), min(height, offset + other)
            if begin >= end:
                return None
            crops.append((slice(begin, end), slice(begin - offset, end - offset)))
        (rows, rows2), (columns, columns2) = crops
        return (rows, columns), (rows2, columns2)


#: Rows and columns.
Crop = tuple[slice, slice]
