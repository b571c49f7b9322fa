"""Metadata of a cube's arrays and groups, as in the ``zarr.json`` files of Zarr v3.

The tests compare it with what zarr-python writes. Creating the arrays through zarr-python takes most of the
time of publishing a small cube, since each array goes through its event loop.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from hephaestus_build.core.registry import load_schema
from hephaestus_build.cube.key_spaces import KEY_SPACES, KeySpace
from hephaestus_build.cube.schema import Coordinate, Variable

_ZSTD = {"name": "zstd", "configuration": {"level": 0, "checksum": False}}


def make_array_metadata(
    item: Variable | Coordinate, shape: Sequence[int], space: KeySpace, attributes: Mapping[str, Any]
) -> dict[str, Any]:
    """Return the metadata of an array of the schema.

    Parameters
    ----------
    item : Variable or Coordinate
        Entry of the schema.
    shape : sequence of int
        Shape of the array.
    space : KeySpace
        Key space of its chunks.
    attributes : mapping
        Attributes of the array, JSON values.
    """
    return _array(
        shape,
        item.dtype,
        item.chunk_shape(shape),
        space,
        item.fill,
        list(make_codecs(item)),
        attributes,
        dimension_names=list(item.dims),
    )


def make_scalar_metadata(attributes: Mapping[str, Any]) -> dict[str, Any]:
    """Return the metadata of a grid mapping, whose only value is the fill value and never stored."""
    return _array((), "int64", (), KEY_SPACES[0], 0, [_bytes("int64"), _ZSTD], attributes)


def make_group_metadata(attributes: Mapping[str, Any]) -> dict[str, Any]:
    """Return the metadata of a group, without that of its arrays."""
    return {"attributes": dict(attributes), "zarr_format": 3, "node_type": "group"}


def _array(
    shape: Sequence[int],
    dtype: str,
    chunk: Sequence[int],
    space: KeySpace,
    fill: Any,
    codecs: list[dict[str, Any]],
    attributes: Mapping[str, Any],
    **names: list[str],
) -> dict[str, Any]:
    return {
        "shape": list(shape),
        "data_type": dtype,
        "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": list(chunk)}},
        "chunk_key_encoding": space.to_metadata(),
        "fill_value": _fill(fill, dtype),
        "codecs": codecs,
        "attributes": dict(attributes),
        **names,
        "zarr_format": 3,
        "node_type": "array",
        "storage_transformers": [],
    }


def make_codecs(item: Variable | Coordinate) -> list[dict[str, Any]]:
    """Return the codecs of an array, as its metadata lists them."""
    if item.dtype == "string":
        return [{"name": "vlen-utf8", "configuration": {}}, _ZSTD]
    if not isinstance(item, Variable) or item.codec is None:
        return [_bytes(item.dtype), _ZSTD]
    codec = load_schema("cube.json")["codecs"][item.codec]
    settings = {name: codec[name] for name in ("cname", "clevel", "shuffle", "blocksize")}
    blosc = {"typesize": np.dtype(item.dtype).itemsize, **settings}
    return [_bytes(item.dtype), {"name": "blosc", "configuration": blosc}]


def _bytes(dtype: str) -> dict[str, Any]:
    """Return the serializer; dtypes of one byte have no byte order."""
    order = {} if np.dtype(dtype).itemsize == 1 else {"configuration": {"endian": "little"}}
    return {"name": "bytes", **order}


def _fill(value: Any, dtype: str) -> Any:
    """Return a fill value as metadata states it: numbers of the dtype's kind, and NaN as text."""
    if isinstance(value, float) and np.isnan(value):
        return "NaN"
    return float(value) if dtype.startswith("float") else value
