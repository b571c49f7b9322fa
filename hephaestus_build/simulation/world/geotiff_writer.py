"""GeoTIFFs as LiCSAR writes them, each with the mark that it is simulated."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from rasterio.crs import CRS

from hephaestus_build.core.gdal import isolated_gdal_env, wgs84_crs
from hephaestus_build.core.grid import Grid

#: The mark that every simulated product carries, as a tag and as a line of text.
SIMULATED_TAGS = {"HEPHAESTUS_SIMULATED": "true"}
SOFTWARE = "hephaestus-build simulated archive"


def write_raster(
    path: Path,
    values: np.ndarray,
    grid: Grid,
    *,
    point: bool = False,
    nodata: float | None = None,
    tiled: bool = False,
    strip: int = 1,
    compress: str = "deflate",
    crs: str = "EPSG:4326",
    tags: Mapping[str, str] | None = None,
) -> None:
    """Write one band as LiCSAR does: classic GeoTIFF, compressed strips, no overviews.

    Parameters
    ----------
    path : Path
        Where.
    values : numpy.ndarray
        (rows, columns); floats get predictor 3, integers predictor 2.
    grid : Grid
        Its grid; the same place on the ground whichever way `point` is.
    point : bool
        Tag the raster PixelIsPoint, as GAMMA does, in place of PixelIsArea.
    nodata : float, optional
        Nodata tag; none by default.
    tiled : bool
        Tiles of 256 in place of strips.
    strip : int
        Rows in a strip.
    compress : str
        ``deflate`` or ``lzw``.
    crs : str
        Anything but EPSG:4326 is a fault.
    tags : mapping, optional
        Further tags.
    """
    layout: dict[str, Any] = (
        {"tiled": True, "blockxsize": 256, "blockysize": 256}
        if tiled
        else {"tiled": False, "blockysize": strip}
    )
    with (
        isolated_gdal_env(),
        rasterio.open(
            path,
            "w",
            driver="GTiff",
            width=grid.width,
            height=grid.height,
            count=1,
            dtype=values.dtype,
            crs=wgs84_crs() if crs == "EPSG:4326" else CRS.from_string(crs),
            transform=grid.transform,
            nodata=nodata,
            compress=compress,
            predictor=3 if values.dtype.kind == "f" else 2,
            bigtiff="no",
            **layout,
        ) as raster,
    ):
        raster.update_tags(
            AREA_OR_POINT="Point" if point else "Area",
            TIFFTAG_SOFTWARE=SOFTWARE,
            **SIMULATED_TAGS,
            **(tags or {}),
        )
        raster.write(values, 1)


def crop_edges(values: np.ndarray, grid: Grid, edges: tuple[int, int, int, int]) -> tuple[np.ndarray, Grid]:
    """Cut columns off the west and east and rows off the north and south."""
    west, east, north, south = edges
    cut = values[north : grid.height - south, west : grid.width - east]
    return cut, Grid(
        cut.shape[1], cut.shape[0], grid.west + west * grid.dx, grid.north - north * grid.dy, grid.dx, grid.dy
    )


def shift_grid(grid: Grid, offset: tuple[float, float]) -> Grid:
    """Return `grid` moved east and south by parts of a pixel."""
    east, south = offset
    return Grid(
        grid.width, grid.height, grid.west + east * grid.dx, grid.north - south * grid.dy, grid.dx, grid.dy
    )
