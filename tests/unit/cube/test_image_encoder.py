"""Tests that zarr-python reads the encoded strips pixel for pixel."""

import numpy as np
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from zarr.codecs import BloscCodec

from hephaestus_build.cube.codecs.image_encoder import (
    ChunkEncoder,
    ImageEncoder,
    object_name,
    split_object_name,
    strip_count,
    strip_width,
)
from hephaestus_build.cube.key_spaces import KEY_SPACES

CODEC = {"cname": "zstd", "clevel": 1, "shuffle": "shuffle", "blocksize": 1 << 19}


def encode_image(image, *, strips, encoder, fill):
    """Return the strips of an image that arrives as a whole."""
    work = ImageEncoder(image.shape, strips=strips, encoder=encoder, fill=fill)
    work.put(0, 0, image)
    return work.finish()


def read_back(folder, strips, shape, dtype, fill):
    """Put strips where zarr-python expects them and open the array."""
    height, width = shape
    array = zarr.create_array(
        folder,
        shape=(1, 1, *shape),
        chunks=(1, 1, height, strip_width(width, 3)),
        chunk_key_encoding={"name": "default", "separator": "."},
        dtype=dtype,
        compressors=BloscCodec(**CODEC, typesize=np.dtype(dtype).itemsize),
        fill_value=fill,
        overwrite=True,
    )
    assert len(strips) == strip_count(width, 3) == array.cdata_shape[-1]
    for number, content in enumerate(strips):
        if content is not None:
            (folder / KEY_SPACES[0].chunk_name((0, 0), 2, number)).write_bytes(content)
    return array


@settings(max_examples=40, deadline=None)
@given(
    image=arrays(
        np.float32,
        st.tuples(st.integers(1, 40), st.integers(1, 40)),
        elements=st.sampled_from([0.0, 0.0, -0.0, 1.5, -3.14, 3.14]),
    )
)
def test_zarr_reads_back_every_bit(image, tmp_path_factory):
    strips = encode_image(image, strips=3, encoder=ChunkEncoder(CODEC, "float32"), fill=0)
    array = read_back(tmp_path_factory.mktemp("strips"), strips, image.shape, "float32", 0)
    np.testing.assert_array_equal(array[0, 0], image)
    np.testing.assert_array_equal(array[0, 0, 10:20, 5:30], image[10:20, 5:30])


@given(
    shape=st.tuples(st.integers(1, 30), st.integers(1, 30)),
    place=st.tuples(st.integers(0, 29), st.integers(0, 29)),
    size=st.tuples(st.integers(0, 30), st.integers(0, 30)),
)
def test_window_is_encoded_as_the_image_that_contains_it(shape, place, size):
    rows = slice(min(place[0], shape[0]), min(place[0] + size[0], shape[0]))
    columns = slice(min(place[1], shape[1]), min(place[1] + size[1], shape[1]))
    image = np.zeros(shape, np.uint8)
    image[rows, columns] = 1 + np.arange(image[rows, columns].size).reshape(image[rows, columns].shape) % 250
    encoder = ChunkEncoder(CODEC, "uint8")
    work = ImageEncoder(shape, strips=3, encoder=encoder, fill=0)
    work.put(rows.start, columns.start, image[rows, columns])
    assert work.finish() == encode_image(image, strips=3, encoder=encoder, fill=0)


def test_strips_of_fill_values_are_not_stored():
    image = np.zeros((30, 30), np.uint8)
    image[29, 10] = 1
    west, middle, east = encode_image(image, strips=3, encoder=ChunkEncoder(CODEC, "uint8"), fill=0)
    assert west is None
    assert middle is not None
    assert east is None
    missing = np.full((30, 30), np.nan, np.float32)
    encoder = ChunkEncoder(CODEC, "float32")
    assert encode_image(missing, strips=3, encoder=encoder, fill=float("nan")) == (None,) * 3


@given(width=st.integers(1, 10_000), strips=st.integers(1, 8))
def test_strips_cover_every_column_once(width, strips):
    count, columns = strip_count(width, strips), strip_width(width, strips)
    assert 1 <= count <= strips
    assert (count - 1) * columns < width <= count * columns


def test_same_image_has_the_same_encoding():
    image = np.random.default_rng(0).normal(size=(700, 700)).astype(np.float32)
    encoder = ChunkEncoder(CODEC, "float32")
    assert len({encode_image(image, strips=3, encoder=encoder, fill=0) for _ in range(3)}) == 1


def test_pixels_of_another_dtype_are_refused():
    with pytest.raises(ValueError, match="expected float32"):
        encode_image(np.zeros((4, 4)), strips=3, encoder=ChunkEncoder(CODEC, "float32"), fill=0)


def test_names_of_objects():
    assert split_object_name(object_name("insar_difference", 2)) == ("insar_difference", 2)
    assert split_object_name(object_name("surface_pressure")) == ("surface_pressure", 0)
