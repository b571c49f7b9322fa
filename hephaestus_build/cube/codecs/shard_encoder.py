"""One plane of pixels to one Zarr v3 shard, and the names of chunks: pure functions.

A shard holds one image as a single chunk that is a shard itself, of small tiles: readers that plan by
chunks see one an image (docs/decisions/0004-nested-shards.md), readers of windows find the tiles. Encoding it
here, instead of through an array's ``__setitem__``, is three times faster and lets each image be hashed,
linked and moved as one object; the tests read the result back with zarr-python.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Any

import google_crc32c
import numcodecs
import numcodecs.blosc
import numpy as np
import numpy.typing as npt

# Blosc's own threads write the blocks of a buffer in the order they finish: the same image would have
# many encodings, and a hash could not tell damage from chance. Images are encoded side by side instead.
numcodecs.blosc.use_threads = False

#: Between the positions in a chunk's name; every array's ``chunk_key_encoding`` says so.
CHUNK_KEY_SEPARATOR = "."
_ABSENT = 2**64 - 1
_SHUFFLES = {
    "noshuffle": numcodecs.Blosc.NOSHUFFLE,
    "shuffle": numcodecs.Blosc.SHUFFLE,
    "bitshuffle": numcodecs.Blosc.BITSHUFFLE,
}


class ChunkEncoder:
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

    def encode(self, chunk: npt.NDArray[Any]) -> bytes:
        """Return the encoded bytes of `chunk`, a C-contiguous array of the encoder's dtype."""
        return self._blosc.encode(self._packed(chunk) if self.filters else chunk)

    def _packed(self, chunk: np.ndarray) -> np.ndarray:
        """Return what the filters make of `chunk`, in a third of their time."""
        assert self.step is not None
        scaled = chunk.reshape(-1) * chunk.dtype.type(1 / self.step)
        counts = np.rint(scaled, out=scaled).astype("<i4")
        differences = counts.copy()
        differences[1:] -= counts[:-1]
        return differences


def _is_fill(chunk: np.ndarray, fill: float) -> bool:
    for pixels in (chunk[::61, ::61], chunk):  # a few of them tell in most cases
        other = ~np.isnan(pixels) if np.isnan(fill) else pixels != fill
        if other.any():
            return False
    return True


class ShardEncoder:
    """The shard of one image, encoded in bands of inner chunks from north to south.

    Parameters
    ----------
    width : int
        Columns of the image.
    inner : int
        Side of the square inner chunks.
    encoder : ChunkEncoder
        Of the inner chunks.
    fill : float
        The array's fill value; inner chunks that hold nothing else are left out.
    """

    def __init__(self, width: int, *, inner: int, encoder: ChunkEncoder, fill: float) -> None:
        self.width, self.inner, self._encoder, self._fill = width, inner, encoder, fill
        self._parts: list[bytes] = []
        self._places: list[tuple[int, int]] = []
        self._size = 0
        self._chunk = np.empty((inner, inner), encoder.dtype)

    def add_band(self, band: npt.NDArray[Any] | None) -> None:
        """Encode the next rows: `inner` of them, fewer at the southern end; None where all are fill.

        Parameters
        ----------
        band : numpy.ndarray, optional
            Shape (rows, width), of the encoder's dtype.
        """
        if band is not None and band.dtype != self._encoder.dtype:
            raise ValueError(f"expected {self._encoder.dtype} pixels, got {band.dtype}")
        for left in range(0, self.width, self.inner):
            part = None if band is None else band[:, left : left + self.inner]
            if part is None or _is_fill(part, self._fill):
                self._places.append((_ABSENT, _ABSENT))
                continue
            encoded = self._encoder.encode(self._padded(part))
            self._places.append((self._size, len(encoded)))
            self._size += len(encoded)
            self._parts.append(encoded)

    def _padded(self, part: np.ndarray) -> np.ndarray:
        """Return `part` as a whole inner chunk, in memory that the next one overwrites."""
        rows, columns = part.shape
        chunk = self._chunk
        chunk[:rows, :columns] = part
        # what lies beyond the image is never read; packed values are integers, which know no NaN
        packed = bool(self._encoder.filters)
        chunk[:rows, columns:] = part[:, -1:] if packed else self._fill
        chunk[rows:] = chunk[rows - 1] if packed else self._fill
        return chunk

    def encode_image(self, plane: npt.NDArray[Any]) -> bytes | None:
        """Return the shard of an image that is in memory whole, shape (rows, width), or None."""
        for top in range(0, plane.shape[0], self.inner):
            self.add_band(plane[top : top + self.inner])
        return self.finish()

    def finish(self) -> bytes | None:
        """Return the whole shard, or None where every pixel is fill (nothing is stored then)."""
        if not self._parts:
            return None
        tiles = _encode_index(self._places)
        image = _encode_index([(0, self._size + len(tiles))])
        return b"".join([*self._parts, tiles, image])


def _encode_index(places: Sequence[tuple[int, int]]) -> bytes:
    """Return the index of a shard: where each chunk begins and how long it is, and a checksum."""
    table = struct.pack(f"<{2 * len(places)}Q", *(number for place in places for number in place))
    return table + struct.pack("<I", google_crc32c.value(table))


def encode_shard(plane: npt.NDArray[Any], *, inner: int, encoder: ChunkEncoder, fill: float) -> bytes | None:
    """Return the shard of one image that is in memory whole; parameters as in :class:`ShardEncoder`."""
    return ShardEncoder(plane.shape[1], inner=inner, encoder=encoder, fill=fill).encode_image(plane)


def shard_shape(shape: tuple[int, int], inner: int) -> tuple[int, int]:
    """Return the rows and columns of a shard that holds a whole image: whole inner chunks."""
    height, width = shape
    return -(-height // inner) * inner, -(-width // inner) * inner


def chunk_key(variable: str, leading: Sequence[int], planes: int) -> str:
    """Return the path of a chunk or shard of `variable` inside the store; see :func:`chunk_name`."""
    return f"{variable}/{chunk_name(leading, planes)}"


def chunk_name(leading: Sequence[int], planes: int) -> str:
    """Return the name of a chunk or shard in the folder of its array.

    Positions are parted by dots (:data:`CHUNK_KEY_SEPARATOR`): with slashes each shard would take two
    folders of its own, and making those takes longer than all else that a new generation needs.

    Parameters
    ----------
    leading : sequence of int
        Positions along the leading (date) dimensions.
    planes : int
        How many trailing dimensions the object spans whole (each has position 0).
    """
    return CHUNK_KEY_SEPARATOR.join(["c", *map(str, leading), *["0"] * planes])
