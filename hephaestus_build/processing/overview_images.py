"""The values of overviews: wrapped phase as bytes, and the difference of water vapour."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from hephaestus_build.core.grid import Grid
from hephaestus_build.processing.interpolation import interpolate_bilinear

#: Steps of the phase: bytes 1 to 255 are -pi to pi.
_STEPS = 254


def phase_to_bytes(phase: npt.NDArray[np.float32]) -> npt.NDArray[np.uint8]:
    """Return wrapped phase as bytes.

    Parameters
    ----------
    phase : numpy.ndarray
        Radians, -pi to pi; exactly 0 is no data.

    Returns
    -------
    numpy.ndarray
        uint8: 0 where there is no data, else 1 (-pi) to 255 (pi), within half a step of 2 pi / 254.

    Examples
    --------
    >>> phase_to_bytes(np.array([0, -np.pi, 1e-6, np.pi], np.float32))
    array([  0,   1, 128, 255], dtype=uint8)
    """
    scaled = phase * np.float32(_STEPS / (2 * np.pi)) + np.float32(1 + _STEPS / 2)
    steps = np.clip(np.rint(scaled), 1, 255).astype(np.uint8)
    steps[phase == 0] = 0
    return steps


def water_vapour_difference(
    primary: npt.NDArray[np.float32],
    secondary: npt.NDArray[np.float32],
    latitude: npt.NDArray[Any],
    longitude: npt.NDArray[Any],
    grid: Grid,
    step: float,
) -> npt.NDArray[np.float32]:
    """Return the water vapour at the secondary date minus that at the primary date, on a grid.

    Parameters
    ----------
    primary, secondary : numpy.ndarray
        Total column water vapour on ERA5's grid at the two dates, kg m-2, shape (latitude, longitude).
    latitude, longitude : numpy.ndarray
        ERA5's grid points, degrees, descending and ascending.
    grid : Grid
        Grid to interpolate to, inside the grid points.
    step : float
        The result is rounded to multiples of it, kg m-2; a power of two.
    """
    difference = secondary.astype(np.float64) - primary
    return interpolate_bilinear(difference[np.newaxis], latitude, longitude, grid, steps=[step])[0]
