"""Tests of GeoZarr's attributes: the library that wrote them accepts every node, and they say the grid."""

import json

import numpy as np
import pytest
from affine import Affine
from zarr_cm import proj, spatial

import toy_cube
from hephaestus_build.core.era5_grid import era5_area_around
from hephaestus_build.cube.decimation import Decimation
from hephaestus_build.cube.geozarr import compare_by_uuid, drop_geozarr, era5_cells, geozarr_attributes
from hephaestus_build.cube.inventory import CubeInventory
from hephaestus_build.cube.schema import cube_schema
from hephaestus_build.cube.storage.writer import encode_metadata

GRID = toy_cube.grid()
#: The identities in the registry of conventions.
UUIDS = {"f17cb550-5864-4468-aeb7-f3180cfb622f", "689b58e2-cf7b-45e0-9fff-9cfc0883d6b4"}


#: Names of the dimensions of rasters, as lists in an array's metadata.
RASTER_DIMENSIONS = (["latitude", "longitude"], ["era5_latitude", "era5_longitude"], ["y", "x"])


@pytest.fixture(scope="module")
def nodes(tmp_path_factory):
    """The metadata of every node of a cube, by name; the group's is ''."""
    link = toy_cube.toy_cube(tmp_path_factory.mktemp("cubes"))
    group = json.loads((link / "zarr.json").read_bytes())
    return {"": group, **group["consolidated_metadata"]["metadata"]}


def test_the_group_and_every_raster_array_are_valid(nodes):
    validated = set()
    for name, node in nodes.items():
        dims = node.get("dimension_names", [])
        if name not in ("", "overview") and not (len(dims) > 1 and dims[-2:] in RASTER_DIMENSIONS):
            assert drop_geozarr(node["attributes"]) == node["attributes"], name
            continue
        proj.validate_node_metadata(node)
        spatial.validate_node_metadata(node)
        assert {item["uuid"] for item in node["attributes"]["zarr_conventions"]} == UUIDS
        validated.add(name)
    schema = cube_schema().with_optional(())
    images = {variable.name for variable in schema.variables.values() if variable.layout != "table"}
    images |= {name for name, item in schema.groups["overview"].variables.items() if item.layout != "rows"}
    assert validated == {"", "overview", *images}


def test_they_say_the_grid_of_the_array(nodes):
    for node in nodes.values():
        attributes = node["attributes"]
        if "spatial:transform" not in attributes:
            continue
        dims = tuple(attributes["spatial:dimensions"])
        grids = {
            ("latitude", "longitude"): GRID,
            ("y", "x"): Decimation(8).grid(GRID),
            ("era5_latitude", "era5_longitude"): era5_cells(era5_area_around(GRID)),
        }
        grid = grids[dims]
        assert attributes["proj:code"] == "EPSG:4326"
        assert attributes["spatial:registration"] == "pixel"
        assert Affine(*attributes["spatial:transform"]) == grid.transform
        assert tuple(attributes["spatial:bbox"]) == pytest.approx(grid.bounds)
        if node["node_type"] == "array":
            assert tuple(node["dimension_names"][-2:]) == dims
            assert node["shape"][-2:] == attributes["spatial:shape"]
    assert nodes["dem"]["attributes"]["grid_mapping"] == "spatial_ref"  # CF stays


def test_era5s_grid_points_are_the_centres_of_its_cells():
    area = era5_area_around(GRID)
    cells = era5_cells(area)
    np.testing.assert_allclose(cells.latitudes, area.latitudes)
    np.testing.assert_allclose(cells.longitudes, area.longitudes)


def test_equal_grids_give_equal_metadata():
    contents = CubeInventory.new(GRID, {}, toy_cube.attributes(GRID, toy_cube.FRAME))
    assert encode_metadata(contents) == encode_metadata(contents)


def test_declarations_are_compared_by_their_identity():
    ours = geozarr_attributes(GRID)
    renamed = [{"uuid": item["uuid"], "name": "other"} for item in reversed(ours["zarr_conventions"])]
    assert compare_by_uuid({**ours, "zarr_conventions": renamed}) == compare_by_uuid(ours)
    for wrong in (renamed[:1], [{"uuid": "0"}, *renamed], [], "proj", [1], None):
        assert compare_by_uuid({**ours, "zarr_conventions": wrong}) != compare_by_uuid(ours)
