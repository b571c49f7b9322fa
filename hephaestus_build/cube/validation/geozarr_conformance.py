"""Comparison of a cube's GeoZarr attributes with its grid."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from hephaestus_build.core.era5_grid import era5_area_around
from hephaestus_build.core.grid import Grid
from hephaestus_build.cube.array_attributes import raster_attributes
from hephaestus_build.cube.geozarr import compare_by_uuid, drop_geozarr, geozarr_attributes
from hephaestus_build.cube.reading.store_metadata import StoreMetadata
from hephaestus_build.cube.schema import GRID_MAPPING, Coordinate, CubeSchema, Variable
from hephaestus_build.cube.validation.array_metadata import ValidationFinding, short_repr


def check_geozarr(metadata: StoreMetadata, schema: CubeSchema, grid: Grid) -> Iterator[ValidationFinding]:
    """Yield a finding for each attribute of GeoZarr that contradicts the grid, or that a table has.

    Parameters
    ----------
    metadata : StoreMetadata
        Metadata of the store.
    schema : CubeSchema
        Its arrays.
    grid : Grid
        The frame's grid.
    """
    try:
        era5_area_around(grid)
    except ValueError as error:
        yield ValidationFinding(GRID_MAPPING, str(error))
        return
    yield from _compare("cube", metadata.attributes, geozarr_attributes(grid))
    items: dict[str, Variable | Coordinate] = {**schema.coordinates, **schema.variables}
    for name, item in items.items():
        if name in metadata.arrays:
            found = metadata.arrays[name].get("attributes", {})
            yield from _compare(name, found, raster_attributes(item, grid))


def _compare(
    where: str, attributes: Mapping[str, Any], expected: Mapping[str, Any]
) -> Iterator[ValidationFinding]:
    others = drop_geozarr(attributes)
    found = {name: value for name, value in attributes.items() if name not in others}
    found, expected = compare_by_uuid(found), compare_by_uuid(expected)
    for name in sorted(found.keys() | expected.keys()):
        if found.get(name) != expected.get(name):
            yield ValidationFinding(
                where,
                f"attribute {name} is {short_repr(found.get(name))}, the grid says "
                f"{short_repr(expected.get(name))}",
            )
