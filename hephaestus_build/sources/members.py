"""Read the members of an archive in memory: nothing is written, no link followed, sizes bounded."""

from __future__ import annotations

import bz2
import gzip
import hashlib
import io
import lzma
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, cast

#: Largest member that is read; the largest published annotation has 4 kB.
MEMBER_LIMIT = 1 << 20
#: Largest archive once expanded; the published one has 40 MB.
TOTAL_LIMIT = 256 << 20


class UnreadableArchiveError(ValueError):
    """The archive as a whole cannot be read, or grows beyond the bounds."""


@dataclass(frozen=True)
class Member:
    """One file of an archive: its name as written there, and its bytes or why there are none."""

    name: str
    content: bytes = b""
    refused: str = ""


def read_members(
    source: Path, *, suffix: str = ".json", member_limit: int = MEMBER_LIMIT, total_limit: int = TOTAL_LIMIT
) -> Iterator[Member]:
    """Yield the files called ``*<suffix>`` of a tar archive (of any compression), a zip archive or a folder.

    Names are only ever labels: nothing is written, so an absolute path or a ``..`` does no harm. Links
    and devices are not followed; they come back as refused members. A lone file is its own member.

    Raises
    ------
    UnreadableArchiveError
        If the archive is damaged, is no archive, or expands beyond `total_limit` bytes.
    OSError
        If `source` cannot be opened.
    """
    if source.is_dir():
        yield from _folder_members(source, suffix, member_limit, total_limit)
    elif zipfile.is_zipfile(source):
        yield from _zip_members(source, suffix, member_limit, total_limit)
    elif source.name.endswith(suffix):
        yield Member(source.name, *_bounded(source, total_limit))
    else:
        yield from _tar_members(source, suffix, member_limit, total_limit)


def content_hash(source: Path) -> str:
    """Return the SHA-256 of a file, or of the sorted names and hashes of the files in a folder."""
    if source.is_file():
        with source.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    digest = hashlib.sha256()
    for path in sorted(path for path in source.rglob("*.json") if path.is_file()):
        digest.update(f"{path.relative_to(source).as_posix()} {content_hash(path)}\n".encode())
    return digest.hexdigest()


def _decompressed(stream: IO[bytes]) -> IO[bytes]:
    magic = stream.read(6)
    stream.seek(0)
    for mark, open_ in ((b"\x1f\x8b", gzip.open), (b"BZh", bz2.open), (b"\xfd7zXZ\x00", lzma.open)):
        if magic.startswith(mark):
            return cast(IO[bytes], open_(stream))
    return stream


def _expanded(stream: IO[bytes], limit: int) -> io.BytesIO:
    """Return all that `stream` holds, or refuse a decompression bomb after `limit` bytes."""
    content = stream.read(limit + 1)
    if len(content) > limit:
        raise UnreadableArchiveError(f"it expands beyond {limit >> 20} MB")
    return io.BytesIO(content)


def _tar_members(source: Path, suffix: str, member_limit: int, total_limit: int) -> Iterator[Member]:
    try:
        with source.open("rb") as stream:
            expanded = _expanded(_decompressed(stream), total_limit)
        with tarfile.open(fileobj=expanded, mode="r:") as archive:
            for entry in archive:
                if entry.isdir() or not entry.name.endswith(suffix):
                    continue
                if not entry.isfile():
                    kind = "a link" if entry.issym() or entry.islnk() else "not a plain file"
                    yield Member(entry.name, refused=f"it is {kind}")
                elif entry.size > member_limit:
                    yield Member(entry.name, refused=f"it has {entry.size} bytes")
                else:
                    content = archive.extractfile(entry)
                    yield Member(entry.name, content.read() if content else b"")
            # tarfile ends in silence at a cut or a damaged header: only a block of zeros is the end
            expanded.seek(archive.offset)
            if expanded.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
                raise UnreadableArchiveError("it is cut or damaged between two members")
    except (tarfile.TarError, EOFError, zlib.error, lzma.LZMAError) as error:
        raise UnreadableArchiveError(str(error) or "it ends too early") from error
    except OSError as error:
        if error.errno is None:  # so gzip and bz2 report damage
            raise UnreadableArchiveError(str(error)) from error
        raise


def _zip_members(source: Path, suffix: str, member_limit: int, total_limit: int) -> Iterator[Member]:
    total = 0
    try:
        with zipfile.ZipFile(source) as archive:
            for entry in archive.infolist():
                if entry.is_dir() or not entry.filename.endswith(suffix):
                    continue
                with archive.open(entry) as stream:
                    content = stream.read(member_limit + 1)  # the header's size is not to be trusted
                total += len(content)
                if total > total_limit:
                    raise UnreadableArchiveError(f"it expands beyond {total_limit >> 20} MB")
                if len(content) > member_limit:
                    yield Member(entry.filename, refused=f"it has more than {member_limit} bytes")
                else:
                    yield Member(entry.filename, content)
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError) as error:
        raise UnreadableArchiveError(str(error)) from error


def _folder_members(source: Path, suffix: str, member_limit: int, total_limit: int) -> Iterator[Member]:
    total = 0
    for path in sorted(source.rglob(f"*{suffix}")):
        name = path.relative_to(source).as_posix()
        if path.is_symlink():
            yield Member(name, refused="it is a link")
        elif path.is_file():
            content, refused = _bounded(path, member_limit)
            total += len(content)
            if total > total_limit:
                raise UnreadableArchiveError(f"it holds more than {total_limit >> 20} MB")
            yield Member(name, content, refused)


def _bounded(path: Path, limit: int) -> tuple[bytes, str]:
    size = path.stat().st_size
    return (b"", f"it has {size} bytes") if size > limit else (path.read_bytes(), "")
