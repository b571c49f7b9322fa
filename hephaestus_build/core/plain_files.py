"""Safe access to plain files below an untrusted folder, without following links.

A downloaded cube or a shared folder may contain links to other places, pipes that never end and devices.
Each component of a path is opened relative to its parent without following links, so that replacing a
component by a link between two system calls has no effect either.
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
_BLOCK = 1 << 22  # bytes read at once for hashing
_FILE_TYPES = (
    (stat.S_ISLNK, "a link"),
    (stat.S_ISDIR, "a folder"),
    (stat.S_ISFIFO, "a pipe"),
    (stat.S_ISSOCK, "a socket"),
)


class UnsafePathError(OSError):
    """A path leads to a link, a pipe or a device, or out of its folder."""

    def __init__(self, what: str, path: str | Path) -> None:
        super().__init__(errno.ELOOP, what, str(path))


class FileIdentity(NamedTuple):
    """Identity and size of an open file."""

    device: int
    inode: int
    size: int


def describe_file_type(mode: int) -> str:
    """Describe in words the type of a file that is not a plain file."""
    return next((name for is_kind, name in _FILE_TYPES if is_kind(mode)), "a device")


@contextmanager
def open_plain_file(
    folder: Path | int, name: str, flags: int = os.O_RDONLY
) -> Iterator[tuple[int, FileIdentity]]:
    """Open a plain file below a folder; no component of `name` may be a link.

    Parameters
    ----------
    folder : pathlib.Path or int
        The folder, whose own path is trusted, or a descriptor of it.
    name : str
        Path relative to the folder, separated by slashes.
    flags : int
        Flags of :func:`os.open`; a new file is readable by all, subject to the umask.

    Yields
    ------
    tuple of int and FileIdentity
        The descriptor, which is closed at the end of the block, and the identity of the file.

    Raises
    ------
    UnsafePathError
        If the path leads out of the folder, or to anything but a plain file.
    OSError
        If it cannot be opened.
    """
    with _open_parent(folder, name) as (parent, last):
        try:
            before = os.stat(last, dir_fd=parent, follow_symlinks=False)
        except FileNotFoundError:
            if not flags & os.O_CREAT:
                raise
        else:  # opening a device may have side effects
            _check_plain(before.st_mode, name)
        descriptor = os.open(last, flags | _FILE, 0o666, dir_fd=parent)
    try:
        facts = os.fstat(descriptor)
        _check_plain(facts.st_mode, name)
        yield descriptor, FileIdentity(facts.st_dev, facts.st_ino, facts.st_size)
    finally:
        os.close(descriptor)


def read_plain_file(folder: Path | int, name: str, limit: int) -> bytes:
    """Read a plain file below a folder.

    Raises
    ------
    ValueError
        If it has more than `limit` bytes.
    OSError
        If it is not a plain file, or cannot be read; see :func:`open_plain_file`.
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
    """Return the BLAKE3 hash of the first `size` bytes of an open file, in hexadecimal."""
    hasher = blake3()
    while size > 0 and (block := os.read(descriptor, min(size, _BLOCK))):
        hasher.update(block)
        size -= len(block)
    return hasher.hexdigest()


def is_plain_file(folder: Path | int, name: str) -> bool:
    """Return whether `name` is a plain file below a folder and can be opened."""
    try:
        with open_plain_file(folder, name):
            return True
    except OSError:
        return False


def list_names(folder: Path | int) -> list[str]:
    """Return the sorted names in a folder, given as a path or a descriptor."""
    return sorted(os.listdir(folder))  # noqa: PTH208 (pathlib does not support descriptors)


def is_real_folder(path: Path) -> bool:
    """Return whether `path` is a folder, and not a link to one."""
    try:
        return stat.S_ISDIR(path.lstat().st_mode)
    except (OSError, ValueError):
        return False


def walk_files(folder: Path) -> Iterator[tuple[str, os.stat_result]]:
    """Yield path and status of everything below a folder except folders, without following links.

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
    """Open a folder below another one and yield its descriptor; no component of `name` may be a link.

    Raises
    ------
    UnsafePathError
        If a component of the path is a link or a file.
    OSError
        If it cannot be opened.
    """
    with _open_parent(folder, f"{name}/-") as (descriptor, _):
        yield descriptor


def check_no_links(folder: Path, name: str) -> None:
    """Raise UnsafePathError if a path below a folder contains a link or does not lead to a plain file.

    Used before a library writes a file by path; files that do not exist yet pass.
    """
    place = folder
    for part in _split_path(name):
        place = place / part
        try:
            mode = place.lstat().st_mode
        except FileNotFoundError:
            return
        if not (stat.S_ISDIR(mode) or stat.S_ISREG(mode)):
            raise UnsafePathError(f"it is {describe_file_type(mode)}, which is not written through", place)


def remove_folder(parent: Path | int, name: str) -> None:
    """Remove the folder `name` of a parent, given as a path or a descriptor, without following links.

    Files that cannot be removed are left behind.
    """
    if not shutil.rmtree.avoids_symlink_attacks:  # supported by every system with links
        raise NotImplementedError("this system cannot remove a folder without following links")
    descriptor = parent if isinstance(parent, int) else os.open(parent, _FOLDER)
    try:
        shutil.rmtree(name, ignore_errors=True, dir_fd=descriptor)
    finally:
        if not isinstance(parent, int):
            os.close(descriptor)


@contextmanager
def _open_parent(folder: Path | int, name: str) -> Iterator[tuple[int, str]]:
    """Open the parent folder of a path component by component; yield its descriptor and the file name."""
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
    """Return the components of a relative path."""
    parts = name.split("/")
    if any(part in ("", ".", "..") for part in parts) or "\0" in name:
        raise UnsafePathError("its path leads out of the folder", name.replace("\0", "\\0"))
    try:
        os.fsencode(name)
    except UnicodeEncodeError as error:
        raise OSError(errno.EILSEQ, "its name is not valid on this file system", ascii(name)) from error
    return parts


def _check_plain(mode: int, name: str) -> None:
    if not stat.S_ISREG(mode):
        raise UnsafePathError(f"it is {describe_file_type(mode)}, not a plain file", name)
