"""Tests of optional variables: off by default, added without fetching anything else, kept and extended."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
import rasterio
import xarray as xr

import hephaestus_build as hb
from archives import ALL, FRAME, asked, copied, frame_store_of, objects, rasters, settings_for
from hephaestus_build.core.errors import UsageError
from hephaestus_build.core.progress import NullListener
from hephaestus_build.core.provenance import Outcome
from hephaestus_build.core.registry import OPTIONAL_VARIABLES
from hephaestus_build.core.settings import load_settings
from hephaestus_build.cube.granules import GranuleKey
from hephaestus_build.cube.plain_attributes import split_texts
from hephaestus_build.cube.reading.dataset import open_pinned_cube
from hephaestus_build.cube.schema import cube_schema
from hephaestus_build.cube.validation.checksums import verify_generation
from hephaestus_build.cube.validation.record_consistency import check_record_consistency
from hephaestus_build.cube.validation.schema_conformance import check_schema
from hephaestus_build.export.geotiff import export_geotiff
from hephaestus_build.export.selection import open_export_selection
from hephaestus_build.export.zarr_v2 import export_zarr_v2
from hephaestus_build.operations.inspection import summarize_cube
from hephaestus_build.operations.repair import repair
from hephaestus_build.operations.status import read_frame_status
from hephaestus_build.pipeline.build import build, plan
from hephaestus_build.pipeline.plan import BuildRequest
from hephaestus_build.pipeline.upstream_changes import check_upstream
from hephaestus_build.simulation.server import faults, raster_faults

pytestmark = pytest.mark.usefixtures("upstream")

EVERY = BuildRequest(FRAME, pairs="all", variables=OPTIONAL_VARIABLES)
ARRAYS = {variable.name for variable in cube_schema().variables.values() if variable.optional}


def with_variables(*names: str) -> BuildRequest:
    return BuildRequest(FRAME, pairs="all", variables=names)


@pytest.fixture
def settings(whole_cube, tmp_path):
    return settings_for(copied(whole_cube, tmp_path / "data"))


def findings(settings):
    current = frame_store_of(settings).published_generation()
    return [*verify_generation(current), *check_schema(current.store), *check_record_consistency(current)]


def opened(settings):
    return open_pinned_cube(settings.cubes_dir / f"{FRAME}.zarr", chunks=None)


def optional_products(archive, names=OPTIONAL_VARIABLES) -> set[str]:
    pairs, days = archive.archive.pairs(FRAME), archive.archive.epochs(FRAME)
    products = {
        "unwrapped_phase": [f"{pair}.geo.unw.tif" for pair in pairs],
        "look_east": [f"{FRAME}.geo.E.tif"],
        "look_north": [f"{FRAME}.geo.N.tif"],
        "look_up": [f"{FRAME}.geo.U.tif"],
        "perpendicular_baseline": [],
        "gacos_delay": [f"{day:%Y%m%d}.sltd.geo.tif" for day in days],
        "icams_delay": [f"{day:%Y%m%d}.icams.sltd.geo.tif" for day in days],
    }
    return {product for name in names for product in products[name]}


def test_the_schema_marks_the_optional_variables_and_a_plain_cube_has_none(settings):
    quantities = {variable.quantity for variable in cube_schema().variables.values() if variable.optional}
    assert quantities == set(OPTIONAL_VARIABLES)
    cube = opened(settings)
    assert not ARRAYS & set(cube.variables)
    assert "optional_variables" not in cube.attrs
    assert findings(settings) == []


def test_a_cube_gains_them_and_only_the_new_products_are_fetched(archive, settings):
    before = objects(settings)
    todo = plan(EVERY, settings)
    assert dict(todo.optional_products)["unwrapped_phase"] == len(archive.archive.pairs(FRAME))
    assert todo.pairs_to_fetch == ()
    assert todo.download_bytes > 0
    archive.clear_log()
    result = build(EVERY, settings)
    assert (result.exit_code, result.published) == (0, True)
    assert asked(archive) == optional_products(archive)
    after = objects(settings)
    kept = {path: item for path, item in before.items() if "/" in path and not path.endswith("zarr.json")}
    assert {path: after[path] for path in kept} == kept
    assert set(split_texts(opened(settings).attrs["optional_variables"])) == set(OPTIONAL_VARIABLES)
    assert findings(settings) == []
    assert summarize_cube(result.path).optional_variables == tuple(sorted(OPTIONAL_VARIABLES))
    assert summarize_cube(result.path).parts["optional variables"] > 0
    # a cube that had them from the start is the same
    added = {path.removeprefix("pairs/").split("/")[0] for path in set(after) - set(before)}
    assert added == ARRAYS


def test_their_values_are_those_of_the_world(archive, settings):
    build(EVERY, settings)
    cube, scene = opened(settings), archive.archive.world.scene(FRAME)
    land = scene.valid_mask
    for number, name in enumerate(("look_east", "look_north", "look_up")):
        truth = np.broadcast_to(scene.line_of_sight[number], land.shape)
        np.testing.assert_array_equal(cube[name].values, np.where(land, truth, np.nan))
    length = sum(cube[f"look_{name}"] ** 2 for name in ("east", "north", "up")).values
    np.testing.assert_allclose(length[land], 1, rtol=1e-5)
    for pair in scene.pairs:
        place = {"primary_date": np.datetime64(pair.primary), "secondary_date": np.datetime64(pair.secondary)}
        here = cube.sel(place)
        unwrapped, phase = here.unwrapped_phase.values, here.insar_difference.values
        assert ((unwrapped == 0) == (phase == 0)).all()
        turns = (unwrapped - phase) / (2 * np.pi)
        np.testing.assert_allclose(turns, np.rint(turns), atol=1e-4)
        days = {day: scene.perpendicular_baseline(day) for day in pair.dates}
        assert here.perpendicular_baseline == pytest.approx(
            days[pair.secondary] - days[pair.primary], abs=1e-3
        )
    assert np.isnan(cube.perpendicular_baseline.values[~cube.valid_date_pair.values]).all()
    pair = scene.pairs[1]
    for axis, day in (("primary", pair.primary), ("secondary", pair.secondary)):
        delay = cube[f"{axis}_date_gacos_delay"].sel({f"{axis}_date": np.datetime64(day)}).values
        np.testing.assert_array_equal(delay, scene.slant_delay(day))
        assert (delay[land] > 0).all()


def test_the_delay_is_in_the_phase_with_the_sign_that_the_schema_says(archive):
    # without turbulence, noise and deformation, the phase is the secondary's delay less the primary's
    scene = archive.archive.world.scene(FRAME)
    pair = scene.pairs[0]
    first, second = (scene.slant_delay(day) for day in pair.dates)
    turbulence = scene.turbulent_delay(pair.secondary) - scene.turbulent_delay(pair.primary)
    rest = turbulence / scene.line_of_sight[2] - scene.displacement(pair)
    expected = scene.noise_free_phase(pair) - rest * np.float32(4 * np.pi / 0.0554658)
    np.testing.assert_allclose((second - first)[scene.valid_mask], expected[scene.valid_mask], atol=5e-3)


def test_a_later_build_keeps_and_extends_them_and_none_takes_them_away(archive, settings, tmp_path):
    fresh = settings_for(tmp_path / "fresh")
    first = BuildRequest(FRAME, "all", limit=3, variables=("unwrapped_phase", "gacos_delay"))
    assert build(first, fresh).exit_code == 0
    archive.clear_log()
    more = build(ALL, fresh)
    assert (more.exit_code, more.pairs) == (0, len(archive.archive.pairs(FRAME)))
    pairs = archive.archive.pairs(FRAME)
    assert {f"{pair}.geo.unw.tif" for pair in pairs[3:]} <= asked(archive)
    assert not {f"{pair}.geo.unw.tif" for pair in pairs[:3]} & asked(archive)
    assert findings(fresh) == []
    # another one is added to them
    build(with_variables("look_up"), fresh)
    named = set(split_texts(opened(fresh).attrs["optional_variables"]))
    assert named == {"unwrapped_phase", "gacos_delay", "look_up"}
    assert build(ALL, fresh).published is False
    # and a cube that lost them is as one that never had them
    archive.clear_log()
    assert build(with_variables("none"), fresh).published is True
    assert asked(archive) == set()
    assert findings(fresh) == []
    xr.testing.assert_equal(opened(fresh), opened(settings))


def test_what_is_absent_is_owed_and_stops_nothing(archive, settings, monkeypatch):
    day = archive.archive.epochs(FRAME)[1]
    name = f"{day:%Y%m%d}.sltd.geo.tif"
    archive.faults.add(rf"/{name}$", faults.error_status(404))
    archive.faults.add(r"/baselines$", faults.error_status(404))
    request = with_variables("gacos_delay", "perpendicular_baseline")
    result = build(request, settings)
    assert (result.exit_code, result.published) == (3, True)
    assert {(item.product, item.outcome) for item in result.owed} == {
        (name, Outcome.ABSENT),
        ("baselines", Outcome.ABSENT),
    }
    cube = opened(settings)
    axes = [axis for axis in ("primary", "secondary") if np.datetime64(day) in cube[f"{axis}_date"]]
    for axis in axes:
        missing = cube[f"{axis}_date_gacos_delay"].sel({f"{axis}_date": np.datetime64(day)})
        assert np.isnan(missing.values).all()
    assert np.isnan(cube.perpendicular_baseline.values).all()
    assert findings(settings) == []
    assert {item.part for item in read_frame_status(settings, FRAME).owed} == {
        "gacos_delay",
        "perpendicular_baseline",
    }
    assert build(ALL, settings).published is False  # still absent: nothing new
    accepting = settings_for(settings.real_data_dir, accept={"*": ["gacos_delay", "perpendicular_baseline"]})
    assert build(ALL, accepting).exit_code == 0
    archive.faults.clear()
    archive.clear_log()
    result = build(ALL, settings)
    assert (result.exit_code, result.published) == (0, True)
    assert asked(archive) == {name}
    assert np.isfinite(opened(settings).perpendicular_baseline.values).any()


def test_a_raster_on_another_grid_is_aligned_and_one_of_elsewhere_is_corrupt(archive, settings):
    day, other = archive.archive.epochs(FRAME)[:2]
    archive.faults.add(
        rf"/{day:%Y%m%d}\.sltd\.geo\.tif$", faults.replace_body(raster_faults.crop_raster(3, 2, 1, 4))
    )
    archive.faults.add(
        rf"/{other:%Y%m%d}\.sltd\.geo\.tif$", faults.replace_body(raster_faults.shift_raster(5000, 0))
    )
    result = build(with_variables("gacos_delay"), settings)
    assert [(item.product, item.outcome) for item in result.owed] == [
        (f"{other:%Y%m%d}.sltd.geo.tif", Outcome.CORRUPT)
    ]
    record = frame_store_of(settings).published_generation().read_inventory()
    granule = record.granules[GranuleKey.of_optional("gacos_delay", day)]
    assert granule.facts["alignment"] == "shifted"
    whole = archive.archive.world.scene(FRAME).slant_delay(day)
    cube = opened(settings)
    values = cube.primary_date_gacos_delay.sel(primary_date=np.datetime64(day)).values
    assert np.isnan(values[:, :3]).all()
    np.testing.assert_array_equal(values[1:-4, 3:-2], whole[1:-4, 3:-2])


def test_a_changed_product_is_found_and_fetched_alone(archive, settings):
    build(EVERY, settings)
    assert check_upstream(FRAME, settings, NullListener()) == []
    pair = archive.archive.pairs(FRAME)[2]
    archive.archive.reprocess(FRAME, pair)
    changes = check_upstream(FRAME, settings, NullListener())
    assert {change.unit for change in changes} == {
        f"pair/{pair}",
        GranuleKey.of_optional("unwrapped_phase", pair),
    }
    archive.clear_log()
    result = build(ALL, settings)
    assert asked(archive) == {*rasters(pair), f"{pair}.geo.unw.tif"}
    here = opened(settings).sel(
        primary_date=np.datetime64(pair.primary), secondary_date=np.datetime64(pair.secondary)
    )
    truth = archive.archive.world.scene(FRAME).simulate_interferogram(pair, 1).unwrapped
    np.testing.assert_array_equal(here.unwrapped_phase.values, truth)
    assert result.exit_code == 0
    assert findings(settings) == []


def test_baselines_that_are_recomputed_are_taken_and_new_lines_alone_change_nothing(archive, settings):
    build(with_variables("perpendicular_baseline"), settings)
    extra = f"{archive.archive.epochs(FRAME)[0]:%Y%m%d} 20990101 12.0 29000\n".encode()
    archive.faults.add(r"/baselines$", faults.replace_body(lambda body: body + extra))
    assert build(ALL, settings).published is False
    day = f"{archive.archive.epochs(FRAME)[1]:%Y%m%d}"
    archive.faults.clear()

    def recomputed(body: bytes) -> bytes:
        [line] = [line for line in body.decode().splitlines() if line.split()[1:2] == [day]]
        first, _, _, days = line.split()
        return body + f"{first} {day} 77.5 {days}\n".encode()

    archive.faults.add(r"/baselines$", faults.replace_body(recomputed))
    assert build(ALL, settings).published is True
    record = frame_store_of(settings).published_generation().read_inventory()
    assert record.granules["optional/perpendicular_baseline"].metres[day] == 77.5
    assert findings(settings) == []


def test_damage_is_found_and_only_that_is_rebuilt(archive, settings):
    build(EVERY, settings)
    whole = objects(settings)
    store = frame_store_of(settings).published_generation().store
    pair = archive.archive.pairs(FRAME)[1]
    victims = [
        next(store.glob("look_up/c.*")), next(store.glob("unwrapped_phase/c.*")),
        store / "perpendicular_baseline" / "c.0.0", next(store.glob("primary_date_icams_delay/c.*")),
    ]  # fmt: skip
    for path in victims:
        content = bytearray(path.read_bytes())
        content[-1] ^= 1
        path.unlink()
        path.write_bytes(content)
    assert len(findings(settings)) >= len(victims)
    archive.clear_log()
    report = repair(FRAME, settings)
    assert {GranuleKey(key).variable for key in report.rebuilt} == {
        "look_up",
        "unwrapped_phase",
        "icams_delay",
    }
    assert report.lost == ()
    assert not asked(archive) & rasters(pair)
    assert objects(settings) == whole
    assert findings(settings) == []


def test_exports_have_them(archive, settings, tmp_path):
    result = build(EVERY, settings)
    cube, pair = opened(settings), archive.archive.pairs(FRAME)[0]
    source = open_export_selection(
        result.path, variables=["unwrapped_phase", "look_up", "primary_date_gacos_delay"]
    )
    folder = export_geotiff(source, tmp_path).folder
    with rasterio.open(folder / f"{FRAME}.look_up.tif") as dataset:
        np.testing.assert_array_equal(dataset.read(1), cube.look_up.values)
    with rasterio.open(folder / f"interferograms/{pair}/{pair}.unwrapped_phase.tif") as dataset:
        assert dataset.nodata == 0
        assert (dataset.read(1) != 0).any()
    day = f"{pair.primary:%Y%m%d}"
    with rasterio.open(folder / f"epochs/{day}/{day}.gacos_delay.tif") as dataset:
        assert dataset.tags()["DATE"] == str(pair.primary)
        assert "ERA5_HOUR" not in dataset.tags()
    whole = export_zarr_v2(open_export_selection(result.path), tmp_path / "v2")
    with xr.open_zarr(whole, chunks=None) as old:
        for name in sorted(ARRAYS):
            dates = {axis: old[axis] for axis in ("primary_date", "secondary_date") if axis in old[name].dims}
            np.testing.assert_array_equal(old[name].values, cube[name].sel(dates).values)


def test_validation_expects_exactly_what_the_record_names(settings):
    build(with_variables("look_up"), settings)
    store = frame_store_of(settings).published_generation().store
    text = (store / "zarr.json").read_text()
    described = json.loads(text)
    described["attributes"]["optional_variables"] = "look_up; look_east"
    (store / "zarr.json").unlink()
    (store / "zarr.json").write_text(json.dumps(described))
    assert [str(finding) for finding in check_schema(store)] == ["look_east: is missing"]
    described["attributes"]["optional_variables"] = "look_down"
    (store / "zarr.json").write_text(json.dumps(described))
    assert "optional_variables" in str(check_schema(store)[0])
    del described["attributes"]["optional_variables"]
    (store / "zarr.json").write_text(json.dumps(described))
    assert "look_up: is not in the schema" in [str(finding) for finding in check_schema(store)]


def test_the_settings_and_python_take_them(archive, settings, monkeypatch):
    monkeypatch.setenv("HEPHAESTUS_VARIABLES", "look_up, look_east")
    assert load_settings().variables == ("look_east", "look_up")
    todo = hb.plan(FRAME, pairs="all", data_dir=settings.real_data_dir)
    assert dict(todo.optional_products) == {"look_east": 1, "look_up": 1}
    result = hb.build(FRAME, pairs="all", data_dir=settings.real_data_dir, variables=["look_north"])
    assert open_pinned_cube(result.path).attrs["optional_variables"] == "look_north"
    assert hb.build(FRAME, pairs="all", data_dir=settings.real_data_dir, variables="none").published
    for wrong in ("look_upp", "none,look_up"):
        with pytest.raises(UsageError, match="setting variables"):
            load_settings(variables=wrong)


def test_an_interrupted_addition_goes_on(archive, settings):
    archive.faults.add(r"\.geo\.N\.tif$", faults.error_status(503))
    first = build(with_variables("look_east", "look_north"), settings)
    assert [item.product for item in first.owed] == [f"{FRAME}.geo.N.tif"]
    archive.faults.clear()
    archive.clear_log()
    assert build(ALL, settings).exit_code == 0
    assert asked(archive) == {f"{FRAME}.geo.N.tif"}
    shutil.rmtree(settings.downloads_dir)
    assert build(ALL, settings).published is False
