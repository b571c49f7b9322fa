"""Tests of texts as zero-padded rows of bytes, and of the division of tables into chunks of fixed shape."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from hephaestus_build.cube.codecs.padded_chunks import iter_chunk_positions, split_into_chunks
from hephaestus_build.cube.codecs.padded_text import decode_texts, encode_texts
from hephaestus_build.cube.key_spaces import KEY_SPACES
from hephaestus_build.cube.reading.store_metadata import read_store_metadata
from hephaestus_build.cube.schema import cube_schema
from hephaestus_build.cube.zarr_json import make_array_metadata, make_group_metadata

TEXTS = st.lists(st.text(st.characters(exclude_characters="\0", codec="utf-8"), max_size=200), max_size=8)


@given(TEXTS, st.sampled_from([1, 8, 64]))
def test_texts_come_back_whole_and_their_width_is_the_smallest_multiple(texts, multiple):
    rows = encode_texts(texts, multiple)
    assert decode_texts(rows) == texts
    longest = max((len(text.encode()) for text in texts), default=0)
    assert rows.dtype == np.uint8
    assert rows.shape[0] == len(texts)
    assert rows.shape[1] % multiple == 0
    assert max(longest, 1) <= rows.shape[1] < max(longest, 1) + multiple


def test_texts_that_fill_a_row_exactly_are_not_widened():
    assert encode_texts(["é" * 32, ""], 64).shape == (2, 64)
    assert encode_texts(["é" * 32 + "x"], 64).shape == (1, 128)
    assert encode_texts([], 64).shape == (0, 64)


def test_a_null_character_is_refused_because_padding_would_hide_it():
    with pytest.raises(ValueError, match="text 1 contains a null"):
        encode_texts(["a", "b\0"], 64)


def test_rows_that_are_no_utf8_are_an_error():
    with pytest.raises(UnicodeDecodeError):
        decode_texts(np.full((1, 4), 255, np.uint8))


@given(arrays.arrays(np.int8, arrays.array_shapes(min_dims=1, max_dims=2, max_side=9)), st.data())
def test_chunks_hold_the_table_and_the_fill_value_beyond_it(table, data):
    shape = tuple(data.draw(st.integers(1, 5)) for _ in table.shape)
    chunks = dict(split_into_chunks(table, shape, -7))
    assert list(chunks) == list(iter_chunk_positions(table.shape, shape))
    counts = [max(place[axis] for place in chunks) + 1 for axis in range(table.ndim)]
    whole = np.full([count * length for count, length in zip(counts, shape, strict=True)], -7, np.int8)
    whole[tuple(slice(size) for size in table.shape)] = table
    for place, chunk in chunks.items():
        part = tuple(slice(at * size, (at + 1) * size) for at, size in zip(place, shape, strict=True))
        np.testing.assert_array_equal(chunk, whole[part])


def test_a_table_without_rows_has_no_chunks():
    assert list(split_into_chunks(np.zeros((0, 64), np.uint8), (1024, 64), 0)) == []


@pytest.mark.parametrize(("rows", "opens"), [(6_000, True), (20_000, False)])
def test_texts_as_long_as_an_annotation_may_have_them_can_be_opened(tmp_path, rows, opens):
    caption = cube_schema().groups["pairs"].variables["pairs/caption"]
    width = encode_texts(["雪" * 10_000], 64).shape[1]
    node = make_array_metadata(caption, (rows, width), KEY_SPACES[0], {})
    group = {**make_group_metadata({}), "consolidated_metadata": {"metadata": {caption.name: node}}}
    (tmp_path / "zarr.json").write_text(json.dumps(group))
    if opens:
        assert caption.name in read_store_metadata(tmp_path).arrays
    else:
        with pytest.raises(ValueError, match=f"its shape is .{rows}"):
            read_store_metadata(tmp_path)
