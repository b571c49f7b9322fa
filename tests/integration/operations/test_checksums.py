"""Tests that a flipped bit anywhere in a cube is found and named, and that status reads the record."""

import os
import random
import shutil
from datetime import date
from pathlib import Path

import pytest

from bit_flips import flip_bit
from hephaestus_build.core.frames import Frame
from hephaestus_build.core.settings import load_settings
from hephaestus_build.cube.inventory import CubeInventory
from hephaestus_build.cube.storage.generations import FrameStore
from hephaestus_build.cube.validation.checksums import verify_generation, verify_objects
from hephaestus_build.operations.status import list_frames_on_disk, read_frame_status
from toy_cube import FRAME, PAIRS, toy_cube


@pytest.fixture(scope="module")
def pristine(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("pristine")
    toy_cube(folder / "cubes")
    return folder


@pytest.fixture
def frame_store(pristine, tmp_path) -> FrameStore:
    shutil.copytree(pristine, tmp_path / "data", symlinks=True)
    return FrameStore(tmp_path / "data" / "cubes", Frame(FRAME))


def test_a_whole_cube_has_no_damage(frame_store):
    assert verify_generation(frame_store.published_generation()) == []


def test_one_bit_in_any_file_is_found_and_named(frame_store):
    generation = frame_store.published_generation()
    chance = random.Random(0)
    files = sorted(path for path in generation.store.rglob("*") if path.is_file())
    assert len(files) > 40
    for path in files:
        before = path.read_bytes()
        flip_bit(path, chance)
        name = str(path.relative_to(generation.store))
        found = [damage for damage in verify_generation(generation) if damage.path == name]
        path.write_bytes(before)
        assert found, f"a flipped bit in {name} was not found"
        if "/c." in name:
            assert found[0].variable == name.rpartition("/")[0]
        if name.startswith("insar_") and "/c." in name:
            assert found[0].unit.startswith("pair/2019")
    assert verify_generation(generation) == []


def test_a_manifest_of_another_generation_is_the_one_that_is_named(tmp_path):
    for pairs in (PAIRS[:1], PAIRS):
        toy_cube(tmp_path / "cubes", pairs=pairs)
    frame_store = FrameStore(tmp_path / "cubes", Frame(FRAME))
    folder = frame_store.root / "000002"
    right = (folder / "manifest.json").read_bytes()
    for path in (folder / "manifest.json", folder / f"{FRAME}.zarr" / "manifest.json"):
        path.write_bytes((frame_store.root / "000001" / "manifest.json").read_bytes())
        (damage,) = verify_generation(frame_store.published_generation())
        assert damage.path.endswith("manifest.json")
        assert damage.path.startswith("../") == (path.parent == folder)
        record = CubeInventory.decode((folder / "provenance.json").read_bytes())
        assert frame_store.published_generation().read_inventory().granules == record.granules
        path.write_bytes(right)


def test_the_damaged_pair_and_variable_are_in_the_sentence(frame_store):
    generation = frame_store.published_generation()
    path = next((generation.store / "insar_coherence").glob("c.*"))
    flip_bit(path, random.Random(1))
    (damage,) = verify_generation(generation)
    assert str(damage).startswith("insar_coherence of pair/2019")
    assert "damaged" in str(damage)


def test_missing_and_unknown_files_are_found(frame_store):
    generation = frame_store.published_generation()
    gone = generation.store / "dem" / "c.0.0"
    gone.unlink()
    stranger = generation.store / "dem" / "c.9.9"
    stranger.write_bytes(b"x")
    found = {damage.path: damage.what for damage in verify_generation(generation)}
    assert found == {"dem/c.0.0": "missing", "dem/c.9.9": "unknown"}


def test_status_counts_what_is_stored_owed_and_late(frame_store):
    settings = load_settings(data_dir=frame_store.published_link.parent.parent)
    assert [frame.id for frame in list_frames_on_disk(settings)] == [FRAME]
    status = read_frame_status(settings, Frame(FRAME), today=date(2019, 3, 1))
    assert (status.pairs, len(status.absent), status.generation) == (5, 1, 1)
    assert status.newest == date(2019, 2, 6)
    assert status.latency_days == 23
    assert [item.unit for item in status.owed] == ["pair/20190125_20190218"]
    assert status.simulated
    assert status.bytes > 10_000


def test_status_says_what_it_cannot_read(frame_store):
    settings = load_settings(data_dir=frame_store.published_link.parent.parent)
    for folder in frame_store.published_generation().record_folders:
        (folder / "provenance.json").write_text("{")
    assert "repair" in read_frame_status(settings, Frame(FRAME)).problem
    assert read_frame_status(settings, Frame("199A_00001_000001")).problem == "not built"


def test_old_generations_stay_until_they_are_old_and_never_the_published_one(tmp_path):
    for _ in range(3):
        toy_cube(tmp_path / "cubes")
    frame_store = FrameStore(tmp_path / "cubes", Frame(FRAME))
    from datetime import timedelta

    assert frame_store.generation_numbers() == [1, 2, 3]
    assert frame_store.remove_old(keep=1, older_than=timedelta(days=1)) == []
    for number in (2, 3):
        os.utime(frame_store.root / f"{number:06d}" / "manifest.json", (0, 0))
        os.utime(frame_store.root / f"{number:06d}" / f"{FRAME}.zarr" / "manifest.json", (0, 0))
    assert frame_store.remove_old(keep=2, older_than=timedelta(days=1)) == [1]
    assert frame_store.remove_old(keep=1, older_than=timedelta(days=1)) == [2]
    assert frame_store.published_generation().number == 3
    assert verify_generation(frame_store.published_generation()) == []


def test_some_objects_are_checked_by_the_manifest_alone(frame_store):
    generation = frame_store.published_generation()
    paths = sorted(path for path in generation.read_manifest() if path.startswith("insar_") and "/c." in path)
    assert verify_objects(generation) == verify_objects(generation, paths) == []
    bad, other = paths[0], paths[-1]
    flip_bit(generation.store / bad, random.Random(3))
    (generation.store / other).unlink()
    assert verify_objects(generation, paths[1:-1]) == []
    found = {damage.path: (damage.what, damage.unit[:9]) for damage in verify_objects(generation)}
    assert found == {bad: ("damaged", "pair/2019"), other: ("missing", "pair/2019")}
    assert [damage.path for damage in verify_objects(generation, [bad, bad])] == [bad]
    # not listed: nothing is stored there, or something that nobody published
    assert verify_objects(generation, ["insar_difference/c.0.4.0.0", "../../x"]) == []
    (generation.store / "dem" / "c.7.7").write_bytes(b"x")
    assert [damage.what for damage in verify_objects(generation, ["dem/c.7.7"])] == ["unknown"]
