"""Attributes of the GeoZarr conventions ``proj:`` and ``spatial:``, written by the library zarr-cm.

They describe the whole grid of a node of the store, and stand beside CF's coordinates and grid mapping.
Readers that select a part of a cube drop them (:func:`drop_geozarr`): they would still describe the whole
grid, and netCDF cannot hold the declarations, which are JSON objects.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any, Final

from zarr_cm import proj, spatial

from hephaestus_build.core.era5_grid import ERA5_STEP, Era5Area
from hephaestus_build.core.grid import Grid

#: Attribute that declares which conventions a node follows: a list of objects, identified by their ``uuid``.
DECLARATIONS = "zarr_conventions"
#: Revision of both conventions (v0.1), so that a newer library writes the same attributes.
_REVISION: Final = "r3"
_KEYS = frozenset({DECLARATIONS, *proj.r3.CONVENTION_KEYS, *spatial.r3.CONVENTION_KEYS})


@lru_cache(maxsize=64)
def _geozarr_attributes(grid: Grid, dims: tuple[str, str]) -> dict[str, Any]:
    described = spatial.create(
        dimensions=list(dims),
        transform=[float(value) for value in tuple(grid.transform)[:6]],
        shape=list(grid.shape),
        bbox=[float(edge) for edge in grid.bounds],
        registration="pixel",
        revision=_REVISION,
    )
    attributes = proj.insert({}, proj.create(code="EPSG:4326", revision=_REVISION), revision=_REVISION)
    return dict(spatial.insert(attributes, described, revision=_REVISION))


def geozarr_attributes(grid: Grid, dims: tuple[str, str] = ("latitude", "longitude")) -> dict[str, Any]:
    """Return the attributes of a node whose rasters lie on `grid`.

    Parameters
    ----------
    grid : Grid
        Grid of the rasters.
    dims : tuple of str
        Names of the dimensions of rows and columns.

    Examples
    --------
    The transform is in rasterio's order, from the outer corner of the first pixel:

    >>> attributes = geozarr_attributes(Grid(2, 1, 10.0, 20.0, 0.5, 0.25))
    >>> attributes["proj:code"], attributes["spatial:transform"]
    ('EPSG:4326', [0.5, 0.0, 10.0, 0.0, -0.25, 20.0])
    """
    return dict(_geozarr_attributes(grid, dims))


def era5_cells(area: Era5Area) -> Grid:
    """Return the grid of cells of which ERA5's grid points in `area` are the centres."""
    height, width = area.shape
    half = ERA5_STEP / 2
    return Grid(width, height, area.west - half, area.north + half, ERA5_STEP, ERA5_STEP)


def drop_geozarr(attributes: Mapping[Any, Any]) -> dict[Any, Any]:
    """Return attributes without those of GeoZarr.

    Examples
    --------
    >>> drop_geozarr({"units": "m", "proj:code": "EPSG:4326", "zarr_conventions": []})
    {'units': 'm'}
    """
    return {name: value for name, value in attributes.items() if name not in _KEYS}


def compare_by_uuid(attributes: Mapping[str, Any]) -> dict[str, Any]:
    """Return attributes with the declared conventions reduced to their identities, for a comparison.

    Names, addresses and descriptions of a declaration differ between documents and between versions of
    zarr-cm; readers go by the ``uuid``. Declarations that are not a list of objects stay as they are.
    """
    declared = attributes.get(DECLARATIONS)
    if not isinstance(declared, list) or not all(isinstance(item, dict) for item in declared):
        return dict(attributes)
    return {**attributes, DECLARATIONS: sorted(str(item.get("uuid")) for item in declared)}
