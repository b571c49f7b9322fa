"""Tests of full disks and of read-only or vanishing folders: a one-line error and an unchanged cube."""

from __future__ import annotations

import errno
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from archives import (
    ALL,
    FRAME,
    asked,
    copied,
    frame_store_of,
    objects,
    reached,
    settings_for,
)
from hephaestus_build.cli import run_console_script
from hephaestus_build.core.errors import HephaestusError
from hephaestus_build.core.frames import Frame
from hephaestus_build.cube.storage.generations import FrameStore
from hephaestus_build.cube.storage.staging import StagingArea
from hephaestus_build.cube.validation.checksums import verify_generation
from hephaestus_build.operations.batch import build_frames
from hephaestus_build.pipeline.build import build
from hephaestus_build.pipeline.result import BuildResult
from hephaestus_build.simulation.server import faults

pytestmark = pytest.mark.usefixtures("upstream")


@pytest.fixture(scope="module")
def built(archive, tmp_path_factory):
    """Data folder with a cube of all pairs except one."""
    folder = tmp_path_factory.mktemp("built") / "data"
    with reached(archive):
        archive.archive.withdraw(FRAME, archive.archive.pairs(FRAME)[2])
        assert build(ALL, settings_for(folder)).exit_code == 0
    return folder


@pytest.fixture
def disk(tmp_path) -> Iterator[Path]:
    """Separate file system, whose size `resize` sets."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if (
        not shutil.which("mount")
        or os.geteuid() != 0
        or _mount("-t", "tmpfs", "-o", "size=1m", "none", folder)
    ):
        pytest.skip("needs the right to mount a small file system")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def _mount(*arguments: Any) -> int:
    return subprocess.run(["mount", *map(str, arguments)], capture_output=True, check=False).returncode


def resize(disk: Path, size: int) -> None:
    assert _mount("-o", f"remount,size={size}", disk) == 0


def refused(settings, words: str) -> None:
    """Check that the build ends with a one-line error that tells what to do."""
    with pytest.raises(HephaestusError, match=words) as caught:
        build(ALL, settings)
    assert "\n" not in str(caught.value)
    assert caught.value.exit_code == 1


def trial(settings) -> tuple[BuildResult | None, str]:
    """Build, and return the result, or None and the error message."""
    try:
        return build(ALL, settings), ""
    except HephaestusError as error:
        return None, str(error)


@pytest.mark.parametrize("cache", ["on it", "elsewhere"])
def test_a_disk_that_fills_and_is_freed_bit_by_bit(archive, disk, tmp_path, cache):
    cache_dir = None if cache == "on it" else tmp_path / "cache"
    settings = settings_for(disk / "data", cache_dir=cache_dir)
    complaints = []
    for size in range(32 << 10, 4 << 20, 48 << 10):
        resize(disk, size)
        result, complaint = trial(settings)
        if result is not None:
            break
        complaints.append(complaint)
        assert re.fullmatch(".*disk is full.*", complaint), complaint
        assert not frame_store_of(settings).published_link.exists()
    assert len(complaints) > 3
    clean = settings_for(tmp_path / "clean")
    build(ALL, clean)
    assert objects(settings) == objects(clean)
    assert verify_generation(frame_store_of(settings).published_generation()) == []
    assert not any(frame_store_of(settings).root.glob(".draft-*"))


def test_a_full_disk_is_said_while_the_cds_still_has_us_wait(archive, disk, tmp_path):
    archive.cds.queue_polls = 10**6
    resize(disk, 64 << 10)
    settings = settings_for(disk / "data", cache_dir=tmp_path / "cache", era5="cds", era5_deadline=900)
    start = time.monotonic()
    _, complaint = trial(settings)
    assert "disk is full" in complaint
    assert time.monotonic() - start < 300
    archive.cds.queue_polls = 0


def test_a_full_disk_leaves_the_published_cube_and_what_is_finished(archive, built, disk):
    resize(disk, 8 << 20)
    settings = settings_for(copied(built, disk / "data"))
    before, link = objects(settings), frame_store_of(settings).published_link.resolve()
    complaints: list[str] = []
    for room in range(0, 2 << 20, 24 << 10):
        resize(disk, shutil.disk_usage(disk).used + (room if complaints else 0))
        result, complaint = trial(settings)
        if result is not None:
            break
        complaints.append(complaint)
        assert re.fullmatch(".*disk is full.*", complaint), complaint
        assert objects(settings) == before
        assert frame_store_of(settings).published_link.resolve() == link
        assert verify_generation(frame_store_of(settings).published_generation()) == []
    assert len(complaints) > 1
    assert (result.exit_code, result.pairs, result.generation) == (0, 7, 2)


@pytest.mark.parametrize("part", ["cubes", "cache"])
def test_a_disk_that_cannot_be_written(archive, built, disk, part):
    resize(disk, 8 << 20)
    data = copied(built, disk / "data")
    options = {} if part == "cubes" else {"cache_dir": disk / "cache"}
    settings = settings_for(data if part == "cubes" else Path(copied(built, disk.parent / "data")), **options)
    before = objects(settings)
    assert _mount("-o", "remount,ro", disk) == 0
    try:
        refused(settings, "read-only")
        assert objects(settings) == before
        (run,) = build_frames([ALL], settings)
        assert "read-only" in run.error
    finally:
        _mount("-o", "remount,rw", disk)
    assert build(ALL, settings).pairs == 7


def test_a_cache_that_vanishes_in_mid_build_is_made_again(archive, built, tmp_path):
    settings = settings_for(copied(built, tmp_path / "data"))

    def vanish(content: bytes) -> bytes:
        shutil.rmtree(settings.downloads_dir, ignore_errors=True)
        return content

    archive.faults.add(r"\.geo\.diff_pha\.tif$", faults.replace_body(vanish), times=1)
    archive.faults.add(r"\.geo\.cc\.tif$", faults.replace_body(vanish), times=1)
    assert build(ALL, settings).exit_code == 0
    assert verify_generation(frame_store_of(settings).published_generation()) == []
    # removed between two builds, the cache is not needed
    shutil.rmtree(settings.downloads_dir)
    archive.clear_log()
    assert build(ALL, settings).published is False
    assert asked(archive) == set()


def test_a_cache_that_keeps_vanishing_is_said_in_one_line(archive, built, tmp_path):
    settings = settings_for(copied(built, tmp_path / "data"))
    before = objects(settings)

    def vanish(content: bytes) -> bytes:
        shutil.rmtree(settings.downloads_dir, ignore_errors=True)
        return content

    archive.faults.add(r"\.geo\.diff_pha\.tif$", faults.replace_body(vanish))
    refused(settings, "HEPHAESTUS_CACHE_DIR")
    assert objects(settings) == before


def test_a_staging_folder_that_vanishes_is_said_in_one_line(archive, built, tmp_path):
    settings = settings_for(copied(built, tmp_path / "data"))
    before = objects(settings)
    staging = frame_store_of(settings).staging

    def vanish(content: bytes) -> bytes:
        end = time.monotonic() + 200
        while not staging.read_granules() and time.monotonic() < end:  # wait until a pair is built
            time.sleep(0.02)
        shutil.rmtree(staging.folder, ignore_errors=True)
        return content

    archive.archive.reprocess(FRAME, archive.archive.pairs(FRAME)[0])
    archive.faults.add(r"\.geo\.diff\.png$", faults.replace_body(vanish))
    refused(settings, "vanished")
    assert objects(settings) == before
    archive.reset()
    assert build(ALL, settings).exit_code == 0


def test_a_cache_within_its_limit_serves_a_build_larger_than_it(archive, tmp_path):
    settings = settings_for(tmp_path / "data", cache_limit_gb=2e-5)
    assert build(ALL, settings).exit_code == 0
    kept = [path for path in (settings.downloads_dir / "licsar").rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in kept) < 60_000
    assert verify_generation(frame_store_of(settings).published_generation()) == []


def test_a_data_folder_that_is_a_file_or_below_one(archive, tmp_path):
    (tmp_path / "file").write_text("")
    for data in (tmp_path / "file", tmp_path / "file" / "data"):
        refused(settings_for(data), "HEPHAESTUS_DATA_DIR")


def hephaestus(*arguments: str) -> list[str]:
    """Return the command line for a separate process."""
    return [sys.executable, "-m", "hephaestus_build", *arguments]


def run(*arguments: str, data: Path, limit: int) -> subprocess.CompletedProcess[str]:
    """Run a command in a separate process, with a limit on the size of its files."""

    def limited() -> None:
        import resource

        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

    # without this, .pyc files truncated at the limit would remain and break later imports
    settings = {"HEPHAESTUS_DATA_DIR": str(data), "HEPHAESTUS_TIMEOUT": "10", "PYTHONDONTWRITEBYTECODE": "1"}
    return subprocess.run(
        hephaestus(*arguments),
        env=os.environ | settings,
        preexec_fn=limited,
        capture_output=True,
        text=True,
        timeout=400,
        check=False,
    )


@pytest.mark.parametrize("limit", [2_000, 15_000])
def test_a_limit_on_files_ends_in_one_line_and_exit_code_1(archive, built, tmp_path, limit):
    data = copied(built, tmp_path / "data")
    settings = settings_for(data)
    before = objects(settings)
    ended = run("build", FRAME.id, "--pairs", "all", "--no-quicklook", data=data, limit=limit)
    assert ended.returncode == 1, ended.stderr
    assert "Traceback" not in ended.stderr
    assert "limit on file sizes" in ended.stderr
    complaints = [line for line in ended.stderr.splitlines() if line.startswith("hephaestus:")]
    assert len(complaints) == 1
    assert objects(settings) == before
    assert verify_generation(frame_store_of(settings).published_generation()) == []
    assert build(ALL, settings).exit_code == 0


@pytest.mark.parametrize("kind", ["dem", "absent", "pair", "mask", "epoch"])
def test_a_disk_that_refuses_any_granule_is_one_line(archive, tmp_path, monkeypatch, kind):
    archive.archive.withdraw(FRAME, archive.archive.pairs(FRAME)[2])
    add, refused = StagingArea.add, []

    def refuse(staging, granule, contents):
        if (granule.kind if granule.is_complete else "absent") == kind:
            refused.append(granule)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return add(staging, granule, contents)

    monkeypatch.setattr(StagingArea, "add", refuse)
    with pytest.raises(HephaestusError, match=f"^{FRAME}: storing .*the disk is full"):
        build(ALL, settings_for(tmp_path))
    assert refused


@pytest.mark.parametrize("command", ["status", "verify", "repair", "gc"])
def test_whatever_the_system_refuses_a_command_is_one_line(built, tmp_path, monkeypatch, capsys, command):
    data = copied(built, tmp_path / "data")
    monkeypatch.setenv("HEPHAESTUS_DATA_DIR", str(data))
    monkeypatch.setattr(sys, "argv", ["hephaestus", command, FRAME.id])

    def refuse(*_: Any, **__: Any) -> None:
        raise OSError(5, "Input/output error", "somewhere")

    monkeypatch.setattr(FrameStore, "published_generation", refuse)
    with pytest.raises(SystemExit) as ended:
        run_console_script()
    assert ended.value.code == 1
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 1
    assert "Input/output error" in said[0]


def test_ctrl_c_is_one_line_and_130_and_leaves_no_lock(archive, tmp_path):
    data = tmp_path / "data"
    archive.faults.add(r"\.geo\.cc\.tif$", faults.stall_body())
    environment = os.environ | {"HEPHAESTUS_DATA_DIR": str(data), "HEPHAESTUS_TIMEOUT": "600"}
    with subprocess.Popen(
        hephaestus("watch", FRAME.id),
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # background jobs of a shell, and their children, ignore SIGINT
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    ) as process:
        deadline = time.monotonic() + 240
        while not any(path.endswith(".tif") for path in asked(archive)) and time.monotonic() < deadline:
            time.sleep(0.05)
        clock = time.monotonic()
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=240)
        assert time.monotonic() - clock < 200
    assert process.returncode == 130
    assert out == ""
    assert err.splitlines() == ["hephaestus: stopped; the same command goes on from here"]
    archive.reset()
    assert build(ALL, settings_for(data)).exit_code == 0


def test_the_lock_is_said_or_waited_for(archive, built, tmp_path):
    settings = settings_for(copied(built, tmp_path / "data"))
    with frame_store_of(settings).lock():
        with pytest.raises(HephaestusError, match=rf"another build .*process {os.getpid()} on .*--wait"):
            build(ALL, settings)
        waiting = subprocess.Popen(
            hephaestus("build", FRAME.id, "--wait", "--no-quicklook", "--pairs", "all"),
            env=os.environ | {"HEPHAESTUS_DATA_DIR": str(settings.real_data_dir)},
        )
        time.sleep(4)
        assert waiting.poll() is None
        assert objects(settings)
    assert waiting.wait(timeout=240) == 0
    assert frame_store_of(settings).published_generation().number == 2


def test_an_unknown_thing_among_the_cubes_is_left_alone(archive, built, tmp_path):
    settings = settings_for(copied(built, tmp_path / "data"))
    link = settings.cubes_dir / "199A_00001_000001.zarr"
    link.symlink_to(tmp_path)
    with pytest.raises(HephaestusError, match="did not make; move it away"):
        FrameStore(settings.cubes_dir, Frame("199A_00001_000001")).published_generation()
    assert link.is_symlink()
