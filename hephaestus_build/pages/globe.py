"""The Earth as seen from above a frame, as paths of an SVG: land, meridians, and the frame."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from hephaestus_build.core.registry import load_schema

#: Radius of the globe in the units of the paths.
RADIUS = 100.0
_SPACING = 6.0  # degrees at most between two points of an edge


@dataclass(frozen=True)
class GlobePaths:
    """Paths of an SVG whose origin is the middle of the globe; y points down.

    Attributes
    ----------
    land, graticule, frame : str
        Values of the attribute ``d``.
    """

    land: str
    graticule: str
    frame: str


def draw_globe(bounds: tuple[float, float, float, float]) -> GlobePaths:
    """Return the globe with a frame in its middle.

    Parameters
    ----------
    bounds : tuple of float
        West, south, east and north edge of the frame, degrees.
    """
    west, south, east, north = bounds
    centre = (west + east) / 2, (south + north) / 2
    land = []
    for ring in load_schema("land.json")["rings"]:
        points, seen = _project(_densify(np.array([*ring, ring[0]], float)), centre)
        if seen.any():
            land.append(_path(_to_limb(points, seen), closed=True))
    along, around = np.linspace(-72, 72, 145), np.linspace(-180, 180, 361)
    meridians = [np.stack([np.full_like(along, at), along], 1) for at in range(-180, 180, 30)]
    parallels = [np.stack([around, np.full_like(around, at)], 1) for at in range(-60, 90, 30)]
    graticule = []
    for line in (*meridians, *parallels):
        points, seen = _project(line, centre)
        graticule += [_path(points[run], closed=False) for run in _runs(seen)]
    corners = np.array([(west, south), (east, south), (east, north), (west, north)])
    box, _ = _project(_grow(corners), centre)
    return GlobePaths("".join(land), "".join(graticule), _path(box, closed=True))


def _grow(corners: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return a rectangle of at least 3 degrees, so that it is seen."""
    middle = corners.mean(0)
    half = np.maximum(abs(corners - middle).max(0), 1.5)
    return middle + np.sign(corners - middle) * half


def _densify(ring: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return a line with more points where its edges are long: they are bent on a globe."""
    parts = [
        np.linspace(start, end, max(1, int(np.ceil(abs(end - start).max() / _SPACING))), endpoint=False)
        for start, end in pairwise(ring)
    ]
    return np.concatenate([*parts, ring[-1:]])


def _project(
    places: npt.NDArray[np.float64], centre: tuple[float, float]
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.bool_]]:
    """Project longitudes and latitudes orthographically; also return which are on the near side."""
    longitude, latitude = np.radians(places.T)
    middle, tilt = np.radians(centre)
    east = np.cos(latitude) * np.sin(longitude - middle)
    ahead = np.cos(latitude) * np.cos(longitude - middle)
    north = np.cos(tilt) * np.sin(latitude) - np.sin(tilt) * ahead
    near = np.sin(tilt) * np.sin(latitude) + np.cos(tilt) * ahead
    return RADIUS * np.stack([east, -north], 1), near >= 0


def _to_limb(points: npt.NDArray[np.float64], seen: npt.NDArray[np.bool_]) -> npt.NDArray[np.float64]:
    """Move what is on the far side to the edge of the globe, in its direction."""
    length = np.maximum(np.hypot(*points.T), 1e-9)[:, None]
    return np.where(seen[:, None], points, points / length * RADIUS)


def _runs(seen: npt.NDArray[np.bool_]) -> Sequence[slice]:
    """Return the parts of a line that are seen."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], seen, [False]]).astype(int)))
    return [slice(start, end) for start, end in edges.reshape(-1, 2).tolist()]


def _path(points: npt.NDArray[np.float64], *, closed: bool) -> str:
    steps = points.round(1)
    kept = np.concatenate([[True], (np.diff(steps, axis=0) != 0).any(1)])
    text = "L".join(f"{x:g} {y:g}" for x, y in steps[kept].tolist())
    return f"M{text}{'Z' if closed else ''}"
