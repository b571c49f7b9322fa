"""Bilinear interpolation of ERA5 fields to a frame's grid, and rounding to multiples of a step."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from hephaestus_build.core.grid import Grid

#: Output rows processed at once: a block of them fits into the processor's cache.
_BLOCK = 16


def interpolate_bilinear(
    values: npt.ArrayLike,
    latitude: npt.ArrayLike,
    longitude: npt.ArrayLike,
    grid: Grid,
    rows: slice = slice(None),
    columns: slice = slice(None),
    *,
    steps: Sequence[float] | None = None,
    out: npt.NDArray[Any] | None = None,
) -> npt.NDArray[np.float32]:
    """Interpolate fields to the pixel centres of `grid`, or of a window of it.

    The source has a few dozen grid lines, the output thousands, so the two directions are separate steps:

    1. Find the source cell of each output row and column, and the fraction within the cell. For example, on
       longitudes 10.0, 10.25, 10.5 a pixel at 10.3 is in cell 1 with fraction 0.2.
    2. Interpolate every source row along longitude, in float64.
    3. For each run of output rows in the same cell, interpolate between its two source rows in float32:
       ``line + fraction * slope``.

    Each output value depends only on its own row and column, through the same elementwise operations, so a
    window is bit for bit equal to that part of the whole frame.

    Parameters
    ----------
    values : array_like, shape (..., n, m)
        Fields on the source grid.
    latitude : array_like, shape (n,)
        Descending, degrees.
    longitude : array_like, shape (m,)
        Ascending, degrees, in the same range as the grid's (no wrap at 180).
    grid : Grid
        Grid to interpolate to.
    rows, columns : slice, optional
        Window of `grid`, without stride; by default all of it.
    steps : sequence of float, optional
        Step of each field along the last leading axis: the result is also rounded as :func:`quantize` does,
        in the same pass over memory.
    out : np.ndarray, optional
        Array with the result's shape and type to write to. Reusing one saves half the time of a frame.

    Returns
    -------
    np.ndarray, float32, shape (..., rows, columns)
        Within 2 ulp (of the neighbours' magnitude) of exact arithmetic; NaN if a neighbour is NaN.

    Raises
    ------
    ValueError
        If an axis is not sorted as required, shapes do not match, or the window extends beyond the source.
    """
    fields = np.asarray(values, dtype=np.float64)
    latitudes, longitudes = np.asarray(latitude, np.float64), np.asarray(longitude, np.float64)
    if fields.ndim < 2 or fields.shape[-2:] != (latitudes.size, longitudes.size):
        raise ValueError(
            f"fields of shape {fields.shape} do not match {latitudes.size} latitudes and "
            f"{longitudes.size} longitudes"
        )
    i, down = _cells(-latitudes, -grid.latitudes[_check_no_stride(rows)], "latitude")
    j, across = _cells(longitudes, grid.longitudes[_check_no_stride(columns)], "longitude")
    leading = fields.shape[:-2]
    scales = _check_steps(steps, leading)
    shape = (*leading, i.size, j.size)
    if out is None:
        out = np.empty(shape, dtype=np.float32)
    elif out.shape != shape or out.dtype != np.float32:
        raise ValueError(f"out is {out.dtype} of shape {out.shape}, the result float32 of {shape}")
    weights = down.astype(np.float32)[:, np.newaxis]
    buffer = np.empty((_BLOCK, j.size), dtype=np.float32)
    for index in np.ndindex(leading):
        # along longitude first, in float64, which is cheap since the source has only a few rows
        field, scale = fields[index], scales[index[-1]] if scales else None
        lines = np.ascontiguousarray(field[:, j] * (1.0 - across) + field[:, j + 1] * across)
        if scale is not None:
            lines /= scale
        slopes = np.diff(lines, axis=0).astype(np.float32)
        starts = lines.astype(np.float32)
        target = out[index]
        for first, last in _equal_runs(i):
            line, slope = starts[i[first]], slopes[i[first]]
            for top in range(first, last, _BLOCK):
                bottom = min(top + _BLOCK, last)
                block = buffer[: bottom - top]
                np.multiply(weights[top:bottom], slope, out=block)
                if scale is None:
                    np.add(block, line, out=target[top:bottom])
                else:
                    np.add(block, line, out=block)
                    np.rint(block, out=block)
                    np.multiply(block, np.float32(scale), out=target[top:bottom])
    return out


def quantize(values: npt.NDArray[Any], step: float) -> npt.NDArray[np.float32]:
    """Round to the nearest multiple of `step`, ties to even.

    Parameters
    ----------
    values : np.ndarray
        Numbers of any shape; NaN stays NaN.
    step : float
        A power of two, so that division and multiplication by it are exact: every result is a multiple of
        `step` that float32 represents exactly, and rounding it again changes nothing.

    Returns
    -------
    np.ndarray, float32
        Rounded values, shape of `values`.

    Raises
    ------
    ValueError
        If `step` is not a power of two.
    """
    exact = np.float32(_power_of_two(step))
    rounded: npt.NDArray[np.float32] = np.divide(values, exact, dtype=np.float32)
    np.rint(rounded, out=rounded)
    rounded *= exact
    return rounded


def _cells(axis: np.ndarray, targets: np.ndarray, name: str) -> tuple[np.ndarray, np.ndarray]:
    """Return the cell of each target on an ascending axis, and the fraction within the cell (0 to 1)."""
    if axis.size < 2 or not np.all(np.diff(axis) > 0):
        order = "descending" if name == "latitude" else "ascending"
        raise ValueError(f"the source's {name} must be {order} and hold two values or more")
    if not targets.size:
        return np.zeros(0, dtype=np.intp), np.zeros(0)
    if targets.min() < axis[0] or targets.max() > axis[-1]:
        sign = -1.0 if name == "latitude" else 1.0
        has = sorted((sign * axis[0], sign * axis[-1]))
        wants = sorted((sign * targets.min(), sign * targets.max()))
        raise ValueError(
            f"the source covers {name} {has[0]:g} to {has[1]:g}, the grid needs {wants[0]:.4f} to "
            f"{wants[1]:.4f}; ask for an area with a cell of margin"
        )
    cell = np.clip(np.searchsorted(axis, targets, side="right") - 1, 0, axis.size - 2)
    return cell, (targets - axis[cell]) / (axis[cell + 1] - axis[cell])


def _equal_runs(cells: np.ndarray) -> list[tuple[int, int]]:
    """Return start and stop of each run of equal numbers: for ``[4, 4, 5]``, ``[(0, 2), (2, 3)]``."""
    edges = np.flatnonzero(np.diff(cells)) + 1
    bounds = [0, *edges.tolist(), cells.size]
    return [(first, last) for first, last in pairwise(bounds) if last > first]


def _check_no_stride(window: slice) -> slice:
    if window.step not in (None, 1):
        raise ValueError(f"a window has no stride, got {window}")
    return window


def _check_steps(steps: Sequence[float] | None, leading: tuple[int, ...]) -> list[float] | None:
    if steps is None:
        return None
    if not leading or len(steps) != leading[-1]:
        raise ValueError(f"{len(steps)} steps do not fit fields of leading shape {leading}")
    return [_power_of_two(step) for step in steps]


def _power_of_two(step: float) -> float:
    if not (math.isfinite(step) and step > 0 and math.frexp(step)[0] == 0.5):
        raise ValueError(f"a step is a power of two, got {step}")
    return float(step)
