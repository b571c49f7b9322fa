"""Tests of the migration of cubes of an earlier schema, with a cube that commit 06d85c2 wrote."""

import json
import shutil
import sys
import tarfile
from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

import toy_cube
from hephaestus_build.cli import run_console_script
from hephaestus_build.core.errors import HephaestusError
from hephaestus_build.core.frames import Frame, Pair
from hephaestus_build.core.settings import Settings, load_settings
from hephaestus_build.cube.reading.dataset import open_pinned_cube, suppress_codec_warnings
from hephaestus_build.cube.reading.window_reader import WindowReader
from hephaestus_build.cube.schema import cube_schema
from hephaestus_build.cube.storage import staging as staging_module
from hephaestus_build.cube.storage.generations import FrameStore, Generation
from hephaestus_build.cube.storage.staging import StagingArea
from hephaestus_build.cube.validation.checksums import verify_generation
from hephaestus_build.cube.validation.record_consistency import check_record_consistency
from hephaestus_build.cube.validation.schema_conformance import check_schema
from hephaestus_build.operations import schema_migration
from hephaestus_build.operations.repair import repair
from hephaestus_build.operations.schema_migration import migrate_schema
from hephaestus_build.operations.status import read_frame_status
from hephaestus_build.operations.verification import CubeVerification, verify_cube
from hephaestus_build.pipeline.build import build, plan
from hephaestus_build.pipeline.plan import BuildRequest
from kill_switch import KillSwitch

RECORDS = Path(__file__).parents[2] / "data" / "sha256_records.tar.xz"
FRAME = Frame("010A_00210_131313")
PAIR = Pair.parse("20190305_20190820")


@pytest.fixture
def settings(tmp_path) -> Settings:
    with tarfile.open(RECORDS) as archive:
        archive.extractall(tmp_path, **({"filter": "data"} if hasattr(tarfile, "data_filter") else {}))
    # no archive listens at port 9: whoever asks gets an error
    return load_settings(
        data_dir=tmp_path / "data", licsar_url="http://127.0.0.1:9/", era5="arco", retries=0, timeout=2
    )


def frame_store_of(settings: Settings, staging: str = "staging") -> FrameStore:
    return FrameStore(settings.cubes_dir, FRAME, staging=staging)


def published(settings: Settings) -> Generation:
    current = frame_store_of(settings).published_generation()
    assert current is not None
    return current


def values_of(cube: xr.Dataset) -> dict[str, np.ndarray]:
    """Return everything that a cube holds, by variable, at the dates of its pairs."""
    places = np.argwhere(cube.valid_date_pair.values)
    found = {}
    for name, array in cube.data_vars.items():
        if array.dims[:2] == ("primary_date", "secondary_date"):
            found[name] = np.stack([array.values[tuple(place)] for place in places])
        elif array.dims[0] in ("primary_date", "secondary_date"):
            axis = 0 if array.dims[0] == "primary_date" else 1
            found[name] = array.values[sorted({place[axis] for place in places})]
        else:
            found[name] = array.values
    return found


def test_a_cube_is_brought_over_without_a_network_and_with_equal_values(settings):
    first = published(settings).store
    with suppress_codec_warnings():
        before = values_of(xr.open_zarr(first, chunks=None))
    result = migrate_schema(FRAME, settings)
    assert (result.generation, result.earlier, result.left_out) == (2, "1.2", ())
    current = published(settings)
    assert verify_generation(current) == []
    assert check_schema(current.store) == []
    assert check_record_consistency(current) == []
    after = values_of(xr.open_zarr(current.store, chunks=None))
    assert after.keys() >= before.keys()
    for name, right in before.items():
        step = getattr(cube_schema().variables[name], "step", None)
        if step is None:
            np.testing.assert_array_equal(after[name], right, err_msg=name)
        else:  # interpolated again, and rounded to another step than before
            np.testing.assert_allclose(after[name], right, rtol=0, atol=step, err_msg=name)
    phase = np.empty(WindowReader(current.store).shape, np.float32)
    assert WindowReader(current.store, verify="first").read("insar_difference", PAIR, 0, 0, phase).any()
    assert first.is_dir()
    assert not list(frame_store_of(settings).root.glob("migration"))


def test_an_earlier_schema_is_never_called_damage(settings, hephaestus):
    status = read_frame_status(settings, FRAME)
    assert (status.schema, status.to_migrate, status.stale) == ("1.2", True, ())
    option = ("--data-dir", str(settings.data_dir))
    code, out, said = hephaestus("verify", FRAME, *option)
    assert (code, out) == (0, f"{FRAME}: whole\n")
    assert f"`hephaestus migrate {FRAME} {' '.join(option)}`" in said
    code, out, said = hephaestus("status", *option)
    assert "schema 1.2" in said
    assert f"migrate {FRAME} {' '.join(option)}` brings it over without downloading anything" in said
    advice = rf"schema 1\.2, this version writes {cube_schema().version}; `hephaestus migrate {FRAME}`"
    with pytest.raises(HephaestusError, match=advice):
        build(BuildRequest(FRAME, pairs="all"), settings)
    with pytest.raises(HephaestusError, match=advice):
        plan(BuildRequest(FRAME, pairs="all"), settings)
    assert repair(FRAME, settings).damages == ()
    damaged = min(published(settings).store.glob("insar_difference/c*"))
    damaged.write_bytes(damaged.read_bytes()[:-1])
    with pytest.raises(HephaestusError, match=advice):
        repair(FRAME, settings)


def test_a_cube_of_a_later_schema_is_left_alone(tmp_path, monkeypatch, hephaestus):
    attributes = toy_cube.attributes
    monkeypatch.setattr(toy_cube, "attributes", lambda *of: {**attributes(*of), "schema_version": "99.0"})
    simulated = load_settings(data_dir=tmp_path).for_simulated()
    store = toy_cube.toy_cube(simulated.cubes_dir).resolve()
    for command, code in (("status", 0), ("verify", 0), ("inspect", 1), ("migrate", 1), ("repair", 0)):
        found, _, said = hephaestus(command, toy_cube.FRAME, "--data-dir", tmp_path)
        assert (command, found) == (command, code)
        assert "`pip install --upgrade hephaestus-build`" in said
        assert "hephaestus migrate" not in said
    assert not read_frame_status(simulated, Frame(toy_cube.FRAME)).to_migrate
    min(store.glob("insar_difference/c*")).write_bytes(b"x")
    with pytest.raises(HephaestusError, match=r"schema 99\.0, this version writes .*; `pip install"):
        repair(Frame(toy_cube.FRAME), simulated)


def test_the_command_brings_every_cube_over_and_says_so(settings, hephaestus):
    option = ("--data-dir", str(settings.data_dir))
    code, out, _ = hephaestus("migrate", *option)
    assert (code, out.count("\n")) == (0, 1)
    assert f"{FRAME}: schema 1.2 brought over to {cube_schema().version} as generation 2" in out
    assert hephaestus("migrate", *option)[1].startswith("nothing to migrate")
    code, _, said = hephaestus("migrate", FRAME, *option)
    assert (code, said.count("\n")) == (1, 1)


def test_json_names_the_schemas_and_what_was_encoded(settings, hephaestus):
    _, out, _ = hephaestus("migrate", FRAME, "--json", "--data-dir", str(settings.data_dir))
    (item,) = json.loads(out)["migrated"]
    assert (item["frame"], item["earlier"], item["schema"]) == (FRAME.id, "1.2", cube_schema().version)
    assert (item["generation"], item["left_out"]) == (2, [])
    assert item["re_encoded"] > 2


def test_damaged_images_are_left_out_and_made_by_the_next_build(settings, caplog):
    damaged = min(published(settings).store.glob("insar_difference/c.0.0*"))
    content = bytearray(damaged.read_bytes())
    content[len(content) // 2] ^= 1
    damaged.write_bytes(content)
    result = migrate_schema(FRAME, settings)
    assert result.left_out == (f"pair/{PAIR}",)
    assert f"pair/{PAIR} is left out" in caplog.text
    assert verify_generation(published(settings)) == []
    cube = open_pinned_cube(published(settings).store)
    assert not cube.valid_date_pair.sel(
        primary_date=np.datetime64(PAIR.primary), secondary_date=np.datetime64(PAIR.secondary)
    )


@pytest.fixture
def hephaestus(monkeypatch, capsys):
    """Run a command in this process; return its exit code, output and messages."""

    def run(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["hephaestus", *map(str, arguments)])
        code = 0
        try:
            run_console_script()
        except SystemExit as ended:
            code = int(ended.code or 0)
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run


@pytest.mark.parametrize("steps", [3, 12, 30, 45, 60, 90])
def test_a_migration_that_is_killed_goes_on(settings, steps, monkeypatch, tmp_path):
    assert KillSwitch(steps).run(lambda: migrate_schema(FRAME, settings), tmp_path)
    encoded = []
    original = schema_migration._ImageReader.objects

    def count(reader, granule):
        encoded.append(granule.key)
        return original(reader, granule)

    finished = len(frame_store_of(settings, "migration").staging.read_granules())
    monkeypatch.setattr(schema_migration._ImageReader, "objects", count)
    every = sum(bool(granule.objects) for granule in published(settings).read_inventory().granules.values())
    migrate_schema(FRAME, settings)
    assert len(encoded) == every - finished
    assert verify_generation(published(settings)) == []


def killed(*_: object) -> None:
    raise KeyboardInterrupt


@pytest.mark.parametrize(("holder", "step"), [(FrameStore, "_publish"), (StagingArea, "discard")])
def test_a_migration_that_is_killed_once_it_is_complete_is_finished(
    settings, hephaestus, monkeypatch, holder, step
):
    with monkeypatch.context() as patch:
        patch.setattr(holder, step, killed)
        with pytest.raises(KeyboardInterrupt):
            migrate_schema(FRAME, settings)
    option = ("--data-dir", str(settings.data_dir))
    code, out, _ = hephaestus("migrate", *option)
    assert (code, out.count("\n")) == (0, 1)
    assert f"schema 1.2 brought over to {cube_schema().version} as generation 2; 0 granules" in out
    assert verify_cube(published(settings)) == CubeVerification()
    assert not frame_store_of(settings, "migration").staging.folder.exists()
    assert hephaestus("migrate", *option)[1].startswith("nothing to migrate")


def test_a_staging_area_whose_removal_was_cut_off_is_removed_by_the_next_writer(settings, monkeypatch):
    frame_store = frame_store_of(settings, "migration")
    with monkeypatch.context() as patch:
        patch.setattr(staging_module, "remove_folder", killed)
        with pytest.raises(KeyboardInterrupt):
            migrate_schema(FRAME, settings)
    assert list(frame_store.root.glob(".removed-*"))
    with frame_store.lock():
        frame_store.remove_old(keep=2, older_than=timedelta(0))
    assert not list(frame_store.root.glob(".removed-*"))


def test_readers_that_opened_the_earlier_schema_get_errors_and_never_no_data(settings):
    link = frame_store_of(settings).published_link
    with suppress_codec_warnings():
        lazy = xr.open_zarr(link)
        right = xr.open_zarr(link, chunks=None).insar_difference.values
        migrate_schema(FRAME, settings)
        with frame_store_of(settings).lock():
            frame_store_of(settings).remove_old(keep=1, older_than=timedelta(0))
        for place in np.argwhere(right.any(axis=(2, 3))):
            with pytest.raises((RuntimeError, ValueError)):
                lazy.insar_difference[tuple(place)].values  # noqa: B018


def test_a_copy_of_an_earlier_schema_can_still_be_read(settings, tmp_path):
    copy = Path(shutil.copytree(published(settings).store, tmp_path / f"{FRAME}.zarr"))
    with suppress_codec_warnings(), open_pinned_cube(copy) as cube:
        assert cube.insar_difference.any()
    with pytest.raises(HephaestusError, match="hephaestus migrate"):
        WindowReader(copy).read("insar_difference", PAIR, 0, 0, np.empty((3, 3), np.float32))


@pytest.mark.parametrize("name", ["insar_coherence", "zarr.json"])
def test_damage_of_an_earlier_schema_is_brought_over_or_built_again_as_verify_says(settings, name):
    current = published(settings)
    path = (
        next(iter(sorted((current.store / name).rglob("c.*"))))
        if name != "zarr.json"
        else current.store / name
    )
    path.write_bytes(b"x")
    found = verify_cube(current)
    said = found.describe_remedy(str(FRAME), current.store)
    with pytest.raises(HephaestusError) as refusal:
        repair(FRAME, settings)
    assert str(refusal.value).endswith(said)
    if found.remedy == "migrate":
        assert f"`hephaestus migrate {FRAME}`" in said
        assert migrate_schema(FRAME, settings).left_out
        assert verify_cube(published(settings)) == CubeVerification()
    else:
        assert name == "zarr.json"
        assert f"`hephaestus build {FRAME}` builds it again" in said
