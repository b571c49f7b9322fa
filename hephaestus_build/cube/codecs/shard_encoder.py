"""Encoder of an image as a Zarr v3 shard, and the keys of chunks.

An image is stored as a shard with a single chunk, which is itself a shard of small tiles. Readers that plan
by chunks see one chunk per image (docs/decisions/0004-nested-shards.md); readers of windows use the tiles.
Encoding shards here is three times faster than assigning to a zarr array, and each image can be hashed and
linked as one object. The tests read the result with zarr-python.
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

# Blosc's own threads write the blocks of a buffer in the order in which they finish, so the encoding of an
# image would not be deterministic and hashes could not be compared. Images are encoded in parallel instead.
numcodecs.blosc.use_threads = False

#: Separator of the positions in the name of a chunk, as in the ``chunk_key_encoding`` of every array.
CHUNK_KEY_SEPARATOR = "."
_ABSENT = 2**64 - 1
_SHUFFLES = {
    "noshuffle": numcodecs.Blosc.NOSHUFFLE,
    "shuffle": numcodecs.Blosc.SHUFFLE,
    "bitshuffle": numcodecs.Blosc.BITSHUFFLE,
}


class ChunkEncoder:
    """Encoder of inner chunks with a codec of ``schemas/cube.json``.

    Parameters
    ----------
    codec : dict
        Blosc's ``cname``, ``clevel``, ``shuffle`` and ``blocksize``; ``packed`` if values are stored as
        integer multiples of `step`.
    dtype : str
        dtype of the decoded values.
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
        """Size of one stored value in bytes, used by Blosc's shuffle filter."""
        return 4 if self.filters else self.dtype.itemsize

    def encode(self, chunk: npt.NDArray[Any]) -> bytes:
        """Return the encoded bytes of `chunk`, a C-contiguous array of the encoder's dtype."""
        return self._blosc.encode(self._packed(chunk) if self.filters else chunk)

    def _packed(self, chunk: np.ndarray) -> np.ndarray:
        """Return the output of the filters for `chunk`, three times faster than through numcodecs."""
        assert self.step is not None
        scaled = chunk.reshape(-1) * chunk.dtype.type(1 / self.step)
        counts = np.rint(scaled, out=scaled).astype("<i4")
        differences = counts.copy()
        differences[1:] -= counts[:-1]
        return differences


def _is_fill(chunk: np.ndarray, fill: float) -> bool:
    for pixels in (chunk[::61, ::61], chunk):  # a few pixels are sufficient in most cases
        other = ~np.isnan(pixels) if np.isnan(fill) else pixels != fill
        if other.any():
            return False
    return True


class ShardEncoder:
    """Incremental encoder of one image's shard, in bands of inner chunks from north to south.

    Parameters
    ----------
    width : int
        Number of columns of the image.
    inner : int
        Side length of the square inner chunks in pixels.
    encoder : ChunkEncoder
        Encoder of the inner chunks.
    fill : float
        Fill value of the array. Inner chunks that contain only this value are not stored.
    """

    def __init__(self, width: int, *, inner: int, encoder: ChunkEncoder, fill: float) -> None:
        self.width, self.inner, self._encoder, self._fill = width, inner, encoder, fill
        self._parts: list[bytes] = []
        self._places: list[tuple[int, int]] = []
        self._size = 0
        self._chunk = np.empty((inner, inner), encoder.dtype)

    def add_band(self, band: np.ndarray | None) -> None:
        """Encode the next `inner` rows, or fewer at the southern edge.

        Parameters
        ----------
        band : numpy.ndarray, optional
            The rows, of shape (rows, width) and the encoder's dtype; None if all pixels are fill.
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
        """Return `part` padded to an inner chunk, in a buffer that the next call overwrites."""
        rows, columns = part.shape
        chunk = self._chunk
        chunk[:rows, :columns] = part
        # pixels beyond the image are never read; packed values are integers, which have no NaN
        packed = bool(self._encoder.filters)
        chunk[:rows, columns:] = part[:, -1:] if packed else self._fill
        chunk[rows:] = chunk[rows - 1] if packed else self._fill
        return chunk

    def encode_image(self, plane: np.ndarray) -> bytes | None:
        """Return the shard of a complete image of shape (rows, width), or None if every pixel is fill."""
        for top in range(0, plane.shape[0], self.inner):
            self.add_band(plane[top : top + self.inner])
        return self.finish()

    def finish(self) -> bytes | None:
        """Return the shard, or None if every pixel is fill and nothing needs to be stored."""
        if not self._parts:
            return None
        tiles = _encode_index(self._places)
        image = _encode_index([(0, self._size + len(tiles))])
        return b"".join([*self._parts, tiles, image])


def _encode_index(places: Sequence[tuple[int, int]]) -> bytes:
    """Return the index of a shard: offset and length of each chunk, and a CRC-32C."""
    table = struct.pack(f"<{2 * len(places)}Q", *(number for place in places for number in place))
    return table + struct.pack("<I", google_crc32c.value(table))


def encode_shard(plane: np.ndarray, *, inner: int, encoder: ChunkEncoder, fill: float) -> bytes | None:
    """Return the shard of a complete image, or None if every pixel is fill.

    Parameters
    ----------
    plane : numpy.ndarray
        The image, of shape (rows, columns) and the encoder's dtype.
    inner, encoder, fill
        See :class:`ShardEncoder`.
    """
    return ShardEncoder(plane.shape[1], inner=inner, encoder=encoder, fill=fill).encode_image(plane)


def shard_shape(shape: tuple[int, int], inner: int) -> tuple[int, int]:
    """Return the shape of an image's shard: the image's shape, rounded up to whole inner chunks."""
    height, width = shape
    return -(-height // inner) * inner, -(-width // inner) * inner


def chunk_key(variable: str, leading: Sequence[int], planes: int) -> str:
    """Return the key of a chunk or shard in the store, such as ``insar_difference/c.3.5.0.0``.

    Parameters
    ----------
    variable : str
        Name of the array.
    leading, planes
        See :func:`chunk_name`.
    """
    return f"{variable}/{chunk_name(leading, planes)}"


def chunk_name(leading: Sequence[int], planes: int) -> str:
    """Return the name of a chunk or shard in the folder of its array.

    Positions are separated by dots (:data:`CHUNK_KEY_SEPARATOR`). With slashes, each shard would need two
    folders, and creating these would take most of the time of publishing a generation.

    Parameters
    ----------
    leading : sequence of int
        Positions along the leading (date) dimensions.
    planes : int
        Number of trailing dimensions that the object spans completely; their position is 0.
    """
    return CHUNK_KEY_SEPARATOR.join(["c", *map(str, leading), *["0"] * planes])
