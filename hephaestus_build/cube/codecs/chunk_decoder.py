"""Decoder of a whole chunk that :class:`~hephaestus_build.cube.codecs.image_encoder.ChunkEncoder` encoded."""

from __future__ import annotations

import struct
from typing import Any

import numcodecs
import numpy as np
import numpy.typing as npt

_BLOSC = numcodecs.Blosc()
_HEADER = 16  # bytes of a Blosc header; the decoded size is at byte 4


def decode_chunk(content: bytes, shape: tuple[int, ...], dtype: str) -> npt.NDArray[Any]:
    """Return the values of a chunk; other threads run meanwhile.

    Parameters
    ----------
    content : bytes
        The encoded chunk.
    shape : tuple of int
        Shape of the chunk.
    dtype : str
        dtype of its values.

    Raises
    ------
    ValueError
        If the chunk is damaged, or decodes to another size.
    """
    values = np.empty(shape, np.dtype(dtype).newbyteorder("<"))
    if len(content) < _HEADER or struct.unpack_from("<I", content, 4)[0] != values.nbytes:
        raise ValueError(f"it does not decode to {values.nbytes} bytes")
    try:
        _BLOSC.decode(content, out=values)
    except RuntimeError as error:
        raise ValueError(f"it cannot be decoded: {error}") from error
    return values
