"""Some blocks of a Blosc buffer as a buffer of their own: a pure function.

Blosc cuts what it encodes into blocks that decode apart. A buffer is a header of 16 bytes (at 4, as
little-endian 32-bit numbers: decoded size, block size, encoded size), the offset of each block, and these.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

#: Bytes at the beginning of a buffer that :func:`cut` wants to see.
HEADER_BYTES = 16 + 4 * 64
_MEMCPYED = 0x02


@dataclass(frozen=True)
class BloscSlice:
    """A Blosc buffer made of a part of another one.

    Attributes
    ----------
    header : bytes
        What it begins with.
    begin, end : int
        First and last + 1 byte of the other one, which follow.
    first_byte : int
        Which decoded byte of the other one its own begin with.
    decoded_size : int
        How many bytes it decodes to.
    """

    header: bytes
    begin: int
    end: int
    first_byte: int
    decoded_size: int


def slice_blosc_buffer(head: bytes, length: int, decoded: int, start: int, stop: int) -> BloscSlice:
    """Return the smallest part of a Blosc buffer that holds some of its decoded bytes.

    Parameters
    ----------
    head : bytes
        The first :data:`HEADER_BYTES` bytes of the buffer, or all.
    length, decoded : int
        How many bytes the whole buffer has and decodes to.
    start, stop : int
        First and last + 1 decoded byte that is wanted.

    Raises
    ------
    ValueError
        If the buffer is damaged.
    """
    if len(head) < 16:
        raise ValueError("cut short")
    size, block, encoded = struct.unpack_from("<3I", head, 4)
    if (size, encoded) != (decoded, length) or not block:
        raise ValueError("damaged header")
    whole = BloscSlice(b"", 0, length, 0, decoded)
    number = -(-decoded // block)
    first, last = start // block, -(-stop // block)
    if last - first == number or head[2] & _MEMCPYED or decoded % block or 16 + 4 * number > len(head):
        return whole
    offsets = struct.unpack_from(f"<{number}I", head, 16)
    if list(offsets) != sorted(offsets) or offsets[-1] > length:
        return whole  # written by several threads: the blocks stand in any order
    begin, end = offsets[first], offsets[last] if last < number else length
    kept = last - first
    shift = 16 + 4 * kept - begin
    places = struct.pack(f"<{kept}I", *(offset + shift for offset in offsets[first:last]))
    header = head[:4] + struct.pack("<3I", kept * block, block, end + shift) + places
    return BloscSlice(header, begin, end, first * block, kept * block)
