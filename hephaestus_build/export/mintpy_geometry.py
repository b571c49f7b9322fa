"""Geometry of a frame as MintPy takes it: angles of the line of sight, and the attributes of its files.

MintPy's conventions were read from its sources (1.6.4): ``utils/utils0.py`` for the angles, the attributes
that ``prep_hyp3.py`` gives to other geocoded products of Sentinel-1 for the names.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from hephaestus_build.core.era5_grid import parse_center_time
from hephaestus_build.core.errors import HephaestusError
from hephaestus_build.core.frames import Frame
from hephaestus_build.core.grid import Grid
from hephaestus_build.core.plain_text import sanitize_text

#: Radius of the Earth, and height of Sentinel-1 above it, metres. The distance follows from both within 2 %.
EARTH_RADIUS, ORBIT_HEIGHT = 6_371_000.0, 693_000.0
#: Looks in range and azimuth that LiCSAR averages (its ``global_config.py``), of swaths and of stripmaps.
_LOOKS, _STRIPMAP_LOOKS = (20, 4), (11, 7)
#: MintPy takes a positive phase for a longer path, as LiCSAR has it; those of others are turned over.
_PHASE_SIGNS = {"positive_away_from_satellite": 1, "positive_towards_satellite": -1}
#: Attributes, of a cube in small letters, that say whom to credit; MintPy copies them into its results.
CREDITS = ("SOURCE", "LICENSE", "ACKNOWLEDGEMENT")


def phase_factor(attributes: Mapping[str, Any]) -> int:
    """Return 1 or -1, by which a cube's phase is multiplied for MintPy.

    Raises
    ------
    HephaestusError
        If the cube does not state the sign of its phase.
    """
    sign = attributes.get("phase_sign")
    if sign not in _PHASE_SIGNS:
        raise HephaestusError(
            f"{attributes.get('frame')}: the cube does not state the sign of its phase; "
            f"`hephaestus build {attributes.get('frame')}` writes it again"
        )
    return _PHASE_SIGNS[sign]


def look_angles(
    east: npt.NDArray[Any], north: npt.NDArray[Any], up: npt.NDArray[Any]
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """Return incidence and azimuth angle of vectors from the ground to the satellite, degrees.

    The incidence is measured from the vertical, the azimuth from north, positive anti-clockwise.

    Examples
    --------
    >>> west_of_us = look_angles(np.float32(-0.6), np.float32(0.0), np.float32(0.8))
    >>> [round(float(angle), 2) for angle in west_of_us]
    [36.87, 90.0]
    """
    incidence = np.degrees(np.arctan2(np.hypot(east, north), up))
    return incidence.astype(np.float32), np.degrees(np.arctan2(-east, north)).astype(np.float32)


def slant_range(incidence: npt.NDArray[Any] | float) -> npt.NDArray[np.float32]:
    """Return the distance of the satellite at an incidence angle in degrees, metres, on a spherical Earth."""
    angle = np.radians(np.asarray(incidence, np.float64))
    orbit, across = EARTH_RADIUS + ORBIT_HEIGHT, EARTH_RADIUS * np.sin(angle)
    return np.asarray(np.sqrt(orbit**2 - across**2) - EARTH_RADIUS * np.cos(angle), np.float32)


def radar_attributes(attributes: Mapping[str, Any], grid: Grid) -> dict[str, str]:
    """Return the attributes of MintPy's files that a cube's own ones and its grid know, as texts.

    Raises
    ------
    HephaestusError
        If the cube does not state the wavelength.
    """
    frame = Frame(str(attributes["frame"]))
    wavelength, heading = attributes.get("radar_wavelength_m"), attributes.get("platform_heading_deg")
    if wavelength is None:
        raise HephaestusError(
            f"{frame}: the cube does not state the wavelength; `hephaestus build {frame}` writes it again"
        )
    range_looks, azimuth_looks = _LOOKS if frame.burst_counts else _STRIPMAP_LOOKS
    known: dict[str, Any] = {
        "PROJECT_NAME": frame.id,
        "PROCESSOR": "licsar",
        "PLATFORM": "Sen",
        "WAVELENGTH": wavelength,
        "ORBIT_DIRECTION": "ASCENDING" if frame.direction == "A" else "DESCENDING",
        "ANTENNA_SIDE": 1 if attributes.get("look_direction") == "left" else -1,
        "RLOOKS": range_looks,
        "ALOOKS": azimuth_looks,
        "EARTH_RADIUS": EARTH_RADIUS,
        "HEIGHT": ORBIT_HEIGHT,
        **_place_attributes(grid, frame.direction),
        **_range_attributes(attributes.get("incidence_angle_deg"), grid),
    }
    if heading is not None:
        known["HEADING"] = round((float(heading) + 180) % 360 - 180, 6)
    if "center_time" in attributes:
        known["CENTER_LINE_UTC"] = parse_center_time(str(attributes["center_time"])).total_seconds() % 86400
    known |= {name: sanitize_text(attributes[name.lower()]) for name in CREDITS if name.lower() in attributes}
    if attributes.get("simulated"):
        known["SIMULATED"] = "true"
    return {name: str(value) for name, value in known.items()}


def _place_attributes(grid: Grid, direction: str) -> dict[str, Any]:
    """Return where the pixels lie; corners by line, the first and the last, each at near and far range."""
    west, south, east, north = grid.bounds
    first, last = (south, north) if direction == "A" else (north, south)
    near, far = (west, east) if direction == "A" else (east, west)
    corners = [(first, near), (first, far), (last, near), (last, far)]
    return {
        "LENGTH": grid.height,
        "WIDTH": grid.width,
        "X_FIRST": grid.west,
        "Y_FIRST": grid.north,
        "X_STEP": grid.dx,
        "Y_STEP": -grid.dy,
        "X_UNIT": "degrees",
        "Y_UNIT": "degrees",
        "EPSG": 4326,
        **{f"LAT_REF{number}": latitude for number, (latitude, _) in enumerate(corners, 1)},
        **{f"LON_REF{number}": longitude for number, (_, longitude) in enumerate(corners, 1)},
    }


def _range_attributes(incidence: float | None, grid: Grid) -> dict[str, Any]:
    """Return what gives MintPy the mean angle and distance, where it has no angles of the pixels.

    It takes the distance of the middle column: that of the first one, and half of the columns more.
    """
    if incidence is None:
        return {}
    width, height = grid.pixel_size_m()
    step = width * float(np.sin(np.radians(incidence)))
    return {
        "CENTER_INCIDENCE_ANGLE": incidence,
        "RANGE_PIXEL_SIZE": step,
        "AZIMUTH_PIXEL_SIZE": height,
        "STARTING_RANGE": float(slant_range(incidence)) - step * (grid.width - 1) / 2,
    }
