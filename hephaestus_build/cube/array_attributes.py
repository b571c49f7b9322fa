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


def array_attributes(item: Variable | Coordinate, group: Mapping[str, Any]) -> dict[str, Any]:
    """Return the attributes of an array without those of GeoZarr.

    Parameters
    ----------
    item : Variable or Coordinate
        Entry of the schema.
    group : mapping
        Attributes of the root group.
    """
    attributes = dict(item.attributes)
    if isinstance(item, Variable) and item.is_georeferenced:
        attributes["grid_mapping"] = "spatial_ref"
    if item.name == "dem" and group.get(DEM_SOURCE):
        attributes[DEM_SOURCE] = group[DEM_SOURCE]
    return attributes


def raster_attributes(item: Variable | Coordinate, grid: Grid) -> dict[str, Any]:
    """Return GeoZarr's attributes of an array; none if it does not consist of rasters.

    Parameters
    ----------
    item : Variable or Coordinate
        Entry of the schema.
    grid : Grid
        The frame's grid; of arrays of the group ``overview``, theirs.
    """
    match item.dims[-2:]:
        case ("latitude", "longitude"):
            return geozarr_attributes(grid)
        case ("y", "x"):
            return geozarr_attributes(grid, ("y", "x"))
        case ("era5_latitude", "era5_longitude"):
            cells = era5_cells(era5_area_around(grid))
            return geozarr_attributes(cells, ("era5_latitude", "era5_longitude"))
    return {}
