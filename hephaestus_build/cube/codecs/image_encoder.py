"""Encoder of images as column strips.

An image is stored as strips of columns, each of the full height of the image and one plain Zarr chunk
(docs/decisions/0010-column-strips.md). Few chunks keep dask and JavaScript readers fast; within a strip,
Blosc's blocks of rows can be decoded separately, so readers of windows need neither all columns nor all rows.
Encoding chunks here is three times faster than assigning to a zarr array, and each chunk can be hashed and
linked as one object. The tests read the result with zarr-python.
"""

from __future__ import annotations

from typing import Any

import numcodecs
import numcodecs.blosc
import numpy as np
import numpy.typing as npt

# Blosc's own threads write the blocks of a buffer in the order in which they finish, so the encoding of an
# image would not be deterministic and hashes could not be compared. Images are encoded in parallel instead.
numcodecs.blosc.use_threads = False

_SHUFFLES = {
    "noshuffle": numcodecs.Blosc.NOSHUFFLE,
    "shuffle": numcodecs.Blosc.SHUFFLE,
    "bitshuffle": numcodecs.Blosc.BITSHUFFLE,
}


class ChunkEncoder:
    """Encoder of chunks with a codec of ``schemas/cube.json``.

    Parameters
    ----------
    codec : dict
        Blosc's ``cname``, ``clevel``, ``shuffle`` and ``blocksize``.
    dtype : str
        dtype of the values.
    """

    def __init__(self, codec: dict[str, Any], dtype: str) -> None:
        self.codec, self.dtype = codec, np.dtype(dtype)
        self._blosc = numcodecs.Blosc(
            codec["cname"], codec["clevel"], _SHUFFLES[codec["shuffle"]], blocksize=codec["blocksize"]
        )

    def encode(self, chunk: npt.NDArray[Any]) -> bytes:
        """Return the encoded bytes of `chunk`, a C-contiguous array of the encoder's dtype."""
        encoded: bytes = self._blosc.encode(chunk)
        return encoded


def strip_width(width: int, strips: int) -> int:
    """Return the number of columns of a strip of an image that is divided into at most `strips`.

    Examples
    --------
    An image of 3001 columns has strips of 1001, 1001 and 999 columns; the last one is padded.

    >>> strip_width(3001, 3)
    1001
    """
    return max(1, -(-width // strips))


def strip_count(width: int, strips: int) -> int:
    """Return the number of strips: less than `strips` only for images of very few columns."""
    return -(-width // strip_width(width, strips))


class ImageEncoder:
    """Encoder of one image, which is put together from windows.

    Parameters
    ----------
    shape : tuple of int
        Rows and columns of the image.
    strips : int
        Number of strips; see :func:`strip_width`.
    encoder : ChunkEncoder
        Encoder of the strips.
    fill : float
        Fill value of the array: the value of pixels where nothing was put. Strips that contain only this
        value are not stored.
    """

    def __init__(self, shape: tuple[int, int], *, strips: int, encoder: ChunkEncoder, fill: float) -> None:
        height, width = shape
        self._columns = strip_width(width, strips)
        self._encoder, self._fill = encoder, fill
        stored = strip_count(width, strips), height, self._columns
        # zeros are allocated lazily: strips where nothing is put take no memory
        self._strips = np.zeros(stored, encoder.dtype) if fill == 0 else np.full(stored, fill, encoder.dtype)

    def put(self, top: int, left: int, window: npt.NDArray[Any]) -> None:
        """Set the pixels of a window.

        Parameters
        ----------
        top, left : int
            First row and column of the window in the image.
        window : numpy.ndarray
            Values of the encoder's dtype.
        """
        if window.dtype != self._encoder.dtype:
            raise ValueError(f"expected {self._encoder.dtype} pixels, got {window.dtype}")
        rows, columns = window.shape
        for strip in range(left // self._columns, -(-(left + columns) // self._columns)):
            start = strip * self._columns
            first, last = max(left, start), min(left + columns, start + self._columns)
            self._strips[strip, top : top + rows, first - start : last - start] = window[
                :, first - left : last - left
            ]

    def finish(self) -> tuple[bytes | None, ...]:
        """Return the encoded strips from west to east; None for those that contain only the fill value."""
        return tuple(
            None if _is_fill(strip, self._fill) else self._encoder.encode(strip) for strip in self._strips
        )


def _is_fill(chunk: np.ndarray, fill: float) -> bool:
    for pixels in (chunk[::61, ::61], chunk):  # a few pixels are sufficient in most cases
        other = ~np.isnan(pixels) if np.isnan(fill) else pixels != fill
        if other.any():
            return False
    return True


def object_name(variable: str, strip: int | None = None) -> str:
    """Return the name of a stored object within its granule, such as ``insar_difference.2`` for a strip."""
    return variable if strip is None else f"{variable}.{strip}"


def split_object_name(name: str) -> tuple[str, int]:
    """Return the variable and the strip of a stored object; 0 for an image that is one chunk.

    Examples
    --------
    >>> split_object_name("insar_difference.2"), split_object_name("surface_pressure")
    (('insar_difference', 2), ('surface_pressure', 0))
    """
    variable, _, strip = name.partition(".")
    return variable, int(strip or 0)
