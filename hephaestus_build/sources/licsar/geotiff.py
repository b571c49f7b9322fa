"""Reader of LiCSAR's GeoTIFF rasters, which checks everything before it is used.

The meaning of a raster is taken from its own tags (:mod:`~hephaestus_build.sources.licsar.tiff_directory`,
``band_tags`` and ``geokeys``); GDAL only decodes the pixels. Therefore environment variables, sidecar files
and databases of coordinate systems do not affect the result.
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
from hephaestus_build.core.gdal import check_gdal, isolated_gdal_env
from hephaestus_build.core.grid import Grid
from hephaestus_build.sources.interferograms import Raster
from hephaestus_build.sources.licsar.band_tags import BandTags, read_band_tags
from hephaestus_build.sources.licsar.geokeys import (
    check_vertical_units,
    check_wgs84,
    read_geokeys,
    read_geotransform,
)
from hephaestus_build.sources.licsar.tiff_directory import (
    MAX_BYTES,
    BandLayout,
    TiffDirectory,
    read_band_layout,
    read_tiff_directories,
    rebuild_minimal_tiff,
)

# Rows that are processed at once: few enough to stay in the cache of a core.
_ROWS_PER_BLOCK = 32
_PI = np.float32(np.pi)
# The largest stored phase may be the float32 above pi; values beyond it within the tolerance are clipped.
_MAX_PHASE = float(np.nextafter(_PI, np.float32(4)))
_ROUNDING_TOLERANCE = 5e-4
# Of unwrapped phase and of delays; a delay of 3 m is 680 rad.
_MAX_RADIANS = 1e5
# Rasters larger than any real one are decoded one at a time, to limit memory.
_LARGE_BYTES = 128 << 20
_large_raster_lock = threading.Lock()

_PHASE_UNITS = ("rad", "radian", "radians")
_COHERENCE_UNITS = ("1", "unitless", "dimensionless", "none", "coherence")
_COMPONENT_UNITS = ("1", "unitless", "dimensionless", "none")
_HEIGHT_UNITS = ("m", "metre", "metres", "meter", "meters")


class CorruptRaster(ValueError):  # noqa: N818 (an outcome of that name)
    """The file is not the expected raster; the message says why."""


@dataclass
class _StoredBand:
    """Values as stored, with their grid and tags."""

    values: np.ndarray
    grid: Grid
    masked: np.ndarray | None  #: pixels that a mask or the no-data tag marks as no data
    tags: BandTags
    zero_is_nodata: bool  #: whether 0 is no data
    notes: list[str]


def read_phase(path: Path) -> Raster:
    """Read a raster of wrapped phase.

    Returns
    -------
    Raster
        float32, rad in [-pi, pi]; exactly 0 is no data. Values are bit for bit as stored, except where a note
        says otherwise.

    Raises
    ------
    CorruptRaster
        If the file is damaged, is not a phase raster in EPSG:4326, or holds no data.
    HephaestusError
        If GDAL on this machine cannot read rasters.
    """
    band = _read_band(path, ("float32", "uint8"), _PHASE_UNITS)
    values, notes = band.values, band.notes
    if values.dtype == np.uint8:
        if band.tags.is_scaled:
            raise CorruptRaster("phase in bytes with a scale: the meaning of byte 0 is ambiguous")
        # a tool of LiCSAR packs phase like this, though no such file was seen in the archive so far
        table = np.linspace(-np.pi, np.pi, 255, dtype=np.float32)
        values = np.concatenate((np.zeros(1, np.float32), table))[values]
        notes.append("phase was stored as bytes 1 to 255 and rescaled to -pi to pi")
    if band.masked is not None:
        values[band.masked] = 0
    values = _apply_scale(values, band)
    _zero_nonfinite(values, notes)
    low, high = _min_max(values)
    if low == high == 0:
        raise CorruptRaster("the phase raster holds no data: every pixel is 0")
    if low < -_MAX_PHASE - _ROUNDING_TOLERANCE or high > _MAX_PHASE + _ROUNDING_TOLERANCE:
        raise CorruptRaster(f"values from {low:.7g} to {high:.7g} are not wrapped phase in radians")
    if low < -_MAX_PHASE or high > _MAX_PHASE:
        beyond = np.abs(values) > _MAX_PHASE
        notes.append(
            f"{_count_pixels(beyond)} clipped to -pi to pi; values went from {low:.9g} to {high:.9g}"
        )
        np.clip(values, -_PI, _PI, out=values, where=beyond)
    return Raster(values, band.grid, tuple(notes))


def read_coherence(path: Path) -> Raster:
    """Read a raster of coherence.

    Returns
    -------
    Raster
        uint8, coherence times 255; 0 is no data, and a coherence above 0 never becomes 0.

    Raises
    ------
    CorruptRaster
        If the file is damaged, is not a coherence raster in EPSG:4326, or holds no data.
    HephaestusError
        If GDAL on this machine cannot read rasters.
    """
    band = _read_band(path, ("uint8", "float32"), _COHERENCE_UNITS)
    values, notes = band.values, band.notes
    if band.masked is not None:
        values[band.masked] = 0
    if values.dtype == np.float32 or band.tags.is_scaled:  # LiCSAR stored fractions until October 2019
        values = _apply_scale(values.astype(np.float32, copy=False), band)
        _zero_nonfinite(values, notes)
        low, high = _min_max(values)
        if low < -_ROUNDING_TOLERANCE or high > 1 + _ROUNDING_TOLERANCE:
            raise CorruptRaster(f"values from {low:.7g} to {high:.7g} are not coherence")
        if low < 0 or high > 1:
            beyond = (values < 0) | (values > 1)
            notes.append(
                f"{_count_pixels(beyond)} clipped to 0 to 1; values went from {low:.9g} to {high:.9g}"
            )
            np.clip(values, 0, 1, out=values)
        codes = np.rint(values * np.float32(255)).astype(np.uint8)
        values = np.maximum(codes, values > 0, out=codes)  # 0 means no data: the smallest coherence becomes 1
        notes.append("coherence was stored as fractions and rescaled to 0 to 255")
    if not values.max():
        raise CorruptRaster("the coherence raster holds no data: every pixel is 0")
    return Raster(values, band.grid, tuple(notes))


def read_height(path: Path) -> Raster:
    """Read a raster of heights.

    Returns
    -------
    Raster
        float32, metres; NaN is no data. A no-data tag of 0 is ignored, since 0 is a valid height.

    Raises
    ------
    CorruptRaster
        If the file is damaged, or holds no plausible heights in EPSG:4326.
    HephaestusError
        If GDAL on this machine cannot read rasters.
    """
    band = _read_band(path, ("float32", "int16", "float64", "int32"), _HEIGHT_UNITS, zero=False)
    stored, notes = band.values, band.notes
    # -32768 and -9999 are holes whatever the tags say, and so are heights that do not occur on Earth
    holes = (stored == -9_999) | (stored == -32_768)
    if band.masked is not None:
        holes |= band.masked
    if band.tags.nodata == 0 and (kept := stored == 0).any():
        notes.append(f"{_count_pixels(kept)} of 0 kept as heights, although the raster's no-data value is 0")
    if stored.dtype != np.float32:
        notes.append(f"heights were stored as {stored.dtype}")
    values = _apply_scale(stored, band)
    with np.errstate(invalid="ignore", over="ignore"):
        values = values.astype(np.float32, copy=False)
        holes |= ~((values > -11_000) & (values < 9_000))
        ground = np.count_nonzero(values[~holes])
    if not ground:
        raise CorruptRaster("the height raster holds no data: every pixel is 0 or a hole")
    if holes.any():
        values[holes] = np.nan
        notes.append(f"{_count_pixels(holes)} without a height")
    return Raster(values, band.grid, tuple(notes))


def read_unwrapped(path: Path) -> Raster:
    """Read a raster of unwrapped phase.

    Returns
    -------
    Raster
        float32, rad; exactly 0 is no data. Values are bit for bit as stored, except where a note says
        otherwise.

    Raises
    ------
    CorruptRaster
        If the file is damaged, is not an unwrapped phase in EPSG:4326, or holds no data.
    HephaestusError
        If GDAL on this machine cannot read rasters.
    """
    band = _read_band(path, ("float32",), _PHASE_UNITS)
    values, notes = band.values, band.notes
    if band.masked is not None:
        values[band.masked] = 0
    values = _apply_scale(values, band)
    _zero_nonfinite(values, notes)
    low, high = _min_max(values)
    if low == high == 0:
        raise CorruptRaster("the raster of unwrapped phase holds no data: every pixel is 0")
    if max(-low, high) > _MAX_RADIANS:
        raise CorruptRaster(f"values from {low:.7g} to {high:.7g} are not unwrapped phase in radians")
    return Raster(values, band.grid, tuple(notes))


def read_look_component(path: Path) -> Raster:
    """Read a raster of one component of the unit vector from the ground to the satellite.

    Returns
    -------
    Raster
        float32, -1 to 1; NaN is no data, which LiCSAR stores as 0.

    Raises
    ------
    CorruptRaster
        If the file is damaged, is not such a component in EPSG:4326, or holds no data.
    HephaestusError
        If GDAL on this machine cannot read rasters.
    """
    return _read_with_holes(path, _COMPONENT_UNITS, 1 + _ROUNDING_TOLERANCE, "components of a unit vector")


def read_delay(path: Path) -> Raster:
    """Read a raster of slant tropospheric delay.

    Returns
    -------
    Raster
        float32, rad of two-way phase; NaN is no data, and so is exactly 0, which no delay is.

    Raises
    ------
    CorruptRaster
        If the file is damaged, is not a delay in EPSG:4326, or holds no data.
    HephaestusError
        If GDAL on this machine cannot read rasters.
    """
    return _read_with_holes(path, _PHASE_UNITS, _MAX_RADIANS, "delays in radians")


def _read_with_holes(path: Path, units: tuple[str, ...], limit: float, what: str) -> Raster:
    """Read a raster of floats within ``-limit .. limit``, in which 0 and NaN are no data; it becomes NaN."""
    band = _read_band(path, ("float32", "float64"), units)
    notes = band.notes
    values = _apply_scale(band.values, band)
    with np.errstate(invalid="ignore", over="ignore"):
        values = values.astype(np.float32, copy=False)
    holes = ~np.isfinite(values) | (values == 0)
    if band.masked is not None:
        holes |= band.masked
    values[holes] = 0
    low, high = _min_max(values)
    if low == high == 0:
        raise CorruptRaster("the raster holds no data: every pixel is 0 or NaN")
    if max(-low, high) > limit:
        raise CorruptRaster(f"values from {low:.7g} to {high:.7g} are not {what}")
    values[holes] = np.nan
    return Raster(values, band.grid, tuple(notes))


def _read_band(
    path: Path, dtypes: tuple[str, ...], units: tuple[str, ...], *, zero: bool = True
) -> _StoredBand:
    """Return the only band of a raster, north-up.

    1. Parse the TIFF directories and check layout, tags and georeference, before pixels take any memory.
    2. Decode the pixels, and those of the mask if there is one.
    3. Combine the mask with the no-data tag.
    4. Flip a south-up raster.

    Parameters
    ----------
    path : Path
        File of the raster.
    dtypes, units : tuple of str
        Allowed data types and units.
    zero : bool
        Whether 0 means no data, as in phase and coherence. Then a no-data tag of 0 changes nothing, and
        blocks that are not stored, which read as 0, are allowed. In heights 0 is a value.
    """
    check_gdal()
    try:
        image, mask = _select_images(_read_file(path))
        layout, tags, keys = (
            read_band_layout(image, dtypes),
            read_band_tags(image, units),
            read_geokeys(image),
        )
        transform = read_geotransform(image, keys)
        check_wgs84(keys)
        if not zero:
            check_vertical_units(keys)
        masked = read_band_layout(mask, ("bool", "uint8")) if mask else None
        if masked and (masked.width, masked.height) != (layout.width, layout.height):
            raise ValueError("its mask has another size")
        notes: list[str] = []
        if layout.missing_blocks:
            if not zero:
                raise ValueError(
                    f"{layout.missing_blocks} of its {layout.byte_counts.size} blocks are not stored"
                )
            notes.append(
                f"{layout.missing_blocks} of {layout.byte_counts.size} blocks are not stored: no data there"
            )
        with (
            _large_raster_lock
            if layout.width * layout.height * layout.bits > 8 * _LARGE_BYTES
            else nullcontext()
        ):
            values = _decode_pixels(image, layout)
            hidden = None if masked is None else _decode_pixels(mask, masked) == 0
    except ValueError as error:
        raise CorruptRaster(str(error)) from error
    except MemoryError as error:
        raise HephaestusError(
            f"there is not enough memory to read {path.name}; lower HEPHAESTUS_WORKERS, or free some memory"
        ) from error
    if hidden is not None and hidden.any():
        notes.append(f"{_count_pixels(hidden)} hidden by the raster's mask set to no data")
    if tags.nodata and (nodata := tags.nodata_mask(values)) is not None:  # a tag of 0 is handled by callers
        notes.append(f"{_count_pixels(nodata)} of the raster's no-data value {tags.nodata:g} set to no data")
        hidden = nodata if hidden is None else hidden | nodata
    if tags.is_scaled:
        notes.append(f"values were scaled by {tags.scale:g} and offset by {tags.offset:g}, as the tags say")
    if transform.e > 0:
        values = np.ascontiguousarray(values[::-1])
        hidden = None if hidden is None else hidden[::-1]
        north = transform.f + values.shape[0] * transform.e
        transform = Affine(transform.a, transform.b, transform.c, transform.d, -transform.e, north)
        notes.append("the raster was south-up and was flipped")
    return _StoredBand(values, _make_grid(transform, values.shape), hidden, tags, zero, notes)


def _read_file(path: Path) -> bytes:
    """Return the content of the file; ValueError if it is missing or too large for a raster."""
    try:
        with path.open("rb") as stream:
            size = os.fstat(stream.fileno()).st_size
            if size > MAX_BYTES:
                raise ValueError(f"the file has {size} bytes, more than any LiCSAR raster")
            return stream.read(MAX_BYTES)
    except FileNotFoundError as error:
        raise ValueError(f"the file cannot be read: {error.strerror}") from error
    except OSError as error:  # a local fault, so the file does not count as corrupt
        raise HephaestusError(
            f"{path} cannot be read: {error.strerror or error}; check the disk and the file's permissions, "
            "then run the same command again"
        ) from error


def _select_images(content: bytes) -> tuple[TiffDirectory, TiffDirectory | None]:
    """Return the directories of a file's image and of its mask, if any; overviews are skipped."""
    first, *others = read_tiff_directories(content)
    if first.subfile_type not in (0, 2):
        raise ValueError("its first image is an overview or a mask")
    others = [directory for directory in others if not directory.subfile_type & 1]
    masks = [directory for directory in others if directory.subfile_type & 4]
    if len(masks) < len(others) or len(masks) > 1:
        raise ValueError(f"the file holds {1 + len(others)} images where one was expected")
    return first, masks[0] if masks else None


def _decode_pixels(directory: TiffDirectory | None, layout: BandLayout) -> np.ndarray:
    """Decode the pixels of an image with GDAL.

    Raises
    ------
    ValueError
        If a block cannot be decoded.
    MemoryError
        If there is not enough memory.
    """
    assert directory is not None
    try:
        packed = rebuild_minimal_tiff(directory, layout)
        with (
            isolated_gdal_env(),
            MemoryFile(packed, filename="raster.tif") as memory,
            memory.open(driver="GTiff") as dataset,
        ):
            values: np.ndarray = dataset.read(1)
    except RasterioError as error:
        if isinstance(error.__cause__, CPLE_OutOfMemoryError):
            raise MemoryError from error
        check_gdal(repeat=True)
        raise ValueError(f"the file cannot be read whole: {error.__cause__ or error}") from error
    return values


def _make_grid(transform: Affine, shape: tuple[int, ...]) -> Grid:
    """Return the grid of a raster; CorruptRaster if its bounds are not on Earth."""
    try:
        grid = Grid.from_transform(transform, (shape[0], shape[1]))
    except ValueError as error:
        raise CorruptRaster(str(error)) from error
    west, south, east, north = grid.bounds
    # of pixel centres, since edges may lie half a pixel beyond a pole; longitudes may be of any turn
    inside = grid.latitudes[-1] >= -90 and grid.latitudes[0] <= 90
    if not (inside and west >= -540 and east <= 720 and east - west <= 360):
        raise CorruptRaster(f"the raster's bounds {west:g}, {south:g}, {east:g}, {north:g} are not on Earth")
    return grid


def _apply_scale(values: np.ndarray, band: _StoredBand) -> np.ndarray:
    """Apply scale and offset to stored values.

    Raises
    ------
    CorruptRaster
        If 0 means no data and there is an offset, which would change it.
    """
    tags = band.tags
    if not tags.is_scaled:
        return values
    if band.zero_is_nodata and tags.offset:
        raise CorruptRaster(f"its tags add {tags.offset:g} to values where 0 means no data")
    # in float64, a few rows at a time to save memory
    scaled = np.empty(values.shape, np.float32)
    with np.errstate(invalid="ignore", over="ignore"):
        for row in range(0, values.shape[0], _ROWS_PER_BLOCK):
            scaled[row : row + _ROWS_PER_BLOCK] = (
                values[row : row + _ROWS_PER_BLOCK] * np.float64(tags.scale) + tags.offset
            )
    return scaled


def _count_pixels(where: np.ndarray) -> str:
    """Return the number of true pixels in words, such as ``2 pixels``."""
    count = np.count_nonzero(where)
    return f"{count} pixel{'' if count == 1 else 's'}"


def _zero_nonfinite(values: np.ndarray, notes: list[str]) -> None:
    """Set NaN and infinities to 0, in place, and append a note if there were any."""
    if not np.isfinite(_min_max(values)).all():
        wrong = ~np.isfinite(values)
        values[wrong] = 0
        notes.append(f"{_count_pixels(wrong)} without a finite value set to no data")


def _min_max(values: np.ndarray) -> tuple[float, float]:
    """Return minimum and maximum of `values` and 0; NaN if any value is NaN.

    Works on a few rows at a time, which are still in the processor's cache for the second pass. This takes
    half the time of ``values.min(), values.max()``.
    """
    low = high = values.dtype.type(0)
    with np.errstate(invalid="ignore"):  # some bit patterns of NaN warn
        for row in range(0, values.shape[0], _ROWS_PER_BLOCK):
            rows = values[row : row + _ROWS_PER_BLOCK]
            low, high = np.minimum(low, rows.min()), np.maximum(high, rows.max())
    return float(low), float(high)
