"""Bring a raster onto the frame's grid without inventing a value: copies and nearest neighbours only.

Wrapped phase jumps from pi to -pi, coherence is a count of 255ths and a height may lie beside a hole:
none of them may be averaged as plain numbers, so nothing here averages.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from hephaestus_build.core.grid import Grid

#: Part of a pixel below which two positions count as the same (a metre on a 100 m grid).
PIXEL_TOLERANCE = 0.01
# Keeps the choice between two equally near pixels the same along a whole row or column, where rounding
# would otherwise toss a coin at every pixel.
_TIE = 1e-6


@dataclass(frozen=True)
class Alignment:
    """How a raster came onto a grid.

    Attributes
    ----------
    kind : str
        ``identical``: the grids are the same. ``cropped``: whole pixels were left out. ``shifted``: whole
        pixels were left out or added as no data. ``resampled``: each pixel took its nearest neighbour.
    column_offset, row_offset : float
        Where the grid's first pixel lies in the raster, in the raster's pixels.
    note : str
        One sentence for the provenance; empty for ``identical``.
    """

    kind: Literal["identical", "cropped", "shifted", "resampled"]
    column_offset: float
    row_offset: float
    note: str = ""


def align_to_grid(
    values: np.ndarray, source: Grid, target: Grid, *, fill: float = 0
) -> tuple[np.ndarray, Alignment]:
    """Return `values` on `target`, and how that was done.

    Parameters
    ----------
    values : numpy.ndarray
        Shape ``source.shape``, any dtype. Returned itself, not a copy, where the grids are the same.
    source, target : Grid
        Where the values lie and where they are wanted.
    fill : float
        Value of pixels that the raster does not reach: 0 for phase and coherence, NaN for heights.

    Returns
    -------
    values : numpy.ndarray
        Shape ``target.shape``, the dtype of `values`; every value is one of the raster's, or `fill`.
    alignment : Alignment
        What was done.

    Raises
    ------
    ValueError
        If `values` is not of the source's shape, or the two grids have no pixel in common.
    """
    if values.shape != source.shape:
        raise ValueError(f"values of shape {values.shape} do not fill a grid of shape {source.shape}")
    if source.same_as(target, PIXEL_TOLERANCE):
        return values, Alignment("identical", 0.0, 0.0)
    columns, whole_columns = _nearest_pixels(source.west, source.dx, target.west, target.dx, target.width)
    # rows count southwards, so positions are measured from the north edge down
    rows, whole_rows = _nearest_pixels(-source.north, source.dy, -target.north, target.dy, target.height)
    used_columns, used_rows = (
        (index >= 0) & (index < count) for index, count in ((columns, source.width), (rows, source.height))
    )
    reached = int(used_columns.sum()) * int(used_rows.sum())
    if not reached:
        raise ValueError("the raster and the frame's grid have no pixel in common")
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
    """Return for each wanted pixel of one axis the source pixel that holds its centre.

    The indices may lie outside of the source; the flag says whether pixels match whole ones.
    """
    first = (edge - source_edge) / source_size
    last = (edge + wanted * size - source_edge) / source_size  # behind the last pixel
    offset = round(first)
    if abs(first - offset) <= PIXEL_TOLERANCE and abs(last - offset - wanted) <= PIXEL_TOLERANCE:
        return np.arange(offset, offset + wanted), True
    ratio = size / source_size
    centres = first + (np.arange(wanted) + 0.5) * ratio
    return np.floor(centres + _TIE).astype(np.intp), False
