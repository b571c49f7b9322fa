"""The download cache: whole products with their receipts, parts that can be resumed, and a size limit.

Everything in it may be thrown away at any time, also while a build runs.
"""

from __future__ import annotations

import errno
import hashlib
import json
import logging
import os
import stat
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from io import BufferedReader
from pathlib import Path
from typing import BinaryIO, Self, TypeVar

import msgspec

from hephaestus_build.address import redacted
from hephaestus_build.errors import HephaestusError
from hephaestus_build.plain_text import plain_text
from hephaestus_build.sources.marks import Marks
from hephaestus_build.sources.receipt import Receipt

try:
    import fcntl
except ImportError:  # not on every system; there one process at a time may use a cache
    fcntl = None  # type: ignore[assignment]

logger = logging.getLogger(__name__)

_BLOCK = 1 << 20
# A name that nobody else's files have, since whatever has it beside it may be pruned.
_RECEIPT = ".receipt.json"
# How much was added since the folder was last looked through; a loss of it costs another look.
_GROWTH = ".hephaestus-growth.json"
#: Seconds after which a part that nobody writes is given up by :meth:`Cache.prune`.
ABANDONED = 2 * 24 * 3600.0
# A cache over its limit is pruned to this share of it, so that it is not pruned again at once.
_PRUNED = 0.9
# Bytes of a receipt or note; what is longer is none.
_NOTE_BYTES = 1 << 16
_NO_LOCKS = {errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOLCK}


# What opens neither a link nor waits for the other end of a pipe.
_PLAIN = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0)
T = TypeVar("T")


class VanishedError(Exception):
    """A file of the cache was removed while it was in use: begin again."""


class BusyError(Exception):
    """Another thread or process has been downloading the same product for all the time allowed."""


def sidecar(path: Path) -> Path:
    """Return where the receipt of the product at `path` lies."""
    return path.with_name(path.name + _RECEIPT)


def read_receipt(path: Path) -> Receipt:
    """Return the receipt of the product at `path`.

    Raises
    ------
    OSError, ValueError
        If there is none that can be read.
    """
    receipt = _read_note(sidecar(path), Receipt)
    etag, last_modified = Marks.clean(receipt.etag, receipt.last_modified)
    return receipt.but(
        product=plain_text(receipt.product),
        url=redacted(receipt.url),
        etag=etag,
        last_modified=last_modified,
        detail=plain_text(receipt.detail),
        notes=tuple(plain_text(note) for note in receipt.notes),
    )


def open_plain(path: Path) -> BufferedReader:
    """Open a plain file for reading; a link, a pipe or a device in its place is refused at once.

    Raises
    ------
    OSError
        If there is no such file, or what is there is no plain one.
    """
    descriptor = os.open(path, os.O_RDONLY | _PLAIN)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(errno.EINVAL, "no plain file", str(path))
    return os.fdopen(descriptor, "rb")


def _read_note(path: Path, kind: type[T]) -> T:
    """Return what a small file of JSON says; OSError or ValueError if it is none of its kind."""
    with open_plain(path) as stream:
        content = stream.read(_NOTE_BYTES + 1)
    if len(content) > _NOTE_BYTES:
        raise ValueError(f"it is larger than {_NOTE_BYTES} bytes")
    try:
        return msgspec.json.decode(content, type=kind)
    except (msgspec.MsgspecError, RecursionError) as error:
        raise ValueError(f"it is no such note ({type(error).__name__})") from None


@contextmanager
def explained(path: Path) -> Iterator[None]:
    """Turn what the disk refuses into an error that says what to do.

    Raises
    ------
    HephaestusError
        If the disk is full or read-only, or its rights forbid it.
    VanishedError
        If a file or folder disappeared.
    """
    try:
        yield
    except FileNotFoundError as error:
        raise VanishedError(str(error)) from error
    except OSError as error:
        advice = {
            errno.ENOSPC: "the disk is full: free some space, lower HEPHAESTUS_CACHE_LIMIT_GB",
            errno.EDQUOT: "your quota is used up: free some space, lower HEPHAESTUS_CACHE_LIMIT_GB",
            errno.EACCES: "no permission to write there: change the folder's rights",
            errno.EPERM: "no permission to write there: change the folder's rights",
            errno.EFBIG: "a limit on the size of files was met: raise it (ulimit -f)",
            errno.EROFS: "the file system is read-only: mount it for writing",
        }.get(error.errno or 0, f"{error.strerror or error}: check the disk")
        raise HephaestusError(
            f"cannot write {path.name.removesuffix('.part')} to the download cache {path.parent}: {advice} "
            "or set HEPHAESTUS_CACHE_DIR to another folder, then run the same command again"
        ) from error


@dataclass(frozen=True)
class Origin:
    """Where the bytes of a part came from: what must still hold for them to be continued."""

    url: str
    etag: str | None = None
    last_modified: str | None = None
    length: int | None = None

    @property
    def marks(self) -> Marks:
        """What the server said of the file."""
        return Marks(self.etag, self.last_modified)

    @property
    def validator(self) -> str | None:
        """What If-Range may ask for; None if a change upstream could not be told."""
        if self.etag and not self.etag.startswith("W/"):
            return self.etag
        return self.last_modified


class Part:
    """A download on its way, at ``<target>.part``; one writer at a time.

    Use :meth:`own` to get one.
    """

    def __init__(self, path: Path, stream: BinaryIO) -> None:
        self.path = path
        self._stream = stream
        self._note = path.with_name(path.name + ".json")
        self._hash = hashlib.sha256()
        self._published = False
        self._url = ""
        self.size = 0
        self.origin: Origin | None = None

    @classmethod
    @contextmanager
    def own(cls, target: Path, patience: float) -> Iterator[Self]:
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
            with explained(target):
                path.parent.mkdir(parents=True, exist_ok=True)
                stream = _open_part(path)
            try:
                if stream is not None and _lock(stream) and _is(path, stream):
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

    def begin(self, url: str, limit: int) -> tuple[int, str | None]:
        """Look at what is here and return from which byte on `url` is wanted, and the If-Range for it.

        Parameters
        ----------
        url : str
            The address, redacted.
        limit : int
            Bytes that the product may have.
        """
        self._url = url
        origin = self._noted()
        with explained(self.path):
            size = self._stream.seek(0, os.SEEK_END)
        resumable = origin and origin.url == url and origin.validator and 0 < size < (origin.length or limit)
        resumable = resumable and size < limit
        if not resumable:
            # what is here may still be right for another address: only an answer throws it away
            self._hash, self.size, self.origin = hashlib.sha256(), 0, None
            return 0, None
        with explained(self.path):
            self._stream.seek(0)
            self._hash = hashlib.sha256()
            while block := self._stream.read(_BLOCK):
                self._hash.update(block)
        self.size, self.origin = size, origin
        return size, origin.validator if origin else None

    def restart(self) -> None:
        """Throw away what is here."""
        with explained(self.path):
            self._stream.truncate(0)
            self._note.unlink(missing_ok=True)
        self._hash, self.size, self.origin = hashlib.sha256(), 0, None

    def expect(self, marks: Marks, length: int | None) -> None:
        """Note what the bytes that follow belong to, so that a later process can go on."""
        self.origin = Origin(self._url, marks.etag, marks.last_modified, length)
        if self.origin.validator:
            with explained(self.path):
                _write_atomically(self._note, json.dumps(asdict(self.origin)))

    def write(self, block: bytes) -> None:
        """Append `block`."""
        with explained(self.path):
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
        with explained(self.path):
            self._stream.flush()
        if not _is(self.path, self._stream):
            raise VanishedError(str(self.path))

    @property
    def sha256(self) -> str:
        """Of the bytes so far."""
        return self._hash.hexdigest()

    def publish(self, target: Path, receipt: Receipt) -> None:
        """Make the part the product, then lay its receipt beside it.

        Whoever finds a product with no receipt, or with another's, takes it for nothing.
        """
        self.flush()
        with explained(target):
            self._note.unlink(missing_ok=True)
            self.path.replace(target)
            self._published = True
            _write_atomically(
                sidecar(target), msgspec.json.format(msgspec.json.encode(receipt), indent=1).decode()
            )

    def leave(self) -> None:
        """Keep the part if it can be resumed, else remove it."""
        size = 0
        with suppress(OSError):
            self._stream.flush()
            size = os.fstat(self._stream.fileno()).st_size
        if not (size and self._noted()):
            self.remove()

    def remove(self) -> None:
        """Leave nothing behind."""
        if self._published:  # the name may be another's part by now
            return
        with suppress(OSError):
            self.path.unlink(missing_ok=True)
            self._note.unlink(missing_ok=True)

    @property
    def noted(self) -> float:
        """When the bytes that are here began to come, seconds since 1970; 0 where nobody knows."""
        try:
            return self._note.stat(follow_symlinks=False).st_mtime
        except OSError:
            return 0.0

    def _noted(self) -> Origin | None:
        with suppress(OSError, ValueError):
            origin = _read_note(self._note, Origin)
            return replace(origin, **Marks.clean(*origin.marks)._asdict())
        return None


class _Growth(msgspec.Struct):
    """How many bytes were added since the folder was last looked through, under which limit."""

    limit: float
    unseen: float


class Cache:
    """The folder of all downloads.

    Parameters
    ----------
    folder : Path
        Need not exist.
    limit : float
        Bytes that :meth:`prune` keeps it to.
    """

    def __init__(self, folder: Path, limit: float) -> None:
        self.folder = folder
        self.limit = limit
        self._in_use: dict[Path, int] = {}
        self._guard = threading.Lock()

    def receipt(self, target: Path, product: str, limit: int = 1 << 40) -> Receipt | None:
        """Return the receipt of a product that lies whole and unchanged at `target`, and mark it used.

        Parameters
        ----------
        target : Path
            Where the product lies.
        product : str
            Its name.
        limit : int
            Bytes beyond which it is not the product, and not read.
        """
        with suppress(OSError, ValueError):
            receipt = read_receipt(target)
            with open_plain(target) as stream:
                size = os.fstat(stream.fileno()).st_size
                if receipt.product != product or size != receipt.size or size > limit:
                    return None
                if hashlib.file_digest(stream, "sha256").hexdigest() == receipt.sha256:
                    os.utime(sidecar(target))
                    return receipt
        return None

    def forget(self, target: Path) -> None:
        """Remove a product and its receipt."""
        with suppress(OSError):
            sidecar(target).unlink(missing_ok=True)
            target.unlink(missing_ok=True)

    @contextmanager
    def using(self, target: Path) -> Iterator[None]:
        """Keep `target` from being pruned by this process."""
        with self._guard:
            self._in_use[target] = self._in_use.get(target, 0) + 1
        try:
            yield
        finally:
            with self._guard:
                self._in_use[target] -= 1
                if not self._in_use[target]:
                    del self._in_use[target]

    def grew(self, size: int) -> None:
        """Take note of `size` new bytes, and prune when they may have filled the cache.

        Looking through the folder takes the longer the more there is: it is done once per hundredth of the
        limit, however many processes add to it.
        """
        with self._guard:
            unseen = self._unseen() + size
            due = unseen >= self.limit / 100
            with suppress(OSError):  # then the next one looks
                note = {"limit": self.limit, "unseen": 0 if due else unseen}
                _write_atomically(self.folder / _GROWTH, json.dumps(note))
        if due:
            self.prune()

    def _unseen(self) -> float:
        """Return how many bytes were added since the folder was last looked through; at first: enough to."""
        with suppress(OSError, ValueError):
            note = _read_note(self.folder / _GROWTH, _Growth)
            if note.limit == self.limit and note.unseen >= 0:
                return note.unseen
        return self.limit

    def prune(self, limit: float | None = None) -> int:
        """Remove the products used longest ago until the cache is within its limit.

        Only what this program put there counts and goes: a file with its receipt, or a part left behind
        long ago beside such files. Other files are never touched, whatever folder was named as the cache.

        Parameters
        ----------
        limit : float, optional
            Bytes; by default the cache's own.

        Returns
        -------
        int
            Bytes removed.
        """
        limit = self.limit if limit is None else limit
        found = list(_products(self.folder))
        total, removed = sum(size for _, size, _ in found), 0
        excess = total - limit * _PRUNED if total > limit else 0
        for used, size, path in sorted(found):
            part = path.suffix == ".part"
            unwanted = time.time() - used > ABANDONED if part else removed < excess
            if unwanted and self._remove(path):
                removed += size
        if removed:
            logger.info("pruned %.1f MB from the download cache %s", removed / 1e6, self.folder)
        return removed

    def _remove(self, path: Path) -> bool:
        with self._guard:
            if path in self._in_use:
                return False
            with suppress(OSError, ValueError):
                if path.suffix != ".part":
                    read_receipt(path)
                path.unlink(missing_ok=True)
                note = path.with_name(path.name + ".json") if path.suffix == ".part" else sidecar(path)
                note.unlink(missing_ok=True)
                return True
        return False


def _products(folder: Path) -> Iterator[tuple[float, int, Path]]:
    """Yield time of last use, bytes and path of each product and part under `folder`."""

    def scan(path: str) -> Iterator[os.DirEntry[str]]:
        with suppress(OSError), os.scandir(path) as entries:
            yield from entries

    waiting = [str(folder)]
    while waiting:
        entries = {entry.name: entry for entry in scan(waiting.pop())}
        ours = any(name.endswith(_RECEIPT) for name in entries)  # others have parts of that name too
        for name, entry in entries.items():
            with suppress(OSError):
                if entry.is_dir(follow_symlinks=False):
                    waiting.append(entry.path)
                elif not entry.is_file(follow_symlinks=False):
                    continue  # a link, a pipe: not this program's
                elif name.endswith(".part") and ours:
                    facts = entry.stat(follow_symlinks=False)
                    yield facts.st_mtime, facts.st_size, Path(entry.path)
                elif note := entries.get(name + _RECEIPT):
                    used, size = (item.stat(follow_symlinks=False) for item in (note, entry))
                    yield used.st_mtime, size.st_size, Path(entry.path)


def _write_atomically(path: Path, text: str) -> None:
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:12]}.tmp")
    try:
        with temporary.open("x", encoding="utf-8") as stream:
            stream.write(text)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _open_part(path: Path) -> BinaryIO | None:
    """Open a part to be written on; None after something else was taken out of its place.

    A link would lead writing elsewhere, and so would a second name of another file.
    """
    with suppress(FileNotFoundError):
        state = path.stat(follow_symlinks=False)
        if not stat.S_ISREG(state.st_mode) or state.st_nlink > 1:
            path.unlink()  # the link itself, or this name; a folder is an error
    try:
        stream = os.fdopen(os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | _PLAIN, 0o666), "ab+")
    except OSError as error:
        if error.errno != errno.ELOOP:
            raise
        return None
    state = os.fstat(stream.fileno())
    if stat.S_ISREG(state.st_mode) and state.st_nlink <= 1:
        return stream
    stream.close()
    return None


def _lock(stream: BinaryIO) -> bool:
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


def _is(path: Path, stream: BinaryIO) -> bool:
    """Whether `path` still names the file that `stream` has open (not renamed or removed meanwhile)."""
    try:
        return os.path.samestat(path.stat(), os.fstat(stream.fileno()))
    except FileNotFoundError:
        return False
