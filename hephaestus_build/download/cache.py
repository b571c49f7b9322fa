"""Download cache of complete products with receipts and of resumable parts, with a size limit.

Its files may be deleted at any time, even during a build.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import msgspec

from hephaestus_build.core.atomic_io import write_json
from hephaestus_build.core.plain_text import sanitize_text
from hephaestus_build.core.provenance import RECEIPT_SUFFIX, Digest, Receipt, receipt_path
from hephaestus_build.core.web_address import redact_url
from hephaestus_build.download.cache_files import (
    open_plain,
    read_json_note,
)
from hephaestus_build.download.validators import Validators

logger = logging.getLogger(__name__)

# File that counts the bytes added since the folder was last scanned; if lost, the folder is scanned again.
_GROWTH_FILE = ".hephaestus-growth.json"
#: Age at which :meth:`DownloadCache.prune` may remove an unfinished part, seconds since its last change.
MAX_PART_AGE = 2 * 24 * 3600.0
# Fraction of the limit to which the cache is pruned, so that it does not soon need pruning again.
_PRUNE_TARGET = 0.9


def read_receipt(path: Path) -> Receipt:
    """Read the receipt of the product at `path`.

    Raises
    ------
    OSError, ValueError
        If the receipt is missing or malformed.
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
    """Return whether the receipt `record` matches the file at `path`, whose digest is `digest`.

    The file is read only if the receipt uses another hash algorithm.
    """
    known = record.digest
    if known is None or known.algorithm == digest.algorithm:
        return known == digest
    with suppress(OSError), open_plain(path) as stream:
        return Digest.of(stream, known.algorithm) == known
    return False


class _Growth(msgspec.Struct):
    """Bytes added since the folder was last scanned, and the limit at that time."""

    limit: float
    unseen: float


class DownloadCache:
    """Cache of downloaded products in one folder.

    Parameters
    ----------
    folder : Path
        Folder of the cache; created when needed.
    limit : float
        Maximum size, bytes, enforced by :meth:`prune`.
    """

    def __init__(self, folder: Path, limit: float) -> None:
        self.folder = folder
        self.limit = limit
        self._in_use: dict[Path, int] = {}
        self._lock = threading.Lock()

    def verified_receipt(self, target: Path, product: str, limit: int = 1 << 40) -> Receipt | None:
        """Return the receipt of an intact product at `target` and mark it as used; None if not intact.

        Parameters
        ----------
        target : Path
            Path of the product in the cache.
        product : str
            Name of the product.
        limit : int
            Maximum size of the product, bytes; larger files are not read.
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
        """Protect `target` from pruning by this process during the block."""
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
        """Record that `size` bytes were added, and prune if the cache may have exceeded its limit.

        Scanning a large folder is slow, so it is scanned only once for each added hundredth of the limit, by
        all processes together.
        """
        with self._lock:
            unseen = self._unscanned_bytes() + size
            due = unseen >= self.limit / 100
            with suppress(OSError):  # a later call scans instead
                note = {"limit": self.limit, "unseen": 0 if due else unseen}
                write_json(self.folder / _GROWTH_FILE, note)
        if due:
            self.prune()

    def _unscanned_bytes(self) -> float:
        """Return the bytes added since the last scan; the whole limit if unknown, to trigger a scan."""
        with suppress(OSError, ValueError):
            note = read_json_note(self.folder / _GROWTH_FILE, _Growth)
            if note.limit == self.limit and note.unseen >= 0:
                return note.unseen
        return self.limit

    def prune(self, limit: float | None = None) -> int:
        """Remove the least recently used products until the cache is within its limit.

        Only files of this program are counted and removed: products with receipts, and old parts beside
        them. Other files are never touched, even if the cache folder is shared with other data.

        Parameters
        ----------
        limit : float, optional
            Size to prune to, bytes; by default, the limit of the cache.

        Returns
        -------
        int
            Number of bytes removed.
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
    """Yield time of last use, size and path of each product and part below `folder`."""

    def scan(path: str) -> Iterator[os.DirEntry[str]]:
        with suppress(OSError), os.scandir(path) as entries:
            yield from entries

    waiting = [str(folder)]
    while waiting:
        entries = {entry.name: entry for entry in scan(waiting.pop())}
        ours = any(name.endswith(RECEIPT_SUFFIX) for name in entries)  # other programs use .part too
        for name, entry in entries.items():
            with suppress(OSError):
                if entry.is_dir(follow_symlinks=False):
                    waiting.append(entry.path)
                elif not entry.is_file(follow_symlinks=False):
                    continue  # links and pipes do not belong to this program
                elif name.endswith(".part") and ours:
                    facts = entry.stat(follow_symlinks=False)
                    yield facts.st_mtime, facts.st_size, Path(entry.path)
                elif note := entries.get(name + RECEIPT_SUFFIX):
                    used, size = (item.stat(follow_symlinks=False) for item in (note, entry))
                    yield used.st_mtime, size.st_size, Path(entry.path)
