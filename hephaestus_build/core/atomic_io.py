"""Atomic writing, hashing, linking and syncing of files."""

from __future__ import annotations

import errno
import os
import shutil
import stat
import uuid
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any, Literal

import msgspec
import numpy as np
from blake3 import blake3

from hephaestus_build.core.errors import HephaestusError
from hephaestus_build.core.plain_files import UnsafePathError, describe_file_type, open_plain_file

_MOVE = "or set {setting} to another folder"
_ADVICE = {
    errno.ENOSPC: f"the disk is full: free some space (`hephaestus plan` says how much is needed) {_MOVE}",
    errno.EDQUOT: f"the disk quota is used up: free some space {_MOVE}",
    errno.EACCES: f"no permission: make the folder writable {_MOVE}",
    errno.EPERM: f"no permission: make the folder writable {_MOVE}",
    errno.ENOTDIR: "a part of the path is a file, not a folder: set {setting} to a folder",
    errno.EEXIST: "a file has the name of a required folder: set {setting} to a folder",
    errno.ELOOP: "found a link, a pipe or a device instead of a plain file or folder: move it away",
    errno.EROFS: f"the file system is read-only: mount it for writing {_MOVE}",
    errno.EFBIG: f"the limit on file sizes was reached: raise it (ulimit -f) {_MOVE}",
    errno.ENOENT: "a folder or file vanished while it was in use: set {setting} to a folder that stays",
}

#: Answers of file systems that cannot flush a file or folder; any other means that data may be lost.
NO_FLUSH = {
    errno.EINVAL,
    errno.ENOSYS,
    errno.EOPNOTSUPP,
    errno.ENOTSUP,
    errno.EBADF,
    errno.EISDIR,
    errno.EPERM,
    errno.EACCES,
}

_BLOCK = 1 << 22  # bytes read at once for hashing
_FOLDER_ATTEMPTS = 20


@contextmanager
def translate_os_errors(what: str, *, setting: str = "HEPHAESTUS_DATA_DIR") -> Iterator[None]:
    """Convert operating system errors to a :class:`HephaestusError` that says what to do.

    Parameters
    ----------
    what : str
        The failed operation, such as ``124D_04854_171313: publishing the cube``.
    setting : str
        Setting or option that names the folder.

    Raises
    ------
    HephaestusError
        In place of any ``OSError``, such as for a full disk, a missing permission or a quota.
    """
    try:
        yield
    except OSError as error:
        raise HephaestusError(
            f"{what}: {describe_os_error(error, setting)}; what was published stays as it was, "
            f"and the same command goes on from here ({error.filename or error.strerror or error})"
        ) from error


def describe_os_error(error: OSError, setting: str) -> str:
    """Return the cause of a failed file operation and what to do about it.

    Parameters
    ----------
    error : OSError
        What the operating system answered.
    setting : str
        Setting or option that names the folder, such as ``HEPHAESTUS_DATA_DIR``.
    """
    advice = _ADVICE.get(error.errno or 0, "")
    return advice.format(setting=setting) or f"{error.strerror or error}: check the disk"


def make_folder(path: Path) -> None:
    """Create a folder and its parents unless they exist, also while others remove them.

    ``Path.mkdir`` fails if another process removes a folder between its attempt to create it and its look at
    what is there; a cache may be removed at any time.

    Raises
    ------
    OSError
        If a file has the name of the folder, the disk refuses, or the folder is removed again and again.
    """
    for attempts_left in reversed(range(_FOLDER_ATTEMPTS)):
        try:
            path.mkdir(parents=True, exist_ok=True)
        except (FileExistsError, FileNotFoundError):
            if os.path.lexists(path) or not attempts_left:
                raise
        else:
            return


def require_writable(folder: Path, setting: str) -> None:
    """Check that files can be written in a folder that exists or can be made, before long work; make nothing.

    Parameters
    ----------
    folder : pathlib.Path
    setting : str
        Setting or option that names it, such as ``--to``.

    Raises
    ------
    HephaestusError
        If no file can be written there.
    """
    with translate_os_errors(f"writing into {folder}", setting=setting):
        there = next(one for one in (folder, *folder.parents) if one.exists() or one.is_symlink())
        with TemporaryFile(dir=there):
            pass


def write_atomic(path: Path, content: bytes | memoryview, *, durable: bool = False) -> None:
    """Write `content` to `path` atomically, through a sibling file and a rename.

    Parameters
    ----------
    path : pathlib.Path
        Target file; its folder is created if necessary.
    content : bytes or memoryview
        Complete content of the file.
    durable : bool
        Whether to flush the content to the disk before the rename.

    Raises
    ------
    OSError
        If the disk refuses, or `path` is a device, a pipe or such a link as ``/dev/stdout``, which a rename
        would replace for everybody.
    """
    require_replaceable(path)
    make_folder(path.parent)
    sibling = path.with_name(f".{path.name}.{uuid.uuid4().hex[:12]}")
    try:
        with sibling.open("xb") as stream:
            stream.write(content)
            if durable:
                stream.flush()
                _flush(stream.fileno())
        sibling.replace(path)
    except BaseException:
        sibling.unlink(missing_ok=True)
        raise


def require_replaceable(path: Path) -> None:
    """Raise OSError if `path` is what no file may replace: a device, a pipe, a socket, or a link to one."""
    try:
        mode = path.lstat().st_mode
        if stat.S_ISLNK(mode) and path.readlink().parts[:2] == ("/", "proc"):  # an open file of the process
            mode = stat.S_IFCHR
        elif stat.S_ISLNK(mode):
            mode = path.stat().st_mode
    except OSError:  # none yet, or what the rename says
        return
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
        raise OSError(errno.ELOOP, f"it is {describe_file_type(mode)}, not a file", str(path))


def encode_json(value: Any, *, order: Literal["deterministic"] | None = None) -> bytes:
    """Return `value` as compact JSON in UTF-8; NaN and infinities become null.

    Mappings keep their order, or are sorted by key if `order` is ``deterministic``.
    """
    return msgspec.json.encode(value, enc_hook=_to_builtin, order=order)


def _to_builtin(value: Any) -> Any:
    """Convert a NumPy value, or an instance of a subclass of str, to a type that JSON supports."""
    if isinstance(value, np.generic | np.ndarray):
        return value.tolist()
    if isinstance(value, str):
        return str(value)
    raise TypeError(f"{value!r} cannot be written as JSON")


def write_json(path: Path, value: Any) -> None:
    """Write `value` as JSON, as :func:`write_atomic` does."""
    write_atomic(path, encode_json(value))


def hash_bytes(content: bytes) -> str:
    """Return the BLAKE3 hash of `content`, in hexadecimal."""
    return blake3(content).hexdigest()


def hash_file(path: Path) -> str:
    """Return the BLAKE3 hash of a file's content, in hexadecimal."""
    hasher = blake3()
    with path.open("rb") as stream:
        while block := stream.read(_BLOCK):
            hasher.update(block)
    return hasher.hexdigest()


def link_files(folder: Path, sources: Mapping[str, str]) -> None:
    """Create hard links in `folder` to existing files, in parallel.

    Parameters
    ----------
    folder : pathlib.Path
        Created with its parents if necessary.
    sources : mapping of str to str
        Path of an immutable file, by slash-separated path in `folder`. Files are copied where the file
        system does not support hard links.

    Raises
    ------
    UnsafePathError
        If a source is not a plain file, or its folder is a link.
    """
    groups: dict[str, list[tuple[str, str]]] = {}
    for name, source in sources.items():
        target = f"{folder}/{name}"
        groups.setdefault(target.rpartition("/")[0], []).append((source, target))

    def fill(group: tuple[str, list[tuple[str, str]]]) -> None:
        parent, links = group
        make_folder(Path(parent))
        for origin in {source.rpartition("/")[0] for source, _ in links}:
            if Path(origin).is_symlink():
                raise UnsafePathError("it is a link, not a folder", origin)
        for source, target in links:
            _link_or_copy(source, target)

    # links in different folders do not block each other
    with ThreadPoolExecutor(4, thread_name_prefix="link") as pool:
        for _ in pool.map(fill, groups.items()):
            pass


def link_or_copy(source: Path, target: Path) -> None:
    """Create `target` as a hard link to `source`, or as a copy if hard links are not supported."""
    make_folder(target.parent)
    _link_or_copy(source, target)


def _link_or_copy(source: Path | str, target: Path | str) -> None:
    if not stat.S_ISREG(mode := os.lstat(source).st_mode):
        raise UnsafePathError(f"it is {describe_file_type(mode)}, not a plain file", source)
    try:
        os.link(source, target)
    except (FileNotFoundError, FileExistsError):
        raise
    except OSError:  # file systems without hard links answer in many ways; a full disk refuses the copy too
        _copy_file(source, target)


def _copy_file(source: Path | str, target: Path | str) -> None:
    """Copy a file and flush it to the disk; `target` is complete or not there, however the process ends."""
    sibling = Path(f"{os.path.dirname(target)}/.{uuid.uuid4().hex[:12]}")  # noqa: PTH120 (paths of thousands)
    try:
        shutil.copyfile(source, sibling)
        _sync_file(sibling)
        sibling.replace(target)
    except BaseException:
        sibling.unlink(missing_ok=True)
        raise


def append_line(path: Path, line: str) -> None:
    """Append `line` to a plain file in one write, so that several processes can append concurrently.

    Raises
    ------
    OSError
        If the line could not be written completely, or the file is a link, a pipe or a device.
    """
    make_folder(path.parent)
    content = line.encode()
    with open_plain_file(path.parent, path.name, os.O_WRONLY | os.O_APPEND | os.O_CREAT) as (descriptor, _):
        if os.write(descriptor, content) != len(content):  # happens on a nearly full disk
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))


def sync_files(paths: Iterable[Path]) -> None:
    """Flush the content of files to the disk, in parallel because disks batch concurrent flushes."""
    with ThreadPoolExecutor(16, thread_name_prefix="sync") as pool:
        for _ in pool.map(_sync_file, paths):
            pass


def _sync_file(path: Path) -> None:
    with path.open("rb") as stream:
        _flush(stream.fileno())


def sync_folder(path: Path) -> None:
    """Flush a folder's entries to the disk, where the file system can do that."""
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except PermissionError:  # of folders that may be written but not listed, and of some network mounts
        return
    try:
        _flush(descriptor)
    finally:
        os.close(descriptor)


def _flush(descriptor: int) -> None:
    """Flush an open file or folder to the disk; some file systems only do so by themselves."""
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in NO_FLUSH:
            raise
