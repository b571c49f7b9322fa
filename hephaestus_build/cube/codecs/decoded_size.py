"""Check of a stored object's decoded size before it is decoded.

Decoders allocate the size that the header of a compressed chunk states, and a few bytes may state gigabytes.
The sizes in a shard's indexes and in the headers of its chunks are therefore first compared with the array's
metadata, which costs a few small reads per file.
"""

from __future__ import annotations

import math
import os
import struct
from collections.abc import Mapping, Sequence
from typing import Any

from hephaestus_build.cube.reading.store_metadata import COMPRESSORS, ITEMSIZES

#: Maximum size of all strings of a table in bytes.
MAX_TEXT_BYTES = 256 << 20
_ABSENT = 2**64 - 1
_ENTRY, _CRC = 16, 4
_ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"
_HEAD = 18  # bytes of a Zstandard frame or a Blosc buffer that contain the decoded size


def check_decoded_size(descriptor: int, size: int, array: Mapping[str, Any]) -> None:
    """Raise ValueError if a stored object does not decode to the size of a chunk of its array.

    Parameters
    ----------
    descriptor : int
        File descriptor of the object.
    size : int
        Size of the file in bytes.
    array : mapping
        The array's metadata, validated by
        :func:`~hephaestus_build.cube.reading.store_metadata.read_store_metadata`.
    """
    chunk, itemsize = array["chunk_grid"]["configuration"]["chunk_shape"], ITEMSIZES[array["data_type"]]
    if size > 2 * (math.prod(chunk) * itemsize or MAX_TEXT_BYTES) + (1 << 20):  # a sparse file takes no disk
        raise ValueError(f"it has {size} bytes")
    _check_codec_chain(descriptor, 0, size, array["codecs"], chunk, itemsize)


def _check_codec_chain(
    descriptor: int, offset: int, length: int, codecs: Sequence[Any], chunk: Sequence[int], itemsize: int
) -> None:
    if codecs[0]["name"] == "sharding_indexed":
        sharding = codecs[0]["configuration"]
        inner = sharding["chunk_shape"]
        for begin, stored in _read_shard_index(
            descriptor, offset, length, math.prod(chunk) // math.prod(inner)
        ):
            _check_codec_chain(descriptor, offset + begin, stored, sharding["codecs"], inner, itemsize)
        return
    expected = math.prod(chunk) * itemsize
    if codecs[-1]["name"] in COMPRESSORS:
        head = os.pread(descriptor, min(length, _HEAD), offset)
        decoded = zstd_size(head) if codecs[-1]["name"] == "zstd" else blosc_size(head, length)
    else:
        decoded = length
    if decoded > MAX_TEXT_BYTES if not itemsize else decoded != expected:
        raise ValueError(f"it would decode to {decoded} bytes; {expected or MAX_TEXT_BYTES} are allowed")


def _read_shard_index(descriptor: int, offset: int, length: int, count: int) -> list[tuple[int, int]]:
    """Return the offset and length of each stored chunk of a shard."""
    size = count * _ENTRY + _CRC
    if size > length:
        raise ValueError("it is too short for a shard")
    table = os.pread(descriptor, size - _CRC, offset + length - size)
    places = list(struct.iter_unpack("<2Q", table))
    stored = [place for place in places if place != (_ABSENT, _ABSENT)]
    if any(begin + many > length - size for begin, many in stored):
        raise ValueError("the index of the shard does not match its file")
    return stored


def blosc_size(head: bytes, length: int) -> int:
    """Return the decoded size that the header of a Blosc buffer of `length` bytes states."""
    if len(head) < 16:
        raise ValueError("it is truncated")
    decoded, block, encoded = struct.unpack_from("<3I", head, 4)
    if encoded != length or not block:
        raise ValueError("its header is damaged")
    return int(decoded)


def zstd_size(head: bytes) -> int:
    """Return the size that a Zstandard frame states (RFC 8878, 3.1.1)."""
    if len(head) < 6 or not head.startswith(_ZSTD_MAGIC):
        raise ValueError("its header is damaged")
    descriptor = head[4]
    flag, single = descriptor >> 6, bool(descriptor & 0x20)
    at = 5 + (not single) + (0, 1, 2, 4)[descriptor & 3]
    width = (int(single), 2, 4, 8)[flag]
    field = head[at : at + width]
    if not width or len(field) < width:
        raise ValueError("its header does not state its decoded size")
    return int.from_bytes(field, "little") + (256 if flag == 1 else 0)
