"""A download on its way: a part that one process writes and a later one goes on with."""

from __future__ import annotations

import errno
import json
import os
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import BinaryIO, Self

import msgspec
from blake3 import blake3

from hephaestus_build.core.provenance import Digest, Receipt, receipt_path
from hephaestus_build.download.cache_files import (
    PLAIN_OPEN_FLAGS,
    VanishedError,
    read_json_note,
    translate_cache_errors,
    write_text_atomic,
)
from hephaestus_build.download.validators import Validators

try:
    import fcntl
except ImportError:  # not on every system; there one process at a time may use a cache
    fcntl = None  # type: ignore[assignment]

_BLOCK = 1 << 20
_NO_LOCKS = {errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOLCK}


class BusyError(Exception):
    """Another thread or process has been downloading the same product for all the time allowed."""


@dataclass(frozen=True)
class PartialOrigin:
    """Where the bytes of a part came from: what must still hold for them to be continued."""

    url: str
    etag: str | None = None
    last_modified: str | None = None
    length: int | None = None

    @property
    def validators(self) -> Validators:
        """What the server said of the file."""
        return Validators(self.etag, self.last_modified)

    @property
    def if_range(self) -> str | None:
        """What If-Range may ask for; None if a change upstream could not be told."""
        if self.etag and not self.etag.startswith("W/"):
            return self.etag
        return self.last_modified


class PartialDownload:
    """A download on its way, at ``<target>.part``; one writer at a time.

    Use :meth:`own` to get one.
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
    def acquire(cls, target: Path, patience: float) -> Iterator[Self]:
        """Open the part of `target` as its only writer among threads and processes.

        Raises
        ------
        BusyError
            If somebody else still writes it after `patience` seconds.
        """
        path = target.with_name(target.name + ".part")
        give_up = time.monotonic() + patience
        pause = 0.02
        while True:
            with translate_cache_errors(target):
                path.parent.mkdir(parents=True, exist_ok=True)
                stream = _open_part(path)
            try:
                if stream is not None and _try_lock(stream) and _is_same_file(path, stream):
                    yield cls(path, stream)
                    return
            finally:
                if stream is not None:
                    with suppress(OSError):  # a full disk was told of when it was met
                        stream.close()
            if time.monotonic() > give_up:
                raise BusyError(f"another process is downloading {target.name}")
            time.sleep(pause)
            pause = min(1.0, pause * 1.5)

    def resume(self, url: str, limit: int) -> tuple[int, str | None]:
        """Look at what is here and return from which byte on `url` is wanted, and the If-Range for it.

        Parameters
        ----------
        url : str
            The address, redacted.
        limit : int
            Bytes that the product may have.
        """
        self._url = url
        origin = self._read_origin()
        with translate_cache_errors(self.path):
            size = self._stream.seek(0, os.SEEK_END)
        resumable = origin and origin.url == url and origin.if_range and 0 < size < (origin.length or limit)
        resumable = resumable and size < limit
        if not resumable:
            # what is here may still be right for another address: only an answer throws it away
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
        """Throw away what is here."""
        with translate_cache_errors(self.path):
            self._stream.truncate(0)
            self._origin_file.unlink(missing_ok=True)
        self._hash, self.size, self.origin = blake3(), 0, None

    def record_origin(self, marks: Validators, length: int | None) -> None:
        """Note what the bytes that follow belong to, so that a later process can go on."""
        self.origin = PartialOrigin(self._url, marks.etag, marks.last_modified, length)
        if self.origin.if_range:
            with translate_cache_errors(self.path):
                write_text_atomic(self._origin_file, json.dumps(asdict(self.origin)))

    def write(self, block: bytes) -> None:
        """Append `block`."""
        with translate_cache_errors(self.path):
            self._stream.write(block)
        self._hash.update(block)
        self.size += len(block)

    def flush(self) -> None:
        """Hand everything to the file, for whoever reads it by name.

        Raises
        ------
        VanishedError
            If the file no longer has that name.
        """
        with translate_cache_errors(self.path):
            self._stream.flush()
        if not _is_same_file(self.path, self._stream):
            raise VanishedError(str(self.path))

    @property
    def digest(self) -> Digest:
        """Of the bytes so far."""
        return Digest("blake3", self._hash.hexdigest())

    def publish(self, target: Path, receipt: Receipt) -> None:
        """Make the part the product, then lay its receipt beside it.

        Whoever finds a product with no receipt, or with another's, takes it for nothing.
        """
        self.flush()
        with translate_cache_errors(target):
            self._origin_file.unlink(missing_ok=True)
            self.path.replace(target)
            self._published = True
            write_text_atomic(
                receipt_path(target), msgspec.json.format(msgspec.json.encode(receipt), indent=1).decode()
            )

    def release(self) -> None:
        """Keep the part if it can be resumed, else remove it."""
        size = 0
        with suppress(OSError):
            self._stream.flush()
            size = os.fstat(self._stream.fileno()).st_size
        if not (size and self._read_origin()):
            self.remove()

    def remove(self) -> None:
        """Leave nothing behind."""
        if self._published:  # the name may be another's part by now
            return
        with suppress(OSError):
            self.path.unlink(missing_ok=True)
            self._origin_file.unlink(missing_ok=True)

    @property
    def started_at(self) -> float:
        """When the bytes that are here began to come, seconds since 1970; 0 where nobody knows."""
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
    """Open a part to be written on; None after something else was taken out of its place.

    A link would lead writing elsewhere, and so would a second name of another file.
    """
    with suppress(FileNotFoundError):
        state = path.stat(follow_symlinks=False)
        if not stat.S_ISREG(state.st_mode) or state.st_nlink > 1:
            path.unlink()  # the link itself, or this name; a folder is an error
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
    """Try to become the only writer; the lock ends with the process, however that ends."""
    if fcntl is None:
        return True
    try:
        fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:  # some network file systems have no locks: the frame's own lock must do
        if error.errno not in _NO_LOCKS:
            raise
    return True


def _is_same_file(path: Path, stream: BinaryIO) -> bool:
    """Whether `path` still names the file that `stream` has open (not renamed or removed meanwhile)."""
    try:
        return os.path.samestat(path.stat(), os.fstat(stream.fileno()))
    except FileNotFoundError:
        return False
