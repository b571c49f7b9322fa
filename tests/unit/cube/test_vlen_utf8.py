"""Tests that tables of text are encoded as zarr-python encodes them, byte for byte."""

import numpy as np
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st
from zarr.codecs import VLenUTF8Codec, ZstdCodec

from hephaestus_build.cube.codecs.vlen_utf8 import encode_vlen_utf8

TEXTS = st.sampled_from(
    ["", "", "", "Co-Eruptive", "rim of the caldera, \N{GREEK SMALL LETTER PHI}", "\0", "\U0001f30b"]
)


@settings(max_examples=60, deadline=None)
@given(
    st.integers(1, 7).flatmap(
        lambda width: st.lists(st.lists(TEXTS, min_size=width, max_size=width), min_size=1)
    )
)
def test_the_bytes_are_those_of_zarr(rows):
    table = np.array(rows, np.dtypes.StringDType())
    stored = {}
    array = zarr.create_array(
        zarr.storage.MemoryStore(stored),
        shape=table.shape,
        chunks=table.shape,
        dtype="string",
        fill_value="",
        serializer=VLenUTF8Codec(),
        compressors=ZstdCodec(level=0),
        config={"write_empty_chunks": True},
    )
    array[...] = table
    assert encode_vlen_utf8(table) == stored["c/0/0"].to_bytes()
    np.testing.assert_array_equal(array[...], table)
