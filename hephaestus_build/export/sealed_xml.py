"""XML files that an export writes again, unless somebody has changed them meanwhile.

Their seal tells a project which was saved by QGIS, or a file of somebody else, from what this program wrote.
"""

from __future__ import annotations

from pathlib import Path

from hephaestus_build.core.atomic_io import write_atomic
from hephaestus_build.core.embedded_hash import has_xml_hash
from hephaestus_build.core.plain_files import is_plain_file, read_plain_file

_MAX_BYTES = 256 << 20


def write_sealed(path: Path, document: bytes) -> bool:
    """Write a document, and return whether `path` holds it now: a file that was changed since is kept."""
    if path.exists() or path.is_symlink():
        there = (
            read_plain_file(path.parent, path.name, _MAX_BYTES)
            if is_plain_file(path.parent, path.name)
            else b""
        )
        if not has_xml_hash(there):
            return False
        if there == document:
            return True
    write_atomic(path, document)
    return True
