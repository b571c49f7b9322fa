"""Archives of packages as an npm registry serves them, made here."""

from __future__ import annotations

import base64
import gzip
import hashlib
import io
import tarfile
from collections.abc import Mapping

from hephaestus_build.download.npm_registry import NpmPackage


def pack(files: Mapping[str, bytes], *, links: Mapping[str, str] | None = None) -> bytes:
    """Return an archive with some files, and with symbolic links if there are any."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
        for name, target in (links or {}).items():
            member = tarfile.TarInfo(name)
            member.type, member.linkname = tarfile.SYMTYPE, target
            archive.addfile(member)
    return gzip.compress(stream.getvalue(), mtime=0)  # the same bytes at any time


def pinned(content: bytes, name: str = "zarrita", version: str = "9.9.9") -> NpmPackage:
    """Return the package that is pinned to an archive."""
    integrity = f"sha512-{base64.b64encode(hashlib.sha512(content).digest()).decode()}"
    return NpmPackage(name, version, integrity, r"dist/[a-z/]+\.js")
