"""Tests of the metadata and tables of a cube's store: they are those that zarr-python writes."""

import json

import numpy as np
import pytest
import zarr
from zarr.codecs import BloscCodec, VLenUTF8Codec, ZstdCodec
from zarr.storage import MemoryStore

import toy_cube
from checkout import ROOT
from cube_editions import inventory_of
from hephaestus_build.cube.key_spaces import KEY_SPACES
from hephaestus_build.cube.schema import Variable, cube_schema
from hephaestus_build.cube.storage.writer import encode_metadata
from hephaestus_build.cube.zarr_json import make_array_metadata, make_scalar_metadata

SCHEMA_FILE = ROOT / "schemas" / "cube.json"
SIZES = {"latitude": 9, "longitude": 11, "primary_date": 3, "secondary_date": 3, "epoch": 3, "pair": 4}
SCHEMA = cube_schema()
ITEMS = {
    **SCHEMA.coordinates,
    **SCHEMA.variables,
    **{name: item for group in SCHEMA.groups.values() for name, item in group.items.items()},
}


def create_with_zarr(store, item, shape, space) -> None:
    options = {}
    if item.dtype == "string":
        options = {"serializer": VLenUTF8Codec(), "compressors": ZstdCodec(level=0)}
    elif isinstance(item, Variable) and item.codec is not None:
        codec = json.loads((SCHEMA_FILE).read_text())["codecs"][item.codec]
        blosc = BloscCodec(**codec, typesize=np.dtype(item.dtype).itemsize)
        options = {"filters": None, "compressors": blosc}
    zarr.create_array(
        store,
        name=item.name,
        shape=shape,
        dtype=item.dtype,
        chunks=item.chunk_shape(shape),
        chunk_key_encoding={"name": space.name, "separator": space.separator},
        fill_value=item.fill,
        dimension_names=item.dims,
        attributes=item.attributes,
        **options,
    )


@pytest.mark.parametrize("space", KEY_SPACES)
@pytest.mark.parametrize("name", ITEMS)
def test_the_metadata_of_an_array_is_that_of_zarr(name, space):
    item, stored = ITEMS[name], {}
    shape = tuple(SIZES.get(dim, 5) for dim in item.dims)
    create_with_zarr(MemoryStore(stored), item, shape, space)
    made = make_array_metadata(item, shape, space, item.attributes)
    assert made == json.loads(stored[f"{name}/zarr.json"].to_bytes())
    assert type(made["fill_value"]) is type(json.loads(stored[f"{name}/zarr.json"].to_bytes())["fill_value"])


def test_the_metadata_of_a_scalar_is_that_of_zarr():
    stored = {}
    zarr.create_array(
        MemoryStore(stored),
        shape=(),
        chunks=(),
        dtype="int64",
        chunk_key_encoding={"name": "default", "separator": "."},
        attributes={"a": 1},
    )
    assert make_scalar_metadata({"a": 1}) == json.loads(stored["zarr.json"].to_bytes())


def test_zarr_reads_every_table_and_consolidated_metadata():
    name = toy_cube.PAIRS[0]
    days = name.split("_")
    every = {"dem/dem": 0, f"pair/{name}": 1, f"mask/{name}": 1, **{f"epoch/{day}": 0 for day in days}}
    encoded = encode_metadata(inventory_of(every))
    buffers = {key: zarr.core.buffer.cpu.Buffer.from_bytes(value) for key, value in encoded.items()}
    group = zarr.open_consolidated(MemoryStore(buffers))
    assert sorted(dict(group.groups())) == ["overview", "pairs"]
    assert group["annotated"][...].tolist() == [[False, True], [False, False]]
    assert group["confidence"][0, 1] == np.float32(toy_cube.annotation(name)["confidence"])
    assert group["caption"][0, 1] == toy_cube.annotation(name)["caption"]
    assert np.isnan(group["valid_fraction"][1, 1])
    assert group["pairs/stored"][...].tolist() == [True]
    for key in encoded:
        if key.endswith("zarr.json") and "/" in key:
            path = key.removesuffix("/zarr.json")
            own = json.loads(encoded[key])
            own.pop("consolidated_metadata", None)
            assert json.loads(encoded["zarr.json"])["consolidated_metadata"]["metadata"][path] in (
                own,
                json.loads(encoded[key]),
            )
