"""What the file system of a folder can do is tried, and said in words."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from hephaestus_build.core.errors import HephaestusError
from hephaestus_build.core.filesystem import manners
from hephaestus_build.core.filesystem.manners import probe_filesystem
from limited_filesystem import limit_calls


def test_a_common_file_system_lacks_nothing(tmp_path: Path) -> None:
    found = probe_filesystem(tmp_path)
    assert (found.folder, found.describe_lacks()) == (tmp_path, ())
    assert found.free_bytes
    assert found.is_case_sensitive is not None
    found.require_usable("198A_00210_131313")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_not_there_yet_is_that_of_its_parent(tmp_path: Path) -> None:
    assert probe_filesystem(tmp_path / "data" / "cubes").folder == tmp_path
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("lack", "attribute", "words", "number"),
    [
        (*case, number)
        for case in (
            ("SYMLINK", "symlink_error", "no symbolic links"),
            ("LINK", "hard_link_error", "no hard links"),
            ("FLOCK", "lock_error", "one machine at a time"),
            ("DIRSYNC", "folder_sync_error", "power cut"),
        )
        for number in (errno.EPERM, errno.EINVAL, errno.EOPNOTSUPP, errno.ENOSYS, errno.EROFS, errno.EIO)
        if case[0] != "DIRSYNC" or number not in (errno.EROFS, errno.EIO)
    ],
)
def test_each_lack_is_found_and_said(tmp_path, monkeypatch, lack, number, attribute, words) -> None:
    limit_calls(monkeypatch, tmp_path, **{lack: number})
    found = probe_filesystem(tmp_path)
    assert getattr(found, attribute).startswith(errno.errorcode[number])
    (line,) = found.describe_lacks()
    assert words in line
    assert line.startswith(str(tmp_path))
    found.require_usable("frame")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("number", [errno.EIO, errno.ESTALE, errno.EROFS])
def test_a_disk_that_fails_is_refused_before_anything_is_downloaded(tmp_path, monkeypatch, number) -> None:
    limit_calls(monkeypatch, tmp_path, DIRSYNC=number)
    found = probe_filesystem(tmp_path)
    assert found.disk_error.startswith(errno.errorcode[number])
    assert found.describe_lacks() == ()
    with pytest.raises(HephaestusError, match=r"^frame: .*cannot be brought to the disk"):
        found.require_usable("frame")


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
@pytest.mark.parametrize("call", ["DIRSYNC", "rename"])
def test_a_disk_that_fills_during_the_trial_is_called_full(tmp_path, monkeypatch, call, number) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number))

    if call == "rename":
        monkeypatch.setattr(os, call, refuse)
    else:
        limit_calls(monkeypatch, tmp_path, **{call: number})
    with pytest.raises(HephaestusError, match=r"^frame: .*the disk is full or its quota used up"):
        probe_filesystem(tmp_path).require_usable("frame")


def test_how_often_a_cube_is_written(tmp_path, monkeypatch) -> None:
    assert probe_filesystem(tmp_path).copies_per_generation == 0
    limit_calls(monkeypatch, tmp_path, LINK=errno.EPERM)
    assert probe_filesystem(tmp_path).copies_per_generation == 1
    limit_calls(monkeypatch, tmp_path, SYMLINK=errno.EPERM)
    assert probe_filesystem(tmp_path).copies_per_generation == 2


def test_what_cannot_be_used_at_all_is_refused_in_one_line(tmp_path, monkeypatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))

    with monkeypatch.context() as patch:
        patch.setattr(os, "rename", refuse)
        with pytest.raises(HephaestusError, match=r"^frame: .*cannot rename folders.*HEPHAESTUS_DATA_DIR"):
            probe_filesystem(tmp_path).require_usable("frame")
    assert list(tmp_path.iterdir()) == []
    monkeypatch.setattr(os, "mkdir", refuse)
    with pytest.raises(HephaestusError, match=r"^frame: nothing can be written.*HEPHAESTUS_DATA_DIR"):
        probe_filesystem(tmp_path).require_usable("frame")


def test_what_a_killed_probe_left_is_removed_later(tmp_path: Path) -> None:
    old, new, other = (tmp_path / f"{manners._PROBE}{name}" for name in ("0" * 12, "1" * 12, "mine"))
    for path in (old, new, other):
        path.mkdir()
        (path / "plain").write_bytes(b"x")
    os.utime(old, (1, 1))
    os.utime(other, (1, 1))
    probe_filesystem(tmp_path)
    assert sorted(tmp_path.iterdir()) == sorted([new, other])
