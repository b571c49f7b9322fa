"""The pictures of a page from the images of a cube, at a scale that keeps the page small."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date
from math import ceil, sqrt
from typing import Any

import numpy as np
import numpy.typing as npt
import xarray as xr

from hephaestus_build.core.frames import Pair
from hephaestus_build.core.grid import Grid
from hephaestus_build.cube.decimation import Decimation
from hephaestus_build.pages.colour_maps import byte_palette, load_colour_map
from hephaestus_build.pages.cube_images import CubeImages, PairImages, read_vapour
from hephaestus_build.pages.page_data import FramePictures, PageGrid, PairPictures
from hephaestus_build.pages.pictures import (
    Picture,
    encode_codes,
    encode_levels,
    quantize_to_codes,
    to_base64,
)
from hephaestus_build.report.image_ops import hillshade

#: Side length of the water vapour, pixels; ERA5's own pixels are ten times as large.
_VAPOUR_SIZE = 64
#: Steps of light and of height in the relief, and the light of its legend.
_SHADES, _TINTS, _LEGEND_SHADE = 12, 20, 7
_SAMPLED = 6


def encode_pictures(cube: xr.Dataset, images: CubeImages, most: int) -> FramePictures:
    """Return the pictures of a page.

    Every pixel of phase, coherence and masks is one of the overview as it is. Where all of them would be too
    large, every n-th pixel of every n-th row is taken.

    Parameters
    ----------
    cube : xarray.Dataset
        The cube.
    images : CubeImages
        Its images, of one pair at least.
    most : int
        Characters that the pictures of the pairs may take together.
    """
    pairs, decimation = encode_pairs(images, most)
    step = decimation.factor if decimation else 1
    grid = decimation.grid(images.grid) if decimation else images.grid
    dates = {day for pair in images.pairs for day in pair.dates}
    relief, heights, limits = None, None, None
    if images.height is not None:
        height = _take(images.height, decimation)
        relief, heights, limits = _encode_relief(height, grid)
    return FramePictures(
        PageGrid(
            grid.width, grid.height, grid.west, grid.north, grid.dx, grid.dy, images.factor * step, step
        ),
        {pair.name: one for pair, one in pairs.items()},
        *_encode_vapour(read_vapour(cube, dates, _coarse(grid))),
        relief,
        heights,
        limits,
        (1 + _LEGEND_SHADE * _TINTS, (1 + _LEGEND_SHADE) * _TINTS),
        images.model,
    )


def encode_pairs(images: CubeImages, most: int) -> tuple[dict[Pair, PairPictures], Decimation | None]:
    """Return the pictures of all pairs, and how they were thinned to be small enough; None if they were not.

    Parameters
    ----------
    images, most
        See :func:`encode_pictures`.
    """
    step = _choose_step(images, most)
    while True:
        decimation = Decimation(step) if step > 1 else None
        pairs = {pair: _encode_pair(_thin(one, decimation)) for pair, one in images.pairs.items()}
        if (size := sum(map(_size, pairs.values()))) <= most or min(images.grid.shape) <= 2 * step:
            break
        step = max(step + 1, ceil(step * sqrt(size / most)))
    return pairs, decimation


def _choose_step(images: CubeImages, most: int) -> int:
    """Return the smallest step at which the pictures probably are small enough, from some of the pairs."""
    pairs = list(images.pairs.values())
    sample = pairs[:: max(1, len(pairs) // _SAMPLED)][:_SAMPLED]
    size = sum(_size(_encode_pair(one)) for one in sample) * len(pairs) / len(sample)
    return max(1, ceil(sqrt(size / most) - 0.05))


def _take(values: npt.NDArray[Any], decimation: Decimation | None) -> npt.NDArray[Any]:
    return decimation.assemble([(0, values)], values.shape, values.dtype) if decimation else values


def _thin(images: PairImages, decimation: Decimation | None) -> PairImages:
    probability = images.probability
    return PairImages(
        _take(images.phase, decimation),
        _take(images.coherence, decimation),
        _take(images.mask, decimation),
        None if probability is None else _take(probability, decimation),
    )


def _encode_pair(images: PairImages) -> PairPictures:
    phase = Picture(
        to_base64(encode_codes(images.phase, byte_palette("romaO"))), np.pi / 127, -128 * np.pi / 127
    )
    coherence = Picture(to_base64(encode_codes(images.coherence, byte_palette("grayC"))), 1 / 255)
    mask = probability = None
    if images.mask.any():
        mask = Picture(to_base64(encode_codes(images.mask, byte_palette("lajolla"))))
    if images.probability is not None:
        codes, scale, offset = quantize_to_codes(images.probability, 0.0, 1.0)
        content = encode_codes(codes, byte_palette("lajolla"))
        probability = Picture(to_base64(content), scale, offset)
    return PairPictures(phase, coherence, mask, probability)


def _size(pictures: PairPictures) -> int:
    parts = (pictures.phase, pictures.coherence, pictures.mask, pictures.probability)
    return sum(len(part.png) for part in parts if part is not None)


def _encode_relief(
    height: npt.NDArray[np.float32], grid: Grid
) -> tuple[Picture, Picture, tuple[float, float]]:
    """Return the shaded relief, the heights in whole metres, and the heights of its first and last colour."""
    known = np.isfinite(height)
    low, high = (float(edge) for edge in np.percentile(height[known], (0.5, 99.8)))
    high = max(high, low + 1)
    shade = np.nan_to_num(hillshade(height, grid.pixel_size_m(), exaggeration=3.0), nan=0.62)
    tint = np.nan_to_num((height - low) / (high - low)).clip(0, 1)
    codes = 1 + (shade * (_SHADES - 1)).round() * _TINTS + (tint * (_TINTS - 1)).round()
    relief = encode_codes(np.where(known, codes, 0).astype(np.uint8), _relief_palette())
    metres = np.rint(np.nan_to_num(height)).clip(-32_000, 33_000) + 32_001
    levels = encode_levels(np.where(known, metres, 0).astype(np.uint16))
    return Picture(to_base64(relief)), Picture(to_base64(levels), 1.0, -32_001.0), (low, high)


def _relief_palette() -> npt.NDArray[np.uint8]:
    """Return the colours of all shades of all tints."""
    tints = load_colour_map("bukavu")[np.linspace(146, 252, _TINTS).astype(int)].astype(float)
    light = np.linspace(0.42, 1.3, _SHADES)[:, np.newaxis, np.newaxis]
    colours = (tints * light).clip(0, 255).reshape(-1, 3)
    palette = np.full((256, 3), 127, np.uint8)
    palette[1 : 1 + len(colours)] = colours.round()
    return palette


def _coarse(grid: Grid) -> Grid:
    """Return a coarser grid of the same area."""
    scale = min(1.0, _VAPOUR_SIZE / max(grid.shape))
    height, width = (max(2, round(size * scale)) for size in grid.shape)
    return Grid(
        width, height, grid.west, grid.north, grid.dx * grid.width / width, grid.dy * grid.height / height
    )


def _encode_vapour(
    fields: Mapping[date, npt.NDArray[np.float32]],
) -> tuple[dict[str, Picture], tuple[float, float] | None]:
    """Return the water vapour of all dates in the same colours, and the values of the first and last one."""
    if not fields:
        return {}, None
    low = min(float(np.nanmin(field)) for field in fields.values())
    high = max(float(np.nanmax(field)) for field in fields.values())
    pictures = {}
    for day, field in fields.items():
        codes, scale, offset = quantize_to_codes(field, low, high)
        content = encode_codes(codes, byte_palette("devon", reverse=True))
        pictures[day.isoformat()] = Picture(to_base64(content), scale, offset)
    return pictures, (low, high)
