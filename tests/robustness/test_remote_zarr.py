"""Tests of untrusted Zarr stores: no code is run, and no chunk takes more memory than its array declares."""

from __future__ import annotations

import gzip
import json
import pickle
import tracemalloc
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import google_crc32c
import numcodecs
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from fuzzing import Reader as FuzzedReader
from fuzzing import fuzz
from hephaestus_build.sources.era5.remote_zarr import MAX_CHUNK_BYTES, RemoteArray, parse_array_metadata

FORMAT_2: dict[str, Any] = {
    "zarr_format": 2,
    "shape": [100, 7],
    "chunks": [10, 7],
    "dtype": "<f4",
    "compressor": {"id": "blosc", "cname": "lz4", "clevel": 5, "shuffle": 1, "blocksize": 0},
    "fill_value": "NaN",
    "filters": None,
    "order": "C",
}
FORMAT_3: dict[str, Any] = {
    "zarr_format": 3,
    "node_type": "array",
    "shape": [100, 7],
    "data_type": "float32",
    "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": [10, 7]}},
    "chunk_key_encoding": {"name": "default", "configuration": {"separator": "/"}},
    "codecs": [
        {"name": "bytes", "configuration": {"endian": "little"}},
        {"name": "zstd"},
        {"name": "crc32c"},
    ],
}
VALUES = np.arange(70, dtype="<f4").reshape(10, 7)
ENCODE: dict[str, Callable[[bytes], Any]] = {
    "blosc": numcodecs.Blosc().encode,
    "zstd": numcodecs.Zstd().encode,
    "lz4": numcodecs.LZ4().encode,
    "zlib": zlib.compress,
    "gzip": gzip.compress,
    "": bytes,
}


def array_of(codec: str, **changes: Any) -> RemoteArray:
    compressor = {"id": codec} if codec else None
    return parse_array_metadata("x", {**FORMAT_2, "compressor": compressor, **changes}, None)


def packed(codec: str, content: bytes = VALUES.tobytes()) -> bytes:
    return bytes(ENCODE[codec](content))


@given(
    st.sampled_from(sorted(ENCODE)),
    arrays.arrays(
        st.sampled_from(["<f4", ">f4", "<f8", "<i2", ">i8", "|u1"]).map(np.dtype),
        st.tuples(*[st.integers(1, 9)] * 2),
    ),
    st.sampled_from("CF"),
)
def test_what_a_codec_packed_is_unpacked(codec: str, values: np.ndarray, order: str) -> None:
    array = array_of(codec, chunks=list(values.shape), dtype=values.dtype.str, order=order)
    found = array.decode_chunk(packed(codec, values.tobytes(order="F" if order == "F" else "C")))
    np.testing.assert_array_equal(found, values)


def test_format_3_is_read_with_its_checksum_and_byte_order() -> None:
    array = parse_array_metadata("x", FORMAT_3, {"units": "K"})
    content = packed("zstd")
    content += google_crc32c.value(content).to_bytes(4, "little")
    np.testing.assert_array_equal(array.decode_chunk(content), VALUES)
    assert array.chunk_key((3, 0)) == "c/3/0"
    with pytest.raises(ValueError, match="checksum"):
        array.decode_chunk(content[:-1] + bytes([content[-1] ^ 1]))
    big = [{"name": "bytes", "configuration": {"endian": "big"}}]
    keys = {"name": "v2"}
    array = parse_array_metadata("x", {**FORMAT_3, "codecs": big, "chunk_key_encoding": keys}, None)
    np.testing.assert_array_equal(array.decode_chunk(VALUES.astype(">f4").tobytes()), VALUES)
    assert array.chunk_key((3, 0)) == "3.0"


@pytest.mark.parametrize(
    "changes",
    [
        {"dtype": "|O"},
        {"dtype": "|O", "filters": [{"id": "pickle"}]},
        {"dtype": "|S5"},
        {"dtype": "<U5"},
        {"dtype": "<M8[ns]"},
        {"dtype": [["a", "<f4"]]},
        {"dtype": None},
        {"filters": [{"id": "pickle"}]},
        {"filters": [{"id": "delta", "dtype": "<f4"}]},
        {"compressor": {"id": "pickle"}},
        {"compressor": {"id": "lzma"}},
        {"compressor": {"id": "bz2"}},
        {"compressor": {"id": ""}},
        {"compressor": {"id": ["blosc"]}},
        {"compressor": "blosc"},
        {"shape": [1 << 60, 7]},
        {"shape": [-1, 7]},
        {"shape": [True, 7]},
        {"shape": [10.5, 7]},
        {"shape": "ab"},
        {"shape": [1] * 9, "chunks": [1] * 9},
        {"shape": [], "chunks": []},
        {"chunks": [0, 7]},
        {"chunks": [10]},
        {"chunks": [1 << 20, 1 << 10]},
        {"order": "K"},
        {"dimension_separator": "/../"},
        {"zarr_format": 4},
        {"zarr_format": "2"},
    ],
)
def test_format_2_is_refused_where_it_is_more_than_plain_numbers(changes: dict[str, Any]) -> None:
    with pytest.raises(ValueError):
        parse_array_metadata("x", {**FORMAT_2, **changes}, None)


@pytest.mark.parametrize(
    "changes",
    [
        {"data_type": "string"},
        {"data_type": {"name": "numpy.datetime64"}},
        {"codecs": [{"name": "vlen-utf8"}]},
        {"codecs": [{"name": "numcodecs.pickle"}]},
        {"codecs": [{"name": "bytes"}, {"name": "numcodecs.pickle"}]},
        {"codecs": [{"name": "bytes"}, {"name": "zstd"}, {"name": "zstd"}]},
        {"codecs": [{"name": "bytes"}, {"name": "numcodecs."}]},
        {"codecs": [{"name": "transpose"}, {"name": "bytes"}]},
        {"codecs": [{"name": "sharding_indexed"}]},
        {"codecs": ["bytes"]},
        {"codecs": []},
        {"codecs": {}},
        {"chunk_grid": {"name": "rectangular"}},
        {"chunk_grid": {"name": "regular"}},
        {"chunk_grid": []},
        {"chunk_key_encoding": {"name": "own"}},
        {"chunk_key_encoding": {"name": "v2", "configuration": {"separator": "/../"}}},
        {"storage_transformers": [{"name": "x"}]},
    ],
)
def test_format_3_is_refused_where_it_is_more_than_plain_numbers(changes: dict[str, Any]) -> None:
    with pytest.raises(ValueError):
        parse_array_metadata("x", {**FORMAT_3, **changes}, None)


class Code:
    """Runs when it is unpickled."""

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return exec, ("raise SystemExit('code of the store ran')",)


def test_a_chunk_runs_no_code() -> None:
    for codec in ENCODE:
        with pytest.raises(ValueError, match="cannot be decoded"):
            array_of(codec).decode_chunk(pickle.dumps(Code()))


@pytest.mark.parametrize("codec", sorted(ENCODE))
def test_a_chunk_takes_no_more_memory_than_its_array_says(codec: str) -> None:
    content = packed(codec, bytes(32 << 20))
    tracemalloc.start()
    try:
        with pytest.raises(ValueError, match="cannot be decoded"):
            array_of(codec).decode_chunk(content)
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("codec", sorted(ENCODE))
@pytest.mark.parametrize("change", ["cut", "longer", "smaller", "twice", "empty"])
def test_a_chunk_of_another_size_is_refused(codec: str, change: str) -> None:
    good = packed(codec)
    content = {
        "cut": good[: len(good) // 2],
        "longer": good + b"\0",
        "smaller": packed(codec, VALUES.tobytes()[:-4]),
        "twice": good + good,
        "empty": b"",
    }[change]
    with pytest.raises(ValueError, match="cannot be decoded"):
        array_of(codec).decode_chunk(content)


def test_a_frame_that_does_not_say_its_size_is_read_into_what_the_array_says() -> None:
    values = np.zeros((10, 7), "<f4")
    good = packed("zstd", values.tobytes())
    assert good[4] & 0xE0 == 0x60  # one segment, its size in two bytes
    unsized = good[:4] + b"\x00\x58" + good[7:]
    np.testing.assert_array_equal(array_of("zstd").decode_chunk(unsized), values)
    with pytest.raises(ValueError):
        array_of("zstd", chunks=[9, 7]).decode_chunk(unsized)
    with pytest.raises(ValueError):
        array_of("zstd", chunks=[11, 7]).decode_chunk(unsized)


def test_blosc_reads_nothing_beyond_the_chunk() -> None:
    """A chunk of 16 bytes that declares a megabyte once returned a megabyte of this process's memory."""
    noise = np.random.default_rng(1).bytes(280)
    copied = packed("blosc", noise)
    assert copied[2] & 2
    array = array_of("blosc")
    assert array.decode_chunk(copied).tobytes() == noise
    for lie in (copied[:16], copied[:12] + (16).to_bytes(4, "little"), copied[:-1]):
        with pytest.raises(ValueError, match="contradicts"):
            array.decode_chunk(lie)


# --- anything ---------------------------------------------------------------------------------------------

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


@settings(max_examples=300)
@given(st.sampled_from([FORMAT_2, FORMAT_3]), st.data())
def test_no_metadata_break_the_parser(good: dict[str, Any], data: st.DataObject) -> None:
    changed = {**good, **data.draw(st.dictionaries(st.sampled_from(sorted(good)), json_values, min_size=1))}
    try:
        array = parse_array_metadata("x", changed, data.draw(json_values))
    except ValueError:
        return
    assert array.dtype.kind in "iuf"
    assert array.max_stored_bytes < 2 * MAX_CHUNK_BYTES


def decode(path: Path) -> None:
    """Decode a chunk; its first byte selects the codec."""
    content = path.read_bytes() or b"\0"
    codec = sorted(ENCODE)[content[0] % len(ENCODE)]
    array_of(codec, shape=[1000, 700], chunks=[100, 700]).decode_chunk(content[1:])


def parse(path: Path) -> None:
    """Parse the metadata of an array and of a store."""
    from hephaestus_build.core.parsing import parse_json

    parse_array_metadata("x", parse_json(path.read_bytes()), None)


def test_mutated_chunks_end_as_a_reason(tmp_path: Path) -> None:
    values = np.sin(np.arange(70_000, dtype="<f4")).tobytes()
    noise = np.random.default_rng(1).bytes(280_000)
    samples = [
        bytes([number]) + packed(codec, content)
        for number, codec in enumerate(sorted(ENCODE))
        for content in (values, bytes(280_000), noise)
        if codec
    ]
    with FuzzedReader(f"{__file__}:decode", memory=64 << 20) as fuzzed:
        counts = fuzz(fuzzed, samples, tmp_path)
    assert counts["refused"]


def test_mutated_metadata_end_as_a_reason(tmp_path: Path) -> None:
    samples = [json.dumps(good).encode() for good in (FORMAT_2, FORMAT_3)]
    with FuzzedReader(f"{__file__}:parse", memory=64 << 20) as fuzzed:
        counts = fuzz(fuzzed, samples, tmp_path)
    assert counts["refused"]
