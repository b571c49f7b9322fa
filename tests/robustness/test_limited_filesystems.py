"""Tests of file systems that lack links, locks or flushing: cubes are published with what there is."""

from __future__ import annotations

import errno
import json
import logging
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

import toy_cube
from hephaestus_build.core.errors import HephaestusError
from hephaestus_build.core.filesystem import exchange, locks
from hephaestus_build.core.filesystem.locks import try_lock_file
from hephaestus_build.core.frames import Frame
from hephaestus_build.core.settings import load_settings
from hephaestus_build.cube.discovery import find_cube
from hephaestus_build.cube.reading.dataset import open_pinned_cube
from hephaestus_build.cube.reading.window_reader import WindowReader
from hephaestus_build.cube.storage import published_name
from hephaestus_build.cube.storage.generations import FrameStore, Generation
from hephaestus_build.cube.storage.migration import frames_to_migrate, migrate_cube
from hephaestus_build.cube.validation.checksums import verify_generation
from hephaestus_build.operations.status import read_frame_status
from limited_filesystem import CIFS, EXFAT, build_shim, limit_calls, shim_environment
from toy_cube import FRAME, PAIRS

LIMITS: dict[str, dict[str, int]] = {
    "exFAT": EXFAT,
    "SMB": CIFS,
    "drvfs": {"SYMLINK": errno.EROFS},
    "vboxsf": {"SYMLINK": errno.EROFS, "DIRSYNC": errno.EINVAL, "LINK": errno.EPERM, "FLOCK": errno.EIO},
    "NFS without its lock daemon": {"FLOCK": errno.ENOLCK, "LINK": errno.EINVAL},
    "links refused": {"LINK": errno.EMLINK, "SYMLINK": errno.EACCES, "FLOCK": errno.ENOSYS},
}


@pytest.fixture(autouse=True)
def _warnings_anew(monkeypatch) -> None:
    monkeypatch.setattr(locks, "_warned", set())


@pytest.fixture
def cubes(tmp_path) -> Path:
    return tmp_path / "data" / "simulated" / "cubes"


@pytest.fixture
def exfat(monkeypatch, cubes) -> None:
    limit_calls(monkeypatch, cubes, **EXFAT)


@pytest.fixture(params=["exchange of names", "two renames"])
def renames(request, monkeypatch) -> str:
    if request.param == "two renames":
        monkeypatch.setattr(published_name, "exchange_names", lambda *_: False)
    return request.param


def frame_store_in(cubes: Path) -> FrameStore:
    return FrameStore(cubes, Frame(FRAME))


def names_in(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


@pytest.mark.parametrize("kind", LIMITS)
def test_generations_are_published_with_what_the_file_system_has(cubes, monkeypatch, kind) -> None:
    limit_calls(monkeypatch, cubes, **LIMITS[kind])
    link = toy_cube.toy_cube(cubes, pairs=PAIRS[:2])
    assert link.is_symlink() is ("SYMLINK" not in LIMITS[kind])
    pinned, windows = open_pinned_cube(link, chunks=None), WindowReader(link)
    before = pinned.insar_difference.values
    toy_cube.toy_cube(cubes)
    # a reader that pinned the first generation keeps it; by name there is the second, for plain xarray too
    assert "000001" in pinned.encoding["source"]
    np.testing.assert_array_equal(pinned.insar_difference.values, before)
    assert windows.store == Path(pinned.encoding["source"])
    by_name, newest = xr.open_zarr(link), open_pinned_cube(link)
    assert "000002" in newest.encoding["source"]
    xr.testing.assert_equal(by_name.drop_attrs(), newest.drop_attrs())
    current = frame_store_in(cubes).published_generation()
    assert (current.number, verify_generation(current)) == (2, [])
    assert Generation.from_path(link).number == 2
    with frame_store_in(cubes).lock():
        assert frame_store_in(cubes).remove_old(keep=1, older_than=timedelta(0)) == [1]
    assert verify_generation(frame_store_in(cubes).published_generation()) == []
    assert names_in(cubes) == {".generations", f"{FRAME}.zarr"}
    assert names_in(frame_store_in(cubes).root) - {"lock"} == {"000002"}
    assert read_frame_status(load_settings(data_dir=cubes.parents[1]), Frame(FRAME)).problem == ""


@pytest.mark.usefixtures("exfat")
def test_a_flipped_bit_in_the_published_folder_is_found(cubes) -> None:
    link = toy_cube.toy_cube(cubes)
    for path in (link / "dem" / "c.0.0", link / "manifest.json"):
        content = path.read_bytes()
        path.write_bytes(content[:-9] + bytes([content[-9] ^ 1]) + content[-8:])
        (damage,) = verify_generation(frame_store_in(cubes).published_generation())
        assert damage.detail.endswith("in the published folder")
        assert verify_generation(Generation.from_path(link)) == [damage]
        assert not damage.unit  # nothing must be fetched to mend it
        path.write_bytes(content)
    assert verify_generation(frame_store_in(cubes).published_generation()) == []


@pytest.mark.usefixtures("exfat")
def test_a_publication_during_a_comparison_is_no_damage(cubes) -> None:
    toy_cube.toy_cube(cubes, pairs=PAIRS[:1])
    overtaken = frame_store_in(cubes).published_generation()
    toy_cube.toy_cube(cubes, pairs=PAIRS[:2])
    assert verify_generation(overtaken) == []


class CutError(Exception):
    """The process ends here."""


def test_a_publication_that_is_killed_anywhere_is_finished_by_the_next_command(
    cubes, monkeypatch, renames
) -> None:
    """Each change of the disk of the second publication is the last one once."""
    limit_calls(monkeypatch, cubes, SYMLINK=errno.EPERM)
    for pairs in (PAIRS[:1], PAIRS[:2]):
        toy_cube.toy_cube(cubes, pairs=pairs)
    settings, frame_store = load_settings(data_dir=cubes.parents[1]), frame_store_in(cubes)
    calls = ((os, "rename"), (published_name, "copy_store"), (published_name, "exchange_names"))
    seen = set()
    for allowed in range(1000):
        frame_store._publish(1)
        left, ended = [allowed], True
        with monkeypatch.context() as patch:
            for owner, call in calls:
                patch.setattr(owner, call, _counted(getattr(owner, call), left))
            try:
                frame_store._publish(2)
            except CutError:
                ended = False
        if not os.path.lexists(frame_store.published_link):
            seen.add("no name")
            with pytest.raises(HephaestusError, match=r"interrupted.*`hephaestus repair"):
                find_cube(FRAME, settings)
            assert "not published" in read_frame_status(settings, Frame(FRAME)).problem
        else:
            current = frame_store.published_generation()
            seen.add(current.number)
            assert verify_generation(current) == []
        with frame_store.lock():
            frame_store.remove_leftovers()
        current = frame_store.published_generation()
        assert (current.number, verify_generation(current)) == (2, [])
        assert names_in(cubes) == {".generations", f"{FRAME}.zarr"}
        if ended:
            break
    assert seen == {1, 2} | ({"no name"} if renames == "two renames" else set())


def _counted(real: Callable[..., object], left: list[int]) -> Callable[..., object]:
    def call(*arguments: object, **options: object) -> object:
        if left[0] == 0:
            raise CutError
        left[0] -= 1
        return real(*arguments, **options)

    return call


def test_nothing_is_said_to_be_published_before_it_is(cubes, monkeypatch, caplog) -> None:
    link = toy_cube.toy_cube(cubes)
    link.unlink()
    with monkeypatch.context() as patch, caplog.at_level(logging.WARNING):
        patch.setattr(FrameStore, "_publish", _counted(FrameStore._publish, [0]))
        with pytest.raises(CutError), frame_store_in(cubes).lock():
            pass
    assert "published" not in caplog.text
    with caplog.at_level(logging.WARNING), frame_store_in(cubes).lock():
        pass
    assert "it is published now" in caplog.text


@pytest.mark.usefixtures("exfat")
def test_files_of_others_in_a_published_folder_are_kept(cubes, renames, caplog) -> None:
    link = toy_cube.toy_cube(cubes, pairs=PAIRS[:2])
    (link / "notes.txt").write_text("precious")
    toy_cube.toy_cube(cubes)
    assert not (link / "notes.txt").exists()
    (kept,) = cubes.glob(f"{FRAME}.zarr.replaced-*")
    assert (kept / "notes.txt").read_text() == "precious"
    assert str(kept) in caplog.text
    assert frame_store_in(cubes).published_generation().number == 2


@pytest.mark.usefixtures("exfat")
def test_gc_never_removes_what_is_published(cubes) -> None:
    for pairs in (PAIRS[:1], PAIRS[:2], PAIRS):
        toy_cube.toy_cube(cubes, pairs=pairs)
    frame_store_in(cubes)._publish(1)
    with frame_store_in(cubes).lock(restore=False):
        removed = frame_store_in(cubes).remove_old(keep=1, older_than=timedelta(0))
    assert removed == [2]
    assert frame_store_in(cubes).published_generation().number == 1


@pytest.mark.parametrize("name", ["link", "plain folder"])
def test_a_cube_of_an_earlier_version_moves_however_it_is_published(tmp_path, monkeypatch, name) -> None:
    if name == "plain folder":
        limit_calls(monkeypatch, tmp_path, **EXFAT)
    data = tmp_path / "data"
    link = toy_cube.toy_cube(data / "cubes", pairs=PAIRS[:1])
    settings, frame = load_settings(data_dir=data), Frame(FRAME)
    assert frames_to_migrate(settings) == [frame]
    migrate_cube(frame, settings)
    current = FrameStore(data / "simulated" / "cubes", frame).published_generation()
    assert (current.number, verify_generation(current)) == (1, [])
    assert not os.path.lexists(link)
    assert frames_to_migrate(settings) == []


def test_names_are_exchanged_in_one_step_where_the_system_can(tmp_path) -> None:
    one, other = tmp_path / "one", tmp_path / "other"
    one.mkdir()
    other.symlink_to("nowhere")
    if not exchange.exchange_names(one, other):
        pytest.skip("this file system cannot exchange names")
    assert one.is_symlink()
    assert other.is_dir()
    assert not exchange.exchange_names(one, tmp_path / "missing")


# --- locks


HOLD = """
import os, sys, time
sys.path[:0] = {support!r}
from pathlib import Path
import pytest
from hephaestus_build.core.filesystem.locks import try_lock_file
from limited_filesystem import limit_calls
limit_calls(pytest.MonkeyPatch(), Path({folder!r}), FLOCK={number})
with try_lock_file(Path({folder!r}) / "lock") as locked:
    print(locked, flush=True)
    time.sleep(100 if locked else 0)
"""


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.EOPNOTSUPP, errno.EIO, errno.ENOSYS, errno.EACCES])
def test_processes_exclude_each_other_where_files_cannot_be_locked(
    tmp_path, monkeypatch, number, caplog
) -> None:
    support = [str(Path(toy_cube.__file__).parent)]
    script = HOLD.format(support=support, folder=str(tmp_path), number=number)
    holder = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    try:
        assert holder.stdout.readline() == "True\n"
        limit_calls(monkeypatch, tmp_path, FLOCK=number)
        with try_lock_file(tmp_path / "lock") as locked:
            assert not locked
        with try_lock_file(tmp_path / "other") as locked:
            assert locked
            with try_lock_file(tmp_path / "other") as again:
                assert not again
    finally:
        holder.send_signal(signal.SIGKILL)
        holder.communicate()
    with try_lock_file(tmp_path / "lock", wait=True) as locked:  # a kill releases it
        assert locked
    (line,) = {record.getMessage() for record in caplog.records}
    assert errno.errorcode[number] in line
    assert "one machine at a time" in line


def test_a_lock_that_is_held_is_no_lack_of_the_file_system(tmp_path, caplog) -> None:
    with try_lock_file(tmp_path / "lock") as locked, try_lock_file(tmp_path / "lock") as again:
        assert (locked, again) == (True, False)
    assert not caplog.records


# --- whole commands, with calls of libraries in C refused too


COMMANDS = """
import json, sys, warnings
from hephaestus_build.cli import run_console_script
for arguments in json.loads(sys.argv[1]):
    print("$", *arguments, flush=True)
    sys.argv = ["hephaestus", *arguments]
    try:
        run_console_script()
    except SystemExit as ended:
        print("exit code", ended.code or 0, flush=True)
"""


def test_commands_work_without_links_locks_and_flushing(tmp_path) -> None:
    data, limits = tmp_path / "limited" / "data", {**EXFAT, "FLOCK": errno.ENOLCK, "DIRSYNC": errno.EINVAL}
    environment = shim_environment(build_shim(tmp_path), tmp_path / "limited", **limits)
    commands = [
        ["plan", FRAME],
        ["build", FRAME, "--limit", "1", "--no-quicklook"],
        ["build", FRAME, "--limit", "2", "--no-quicklook"],
        ["verify"],
        ["export", FRAME, "--to", "zarr2", "--out", str(data / "export")],
    ]
    done = subprocess.run(
        [sys.executable, "-c", COMMANDS, json.dumps(commands)],
        env=environment | {"HEPHAESTUS_DATA_DIR": str(data)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    said = done.stdout
    assert re.findall(r"exit code (\d+)", said) == ["0"] * len(commands), said
    assert "Traceback" not in said
    planned, *_ = said.partition("exit code")
    for words in ("no symbolic links", "no hard links", "no file locks", "power cut"):
        assert words in planned
    assert f"{FRAME} (simulated): whole" in said
    assert (data / "simulated" / "cubes" / f"{FRAME}.zarr").is_dir()
    assert not (data / "simulated" / "cubes" / f"{FRAME}.zarr").is_symlink()
