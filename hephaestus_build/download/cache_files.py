"""File operations of the download cache, restricted to plain files and with readable errors."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from io import BufferedReader
from pathlib import Path
from typing import TypeVar

import msgspec

from hephaestus_build.core.atomic_io import describe_os_error
from hephaestus_build.core.errors import HephaestusError

T = TypeVar("T")
# Maximum size of a receipt or another JSON file, bytes.
_MAX_NOTE_BYTES = 1 << 16
#: Flags to open files without following links or blocking on pipes.
PLAIN_OPEN_FLAGS = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0)


class VanishedError(Exception):
    """A file of the cache was removed while it was in use; the operation should be repeated."""


def open_plain(path: Path) -> BufferedReader:
    """Open a plain file for reading, without following links or blocking on pipes.

    Raises
    ------
    OSError
        If the file does not exist or is not a plain file.
    """
    descriptor = os.open(path, os.O_RDONLY | PLAIN_OPEN_FLAGS)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(errno.EINVAL, "not a plain file", str(path))
    return os.fdopen(descriptor, "rb")


def read_json_note(path: Path, kind: type[T]) -> T:
    """Decode a small JSON file; raise OSError or ValueError if it is unreadable or malformed."""
    with open_plain(path) as stream:
        content = stream.read(_MAX_NOTE_BYTES + 1)
    if len(content) > _MAX_NOTE_BYTES:
        raise ValueError(f"it is larger than {_MAX_NOTE_BYTES} bytes")
    try:
        return msgspec.json.decode(content, type=kind)
    except (msgspec.MsgspecError, RecursionError) as error:
        raise ValueError(f"it is malformed ({type(error).__name__})") from None


@contextmanager
def translate_cache_errors(path: Path) -> Iterator[None]:
    """Convert operating system errors to exceptions that say what to do.

    Raises
    ------
    HephaestusError
        If the disk is full or read-only, or permission is denied.
    VanishedError
        If a file or folder disappeared.
    """
    try:
        yield
    except FileNotFoundError as error:
        raise VanishedError(str(error)) from error
    except OSError as error:
        raise HephaestusError(
            f"cannot write {path.name.removesuffix('.part')} to the download cache {path.parent}: "
            f"{describe_os_error(error, 'HEPHAESTUS_CACHE_DIR')}; then run the same command again "
            "(HEPHAESTUS_CACHE_LIMIT_GB limits the size of the cache)"
        ) from error
