"""Regular longitude-latitude grids, one of which all layers of a frame share."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
from affine import Affine


@dataclass(frozen=True)
class Grid:
    """A north-up grid in EPSG:4326, defined by the outer corner of its first pixel, its shape and pixel size.

    Parameters
    ----------
    width, height : int
        Columns and rows.
    west, north : float
        Outer edges of the first column and the first row, degrees.
    dx, dy : float
        Pixel size, degrees, both positive.
    """

    width: int
    height: int
    west: float
    north: float
    dx: float
    dy: float

    def __post_init__(self) -> None:
        if self.width < 1 or self.height < 1:
            raise ValueError(f"a grid must have at least one pixel, got {self.width} x {self.height}")
        if not (self.dx > 0 and self.dy > 0):
            raise ValueError(f"a grid must be north-up with positive pixel sizes, got {self.dx}, {self.dy}")

    @classmethod
    def from_transform(cls, transform: Affine, shape: tuple[int, int]) -> Grid:
        """Return the grid of a north-up raster with the GDAL `transform` and `shape` (rows, columns)."""
        if transform.b or transform.d:
            raise ValueError("rotated rasters have no longitude and latitude axes")
        height, width = shape
        return cls(width, height, transform.c, transform.f, transform.a, -transform.e)

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        return self.height, self.width

    @property
    def size(self) -> int:
        """Number of pixels."""
        return self.height * self.width

    @property
    def transform(self) -> Affine:
        """Affine transform from pixel-edge coordinates to degrees, in GDAL's convention."""
        return Affine(self.dx, 0.0, self.west, 0.0, -self.dy, self.north)

    @property
    def bounds(self) -> tuple[float, float, float, float]:
        """West, south, east and north outer edges, in degrees."""
        return (
            self.west,
            self.north - self.height * self.dy,
            self.west + self.width * self.dx,
            self.north,
        )

    @cached_property
    def longitudes(self) -> npt.NDArray[Any]:
        """Pixel centres, ascending, shape (width,), degrees."""
        return self.west + (np.arange(self.width) + 0.5) * self.dx

    @cached_property
    def latitudes(self) -> npt.NDArray[Any]:
        """Pixel centres, descending, shape (height,), degrees."""
        return self.north - (np.arange(self.height) + 0.5) * self.dy

    def pixel_size_m(self) -> tuple[float, float]:
        """East-west and north-south size of the centre pixel, metres (spherical Earth)."""
        metres = 6_371_000.0 * np.pi / 180.0
        centre = self.north - self.height * self.dy / 2
        return float(self.dx * metres * np.cos(np.radians(centre))), float(self.dy * metres)

    def same_as(self, other: Grid, tolerance: float = 0.01) -> bool:
        """Whether the grids have the same shape, and corners that differ by at most `tolerance` pixels.

        Longitudes that differ by whole turns are the same.
        """
        return self.shape == other.shape and all(
            abs(mine - theirs) <= tolerance * size
            for mine, theirs, size in zip(
                self.bounds, other.in_turn_of(self).bounds, (self.dx, self.dy, self.dx, self.dy), strict=True
            )
        )

    def in_first_turn(self) -> Grid:
        """Return this grid with its middle longitude between -180 (included) and 180 degrees.

        Its longitudes stay ascending: a grid across 180 degrees goes beyond one of the two.

        Examples
        --------
        >>> Grid(1000, 1, 335.5, 10.0, 0.001, 0.001).in_first_turn().west
        -24.5
        """
        return self._turned(-math.floor((self._middle + 180) / 360))

    def in_turn_of(self, other: Grid) -> Grid:
        """Return this grid moved by as many turns of 360 degrees as bring it nearest to `other`."""
        return self._turned(round((other._middle - self._middle) / 360))

    def window(self, west: float, south: float, east: float, north: float) -> tuple[slice, slice]:
        """Return the rows and columns of the pixels that a box touches.

        Parameters
        ----------
        west, south, east, north : float
            Edges, degrees; a box across 180 degrees has a west edge beyond its east edge.

        Raises
        ------
        ValueError
            If the box lies outside of the grid.

        Examples
        --------
        >>> Grid(100, 100, 10.0, 50.0, 0.1, 0.1).window(10.25, 49.0, 10.5, 49.5)
        (slice(5, 10, None), slice(2, 5, None))
        """
        width = east - west if east >= west else east - west + 360
        west += 360 * round((self._middle - west - width / 2) / 360)

        # edges of pixels count as reached only beyond a millionth of a pixel
        def pixels(low: float, high: float, count: int) -> slice:
            first, end = max(math.floor(low + 1e-6), 0), min(math.ceil(high - 1e-6), count)
            if first >= end:
                raise ValueError("the box lies outside of the grid")
            return slice(first, end)

        rows = pixels((self.north - north) / self.dy, (self.north - south) / self.dy, self.height)
        columns = pixels((west - self.west) / self.dx, (west + width - self.west) / self.dx, self.width)
        return rows, columns

    def pixel(self, latitude: float, longitude: float) -> tuple[int, int]:
        """Return the row and column of the pixel that holds a point; longitudes of any turn are taken.

        Raises
        ------
        ValueError
            If the point lies outside of the grid.

        Examples
        --------
        >>> Grid(100, 100, 10.0, 50.0, 0.1, 0.1).pixel(49.95, 370.25)
        (0, 2)
        """
        longitude += 360 * round((self._middle - longitude) / 360)
        row = math.floor((self.north - latitude) / self.dy)
        column = math.floor((longitude - self.west) / self.dx)
        if not (0 <= row < self.height and 0 <= column < self.width):
            raise ValueError("the point lies outside of the grid")
        return row, column

    def crop(self, rows: slice, columns: slice) -> Grid:
        """Return the grid of a part of the rows and columns, as :meth:`window` gives them."""
        (top, bottom, _), (left, right, _) = rows.indices(self.height), columns.indices(self.width)
        return replace(
            self,
            width=right - left,
            height=bottom - top,
            west=self.west + left * self.dx,
            north=self.north - top * self.dy,
        )

    @property
    def _middle(self) -> float:
        return self.west + self.width * self.dx / 2

    def _turned(self, turns: int) -> Grid:
        # rounded to nanometres, so that a place has the same numbers in whichever turn it was written
        return replace(self, west=round(self.west + 360.0 * turns, 12)) if turns else self
