"""Tests of cubes from untrusted sources: reading is bounded, and bad metadata give a one-line error."""

from __future__ import annotations

import json
import os
import shutil
import struct
from collections.abc import Callable
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import numcodecs
import numpy as np
import pytest
import xarray as xr

from fuzzing import Reader, fuzz
from hephaestus_build.core.atomic_io import encode_json
from hephaestus_build.core.errors import HephaestusError
from hephaestus_build.core.frames import Frame
from hephaestus_build.cube.reading.dataset import open_pinned_cube
from hephaestus_build.cube.reading.window_reader import WindowReader
from hephaestus_build.cube.storage.frame_folder import MANIFEST, PROVENANCE
from hephaestus_build.cube.storage.generations import FrameStore, Generation
from hephaestus_build.cube.storage.manifest import decode_manifest
from hephaestus_build.cube.validation.schema_conformance import check_schema
from hephaestus_build.pipeline.kept.generation_summary import summarize_generation
from toy_cube import FRAME, toy_cube


@pytest.fixture(scope="module")
def pristine(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("pristine")
    toy_cube(folder / "cubes")
    return folder


@pytest.fixture
def store(pristine, tmp_path) -> Path:
    return shutil.copytree((pristine / "cubes" / f"{FRAME}.zarr").resolve(), tmp_path / f"{FRAME}.zarr")


def array(name: str, **new: Any) -> Callable[[dict[str, Any]], None]:
    return lambda group: group["consolidated_metadata"]["metadata"][name].update(new)


def codecs(name: str, *chain: dict[str, Any]) -> Callable[[dict[str, Any]], None]:
    return array(name, codecs=list(chain))


def nested(depth: int) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = [value]
    return value


BYTES = {"name": "bytes", "configuration": {"endian": "little"}}
HOSTILE: dict[str, Callable[[dict[str, Any]], None]] = {
    "an object codec": codecs("valid_fraction", BYTES, {"name": "numcodecs.pickle"}),
    "a codec of objects": codecs(
        "valid_fraction", {"name": "numcodecs.delta", "configuration": {"dtype": "O"}}, BYTES
    ),
    "a chain of compressors": codecs("valid_fraction", BYTES, *[{"name": "zstd", "configuration": {}}] * 3),
    "no codecs": codecs("valid_fraction"),
    "codecs that are none": codecs("valid_fraction", {"name": 3}),
    "a dtype of objects": array("valid_fraction", data_type="object"),
    "a dtype with settings": array("valid_fraction", data_type={"name": "fixed_length_utf32"}),
    "a shape beyond memory": array("valid_fraction", shape=[10**6, 10**6]),
    "a chunk beyond memory": array(
        "valid_fraction", chunk_grid={"name": "regular", "configuration": {"chunk_shape": [10**5, 10**5]}}
    ),
    "a dimension beyond memory": array("primary_date", shape=[10**12]),
    "a negative dimension": array("primary_date", shape=[-1]),
    "a dimension of text": array("primary_date", shape=["5"]),
    "a true dimension": array("primary_date", shape=[True]),
    "dimensions without names": array("valid_fraction", dimension_names=[None, None]),
    "names of dimensions that are lists": array("valid_fraction", dimension_names=[[], []]),
    "attributes that are a list": array("dem", attributes=[1]),
    "deep attributes": array("dem", attributes={"x": nested(90)}),
    "an array that leads out": lambda group: group["consolidated_metadata"]["metadata"].update(
        {"../../elsewhere": group["consolidated_metadata"]["metadata"]["dem"]}
    ),
    "thousands of arrays": lambda group: group["consolidated_metadata"]["metadata"].update(
        {f"a{number}": group["consolidated_metadata"]["metadata"]["dem"] for number in range(5000)}
    ),
    "arrays that are a list": lambda group: group.update(consolidated_metadata={"metadata": []}),
    "a group that is an array": lambda group: group["consolidated_metadata"].update(metadata=3),
    "other names of chunks": array("dem", chunk_key_encoding={"name": "fanout"}),
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_hostile_metadata_is_refused_in_one_line(store, kind):
    group = json.loads((store / "zarr.json").read_bytes())
    HOSTILE[kind](group)
    (store / "zarr.json").write_text(json.dumps(group))
    with pytest.raises(HephaestusError) as caught:
        open_pinned_cube(store, chunks=None)
    assert str(caught.value).startswith(f"{FRAME}: ")
    assert len(str(caught.value)) < 1000
    with pytest.raises(HephaestusError):
        WindowReader(store)
    assert check_schema(store)


@pytest.mark.parametrize("content", [b"[" * 100_000, b"{}", b"[]", b"\xff", b"1" * 6000, b" " * (9 << 20)])
def test_a_group_that_is_none_is_refused(store, content):
    (store / "zarr.json").write_bytes(content)
    with pytest.raises(HephaestusError, match=FRAME):
        open_pinned_cube(store)
    assert check_schema(store)


def test_what_a_finding_quotes_is_short_and_harmless(store):
    group = json.loads((store / "zarr.json").read_bytes())
    group["consolidated_metadata"]["metadata"]["dem"]["attributes"]["units"] = "\x1b[2J" + "m" * 1_000_000
    group["attributes"]["frame"] = "\x1b]0;owned\x07" * 1000
    (store / "zarr.json").write_text(json.dumps(group))
    lines = list(map(str, check_schema(store)))
    assert lines
    assert all(line.isprintable() and len(line) <= 1001 for line in lines)


def bomb(codec: str, size: int) -> bytes:
    """Return a few kilobytes that decode to `size` bytes."""
    zeros = np.zeros(1 << 20, np.uint8)
    if codec == "zstd":
        return bytes(numcodecs.Zstd(level=1).encode(np.zeros(size, np.uint8)))
    buffer = bytearray(numcodecs.Blosc().encode(zeros))
    struct.pack_into("<I", buffer, 4, size)
    return bytes(buffer)


@pytest.mark.parametrize("name", ["primary_date", "valid_fraction", "caption", "era5_surface_pressure"])
def test_a_chunk_that_decodes_to_more_than_its_array_is_not_decoded(store, name):
    chunk = next((store / name).glob("c.*"))
    chunk.write_bytes(bomb("blosc" if name.startswith("era5") else "zstd", 300 << 20))
    with pytest.raises(HephaestusError, match=r"would decode|is damaged"):
        _ = open_pinned_cube(store, chunks=None)[name].values
    windows = WindowReader(store)
    if name.startswith("era5"):
        day = date(1970, 1, 1) + timedelta(int(windows.read_table("epoch")[int(chunk.name.split(".")[1])]))
        with pytest.raises(HephaestusError, match="repair"):
            windows.read_epoch([name], day)
    elif name != "caption":
        with pytest.raises(HephaestusError, match="repair"):
            windows.read_table(name)


def test_a_sparse_file_of_terabytes_is_not_read(store):
    shard = next((store / "insar_coherence").glob("c.*"))
    with shard.open("r+b") as stream:
        stream.truncate(1 << 40)
    with pytest.raises(HephaestusError, match="bytes"):
        _ = open_pinned_cube(store, chunks=None).insar_coherence.values


def test_a_cube_without_consolidated_metadata_opens_too(tmp_path):
    """Other programs write such cubes; it is no published cube, and the schema check reports that."""
    dims = ("primary_date", "secondary_date", "latitude", "longitude")
    there = xr.Dataset({"insar_difference": (dims, np.ones((2, 3, 4, 5), "f4"))}, attrs={"frame": FRAME})
    there.to_zarr(tmp_path / "other.zarr", zarr_format=3, consolidated=False)
    assert open_pinned_cube(tmp_path / "other.zarr", chunks=None, consolidated=False).equals(there)
    assert "consolidated" in str(check_schema(tmp_path / "other.zarr")[0])


# mutated records


@pytest.fixture(scope="module")
def fuzzed(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("fuzzed")
    toy_cube(folder / "cubes")
    return folder


@pytest.fixture(scope="module")
def reader(fuzzed):
    environment = {"FUZZ_CUBE": str(fuzzed), "FUZZ_FRAME": FRAME}
    with Reader("cube_readers:read", errors=(), seconds=60, environment=environment) as found:
        yield found


@pytest.mark.parametrize(
    "kind",
    [
        "provenance.json",
        "manifest.json",
        "broken.manifest.json",
        "zarr.json",
        "upstream.json",
        "lock.json",
        "staging~ledger.jsonl",
        "summary.json",
        "runs.jsonl",
    ],
)
def test_no_mutated_record_escapes(reader, fuzzed, tmp_path, kind):
    store = FrameStore(fuzzed / "cubes", Frame(FRAME)).published_generation().store
    record, manifest = (store / PROVENANCE).read_bytes(), (store / MANIFEST).read_bytes()
    units = json.loads(record)["units"]
    summary = encode_json(summarize_generation(Generation.from_path(store)))
    samples = {
        "provenance.json": record,
        "manifest.json": encode_json(decode_manifest(manifest)),
        "broken.manifest.json": manifest,
        "zarr.json": (store / "zarr.json").read_bytes(),
        "upstream.json": b'{"checked":"2026","changed":{"pair/20190101_20190113":"x"},"gone":["y"]}',
        "lock.json": b'{"pid":1,"host":"a","since":"2026"}',
        "staging~ledger.jsonl": b"\n".join(json.dumps(unit).encode() for unit in units),
        "summary.json": summary,
        "runs.jsonl": json.dumps({"frame": FRAME, "began": "2026", "error": "x"}).encode() * 3,
    }
    counts = fuzz(reader, [samples[kind]], tmp_path, suffix=f".{kind}", least=10)
    assert counts["read"] >= 10
    assert os.listdir(store.parent)  # noqa: PTH208 (the cube is still there)
