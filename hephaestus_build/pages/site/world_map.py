"""The map of a site: land and frames as shapes of an SVG, in degrees; pure functions."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from math import cos, radians, sin

import numpy as np
import numpy.typing as npt

from hephaestus_build.core.registry import load_schema

ViewBox = tuple[float, float, float, float]
#: Part of the world that is drawn where frames lie far apart: west, north, width, height.
WORLD: ViewBox = (-180.0, -80.0, 370.0, 140.0)
_TILT = radians(12.0)  # of the orbit against the meridians, near the equator
_LEAST_WIDTH, _MARGIN = 24.0, 0.12
_WIDEST, _TALLEST = 2.4, 1.6  # proportions of a map
_NEAR = 4.0  # degrees around a frame in which islands are drawn
_FEW = 60  # frames, which have room to be drawn larger than they are


def trace_land(boxes: Sequence[ViewBox]) -> str:
    """Return the land as the attribute ``d`` of a path; x is the longitude, y the latitude downwards.

    Parameters
    ----------
    boxes : sequence of tuple
        West, south, east and north edges of the frames, degrees; small islands near them are there too.
    """
    rings, edges = _read_islands()
    west, south, east, north = np.array(boxes, float).reshape(-1, 4).T[:, :, None]
    along = (edges[0] < east + _NEAR) & (edges[2] > west - _NEAR)
    seen = along & (edges[1] < north + _NEAR) & (edges[3] > south - _NEAR)
    islands = [rings[place] for place in np.flatnonzero(seen.any(0)).tolist()]
    return "".join(
        "M" + "L".join(f"{x:g} {-y:g}" for x, y in ring) + "Z"
        for ring in [*load_schema("land.json")["rings"], *islands]
    )


@cache
def _read_islands() -> tuple[list[list[list[float]]], npt.NDArray[np.float64]]:
    """Return the outlines of islands, and the west, south, east and north edge of each."""
    rings = load_schema("islands.json")["rings"]
    return rings, np.array([(*np.min(ring, 0), *np.max(ring, 0)) for ring in rings]).T


def choose_view(boxes: Sequence[ViewBox]) -> ViewBox:
    """Return what a map shows first: the frames with a margin, the world where they lie far apart.

    Parameters
    ----------
    boxes : sequence of tuple
        West, south, east and north edges of the frames, degrees.

    Returns
    -------
    tuple of float
        West, north (downwards), width and height.

    Examples
    --------
    >>> choose_view([(14, 36, 17, 39)])
    (3.5, -42.5, 24.0, 10.0)
    """
    if not boxes:
        return WORLD
    west, south = min(box[0] for box in boxes), min(box[1] for box in boxes)
    east, north = max(box[2] for box in boxes), max(box[3] for box in boxes)
    if east - west > 140 or north - south > 90:
        return WORLD
    width = max((east - west) * (1 + 2 * _MARGIN), _LEAST_WIDTH)
    height = max((north - south) * (1 + 2 * _MARGIN), width / _WIDEST)
    width = max(width, height * _TALLEST)
    return (west + east - width) / 2, -(south + north + height) / 2, width, height


def enlarge_bounds(bounds: ViewBox, view: ViewBox, frames: int) -> ViewBox:
    """Return the bounds of a frame, enlarged where it would be too small to be seen or clicked.

    Parameters
    ----------
    bounds : tuple of float
        West, south, east and north edge, degrees.
    view : tuple of float
        What the map shows.
    frames : int
        Number of frames in it.
    """
    west, south, east, north = bounds
    least = view[2] / (60 if frames <= _FEW else 130)
    wide, tall = max(east - west, least) / 2, max(north - south, least) / 2
    middle = (west + east) / 2, (south + north) / 2
    return middle[0] - wide, middle[1] - tall, middle[0] + wide, middle[1] + tall


def draw_footprint(bounds: ViewBox, direction: str) -> str:
    """Return the outline of a frame as the points of a polygon: a rectangle along the orbit in its bounds.

    It shows which way the satellite flies; where the bounds hold no such rectangle, it is the bounds.

    Parameters
    ----------
    bounds : tuple of float
        West, south, east and north edge, degrees.
    direction : str
        ``ascending`` or ``descending``.
    """
    west, south, east, north = bounds
    squeeze = max(cos(radians((south + north) / 2)), 0.1)
    width, height = (east - west) * squeeze, north - south
    along = (height * cos(_TILT) - width * sin(_TILT)) / cos(2 * _TILT)
    across = (width * cos(_TILT) - height * sin(_TILT)) / cos(2 * _TILT)
    if min(along, across) < 0.35 * min(width, height):
        corners = [(west, south), (east, south), (east, north), (west, north)]
    else:
        lean = -1 if direction == "ascending" else 1
        middle = (west + east) / 2, (south + north) / 2
        corners = [
            (
                middle[0] + (u * across * cos(_TILT) + v * lean * along * sin(_TILT)) / 2 / squeeze,
                middle[1] + (v * along * cos(_TILT) - u * lean * across * sin(_TILT)) / 2,
            )
            for u, v in ((-1, -1), (1, -1), (1, 1), (-1, 1))
        ]
    return " ".join(f"{x:.3f},{-y:.3f}" for x, y in corners)
