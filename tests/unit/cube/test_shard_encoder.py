"""Tests that zarr-python reads the encoded shards pixel for pixel."""

import numpy as np
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from zarr.codecs import BloscCodec, BytesCodec, ShardingCodec

from hephaestus_build.cube.codecs.shard_encoder import (
    CHUNK_KEY_SEPARATOR,
    ChunkEncoder,
    chunk_key,
    encode_shard,
    shard_shape,
)
from hephaestus_build.cube.schema import cube_schema

CODEC = {"cname": "zstd", "clevel": 1, "shuffle": "shuffle", "blocksize": 1 << 19}


def read_back(folder, shard, shape, dtype, inner, fill):
    """Put a shard where zarr-python expects it and read the image."""
    whole = (1, 1, *shard_shape(shape, inner))
    blosc = BloscCodec(**CODEC, typesize=np.dtype(dtype).itemsize)
    array = zarr.create_array(
        folder,
        shape=(1, 1, *shape),
        chunks=whole,
        shards=whole,
        serializer=ShardingCodec(chunk_shape=(1, 1, inner, inner), codecs=[BytesCodec(), blosc]),
        chunk_key_encoding={"name": "default", "separator": CHUNK_KEY_SEPARATOR},
        dtype=dtype,
        compressors=None,
        fill_value=fill,
        overwrite=True,
    )
    if shard is not None:
        path = folder / chunk_key("", (0, 0), 2).lstrip("/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(shard)
    assert array.chunks == whole  # one chunk per image for dask
    return array


@settings(max_examples=40, deadline=None)
@given(
    plane=arrays(
        np.float32,
        st.tuples(st.integers(1, 40), st.integers(1, 40)),
        elements=st.sampled_from([0.0, 0.0, -0.0, 1.5, -3.14, 3.14]),
    )
)
def test_zarr_reads_back_every_bit(plane, tmp_path_factory):
    shard = encode_shard(plane, inner=16, encoder=ChunkEncoder(CODEC, "float32"), fill=0)
    array = read_back(tmp_path_factory.mktemp("shard"), shard, plane.shape, "float32", 16, 0)
    np.testing.assert_array_equal(array[0, 0], plane)
    np.testing.assert_array_equal(array[0, 0, 10:20, 5:30], plane[10:20, 5:30])


def test_an_image_of_nothing_is_not_stored():
    empty = np.zeros((30, 30), np.uint8)
    assert encode_shard(empty, inner=16, encoder=ChunkEncoder(CODEC, "uint8"), fill=0) is None
    missing = np.full((30, 30), np.nan, np.float32)
    assert encode_shard(missing, inner=16, encoder=ChunkEncoder(CODEC, "float32"), fill=float("nan")) is None


def test_one_image_has_one_encoding():
    plane = np.random.default_rng(0).normal(size=(700, 700)).astype(np.float32)
    encoder = ChunkEncoder(CODEC, "float32")
    shards = {encode_shard(plane, inner=512, encoder=encoder, fill=0) for _ in range(3)}
    assert len(shards) == 1


def test_another_type_of_pixel_is_refused():
    with pytest.raises(ValueError, match="expected float32"):
        encode_shard(np.zeros((4, 4)), inner=2, encoder=ChunkEncoder(CODEC, "float32"), fill=0)


@pytest.mark.parametrize("name", ["total_column_water_vapour", "surface_pressure"])
def test_packed_values_come_back_exactly_when_they_are_multiples_of_the_step(name):
    variable = cube_schema().variables[f"primary_date_{name}"]
    encoder = variable.make_encoder()
    plane = (np.arange(64, dtype=np.float32).reshape(8, 8) + 50_000) * np.float32(variable.step)
    chunk = encoder._blosc.decode(encoder.encode(plane))
    for codec in reversed(encoder.filters):
        chunk = codec.decode(chunk)
    np.testing.assert_array_equal(np.asarray(chunk).reshape(8, 8), plane)
