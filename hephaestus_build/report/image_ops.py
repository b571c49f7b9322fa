"""Image operations for figures: downsampling, hillshading and the phase colormap."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import numpy as np
from matplotlib.colors import ListedColormap


def shrink_factor(shape: tuple[int, int], largest: int) -> int:
    """Return the smallest downsampling factor for which neither side of `shape` exceeds `largest`."""
    return max(1, -(-max(shape) // largest))


def _block_sum(image: np.ndarray, factor: int) -> np.ndarray:
    """Return the sum over each complete block of `factor` x `factor` pixels, in float32."""
    rows, columns = (size // factor * factor for size in image.shape)
    total = np.zeros((rows // factor, columns // factor), "f4")
    # adding strided images is ten times faster than summing the blocks of a reshaped array
    for row in range(factor):
        for column in range(factor):
            total += image[row:rows:factor, column:columns:factor]
    return total


def shrink_phase(phase: np.ndarray, factor: int) -> np.ndarray:
    """Downsample wrapped phase by averaging unit complex numbers, ignoring pixels without data.

    Parameters
    ----------
    phase : numpy.ndarray
        Wrapped phase in radians, shape (rows, columns); exactly 0 is no data.
    factor : int
        Side length of a block in pixels.

    Returns
    -------
    numpy.ndarray
        Wrapped phase in radians, float32, shape (rows // factor, columns // factor); NaN if more than half of
        a block has no data.
    """
    if factor == 1:
        return np.where(phase == 0, np.nan, phase)
    valid = phase != 0
    count = _block_sum(valid, factor)
    # pixels without data (phase 0) add cos(0) = 1 to the real part and nothing to the imaginary part
    real = _block_sum(np.cos(phase), factor) - (factor * factor - count)
    imaginary = _block_sum(np.sin(phase), factor)
    return np.where(count * 2 >= factor * factor, np.arctan2(imaginary, real), np.nan).astype("f4")


def shrink_mean(image: np.ndarray, factor: int) -> np.ndarray:
    """Downsample an image by averaging the pixels that are not NaN; NaN if more than half of a block is."""
    if factor == 1:
        return image.astype("f4")
    valid = ~np.isnan(image)
    count = _block_sum(valid, factor)
    mean = _block_sum(np.where(valid, image, 0), factor) / np.maximum(count, 1)
    return np.where(count * 2 >= factor * factor, mean, np.nan).astype("f4")


def shrink_codes(mask: np.ndarray, factor: int) -> np.ndarray:
    """Downsample a mask to the largest code of each block, which preserves small regions."""
    rows, columns = (size // factor * factor for size in mask.shape)
    parts = [
        mask[row:rows:factor, column:columns:factor] for row in range(factor) for column in range(factor)
    ]
    return np.maximum.reduce(parts)


def hillshade(height: np.ndarray, pixel: tuple[float, float], *, exaggeration: float = 2.0) -> np.ndarray:
    """Return the brightness of terrain that is lit from the north-west.

    Parameters
    ----------
    height : numpy.ndarray
        Height in metres, shape (rows, columns), north up.
    pixel : tuple of float
        East-west and north-south size of a pixel on the ground, in metres.
    exaggeration : float
        Factor by which heights are multiplied.

    Returns
    -------
    numpy.ndarray
        Brightness from 0 to 1, shape (rows, columns); NaN where a neighbouring height is NaN.
    """
    south, east = np.gradient(height * exaggeration, pixel[1], pixel[0])
    light = np.array([-1.0, 1.0, 1.4]) / np.sqrt(1 + 1 + 1.4**2)  # east, north, up
    towards = -east * light[0] + south * light[1] + light[2]
    return np.clip(towards / np.sqrt(1 + east**2 + south**2), 0, 1)


def round_scale_length(span: float) -> float:
    """Return the largest length of 1, 2 or 5 times a power of ten that is at most a quarter of `span`."""
    power = 10.0 ** np.floor(np.log10(span / 4))
    return float(max(step * power for step in (1, 2, 5) if step * power <= span / 4))


@cache
def phase_colormap() -> ListedColormap:
    """Return a cyclic colormap without visible seam, for wrapped phase.

    Its hues are a circle in the perceptually uniform Oklab colour space (Ottosson 2020). Its lightness varies
    once per cycle, so that fringes are visible in greyscale too.
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
