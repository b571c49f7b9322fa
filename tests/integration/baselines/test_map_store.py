"""Tests of adding and replacing maps: readers see complete old or new maps, even if a writer is killed."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

import hephaestus_baselines.mapping.growing_arrays
import toy_cube
from checkout import SUPPORT
from hephaestus_baselines.mapping.growing_arrays import REPLACED_FILES_GRACE, GrowingArrays
from hephaestus_baselines.mapping.map_store import PROBABILITY_VARIABLE
from hephaestus_build.core.errors import HephaestusError, UsageError
from hephaestus_build.core.frames import Pair
from hephaestus_build.cube.reading.dataset import open_pinned_cube
from toy_benchmark import toy_cubes
from toy_maps import NAMES, made, store

FRAME = toy_cube.FRAME


@pytest.fixture(scope="module")
def cube(tmp_path_factory):
    folder = toy_cubes(tmp_path_factory.mktemp("cubes"))
    with open_pinned_cube(folder / f"{FRAME}.zarr", chunks=None) as dataset:
        yield dataset.load()


def seen(dataset: xr.Dataset) -> dict[str, int]:
    """Return pairs and numbers of images of a group, after checking every pixel."""
    images = dataset["images"].values
    np.testing.assert_array_equal(dataset[PROBABILITY_VARIABLE].values * 4096, np.broadcast_to(
        images[:, None, None], dataset[PROBABILITY_VARIABLE].shape
    ))  # fmt: skip
    days = zip(dataset.primary_date.values, dataset.secondary_date.values[:, 0], strict=True)
    names = [f"{first:%Y%m%d}_{second:%Y%m%d}" for first, second in map(_dates, days)]
    return dict(zip(names, images.tolist(), strict=True))


def _dates(pair):
    return tuple(day.astype("datetime64[D]").item() for day in pair)


def look(path: Path) -> dict[str, int]:
    found = []
    for consolidated in (True, False):
        with xr.open_zarr(path / f"{FRAME}.zarr", consolidated=consolidated) as dataset:
            found.append(seen(dataset))
    assert found[0] == found[1]
    return found[0]


def test_a_reader_keeps_what_it_opened_while_maps_are_added_and_replaced(cube, tmp_path):
    first = store(tmp_path, cube)
    for name in NAMES[:2]:
        first.write_map(made(cube, name, 1))
    with xr.open_zarr(tmp_path / f"{FRAME}.zarr") as before:
        first.write_map(made(cube, NAMES[2], 1))
        again = store(tmp_path, cube)
        again.write_map(made(cube, NAMES[0], 2))
        with xr.open_zarr(tmp_path / f"{FRAME}.zarr") as between:
            again.write_map(made(cube, NAMES[1], 2))
            store(tmp_path, cube).remove_leftovers()
            assert seen(before) == {NAMES[0]: 1, NAMES[1]: 1}
            assert seen(between) == {NAMES[0]: 2, NAMES[1]: 1, NAMES[2]: 1}
    assert look(tmp_path) == {NAMES[0]: 2, NAMES[1]: 2, NAMES[2]: 1}


def test_maps_replaced_together_are_shown_together_and_those_that_stay_are_not_written(cube, tmp_path):
    one = store(tmp_path, cube)
    for name in NAMES:
        one.write_map(made(cube, name, 1))
    for name in NAMES[:2]:
        one.write_map(made(cube, name, 2), publish=False)
        assert look(tmp_path) == dict.fromkeys(NAMES, 1)
        assert one.has_map((Pair.parse(name),), 2)
    one.publish_replacements()
    assert look(tmp_path) == {NAMES[0]: 2, NAMES[1]: 2, NAMES[2]: 1}
    array = tmp_path / f"{FRAME}.zarr" / PROBABILITY_VARIABLE
    assert (array / "c/2/0/0").samefile(array / "c.2.0.0")


def test_replaced_maps_go_when_nobody_reads_them_any_more(cube, tmp_path):
    for images in range(1, 7):  # more maps than names
        store(tmp_path, cube).write_map(made(cube, NAMES[0], images))
        assert look(tmp_path) == {NAMES[0]: images}
    array = tmp_path / f"{FRAME}.zarr" / PROBABILITY_VARIABLE
    assert len([path for path in array.rglob("*") if path.is_file()]) == 1 + 3
    old = time.time() - REPLACED_FILES_GRACE - 60
    for path in array.parent.rglob("*"):
        if path.is_file():
            os.utime(path, (old, old))
    store(tmp_path, cube).remove_leftovers()
    assert len([path for path in array.rglob("*") if path.is_file()]) == 1 + 1
    assert look(tmp_path) == {NAMES[0]: 6}


class Killed(BaseException):
    """Simulated end of the process; no cleanup follows."""


def dying(at: int, monkeypatch) -> None:
    """End the simulated process before or after its `at`-th change of the disk."""
    count = [0]

    def after(work):
        def touch(*arguments, **options):
            for moment in (0, 1):
                if count[0] == at:
                    raise Killed
                count[0] += 1
                if moment == 0:
                    work(*arguments, **options)

        return touch

    for name in ("write_atomic", "link_or_copy"):
        monkeypatch.setattr(
            hephaestus_baselines.mapping.growing_arrays,
            name,
            after(getattr(hephaestus_baselines.mapping.growing_arrays, name)),
        )


@pytest.mark.parametrize("act", ["add", "replace"])
def test_whenever_a_writer_dies_there_is_the_old_map_or_the_new_one(act, cube, tmp_path):
    name = NAMES[2] if act == "add" else NAMES[0]
    before = dict.fromkeys(NAMES[:2], 1)
    ends = set()
    one = store(tmp_path / "first", cube)
    for known in NAMES[:2]:
        one.write_map(made(cube, known, 1))
    for at in range(100):
        folder = shutil.copytree(tmp_path / "first", tmp_path / str(at))
        with xr.open_zarr(folder / f"{FRAME}.zarr") as reader, pytest.MonkeyPatch.context() as patch:
            dying(at, patch)
            try:
                store(folder, cube).write_map(made(cube, name, 2))
                break
            except Killed:
                pass
            assert seen(reader) == before
        with xr.open_zarr(folder / f"{FRAME}.zarr", consolidated=True) as dataset:
            found = seen(dataset)
        assert found in (before, {**before, name: 2})
        ends.add(found == before)
        after = store(folder, cube)
        after.remove_leftovers()
        assert look(folder) == found
        after.write_map(made(cube, name, 3))
        assert look(folder) == {**before, name: 3}
    assert at > 8
    assert ends == {True, False}


_VICTIM = """
import sys; sys.path[:0] = sys.argv[3:]
from pathlib import Path
import toy_cube, toy_maps
from hephaestus_build.cube.reading.dataset import open_pinned_cube
cube = open_pinned_cube(sys.argv[1], chunks=None).load()
print("ready", flush=True)
for images in range(1, 4000):
    one = toy_maps.store(Path(sys.argv[2]), cube)
    one.remove_leftovers()
    for name in toy_maps.NAMES:
        one.write_map(toy_maps.made(cube, name, images), publish=False)
    one.publish_replacements()
"""


@pytest.mark.skipif(sys.platform == "win32", reason="signals")
def test_killed_at_random_moments(tmp_path):
    cubes = toy_cubes(tmp_path / "cubes")
    chance = np.random.default_rng(3)
    command = [sys.executable, "-W", "ignore", "-c", _VICTIM, str(cubes / f"{FRAME}.zarr")]
    for _ in range(int(os.environ.get("MAP_KILLS", "2"))):
        with subprocess.Popen(
            [*command, str(tmp_path / "maps"), str(SUPPORT)], stdout=subprocess.PIPE
        ) as victim:
            assert victim.stdout
            assert victim.stdout.readline() == b"ready\n"
            time.sleep(float(chance.uniform(0.05, 1.0)))
            victim.send_signal(signal.SIGKILL)
        if (tmp_path / "maps" / f"{FRAME}.zarr").exists():
            with xr.open_zarr(tmp_path / "maps" / f"{FRAME}.zarr", consolidated=True) as dataset:
                assert len(set(seen(dataset).values())) in (0, 1)


def test_nothing_is_written_through_a_link(cube, tmp_path):
    store(tmp_path / "elsewhere", cube).write_map(made(cube, NAMES[0], 1))
    (tmp_path / "maps").mkdir()
    (tmp_path / "maps" / f"{FRAME}.zarr").symlink_to(tmp_path / "elsewhere" / f"{FRAME}.zarr")
    with pytest.raises(UsageError, match=r"it is a link or a file, not a folder.*move .* away"):
        store(tmp_path / "maps", cube)
    inside = tmp_path / "elsewhere" / f"{FRAME}.zarr" / PROBABILITY_VARIABLE
    inside.rename(tmp_path / "array")
    inside.symlink_to(tmp_path / "array")
    before = sorted(path.name for path in (tmp_path / "array").rglob("*"))
    for name in NAMES[:2]:
        with pytest.raises(HephaestusError, match="is a link or a file, and must be a folder"):
            store(tmp_path / "elsewhere", cube).write_map(made(cube, name, 2))
    assert sorted(path.name for path in (tmp_path / "array").rglob("*")) == before


def test_a_full_disk_is_one_line_and_the_old_maps_stay(cube, tmp_path, monkeypatch):
    one = store(tmp_path, cube)
    one.write_map(made(cube, NAMES[0], 1))

    def full(*_, **__):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "x")

    with monkeypatch.context() as patch:
        patch.setattr(hephaestus_baselines.mapping.growing_arrays, "write_atomic", full)
        for name in NAMES[:2]:
            with pytest.raises(HephaestusError, match=r"the disk is full.* set --to to another"):
                store(tmp_path, cube).write_map(made(cube, name, 2))
    assert look(tmp_path) == {NAMES[0]: 1}


@pytest.mark.parametrize(
    "content", ["", "[]", "{}", '{"consolidated_metadata": {"metadata": {}}}', "[" * 5000]
)
def test_a_folder_that_is_no_group_of_maps_is_left_alone(content, cube, tmp_path):
    path = tmp_path / f"{FRAME}.zarr"
    path.mkdir()
    (path / "zarr.json").write_text(content)
    with pytest.raises(UsageError, match="is not a group of maps"):
        store(tmp_path, cube)
    assert (path / "zarr.json").read_text() == content


def test_what_is_published_is_not_written_again(cube, tmp_path):
    store(tmp_path, cube).write_map(made(cube, NAMES[0], 1))
    arrays = GrowingArrays(tmp_path / f"{FRAME}.zarr", (PROBABILITY_VARIABLE, "images"))
    with pytest.raises(ValueError, match="never overwritten"):
        arrays.write_new_chunk(PROBABILITY_VARIABLE, 0, np.zeros((1, 70, 80), "f4"))
