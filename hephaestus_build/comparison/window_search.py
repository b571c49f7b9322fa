"""Where a window of an image was cut from. Pure functions on arrays."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import scipy.fft

#: Heights over which their phasor turns once, m.
_HEIGHT_CYCLE = 300.0
#: Share of the pixels of a window that must have data.
_LEAST_DATA = 0.02


class FoundWindow(NamedTuple):
    """First row and column of a window, and how well it fits there: 1 if it is equal."""

    row: int
    column: int
    fit: float


def find_window(image: npt.NDArray[np.complex64], window: npt.NDArray[np.complex64]) -> FoundWindow | None:
    """Return where a window fits an image best, by cross-correlation; None if it has hardly any data.

    Both are phasors of length 1, or 0 without data, so that the sum of the products of their pixels is
    largest where they are equal: it is the number of pixels with data. Other places of a window that occurs
    only once give less, also where many pixels were changed since.

    Parameters
    ----------
    image : numpy.ndarray
        Phasors, shape (height, width).
    window : numpy.ndarray
        Phasors, of no more rows and columns.

    Examples
    --------
    >>> image = to_phasors(np.random.default_rng(0).uniform(-3, 3, (40, 50)))
    >>> find_window(image, image[7:27, 31:50])
    FoundWindow(row=7, column=31, fit=1.0)
    """
    filled = int(np.count_nonzero(window))
    if filled < max(1, _LEAST_DATA * window.size):
        return None
    shape = [scipy.fft.next_fast_len(length) for length in image.shape]
    product = scipy.fft.fft2(image, shape)
    product *= np.conj(scipy.fft.fft2(window, shape))
    sums = scipy.fft.ifft2(product, overwrite_x=True).real
    inside = sums[
        tuple(slice(0, all_ - part + 1) for all_, part in zip(image.shape, window.shape, strict=True))
    ]
    row, column = np.unravel_index(int(np.argmax(inside)), inside.shape)
    return FoundWindow(int(row), int(column), round(float(inside[row, column]) / filled, 4))


def to_phasors(phase: npt.NDArray[Any]) -> npt.NDArray[np.complex64]:
    """Return wrapped phases as phasors; 0 where the phase is 0 or NaN."""
    filled = np.isfinite(phase) & (phase != 0)
    return np.where(filled, np.exp(1j * np.where(filled, phase, 0).astype("f4")), 0).astype("c8")


def heights_to_phasors(heights: npt.NDArray[Any]) -> npt.NDArray[np.complex64]:
    """Return heights in m as phasors; 0 at height 0 and where there is none."""
    return to_phasors(heights * np.float32(2 * np.pi / _HEIGHT_CYCLE))
