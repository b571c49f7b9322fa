"""Plain files below a folder that others may write to: no link is followed, and nothing else is opened.

A stranger's cube, or a shared folder, may hold links that lead elsewhere, pipes that never end and devices.
Every part of a path below the folder is opened by itself without following links, so that a link that is
put there between two looks leads nowhere either.
"""

from __future__ import annotations

import errno
import os
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from blake3 import blake3

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE = os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
_BLOCK = 1 << 22  # of a file that is hashed, bytes
_FILE_TYPES = (
    (stat.S_ISLNK, "a link"),
    (stat.S_ISDIR, "a folder"),
    (stat.S_ISFIFO, "a pipe"),
    (stat.S_ISSOCK, "a socket"),
)


class UnsafePathError(OSError):
    """What stands at a path is a link, a pipe or a device, or the path leads out of its folder."""

    def __init__(self, what: str, path: str | Path) -> None:
        super().__init__(errno.ELOOP, what, str(path))


class FileIdentity(NamedTuple):
    """Which file a descriptor is of, and how large it is."""

    device: int
    inode: int
    size: int


def describe_file_type(mode: int) -> str:
    """Return in words what a file that is not plain is."""
    return next((name for is_kind, name in _FILE_TYPES if is_kind(mode)), "a device")


@contextmanager
def open_plain_file(
    folder: Path | int, name: str, flags: int = os.O_RDONLY
) -> Iterator[tuple[int, FileIdentity]]:
    """Open a plain file below a folder; no part of `name` may be a link.

    Parameters
    ----------
    folder : pathlib.Path or int
        The folder, trusted as it is, or a descriptor of it.
    name : str
        Path in the folder, with slashes.
    flags : int
        As for :func:`os.open`; a file that is made is readable by all, as the process' mask allows.

    Yields
    ------
    tuple of int and FileIdentity
        The descriptor, closed at the end, and what it is of.

    Raises
    ------
    UnsafePathError
        If the path leads out of the folder, or what stands there is no plain file.
    OSError
        If it cannot be opened.
    """
    with _open_parent(folder, name) as (parent, last):
        try:
            before = os.stat(last, dir_fd=parent, follow_symlinks=False)
        except FileNotFoundError:
            if not flags & os.O_CREAT:
                raise
        else:  # opening a device may do something by itself
            _check_plain(before.st_mode, name)
        descriptor = os.open(last, flags | _FILE, 0o666, dir_fd=parent)
    try:
        facts = os.fstat(descriptor)
        _check_plain(facts.st_mode, name)
        yield descriptor, FileIdentity(facts.st_dev, facts.st_ino, facts.st_size)
    finally:
        os.close(descriptor)


def read_plain_file(folder: Path | int, name: str, limit: int) -> bytes:
    """Return the content of a plain file below a folder.

    Raises
    ------
    ValueError
        If it has more than `limit` bytes.
    OSError
        If it is no plain file, or cannot be read; see :func:`opened`.
    """
    with (
        open_plain_file(folder, name) as (descriptor, facts),
        open(descriptor, "rb", closefd=False) as stream,
    ):
        content = stream.read(limit + 1) if facts.size <= limit else b""
        if facts.size > limit or len(content) > limit:
            raise ValueError(f"it is larger than {limit} bytes")
        return content


def hash_descriptor(descriptor: int, size: int) -> str:
    """Return the BLAKE3 hash of the first `size` bytes behind a descriptor, in hexadecimal."""
    hasher = blake3()
    while size > 0 and (block := os.read(descriptor, min(size, _BLOCK))):
        hasher.update(block)
        size -= len(block)
    return hasher.hexdigest()


def is_plain_file(folder: Path | int, name: str) -> bool:
    """Return whether there is a plain file below a folder that can be opened."""
    try:
        with open_plain_file(folder, name):
            return True
    except OSError:
        return False


def list_names(folder: Path | int) -> list[str]:
    """Return the names in a folder, or in that behind a descriptor, sorted."""
    return sorted(os.listdir(folder))  # noqa: PTH208 (pathlib knows no descriptors)


def is_real_folder(path: Path) -> bool:
    """Return whether there is a folder at `path` itself, not a link to one."""
    try:
        return stat.S_ISDIR(path.lstat().st_mode)
    except (OSError, ValueError):
        return False


def walk_files(folder: Path) -> Iterator[tuple[str, os.stat_result]]:
    """Yield path and facts of all that is below a folder and is no folder itself; no link is followed.

    Raises
    ------
    OSError
        If a folder cannot be read.
    """
    pending = [""]
    while pending:
        inside = pending.pop()
        with os.scandir(folder / inside) as entries:
            for entry in sorted(entries, key=lambda entry: entry.name):
                path = f"{inside}/{entry.name}" if inside else entry.name
                facts = entry.stat(follow_symlinks=False)
                if stat.S_ISDIR(facts.st_mode):
                    pending.append(path)
                else:
                    yield path, facts


@contextmanager
def open_real_folder(folder: Path | int, name: str) -> Iterator[int]:
    """Open a folder below another one, no part of `name` being a link; yield its descriptor.

    Raises
    ------
    UnsafePathError
        If a part of the path is a link or a file.
    OSError
        If it cannot be opened.
    """
    with _open_parent(folder, f"{name}/-") as (descriptor, _):
        yield descriptor


def check_no_links(folder: Path, name: str) -> None:
    """Raise NotPlainError where a path below a folder leads through a link, or its file is no plain one.

    For what is written by path: what is not there yet is right.
    """
    place = folder
    for part in _split_path(name):
        place = place / part
        try:
            mode = place.lstat().st_mode
        except FileNotFoundError:
            return
        if not (stat.S_ISDIR(mode) or stat.S_ISREG(mode)):
            raise UnsafePathError(
                f"it is {describe_file_type(mode)}, and nothing is written through it", place
            )


def remove_folder(parent: Path | int, name: str) -> None:
    """Remove the real folder `name` of a folder, or of that behind a descriptor; no link in it is followed.

    What cannot be removed stays.
    """
    if not shutil.rmtree.avoids_symlink_attacks:  # no system that has links lacks it
        raise NotImplementedError("this system cannot remove a folder without following links")
    descriptor = parent if isinstance(parent, int) else os.open(parent, _FOLDER)
    try:
        shutil.rmtree(name, ignore_errors=True, dir_fd=descriptor)
    finally:
        if not isinstance(parent, int):
            os.close(descriptor)


@contextmanager
def _open_parent(folder: Path | int, name: str) -> Iterator[tuple[int, str]]:
    """Open the folder that a path leads to, part by part; yield its descriptor and the last part."""
    *inner, last = _split_path(name)
    parent = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC) if isinstance(folder, Path) else -1
    here = folder if isinstance(folder, int) else parent
    try:
        for part in inner:
            try:
                below = os.open(part, _FOLDER, dir_fd=here)
            except OSError as error:
                if error.errno in (errno.ELOOP, errno.ENOTDIR):
                    raise UnsafePathError(f"{part} is a link or a file, not a folder", name) from error
                raise
            if parent >= 0:
                os.close(parent)
            here = parent = below
        yield here, last
    finally:
        if parent >= 0:
            os.close(parent)


def _split_path(name: str) -> list[str]:
    """Return the parts of a path below a folder."""
    parts = name.split("/")
    if any(part in ("", ".", "..") for part in parts) or "\0" in name:
        raise UnsafePathError("its path leads out of the folder", name.replace("\0", "\\0"))
    try:
        os.fsencode(name)
    except UnicodeEncodeError as error:
        raise OSError(errno.EILSEQ, "its name cannot be written here", ascii(name)) from error
    return parts


def _check_plain(mode: int, name: str) -> None:
    if not stat.S_ISREG(mode):
        raise UnsafePathError(f"it is {describe_file_type(mode)}, not a plain file", name)
