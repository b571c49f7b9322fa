"""Tests of WebDataset exports that are killed: no shard looks whole that is not, and the command goes on."""

from __future__ import annotations

import hashlib
import json
import random
import signal
import subprocess
import sys
import tarfile
import time
from pathlib import Path

import pytest

from hephaestus_build.cli.shard_selection import select_shard_samples
from hephaestus_build.export.webdataset import ShardExport, export_webdataset
from kill_switch import KillSwitch
from toy_cube import toy_cube

#: Of this size every shard of at most 1 MB holds one interferogram.
SIZE = 128
ARGUMENTS = ("--to", "webdataset", "--size", str(SIZE), "--shard-mb", "1")


@pytest.fixture(scope="module")
def cube(tmp_path_factory) -> Path:
    return toy_cube(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def clean(cube, tmp_path_factory) -> dict[str, bytes]:
    """The files of an export that nothing disturbed."""
    folder = tmp_path_factory.mktemp("clean") / "out"
    export(cube, folder)
    return files(folder)


def export(cube: Path, folder: Path, *, size: int = SIZE, force: bool = False) -> ShardExport:
    samples, split = select_shard_samples([cube], [], None, None)
    return export_webdataset(samples, folder, size=size, shard_bytes=1_000_000, split=split, force=force)


def files(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()
    }


def check_nothing_half_looks_whole(folder: Path, clean: dict[str, bytes]) -> None:
    """Check that every shard is whole, that the index is right, and that only a whole export has its sums."""
    there = {name: content for name, content in files(folder).items() if not Path(name).name.startswith(".")}
    for name, content in there.items():
        if name.endswith(".tar"):
            assert content == clean[name]
    if "index.json" in there:
        for shard in json.loads(there["index.json"])["shards"]:
            if shard["sha256"]:
                assert hashlib.sha256(there[shard["path"]]).hexdigest() == shard["sha256"]
    if "SHA256SUMS" in there:
        assert there == clean


def test_an_export_that_is_killed_between_changes_goes_on_to_the_same_bytes(cube, clean, tmp_path):
    changes = KillSwitch(10_000)
    assert not changes.run(lambda: export(cube, tmp_path / "whole"), tmp_path)
    assert changes.passed > 4 * 3  # four shards, each with a draft, a rename and an index
    for steps in [*range(8), *sorted(random.Random(3).sample(range(8, changes.passed), 7))]:
        folder = tmp_path / f"killed-{steps}"
        assert KillSwitch(steps).run(lambda at=folder: export(cube, at), tmp_path)
        check_nothing_half_looks_whole(folder, clean)
        finished = {name for name in files(folder) if name in clean and name.endswith(".tar")}
        done = export(cube, folder)
        # the last shard may stand there whole without being in the index yet
        assert done.kept >= len(finished) - 1
        assert files(folder) == clean


def test_a_replaced_export_that_is_killed_has_no_sums_of_shards_that_are_gone(cube, clean, tmp_path):
    for steps in (0, 1, 3, 9):
        folder = tmp_path / f"killed-{steps}"
        export(cube, folder, size=48)
        assert KillSwitch(steps, "SHA256SUMS").run(lambda at=folder: export(cube, at, force=True), tmp_path)
        there = files(folder)
        for line in there.get("SHA256SUMS", b"").decode().splitlines():
            digest, name = line.split("  ")
            assert hashlib.sha256(there[name]).hexdigest() == digest
        export(cube, folder, force=True)
        assert files(folder) == clean


def test_processes_that_are_killed_at_random_leave_nothing_that_looks_whole(cube, clean, tmp_path):
    rng, folder = random.Random(7), tmp_path / "out"
    command = [
        sys.executable,
        "-m",
        "hephaestus_build",
        "export",
        str(cube),
        *ARGUMENTS,
        "--out",
        str(folder),
    ]
    for _ in range(3):
        with subprocess.Popen(
            command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
        ) as process:
            while not folder.is_dir() and process.poll() is None:
                time.sleep(0.001)
            time.sleep(rng.uniform(0, 0.12))
            process.send_signal(signal.SIGKILL)
            _, err = process.communicate(timeout=60)
        assert process.returncode in (0, -signal.SIGKILL), err
        check_nothing_half_looks_whole(folder, clean)
    export(cube, folder)
    assert files(folder) == clean
    for name in clean:
        if name.endswith(".tar"):
            with tarfile.open(folder / name) as archive:
                assert archive.getnames()
