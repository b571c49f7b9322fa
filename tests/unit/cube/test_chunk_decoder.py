"""Tests of decoding whole chunks: what was encoded comes back, and nothing of another size is decoded."""

import struct

import numpy as np
import pytest

from hephaestus_build.cube.codecs.chunk_decoder import decode_chunk
from hephaestus_build.cube.schema import cube_schema


@pytest.mark.parametrize("name", ["insar_difference", "insar_coherence"])
def test_a_chunk_comes_back(name):
    variable = cube_schema().variables[name]
    values = np.random.default_rng(0).integers(0, 9, (50, 20)).astype(variable.dtype)
    decoded = decode_chunk(variable.make_encoder().encode(values), values.shape, variable.dtype)
    np.testing.assert_array_equal(decoded, values)


def test_a_chunk_of_another_size_and_a_damaged_one_are_refused():
    variable = cube_schema().variables["insar_coherence"]
    content = variable.make_encoder().encode(np.ones((50, 20), np.uint8))
    large = content[:4] + struct.pack("<I", 1 << 31) + content[8:]
    for damaged in (content, large, content[:10], b""):
        with pytest.raises(ValueError, match="does not decode to 999 bytes"):
            decode_chunk(damaged, (999,), "uint8")
    with pytest.raises(ValueError, match="cannot be decoded"):
        decode_chunk(content[:16] + bytes(len(content) - 16), (50, 20), "uint8")
