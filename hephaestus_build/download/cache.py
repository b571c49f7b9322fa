"""The download cache: whole products with their receipts, parts that can be resumed, and a size limit.

Everything in it may be thrown away at any time, also while a build runs.
"""

from __future__ import annotations

import json
import logging
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import msgspec

from hephaestus_build.core.plain_text import sanitize_text
from hephaestus_build.core.provenance import RECEIPT_SUFFIX, Digest, Receipt, receipt_path
from hephaestus_build.core.web_address import redact_url
from hephaestus_build.download.cache_files import (
    open_plain,
    read_json_note,
    write_text_atomic,
)
from hephaestus_build.download.validators import Validators

logger = logging.getLogger(__name__)

# How much was added since the folder was last looked through; a loss of it costs another look.
_GROWTH_FILE = ".hephaestus-growth.json"
#: Seconds after which a part that nobody writes is given up by :meth:`DownloadCache.prune`.
MAX_PART_AGE = 2 * 24 * 3600.0
# A cache over its limit is pruned to this share of it, so that it is not pruned again at once.
_PRUNE_TARGET = 0.9


def read_receipt(path: Path) -> Receipt:
    """Return the receipt of the product at `path`.

    Raises
    ------
    OSError, ValueError
        If there is none that can be read.
    """
    receipt = read_json_note(receipt_path(path), Receipt)
    etag, last_modified = Validators.sanitize(receipt.etag, receipt.last_modified)
    return receipt.replace(
        product=sanitize_text(receipt.product),
        url=redact_url(receipt.url),
        etag=etag,
        last_modified=last_modified,
        detail=sanitize_text(receipt.detail),
        notes=tuple(sanitize_text(note) for note in receipt.notes),
    )


def is_of(record: Receipt, path: Path, digest: Digest) -> bool:
    """Whether `record` is of the content of the file at `path`, whose digest is `digest`.

    The file is read only where the record names another algorithm.
    """
    known = record.digest
    if known is None or known.algorithm == digest.algorithm:
        return known == digest
    with suppress(OSError), open_plain(path) as stream:
        return Digest.of(stream, known.algorithm) == known
    return False


class _Growth(msgspec.Struct):
    """How many bytes were added since the folder was last looked through, under which limit."""

    limit: float
    unseen: float


class DownloadCache:
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
        self._lock = threading.Lock()

    def verified_receipt(self, target: Path, product: str, limit: int = 1 << 40) -> Receipt | None:
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
                known = receipt.digest
                if known is not None and Digest.of(stream, known.algorithm) == known:
                    os.utime(receipt_path(target))
                    return receipt
        return None

    def discard(self, target: Path) -> None:
        """Remove a product and its receipt."""
        with suppress(OSError):
            receipt_path(target).unlink(missing_ok=True)
            target.unlink(missing_ok=True)

    @contextmanager
    def pin(self, target: Path) -> Iterator[None]:
        """Keep `target` from being pruned by this process."""
        with self._lock:
            self._in_use[target] = self._in_use.get(target, 0) + 1
        try:
            yield
        finally:
            with self._lock:
                self._in_use[target] -= 1
                if not self._in_use[target]:
                    del self._in_use[target]

    def record_growth(self, size: int) -> None:
        """Take note of `size` new bytes, and prune when they may have filled the cache.

        Looking through the folder takes the longer the more there is: it is done once per hundredth of the
        limit, however many processes add to it.
        """
        with self._lock:
            unseen = self._unscanned_bytes() + size
            due = unseen >= self.limit / 100
            with suppress(OSError):  # then the next one looks
                note = {"limit": self.limit, "unseen": 0 if due else unseen}
                write_text_atomic(self.folder / _GROWTH_FILE, json.dumps(note))
        if due:
            self.prune()

    def _unscanned_bytes(self) -> float:
        """Return how many bytes were added since the folder was last looked through; at first: enough to."""
        with suppress(OSError, ValueError):
            note = read_json_note(self.folder / _GROWTH_FILE, _Growth)
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
        found = list(_scan_products(self.folder))
        total, removed = sum(size for _, size, _ in found), 0
        excess = total - limit * _PRUNE_TARGET if total > limit else 0
        for used, size, path in sorted(found):
            part = path.suffix == ".part"
            unwanted = time.time() - used > MAX_PART_AGE if part else removed < excess
            if unwanted and self._remove(path):
                removed += size
        if removed:
            logger.info("pruned %.1f MB from the download cache %s", removed / 1e6, self.folder)
        return removed

    def _remove(self, path: Path) -> bool:
        with self._lock:
            if path in self._in_use:
                return False
            with suppress(OSError, ValueError):
                if path.suffix != ".part":
                    read_receipt(path)
                path.unlink(missing_ok=True)
                note = path.with_name(path.name + ".json") if path.suffix == ".part" else receipt_path(path)
                note.unlink(missing_ok=True)
                return True
        return False


def _scan_products(folder: Path) -> Iterator[tuple[float, int, Path]]:
    """Yield time of last use, bytes and path of each product and part under `folder`."""

    def scan(path: str) -> Iterator[os.DirEntry[str]]:
        with suppress(OSError), os.scandir(path) as entries:
            yield from entries

    waiting = [str(folder)]
    while waiting:
        entries = {entry.name: entry for entry in scan(waiting.pop())}
        ours = any(name.endswith(RECEIPT_SUFFIX) for name in entries)  # others have parts of that name too
        for name, entry in entries.items():
            with suppress(OSError):
                if entry.is_dir(follow_symlinks=False):
                    waiting.append(entry.path)
                elif not entry.is_file(follow_symlinks=False):
                    continue  # a link, a pipe: not this program's
                elif name.endswith(".part") and ours:
                    facts = entry.stat(follow_symlinks=False)
                    yield facts.st_mtime, facts.st_size, Path(entry.path)
                elif note := entries.get(name + RECEIPT_SUFFIX):
                    used, size = (item.stat(follow_symlinks=False) for item in (note, entry))
                    yield used.st_mtime, size.st_size, Path(entry.path)
