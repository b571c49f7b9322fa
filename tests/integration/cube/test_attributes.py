"""Tests of a cube's attributes: what netCDF holds, what is checked, and what of older cubes is still read."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import xarray as xr

import toy_cube
from hephaestus_build.core.frames import Frame
from hephaestus_build.cube.array_attributes import DEM_SOURCE
from hephaestus_build.cube.discovery import is_simulated_cube
from hephaestus_build.cube.geozarr import drop_geozarr
from hephaestus_build.cube.inventory import CubeInventory
from hephaestus_build.cube.opening import open_cube
from hephaestus_build.cube.storage.generations import FrameStore
from hephaestus_build.cube.storage.writer import write_cube_store
from hephaestus_build.cube.validation.record_consistency import check_record_consistency
from hephaestus_build.cube.validation.schema_conformance import check_schema
from hephaestus_build.operations.inspection import summarize_cube

SETTINGS = {"pairs": "all", "licsar_url": "http://127.0.0.1/"}


@pytest.fixture
def link(tmp_path, monkeypatch) -> Path:
    """A cube whose record has every kind of attribute, and names the satellites of two dates."""
    plain = toy_cube.attributes

    def attributes(on, frame):
        return {**plain(on, frame), "build_settings": SETTINGS, DEM_SOURCE: "TanDEMX_90m"}

    monkeypatch.setattr(toy_cube, "attributes", attributes)
    return toy_cube.toy_cube(tmp_path / "cubes")


@pytest.mark.parametrize("engine", ["netcdf4", "h5netcdf"])
@pytest.mark.parametrize("choice", ["all", "pair", "window"])
def test_a_selection_is_written_as_netcdf(link, tmp_path, engine, choice):
    cube = open_cube(link)
    part = {
        "all": cube,
        "pair": cube.isel(primary_date=0, secondary_date=[0, 1]),
        "window": cube.isel(latitude=slice(5, 20), longitude=slice(7, 30)),
    }[choice].load()
    part.to_netcdf(tmp_path / "part.nc", engine=engine)
    with xr.open_dataset(tmp_path / "part.nc", engine=engine) as read:
        xr.testing.assert_equal(read.load(), part)
        assert read.attrs["simulated"] == 1
        assert json.loads(read.attrs["build_settings"]) == SETTINGS
        assert read["dem"].attrs[DEM_SOURCE] == "TanDEMX_90m"


def test_netcdf_3_takes_what_it_has_types_for(link, tmp_path):
    cube = open_cube(link)[["insar_difference", "dem", "caption", "era5_surface_pressure"]].load()
    cube.to_netcdf(tmp_path / "part.nc", engine="scipy")
    with xr.open_dataset(tmp_path / "part.nc", engine="scipy") as read:
        xr.testing.assert_equal(read.load(), cube)


def test_plain_xarray_writes_netcdf_without_geozarr(link, tmp_path):
    cube = xr.open_zarr(link)
    assert "zarr_conventions" in cube.attrs
    for part in (cube, *cube.variables.values()):
        for name in [name for name in part.attrs if name.startswith(("proj:", "spatial:", "zarr_"))]:
            del part.attrs[name]
    assert cube.attrs == open_cube(link).attrs
    cube.load().to_netcdf(tmp_path / "cube.nc")  # before xarray 2026.9, texts are written from memory alone


def test_a_selection_does_not_claim_the_grid_of_the_whole(link):
    part = open_cube(link).isel(latitude=slice(5, 20))
    for variable in (part, *part.variables.values()):
        assert drop_geozarr(variable.attrs) == variable.attrs
    assert part.rio.crs.to_epsg() == 4326


def _edit(link: Path, name: str, key: str, value: object) -> None:
    """Set an attribute of a node, in its own metadata and in the consolidated one; None removes it."""
    store = link.resolve()
    group = json.loads((store / "zarr.json").read_bytes())
    node = group["consolidated_metadata"]["metadata"][name] if name else group
    node["attributes"].pop(key, None)
    if value is not None:
        node["attributes"][key] = value
    written = {"zarr.json": group, **({f"{name}/zarr.json": node} if name else {})}
    for path, content in written.items():
        (store / path).unlink()
        (store / path).write_text(json.dumps(content))


@pytest.mark.parametrize("name", ["", "dem", "insar_difference", "era5_surface_pressure"])
@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("proj:code", "EPSG:3857"),
        ("spatial:transform", [0.001, 0.0, 10.0, 0.0, -0.001, 20.0007]),
        ("spatial:dimensions", ["longitude", "latitude"]),
        ("spatial:registration", None),
        ("zarr_conventions", []),
        ("zarr_conventions", "proj"),
    ],
)
def test_a_wrong_attribute_of_geozarr_is_found(link, name, key, value):
    assert check_schema(link) == []
    _edit(link, name, key, value)
    assert [(item.where, key in item.what) for item in check_schema(link)] == [(name or "cube", True)]


def test_an_attribute_of_geozarr_on_a_table_is_found(link):
    _edit(link, "annotated", "proj:code", "EPSG:4326")
    assert [item.where for item in check_schema(link)] == ["annotated"]


def test_the_source_of_the_dem_is_that_of_the_group(link):
    assert xr.open_zarr(link).attrs[DEM_SOURCE] == xr.open_zarr(link).dem.attrs[DEM_SOURCE] == "TanDEMX_90m"
    _edit(link, "dem", DEM_SOURCE, "SRTM")
    assert [item.where for item in check_schema(link)] == ["dem"]


def test_a_declaration_by_another_version_of_the_library_is_right(link):
    declared = [
        {"uuid": item["uuid"], "name": f"{item['name']}:"}
        for item in xr.open_zarr(link).attrs["zarr_conventions"]
    ]
    _edit(link, "", "zarr_conventions", declared)
    current = FrameStore(link.parent, Frame(toy_cube.FRAME)).published_generation()
    assert check_schema(link) == []
    assert check_record_consistency(current) == []


def test_satellites_are_kept_in_the_record_and_stored_as_a_table(link):
    frame_store = FrameStore(link.parent, Frame(toy_cube.FRAME))
    current = frame_store.published_generation()
    old = current.read_inventory()
    told = CubeInventory.decode(replace(old, satellites={"20190113": "S1B"}).encode())
    with frame_store.lock(), frame_store.new_generation() as store:
        places = old.chunk_keys
        write_cube_store(
            store, told, lambda granule: {n: f"{current.store}/{key}" for n, key in places.keys(granule)}
        )
    table = xr.open_zarr(link).epoch_satellite.load()
    assert table.sel(epoch="2019-01-13").item() == "S1B"
    assert (table != "").sum() == 1
    assert check_schema(link) == []
    assert check_record_consistency(frame_store.published_generation()) == []


@pytest.mark.parametrize("wrong", [{"2019": "S1A"}, {"20190101": "S1A\x1b[2J"}, {"20190101": ""}])
def test_a_record_with_other_satellites_is_refused(link, wrong):
    contents = FrameStore(link.parent, Frame(toy_cube.FRAME)).published_generation().read_inventory()
    assert contents.satellites == {}  # a record without them
    with pytest.raises(ValueError):
        CubeInventory.decode(replace(contents, satellites=wrong).encode())


def test_a_cube_of_the_old_form_is_still_called_simulated(link):
    _edit(link, "", "simulated", True)
    _edit(link, "", "volcanoes", ["Monte Esempio", "Monte Prova"])
    _edit(link, "", "build_settings", SETTINGS)
    elsewhere = link.resolve().rename(link.resolve().with_name("copy.zarr"))
    assert is_simulated_cube(elsewhere)
    shown = summarize_cube(elsewhere)
    assert shown.simulated
    assert shown.volcanoes == ("Monte Esempio", "Monte Prova")
