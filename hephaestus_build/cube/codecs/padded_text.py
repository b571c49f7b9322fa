"""Texts as rows of bytes: UTF-8, padded with zeros to one width.

Several readers refuse Zarr's string types, but every reader opens an array of bytes. A table of texts is
stored as uint8 with one more dimension, of which each row holds one text.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt


def encode_texts(texts: Sequence[str], multiple: int) -> npt.NDArray[np.uint8]:
    """Return texts as rows of bytes; none is truncated.

    Parameters
    ----------
    texts : sequence of str
        The texts.
    multiple : int
        The width of a row is the smallest multiple of this number of bytes, at least one, that holds the
        longest text.

    Returns
    -------
    numpy.ndarray
        uint8, of shape (texts, width).

    Raises
    ------
    ValueError
        If a text contains a null character, which padding would hide, or cannot be encoded.

    Examples
    --------
    >>> encode_texts(["höher", ""], 8)
    array([[104, 195, 182, 104, 101, 114,   0,   0],
           [  0,   0,   0,   0,   0,   0,   0,   0]], dtype=uint8)
    """
    encoded = [text.encode() for text in texts]
    for row, content in enumerate(encoded):
        if b"\0" in content:
            raise ValueError(f"text {row} contains a null character")
    width = multiple * max(1, -(-max(map(len, encoded), default=0) // multiple))
    rows = np.zeros((len(encoded), width), np.uint8)
    for row, content in enumerate(encoded):
        rows[row, : len(content)] = np.frombuffer(content, np.uint8)
    return rows


def decode_texts(rows: npt.NDArray[np.uint8]) -> list[str]:
    """Return the texts that :func:`encode_texts` wrote.

    Parameters
    ----------
    rows : numpy.ndarray
        uint8, of shape (texts, width).

    Raises
    ------
    ValueError
        If a row is not UTF-8 (UnicodeDecodeError).
    """
    return [row.tobytes().rstrip(b"\0").decode() for row in rows]
