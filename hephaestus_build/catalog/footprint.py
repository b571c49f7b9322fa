"""Footprint of a cube as GeoJSON and its bounding box, also across 180 degrees of longitude."""

from __future__ import annotations

import shapely
from shapely.geometry import MultiPolygon
from shapely.geometry.base import BaseGeometry

from hephaestus_build.core.grid import Grid

_DIGITS = 9  # a tenth of a millimetre


def footprint_of(grid: Grid) -> BaseGeometry:
    """Return the outline of a grid; of one across 180 degrees, its parts on either side, as GeoJSON asks."""
    _, south, _, north = _bounds(grid)
    parts = [shapely.box(west, south, east, north) for west, east in _longitudes(grid)]
    return parts[0] if len(parts) == 1 else MultiPolygon(parts)


def bounding_box(grid: Grid) -> tuple[float, float, float, float]:
    """Return west, south, east and north; across 180 degrees, west is larger than east, as GeoJSON asks.

    Examples
    --------
    >>> bounding_box(Grid(2000, 1000, 179.0, -16.0, 0.001, 0.001))
    (179.0, -17.0, -179.0, -16.0)
    """
    _, south, _, north = _bounds(grid)
    spans = _longitudes(grid)
    return spans[0][0], south, spans[-1][1], north


def _bounds(grid: Grid) -> tuple[float, float, float, float]:
    west, south, east, north = grid.in_first_turn().bounds
    return round(west, _DIGITS), round(south, _DIGITS), round(east, _DIGITS), round(north, _DIGITS)


def _longitudes(grid: Grid) -> list[tuple[float, float]]:
    """Return the spans of longitude between -180 and 180 degrees, from west to east."""
    west, _, east, _ = _bounds(grid)
    if west < -180:
        return [(round(west + 360, _DIGITS), 180.0), (-180.0, east)]
    if east > 180:
        return [(west, 180.0), (-180.0, round(east - 360, _DIGITS))]
    return [(west, east)]
