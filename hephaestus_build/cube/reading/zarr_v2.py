"""Opening of a cube in Zarr format 2: the published data set, exports, and what others have written.

Such a store is not trusted. zarr-python would follow links, run the decoder that a filter names (pickle among
them) and allocate whatever the metadata and the headers of chunks state; here only plain files of the
declared decoded size reach it, with codecs that decode numbers and texts.
"""

from __future__ import annotations

import math
import os
import re
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from hephaestus_build.core.errors import HephaestusError
from hephaestus_build.core.parsing import parse_json
from hephaestus_build.core.plain_files import FileIdentity, is_plain_file, list_names, read_plain_file
from hephaestus_build.core.plain_text import sanitize_text
from hephaestus_build.cube.codecs.decoded_size import MAX_TEXT_BYTES, blosc_size, zstd_size
from hephaestus_build.cube.inventory import MAX_GRID_PIXELS, MAX_TABLE_CELLS
from hephaestus_build.cube.reading.plain_store import PlainStore
from hephaestus_build.cube.reading.store_metadata import MAX_METADATA_BYTES, parse_sizes

_MAX_ARRAYS = 500
#: Decoded size of the largest chunk that is read, bytes: sixteen images of the largest published frame.
MAX_CHUNK_BYTES = 1 << 30
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,99}")
_METADATA_NAMES = (".zgroup", ".zattrs", ".zmetadata", ".zarray")
_FILTERS = ("vlen-utf8", "fixedscaleoffset", "delta", "shuffle")
_COMPRESSORS = ("blosc", "zstd", "zlib", "gzip")
_HEAD = 18  # bytes of a chunk that contain its decoded size


def open_zarr_v2(path: Path) -> xr.Dataset:
    """Open a cube in Zarr format 2, read-only and lazily.

    Parameters
    ----------
    path : pathlib.Path
        Folder of the group.

    Returns
    -------
    xarray.Dataset
        Its variables without dask, so that each selection reads what it needs; ``encoding["source"]`` names
        the folder.

    Raises
    ------
    HephaestusError
        If it is no such store, or is damaged. Also raised later, while values are read.
    """
    try:
        store = _PlainStoreV2(path.resolve(), read_metadata_v2(path.resolve()))
        dataset = xr.open_zarr(store, zarr_format=2, consolidated=False, chunks=None)
    except HephaestusError:
        raise
    except Exception as error:  # zarr and xarray raise many types for invalid metadata
        raise HephaestusError(
            f"{path} cannot be opened as a cube in Zarr format 2 ({sanitize_text(error, 200)}); "
            f"see that it was copied or unpacked whole"
        ) from error
    dataset.encoding["source"] = str(path)
    return dataset


def is_zarr_v2(path: Path) -> bool:
    """Return whether a folder is a group in Zarr format 2."""
    return is_plain_file(path, ".zgroup") or is_plain_file(path, ".zmetadata")


def read_metadata_v2(store: Path) -> dict[str, Mapping[str, Any]]:
    """Return the validated ``.zarray`` of each array of a group.

    Raises
    ------
    ValueError
        If it is not the metadata of a cube's arrays.
    OSError
        If a file cannot be read.
    """
    if is_plain_file(store, ".zmetadata"):
        value = parse_json(read_plain_file(store, ".zmetadata", MAX_METADATA_BYTES), limit=MAX_METADATA_BYTES)
        nodes = value.get("metadata") if isinstance(value, dict) else None
        if not isinstance(nodes, dict):
            raise ValueError(".zmetadata has no metadata")
        names = [key.removesuffix("/.zarray") for key in nodes if key.endswith("/.zarray")]
    else:
        names = [name for name in list_names(store) if is_plain_file(store, f"{name}/.zarray")]
    if len(names) > _MAX_ARRAYS:
        raise ValueError(f"it has {len(names)} arrays")
    arrays: dict[str, Mapping[str, Any]] = {}
    for name in names:
        if not _NAME.fullmatch(name):
            raise ValueError(f"{name[:100]!r} is not a valid name of an array")
        # of the array itself, which is what is read: a consolidated copy may differ
        content = read_plain_file(store, f"{name}/.zarray", MAX_METADATA_BYTES)
        try:
            arrays[name] = _check_array(parse_json(content))
        except (TypeError, KeyError, AttributeError, IndexError):
            raise ValueError(f"the metadata of {name} is not valid array metadata") from None
        except ValueError as error:
            raise ValueError(f"the metadata of {name}: {error}") from None
    return arrays


def _check_array(array: Any) -> Mapping[str, Any]:
    """Return the metadata of an array, with the size of a value in bytes, if a cube may have such an array.

    Raises
    ------
    ValueError
        If not. TypeError, KeyError, AttributeError and IndexError are raised for values of the wrong type.
    """
    if array["zarr_format"] != 2:
        raise ValueError("it is not a Zarr v2 array")
    shape, chunk = parse_sizes(array["shape"]), parse_sizes(array["chunks"])
    if len(shape) != len(chunk) or 0 in chunk or len(shape) > 4 or max(shape, default=0) > 1_000_000:
        raise ValueError(f"its shape is {shape} in chunks of {chunk}")
    filters = [codec["id"] for codec in array.get("filters") or []]
    compressor = array.get("compressor")
    if not set(filters) <= set(_FILTERS) or (compressor and compressor["id"] not in _COMPRESSORS):
        named = [*filters, *([compressor["id"]] if compressor else [])]
        raise ValueError(f"its codecs are {', '.join(map(str, named))[:200]}, which are not read")
    text = array["dtype"] == "|O"
    if text and filters != ["vlen-utf8"]:
        raise ValueError("its values are Python objects")
    kind = np.dtype(array["dtype"])
    if not text and (kind.kind not in "biufMmUS" or kind.hasobject):
        raise ValueError(f"its dtype is {str(array['dtype'])[:100]}")
    if math.prod(shape[-2:]) > max(MAX_GRID_PIXELS, 16 * MAX_TABLE_CELLS):
        raise ValueError(f"its shape is {shape}")
    stored = np.dtype(_stored_dtype(array, filters)) if not text else kind
    size = 0 if text else stored.itemsize
    if math.prod(chunk) * max(size, kind.itemsize) > MAX_CHUNK_BYTES:
        raise ValueError(f"its chunks of {chunk} take more than {MAX_CHUNK_BYTES >> 20} MiB")
    return {**array, "stored_itemsize": size}


def _stored_dtype(array: Mapping[str, Any], filters: list[str]) -> Any:
    """Return the dtype of the values that are compressed, after the filters."""
    dtype = array["dtype"]
    for name, codec in zip(filters, array.get("filters") or [], strict=True):
        if name in ("fixedscaleoffset", "delta"):
            dtype = codec.get("astype") or codec["dtype"]
            if np.dtype(dtype).kind not in "iuf" or np.dtype(codec["dtype"]).kind not in "iuf":
                raise ValueError(f"its codec {name} has a dtype that is not numeric")
    return dtype


class _PlainStoreV2(PlainStore):
    """A store in Zarr format 2 whose chunks decode to their declared size."""

    advice = "copy or unpack it again"

    def _check(self, key: str, descriptor: int, facts: FileIdentity) -> None:
        if key in self._size_checked:
            return
        name, _, rest = key.partition("/")
        if key in _METADATA_NAMES or (name in self.arrays and rest in _METADATA_NAMES):
            if facts.size > MAX_METADATA_BYTES:
                raise ValueError(f"it has {facts.size} bytes")
        elif name not in self.arrays:
            raise ValueError("the metadata describes no such array")
        else:
            _check_chunk(descriptor, facts.size, self.arrays[name])
        self._size_checked.add(key)


def _check_chunk(descriptor: int, size: int, array: Mapping[str, Any]) -> None:
    """Raise ValueError if a chunk does not decode to the size that its array declares."""
    expected = math.prod(array["chunks"]) * array["stored_itemsize"]
    allowed = expected or MAX_TEXT_BYTES
    if size > 2 * allowed + (1 << 20):
        raise ValueError(f"it has {size} bytes")
    compressor = array.get("compressor")
    head = os.pread(descriptor, min(size, _HEAD), 0)
    match compressor["id"] if compressor else None:
        case "blosc":
            decoded = blosc_size(head, size)
        case "zstd":
            decoded = zstd_size(head)
        case "zlib" | "gzip":
            decoded = _inflated_size(descriptor, size, allowed)
        case _:
            decoded = size
    if decoded > allowed or (expected and decoded != expected):
        raise ValueError(f"it would decode to {decoded} bytes; {allowed} are allowed")


def _inflated_size(descriptor: int, size: int, allowed: int) -> int:
    """Return the decoded size of a zlib or gzip stream, or more than is allowed if it exceeds that."""
    decoder, decoded, offset = zlib.decompressobj(wbits=47), 0, 0
    while offset < size and decoded <= allowed:
        part = os.pread(descriptor, 1 << 20, offset)
        if not part:
            break
        offset += len(part)
        try:
            while part and decoded <= allowed:
                decoded += len(decoder.decompress(part, 1 << 22))
                part = decoder.unconsumed_tail
        except zlib.error as error:
            raise ValueError(f"it cannot be decoded ({error})") from None
    if decoded <= allowed and not decoder.eof:
        raise ValueError("it is truncated")
    return decoded
