"""Validation of a store's ``zarr.json`` before any array is read.

A cube may come from an untrusted source. zarr-python instantiates the codecs and dtypes that the metadata
names and allocates memory for any shape. This module therefore rejects everything that a cube never contains:
other codecs and dtypes, names that lead out of the store, and dimensions larger than those of any frame.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hephaestus_build.core.parsing import parse_json
from hephaestus_build.core.plain_files import is_plain_file, list_names, read_plain_file
from hephaestus_build.cube.inventory import MAX_GRID_PIXELS, MAX_TABLE_CELLS
from hephaestus_build.cube.key_spaces import KeySpace

#: Maximum size of a ``zarr.json`` in bytes and maximum number of arrays; this version writes 150,000 and 75.
MAX_METADATA_BYTES, _MAX_ARRAYS = 8 << 20, 500
#: Maximum size of a table: 12,800 texts of 10,000 characters of four bytes, as the group `pairs` holds them.
_MAX_TABLE_BYTES = 512 << 20
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,99}(?:/[A-Za-z][A-Za-z0-9_]{0,99})?")
#: Size of a value in bytes by dtype; 0 for strings, whose size varies.
ITEMSIZES = {
    "bool": 1,
    **{f"{kind}{8 * size}": size for kind in ("int", "uint") for size in (1, 2, 4, 8)},
    "float32": 4,
    "float64": 8,
    "string": 0,
}
_FILTERS = ("numcodecs.fixedscaleoffset", "numcodecs.delta")
COMPRESSORS = ("blosc", "zstd")
_DTYPE = re.compile(r"[<>|]?[iuf][1248]")


@dataclass(frozen=True)
class StoreMetadata:
    """The content of a store's ``zarr.json``.

    Attributes
    ----------
    is_consolidated : bool
        Whether it contains the metadata of the arrays too, as in every published cube.
    attributes : mapping
        Attributes of the root group.
    arrays : mapping of str to mapping
        Metadata of each array by path, as in the Zarr v3 specification: the array's name, after that of its
        group and a slash in groups.
    groups : mapping of str to mapping
        Attributes of each group beside the root's arrays, by name.
    """

    is_consolidated: bool
    attributes: Mapping[str, Any]
    arrays: Mapping[str, Mapping[str, Any]]
    groups: Mapping[str, Mapping[str, Any]]


def read_store_metadata(store: Path) -> StoreMetadata:
    """Return the validated metadata of a store.

    Raises
    ------
    ValueError
        If it is not valid Zarr v3 metadata of a cube.
    OSError
        If the file cannot be read.
    """
    value = _read(store, "zarr.json")
    consolidated = value.get("consolidated_metadata")
    if consolidated is None:
        nodes: Any = _read_nodes(store)
    else:
        nodes = consolidated.get("metadata") if isinstance(consolidated, dict) else None
    if not isinstance(nodes, dict) or (attributes := _group_attributes(value)) is None:
        raise ValueError("zarr.json is not the Zarr v3 metadata of a group")
    if len(nodes) > _MAX_ARRAYS:
        raise ValueError(f"zarr.json describes {len(nodes)} arrays")
    arrays: dict[str, Any] = {}
    groups: dict[str, Any] = {}
    for name, node in nodes.items():
        if not _NAME.fullmatch(name):
            raise ValueError(f"zarr.json describes {name[:100]!r}, which is not a valid name of an array")
        if "/" not in name and isinstance(node, dict) and node.get("node_type") == "group":
            if (inside := _group_attributes(node)) is None:
                raise ValueError(f"the metadata of {name} is not valid group metadata")
            groups[name] = inside
            continue
        arrays[name] = node
        try:
            _check_array(node)
        except (TypeError, KeyError, AttributeError, IndexError):
            raise ValueError(f"the metadata of {name} is not valid array metadata") from None
        except ValueError as error:
            raise ValueError(f"the metadata of {name}: {error}") from None
    return StoreMetadata(consolidated is not None, attributes, arrays, groups)


def _group_attributes(value: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """Return the attributes of a group's metadata; None where it is not that."""
    attributes = value.get("attributes", {})
    return attributes if isinstance(attributes, dict) and value.get("zarr_format") == 3 else None


def _read(store: Path, name: str) -> dict[str, Any]:
    value = parse_json(read_plain_file(store, name, MAX_METADATA_BYTES), limit=MAX_METADATA_BYTES)
    if not isinstance(value, dict):
        raise ValueError(f"{name} is not a JSON object")
    return value


def _read_nodes(store: Path) -> dict[str, Any]:
    """Return the own metadata of arrays and groups, for a store whose metadata is not consolidated."""
    nodes: dict[str, Any] = {}
    pending = list_names(store)
    while pending and len(nodes) <= _MAX_ARRAYS:
        name = pending.pop(0)
        if is_plain_file(store, f"{name}/zarr.json"):
            nodes[name] = _read(store, f"{name}/zarr.json")
            if "/" not in name and nodes[name].get("node_type") == "group":
                pending += [f"{name}/{inside}" for inside in list_names(store / name)]
    return nodes


def _check_array(array: Mapping[str, Any]) -> None:
    """Raise ValueError if no cube has an array with this metadata.

    TypeError, KeyError, AttributeError and IndexError are raised for values of the wrong type; the caller
    handles them.
    """
    if array["node_type"] != "array" or array["zarr_format"] != 3 or array.get("storage_transformers"):
        raise ValueError("it is not a Zarr v3 array")
    if array["data_type"] not in ITEMSIZES:
        raise ValueError(f"its dtype is {str(array['data_type'])[:100]!r}")
    if not isinstance(array.get("attributes", {}), dict):
        raise ValueError("its attributes are not a mapping")
    names = array.get("dimension_names") or []
    shape, chunk = (
        parse_sizes(array["shape"]),
        parse_sizes(array["chunk_grid"]["configuration"]["chunk_shape"]),
    )
    if array["chunk_grid"]["name"] != "regular" or len(shape) != len(chunk) or 0 in chunk:
        raise ValueError("its chunk grid is not regular")
    if not isinstance(names, list) or len(names) != len(shape) or not all(isinstance(n, str) for n in names):
        raise ValueError("its dimensions have no names")
    image = names[-2:] in (["latitude", "longitude"], ["y", "x"])
    planes, plane = (shape[:-2], shape[-2:]) if image else ([], shape)
    if len(shape) > 4 or max(shape, default=0) > 1_000_000 or math.prod(planes) > MAX_TABLE_CELLS:
        raise ValueError(f"its shape is {shape}")
    size = math.prod(plane) * max(1, ITEMSIZES[array["data_type"]])
    if math.prod(plane) > MAX_GRID_PIXELS if image else size > _MAX_TABLE_BYTES:
        raise ValueError(f"its shape is {shape}")
    if math.prod(chunk) > (MAX_GRID_PIXELS if image else MAX_TABLE_CELLS):
        raise ValueError(f"its chunks are {chunk}")
    _check_codecs(array["codecs"], chunk, text=array["data_type"] == "string")
    KeySpace.from_metadata(array)


def parse_sizes(value: Any) -> list[int]:
    """Return `value` if it is a list of non-negative integers, else raise ValueError."""
    if not isinstance(value, list) or not all(type(item) is int and item >= 0 for item in value):
        raise ValueError(f"{str(value)[:100]} is not a list of sizes")
    return value


def _check_codecs(codecs: Any, chunk: Sequence[int], *, text: bool, depth: int = 0) -> None:
    """Check a chain of codecs: filters, a serializer, and at most one compressor; or up to two shardings."""
    names = [codec["name"] for codec in codecs]
    if names == ["sharding_indexed"] and depth < 2 and not text:
        sharding = codecs[0]["configuration"]
        inner = parse_sizes(sharding["chunk_shape"])
        index = [codec["name"] for codec in sharding["index_codecs"]]
        if index != ["bytes", "crc32c"] or sharding.get("index_location", "end") != "end":
            raise ValueError("the encoding of its shard index is not supported")
        if len(inner) != len(chunk) or 0 in inner or any(a % b for a, b in zip(chunk, inner, strict=True)):
            raise ValueError(f"its shards of {chunk} hold chunks of {inner}")
        _check_codecs(sharding["codecs"], inner, text=text, depth=depth + 1)
        return
    filters = [codec for codec in codecs if codec["name"] in _FILTERS]
    for codec in filters:
        for name in ("dtype", "astype"):
            if not _DTYPE.fullmatch(codec["configuration"].get(name, "<i4")):
                raise ValueError(f"its codec {codec['name']} has a dtype that is not numeric")
    rest = names[len(filters) :]
    serializer = "vlen-utf8" if text else "bytes"
    if rest[:1] != [serializer] or len(rest) > 2 or not set(rest[1:]) <= set(COMPRESSORS):
        raise ValueError(f"its codecs are {', '.join(map(str, names))[:200]}")
