"""Attributes of a cube's arrays: those of the schema, and those that follow from the frame."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hephaestus_build.core.era5_grid import era5_area_around
from hephaestus_build.core.grid import Grid
from hephaestus_build.cube.geozarr import era5_cells, geozarr_attributes
from hephaestus_build.cube.schema import Coordinate, Variable

#: Attribute of the root group and of the array ``dem``: where the heights come from, as the archive says.
DEM_SOURCE = "dem_source"
_FRAME_DIMS, _ERA5_DIMS = ("latitude", "longitude"), ("era5_latitude", "era5_longitude")


def array_attributes(item: Variable | Coordinate, grid: Grid, group: Mapping[str, Any]) -> dict[str, Any]:
    """Return the attributes that an array has in the store.

    Parameters
    ----------
    item : Variable or Coordinate
        Entry of the schema.
    grid : Grid
        The frame's grid.
    group : mapping
        Attributes of the root group.
    """
    attributes = dict(item.attributes)
    if isinstance(item, Variable) and item.is_georeferenced:
        attributes["grid_mapping"] = "spatial_ref"
    if item.name == "dem" and group.get(DEM_SOURCE):
        attributes[DEM_SOURCE] = group[DEM_SOURCE]
    if item.dims[-2:] == _FRAME_DIMS:
        attributes |= geozarr_attributes(grid, _FRAME_DIMS)
    elif item.dims[-2:] == _ERA5_DIMS:
        attributes |= geozarr_attributes(era5_cells(era5_area_around(grid)), _ERA5_DIMS)
    return attributes
