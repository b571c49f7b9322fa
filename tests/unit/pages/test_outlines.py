"""Tests of the outlines of masks."""

from __future__ import annotations

import re

import numpy as np
import pytest

from hephaestus_build.pages.outlines import trace_outline
from hephaestus_build.pages.pictures import decode_codes, encode_codes, to_base64


def edges_of(path: str) -> list[tuple[str, int, int]]:
    """Return each edge of a pixel in a path: its direction, and where it starts."""
    return [
        (way, int(x) + step * (way == "h"), int(y) + step * (way == "v"))
        for x, y, way, size in re.findall(r"M(\d+) (\d+)([hv])(\d+)", path)
        for step in range(int(size))
    ]


@pytest.mark.parametrize("seed", range(4))
def test_an_outline_is_along_the_edges_between_codes_each_once(seed: int) -> None:
    codes = np.random.default_rng(seed).integers(0, 3, (7, 9), np.uint8)
    framed = np.pad(codes, 1)
    expected = {
        (way, x, y)
        for y in range(8)
        for x in range(10)
        for way, other in (("h", framed[y, x + 1]), ("v", framed[y + 1, x]))
        if framed[y + 1, x + 1] != other
    }
    found = edges_of(trace_outline(codes))
    assert len(found) == len(set(found))
    assert set(found) == expected


def test_a_large_mask_has_a_short_outline_and_none_has_none() -> None:
    codes = np.zeros((300, 400), np.uint8)
    assert trace_outline(codes) == ""
    codes[50:250, 100:300] = 2
    assert trace_outline(codes) == "M100 50h200M100 250h200M100 50v200M300 50v200"


def test_codes_are_read_back_from_a_picture_as_they_were() -> None:
    codes = np.random.default_rng(1).integers(0, 256, (5, 6), np.uint8)
    palette = np.zeros((256, 3), np.uint8)
    assert (decode_codes(to_base64(encode_codes(codes, palette))) == codes).all()
