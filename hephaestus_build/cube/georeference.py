"""The georeference of a cube, read from its grid mapping variable."""

from __future__ import annotations

import xarray as xr
from affine import Affine

from hephaestus_build.core.grid import Grid
from hephaestus_build.cube.schema import GRID_MAPPING


def read_cube_grid(cube: xr.Dataset) -> Grid:
    """Return the grid that a cube's GeoTransform describes.

    Raises
    ------
    ValueError
        If the transform is invalid, rotated or south-up.
    """
    numbers = [float(part) for part in str(cube[GRID_MAPPING].attrs.get("GeoTransform")).split()]
    if len(numbers) != 6:
        raise ValueError(f"a GeoTransform has six numbers, this one has {len(numbers)}")
    return Grid.from_transform(Affine.from_gdal(*numbers), (cube.sizes["latitude"], cube.sizes["longitude"]))
