"""Colour maps of the pages: Crameri's, perceptually uniform and readable for the colour-blind."""

from __future__ import annotations

import json
from functools import cache

import numpy as np
import numpy.typing as npt

from hephaestus_build.pages.assets import read_asset

#: Colour of what has no data; its opacity is 0.
_CLEAR = (127, 127, 127)


@cache
def load_colour_map(name: str) -> npt.NDArray[np.uint8]:
    """Return the 256 colours of a map, shape (256, 3): romaO, grayC, devon, lajolla or bukavu."""
    digits = json.loads(read_asset("colour_maps.json"))["maps"][name]
    return np.frombuffer(bytes.fromhex(digits), np.uint8).reshape(256, 3)


def byte_palette(name: str, *, reverse: bool = False) -> npt.NDArray[np.uint8]:
    """Return the colours of the bytes 0 to 255 of a picture whose byte 0 is no data.

    Parameters
    ----------
    name : str
        The colour map. Its ends are the colours of the bytes 1 and 255; those of a cyclic one are the same.
    reverse : bool
        Whether the map runs from 255 to 1.

    Returns
    -------
    numpy.ndarray
        uint8, shape (256, 3).
    """
    colours = load_colour_map(name)[:: -1 if reverse else 1]
    places = np.linspace(0, 256, 255) % 256 if name.endswith("O") else np.linspace(0, 255, 255)
    return np.concatenate([np.array([_CLEAR], np.uint8), colours[places.astype(int)]])
