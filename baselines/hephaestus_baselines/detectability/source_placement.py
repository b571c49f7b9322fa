"""Where sources are added: a random pixel of a quiet window, and what the radar would see of them there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from hephaestus_baselines.data.buried_sources import BuriedSource
from hephaestus_baselines.detectability.phase_injection import RadarGeometry
from hephaestus_build.core.errors import HephaestusError
from hephaestus_build.core.grid import Grid
from hephaestus_build.simulation.world.deformation_models import line_of_sight

_METRES_PER_DEGREE = 6_371_000.0 * np.pi / 180
_ATTRIBUTES = ("radar_wavelength_m", "phase_sign")
_ANGLES = ("incidence_angle_deg", "platform_heading_deg")


@dataclass(frozen=True, eq=False)
class PlacedSource:
    """A source below a pixel of a window, scaled to a displacement of at most one metre.

    Attributes
    ----------
    source : BuriedSource
        The source whose largest displacement in the window, towards or away from the satellite, is 1 m.
    row, column : int
        Pixel of the frame above its centre.
    towards : numpy.ndarray
        Displacement towards the satellite, float64 (size, size), metres.
    extent_km2 : float
        Area with data in which the displacement is at least half of the largest, square kilometres.
    coherence : float
        Mean coherence there, 0 to 1; over all members of a series.
    """

    source: BuriedSource
    row: int
    column: int
    towards: npt.NDArray[np.float64]
    extent_km2: float
    coherence: float


def read_radar_geometry(
    frame: str, attributes: Mapping[str, object], look: npt.NDArray[Any] | None = None
) -> RadarGeometry:
    """Return the geometry that a cube states.

    Parameters
    ----------
    frame : str
        Frame id, for errors.
    attributes : mapping
        The cube's global attributes.
    look : numpy.ndarray, optional
        Unit vectors to the satellite (3, rows, columns), where the cube has them; NaN where there are none,
        which become their mean.

    Raises
    ------
    HephaestusError
        If the cube does not state what is needed.
    """
    vectors = look is not None and bool(np.isfinite(look).any())
    needed = _ATTRIBUTES if vectors else (*_ATTRIBUTES, *_ANGLES)
    if missing := [name for name in needed if attributes.get(name) in (None, "")]:
        raise HephaestusError(
            f"{frame}: the cube does not state {', '.join(missing)}, without which no phase can be computed; "
            f"`hephaestus build {frame}` adds what the archive's metadata.txt has"
        )
    if vectors:
        assert look is not None
        sight = np.where(np.isfinite(look), look, np.nanmean(look, axis=(1, 2), keepdims=True))
    else:
        incidence, heading = (float(str(attributes[name])) for name in _ANGLES)
        sight = line_of_sight(incidence, heading).astype(np.float64)
        if attributes.get("look_direction") == "left":
            sight[:2] *= -1
    towards = attributes["phase_sign"] == "positive_towards_satellite"
    return RadarGeometry(
        float(str(attributes["radar_wavelength_m"])), sight, "towards" if towards else "away"
    )


def place_source(
    source: BuriedSource,
    window: tuple[int, int],
    pixel: tuple[int, int],
    grid: Grid,
    geometry: RadarGeometry,
    data: npt.NDArray[np.bool],
    coherence: npt.NDArray[Any],
) -> PlacedSource | None:
    """Return a source below a pixel; None if nothing of it can be seen in the window.

    Parameters
    ----------
    source : BuriedSource
        The source, of any volume.
    window : tuple of int
        First row and column of the window in the frame.
    pixel : tuple of int
        Row and column of the pixel in the frame.
    grid : Grid
        Grid of the frame.
    geometry : RadarGeometry
    data : numpy.ndarray
        bool (size, size): pixels of the window that have data and count.
    coherence : numpy.ndarray
        uint8 (members, size, size).
    """
    size = data.shape[0]
    latitude = grid.north - (pixel[0] + 0.5) * grid.dy
    metres = _METRES_PER_DEGREE * grid.dx * np.cos(np.radians(latitude)), _METRES_PER_DEGREE * grid.dy
    east = (np.arange(size) + window[1] - pixel[1]) * metres[0]
    north = (pixel[0] - window[0] - np.arange(size)) * metres[1]
    shape = size, size
    towards = geometry.displacement_to_satellite(
        source.displacement(np.broadcast_to(east, shape), np.broadcast_to(north[:, None], shape))
    )
    largest = float(np.abs(towards[data]).max(initial=0.0))
    if not largest > 0:
        return None
    towards = towards / largest
    seen = data & (np.abs(towards) >= 0.5)
    across, down = grid.pixel_size_m()
    return PlacedSource(
        source.scaled(1 / largest),
        *pixel,
        towards,
        extent_km2=float(seen.sum()) * across * down / 1e6,
        coherence=float(coherence[:, seen].mean()) / 255,
    )


def draw_pixel(
    data: npt.NDArray[np.bool], window: tuple[int, int], rng: np.random.Generator
) -> tuple[int, int] | None:
    """Return row and column, in the frame, of a random pixel with data; None if the window has none.

    Parameters
    ----------
    data : numpy.ndarray
        bool (size, size).
    window : tuple of int
        First row and column of the window in the frame.
    rng : numpy.random.Generator
    """
    places: Sequence[int] = np.flatnonzero(data).tolist()
    if not places:
        return None
    row, column = divmod(places[int(rng.integers(len(places)))], data.shape[1])
    return window[0] + row, window[1] + column
