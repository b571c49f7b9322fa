"""GDAL as rasterio brings it, whatever the environment says for another installation.

Variables such as GDAL_SKIP or GDAL_DRIVER_PATH, set for QGIS, ISCE or a conda environment, would change what
this GDAL can read; options such as GTIFF_POINT_GEO_IGNORE would change what a raster means. So every use of
GDAL here is within :func:`isolated_gdal_env`, where what matters has its default. PROJ's database, which
PROJ_LIB and PROJ_DATA may put in another version's place, is never asked: the only coordinate system is
spelt out. The environment itself stays as it is, for other libraries and for child processes.
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

# Without a handler of its own Python would print GDAL's messages on standard error; they are in the reasons
# given here. A program that configures logging still gets them.
logging.getLogger("rasterio").addHandler(logging.NullHandler())

_FAMILIES = ("GDAL_", "GTIFF_", "TIFF_", "CPL_", "VSI_", "OGR_", "OSR_", "PROJ_", "COG_", "ESRI_", "JPEG_")

# Options that change how pixels are read or files are written, each with its default. That these are all is
# tried with the name of every option in the library (tests/integration/core/test_gdal.py).
_OPTIONS = {
    "CPL_TMPDIR": "/vsimem",  # overviews of a COG are made there
    "GDAL_DEFAULT_CREATE_COPY": "NO",
    "GDAL_DISABLE_READDIR_ON_OPEN": "EMPTY_DIR",  # no look at the files beside it
    "GDAL_GEOREF_SOURCES": "INTERNAL",
    "GDAL_NUM_THREADS": "1",  # several files are read at once
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
    """Use GDAL with its defaults, whatever the environment says; for this thread."""
    with rasterio.Env(session=DummySession(), **_OPTIONS):
        yield


@cache
def wgs84_crs() -> CRS:
    """Return the coordinate system of all rasters."""
    with isolated_gdal_env():
        return CRS.from_wkt(WGS84_WKT)


_gdal_checked = threading.Event()


def check_gdal(*, again: bool = False) -> None:
    """Check that GDAL can write and read a raster here: what else fails is the fault of a file.

    Parameters
    ----------
    again : bool
        Check although an earlier check went well.

    Raises
    ------
    HephaestusError
        If it cannot; the message names the variables that may be the reason.
    """
    if _gdal_checked.is_set() and not again:
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
            raise ValueError("it returns other pixels than were written")
    except (RasterioError, ValueError, TypeError, OSError) as error:
        raise HephaestusError(
            f"GDAL, which unpacks the rasters, does not work here ({error.__cause__ or error}); {_advice()}, "
            "then run the same command again"
        ) from error
    _gdal_checked.set()


def _advice() -> str:
    """Say what may be the reason where GDAL does not work."""
    names = sorted(
        name for name in os.environ if name.startswith(_FAMILIES) and not name.endswith("_CURL_CA_BUNDLE")
    )  # rasterio sets the latter itself
    if not names:
        return "install rasterio again"
    return f"unset {', '.join(names)}, which may be meant for another installation of GDAL"


def _initialize_gdal() -> None:
    """Let GDAL start with its own drivers and defaults.

    Some variables, and a file of options, are heeded only then: GDAL_SKIP, GDAL_DRIVER_PATH, GDAL_CACHEMAX,
    GDAL_CONFIG_FILE. They are set aside for this moment.
    """
    aside = {name: os.environ.pop(name) for name in list(os.environ) if name.startswith(_FAMILIES)}
    try:
        os.environ["GDAL_CONFIG_FILE"] = os.devnull  # or one in the home folder would be read
        with suppress(HephaestusError):  # told when GDAL is used
            check_gdal()
    finally:
        del os.environ["GDAL_CONFIG_FILE"]
        os.environ.update(aside)


_initialize_gdal()
