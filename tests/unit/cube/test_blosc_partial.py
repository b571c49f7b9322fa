"""Tests that partial decoding of Blosc buffers agrees with full decoding."""

from __future__ import annotations

import numcodecs
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hephaestus_build.cube.codecs.blosc_partial import HEADER_BYTES, slice_blosc_buffer


def part_of(encoded: bytes, decoded: int, start: int, stop: int) -> tuple[bytes, int]:
    """Return the decoded bytes of a part, and their offset in the full buffer."""
    part = slice_blosc_buffer(encoded[:HEADER_BYTES], len(encoded), decoded, start, stop)
    content = numcodecs.Blosc().decode(part.header + encoded[part.begin : part.end])
    assert len(content) == part.decoded_size
    return content, part.first_byte


@given(st.integers(1, 70), st.integers(0, 2**32 - 1), st.sampled_from(["zstd", "lz4"]), st.data())
def test_a_part_decodes_to_the_wanted_bytes(number: int, seed: int, codec: str, data: st.DataObject) -> None:
    chance, block = np.random.default_rng(seed), 4096
    size = number * block // 4 - int(chance.integers(0, block // 4)) * data.draw(st.booleans())
    values = chance.normal(size=size).round(int(chance.integers(0, 5))).astype(np.float32)
    encoded = numcodecs.Blosc(codec, 1, numcodecs.Blosc.SHUFFLE, blocksize=block).encode(values)
    start = data.draw(st.integers(0, values.nbytes - 1))
    stop = data.draw(st.integers(start + 1, values.nbytes))
    content, first = part_of(encoded, values.nbytes, start, stop)
    assert content[start - first : stop - first] == values.tobytes()[start:stop]


def test_only_the_wanted_blocks_are_read() -> None:
    values = np.random.default_rng(0).normal(size=(512, 512)).astype(np.float32)
    encoded = numcodecs.Blosc("zstd", 1, numcodecs.Blosc.SHUFFLE, blocksize=1 << 19).encode(values)
    part = slice_blosc_buffer(encoded[:HEADER_BYTES], len(encoded), values.nbytes, 300 * 2048, 400 * 2048)
    assert part.first_byte == 256 * 2048
    assert part.end - part.begin < 0.6 * len(encoded)


@pytest.mark.parametrize("damage", ["cut", "longer", "another size", "no block size", "empty"])
def test_a_damaged_buffer_is_refused(damage: str) -> None:
    values = np.arange(4096, dtype=np.float32)
    encoded = bytearray(numcodecs.Blosc("zstd", 1, blocksize=4096).encode(values))
    length = len(encoded) + (damage == "longer")
    if damage == "another size":
        encoded[7] = 0xFF  # four gigabytes, which must be refused before allocation
    elif damage == "no block size":
        encoded[8:12] = bytes(4)
    head = bytes(encoded[: {"cut": 9, "empty": 0}.get(damage, HEADER_BYTES)])
    with pytest.raises(ValueError, match=r"truncated|damaged"):
        slice_blosc_buffer(head, length, values.nbytes, 0, 4096)
