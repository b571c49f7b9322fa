"""One plane of pixels to one Zarr v3 shard, and the names of chunks: pure functions.

A shard holds one image: its inner chunks one after the other, then an index of their places. Encoding it
here, instead of through an array's ``__setitem__``, is three times faster and lets each image be hashed,
linked and moved as one object; the tests read the result back with zarr-python.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from typing import Any

import google_crc32c
import numcodecs
import numcodecs.blosc
import numpy as np

# Blosc's own threads write the blocks of a buffer in the order they finish: the same image would have
# many encodings, and a hash could not tell damage from chance. Images are encoded side by side instead.
numcodecs.blosc.use_threads = False

#: Between the positions in a chunk's name; every array's ``chunk_key_encoding`` says so.
SEPARATOR = "."
_ABSENT = 2**64 - 1
_SHUFFLES = {
    "noshuffle": numcodecs.Blosc.NOSHUFFLE,
    "shuffle": numcodecs.Blosc.SHUFFLE,
    "bitshuffle": numcodecs.Blosc.BITSHUFFLE,
}


class Encoder:
    """Encodes inner chunks as the named codec of ``schemas/cube.json`` says.

    Parameters
    ----------
    codec : dict
        Blosc's ``cname``, ``clevel``, ``shuffle`` and ``blocksize``, and ``packed`` where values are
        multiples of `step`.
    dtype : str
        Of the values as they are read.
    step : float, optional
        Packing step of a packed codec: a power of two, in the variable's units.
    """

    def __init__(self, codec: dict[str, Any], dtype: str, step: float | None = None) -> None:
        self.codec, self.dtype, self.step = codec, np.dtype(dtype), step
        self.filters: list[Any] = []
        if codec.get("packed"):
            if step is None:
                raise ValueError("a packed codec needs a step")
            self.filters = [
                numcodecs.FixedScaleOffset(
                    offset=0, scale=1 / step, dtype=f"<{self.dtype.str[1:]}", astype="<i4"
                ),
                numcodecs.Delta(dtype="<i4"),
            ]
        self._blosc = numcodecs.Blosc(
            codec["cname"], codec["clevel"], _SHUFFLES[codec["shuffle"]], blocksize=codec["blocksize"]
        )

    @property
    def itemsize(self) -> int:
        """Bytes of one stored value, which Blosc shuffles by."""
        return 4 if self.filters else self.dtype.itemsize

    def encode(self, chunk: np.ndarray) -> bytes:
        """Return the encoded bytes of `chunk`, a C-contiguous array of the encoder's dtype."""
        for codec in self.filters:
            chunk = codec.encode(chunk)
        return self._blosc.encode(chunk)


def _is_fill(chunk: np.ndarray, fill: float) -> bool:
    return bool(np.isnan(chunk).all()) if np.isnan(fill) else not (chunk != fill).any()


def _inner_chunks(plane: np.ndarray, inner: int, padding: dict[str, Any]) -> Iterator[np.ndarray]:
    """Yield the inner chunks of `plane` in row order, those at the edges padded as told."""
    height, width = plane.shape
    for top in range(0, height, inner):
        for left in range(0, width, inner):
            chunk = plane[top : top + inner, left : left + inner]
            if chunk.shape != (inner, inner):
                chunk = np.pad(chunk, [(0, inner - size) for size in chunk.shape], **padding)
            yield np.ascontiguousarray(chunk)


def encode_shard(plane: np.ndarray, *, inner: int, encoder: Encoder, fill: float) -> bytes | None:
    """Return the shard of one image, or None where every pixel is `fill` (nothing is stored then).

    Parameters
    ----------
    plane : numpy.ndarray
        Shape (rows, columns), of the encoder's dtype.
    inner : int
        Side of the square inner chunks.
    encoder : Encoder
        Of the inner chunks.
    fill : float
        The array's fill value; inner chunks that hold nothing else are left out.
    """
    if plane.dtype != encoder.dtype:
        raise ValueError(f"expected {encoder.dtype} pixels, got {plane.dtype}")
    parts: list[bytes] = []
    index: list[int] = []
    offset = 0
    # what lies beyond the image is never read; packed values are integers, which know no NaN
    padding = {"mode": "edge"} if encoder.filters else {"mode": "constant", "constant_values": fill}
    for chunk in _inner_chunks(plane, inner, padding):
        if _is_fill(chunk, fill):
            index += [_ABSENT, _ABSENT]
            continue
        part = encoder.encode(chunk)
        index += [offset, len(part)]
        offset += len(part)
        parts.append(part)
    if not parts:
        return None
    table = struct.pack(f"<{len(index)}Q", *index)
    return b"".join([*parts, table, struct.pack("<I", google_crc32c.value(table))])


def shard_shape(shape: tuple[int, int], inner: int) -> tuple[int, int]:
    """Return the rows and columns of a shard that holds a whole image: whole inner chunks."""
    height, width = shape
    return -(-height // inner) * inner, -(-width // inner) * inner


def chunk_key(variable: str, leading: Sequence[int], planes: int) -> str:
    """Return the path of a chunk or shard inside the store.

    Positions are parted by dots (:data:`SEPARATOR`): with slashes each shard would take two folders of
    its own, and making those takes longer than all else that a new generation needs.

    Parameters
    ----------
    variable : str
        Name of the array.
    leading : sequence of int
        Positions along the leading (date) dimensions.
    planes : int
        How many trailing dimensions the object spans whole (each has position 0).
    """
    return f"{variable}/" + SEPARATOR.join(["c", *map(str, leading), *["0"] * planes])
