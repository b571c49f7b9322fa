"""Images made ready for a picture: shrunk, shaded and coloured. Pure functions."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import numpy as np
from matplotlib.colors import ListedColormap


def shrink_factor(shape: tuple[int, int], largest: int) -> int:
    """Return how many pixels become one so that neither side of `shape` is longer than `largest`."""
    return max(1, -(-max(shape) // largest))


def _block_sum(image: np.ndarray, factor: int) -> np.ndarray:
    """Return the sum over each whole block of `factor` x `factor` pixels, in float32."""
    rows, columns = (size // factor * factor for size in image.shape)
    total = np.zeros((rows // factor, columns // factor), "f4")
    # one strided image after the other: numpy sums the blocks of a reshaped one ten times slower
    for row in range(factor):
        for column in range(factor):
            total += image[row:rows:factor, column:columns:factor]
    return total


def shrink_phase(phase: np.ndarray, factor: int) -> np.ndarray:
    """Average wrapped phase as complex numbers, without the pixels that hold no data.

    Parameters
    ----------
    phase : numpy.ndarray
        Shape (rows, columns), rad; exactly 0 is no data.
    factor : int
        Pixels of each side of a block.

    Returns
    -------
    numpy.ndarray
        float32, rad; NaN where more than half of a block holds no data.
    """
    if factor == 1:
        return np.where(phase == 0, np.nan, phase)
    valid = phase != 0
    count = _block_sum(valid, factor)
    # cos 0 is 1, so that pixels without data count in the real part alone
    real = _block_sum(np.cos(phase), factor) - (factor * factor - count)
    imaginary = _block_sum(np.sin(phase), factor)
    return np.where(count * 2 >= factor * factor, np.arctan2(imaginary, real), np.nan).astype("f4")


def shrink_mean(image: np.ndarray, factor: int) -> np.ndarray:
    """Average the pixels that are not NaN; NaN where more than half of a block is."""
    if factor == 1:
        return image.astype("f4")
    valid = ~np.isnan(image)
    count = _block_sum(valid, factor)
    mean = _block_sum(np.where(valid, image, 0), factor) / np.maximum(count, 1)
    return np.where(count * 2 >= factor * factor, mean, np.nan).astype("f4")


def shrink_codes(mask: np.ndarray, factor: int) -> np.ndarray:
    """Keep the largest code of each block, so that no small region is lost."""
    rows, columns = (size // factor * factor for size in mask.shape)
    parts = [
        mask[row:rows:factor, column:columns:factor] for row in range(factor) for column in range(factor)
    ]
    return np.maximum.reduce(parts)


def hillshade(height: np.ndarray, pixel: tuple[float, float], *, exaggeration: float = 2.0) -> np.ndarray:
    """Return how bright terrain looks under light from the north-west, 0 to 1.

    Parameters
    ----------
    height : numpy.ndarray
        Shape (rows, columns), metres, north up; NaN stays NaN.
    pixel : tuple of float
        Ground size of a pixel, east-west and north-south, metres.
    exaggeration : float
        How much steeper than true slopes look.
    """
    south, east = np.gradient(height * exaggeration, pixel[1], pixel[0])
    light = np.array([-1.0, 1.0, 1.4]) / np.sqrt(1 + 1 + 1.4**2)  # east, north, up
    towards = -east * light[0] + south * light[1] + light[2]
    return np.clip(towards / np.sqrt(1 + east**2 + south**2), 0, 1)


def round_scale_length(span: float) -> float:
    """Return 1, 2 or 5 times a power of ten, at most a quarter of `span`."""
    power = 10.0 ** np.floor(np.log10(span / 4))
    return float(max(step * power for step in (1, 2, 5) if step * power <= span / 4))


@cache
def phase_colormap() -> ListedColormap:
    """Return a cyclic colormap: once around the hues, lighter and darker once, no seam and no false edge.

    The hues are a circle in the Oklab colour space; the lightness lets fringes survive a grey print.
    """
    angle = np.linspace(0, 2 * np.pi, 512, endpoint=False)
    lightness, chroma = 0.69 + 0.12 * np.cos(angle - 1.9), 0.128
    a, b = chroma * np.cos(angle), chroma * np.sin(angle)
    cone: Callable[[float, float], np.ndarray] = lambda by_a, by_b: (lightness + by_a * a + by_b * b) ** 3  # noqa: E731
    long, medium, short = (
        cone(0.3963377774, 0.2158037573),
        cone(-0.1055613458, -0.0638541728),
        cone(-0.0894841775, -1.2914855480),
    )
    linear = np.stack(
        [
            4.0767416621 * long - 3.3077115913 * medium + 0.2309699292 * short,
            -1.2684380046 * long + 2.6097574011 * medium - 0.3413193965 * short,
            -0.0041960863 * long - 0.7034186147 * medium + 1.7076147010 * short,
        ],
        axis=-1,
    ).clip(0, 1)
    colours = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
    return ListedColormap(colours, name="wrapped phase")
