"""Receipts: provenance records of downloads, with their outcome, origin and hash.

Downloads are hashed with BLAKE3. Receipts of earlier versions, which contain SHA-256, are kept unchanged, and
a file is checked by the algorithm that its receipt names.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from enum import StrEnum
from io import BufferedReader
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
from blake3 import blake3

# Specific to this program, since files with a receipt beside them may be pruned.
RECEIPT_SUFFIX = ".receipt.json"
#: The origin of receipts of what was imported from a published cube.
PUBLISHED = "published"
#: Constructor of the hash object, by algorithm.
ALGORITHMS: Mapping[str, Callable[[], Any]] = {"blake3": blake3, "sha256": hashlib.sha256}


class Digest(NamedTuple):
    """A hash of a file's content.

    Attributes
    ----------
    algorithm : str
        ``blake3``, or ``sha256`` in receipts of earlier versions.
    value : str
        Hash in hexadecimal.
    """

    algorithm: str
    value: str

    @classmethod
    def of(cls, stream: BufferedReader, algorithm: str) -> Digest:
        """Return the digest of the remaining content of `stream`, which is opened in binary mode."""
        stream.seek(0)
        return cls(algorithm, hashlib.file_digest(stream, ALGORITHMS[algorithm]).hexdigest())


class Outcome(StrEnum):
    """Outcome of the request for one product."""

    DOWNLOADED = "downloaded"
    UNCHANGED = "unchanged"  #: the cache has a verified copy, and the server reports no change
    ABSENT = "absent"  #: the archive has no such product (404, 410, or not in its listing)
    REFUSED = "refused"  #: access denied (401, 403)
    UNREACHABLE = "unreachable"  #: no complete response after all retries (timeouts, resets, 429, 5xx)
    CORRUPT = "corrupt"  #: a response, complete or truncated, whose content is not the product

    @property
    def ok(self) -> bool:
        """Whether the product is here, whole and checked."""
        return self in (Outcome.DOWNLOADED, Outcome.UNCHANGED)


class PriorUse(NamedTuple):
    """Record of the first use of a product in a cube.

    Attributes
    ----------
    receipt : Receipt or None
        Receipt of the file that was used.
    replaced_since : float
        Time at which the archive was found to have a different file, seconds since 1970; 0 for never.
    """

    receipt: Receipt | None = None
    replaced_since: float = 0.0


def receipt_path(path: Path) -> Path:
    """Return the path of the receipt of the product at `path`."""
    return path.with_name(path.name + RECEIPT_SUFFIX)


class Receipt(msgspec.Struct, frozen=True, omit_defaults=True):
    """Provenance record of one download. Empty fields are omitted in JSON.

    Attributes
    ----------
    product : str
        Name of the product, such as ``20160909_20160921.geo.diff_pha.tif``.
    outcome : Outcome
        Outcome of the request.
    url : str
        Address of the last response, after redirects and without credentials.
    size : int or None
        Size, bytes.
    blake3 : str or None
        BLAKE3 hash of the downloaded bytes.
    sha256 : str or None
        SHA-256 hash, in place of BLAKE3, in receipts of earlier versions; see :attr:`digest`.
    last_modified, etag : str or None
        Response headers, verbatim.
    fetched : str or None
        Time of the download, UTC, ISO 8601.
    detail : str
        Reason for an unsuccessful outcome, in words.
    values : str or None
        For products whose values are kept instead of the file (ERA5): source, area, version and BLAKE3 hash
        of the values at their first use.
    notes : tuple of str
        Processing applied to the content afterwards, such as an alignment to the frame's grid.
    origin : str
        ``published`` for what was imported from a published cube; empty for what an archive served.
    file : str
        Where an imported product was read: the name of the cube or of its tar file, without the folder that
        held it, and the path within it.
    """

    product: str
    outcome: Outcome
    url: str = ""
    size: int | None = None
    blake3: str | None = None
    sha256: str | None = None
    last_modified: str | None = None
    etag: str | None = None
    fetched: str | None = None
    detail: str = ""
    notes: tuple[str, ...] = ()
    values: str | None = None
    origin: str = ""
    file: str = ""

    @property
    def ok(self) -> bool:
        """Whether the product is here, whole and checked."""
        return self.outcome.ok

    @property
    def digest(self) -> Digest | None:
        """The hash of the downloaded bytes, by the algorithm that this receipt names."""
        if self.blake3 is not None:
            return Digest("blake3", self.blake3)
        return Digest("sha256", self.sha256) if self.sha256 is not None else None

    def with_digest(self, digest: Digest) -> Receipt:
        """Return a copy of the receipt with another digest."""
        return self.replace(**{**dict.fromkeys(ALGORITHMS), digest.algorithm: digest.value})

    def with_notes(self, *notes: str) -> Receipt:
        """Return a copy of the receipt with additional processing notes."""
        return self.replace(notes=(*self.notes, *notes))

    def replace(self, **changes: Any) -> Receipt:
        """Return a copy of the receipt with some fields changed."""
        return msgspec.structs.replace(self, **changes)
