"""Outlines of masks as paths of an SVG, along the edges of their pixels."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt


def trace_outline(codes: npt.NDArray[np.uint8]) -> str:
    """Return the lines between pixels of different codes as the attribute ``d`` of a path; units are pixels.

    Parameters
    ----------
    codes : numpy.ndarray
        uint8, shape (rows, columns); 0 is outside.

    Examples
    --------
    >>> trace_outline(np.array([[0, 1], [0, 1]], np.uint8))
    'M1 0h1M1 2h1M1 0v2M2 0v2'
    """
    framed = np.pad(codes, 1)
    level = [f"M{start} {at}h{size}" for at, start, size in _runs(np.diff(framed, axis=0)[:, 1:-1] != 0)]
    upright = [f"M{at} {start}v{size}" for at, start, size in _runs(np.diff(framed, axis=1)[1:-1].T != 0)]
    return "".join(level + upright)


def _runs(edges: npt.NDArray[np.bool_]) -> list[tuple[int, int, int]]:
    """Return each run along the rows: its row, where it starts, and its length."""
    framed = np.pad(edges, ((0, 0), (1, 1))).astype(np.int8)
    rows, starts = np.nonzero(np.diff(framed, axis=1) == 1)
    _, ends = np.nonzero(np.diff(framed, axis=1) == -1)
    return list(zip(rows.tolist(), starts.tolist(), (ends - starts).tolist(), strict=True))
