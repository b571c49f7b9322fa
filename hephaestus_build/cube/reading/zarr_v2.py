"""Opening of a cube in Zarr format 2: the published data set, exports, and what others have written.

Such a store is not trusted. zarr-python would follow links, run the decoder that a filter names (pickle among
them) and allocate whatever the metadata and the headers of chunks state; here only plain files of the
declared decoded size reach it, with codecs that decode numbers and texts.
"""

from __future__ import annotations

import asyncio
import math
import os
import re
import threading
import zlib
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import xarray as xr
from blake3 import blake3
from zarr.abc.store import ByteRequest

from hephaestus_build.core.errors import HephaestusError
from hephaestus_build.core.parsing import parse_json
from hephaestus_build.core.plain_files import UnsafePathError, is_plain_file
from hephaestus_build.core.plain_text import sanitize_text
from hephaestus_build.cube.codecs.decoded_size import MAX_TEXT_BYTES, blosc_size, zstd_size
from hephaestus_build.cube.inventory import MAX_GRID_PIXELS, MAX_TABLE_CELLS
from hephaestus_build.cube.reading.plain_store import PlainStore, byte_range
from hephaestus_build.cube.reading.store_metadata import MAX_METADATA_BYTES, parse_sizes
from hephaestus_build.cube.reading.store_objects import (
    FolderObjects,
    StoreObjects,
    has_object,
    read_object,
    read_range,
)

_MAX_ARRAYS = 500
#: Decoded size of the largest chunk that is read, bytes: sixteen images of the largest published frame.
_MAX_CHUNK_BYTES = 1 << 30
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,99}")
_METADATA_NAMES = (".zgroup", ".zattrs", ".zmetadata", ".zarray")
_FILTERS = ("vlen-utf8", "fixedscaleoffset", "delta", "shuffle")
_COMPRESSORS = ("blosc", "zstd", "zlib", "gzip")
#: Hashes of chunks that are kept: those of the images that are read at a time, and some more.
_MAX_DIGESTS = 1 << 17
_HEAD = 18  # bytes of a chunk that contain its decoded size


class ChunkDigest(NamedTuple):
    """BLAKE3 hash, in hexadecimal, and size in bytes of a stored chunk."""

    value: str
    size: int


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
    dataset, _ = open_store_v2(FolderObjects(path.resolve()))
    dataset.encoding["source"] = str(path)
    return dataset


def open_store_v2(objects: StoreObjects, *, keep_digests: bool = False) -> tuple[xr.Dataset, StoreV2]:
    """Open a cube whose objects lie in a folder or elsewhere, and return it with its store.

    Parameters
    ----------
    objects : StoreObjects
        Its objects.
    keep_digests : bool
        Whether the store keeps the hash of each chunk that is read; see :meth:`StoreV2.find_digests`.

    Raises
    ------
    HephaestusError
        As :func:`open_zarr_v2`.
    """
    try:
        store = StoreV2(objects, read_metadata_v2(objects), keep_digests=keep_digests)
        return xr.open_zarr(store, zarr_format=2, consolidated=False, chunks=None), store
    except HephaestusError:
        raise
    except Exception as error:  # zarr and xarray raise many types for invalid metadata
        raise HephaestusError(
            f"{objects.path} cannot be opened as a cube in Zarr format 2 ({sanitize_text(error, 200)}); "
            f"see that it was copied or unpacked whole"
        ) from error


def is_zarr_v2(path: Path) -> bool:
    """Return whether a folder is a group in Zarr format 2."""
    return is_plain_file(path, ".zgroup") or is_plain_file(path, ".zmetadata")


def read_metadata_v2(objects: StoreObjects) -> dict[str, Mapping[str, Any]]:
    """Return the validated ``.zarray`` of each array of a group.

    Raises
    ------
    ValueError
        If it is not the metadata of a cube's arrays.
    OSError
        If a file cannot be read.
    """
    if has_object(objects, ".zmetadata"):
        content = read_object(objects, ".zmetadata", MAX_METADATA_BYTES)
        value = parse_json(content, limit=MAX_METADATA_BYTES)
        nodes = value.get("metadata") if isinstance(value, dict) else None
        if not isinstance(nodes, dict):
            raise ValueError(".zmetadata has no metadata")
        names = [key.removesuffix("/.zarray") for key in nodes if key.endswith("/.zarray")]
    else:
        names = [name for name in objects.list_names() if has_object(objects, f"{name}/.zarray")]
    if len(names) > _MAX_ARRAYS:
        raise ValueError(f"it has {len(names)} arrays")
    arrays: dict[str, Mapping[str, Any]] = {}
    for name in names:
        if not _NAME.fullmatch(name):
            raise ValueError(f"{name[:100]!r} is not a valid name of an array")
        # of the array itself, which is what is read: a consolidated copy may differ
        content = read_object(objects, f"{name}/.zarray", MAX_METADATA_BYTES)
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
    if math.prod(chunk) * max(size, kind.itemsize) > _MAX_CHUNK_BYTES:
        raise ValueError(f"its chunks of {chunk} take more than {_MAX_CHUNK_BYTES >> 20} MiB")
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


class StoreV2(PlainStore):
    """A read-only store in Zarr format 2, whose chunks decode to their declared size.

    Parameters
    ----------
    objects : StoreObjects
        Its objects.
    arrays : mapping
        Metadata of the arrays by name, from :func:`read_metadata_v2`. Other arrays are not read.
    keep_digests : bool
        Whether to keep the hash of each chunk that is read.
    """

    def __init__(
        self, objects: StoreObjects, arrays: Mapping[str, Mapping[str, Any]], *, keep_digests: bool = False
    ) -> None:
        super().__init__(objects.path, arrays)
        self.objects, self._keep_digests = objects, keep_digests
        self._digests: dict[str, ChunkDigest] = {}
        self._digest_lock = threading.Lock()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, StoreV2) and self.objects == other.objects

    def __hash__(self) -> int:
        return hash(self.root)

    def __reduce__(self) -> Any:
        return StoreV2, (self.objects, self.arrays)

    def read(self, key: str, wanted: ByteRequest | None = None) -> bytes | None:
        """Return an object or a range of its bytes, or None if the object is not stored.

        Raises
        ------
        HephaestusError
            If the object is damaged, or would decode to another size than its array declares.
        """
        try:
            with self.objects.open(key) as (descriptor, first, size):
                self._check_object(key, descriptor, first, size)
                begin, end = byte_range(wanted, size)
                content = read_range(descriptor, first + begin, first + end)
        except (FileNotFoundError, NotADirectoryError):
            # else everything in it would be taken for chunks that were never written
            if not self.objects.is_there():
                raise HephaestusError(f"{self.root} is gone while it is read; see that it is there") from None
            return None
        except (UnsafePathError, ValueError) as error:
            reason = error.strerror if isinstance(error, OSError) else error
            raise HephaestusError(
                f"{key} of the cube in {self.root} is damaged ({reason}); copy or unpack it again"
            ) from error
        if self._keep_digests and wanted is None and not key.endswith(_METADATA_NAMES):
            self._keep_digest(key, ChunkDigest(blake3(content).hexdigest(), len(content)))
        return content

    def find_digests(self, name: str, place: Sequence[int]) -> list[ChunkDigest]:
        """Return the hashes of the chunks of an image that has just been read, in order.

        Parameters
        ----------
        name : str
            Name of the array.
        place : sequence of int
            Position of the image on the leading dimensions.
        """
        with self._digest_lock:
            found = map(self._digests.get, self.iter_chunk_keys(name, place))
            return [digest for digest in found if digest is not None]

    def _keep_digest(self, key: str, digest: ChunkDigest) -> None:
        with self._digest_lock:
            self._digests.pop(key, None)
            self._digests[key] = digest
            if len(self._digests) > _MAX_DIGESTS:
                del self._digests[next(iter(self._digests))]

    def iter_chunk_keys(self, name: str, place: Sequence[int]) -> Iterator[str]:
        """Yield the keys of the chunks that hold an image, in order; see :meth:`find_digests`."""
        array = self.arrays[name]
        shape, chunk = array["shape"], array["chunks"]
        ranges = [range(index // step, index // step + 1) for index, step in zip(place, chunk, strict=False)]
        ranges += [
            range(-(-size // step))
            for size, step in zip(shape[len(place) :], chunk[len(place) :], strict=True)
        ]
        separator = "/" if array.get("dimension_separator") == "/" else "."
        for index in product(*ranges):
            yield f"{name}/{separator.join(map(str, index)) or '0'}"

    async def exists(self, key: str) -> bool:
        """Return whether the object is stored as a plain file."""
        return await asyncio.to_thread(has_object, self.objects, key)

    async def list(self) -> AsyncIterator[str]:
        """Yield the keys of the metadata; a group is not searched for chunks."""
        for name in self.arrays:
            yield f"{name}/.zarray"

    async def list_dir(self, prefix: str) -> AsyncIterator[str]:
        """Yield the names of a folder's direct entries; of the root, those of the arrays."""
        names = self.objects.list_names(prefix) if prefix else [*self.arrays, *_METADATA_NAMES]
        for name in names:
            yield name

    def _check_object(self, key: str, descriptor: int, first: int, size: int) -> None:
        if key in self._size_checked:
            return
        name, _, rest = key.partition("/")
        if key in _METADATA_NAMES or (name in self.arrays and rest in _METADATA_NAMES):
            if size > MAX_METADATA_BYTES:
                raise ValueError(f"it has {size} bytes")
        elif name not in self.arrays:
            raise ValueError("the metadata describes no such array")
        else:
            _check_chunk(descriptor, first, size, self.arrays[name])
        if not self._keep_digests:  # else each is read once
            self._size_checked.add(key)


def _check_chunk(descriptor: int, first: int, size: int, array: Mapping[str, Any]) -> None:
    """Raise ValueError if a chunk does not decode to the size that its array declares."""
    expected = math.prod(array["chunks"]) * array["stored_itemsize"]
    allowed = expected or MAX_TEXT_BYTES
    if size > 2 * allowed + (1 << 20):
        raise ValueError(f"it has {size} bytes")
    compressor = array.get("compressor")
    head = os.pread(descriptor, min(size, _HEAD), first)
    match compressor["id"] if compressor else None:
        case "blosc":
            decoded = blosc_size(head, size)
        case "zstd":
            decoded = zstd_size(head)
        case "zlib" | "gzip":
            decoded = _inflated_size(descriptor, first, size, allowed)
        case _:
            decoded = size
    if decoded > allowed or (expected and decoded != expected):
        raise ValueError(f"it would decode to {decoded} bytes; {allowed} are allowed")


def _inflated_size(descriptor: int, first: int, size: int, allowed: int) -> int:
    """Return the decoded size of a zlib or gzip stream, or more than is allowed if it exceeds that."""
    decoder, decoded, offset = zlib.decompressobj(wbits=47), 0, 0
    while offset < size and decoded <= allowed:
        part = os.pread(descriptor, min(1 << 20, size - offset), first + offset)
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
