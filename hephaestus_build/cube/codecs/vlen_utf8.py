"""Encoder of a table of strings as one Zarr v3 chunk.

Most cells of a table are empty, since most combinations of dates are not interferograms. zarr-python creates
a Python object for every cell and takes ten times as long. The tests compare its bytes with these.
"""

from __future__ import annotations

import struct

import numpy as np
from numcodecs import Zstd

_ZSTD = Zstd(level=0)


def encode_vlen_utf8(texts: np.ndarray) -> bytes:
    """Return a table of strings encoded with the codecs ``vlen-utf8`` and ``zstd`` (level 0).

    Parameters
    ----------
    texts : numpy.ndarray
        Strings of NumPy's StringDType, of any shape.

    Returns
    -------
    bytes
        The chunk.
    """
    flat = texts.reshape(-1)
    places = np.flatnonzero(flat != "").tolist()
    # the number of strings, then the length and the bytes of each; an empty string is a length of 0
    parts = [struct.pack("<I", flat.size)]
    done = 0
    for place in places:
        text = flat[place].encode()
        parts += [bytes(4 * (place - done)), struct.pack("<I", len(text)), text]
        done = place + 1
    parts.append(bytes(4 * (flat.size - done)))
    encoded: bytes = _ZSTD.encode(b"".join(parts))
    return encoded
