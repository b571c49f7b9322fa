"""Faulty GeoTIFFs made from good ones: shifted, cropped, blank, or with another type or CRS.

Use them with :func:`hephaestus_build.simulation.server.faults.replace_body`::

    server.faults.add(r"20190305_20190317.geo.cc.tif", replace_body(shift_raster(0.5, 0.5)))
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
from affine import Affine
from rasterio.io import MemoryFile

from hephaestus_build.core.gdal import isolated_gdal_env, wgs84_crs
from hephaestus_build.simulation.world.geotiff_writer import SIMULATED_TAGS

#: Function from the bytes of a good file to those of a faulty one.
RasterChange = Callable[[bytes], bytes]


def shift_raster(columns: float, rows: float) -> RasterChange:
    """Return a change that moves the raster east and south by `columns` and `rows` (fractional) pixels."""
    return lambda content: _rewrite_raster(
        content, lambda values, profile: _move_raster(values, profile, Affine.translation(columns, rows))
    )


def crop_raster(west: int, east: int, north: int, south: int) -> RasterChange:
    """Return a change that cuts off pixels at the four edges.

    Parameters
    ----------
    west, east, north, south : int
        Number of pixels to cut off at each edge.
    """

    def cut(values: np.ndarray, profile: dict[str, Any]) -> np.ndarray:
        kept = values[north : values.shape[0] - south, west : values.shape[1] - east]
        return _move_raster(kept, profile, Affine.translation(west, north))

    return lambda content: _rewrite_raster(content, cut)


def coarsen_raster(factor: int) -> RasterChange:
    """Return a change that keeps every `factor`-th pixel, which multiplies the pixel size by `factor`."""
    return lambda content: _rewrite_raster(
        content,
        lambda values, profile: _move_raster(values[::factor, ::factor], profile, Affine.scale(factor)),
    )


def blank_raster() -> RasterChange:
    """Return a change that sets every value to 0, which means no data."""
    return lambda content: _rewrite_raster(content, lambda values, _: np.zeros_like(values))


def fill_raster(value: float) -> RasterChange:
    """Return a change that sets every value to `value`, such as NaN or a number outside [-pi, pi]."""
    return lambda content: _rewrite_raster(content, lambda values, _: np.full_like(values, value))


def cast_raster(dtype: str) -> RasterChange:
    """Return a change that stores the values as `dtype`."""

    def changed(values: np.ndarray, profile: dict[str, Any]) -> np.ndarray:
        profile.update(dtype=dtype, predictor=3 if np.dtype(dtype).kind == "f" else 2)
        return values.astype(dtype)

    return lambda content: _rewrite_raster(content, changed)


def claim_crs(crs: str = "EPSG:32626") -> RasterChange:
    """Return a change that states another coordinate reference system without reprojecting."""

    def changed(values: np.ndarray, profile: dict[str, Any]) -> np.ndarray:
        profile.update(crs=crs)
        return values

    return lambda content: _rewrite_raster(content, changed)


@cache
def oversized_raster(side: int = 200_000) -> bytes:
    """Return a small file that claims `side` x `side` pixels of four bytes, 160 GB by default."""
    with isolated_gdal_env(), MemoryFile() as memory:
        with memory.open(
            driver="GTiff", width=side, height=side, count=1, dtype="float32", crs=wgs84_crs(),
            transform=Affine(0.001, 0, 10, 0, -0.001, 60), compress="deflate", tiled=True,
            blockxsize=16_384, blockysize=16_384, sparse_ok=True, bigtiff="no",
        ) as raster:  # fmt: skip
            raster.update_tags(**SIMULATED_TAGS)
        return bytes(memory.read())


def _move_raster(values: np.ndarray, profile: dict[str, Any], move: Affine) -> np.ndarray:
    profile.update(transform=profile["transform"] * move)
    return values


def _rewrite_raster(content: bytes, change: Callable[[np.ndarray, dict[str, Any]], np.ndarray]) -> bytes:
    """Return the file rewritten with the values and profile that `change` produces."""
    with isolated_gdal_env(), MemoryFile(content) as memory, memory.open() as raster:
        values, profile, tags = raster.read(1), dict(raster.profile), raster.tags()
    profile["crs"] = wgs84_crs()  # the CRS read above depends on the local PROJ database
    profile["predictor"] = 3 if values.dtype.kind == "f" else 2
    values = change(values, profile)
    profile.update(height=values.shape[0], width=values.shape[1])
    profile.pop("blockxsize", None)
    profile["blockysize"] = 1
    with isolated_gdal_env(), MemoryFile() as memory:
        with memory.open(**profile) as raster:
            raster.update_tags(**tags)
            raster.write(values, 1)
        return bytes(memory.read())
