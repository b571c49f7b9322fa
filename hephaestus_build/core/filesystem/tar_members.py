"""Reader of tar archives, in memory or in a file, in one pass with limits on every size.

Python's ``tarfile`` has vulnerabilities in versions that this package supports: a crafted header takes
minutes to parse (CVE-2024-6232), and a negative size loops for ever (CVE-2025-8194). Archives of annotations
and shards of samples need little of the format: names, sizes and types, with the long names of GNU and POSIX.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass

_BLOCK = 512
_MAX_HEADER_BYTES = 1 << 16  # bytes of a long name or of an extended header
_REGULAR_TYPES = (b"0", b"\0", b"7")
_TYPE_NAMES = {b"1": "a link", b"2": "a link", b"5": "a folder", b"S": "a sparse file"}


class TarError(ValueError):
    """The archive is cut, damaged or not a tar archive."""


@dataclass(frozen=True)
class TarMember:
    """One member: its name, its content, and its kind, such as ``a link``; empty for a plain file."""

    name: str
    content: memoryview
    kind: str = ""


@dataclass(frozen=True)
class TarEntry:
    """Where the content of a member lies: its name, first byte, size, and kind as of a :class:`TarMember`.

    A hard link names the member that it is another name of as its `target`.
    """

    name: str
    offset: int
    size: int
    kind: str = ""
    target: str = ""


def read_tar(content: bytes) -> Iterator[TarMember]:
    """Yield the members of a tar archive in memory, in order.

    Raises
    ------
    TarError
        If the archive is cut or damaged anywhere before its end.
    """
    data = memoryview(content)
    for entry in scan_tar(lambda offset, count: content[offset : offset + count], len(content)):
        yield TarMember(entry.name, data[entry.offset : entry.offset + entry.size], entry.kind)


def scan_tar_file(descriptor: int, size: int) -> Iterator[TarEntry]:
    """Yield the members of a tar archive in an open file of `size` bytes; no content is read."""
    return scan_tar(lambda offset, count: os.pread(descriptor, count, offset), size)


def scan_tar(read: Callable[[int, int], bytes], total: int) -> Iterator[TarEntry]:
    """Yield where the members of a tar archive (POSIX, GNU or older) lie, in order.

    A tar archive is a sequence of 512-byte blocks. For each header block:

    1. Verify its checksum; a block of zeros ends the archive.
    2. Read type and size. A pax header before it may override the size; links, folders and devices have no
       content, whatever size they state.
    3. Take the content, which is padded to whole blocks. For example, a file of 700 bytes takes two blocks,
       so the next header starts 1,536 bytes after its own.
    4. A pax header (``x``) or a GNU long name (``L``, of a link's target ``K``) is remembered for the next
       member; any other member is yielded.

    Parameters
    ----------
    read : callable
        Returns the bytes from an offset on, at most as many as the second argument says.
    total : int
        Bytes of the archive.

    Raises
    ------
    TarError
        If the archive is cut or damaged anywhere before its end.
    """
    offset, said = 0, dict[str, str]()
    while True:
        header = read(offset, _BLOCK)
        if len(header) == _BLOCK and not any(header):
            return
        kind = header[156:157]
        if len(header) < _BLOCK or _parse_number(header[148:156]) != _checksum(header):
            raise TarError("it is cut or damaged between two members")
        size = _parse_number(header[124:136])
        begin = offset + _BLOCK
        if kind == b"S" and header[482]:  # the map of a sparse file continues in further blocks
            while read(begin + 504, 1) not in (b"\0", b""):
                begin += _BLOCK
            begin += _BLOCK
        if kind in b"xgLK" and size > _MAX_HEADER_BYTES:
            raise TarError(f"the header of a member takes {size} bytes")
        if kind not in b"xgLK" and "size" in said:
            size = _parse_decimal(said["size"])
        # links, folders and devices have no content, whatever size they state
        held = 0 if kind in b"123456" else size
        if begin + held > total:
            raise TarError("it is cut within a member")
        offset = begin + -(-held // _BLOCK) * _BLOCK
        if kind == b"x":
            said |= _parse_pax_records(read(begin, held))
        elif kind == b"L":
            said["path"] = _decode_text(read(begin, held))
        elif kind == b"K":
            said["linkpath"] = _decode_text(read(begin, held))
        elif kind != b"g":
            name = said.get("path", _read_name(header))
            sparse = any(key.startswith("GNU.sparse.") for key in said)
            what = "a sparse file" if sparse else _describe_type(kind, name)
            target = said.get("linkpath", _decode_text(header[157:257])) if kind == b"1" else ""
            yield TarEntry(name, begin, held, what, target)
            said = {}


def _describe_type(kind: bytes, name: str) -> str:
    """Return the kind of a member; empty for a plain file."""
    if kind in _REGULAR_TYPES:
        return "a folder" if name.endswith("/") else ""
    return _TYPE_NAMES.get(kind, "not a plain file")


def _read_name(header: bytes) -> str:
    name = _decode_text(header[:100])
    prefix = _decode_text(header[345:500]) if header[257:263] == b"ustar\0" else ""
    return f"{prefix}/{name}" if prefix else name


def _decode_text(field: bytes) -> str:
    return field.partition(b"\0")[0].decode("utf-8", "replace")


def _parse_number(field: bytes) -> int:
    """Return a number in a header: octal digits, or binary (GNU) if the first bit is set."""
    if field[:1] == b"\x80":
        return int.from_bytes(field[1:], "big")
    digits = field.partition(b"\0")[0].strip(b" ")
    if not digits:
        return 0
    if not all(48 <= digit < 56 for digit in digits):
        raise TarError("it is cut or damaged between two members")
    return int(digits, 8)


def _parse_decimal(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 20):
        raise TarError("it states an invalid size")
    return int(text)


def _checksum(header: bytes) -> int:
    return sum(header) - sum(header[148:156]) + 8 * ord(" ")


def _parse_pax_records(body: bytes) -> dict[str, str]:
    r"""Return the records of a pax header.

    Each is ``<length> <key>=<value>\n``, where the length counts the whole record including its own digits,
    such as ``18 path=1234.json\n``.
    """
    found: dict[str, str] = {}
    start = 0
    while start < len(body):
        blank = body.find(b" ", start, start + 20)
        length = _parse_decimal(body[start:blank].decode("ascii", "replace")) if blank > 0 else 0
        key, mark, value = body[blank + 1 : start + length - 1].partition(b"=")
        if length <= blank - start + 1 or start + length > len(body) or not mark:
            raise TarError("the header of a member is damaged")
        found[key.decode("utf-8", "replace")] = value.decode("utf-8", "replace")
        start += length
    return found
