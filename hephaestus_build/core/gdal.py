"""Isolation of rasterio's bundled GDAL from environment variables meant for other GDAL installations.

Variables such as GDAL_SKIP or GDAL_DRIVER_PATH, set for QGIS, ISCE or a conda environment, change which
formats GDAL can read; options such as GTIFF_POINT_GEO_IGNORE change how a raster is interpreted. This package
therefore uses GDAL only within :func:`isolated_gdal_env`, which sets the relevant options to their defaults.
PROJ's database, which PROJ_LIB and PROJ_DATA may replace by another version's, is not used: the only
coordinate system is given as WKT. The environment itself is left as it is for other libraries and child
processes.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache

import numpy as np
import rasterio
from affine import Affine
from rasterio.crs import CRS
from rasterio.errors import RasterioError
from rasterio.io import MemoryFile
from rasterio.session import DummySession

from hephaestus_build.core.crs import WGS84_WKT
from hephaestus_build.core.errors import HephaestusError

# Without a handler, Python prints GDAL's messages to standard error; they are already part of the exceptions
# raised. Programs that configure logging still receive them.
logging.getLogger("rasterio").addHandler(logging.NullHandler())

_FAMILIES = ("GDAL_", "GTIFF_", "TIFF_", "CPL_", "VSI_", "OGR_", "OSR_", "PROJ_", "COG_", "ESRI_", "JPEG_")

# Options that change how pixels are read or files are written, each with its default. The list is complete:
# tests/integration/core/test_gdal.py tries the name of every option in the library.
_OPTIONS = {
    "CPL_TMPDIR": "/vsimem",  # location of a COG's temporary overviews
    "GDAL_DEFAULT_CREATE_COPY": "NO",
    "GDAL_DISABLE_READDIR_ON_OPEN": "EMPTY_DIR",  # ignore sidecar files
    "GDAL_GEOREF_SOURCES": "INTERNAL",
    "GDAL_NUM_THREADS": "1",  # files are read in parallel already
    "GDAL_OVR_PROPAGATE_NODATA": "NO",
    "GDAL_PAM_ENABLED": "NO",
    "GDAL_TIFF_OVR_BLOCKSIZE": "512",
    "GTIFF_DONT_WRITE_BLOCKS": "NO",
    "GTIFF_IGNORE_READ_ERRORS": "NO",
    "GTIFF_POINT_GEO_IGNORE": "NO",
    "OSR_DEFAULT_AXIS_MAPPING_STRATEGY": "AUTHORITY_COMPLIANT",
    "OSR_WKT_FORMAT": "DEFAULT",
    "TIFF_READ_STREAMING": "NO",
}


@contextmanager
def isolated_gdal_env() -> Iterator[None]:
    """Use GDAL's default options in this thread, regardless of environment variables."""
    with rasterio.Env(session=DummySession(), **_OPTIONS):
        yield


@cache
def wgs84_crs() -> CRS:
    """Return the coordinate system of all rasters."""
    with isolated_gdal_env():
        return CRS.from_wkt(WGS84_WKT)


_gdal_checked = threading.Event()


def check_gdal(*, repeat: bool = False) -> None:
    """Check that GDAL can write and read a raster, so that later errors can be attributed to files.

    Parameters
    ----------
    repeat : bool
        Repeat the check even if an earlier one succeeded.

    Raises
    ------
    HephaestusError
        If GDAL does not work; the message names environment variables that may be the cause.
    """
    if _gdal_checked.is_set() and not repeat:
        return
    pixels = np.arange(6, dtype=np.float32).reshape(2, 3)
    try:
        with isolated_gdal_env(), MemoryFile(ext=".tif") as memory:
            profile = {"width": 3, "height": 2, "count": 1, "dtype": "float32", "compress": "deflate"}
            with memory.open(driver="GTiff", transform=Affine(1, 0, 1, 0, -1, 1), **profile) as dataset:
                dataset.write(pixels, 1)
            with memory.open(driver="GTiff") as dataset:
                read = dataset.read(1)
        if not np.array_equal(read, pixels):
            raise ValueError("the pixels read differ from those written")
    except (RasterioError, ValueError, TypeError, OSError) as error:
        raise HephaestusError(
            f"GDAL, which unpacks the rasters, does not work here ({error.__cause__ or error}); {_advice()}, "
            "then run the same command again"
        ) from error
    _gdal_checked.set()


def _advice() -> str:
    """Return advice for the case that GDAL does not work."""
    names = sorted(
        name for name in os.environ if name.startswith(_FAMILIES) and not name.endswith("_CURL_CA_BUNDLE")
    )  # GDAL_CURL_CA_BUNDLE and the like are set by rasterio itself
    if not names:
        return "install rasterio again"
    return f"unset {', '.join(names)}, which may belong to another installation of GDAL"


def _initialize_gdal() -> None:
    """Initialize GDAL with its own drivers and defaults.

    GDAL_SKIP, GDAL_DRIVER_PATH, GDAL_CACHEMAX and GDAL_CONFIG_FILE are read only at initialization. They are
    removed from the environment meanwhile.
    """
    aside = {name: os.environ.pop(name) for name in list(os.environ) if name.startswith(_FAMILIES)}
    try:
        os.environ["GDAL_CONFIG_FILE"] = os.devnull  # otherwise GDAL reads the one in the home folder
        with suppress(HephaestusError):  # reported when GDAL is used
            check_gdal()
    finally:
        del os.environ["GDAL_CONFIG_FILE"]
        os.environ.update(aside)


_initialize_gdal()
