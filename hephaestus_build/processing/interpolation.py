"""ERA5 fields on a frame's grid: bilinear interpolation and rounding to a stated step, both pure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from hephaestus_build.core.grid import Grid

#: Output rows worked on at once: a block of them stays in the processor's cache between its passes.
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
    out: np.ndarray | None = None,
) -> np.ndarray:
    """Interpolate fields to the pixel centres of `grid`, or of a window of it.

    Every output number follows from its own row and column alone, by the same elementwise operations,
    so a window holds bit for bit what the whole frame holds there.

    Parameters
    ----------
    values : array_like, shape (..., n, m)
        Fields on the source grid.
    latitude : array_like, shape (n,)
        Descending, degrees.
    longitude : array_like, shape (m,)
        Ascending, degrees, in the same turn as the grid's (no wrap at 180).
    grid : Grid
        Where the numbers are wanted.
    rows, columns : slice, optional
        The window of `grid`; all of it by default. No stride.
    steps : sequence of float, optional
        One for each field of the last leading axis: the result is also rounded as :func:`quantize` does,
        in the same pass over memory.
    out : np.ndarray, optional
        Array of the result's shape and type to write to: fresh memory is half the cost of a frame.

    Returns
    -------
    np.ndarray, float32, shape (..., rows, columns)
        Within 2 ulp of exact arithmetic (of the neighbours' size); NaN where a neighbour is NaN.

    Raises
    ------
    ValueError
        If the axes are not sorted as said, shapes do not fit, or the window reaches beyond the source.
    """
    fields = np.asarray(values, dtype=np.float64)
    latitudes, longitudes = np.asarray(latitude, np.float64), np.asarray(longitude, np.float64)
    if fields.ndim < 2 or fields.shape[-2:] != (latitudes.size, longitudes.size):
        raise ValueError(
            f"fields of shape {fields.shape} do not lie on {latitudes.size} latitudes and "
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
        # along longitude first, in double precision: the source has a few rows only
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


def quantize(values: np.ndarray, step: float) -> np.ndarray:
    """Round to the nearest multiple of `step`, ties to even.

    Parameters
    ----------
    values : np.ndarray
        Numbers of any shape; NaN stays NaN.
    step : float
        A power of two, so that dividing by it and multiplying with it are exact: every result is a
        multiple of `step` that float32 holds exactly, and rounding it again changes nothing.

    Returns
    -------
    np.ndarray, float32

    Raises
    ------
    ValueError
        If `step` is not a power of two.
    """
    exact = np.float32(_power_of_two(step))
    rounded = np.asarray(values, dtype=np.float32) / exact
    np.rint(rounded, out=rounded)
    rounded *= exact
    return rounded


def _cells(axis: np.ndarray, targets: np.ndarray, name: str) -> tuple[np.ndarray, np.ndarray]:
    """Return, for ascending `axis`, the cell of each target and how far into the cell it lies (0 to 1)."""
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
    """Return first and last + 1 of each run of equal numbers."""
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
