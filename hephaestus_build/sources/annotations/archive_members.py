"""Read the members of an archive in memory: nothing is written, no link followed, sizes bounded."""

from __future__ import annotations

import bz2
import gzip
import hashlib
import io
import lzma
import os
import stat
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from hephaestus_build.sources.annotations.tar_members import TarError, read_tar

#: Largest member that is read; the largest published annotation has 4 kB.
MAX_MEMBER_BYTES = 1 << 20
#: Largest archive, as it is and once expanded; the published one has 40 MB then.
MAX_ARCHIVE_BYTES = 256 << 20
#: Largest file of annotations that is no archive.
MAX_SINGLE_FILE_BYTES = 64 << 20
#: Most members; the published archive has 19,919.
MAX_MEMBERS = 100_000
_BLOCK = 1 << 20
_XZ_MEMORY_LIMIT = 128 << 20  # memory that unpacking xz may take: what its strongest preset needs, twice


class UnreadableArchiveError(ValueError):
    """The archive as a whole cannot be read, or grows beyond the bounds."""


@dataclass(frozen=True)
class ArchiveMember:
    """One file of an archive: its name as written there, and its bytes or why there are none."""

    name: str
    content: bytes = b""
    refusal_reason: str = ""


def read_members(
    source: Path,
    *,
    suffix: str = ".json",
    member_limit: int = MAX_MEMBER_BYTES,
    total_limit: int = MAX_ARCHIVE_BYTES,
) -> Iterator[ArchiveMember]:
    """Yield the files called ``*<suffix>`` of a tar archive (of any compression), a zip archive or a folder.

    Names are only ever labels: nothing is written, so an absolute path or a ``..`` does no harm. Links,
    pipes and devices are not followed or opened; they come back as refused members. A lone file is its own
    member.

    Parameters
    ----------
    source : Path
        The archive, folder or file.
    suffix : str
        What the names of its files end with; others are passed over.
    member_limit : int
        Bytes of a file beyond which it is refused.
    total_limit : int
        Bytes of all of them, and of the archive itself.

    Raises
    ------
    UnreadableArchiveError
        If the archive is damaged, is no archive, holds more than 100,000 files, or is larger than
        `total_limit` bytes, as it is or expanded.
    OSError
        If `source` cannot be opened.
    """
    check_archive_source(source, total_limit)
    if source.is_dir():
        members = _folder_members(source, suffix, member_limit)
    elif zipfile.is_zipfile(source):
        members = _zip_members(source.read_bytes(), suffix, member_limit)
    elif source.name.endswith(suffix):
        members = iter(
            [
                ArchiveMember(
                    source.name,
                    *_read_regular_file(source.resolve(), min(total_limit, MAX_SINGLE_FILE_BYTES)),
                )
            ]
        )
    else:
        members = _tar_members(source, suffix, member_limit, total_limit)
    total = 0
    for count, member in enumerate(members):
        total += len(member.content)
        if count >= MAX_MEMBERS:
            raise UnreadableArchiveError(f"it holds more than {MAX_MEMBERS} files")
        if total > total_limit:
            raise UnreadableArchiveError(f"it expands beyond {total_limit >> 20} MB")
        yield member


def hash_archive(source: Path) -> str:
    """Return the SHA-256 of a file, or of the sorted names and hashes of the files in a folder.

    Raises
    ------
    UnreadableArchiveError
        If it is neither, or larger than an archive may be.
    OSError
        If it cannot be opened.
    """
    check_archive_source(source, MAX_ARCHIVE_BYTES)
    if source.is_file():
        with source.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    digest = hashlib.sha256()
    for member in read_members(source):
        mark = member.refusal_reason or hashlib.sha256(member.content).hexdigest()
        digest.update(f"{member.name} {mark}\n".encode("utf-8", "surrogateescape"))
    return digest.hexdigest()


def check_archive_source(source: Path, limit: int) -> None:
    """Refuse what is neither a folder nor a plain file of at most `limit` bytes: a pipe would wait for ever.

    Raises
    ------
    UnreadableArchiveError
        With the reason.
    OSError
        If there is nothing there.
    """
    state = source.stat()
    if stat.S_ISDIR(state.st_mode):
        return
    if not stat.S_ISREG(state.st_mode):
        raise UnreadableArchiveError("it is neither a file nor a folder")
    if state.st_size > limit:
        raise UnreadableArchiveError(f"it is larger than {limit >> 20} MB")


def _decompress(content: bytes, limit: int) -> bytes:
    """Return what `content` holds once it is unpacked; refuse a decompression bomb after `limit` bytes."""
    if content.startswith(b"\xfd7zXZ\x00"):
        unpacked = lzma.LZMADecompressor(memlimit=_XZ_MEMORY_LIMIT).decompress(content, limit + 1)
    elif content.startswith((b"\x1f\x8b", b"BZh")):
        opened = gzip.open if content[0] == 0x1F else bz2.open
        blocks = bytearray()
        with opened(io.BytesIO(content)) as stream:
            while len(blocks) <= limit and (block := stream.read(_BLOCK)):
                blocks += block
        unpacked = bytes(blocks)
    else:
        unpacked = content
    if len(unpacked) > limit:
        raise UnreadableArchiveError(f"it expands beyond {limit >> 20} MB")
    return unpacked


def _tar_members(source: Path, suffix: str, member_limit: int, total_limit: int) -> Iterator[ArchiveMember]:
    content = source.read_bytes()
    try:
        for entry in read_tar(_decompress(content, total_limit)):
            if entry.kind == "a folder" or not entry.name.endswith(suffix):
                continue
            if entry.kind:
                yield ArchiveMember(entry.name, refusal_reason=f"it is {entry.kind}")
            elif len(entry.content) > member_limit:
                yield ArchiveMember(entry.name, refusal_reason=f"it has {len(entry.content)} bytes")
            else:
                yield ArchiveMember(entry.name, bytes(entry.content))
    except (TarError, EOFError, OSError, zlib.error, lzma.LZMAError) as error:
        # all from memory: so gzip and bz2 report damage
        raise UnreadableArchiveError(str(error) or "it ends too early") from error


def _zip_members(content: bytes, suffix: str, member_limit: int) -> Iterator[ArchiveMember]:
    # before its directory is read: each entry takes a hundred times its bytes
    if content.count(b"PK\x01\x02") > 2 * MAX_MEMBERS:
        raise UnreadableArchiveError(f"it holds more than {MAX_MEMBERS} files")
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            for entry in archive.infolist():
                if entry.is_dir() or not entry.filename.endswith(suffix):
                    continue
                if refused := _refusal_reason(entry):
                    yield ArchiveMember(entry.filename, refusal_reason=refused)
                    continue
                with archive.open(entry) as stream:
                    member = stream.read(member_limit + 1)  # the header's size is not to be trusted
                if len(member) > member_limit:
                    yield ArchiveMember(
                        entry.filename, refusal_reason=f"it has more than {member_limit} bytes"
                    )
                else:
                    yield ArchiveMember(entry.filename, member)
    except (zipfile.BadZipFile, zlib.error, EOFError, OSError, ValueError, RuntimeError) as error:
        raise UnreadableArchiveError(str(error) or "it ends too early") from error


def _refusal_reason(entry: zipfile.ZipInfo) -> str:
    """Return why a member of a zip is not read, or nothing."""
    if stat.S_ISLNK(entry.external_attr >> 16):
        return "it is a link"
    if entry.flag_bits & 1:
        return "it is encrypted"
    if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        return "it is packed by another method than deflate"  # their unpackers know no bounds
    return ""


def _folder_members(source: Path, suffix: str, member_limit: int) -> Iterator[ArchiveMember]:
    for path in sorted(islice(source.rglob(f"*{suffix}"), MAX_MEMBERS + 1)):
        if path.is_symlink() or not path.is_dir():
            yield ArchiveMember(path.relative_to(source).as_posix(), *_read_regular_file(path, member_limit))


def _read_regular_file(path: Path, limit: int) -> tuple[bytes, str]:
    """Return the content of a plain file, or why there is none; a link or a pipe is not opened."""
    if path.is_symlink():
        return b"", "it is a link"
    flags = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
    try:
        with os.fdopen(os.open(path, flags), "rb") as stream:
            state = os.fstat(stream.fileno())
            if not stat.S_ISREG(state.st_mode):
                return b"", "it is not a plain file"
            if state.st_size > limit:
                return b"", f"it has {state.st_size} bytes"
            return stream.read(state.st_size), ""
    except OSError as error:
        return b"", f"it cannot be read ({error.strerror or type(error).__name__})"
