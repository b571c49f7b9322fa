"""Extraction of some blocks of a Blosc buffer as a smaller, valid buffer.

Blosc divides its input into blocks that can be decoded separately. A buffer consists of a header of 16 bytes
(from byte 4, as little-endian 32-bit integers: decoded size, block size, encoded size), the offset of each
block, and the blocks.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

#: Number of bytes at the beginning of a buffer that :func:`slice_blosc_buffer` needs.
HEADER_BYTES = 16 + 4 * 64
_MEMCPYED = 0x02


@dataclass(frozen=True)
class BloscSlice:
    """A Blosc buffer that is made from a part of another one: a new header and a range of its bytes.

    Attributes
    ----------
    header : bytes
        The new header with the offsets of the blocks.
    begin, end : int
        Half-open range of bytes of the original buffer that follow the header.
    first_byte : int
        Offset of its first decoded byte in the decoded original.
    decoded_size : int
        Decoded size in bytes.
    """

    header: bytes
    begin: int
    end: int
    first_byte: int
    decoded_size: int


def slice_blosc_buffer(head: bytes, length: int, decoded: int, start: int, stop: int) -> BloscSlice:
    """Return the blocks of a Blosc buffer that contain a range of its decoded bytes.

    For example, with blocks of 100 decoded bytes, the range 150 to 250 needs the blocks 1 and 2. The result
    decodes to 200 bytes, of which the first has the offset 100. The whole buffer is returned if its blocks
    cannot be separated.

    Parameters
    ----------
    head : bytes
        The first :data:`HEADER_BYTES` bytes of the buffer, or all of a shorter one.
    length, decoded : int
        Encoded and decoded size of the buffer in bytes.
    start, stop : int
        Half-open range of decoded bytes.

    Returns
    -------
    BloscSlice
        Header and range of bytes of the smaller buffer.

    Raises
    ------
    ValueError
        If the buffer is damaged.
    """
    if len(head) < 16:
        raise ValueError("truncated")
    size, block, encoded = struct.unpack_from("<3I", head, 4)
    if (size, encoded) != (decoded, length) or not block:
        raise ValueError("damaged header")
    whole = BloscSlice(b"", 0, length, 0, decoded)
    number = -(-decoded // block)
    first, last = start // block, -(-stop // block)
    if decoded % block and first == number - 1 and number > 1:
        first -= 1  # a shorter last block alone would be no valid buffer
    if last - first == number or head[2] & _MEMCPYED or 16 + 4 * number > len(head):
        return whole
    offsets = struct.unpack_from(f"<{number}I", head, 16)
    if list(offsets) != sorted(offsets) or offsets[-1] > length:
        return whole  # blocks that several threads wrote are not in order
    begin, end = offsets[first], offsets[last] if last < number else length
    kept = last - first
    shift = 16 + 4 * kept - begin
    places = struct.pack(f"<{kept}I", *(offset + shift for offset in offsets[first:last]))
    # the last block of a buffer may be shorter than the others; in the smaller buffer it is the last one too
    kept_bytes = min(kept * block, decoded - first * block)
    header = head[:4] + struct.pack("<3I", kept_bytes, block, end + shift) + places
    return BloscSlice(header, begin, end, first * block, kept_bytes)
