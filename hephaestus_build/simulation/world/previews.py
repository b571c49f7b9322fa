"""Previews of interferograms in the two styles of the portal, and the mapping from grid to preview pixels.

Until November 2020 the previews were linear in latitude and longitude, true colour, and shaded by the radar
brightness. Since then their rows follow the Mercator projection and their colours are a flat palette.
"""

from __future__ import annotations

import colorsys
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from hephaestus_build.core.grid import Grid
from hephaestus_build.simulation.world.geotiff_writer import SIMULATED_TAGS

PreviewProjection = Literal["linear", "mercator"]
#: Preview pixels per raster pixel, along each axis.
PREVIEW_PIXELS_PER_PIXEL = 0.3
_COLOURS = 96


def preview_size(grid: Grid) -> tuple[int, int]:
    """Return width and height of the preview of a raster on `grid`."""
    return round(PREVIEW_PIXELS_PER_PIXEL * grid.width), round(PREVIEW_PIXELS_PER_PIXEL * grid.height)


def grid_to_preview(
    columns: npt.NDArray[Any], rows: npt.NDArray[Any], grid: Grid, projection: PreviewProjection
) -> npt.NDArray[Any]:
    """Return the preview coordinates of points of `grid`.

    Parameters
    ----------
    columns, rows : numpy.ndarray
        Pixel-edge coordinates on the grid, (n,).
    grid : Grid
        Grid of the raster.
    projection : str
        Projection of the preview's rows.

    Returns
    -------
    numpy.ndarray
        (n, 2), x to the right and y down, in preview pixels from the top left corner.
    """
    width, height = preview_size(grid)
    down = np.asarray(rows, dtype=float) / grid.height
    if projection == "mercator":
        top, bottom = _mercator(grid.north), _mercator(grid.bounds[1])
        down = (top - _mercator(grid.north - np.asarray(rows) * grid.dy)) / (top - bottom)
    return np.stack([np.asarray(columns) * width / grid.width, down * height], axis=-1)


def _mercator(latitude: np.ndarray | float) -> np.ndarray:
    return np.asarray(np.arctanh(np.sin(np.radians(latitude))))


def resample_to_preview(
    values: npt.NDArray[Any], grid: Grid, projection: PreviewProjection
) -> npt.NDArray[Any]:
    """Return the nearest value for each preview pixel, (height, width).

    Parameters
    ----------
    values : numpy.ndarray
        Values on `grid`, (rows, columns).
    grid : Grid
        Grid of the raster.
    projection : str
        Projection of the preview's rows.
    """
    width, height = preview_size(grid)
    down = (np.arange(height) + 0.5) / height
    if projection == "mercator":
        top, bottom = _mercator(grid.north), _mercator(grid.bounds[1])
        latitude = np.degrees(np.arcsin(np.tanh(top - down * (top - bottom))))
        rows = (grid.north - latitude) / grid.dy
    else:
        rows = down * grid.height
    columns = (np.arange(width) + 0.5) / width * grid.width
    pick_rows = np.clip(rows.astype(int), 0, grid.height - 1)
    return np.asarray(values[pick_rows[:, None], np.clip(columns.astype(int), 0, grid.width - 1)])


def write_phase_preview(
    path: Path, phase: npt.NDArray[Any], height: npt.NDArray[Any], grid: Grid, projection: PreviewProjection
) -> None:
    """Write the preview of a wrapped phase: RGBA if linear, a palette with transparency if Mercator.

    Parameters
    ----------
    path : Path
        PNG file to write.
    phase : numpy.ndarray
        Wrapped phase, radians, (rows, columns); 0 is transparent.
    height : numpy.ndarray
        Terrain heights, metres, (rows, columns), used to shade linear previews.
    grid : Grid
        Grid of both.
    projection : str
        ``linear`` or ``mercator``.
    """
    seen = resample_to_preview(phase, grid, projection)
    step = np.floor((seen / (2 * np.pi) + 0.5) * _COLOURS).astype(int) % _COLOURS
    hues = [colorsys.hsv_to_rgb(hue / _COLOURS, 0.75, 0.95) for hue in range(_COLOURS)]
    wheel = np.round(255 * np.array(hues)).astype(np.uint8)
    if projection == "mercator":
        picture = Image.fromarray(np.where(seen == 0, 0, step + 1).astype(np.uint8))
        picture.putpalette(np.concatenate([[[0, 0, 0]], wheel]).astype(np.uint8).tobytes())
        _save(path, picture, transparency=0)
        return
    slope = np.gradient(resample_to_preview(height, grid, projection), axis=1)
    shade = np.clip(0.75 + slope / (4 * (slope.std() + 1e-3)), 0.25, 1)[..., None]
    colour = (wheel[step] * shade).astype(np.uint8)
    alpha = np.where(seen == 0, 0, 255).astype(np.uint8)[..., None]
    _save(path, Image.fromarray(np.concatenate([colour, alpha], axis=-1)))


def write_grey_preview(
    path: Path, values: npt.NDArray[np.uint8], grid: Grid, projection: PreviewProjection
) -> None:
    """Write the greyscale preview of a coherence or intensity raster.

    Parameters
    ----------
    path : Path
        PNG file to write.
    values : numpy.ndarray
        uint8, (rows, columns).
    grid : Grid
        Grid of `values`.
    projection : str
        ``linear`` or ``mercator``.
    """
    _save(path, Image.fromarray(resample_to_preview(values, grid, projection)))


def _save(path: Path, picture: Image.Image, transparency: int | None = None) -> None:
    text = PngInfo()
    for key, value in SIMULATED_TAGS.items():
        text.add_text(key, value)
    options = {} if transparency is None else {"transparency": transparency}
    picture.save(path, "PNG", pnginfo=text, **options)
