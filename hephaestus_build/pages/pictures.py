"""Pictures of the pages: PNG files of one channel, whose samples are the values themselves."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image


@dataclass(frozen=True)
class Picture:
    """A picture of a page, as JSON values.

    Attributes
    ----------
    png : str
        The file, in base64. Its samples are codes: of 8 bits with a palette, or of 16 bits.
    scale, offset : float
        A code stands for ``offset + scale * code``; 0 is no data.
    """

    png: str
    scale: float = 1.0
    offset: float = 0.0


def encode_codes(codes: npt.NDArray[np.uint8], palette: npt.NDArray[np.uint8]) -> bytes:
    """Return codes as a PNG that shows each in its colour, and code 0 as transparent.

    Parameters
    ----------
    codes : numpy.ndarray
        uint8, shape (rows, columns); the samples of the file.
    palette : numpy.ndarray
        uint8, shape (256, 3).
    """
    image = Image.fromarray(codes, "L")
    image.putpalette(palette.tobytes())  # makes it one of mode P, with the same samples
    stream = io.BytesIO()
    # all eight bits, whatever the largest code is: scripts read the samples
    image.save(stream, "PNG", transparency=0, bits=8, compress_level=9)
    return stream.getvalue()


def decode_codes(png: str) -> npt.NDArray[np.uint8]:
    """Return the codes of a picture of 8 bits, from its base64."""
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(png))), np.uint8)


def encode_levels(levels: npt.NDArray[np.uint16]) -> bytes:
    """Return levels as a grey PNG of 16 bits."""
    stream = io.BytesIO()
    Image.fromarray(levels).save(stream, "PNG", compress_level=9)
    return stream.getvalue()


def to_base64(content: bytes) -> str:
    """Return bytes as text for a data URI."""
    return base64.b64encode(content).decode("ascii")


def quantize_to_codes(
    values: npt.NDArray[np.floating], low: float, high: float
) -> tuple[npt.NDArray[np.uint8], float, float]:
    """Return values as codes from 1 to 255, with scale and offset; NaN as 0.

    Parameters
    ----------
    values : numpy.ndarray
        The values.
    low, high : float
        Those of the codes 1 and 255; values beyond become these.
    """
    scale = (high - low) / 254 if high > low else 1.0
    steps = np.rint((np.nan_to_num(values, nan=low) - low) / scale) + 1
    return np.where(np.isnan(values), 0, np.clip(steps, 1, 255)).astype(np.uint8), scale, low - scale
