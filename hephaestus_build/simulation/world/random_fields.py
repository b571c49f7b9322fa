"""Seeded random fields: named random streams, fractal fields, and bilinear upsampling of coarse fields."""

from __future__ import annotations

import zlib
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt


def random_stream(seed: int, *labels: object) -> np.random.Generator:
    """Return a generator seeded by `seed` and `labels`; equal arguments give the same numbers."""
    return np.random.default_rng([seed, *(zlib.crc32(str(label).encode()) for label in labels)])


def fractal_field(
    shape: tuple[int, int], slope: float, random: np.random.Generator
) -> npt.NDArray[np.float32]:
    """Return a random field with power spectrum k**-slope, mean 0 and standard deviation 1.

    Parameters
    ----------
    shape : tuple of int
        Rows and columns.
    slope : float
        Slope of the power spectrum: 8/3 resembles atmospheric turbulence, 3 to 4 terrain.
    random : numpy.random.Generator
        Source of random numbers.

    Returns
    -------
    numpy.ndarray
        float32, of `shape`.
    """
    # compute a quarter more rows and columns: the transform is periodic, and opposite edges must not match
    rows, columns = (_fast_fft_size(int(size * 1.25) + 2) for size in shape)
    spectrum = np.fft.rfft2(random.standard_normal((rows, columns), dtype=np.float32))
    spectrum *= _spectral_amplitude(rows, columns, slope)
    field = np.fft.irfft2(spectrum, s=(rows, columns))[: shape[0], : shape[1]]
    field -= field.mean()
    return np.asarray(field / field.std(), dtype=np.float32)


@lru_cache(maxsize=8)  # the fields of all days of a frame have the same shape and slope
def _spectral_amplitude(rows: int, columns: int, slope: float) -> npt.NDArray[np.float32]:
    """Return the amplitude of each wavenumber of a real transform: k**(-slope / 2), and 0 for the mean."""
    wavenumber = np.hypot(
        np.fft.fftfreq(rows)[:, None] * max(rows, columns),
        np.fft.rfftfreq(columns)[None, :] * max(rows, columns),
    )
    wavenumber[0, 0] = np.inf
    amplitude = (wavenumber ** (-slope / 2)).astype(np.float32)
    amplitude.setflags(write=False)
    return amplitude


def _fast_fft_size(size: int) -> int:
    """Return the smallest number >= `size` without prime factors above 5, for a fast FFT."""
    while True:
        rest = size
        for factor in (2, 3, 5):
            while rest % factor == 0:
                rest //= factor
        if rest == 1:
            return size
        size += 1


def upsample_bilinear(
    values: npt.NDArray[Any], rows: npt.NDArray[Any], columns: npt.NDArray[Any]
) -> npt.NDArray[np.float32]:
    """Return `values` interpolated bilinearly at fractional positions.

    Parameters
    ----------
    values : numpy.ndarray
        (n, m).
    rows, columns : numpy.ndarray
        Fractional indices into `values`, (height,) and (width,); clipped to its extent.

    Returns
    -------
    numpy.ndarray
        float32, (height, width).
    """
    values = np.asarray(values, dtype=np.float32)
    top, down = _split_position(rows, values.shape[0])
    left, right = _split_position(columns, values.shape[1])
    tall = values[top] * (1 - down)[:, None]
    tall += values[np.minimum(top + 1, values.shape[0] - 1)] * down[:, None]
    wide = np.take(tall, left, axis=1)
    wide *= 1 - right
    step = np.take(tall, np.minimum(left + 1, values.shape[1] - 1), axis=1)
    step *= right
    wide += step
    return np.asarray(wide)


def _split_position(position: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the integer part of each position, clipped to the array, and its fraction."""
    position = np.clip(position, 0, size - 1)
    whole = np.minimum(position.astype(np.intp), max(size - 2, 0))
    return whole, (position - whole).astype(np.float32)
