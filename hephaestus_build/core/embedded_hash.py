"""Seals: a BLAKE3 hash embedded in a file, by which a change is detected before the file is used.

A seal covers all preceding bytes of the file (but in XML) and detects changed bits and truncation. It is a
checksum, not a signature: anybody can create one.

- In a zip archive (checkpoints, ``.npz``) it is the archive's comment, ``hephaestus blake3:<64 digits>``.
- In a JSON object it is the last member, ``"seal": "blake3:<64 digits>"``.
- In an XML document without declaration it is the first line, a comment, and covers what follows it.

Sealed files remain valid zip archives, JSON and XML documents for other programs.
"""

from __future__ import annotations

import io
import re
from typing import Any, BinaryIO

from blake3 import blake3

from hephaestus_build.core.parsing import parse_json

_DIGITS = 64
_COMMENT = b"hephaestus blake3:"
_MEMBER, _END = b'"seal": "blake3:', b'"}\n'
_XML_LINE = re.compile(rb"<!-- hephaestus blake3:([0-9a-f]{64}) -->\n")
#: Signature of a zip archive's end of central directory record, which ends with the comment's length.
_RECORD = b"PK\x05\x06"
_RECORD_SIZE = 22
_BLOCK = 1 << 22  # bytes read at once for hashing


class MissingHashError(ValueError):
    """The file has no recognizable seal."""


def add_zip_hash(stream: io.BytesIO) -> memoryview:
    """Add a seal to a zip archive in memory, and return the sealed archive.

    Parameters
    ----------
    stream : io.BytesIO
        A zip archive without a comment.
    """
    size = stream.seek(0, io.SEEK_END)
    stream.seek(size - _RECORD_SIZE)
    if (record := stream.read())[:4] != _RECORD or record[-2:] != b"\0\0":
        raise ValueError("it is not a zip archive without a comment")
    stream.seek(size - 2)
    stream.write((len(_COMMENT) + _DIGITS).to_bytes(2, "little") + _COMMENT)
    with stream.getbuffer() as content:
        digest = blake3(content).hexdigest()
    stream.write(digest.encode())
    return stream.getbuffer()


def check_zip_hash(stream: BinaryIO) -> None:
    """Check the seal of an open zip archive, and rewind the stream.

    Raises
    ------
    MissingHashError
        If it has no seal.
    ValueError
        If the content does not match the seal.
    """
    size = stream.seek(0, io.SEEK_END)
    stream.seek(max(0, size - _DIGITS - len(_COMMENT)))
    tail = stream.read()
    if not tail.startswith(_COMMENT):
        raise MissingHashError("it has no seal")
    stream.seek(0)
    hasher, left = blake3(), size - _DIGITS
    while left > 0 and (block := stream.read(min(left, _BLOCK))):
        hasher.update(block)
        left -= len(block)
    stream.seek(0)
    if tail[len(_COMMENT) :] != hasher.hexdigest().encode():
        raise ValueError("it is damaged: its content is not what was written")


def add_json_hash(content: bytes) -> bytes:
    """Return a JSON object, encoded as UTF-8, with a seal added as its last member."""
    inside = content.rstrip().removesuffix(b"}").rstrip()
    head = inside + (b"" if inside.endswith(b"{") else b",") + b"\n" + _MEMBER
    return head + blake3(head).hexdigest().encode() + _END


def parse_hashed_json(content: bytes) -> dict[str, Any]:
    """Check the seal of a JSON object and return the object without it.

    Raises
    ------
    MissingHashError
        If it has no seal.
    ValueError
        If the content does not match the seal, or is not a JSON object.
    """
    place = len(content) - len(_END) - _DIGITS
    head, digest, end = content[: max(place, 0)], content[max(place, 0) : -len(_END)], content[-len(_END) :]
    if not head.endswith(_MEMBER) or end != _END:
        raise MissingHashError("it has no seal, or is damaged at its end")
    if digest != blake3(head).hexdigest().encode():
        raise ValueError("it is damaged: its content is not what was written")
    value = parse_json(content)
    if not isinstance(value, dict):
        raise ValueError("it is not a JSON object")
    del value["seal"]
    return value


def add_xml_hash(text: str) -> bytes:
    """Return an XML document, without declaration, with its seal."""
    content = text.encode()
    return f"<!-- hephaestus blake3:{blake3(content).hexdigest()} -->\n".encode() + content


def has_xml_hash(document: bytes) -> bool:
    """Return whether an XML document has its seal and is as it was sealed."""
    found = _XML_LINE.match(document)
    return found is not None and blake3(document[found.end() :]).hexdigest().encode() == found[1]
