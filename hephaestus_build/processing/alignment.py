"""Alignment of rasters with the reference grid by copying or nearest neighbour, without interpolation.

Interpolation would yield wrong values: wrapped phase jumps from pi to -pi, coherence has 0 for no data, and a
height may be beside a hole.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from hephaestus_build.core.grid import Grid

#: Tolerance in pixels within which two positions count as equal (1 m on a 100 m grid).
PIXEL_TOLERANCE = 0.01
# Resolves ties between two equally near pixels the same way along a row or column; without it, rounding
# errors would decide at every pixel.
_TIE = 1e-6


@dataclass(frozen=True)
class Alignment:
    """How a raster was aligned with a grid.

    Attributes
    ----------
    kind : str
        ``identical``: the grids are the same. ``cropped``: whole pixels were removed. ``shifted``: whole
        pixels were removed, or added as no data. ``resampled``: each pixel has the value of its nearest
        neighbour.
    column_offset, row_offset : float
        Position of the grid's first pixel in the raster, in the raster's pixels.
    note : str
        Note for the provenance; empty for ``identical``.
    """

    kind: Literal["identical", "cropped", "shifted", "resampled"]
    column_offset: float
    row_offset: float
    note: str = ""


def align_to_grid(
    values: npt.NDArray[Any], source: Grid, target: Grid, *, fill: float = 0
) -> tuple[npt.NDArray[Any], Alignment]:
    """Align a raster with a grid.

    1. If the grids are the same, return `values` unchanged. Longitudes of both are counted in the same turn,
       since one raster may say 180.1 degrees and another -179.9.
    2. On each axis, find the source pixel of every target pixel: by a whole offset if the pixels coincide,
       else the pixel that contains the target's centre.
    3. Copy these values, and set target pixels outside the source to `fill`.

    For example, a target that starts 3 columns west of the source on the same grid lines is ``shifted``:
    its first 3 columns are filled, and its column 3 is the source's column 0.

    Parameters
    ----------
    values : numpy.ndarray
        Shape ``source.shape``, any dtype. Returned itself, not a copy, if the grids are the same.
    source, target : Grid
        Grid of the values, and the grid to align them with.
    fill : float
        Value of pixels outside the raster: 0 for phase and coherence, NaN for heights.

    Returns
    -------
    values : numpy.ndarray
        Shape ``target.shape``, dtype of `values`; every value is one of the raster's, or `fill`.
    alignment : Alignment
        What was done.

    Raises
    ------
    ValueError
        If `values` does not have the shape of `source`, or the two grids do not overlap.
    """
    if values.shape != source.shape:
        raise ValueError(f"values of shape {values.shape} do not fill a grid of shape {source.shape}")
    if source.same_as(target, PIXEL_TOLERANCE):
        return values, Alignment("identical", 0.0, 0.0)
    source = source.in_turn_of(target)
    columns, whole_columns = _nearest_pixels(source.west, source.dx, target.west, target.dx, target.width)
    # rows count southwards, so positions are measured from the north edge down
    rows, whole_rows = _nearest_pixels(-source.north, source.dy, -target.north, target.dy, target.height)
    used_columns, used_rows = (
        (index >= 0) & (index < count) for index, count in ((columns, source.width), (rows, source.height))
    )
    reached = int(used_columns.sum()) * int(used_rows.sum())
    if not reached:
        raise ValueError("the raster and the frame's reference grid do not overlap")
    result = values[np.ix_(rows.clip(0, source.height - 1), columns.clip(0, source.width - 1))]
    result[~used_rows, :] = fill
    result[:, ~used_columns] = fill

    missing = target.width * target.height - reached
    if not (whole_columns and whole_rows):
        kind: Literal["cropped", "shifted", "resampled"] = "resampled"
    else:
        kind = "shifted" if missing else "cropped"
    east = (target.west - source.west) / source.dx
    south = (source.north - target.north) / source.dy
    if kind != "resampled":
        east, south = float(round(east)), float(round(south))
    note = (
        f"{kind} from {source.width} x {source.height} to {target.width} x {target.height} pixels, "
        f"first pixel at column {east:.4g}, row {south:.4g}"
    )
    if kind == "resampled":
        note += ", nearest neighbour"
    if missing:
        note += f", {missing / (target.width * target.height):.2%} of the frame filled with no data"
    return result, Alignment(kind, east, south, note)


def _nearest_pixels(
    source_edge: float, source_size: float, edge: float, size: float, wanted: int
) -> tuple[np.ndarray, bool]:
    """Return the index of the source pixel for each wanted pixel of one axis.

    The indices may lie outside ``0 .. count - 1``. The second value says whether the pixels coincide.
    """
    first = (edge - source_edge) / source_size
    last = (edge + wanted * size - source_edge) / source_size  # outer edge of the last pixel
    offset = round(first)
    if abs(first - offset) <= PIXEL_TOLERANCE and abs(last - offset - wanted) <= PIXEL_TOLERANCE:
        return np.arange(offset, offset + wanted), True
    ratio = size / source_size
    centres = first + (np.arange(wanted) + 0.5) * ratio
    return np.floor(centres + _TIE).astype(np.intp), False
