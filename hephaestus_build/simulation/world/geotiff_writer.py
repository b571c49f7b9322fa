"""Writer of GeoTIFFs in the style of LiCSAR, tagged as simulated."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy.typing as npt
import rasterio
from rasterio.crs import CRS

from hephaestus_build.core.gdal import isolated_gdal_env, wgs84_crs
from hephaestus_build.core.grid import Grid

#: Tag of every simulated product; text files carry it as a line.
SIMULATED_TAGS = {"HEPHAESTUS_SIMULATED": "true"}
SOFTWARE = "hephaestus-build simulated archive"


def write_raster(
    path: Path,
    values: npt.NDArray[Any],
    grid: Grid,
    *,
    point: bool = False,
    nodata: float | None = None,
    tiled: bool = False,
    strip: int = 1,
    crs: str = "EPSG:4326",
) -> None:
    """Write one band as LiCSAR does: classic GeoTIFF, compressed strips, no overviews.

    Parameters
    ----------
    path : Path
        File to write.
    values : numpy.ndarray
        (rows, columns); floats get predictor 3, integers predictor 2.
    grid : Grid
        Grid of `values`. `point` does not change the position on the ground.
    point : bool
        Tag the raster as PixelIsPoint, as GAMMA does, instead of PixelIsArea.
    nodata : float, optional
        Value of the nodata tag; no tag by default.
    tiled : bool
        Write tiles of 256 x 256 pixels instead of strips.
    strip : int
        Rows per strip.
    crs : str
        Coordinate reference system. LiCSAR uses EPSG:4326; any other simulates a fault.
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
            compress="deflate",
            predictor=3 if values.dtype.kind == "f" else 2,
            bigtiff="no",
            **layout,
        ) as raster,
    ):
        raster.update_tags(
            AREA_OR_POINT="Point" if point else "Area",
            TIFFTAG_SOFTWARE=SOFTWARE,
            **SIMULATED_TAGS,
        )
        raster.write(values, 1)


def crop_edges(
    values: npt.NDArray[Any], grid: Grid, edges: tuple[int, int, int, int]
) -> tuple[npt.NDArray[Any], Grid]:
    """Return `values` and `grid` without some edge pixels.

    Parameters
    ----------
    values : numpy.ndarray
        (rows, columns).
    grid : Grid
        Grid of `values`.
    edges : tuple of int
        Columns to cut off in the west and east, rows in the north and south.
    """
    west, east, north, south = edges
    cut = values[north : grid.height - south, west : grid.width - east]
    return cut, Grid(
        cut.shape[1], cut.shape[0], grid.west + west * grid.dx, grid.north - north * grid.dy, grid.dx, grid.dy
    )


def shift_grid(grid: Grid, offset: tuple[float, float]) -> Grid:
    """Return `grid` moved east and south by `offset`, in pixels (may be fractional)."""
    east, south = offset
    return Grid(
        grid.width, grid.height, grid.west + east * grid.dx, grid.north - south * grid.dy, grid.dx, grid.dy
    )
