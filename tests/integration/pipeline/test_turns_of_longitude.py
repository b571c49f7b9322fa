"""Tests of frames across 180 and 0 degrees, and of rasters that count longitudes from another turn."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest
import rasterio
import xarray as xr
from scipy.interpolate import RegularGridInterpolator

from archives import ALL, FRAME, frame_store_of, objects, reached, settings_for
from hephaestus_build.core.era5_grid import ERA5_VARIABLE_NAMES
from hephaestus_build.core.frames import Frame, Pair
from hephaestus_build.core.settings import Settings
from hephaestus_build.cube.reading.dataset import open_pinned_cube
from hephaestus_build.cube.schema import cube_schema
from hephaestus_build.cube.validation.checksums import verify_generation
from hephaestus_build.cube.validation.schema_conformance import check_schema
from hephaestus_build.dataset.tiling import tile_around_volcanoes
from hephaestus_build.export.geotiff import export_geotiff
from hephaestus_build.export.selection import open_export_selection
from hephaestus_build.export.zarr_v2 import export_zarr_v2
from hephaestus_build.operations.inspection import summarize_cube
from hephaestus_build.pipeline.build import build, plan
from hephaestus_build.pipeline.plan import BuildRequest
from hephaestus_build.report.quicklook import write_quicklook
from hephaestus_build.simulation.server.archive_server import ArchiveServer
from hephaestus_build.simulation.server.faults import error_status
from hephaestus_build.simulation.world.frame_catalog import FRAME_SPECS
from moved_frames import moved

#: The rasters of the archive in turn, and the longitudes of the cube's centre that follow.
PLACES = {
    "179.9": (179.9, -16.7, (), 179.9),
    "-180.1": (-180.1, -16.7, (), 179.9),
    "0 to 360": (335.7, 37.75, (), -24.3),
    "DEM in the other turn": (-24.3, 37.75, ("dem-turn",), -24.3),
    "one pair in the other turn": (-179.999, 37.75, ("pair-turn", "cropped"), -179.999),
    "across 360": (360.01, 64.0, (), 0.01),
    "near the north pole": (179.9, 89.9, (), 179.9),
    "near the south pole": (-180.1, -89.9, (), 179.9),
}


@contextmanager
def archive_at(longitude: float, latitude: float, oddities: tuple[str, ...] = ()) -> Iterator[ArchiveServer]:
    """Serve an archive whose frame lies at a place, and let the settings name it."""
    server = ArchiveServer(
        epochs=3,
        size=(50, 120),
        places=[moved(FRAME_SPECS[0], longitude, latitude)],
        oddities=oddities,
    )
    with server, reached(server):
        yield server


def cube_of(settings: Settings) -> xr.Dataset:
    return open_pinned_cube(frame_store_of(settings).published_link)


def stored(cube: xr.Dataset, pair: Pair) -> xr.Dataset:
    return cube.sel(primary_date=np.datetime64(pair.primary), secondary_date=np.datetime64(pair.secondary))


@pytest.mark.parametrize("place", PLACES)
def test_a_frame_is_built_whatever_turn_its_longitudes_are_counted_in(tmp_path, place):
    longitude, latitude, oddities, centre = PLACES[place]
    with archive_at(longitude, latitude, oddities) as server:
        settings = settings_for(tmp_path / "data", era5="cds")
        assert plan(ALL, settings).pairs_to_fetch
        result = build(ALL, settings)
        assert result.owed == ()
        cube, world = cube_of(settings), server.archive.world
        assert float(cube.longitude.mean()) == pytest.approx(centre, abs=2e-3)
        assert (np.diff(cube.longitude.values) > 0).all()
        cropped = world.pair_with_oddity(FRAME, "cropped")
        for pair in world.pairs(FRAME):
            here, truth = stored(cube, pair), world.phase(FRAME, pair)
            inside = here.insar_difference.values != 0 if pair == cropped else slice(None)
            np.testing.assert_array_equal(here.insar_difference.values[inside], truth[inside])
            assert (here.insar_difference.values != 0).any()
        np.testing.assert_array_equal(cube.dem.values, world.height(FRAME))
        assert set(result.aligned) <= ({"identical", "shifted"} if cropped else {"identical"})
        check_atmosphere(cube, server)
        # nothing is made or asked for twice
        before = objects(settings)
        assert not build(ALL, settings).published
        assert objects(settings) == before
    if "pole" in place:
        write_quicklook(result.path, tmp_path)
    store = frame_store_of(settings)
    generation = store.published_generation()
    assert generation is not None
    assert verify_generation(generation) == []
    assert check_schema(generation.store) == []


def check_atmosphere(cube: xr.Dataset, server: ArchiveServer) -> None:
    """Compare the fields of the first date with the exact interpolation of the world's."""
    world, day = server.archive.world, cube.epoch.values[0]
    moment = world.scene(FRAME).acquisition_time(day.astype("datetime64[D]").astype(object))
    hour = (moment + timedelta(minutes=30)).replace(minute=0, second=0, microsecond=0)
    latitude, longitude = cube.era5_latitude.values, cube.era5_longitude.values
    assert longitude[0] <= cube.longitude.values[0]
    assert cube.longitude.values[-1] <= longitude[-1]
    truth = world.era5_fields(hour, latitude, longitude)
    points = np.stack(np.meshgrid(cube.latitude.values, cube.longitude.values, indexing="ij"), axis=-1)
    for index, name in enumerate(ERA5_VARIABLE_NAMES):
        np.testing.assert_array_equal(cube[f"era5_{name}"].sel(epoch=day).values, truth[index])
        exact = RegularGridInterpolator((latitude[::-1], longitude), truth[index][::-1].astype("f8"))(points)
        step = cube_schema().variables[f"primary_date_{name}"].step
        field = cube[f"primary_date_{name}"].sel(primary_date=day).values
        assert np.abs(field - exact).max() <= step * 0.51 + np.spacing(np.float32(exact.max()))


@pytest.mark.parametrize("longitude", [179.9, -180.1])
def test_both_sources_of_era5_give_the_same_fields_across_180(tmp_path, longitude):
    with archive_at(longitude, -16.7) as server:
        fields = {}
        for source in ("cds", "arco"):
            settings = settings_for(tmp_path / source, era5=source)
            assert build(ALL, settings).owed == ()
            fields[source] = {
                name: digest for name, digest in objects(settings).items() if "water_vapour" in name
            }
        assert fields["cds"] == fields["arco"] != {}
        # the CDS is asked for one area, in the form of MARS: west of 180 to east of it
        asked = {tuple(job.inputs["area"]) for job in server.cds.jobs.values()}
        assert len(asked) == 1
        north, west, south, east = asked.pop()
        assert -180 <= east < west <= 180
        assert south < -16.7 < north


def test_exports_pictures_and_windows_of_a_frame_across_180(tmp_path):
    with archive_at(179.9, -16.8, ("dem-turn",)) as server:
        settings = settings_for(tmp_path / "data", era5="arco")
        annotated = build(BuildRequest(FRAME), settings)
        assert annotated.owed == ()
        assert annotated.masks > 0
        world = server.archive.world
        cube = cube_of(settings)
    west, _, east, _ = grid_bounds = summarize_cube(annotated.path).bounds
    assert west < 180 < east
    transform = cube.spatial_ref.attrs["GeoTransform"].split()
    assert float(transform[0]) == pytest.approx(west)
    group = json.loads((annotated.path / "zarr.json").read_text())["attributes"]
    assert group["spatial:bbox"] == pytest.approx(grid_bounds)

    masked = [pair for pair in world.pairs(FRAME) if stored(cube, pair).deformation_mask.values.any()]
    assert masked
    chosen = open_export_selection(annotated.path)
    assert export_geotiff(chosen, tmp_path / "tif").written
    for path in (tmp_path / "tif").rglob("*dem*.tif"):
        with rasterio.open(path) as dataset:
            assert dataset.bounds.left == pytest.approx(west)
            assert dataset.bounds.right == pytest.approx(east)
            np.testing.assert_array_equal(dataset.read(1), cube.dem.values)
    with xr.open_zarr(export_zarr_v2(chosen, tmp_path / "v2"), zarr_format=2) as older:
        np.testing.assert_array_equal(older.longitude.values, cube.longitude.values)

    assert write_quicklook(annotated.path, tmp_path).path.stat().st_size > 10_000

    # Taveuni stands at 179.97 W, which is in the frame's 180.03 E
    tiling = tile_around_volcanoes(Frame("124D_04854_171313"), world.scene(FRAME).grid, size=32)
    [tile] = tiling.tiles
    middle = float(cube.longitude.values[tile.column + tile.size // 2])
    assert middle == pytest.approx(180.03, abs=0.01)


def test_the_grid_of_a_cube_is_the_same_from_a_dem_in_either_turn(tmp_path):
    made = []
    for oddities in ((), ("dem-turn",)):
        with archive_at(-24.3, 37.75, oddities):
            settings = settings_for(tmp_path / str(len(made)), era5="arco")
            build(ALL, settings)
            # the group's metadata name the archive's address, which differs
            made.append({path: item for path, item in objects(settings).items() if path != "zarr.json"})
    assert made[0] == made[1]


def test_a_dem_that_comes_later_in_the_other_turn_builds_nothing_again(tmp_path: Path):
    with archive_at(179.98, -16.7, ("dem-turn",)) as server:
        settings = settings_for(tmp_path / "data", era5="arco")
        name = f"{FRAME}.geo.hgt.tif"
        server.faults.add(name, error_status(404))
        first = build(ALL, settings)
        assert [item.part for item in first.owed] == ["dem"]
        server.faults.clear()
        server.clear_log()
        assert build(ALL, settings).owed == ()
        assert [
            entry.path for entry in server.log if "diff_pha" in entry.path or "geo.cc" in entry.path
        ] == []
