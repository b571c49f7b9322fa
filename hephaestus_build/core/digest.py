"""Hashes of downloaded files, each with the algorithm that gave it.

Downloads are hashed with BLAKE3. Records of earlier versions hold SHA-256: they stay as they are, and a
file is checked by the algorithm that its record names.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from io import BufferedReader
from typing import Any, NamedTuple

from blake3 import blake3

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
