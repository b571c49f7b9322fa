"""Where a frame is, as paths of an SVG: the Earth from above it, and the land and volcanoes around it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import pairwise

import numpy as np
import numpy.typing as npt
from shapely import Polygon, STRtree, box, clip_by_rect

from hephaestus_build.core.bounds import Bounds
from hephaestus_build.core.registry import load_schema
from hephaestus_build.core.volcanoes import VolcanoCone, volcanoes_inside

#: Radius of the globe in the units of the paths.
RADIUS = 100.0
#: Half the size of the map of the surroundings, in sizes of the frame.
_SURROUNDINGS = 1.6
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
    for ring in _land_rings():
        points, seen = _project(ring, centre)
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
    outline, _ = _project(_grow(corners), centre)
    return GlobePaths("".join(land), "".join(graticule), _path(outline, closed=True))


@dataclass(frozen=True)
class RegionPaths:
    """A map of the surroundings of a frame; units are degrees of latitude, y points down.

    Attributes
    ----------
    box : tuple of float
        Left, top, width and height.
    land, frame : str
        Values of the attribute ``d``.
    volcanoes : tuple of (float, float, VolcanoCone)
        Place and volcano, of all volcanoes on the map.
    """

    box: tuple[float, float, float, float]
    land: str
    frame: str
    volcanoes: tuple[tuple[float, float, VolcanoCone], ...]


def draw_region(
    bounds: tuple[float, float, float, float], among: Iterable[VolcanoCone] | None = None
) -> RegionPaths:
    """Return a map of the surroundings of a frame, as wide as it is high on the ground.

    Parameters
    ----------
    bounds : tuple of float
        West, south, east and north edge of the frame, degrees.
    among : iterable of VolcanoCone, optional
        The volcanoes; by default, the whole catalogue.
    """
    west, south, east, north = bounds
    x, y = (west + east) / 2, (south + north) / 2
    shrink = float(np.cos(np.radians(y)))
    reach = max(_SURROUNDINGS * (north - south), _SURROUNDINGS * (east - west) * shrink, 2.0)
    wide = reach / shrink
    around = (x - wide, max(y - reach, -90.0), x + wide, min(y + reach, 90.0))

    def place(points: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        return np.stack([(points[:, 0] - x) * shrink, -points[:, 1]], 1)

    land = []
    index = _index_land()
    for one in sorted(index.query(box(*around)).tolist()):
        part = clip_by_rect(index.geometries[one], *around)
        pieces = [piece for piece in getattr(part, "geoms", [part]) if not piece.is_empty]
        edges = [np.array(piece.exterior.coords) for piece in pieces if isinstance(piece, Polygon)]
        land += [_path(place(edge), closed=True, digits=2) for edge in edges]
    corners = np.array([(west, south), (east, south), (east, north), (west, north)])
    found = []
    for volcano in volcanoes_inside(Bounds(*around), among):
        if volcano.longitude is not None and volcano.latitude is not None:
            away = (volcano.longitude - x + 180) % 360 - 180
            found.append((away * shrink, -volcano.latitude, volcano))
    return RegionPaths(
        (-reach, -around[3], 2 * reach, around[3] - around[1]),
        "".join(land),
        _path(place(corners), closed=True, digits=2),
        tuple(found),
    )


@cache
def _index_land() -> STRtree:
    """Return all land with its islands as polygons, and the same one turn further to either side."""
    rings = [ring for name in ("land.json", "islands.json") for ring in load_schema(name)["rings"]]
    turns = (-360.0, 0.0, 360.0)
    return STRtree([Polygon(np.add(ring, (turn, 0.0))).buffer(0) for ring in rings for turn in turns])


@cache
def _land_rings() -> tuple[npt.NDArray[np.float64], ...]:
    """Return the outlines of the land with points close enough to be bent, for thousands of globes."""
    return tuple(_densify(np.array([*ring, ring[0]], float)) for ring in load_schema("land.json")["rings"])


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


def _path(points: npt.NDArray[np.float64], *, closed: bool, digits: int = 1) -> str:
    steps = points.round(digits)
    kept = np.concatenate([[True], (np.diff(steps, axis=0) != 0).any(1)])
    text = "L".join(f"{x:g} {y:g}" for x, y in steps[kept].tolist())
    return f"M{text}{'Z' if closed else ''}"
