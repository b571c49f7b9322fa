"""Receipts of downloads: how each product ended, and the facts that prove it.

Downloads are hashed with BLAKE3. Records of earlier versions hold SHA-256: they stay as they are, and a
file is checked by the algorithm that its record names.
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

# A name that nobody else's files have, since whatever has it beside it may be pruned.
RECEIPT_SUFFIX = ".receipt.json"
#: What makes the hash object of each algorithm.
ALGORITHMS: Mapping[str, Callable[[], Any]] = {"blake3": blake3, "sha256": hashlib.sha256}


class Digest(NamedTuple):
    """A hash of a file's content.

    Attributes
    ----------
    algorithm : str
        ``blake3``, or ``sha256`` in records of earlier versions.
    value : str
        In hexadecimal.
    """

    algorithm: str
    value: str

    @classmethod
    def of(cls, stream: BufferedReader, algorithm: str) -> Digest:
        """Return the digest of everything in `stream`, which is opened in binary mode."""
        stream.seek(0)
        return cls(algorithm, hashlib.file_digest(stream, ALGORITHMS[algorithm]).hexdigest())


class Outcome(StrEnum):
    """The named ends of a request for one product."""

    DOWNLOADED = "downloaded"
    UNCHANGED = "unchanged"  #: a checked copy is in the cache and upstream says it is the same
    ABSENT = "absent"  #: upstream answers that there is no such product (404, 410, not in its listing)
    REFUSED = "refused"  #: not for us (401, 403)
    UNREACHABLE = "unreachable"  #: no complete answer within the tries (timeouts, resets, 429, 5xx)
    CORRUPT = "corrupt"  #: an answer came, complete or cut, and its content is not the product

    @property
    def ok(self) -> bool:
        """Whether the product is here, whole and checked."""
        return self in (Outcome.DOWNLOADED, Outcome.UNCHANGED)


class PriorUse(NamedTuple):
    """What is known of a product from an earlier use of it.

    Attributes
    ----------
    receipt : Receipt or None
        Of its first use.
    replaced_since : float
        When upstream was found to hold another one than was used, seconds since 1970; 0 for never.
    """

    receipt: Receipt | None = None
    replaced_since: float = 0.0


def receipt_path(path: Path) -> Path:
    """Return where the receipt of the product at `path` lies."""
    return path.with_name(path.name + RECEIPT_SUFFIX)


class Receipt(msgspec.Struct, frozen=True, omit_defaults=True):
    """What happened to one product; becomes its provenance. As JSON its empty fields are left out.

    Attributes
    ----------
    product : str
        Name of the product, such as ``20160909_20160921.geo.diff_pha.tif``.
    outcome : Outcome
        How the request ended.
    url : str
        The address that answered last (never with credentials).
    size : int or None
        Bytes.
    blake3 : str or None
        Hash of the bytes as downloaded.
    sha256 : str or None
        The same in a record of an earlier version, in place of BLAKE3. A record has one of them; see
        :attr:`digest`.
    last_modified, etag : str or None
        As the server wrote them.
    fetched : str or None
        UTC, ISO 8601.
    detail : str
        Why, in words, when the outcome is not good.
    values : str or None
        Where the values are kept in place of the file (ERA5): source, area, version and BLAKE3 of those that
        were read from it when they were first used.
    notes : tuple of str
        What was done to the content afterwards (such as an alignment to the frame's grid).
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

    @property
    def ok(self) -> bool:
        """Whether the product is here, whole and checked."""
        return self.outcome.ok

    @property
    def digest(self) -> Digest | None:
        """The hash of the bytes as downloaded, by the algorithm that this record names."""
        if self.blake3 is not None:
            return Digest("blake3", self.blake3)
        return Digest("sha256", self.sha256) if self.sha256 is not None else None

    def with_digest(self, digest: Digest) -> Receipt:
        """Return the receipt with `digest` in place of its own."""
        return self.replace(**{**dict.fromkeys(ALGORITHMS), digest.algorithm: digest.value})

    def with_notes(self, *notes: str) -> Receipt:
        """Return the receipt with further notes of what was done to the content."""
        return self.replace(notes=(*self.notes, *notes))

    def replace(self, **changes: Any) -> Receipt:
        """Return the receipt with some fields changed."""
        return msgspec.structs.replace(self, **changes)
