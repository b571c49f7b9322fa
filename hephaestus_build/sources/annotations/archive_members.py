"""Reader of untrusted archives: in memory, without following links, with limits on every size."""

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

from hephaestus_build.core.filesystem.tar_members import TarError, read_tar

#: Bytes of the largest member that is read; the largest published annotation has 4 kB.
MAX_MEMBER_BYTES = 1 << 20
#: Bytes of the largest archive, compressed and expanded; the published one expands to 40 MB.
MAX_ARCHIVE_BYTES = 256 << 20
#: Bytes of the largest single JSON file.
MAX_SINGLE_FILE_BYTES = 64 << 20
#: Largest number of members; the published archive has 19,919.
MAX_MEMBERS = 100_000
_SUFFIX = ".json"
_BLOCK = 1 << 20
_XZ_MEMORY_LIMIT = 128 << 20  # memory for decompressing xz: twice what its strongest preset needs


class UnreadableArchiveError(ValueError):
    """The archive as a whole cannot be read or exceeds a limit."""


@dataclass(frozen=True)
class ArchiveMember:
    """One file of an archive: its name as stored, and its content or the reason for its refusal."""

    name: str
    content: bytes = b""
    refusal_reason: str = ""


def read_members(source: Path, *, total_limit: int = MAX_ARCHIVE_BYTES) -> Iterator[ArchiveMember]:
    """Yield the files called ``*.json`` of a tar archive (of any compression), a zip archive or a folder.

    Names are only labels: nothing is written, so an absolute path or ``..`` is harmless. Links, pipes and
    devices are not followed or opened; they are yielded as refused members. A single file is yielded as the
    only member.

    Parameters
    ----------
    source : Path
        Archive, folder or file.
    total_limit : int
        Bytes of all files together, and of the archive itself.

    Yields
    ------
    ArchiveMember
        In the order of the archive, or sorted by name in a folder.

    Raises
    ------
    UnreadableArchiveError
        If the archive is damaged, is not an archive, holds more than 100,000 files, or exceeds `total_limit`
        bytes, compressed or expanded.
    OSError
        If `source` cannot be opened.
    """
    check_archive_source(source, total_limit)
    if source.is_dir():
        members = _folder_members(source)
    elif zipfile.is_zipfile(source):
        members = _zip_members(source.read_bytes())
    elif source.name.endswith(_SUFFIX):
        members = iter(
            [
                ArchiveMember(
                    source.name,
                    *_read_regular_file(source.resolve(), min(total_limit, MAX_SINGLE_FILE_BYTES)),
                )
            ]
        )
    else:
        members = _tar_members(source, total_limit)
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
        If `source` is neither, or too large.
    OSError
        If `source` cannot be opened.
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
    """Check that `source` is a folder, or a plain file of at most `limit` bytes.

    Opening a pipe, for example, would block for ever.

    Raises
    ------
    UnreadableArchiveError
        If it is not.
    OSError
        If `source` does not exist.
    """
    state = source.stat()
    if stat.S_ISDIR(state.st_mode):
        return
    if not stat.S_ISREG(state.st_mode):
        raise UnreadableArchiveError("it is neither a file nor a folder")
    if state.st_size > limit:
        raise UnreadableArchiveError(f"it is larger than {limit >> 20} MB")


def _decompress(content: bytes, limit: int) -> bytes:
    """Return `content` decompressed; stop at a decompression bomb after `limit` bytes."""
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


def _tar_members(source: Path, total_limit: int) -> Iterator[ArchiveMember]:
    content = source.read_bytes()
    try:
        for entry in read_tar(_decompress(content, total_limit)):
            if entry.kind == "a folder" or not entry.name.endswith(_SUFFIX):
                continue
            if entry.kind:
                yield ArchiveMember(entry.name, refusal_reason=f"it is {entry.kind}")
            elif len(entry.content) > MAX_MEMBER_BYTES:
                yield ArchiveMember(entry.name, refusal_reason=f"it has {len(entry.content)} bytes")
            else:
                yield ArchiveMember(entry.name, bytes(entry.content))
    except (TarError, EOFError, OSError, zlib.error, lzma.LZMAError) as error:
        # gzip and bz2 report damage as an OSError; there is no file to fail, since all is in memory
        raise UnreadableArchiveError(str(error) or "it ends too early") from error


def _zip_members(content: bytes) -> Iterator[ArchiveMember]:
    # count the entries before zipfile reads them: each takes a hundred times its size in memory
    if content.count(b"PK\x01\x02") > 2 * MAX_MEMBERS:
        raise UnreadableArchiveError(f"it holds more than {MAX_MEMBERS} files")
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            for entry in archive.infolist():
                if entry.is_dir() or not entry.filename.endswith(_SUFFIX):
                    continue
                if refused := _refusal_reason(entry):
                    yield ArchiveMember(entry.filename, refusal_reason=refused)
                    continue
                with archive.open(entry) as stream:
                    member = stream.read(MAX_MEMBER_BYTES + 1)  # the size in the header may be wrong
                if len(member) > MAX_MEMBER_BYTES:
                    yield ArchiveMember(
                        entry.filename, refusal_reason=f"it has more than {MAX_MEMBER_BYTES} bytes"
                    )
                else:
                    yield ArchiveMember(entry.filename, member)
    except (zipfile.BadZipFile, zlib.error, EOFError, OSError, ValueError, RuntimeError) as error:
        raise UnreadableArchiveError(str(error) or "it ends too early") from error


def _refusal_reason(entry: zipfile.ZipInfo) -> str:
    """Return why a member of a zip is refused; empty if it is not."""
    if stat.S_ISLNK(entry.external_attr >> 16):
        return "it is a link"
    if entry.flag_bits & 1:
        return "it is encrypted"
    if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        return "it is packed by another method than deflate"  # zipfile cannot bound the others' output
    return ""


def _folder_members(source: Path) -> Iterator[ArchiveMember]:
    for path in sorted(islice(source.rglob(f"*{_SUFFIX}"), MAX_MEMBERS + 1)):
        if path.is_symlink() or not path.is_dir():
            name = path.relative_to(source).as_posix()
            yield ArchiveMember(name, *_read_regular_file(path, MAX_MEMBER_BYTES))


def _read_regular_file(path: Path, limit: int) -> tuple[bytes, str]:
    """Return the content of a plain file and an empty string, or no content and the reason.

    Links are not followed, and opening a pipe does not block.
    """
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
