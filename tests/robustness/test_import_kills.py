"""Tests of imports that are killed: no cube is ever half there, and what was read is not read again."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from archives import FRAME, frame_store_of, objects, settings_for
from hephaestus_build.cube.validation.checksums import verify_generation
from hephaestus_build.published.cube_import import import_cube
from hephaestus_build.published.found_cubes import find_published_cubes
from hephaestus_build.published.published_cube import PublishedCube
from kill_switch import KillSwitch
from published_cubes import pack_cube, write_published_cube
from toy_published import PAIRS, toy_published


@pytest.fixture(scope="module")
def tar(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("published")
    return pack_cube(write_published_cube(toy_published(), folder), folder / f"{FRAME}.tar")


@pytest.fixture(scope="module")
def clean(tar, tmp_path_factory) -> Path:
    """The data folder of an import that nothing disturbed."""
    data = tmp_path_factory.mktemp("clean")
    import_tar(tar, data)
    return data


def import_tar(tar: Path, data: Path):
    [found] = find_published_cubes(tar)
    return import_cube(PublishedCube.open(found.objects, found.frame), settings_for(data))


def read_products(monkeypatch) -> list[str]:
    """Return a list to which the products are added that an import reads from now on."""
    read: list[str] = []
    original = PublishedCube._read

    def count(cube, product, *arguments):
        read.append(product)
        return original(cube, product, *arguments)

    monkeypatch.setattr(PublishedCube, "_read", count)
    return read


@pytest.mark.parametrize("steps", [4, 60, 130, 220, 400, 870])
def test_an_import_that_is_killed_goes_on_and_ends_as_one_that_was_not(
    steps, tar, clean, tmp_path, monkeypatch
):
    data = tmp_path / "data"
    store = frame_store_of(settings_for(data))
    killed = KillSwitch(steps).run(lambda: import_tar(tar, data), tmp_path)
    current = store.published_generation()
    assert killed
    if current is not None:
        assert verify_generation(current) == []
    finished = store.staging.read_granules() if current is None else current.read_inventory().granules
    done = {receipt.product for granule in finished.values() for receipt in granule.receipts}
    read = read_products(monkeypatch)
    result = import_tar(tar, data)
    assert (result.built.exit_code, result.imported) == (0, len(PAIRS))
    # the heights are read once more where the grid was not yet settled
    assert done.isdisjoint(set(read) - {"dem", f"{PAIRS[0]}.insar_difference"})
    assert verify_generation(store.published_generation()) == []
    assert objects(settings_for(data)).keys() == objects(settings_for(clean)).keys()
    here, there = (objects(settings_for(folder)) for folder in (data, clean))
    images = [path for path in there if "/c." in path and path.startswith(("insar", "dem", "deformation"))]
    assert len(images) > 6 * len(PAIRS)
    assert all(here[path] == there[path] for path in images)


def test_a_command_that_is_terminated_says_so_and_leaves_no_half_cube(tar, tmp_path):
    data = tmp_path / "data"
    with subprocess.Popen(
        [sys.executable, "-m", "hephaestus_build", "import", str(tar), "--data-dir", str(data)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        store = frame_store_of(settings_for(data))
        deadline = time.monotonic() + 60
        while not store.root.is_dir() and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.01)
        process.send_signal(signal.SIGTERM)
        _, err = process.communicate(timeout=60)
    assert process.returncode in (0, 143), err
    assert "Traceback" not in err
    current = store.published_generation()
    assert current is None or verify_generation(current) == []
    assert import_tar(tar, data).built.exit_code == 0
