"""A table of text to one Zarr v3 chunk: a pure function.

Most pairs of a frame's dates are no interferogram. zarr-python makes an object of every empty cell first, and
takes ten times as long; the tests compare its bytes with these.
"""

from __future__ import annotations

import struct
from typing import Any

import numpy as np
import numpy.typing as npt
from numcodecs import Zstd

_ZSTD = Zstd(level=0)


def encode_vlen_utf8(texts: npt.NDArray[Any]) -> bytes | None:
    """Return a table of text as the codecs ``vlen-utf8`` and ``zstd`` (level 0) store it.

    Parameters
    ----------
    texts : numpy.ndarray
        Of NumPy's StringDType, any shape.

    Returns
    -------
    bytes or None
        None where all are empty: nothing is stored then.
    """
    flat = texts.reshape(-1)
    places = np.flatnonzero(flat != "").tolist()
    if not places:
        return None
    # how many; then of each its length and its bytes: an empty one is a length of 0
    parts = [struct.pack("<I", flat.size)]
    done = 0
    for place in places:
        text = flat[place].encode()
        parts += [bytes(4 * (place - done)), struct.pack("<I", len(text)), text]
        done = place + 1
    parts.append(bytes(4 * (flat.size - done)))
    return _ZSTD.encode(b"".join(parts))
