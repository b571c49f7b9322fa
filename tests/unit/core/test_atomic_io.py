"""Tests of files that are written at once, and of folders that others remove while they are made."""

import errno
import os
from pathlib import Path

import pytest

from hephaestus_build.core.atomic_io import make_folder, require_writable, write_atomic
from hephaestus_build.core.errors import HephaestusError


def refuse_first(monkeypatch: pytest.MonkeyPatch, times: int) -> None:
    """Play another process: an existing folder is removed right after the first attempts to create it."""
    real, calls = os.mkdir, []

    def mkdir(path: str | Path, mode: int = 0o777, **options: int) -> None:
        calls.append(path)
        if len(calls) <= times:
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(path))
        real(path, mode, **options)

    monkeypatch.setattr(os, "mkdir", mkdir)


@pytest.mark.parametrize("times", [1, 5])
def test_a_folder_that_vanishes_while_it_is_made_is_made_again(tmp_path, monkeypatch, times):
    refuse_first(monkeypatch, times)
    write_atomic(tmp_path / "frame" / "product.tif", b"content")
    assert (tmp_path / "frame" / "product.tif").read_bytes() == b"content"


def test_a_folder_that_always_vanishes_is_an_error(tmp_path, monkeypatch):
    refuse_first(monkeypatch, 10**6)
    with pytest.raises(FileExistsError):
        make_folder(tmp_path / "frame")


def test_a_file_at_the_name_of_a_folder_is_an_error(tmp_path):
    (tmp_path / "frame").write_bytes(b"")
    with pytest.raises(FileExistsError):
        make_folder(tmp_path / "frame")
    with pytest.raises(NotADirectoryError):
        make_folder(tmp_path / "frame" / "below")
    assert (tmp_path / "frame").read_bytes() == b""


@pytest.mark.parametrize("link", [False, True])
def test_what_is_no_file_is_not_replaced_by_one(tmp_path, link):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    target = tmp_path / "link" if link else pipe
    if link:
        target.symlink_to(pipe)
    with pytest.raises(OSError, match="it is a pipe, not a file"):
        write_atomic(target, b"content")
    assert pipe.is_fifo()
    assert target.is_symlink() == link


def test_a_link_to_an_open_file_such_as_standard_output_is_not_replaced(tmp_path):
    output = tmp_path / "stdout"
    output.symlink_to("/proc/self/fd/1")
    with pytest.raises(OSError, match="not a file"):
        write_atomic(output, b"content")
    assert output.is_symlink()


def test_a_link_to_a_file_is_replaced(tmp_path):
    (tmp_path / "file").write_bytes(b"other")
    (tmp_path / "link").symlink_to("file")
    write_atomic(tmp_path / "link", b"content")
    assert (tmp_path / "file").read_bytes() == b"other"
    assert (tmp_path / "link").read_bytes() == b"content"


def test_a_folder_to_be_made_is_checked_without_making_it(tmp_path):
    require_writable(tmp_path / "new" / "inner", "--to")
    assert not any(tmp_path.iterdir())
    (tmp_path / "file").touch()
    (tmp_path / "lost").symlink_to("nowhere")
    for name in ("file", "lost"):
        for folder in (tmp_path / name, tmp_path / name / "inner"):
            with pytest.raises(HephaestusError, match=f"writing into {folder}.*--to"):
                require_writable(folder, "--to")
