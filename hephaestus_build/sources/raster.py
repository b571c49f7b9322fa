"""Read LiCSAR's GeoTIFFs whole, and believe nothing about them that was not checked."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import BinaryIO

import numpy as np
import rasterio
from affine import Affine
from rasterio.errors import RasterioError

from hephaestus_build.grid import Grid

# Without a handler of its own Python would print GDAL's complaints on standard error; they are in the
# reasons given here. Whoever configures logging still gets them.
logging.getLogger("rasterio").addHandler(logging.NullHandler())

#: Limits beyond which a raster is refused before any memory is taken for it; the largest real frame has
#: 7,000 x 3,800 pixels.
MAX_SIDE, MAX_PIXELS = 20_000, 200_000_000
# No codec of TIFF packs more than about 1,400 bytes into one: a smaller file cannot hold its raster.
_MAX_RATIO = 2_000
# Rows whose range is taken at once: small enough to stay in the cache of a core.
_ROWS = 32
_PI = float(np.nextafter(np.float32(np.pi), np.float32(4)))


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
    """
    raster = _read(path, ("float32", "uint8"))
    values, notes = raster.values, list(raster.notes)
    if values.dtype == np.uint8:
        # LiCSAR has a tool that packs phase like this; none was seen in the archive so far
        table = np.linspace(-np.pi, np.pi, 255, dtype=np.float32)
        values = np.concatenate((np.zeros(1, np.float32), table))[values]
        notes.append("phase was stored as bytes 1 to 255 and rescaled to -pi to pi")
    low, high = _range(values)
    if not (np.isfinite(low) and np.isfinite(high)):
        wrong = ~np.isfinite(values)
        values[wrong] = 0
        notes.append(f"{np.count_nonzero(wrong)} pixels without a finite value set to no data")
        low, high = _range(values)
    if low == high == 0:
        raise CorruptRaster("the phase raster holds no data: every pixel is 0")
    if low < -_PI or high > _PI:
        raise CorruptRaster(f"values from {low:.4g} to {high:.4g} are no wrapped phase in radians")
    return Raster(values, raster.grid, tuple(notes))


def read_coherence(path: Path) -> Raster:
    """Return the coherence in `path`.

    Returns
    -------
    Raster
        uint8, coherence times 255; 0 is no data.

    Raises
    ------
    CorruptRaster
        If the file cannot be read whole, or is no coherence raster in EPSG:4326, or holds no data.
    """
    raster = _read(path, ("uint8", "float32"))
    values, notes = raster.values, raster.notes
    if values.dtype == np.float32:  # products made before October 2019 are fractions
        values = np.nan_to_num(values, copy=False, nan=0.0)
        low, high = _range(values)
        if low < 0 or high > 1:
            raise CorruptRaster(f"values from {low:.4g} to {high:.4g} are no coherence")
        values = np.rint(values * np.float32(255)).astype(np.uint8)
        notes = (*notes, "coherence was stored as fractions and rescaled to 0 to 255")
    if not values.max():
        raise CorruptRaster("the coherence raster holds no data: every pixel is 0")
    return Raster(values, raster.grid, notes)


def read_height(path: Path) -> Raster:
    """Return the heights in `path`.

    Returns
    -------
    Raster
        float32, metres; NaN is no data. The file's no-data tag is not asked: it may say 0, which is a
        height on every coast.

    Raises
    ------
    CorruptRaster
        If the file cannot be read whole, or holds no heights on this Earth in EPSG:4326.
    """
    raster = _read(path, ("float32", "int16", "float64", "int32"))
    values, notes = raster.values, list(raster.notes)
    if values.dtype != np.float32:
        notes.append(f"heights were stored as {values.dtype}")
        values = values.astype(np.float32)
    # -32768 and -9999 are holes whatever the tags say; so is anything that no land or sea floor reaches
    with np.errstate(invalid="ignore"):
        holes = ~((values > -11_000) & (values < 9_000)) | (values == -9_999)
        ground = np.count_nonzero(values[~holes])
    count = int(np.count_nonzero(holes))
    if not ground:
        raise CorruptRaster("the height raster holds no data: every pixel is 0 or a hole")
    if count:
        values[holes] = np.nan
        notes.append(f"{count} pixels without a height")
    return Raster(values, raster.grid, tuple(notes))


def _read(path: Path, dtypes: tuple[str, ...]) -> Raster:
    """Return the only band of `path`, north-up, after every check that costs no memory."""
    try:
        with path.open("rb") as stream:
            if not _is_georeferenced(stream):
                raise CorruptRaster("the raster has no georeference")
    except OSError as error:
        raise CorruptRaster(f"the file cannot be read: {error.strerror}") from error
    try:
        # one thread per file (several files are read at once), and no look at the files beside it
        with (
            rasterio.Env(GDAL_DISABLE_READDIR_ON_OPEN="EMPTY_DIR", GDAL_PAM_ENABLED="NO"),
            rasterio.open(path, driver="GTiff", num_threads="1") as dataset,
        ):
            _check(dataset, path, dtypes)
            values = dataset.read(1)
            transform = dataset.transform
    except CorruptRaster:
        raise
    except (RasterioError, ValueError) as error:  # also text in tags that is no text
        cause = error.__cause__ or error
        raise CorruptRaster(f"the file cannot be read whole: {cause}") from error
    notes: tuple[str, ...] = ()
    if transform.e > 0:
        values = np.ascontiguousarray(values[::-1])
        north = transform.f + values.shape[0] * transform.e
        transform = Affine(transform.a, transform.b, transform.c, transform.d, -transform.e, north)
        notes = ("the raster was south-up and was flipped",)
    try:
        grid = Grid.from_transform(transform, values.shape)
    except ValueError as error:
        raise CorruptRaster(str(error)) from error
    west, south, east, north = grid.bounds
    if not (-180.5 <= west < east <= 360.5 and -90.5 <= south < north <= 90.5):
        raise CorruptRaster(f"the raster lies at {west:g}, {south:g}, {east:g}, {north:g}: not on this Earth")
    return Raster(values, grid, notes)


def _check(dataset: rasterio.DatasetReader, path: Path, dtypes: tuple[str, ...]) -> None:
    """Refuse a raster by its header alone."""
    width, height = dataset.width, dataset.height
    block = dataset.block_shapes[0]
    if max(width, height) > MAX_SIDE or max(width * height, block[0] * block[1]) > MAX_PIXELS:
        raise CorruptRaster(
            f"the header claims {width} x {height} pixels in blocks of {block[1]} x {block[0]}: no LiCSAR "
            "frame is that large"
        )
    if dataset.count != 1:
        raise CorruptRaster(f"the raster has {dataset.count} bands where one was expected")
    dtype = dataset.dtypes[0]
    if dtype not in dtypes:
        raise CorruptRaster(f"values of type {dtype} where {' or '.join(dtypes)} were expected")
    if width * height * np.dtype(dtype).itemsize > _MAX_RATIO * path.stat().st_size:
        raise CorruptRaster(
            f"the header claims {width} x {height} pixels: too many for {path.stat().st_size} bytes"
        )
    crs = dataset.crs
    if crs is None or not _is_wgs84(crs.to_wkt()):
        raise CorruptRaster(f"the coordinate system is {_crs_name(crs)} where EPSG:4326 was expected")


@lru_cache(maxsize=16)
def _is_wgs84(wkt: str) -> bool:
    return rasterio.crs.CRS.from_wkt(wkt).to_epsg(confidence_threshold=70) == 4326


def _crs_name(crs: rasterio.crs.CRS | None) -> str:
    return "missing" if crs is None else crs.to_string()[:60]


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


# TIFF tags that carry a georeference, and how many doubles each has: a pixel size with one tie point (more
# of them are ground control points, which are no grid), or a whole transformation.
_SCALE, _TIE_POINT, _TRANSFORMATION = 33550, 33922, 34264
_DOUBLES = {_SCALE: (2, 3), _TIE_POINT: (6,), _TRANSFORMATION: (16,)}
_DOUBLE = 12


def _is_georeferenced(stream: BinaryIO) -> bool:
    """Whether the first image of a TIFF is placed on the Earth by its tags.

    GDAL says this by a warning alone, and Python's warnings cannot be caught in one thread without
    disturbing the others; so the tags are looked up here.
    """
    header = stream.read(16)
    order = {b"II": "<", b"MM": ">"}.get(header[:2])
    version = int.from_bytes(header[2:4], "big" if order == ">" else "little")
    if order is None or len(header) < 16 or version not in (42, 43):
        raise CorruptRaster("the file is no TIFF")
    word, head, wide = ("u4", "u2", 4) if version == 42 else ("u8", "u8", 8)  # 43 is BigTIFF
    entry = np.dtype(
        [("tag", order + "u2"), ("type", order + "u2"), ("count", order + word), ("at", order + word)]
    )

    def read(dtype: np.dtype, at: int, count: int) -> np.ndarray:
        stream.seek(min(at, 1 << 62))
        raw = stream.read(dtype.itemsize * count)
        return np.frombuffer(raw[: len(raw) // dtype.itemsize * dtype.itemsize], dtype)

    start = int(np.frombuffer(header, order + word, 1, wide)[0])
    counted = read(np.dtype(order + head), start, 1)
    if not counted.size:
        raise CorruptRaster("the file is cut: its directory is missing")
    table = read(entry, start + counted.itemsize, min(int(counted[0]), 4096))
    found: dict[int, np.ndarray] = {}
    for tag, kind, count, at in table[np.isin(table["tag"], list(_DOUBLES))].tolist():
        if kind == _DOUBLE and count in _DOUBLES[tag]:
            values = read(np.dtype(order + "f8"), at, count)
            if values.size == count and np.isfinite(values).all():
                found[tag] = values
    if _SCALE in found and _TIE_POINT in found and found[_SCALE][:2].all():
        return True
    return _TRANSFORMATION in found
