"""Text files that an export writes again, unless somebody has changed them meanwhile.

The first comment of such a file holds the hash of the rest, so that a project which was saved by QGIS, or a
file of somebody else, is told from what this program wrote.
"""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

from hephaestus_build.core.atomic_io import write_atomic
from hephaestus_build.core.plain_files import is_plain_file, read_plain_file

_SEAL = re.compile(rb"<!-- written by hephaestus-build, [0-9a-f]{64} -->\n")
_MAX_BYTES = 256 << 20


def seal_xml(text: str) -> bytes:
    """Return an XML document, without declaration, with a comment that holds its hash."""
    content = text.encode()
    return b"<!-- written by hephaestus-build, " + _digest(content) + b" -->\n" + content


def is_unchanged(document: bytes) -> bool:
    """Return whether a document is as :func:`seal_xml` made it."""
    found = _SEAL.match(document)
    return found is not None and _digest(document[found.end() :]) in found[0]


def write_sealed(path: Path, document: bytes) -> bool:
    """Write a document, and return whether `path` holds it now: a file that was changed since is kept."""
    if path.exists() or path.is_symlink():
        there = (
            read_plain_file(path.parent, path.name, _MAX_BYTES)
            if is_plain_file(path.parent, path.name)
            else b""
        )
        if not is_unchanged(there):
            return False
        if there == document:
            return True
    write_atomic(path, document)
    return True


def _digest(content: bytes) -> bytes:
    return hashlib.sha256(content).hexdigest().encode()
