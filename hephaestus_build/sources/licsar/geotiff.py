"""Read LiCSAR's GeoTIFFs whole, and believe nothing about them that was not checked.

What a raster means is taken from its own tags (:mod:`~hephaestus_build.sources.licsar.tiff_directory` and
its neighbours); GDAL only unpacks the pixels. So no variable of the environment, no file beside the raster
and no database changes what is read.
"""

from __future__ import annotations

import os
import threading
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from affine import Affine
from rasterio._err import CPLE_OutOfMemoryError
from rasterio.errors import RasterioError
from rasterio.io import MemoryFile

from hephaestus_build.core.errors import HephaestusError
from hephaestus_build.core.gdal import check_gdal, gdal
from hephaestus_build.core.grid import Grid
from hephaestus_build.sources.licsar.band_tags import BandTags, read_band_tags
from hephaestus_build.sources.licsar.geokeys import check_heights, check_wgs84, read_keys, read_transform
from hephaestus_build.sources.licsar.tiff_directory import (
    MAX_BYTES,
    Directory,
    Layout,
    bare,
    read_directories,
    read_layout,
)

# Rows whose range is taken at once: small enough to stay in the cache of a core.
_ROWS = 32
_PI = np.float32(np.pi)
# The next float after that of pi may be stored; what rounding put beyond by no more than this is clipped.
_HIGHEST = float(np.nextafter(_PI, np.float32(4)))
_ROUNDING = 5e-4
# Rasters that take more bytes than any real one are unpacked one at a time.
_LARGE = 128 << 20
_large = threading.Lock()

_ANGLES = ("rad", "radian", "radians")
_FRACTIONS = ("1", "unitless", "dimensionless", "none", "coherence")
_METRES = ("m", "metre", "metres", "meter", "meters")


class CorruptRaster(ValueError):  # noqa: N818 (an outcome of that name)
    """The file is not the raster that it should be; the message says why."""


@dataclass(frozen=True)
class Raster:
    """One band and where it lies.

    Attributes
    ----------
    values : numpy.ndarray
        Shape ``grid.shape``, the first row in the north.
    grid : Grid
        Its pixels.
    notes : tuple of str
        What was done to the values beyond reading them; empty for an ordinary file.
    """

    values: np.ndarray
    grid: Grid
    notes: tuple[str, ...] = ()


@dataclass
class _Band:
    """Values as they are stored, and what is known of them."""

    values: np.ndarray
    grid: Grid
    hidden: np.ndarray | None  #: where a mask or the no-data tag says that there is nothing
    tags: BandTags
    zero: bool  #: whether 0 is no data
    notes: list[str]


def read_phase(path: Path) -> Raster:
    """Return the wrapped phase in `path`.

    Returns
    -------
    Raster
        float32, rad in [-pi, pi]; exact 0 is no data. Bits are as stored, except where a note says so.

    Raises
    ------
    CorruptRaster
        If the file cannot be read whole, or is no phase raster in EPSG:4326, or holds no data.
    HephaestusError
        If this machine cannot read any raster.
    """
    band = _read(path, ("float32", "uint8"), _ANGLES)
    values, notes = band.values, band.notes
    if values.dtype == np.uint8:
        if band.tags.linear:
            raise CorruptRaster("phase in bytes with a scale of its own: what byte 0 means cannot be told")
        # LiCSAR has a tool that packs phase like this; none was seen in the archive so far
        table = np.linspace(-np.pi, np.pi, 255, dtype=np.float32)
        values = np.concatenate((np.zeros(1, np.float32), table))[values]
        notes.append("phase was stored as bytes 1 to 255 and rescaled to -pi to pi")
    if band.hidden is not None:
        values[band.hidden] = 0
    values = _scaled(values, band)
    _drop_infinite(values, notes)
    low, high = _range(values)
    if low == high == 0:
        raise CorruptRaster("the phase raster holds no data: every pixel is 0")
    if low < -_HIGHEST - _ROUNDING or high > _HIGHEST + _ROUNDING:
        raise CorruptRaster(f"values from {low:.7g} to {high:.7g} are no wrapped phase in radians")
    if low < -_HIGHEST or high > _HIGHEST:
        beyond = np.abs(values) > _HIGHEST
        notes.append(f"{_pixels(beyond)} clipped to -pi to pi; values went from {low:.9g} to {high:.9g}")
        np.clip(values, -_PI, _PI, out=values, where=beyond)
    return Raster(values, band.grid, tuple(notes))


def read_coherence(path: Path) -> Raster:
    """Return the coherence in `path`.

    Returns
    -------
    Raster
        uint8, coherence times 255; 0 is no data, and no coherence above 0 becomes 0.

    Raises
    ------
    CorruptRaster
        If the file cannot be read whole, or is no coherence raster in EPSG:4326, or holds no data.
    HephaestusError
        If this machine cannot read any raster.
    """
    band = _read(path, ("uint8", "float32"), _FRACTIONS)
    values, notes = band.values, band.notes
    if band.hidden is not None:
        values[band.hidden] = 0
    if values.dtype == np.float32 or band.tags.linear:  # before October 2019 they were stored as fractions
        values = _scaled(values.astype(np.float32, copy=False), band)
        _drop_infinite(values, notes)
        low, high = _range(values)
        if low < -_ROUNDING or high > 1 + _ROUNDING:
            raise CorruptRaster(f"values from {low:.7g} to {high:.7g} are no coherence")
        if low < 0 or high > 1:
            beyond = (values < 0) | (values > 1)
            notes.append(f"{_pixels(beyond)} clipped to 0 to 1; values went from {low:.9g} to {high:.9g}")
            np.clip(values, 0, 1, out=values)
        codes = np.rint(values * np.float32(255)).astype(np.uint8)
        values = np.maximum(codes, values > 0, out=codes)  # 0 is no data: the least coherence is 1
        notes.append("coherence was stored as fractions and rescaled to 0 to 255")
    if not values.max():
        raise CorruptRaster("the coherence raster holds no data: every pixel is 0")
    return Raster(values, band.grid, tuple(notes))


def read_height(path: Path) -> Raster:
    """Return the heights in `path`.

    Returns
    -------
    Raster
        float32, metres; NaN is no data. A no-data tag of 0 is not followed: 0 is a height on every coast.

    Raises
    ------
    CorruptRaster
        If the file cannot be read whole, or holds no heights on this Earth in EPSG:4326.
    HephaestusError
        If this machine cannot read any raster.
    """
    band = _read(path, ("float32", "int16", "float64", "int32"), _METRES, zero=False)
    stored, notes = band.values, band.notes
    # -32768 and -9999 are holes whatever the tags say; so is anything that no land or sea floor reaches
    holes = (stored == -9_999) | (stored == -32_768)
    if band.hidden is not None:
        holes |= band.hidden
    if band.tags.nodata == 0 and (kept := stored == 0).any():
        notes.append(f"{_pixels(kept)} of 0 kept as heights, although the raster's no-data value is 0")
    if stored.dtype != np.float32:
        notes.append(f"heights were stored as {stored.dtype}")
    values = _scaled(stored, band)
    with np.errstate(invalid="ignore", over="ignore"):
        values = values.astype(np.float32, copy=False)
        holes |= ~((values > -11_000) & (values < 9_000))
        ground = np.count_nonzero(values[~holes])
    if not ground:
        raise CorruptRaster("the height raster holds no data: every pixel is 0 or a hole")
    if holes.any():
        values[holes] = np.nan
        notes.append(f"{_pixels(holes)} without a height")
    return Raster(values, band.grid, tuple(notes))


def _read(path: Path, dtypes: tuple[str, ...], units: tuple[str, ...], *, zero: bool = True) -> _Band:
    """Return the only band of `path`, north-up, after every check that costs no memory.

    Parameters
    ----------
    path : Path
        Of the raster.
    dtypes, units : tuple of str
        What its values may be.
    zero : bool
        Whether 0 is no data, so that a no-data tag of 0 and a block that is not stored change nothing; it
        is not in heights.
    """
    check_gdal()
    try:
        image, mask = _images(_content(path))
        layout, tags, keys = read_layout(image, dtypes), read_band_tags(image, units), read_keys(image)
        transform = read_transform(image, keys)
        check_wgs84(keys)
        if not zero:
            check_heights(keys)
        masked = read_layout(mask, ("bool", "uint8")) if mask else None
        if masked and (masked.width, masked.height) != (layout.width, layout.height):
            raise ValueError("its mask has another size")
        notes: list[str] = []
        if layout.missing:
            if not zero:
                raise ValueError(f"{layout.missing} of its {layout.counts.size} blocks are not stored")
            notes.append(f"{layout.missing} of {layout.counts.size} blocks are not stored: no data there")
        with _large if layout.width * layout.height * layout.bits > 8 * _LARGE else nullcontext():
            values = _unpack(image, layout)
            hidden = None if masked is None else _unpack(mask, masked) == 0
    except ValueError as error:
        raise CorruptRaster(str(error)) from error
    except MemoryError as error:
        raise HephaestusError(
            f"there is not enough memory to read {path.name}; build with fewer at once, or free some memory"
        ) from error
    if hidden is not None and hidden.any():
        notes.append(f"{_pixels(hidden)} hidden by the raster's mask set to no data")
    if tags.nodata and (nodata := tags.hides(values)) is not None:  # 0 is no data, or a height
        notes.append(f"{_pixels(nodata)} of the raster's no-data value {tags.nodata:g} set to no data")
        hidden = nodata if hidden is None else hidden | nodata
    if tags.linear:
        notes.append(f"values were scaled by {tags.scale:g} and offset by {tags.offset:g} as its tags say")
    if transform.e > 0:
        values = np.ascontiguousarray(values[::-1])
        hidden = None if hidden is None else hidden[::-1]
        north = transform.f + values.shape[0] * transform.e
        transform = Affine(transform.a, transform.b, transform.c, transform.d, -transform.e, north)
        notes.append("the raster was south-up and was flipped")
    return _Band(values, _grid(transform, values.shape), hidden, tags, zero, notes)


def _content(path: Path) -> bytes:
    """Return the bytes of the file, if these are no more than a raster has."""
    try:
        with path.open("rb") as stream:
            size = os.fstat(stream.fileno()).st_size
            if size > MAX_BYTES:
                raise ValueError(f"the file has {size} bytes: no LiCSAR raster is that large")
            return stream.read(MAX_BYTES)
    except FileNotFoundError as error:
        raise ValueError(f"the file cannot be read: {error.strerror}") from error
    except OSError as error:  # no fault of the file's content
        raise HephaestusError(
            f"{path} cannot be read: {error.strerror or error}; check the disk and the file's rights, then "
            "run the same command again"
        ) from error


def _images(content: bytes) -> tuple[Directory, Directory | None]:
    """Return the directories of a file's image and of its mask; smaller copies of both are left out."""
    first, *others = read_directories(content)
    if first.subfile not in (0, 2):
        raise ValueError("its first image is a smaller copy or a mask")
    others = [directory for directory in others if not directory.subfile & 1]
    masks = [directory for directory in others if directory.subfile & 4]
    if len(masks) < len(others) or len(masks) > 1:
        raise ValueError(f"the file holds {1 + len(others)} images where one was expected")
    return first, masks[0] if masks else None


def _unpack(directory: Directory | None, layout: Layout) -> np.ndarray:
    """Return the pixels of an image.

    Raises
    ------
    ValueError
        If a block cannot be unpacked.
    """
    assert directory is not None
    try:
        packed = bare(directory, layout)
        with (
            gdal(),
            MemoryFile(packed, filename="raster.tif") as memory,
            memory.open(driver="GTiff") as dataset,
        ):
            values: np.ndarray = dataset.read(1)
    except RasterioError as error:
        if isinstance(error.__cause__, CPLE_OutOfMemoryError):
            raise MemoryError from error
        check_gdal(again=True)
        raise ValueError(f"the file cannot be read whole: {error.__cause__ or error}") from error
    return values


def _grid(transform: Affine, shape: tuple[int, ...]) -> Grid:
    """Return the grid of a raster, if it lies on this Earth."""
    try:
        grid = Grid.from_transform(transform, (shape[0], shape[1]))
    except ValueError as error:
        raise CorruptRaster(str(error)) from error
    west, south, east, north = grid.bounds
    if not (-180.5 <= west < east <= 360.5 and -90.5 <= south < north <= 90.5):
        raise CorruptRaster(f"the raster lies at {west:g}, {south:g}, {east:g}, {north:g}: not on this Earth")
    return grid


def _scaled(values: np.ndarray, band: _Band) -> np.ndarray:
    """Return stored values as they are meant; 0 stays 0 where it means no data.

    Raises
    ------
    CorruptRaster
        If values of which 0 means no data have an offset.
    """
    tags = band.tags
    if not tags.linear:
        return values
    if band.zero and tags.offset:
        raise CorruptRaster(f"its tags add {tags.offset:g} to values of which 0 means no data")
    # with the precision of doubles, some rows at a time
    scaled = np.empty(values.shape, np.float32)
    with np.errstate(invalid="ignore", over="ignore"):
        for row in range(0, values.shape[0], _ROWS):
            scaled[row : row + _ROWS] = values[row : row + _ROWS] * np.float64(tags.scale) + tags.offset
    return scaled


def _pixels(where: np.ndarray) -> str:
    """Say how many pixels there are."""
    count = np.count_nonzero(where)
    return f"{count} pixel{'' if count == 1 else 's'}"


def _drop_infinite(values: np.ndarray, notes: list[str]) -> None:
    """Set what is no finite number to 0, and say so."""
    if not np.isfinite(_range(values)).all():
        wrong = ~np.isfinite(values)
        values[wrong] = 0
        notes.append(f"{_pixels(wrong)} without a finite value set to no data")


def _range(values: np.ndarray) -> tuple[float, float]:
    """Return the least and the greatest value; NaN if there is one.

    Some rows at a time, so that the second look finds them in the processor's cache: half the time of
    ``values.min(), values.max()``.
    """
    low = high = values.dtype.type(0)
    with np.errstate(invalid="ignore"):  # some bit patterns of NaN warn
        for row in range(0, values.shape[0], _ROWS):
            rows = values[row : row + _ROWS]
            low, high = np.minimum(low, rows.min()), np.maximum(high, rows.max())
    return float(low), float(high)
