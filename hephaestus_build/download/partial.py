"""Partial downloads: files that one process at a time writes, and that a later one can resume."""

from __future__ import annotations

import errno
import os
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO, Self

import msgspec
from blake3 import blake3

from hephaestus_build.core.atomic_io import make_folder, write_atomic, write_json
from hephaestus_build.core.provenance import Digest, Receipt, receipt_path
from hephaestus_build.download.cache_files import (
    PLAIN_OPEN_FLAGS,
    VanishedError,
    read_json_note,
    translate_cache_errors,
)
from hephaestus_build.download.validators import Validators

try:
    import fcntl
except ImportError:  # not available on Windows, where only one process at a time may use a cache
    fcntl = None  # type: ignore[assignment]

_BLOCK = 1 << 20


class BusyError(Exception):
    """Another thread or process was still downloading the same product after the maximum wait."""


@dataclass(frozen=True)
class PartialOrigin:
    """Address and validators of the file that a part belongs to, which must be unchanged to resume it."""

    url: str
    etag: str | None = None
    last_modified: str | None = None
    length: int | None = None

    @property
    def validators(self) -> Validators:
        """ETag and date of the file."""
        return Validators(self.etag, self.last_modified)

    @property
    def if_range(self) -> str | None:
        """Value of the If-Range header; None if a change of the file could not be detected."""
        if self.etag and not self.etag.startswith("W/"):
            return self.etag
        return self.last_modified


class PartialDownload:
    """A partial download in the file ``<target>.part``, with one writer at a time.

    Use :meth:`acquire` to create one.
    """

    def __init__(self, path: Path, stream: BinaryIO) -> None:
        self.path = path
        self._stream = stream
        self._origin_file = path.with_name(path.name + ".json")
        self._hash = blake3()
        self._published = False
        self._url = ""
        self.size = 0
        self.origin: PartialOrigin | None = None

    @classmethod
    @contextmanager
    def acquire(cls, target: Path, max_wait: float) -> Iterator[Self]:
        """Open the part of `target` as its only writer among threads and processes.

        Raises
        ------
        BusyError
            If another writer still holds it after `max_wait` seconds.
        """
        path = target.with_name(target.name + ".part")
        give_up = time.monotonic() + max_wait
        pause = 0.02
        while True:
            with translate_cache_errors(target):
                make_folder(path.parent)
                stream = _open_part(path)
            try:
                if stream is not None and _try_lock(stream) and _is_same_file(path, stream):
                    yield cls(path, stream)
                    return
            finally:
                if stream is not None:
                    with suppress(OSError):  # a full disk was reported by the failed write
                        stream.close()
            if time.monotonic() > give_up:
                raise BusyError(f"another process is downloading {target.name}")
            time.sleep(pause)
            pause = min(1.0, pause * 1.5)

    def resume(self, url: str, limit: int) -> tuple[int, str | None]:
        """Return the byte offset from which to request `url`, and the If-Range header for it.

        Parameters
        ----------
        url : str
            Address of the product, redacted.
        limit : int
            Maximum size of the product, bytes.
        """
        self._url = url
        origin = self._read_origin()
        with translate_cache_errors(self.path):
            size = self._stream.seek(0, os.SEEK_END)
        resumable = origin and origin.url == url and origin.if_range and 0 < size < (origin.length or limit)
        resumable = resumable and size < limit
        if not resumable:
            # the part may belong to another address, so it is discarded only when a response arrives
            self._hash, self.size, self.origin = blake3(), 0, None
            return 0, None
        with translate_cache_errors(self.path):
            self._stream.seek(0)
            self._hash = blake3()
            while block := self._stream.read(_BLOCK):
                self._hash.update(block)
        self.size, self.origin = size, origin
        return size, origin.if_range if origin else None

    def restart(self) -> None:
        """Discard the received bytes."""
        with translate_cache_errors(self.path):
            self._stream.truncate(0)
            self._origin_file.unlink(missing_ok=True)
        self._hash, self.size, self.origin = blake3(), 0, None

    def record_origin(self, marks: Validators, length: int | None) -> None:
        """Record which file the following bytes belong to, so that a later process can resume."""
        self.origin = PartialOrigin(self._url, marks.etag, marks.last_modified, length)
        if self.origin.if_range:
            with translate_cache_errors(self.path):
                write_json(self._origin_file, self.origin)

    def write(self, block: bytes) -> None:
        """Append `block`."""
        with translate_cache_errors(self.path):
            self._stream.write(block)
        self._hash.update(block)
        self.size += len(block)

    def flush(self) -> None:
        """Flush buffered bytes, so that the file can be read by name.

        Raises
        ------
        VanishedError
            If the file was removed or renamed.
        """
        with translate_cache_errors(self.path):
            self._stream.flush()
        if not _is_same_file(self.path, self._stream):
            raise VanishedError(str(self.path))

    @property
    def digest(self) -> Digest:
        """Digest of the bytes received so far."""
        return Digest("blake3", self._hash.hexdigest())

    def publish(self, target: Path, receipt: Receipt) -> None:
        """Rename the part to the product, then write its receipt.

        Readers ignore a product without a matching receipt.
        """
        self.flush()
        with translate_cache_errors(target):
            self._origin_file.unlink(missing_ok=True)
            self.path.replace(target)
            self._published = True
            write_atomic(receipt_path(target), msgspec.json.format(msgspec.json.encode(receipt), indent=1))

    def release(self) -> None:
        """Keep the part if it can be resumed, otherwise remove it."""
        size = 0
        with suppress(OSError):
            self._stream.flush()
            size = os.fstat(self._stream.fileno()).st_size
        if not (size and self._read_origin()):
            self.remove()

    def remove(self) -> None:
        """Remove the part and the record of its origin."""
        if self._published:  # another process may have created a new part of this name
            return
        with suppress(OSError):
            self.path.unlink(missing_ok=True)
            self._origin_file.unlink(missing_ok=True)

    @property
    def started_at(self) -> float:
        """Time at which the first byte was received, seconds since 1970; 0 if unknown."""
        try:
            return self._origin_file.stat(follow_symlinks=False).st_mtime
        except OSError:
            return 0.0

    def _read_origin(self) -> PartialOrigin | None:
        with suppress(OSError, ValueError):
            origin = read_json_note(self._origin_file, PartialOrigin)
            return replace(origin, **Validators.sanitize(*origin.validators)._asdict())
        return None


def _open_part(path: Path) -> BinaryIO | None:
    """Open a part for appending; return None if something else was found, and removed, in its place.

    A symbolic link, or a hard link to another file, would redirect the writes.
    """
    with suppress(FileNotFoundError):
        state = path.stat(follow_symlinks=False)
        if not stat.S_ISREG(state.st_mode) or state.st_nlink > 1:
            path.unlink()  # removes only the link, not its target; fails for a folder
    try:
        stream = os.fdopen(
            os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | PLAIN_OPEN_FLAGS, 0o666), "ab+"
        )
    except OSError as error:
        if error.errno != errno.ELOOP:
            raise
        return None
    state = os.fstat(stream.fileno())
    if stat.S_ISREG(state.st_mode) and state.st_nlink <= 1:
        return stream
    stream.close()
    return None


def _try_lock(stream: BinaryIO) -> bool:
    """Try to lock the file exclusively; the operating system releases the lock with the process."""
    if fcntl is None:
        return True
    try:
        fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # file systems without locks answer in many ways; the lock of the frame remains
        pass
    return True


def _is_same_file(path: Path, stream: BinaryIO) -> bool:
    """Return whether `path` is still the open file `stream`, and was not renamed or removed."""
    try:
        return os.path.samestat(path.stat(), os.fstat(stream.fileno()))
    except FileNotFoundError:
        return False
