"""Checks of the values of a published cube before they are stored. Pure functions on arrays."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from hephaestus_build.core.era5_grid import Era5Variable
from hephaestus_build.cube.schema import cube_schema

#: Pi, rounded up for float32.
_MAX_PHASE = 3.1415929
#: Heights of land and of the sea floor beside it, m, with a wide margin.
_LOWEST_HEIGHT, _HIGHEST_HEIGHT = -1000.0, 9500.0
_LISTED = 5


def check_phase(values: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
    """Return a wrapped phase as a cube stores it: float32, 0 for no data, which may be NaN before.

    Raises
    ------
    ValueError
        If a value is infinite, beyond pi, or not one of float32; or there is no data.

    Examples
    --------
    >>> check_phase(np.array([[np.nan, 1.5]])).tolist()
    [[0.0, 1.5]]
    """
    phase = _as_float32(values, "the phase")
    phase = np.nan_to_num(phase, nan=0.0, posinf=np.inf, neginf=-np.inf)
    if infinite := int(np.isinf(phase).sum()):
        raise ValueError(f"{infinite} pixels of the phase are infinite")
    largest = float(np.abs(phase).max(initial=0))
    if largest > _MAX_PHASE:
        raise ValueError(f"the phase goes to {largest:.4g} rad, beyond pi: it is not wrapped, or no phase")
    if largest == 0:
        raise ValueError("there is no data in the phase")
    return phase


def check_coherence(values: npt.NDArray[Any]) -> npt.NDArray[np.uint8]:
    """Return a coherence as a cube stores it: bytes, 255 for 1, 0 for no data, which may be NaN before.

    Raises
    ------
    ValueError
        If it goes from 0 to 1, or its values are no whole numbers from 0 to 255; or there is no data.
    """
    coherence = np.nan_to_num(values, nan=0.0, posinf=np.inf, neginf=-np.inf)
    low, high = float(coherence.min()), float(coherence.max())
    if low == high == 0:
        raise ValueError("there is no data in the coherence")
    if low >= 0 and high <= 1:
        raise ValueError("the coherence goes from 0 to 1 in place of 0 to 255")
    if low < 0 or high > 255:
        raise ValueError(f"the coherence goes from {low:g} to {high:g} in place of 0 to 255")
    whole = coherence.astype(np.uint8)
    if not np.array_equal(whole, coherence):
        raise ValueError("the coherence has values that are no whole numbers")
    return whole


def check_heights(values: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
    """Return heights as a cube stores them: float32, m, NaN for no data.

    Raises
    ------
    ValueError
        If a value is infinite or no height on Earth, or there is none.
    """
    heights = _as_float32(values, "the DEM")
    known = heights[~np.isnan(heights)]
    if not known.size:
        raise ValueError("there is no data in the DEM")
    low, high = float(known.min()), float(known.max())
    if not (low >= _LOWEST_HEIGHT and high <= _HIGHEST_HEIGHT):
        raise ValueError(f"the DEM goes from {low:g} to {high:g} m")
    return heights


def check_mask(name: str, values: npt.NDArray[Any]) -> npt.NDArray[np.uint8]:
    """Return a mask as bytes.

    Parameters
    ----------
    name : str
        One of :data:`~hephaestus_build.cube.schema.MASK_VARIABLES`, whose codes are known.
    values : numpy.ndarray
        The mask; NaN is read as 0.

    Raises
    ------
    ValueError
        If it has a code that the schema does not know.
    """
    codes = np.nan_to_num(values, nan=0.0, posinf=np.inf, neginf=-np.inf)
    known = cube_schema().variables[name].attributes["flag_values"]
    if strange := sorted(set(np.unique(codes).tolist()) - set(known)):
        listed = ", ".join(f"{code:g}" for code in strange[:_LISTED])
        raise ValueError(f"{name} has the codes {listed}, known are {known[0]} to {known[-1]}")
    return codes.astype(np.uint8)


def check_field(variable: Era5Variable, values: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
    """Return a field of ERA5 on the frame's grid.

    Raises
    ------
    ValueError
        If a value is missing, infinite or implausible.
    """
    field = values.astype(np.float32)
    if absent := int((~np.isfinite(field)).sum()):
        raise ValueError(f"{variable.name} lacks {absent} of {field.size} pixels")
    low, high = float(field.min()), float(field.max())
    if low < variable.lowest or high > variable.highest:
        raise ValueError(f"{variable.name} of {low:g} to {high:g} {variable.units} is implausible")
    return field


def _as_float32(values: npt.NDArray[Any], what: str) -> npt.NDArray[np.float32]:
    with np.errstate(over="ignore"):
        single = values.astype(np.float32)
    if values.dtype != np.float32 and not np.array_equal(single, values, equal_nan=True):
        raise ValueError(f"{what} has values of {values.dtype} that float32 cannot hold")
    return single
