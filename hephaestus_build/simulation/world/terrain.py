"""Terrain of a simulated frame: fractal hills, volcanoes, a coast and vegetation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from hephaestus_build.core.grid import Grid
from hephaestus_build.simulation.world.coarse_grid import CoarseGrid
from hephaestus_build.simulation.world.random_fields import fractal_field, random_stream

#: Metres in a degree of latitude (spherical Earth).
METRES_PER_DEGREE = 6_371_000.0 * np.pi / 180.0
#: Largest number of columns of a fractal field; larger grids are interpolated, with fine detail added.
_MAX_FRACTAL_COLUMNS = 768


@dataclass(frozen=True)
class SimulatedVolcano:
    """A volcanic cone with a crater.

    Attributes
    ----------
    longitude, latitude : float
        Position of the summit, degrees.
    height : float
        Height above the surroundings, metres.
    radius : float
        Distance at which the flank has fallen to about a third of the height, metres.
    """

    longitude: float
    latitude: float
    height: float
    radius: float


@dataclass(frozen=True)
class TerrainSpec:
    """Parameters of a terrain.

    Attributes
    ----------
    volcanoes : tuple of SimulatedVolcano
        The first one is the volcano that the frame is centred on.
    relief : float
        Standard deviation of the fractal hills, metres.
    base_height : float
        Mean height of the plain, metres; below 0 is sea bed.
    tilt : float
        Rise of the plain from west to east across the frame, metres; produces a coast.
    """

    volcanoes: tuple[SimulatedVolcano, ...]
    relief: float
    base_height: float
    tilt: float


def local_metres(
    latitudes: npt.NDArray[Any], longitudes: npt.NDArray[Any], longitude: float, latitude: float
) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    """Return east and north distances of a grid of points from one point.

    Parameters
    ----------
    latitudes, longitudes : numpy.ndarray
        Points, degrees, (n,) and (m,).
    longitude, latitude : float
        Origin, degrees.

    Returns
    -------
    tuple of numpy.ndarray
        East and north distances, metres, (n, m) each.
    """
    east = (longitudes - longitude) * METRES_PER_DEGREE * np.cos(np.radians(latitude))
    north = (latitudes - latitude) * METRES_PER_DEGREE
    shape = (north.size, east.size)
    return np.broadcast_to(east, shape), np.broadcast_to(north[:, None], shape)


def fractal_surface(grid: Grid, slope: float, seed: int, *labels: object) -> npt.NDArray[np.float32]:
    """Return a fractal field on `grid`, interpolated from a coarser one where the grid is large.

    Parameters
    ----------
    grid : Grid
        Target grid.
    slope : float
        Slope of the power spectrum, see :func:`fractal_field`.
    seed : int
        Seed of the world.
    *labels : object
        Name of the random stream.

    Returns
    -------
    numpy.ndarray
        float32, mean 0, standard deviation about 1.
    """
    nodes = CoarseGrid.with_spacing(grid, 0, _MAX_FRACTAL_COLUMNS)
    field = fractal_field(nodes.shape, slope, random_stream(seed, *labels))
    if nodes.step == 1:
        return field[: grid.height, : grid.width]
    field = nodes.interpolate(field)
    detail = random_stream(seed, *labels, "detail").standard_normal(grid.shape, dtype=np.float32)
    detail *= np.float32(0.5 * _MAX_FRACTAL_COLUMNS ** (1 - slope / 2))
    field += detail
    return field


def terrain_heights(grid: Grid, land: TerrainSpec, seed: int, name: str) -> npt.NDArray[np.float32]:
    """Return the heights of a terrain on `grid`, float32, metres; 0 is sea.

    Parameters
    ----------
    grid : Grid
        Target grid.
    land : TerrainSpec
        Parameters of the terrain.
    seed : int
        Seed of the world.
    name : str
        Id of the frame, which makes frames differ.
    """
    hills = fractal_surface(grid, 3.4, seed, name, "hills")
    plain = land.base_height + land.tilt * np.linspace(-0.5, 0.5, grid.width, dtype=np.float32)
    ground = plain + land.relief * hills
    for index, volcano in enumerate(land.volcanoes):
        ground = np.maximum(ground, ground * 0.35 + _volcano_heights(grid, volcano, seed, name, index))
    return np.where(ground > 0.5, ground, 0).astype(np.float32)


def _volcano_heights(grid: Grid, volcano: SimulatedVolcano, seed: int, name: str, index: int) -> np.ndarray:
    east, north = local_metres(grid.latitudes, grid.longitudes, volcano.longitude, volcano.latitude)
    distance = np.hypot(east, north).astype(np.float32) / np.float32(volcano.radius)
    azimuth = np.arctan2(east, north).astype(np.float32)
    # gullies: waves in azimuth that deepen down the flank
    random = random_stream(seed, name, "gullies", index)
    gullies = np.zeros_like(azimuth)
    for count in (5, 9, 14):
        gullies += np.cos(count * azimuth + np.float32(random.uniform(0, 2 * np.pi)))
    cone = np.exp(-distance) * (1 + 0.05 * gullies * distance / (0.3 + distance))
    crater = 0.22 * np.exp(-((distance / 0.12) ** 2))
    return np.asarray(volcano.height * (cone - crater), dtype=np.float32)


def vegetation_cover(grid: Grid, height: npt.NDArray[Any], seed: int, name: str) -> npt.NDArray[np.float32]:
    """Return the vegetation cover, 0 to 1, float32: patchy, and sparse at high altitude.

    Parameters
    ----------
    grid : Grid
        Target grid.
    height : numpy.ndarray
        Terrain heights, metres, (rows, columns).
    seed : int
        Seed of the world.
    name : str
        Id of the frame.
    """
    patches = fractal_surface(grid, 2.6, seed, name, "vegetation")
    bare = np.clip((height - 900) / 1200, 0, 1)
    return np.asarray(np.clip(0.5 + 0.28 * patches, 0, 1) * (1 - 0.8 * bare), dtype=np.float32)


def slope_to_satellite(
    height: npt.NDArray[Any], grid: Grid, sight: npt.NDArray[Any]
) -> npt.NDArray[np.float32]:
    """Return the terrain slope towards the satellite, degrees, float32; steep slopes are in layover.

    Parameters
    ----------
    height : numpy.ndarray
        Terrain heights, metres, (rows, columns).
    grid : Grid
        Grid of `height`.
    sight : numpy.ndarray
        Unit vector to the satellite, (3, rows, columns) or broadcastable to it.
    """
    width, length = grid.pixel_size_m()
    south, east = np.gradient(height)
    level = np.hypot(sight[0], sight[1])
    rise = -(east / np.float32(width) * sight[0] - south / np.float32(length) * sight[1]) / level
    return np.asarray(np.degrees(np.arctan(rise)), dtype=np.float32)
