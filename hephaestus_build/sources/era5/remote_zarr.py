"""A Zarr store behind plain HTTP: its metadata, checked, and single chunks of it within the size they say.

The store is a stranger's: its metadata may name a codec that runs code, or any shape, and a chunk may unpack
to any size. So only arrays of plain numbers are read, packed by the few codecs that stores of ERA5 use, and
each chunk is unpacked into memory whose size is known before.
"""

from __future__ import annotations

import math
import re
import struct
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import google_crc32c
import numpy as np

from hephaestus_build.core.parsing import parse_json
from hephaestus_build.core.plain_text import plain_text
from hephaestus_build.core.provenance import Outcome
from hephaestus_build.core.web_address import Address
from hephaestus_build.download.client import Client
from hephaestus_build.sources.era5.fields import decode_times

#: Bytes of a chunk once it is unpacked; a globe has 4 MB, ARCO-ERA5's whole time axis 10.
LARGEST = 64 << 20
_LARGEST_METADATA = 16 << 20  # of 273 variables: half a megabyte
_LONGEST_AXIS = 1 << 40
_RANK = 8


class StoreError(Exception):
    """The store cannot be used; `outcome` says what kind of trouble it is."""

    def __init__(self, outcome: Outcome, detail: str) -> None:
        super().__init__(detail)
        self.outcome = outcome


@dataclass(frozen=True)
class Chunked:
    """One array of a store, of Zarr format 2 or 3.

    Attributes
    ----------
    name : str
        Its path in the store.
    shape, chunks : tuple of int
        Of the whole array, and of one stored object.
    dtype : np.dtype
        Of its numbers.
    order : str
        ``C`` or ``F``.
    compressor : str
        Name of the codec that packs its chunks; empty for none.
    checksum : bool
        Whether each chunk ends with a CRC32C.
    prefix, separator : str
        How the chunks are called.
    attributes : dict
        Of the array.
    """

    name: str
    shape: tuple[int, ...]
    chunks: tuple[int, ...]
    dtype: np.dtype[Any]
    order: str
    compressor: str
    checksum: bool
    prefix: str
    separator: str
    attributes: dict[str, Any]

    @property
    def largest(self) -> int:
        """Bytes of one stored object at most: what it unpacks to and what codecs add."""
        size = self._size
        return size + size // 16 + (1 << 16)

    @property
    def _size(self) -> int:
        return math.prod(self.chunks) * self.dtype.itemsize

    def key(self, position: Sequence[int]) -> str:
        """Return where in the array's folder the chunk at `position` lies."""
        return self.separator.join([*([self.prefix] if self.prefix else []), *map(str, position)])

    def decode(self, content: bytes) -> np.ndarray:
        """Return the values of one stored chunk.

        Raises
        ------
        ValueError
            If `content` is no such chunk.
        """
        try:
            if self.checksum:
                content, stated = content[:-4], content[-4:]
                if google_crc32c.value(content).to_bytes(4, "little") != stated:
                    raise ValueError("its checksum is wrong")
            unpacked = _UNPACK[self.compressor](content, self._size)
            if len(unpacked) != self._size:
                raise ValueError("its size is wrong")
        except (ValueError, RuntimeError, zlib.error, struct.error) as error:
            raise ValueError(f"the chunk cannot be decoded ({plain_text(error, 100)})") from None
        values = np.frombuffer(unpacked, self.dtype)
        return values.reshape(self.chunks, order="F" if self.order == "F" else "C")


def parse_array(name: str, metadata: Any, attributes: Any) -> Chunked:
    """Return the array that ``.zarray`` or ``zarr.json`` describes, if it is one that is read here.

    Parameters
    ----------
    name : str
        Its path in the store.
    metadata : object
        Content of the file.
    attributes : object
        Content of ``.zattrs``, or of the key ``attributes``; absent ones are none.

    Raises
    ------
    ValueError
        If it is of another type than plain numbers, is packed by another codec than those known here, or has
        a shape or chunks of a size that cannot be.
    """
    metadata = _mapping(metadata)
    parse = {2: _parse_2, 3: _parse_3}.get(_number(metadata.get("zarr_format")))
    if parse is None:
        raise ValueError("it is of neither Zarr format 2 nor 3")
    array = parse(name, metadata, _mapping(attributes or {}))
    if len(array.shape) != len(array.chunks) or not 0 < len(array.shape) <= _RANK:
        raise ValueError(f"it has {len(array.shape)} dimensions, its chunks {len(array.chunks)}")
    if array._size > LARGEST:
        raise ValueError(f"its chunks have more than {LARGEST >> 20} MB")
    return array


def _parse_2(name: str, metadata: Mapping[str, Any], attributes: dict[str, Any]) -> Chunked:
    kind = metadata.get("dtype")
    if not (isinstance(kind, str) and re.fullmatch("[<>|][iu][1248]|[<>]f[48]", kind)):
        raise ValueError("it is of another type than plain numbers")
    if metadata.get("filters"):
        raise ValueError("it is packed with filters, which are not read here")
    compressor = metadata.get("compressor")
    return Chunked(
        name,
        _sizes(metadata.get("shape"), least=0),
        _sizes(metadata.get("chunks"), least=1),
        np.dtype(kind),
        _one_of(metadata.get("order", "C"), "CF"),
        "" if compressor is None else _known_codec(_mapping(compressor).get("id")),
        checksum=False,
        prefix="",
        separator=_one_of(metadata.get("dimension_separator", "."), "./"),
        attributes=attributes,
    )


def _parse_3(name: str, metadata: Mapping[str, Any], attributes: dict[str, Any]) -> Chunked:
    kind = metadata.get("data_type")
    if not (isinstance(kind, str) and re.fullmatch("u?int(8|16|32|64)|float(32|64)", kind)):
        raise ValueError("it is of another type than plain numbers")
    grid, keys = _mapping(metadata.get("chunk_grid")), _mapping(metadata.get("chunk_key_encoding"))
    if grid.get("name") != "regular" or metadata.get("storage_transformers"):
        raise ValueError("it is not in regular chunks")
    codecs = metadata.get("codecs")
    if not isinstance(codecs, list) or not codecs:
        raise ValueError("it has no codecs")
    names = [_mapping(codec).get("name") for codec in codecs]
    first, *packing = names
    checksum = packing[-1:] == ["crc32c"]
    packing = packing[:-1] if checksum else packing
    if first != "bytes" or len(packing) > 1:
        raise ValueError(
            f"it is packed by {plain_text(', '.join(map(str, names)), 80)}, which is not read here"
        )
    endian = _mapping(_mapping(codecs[0]).get("configuration") or {}).get("endian", "little")
    plain = keys.get("name") == "v2"
    if not plain and keys.get("name") != "default":
        raise ValueError("its chunks are called in a way that is not known here")
    separator = _mapping(keys.get("configuration") or {}).get("separator", "." if plain else "/")
    return Chunked(
        name,
        _sizes(metadata.get("shape"), least=0),
        _sizes(_mapping(grid.get("configuration")).get("chunk_shape"), least=1),
        np.dtype(kind).newbyteorder("<" if _one_of(endian, ("little", "big")) == "little" else ">"),
        "C",
        _known_codec(packing[0]) if packing else "",
        checksum,
        "" if plain else "c",
        _one_of(separator, "./"),
        attributes,
    )


def _mapping(value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ValueError("its metadata are not those of an array")
    return value


def _number(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise ValueError("its metadata hold something else where a whole number belongs")
    return value


def _sizes(value: Any, least: int) -> tuple[int, ...]:
    if not isinstance(value, list):
        raise ValueError("its metadata have no shape")
    sizes = tuple(map(_number, value))
    if not all(least <= size <= _LONGEST_AXIS for size in sizes):
        raise ValueError("it has a shape that cannot be")
    return sizes


def _one_of(value: Any, known: Sequence[str]) -> str:
    if not isinstance(value, str) or value not in tuple(known):
        raise ValueError(f"its metadata say {plain_text(repr(value), 40)}, known are {', '.join(known)}")
    return value


def _known_codec(name: Any) -> str:
    short = name.removeprefix("numcodecs.") if isinstance(name, str) else ""
    if short not in _UNPACK or not short:
        raise ValueError(f"it is packed by {plain_text(name, 40)}, which is not read here")
    return short


def _unpack_blosc(content: bytes, size: int) -> bytes | bytearray:
    """Unpack Blosc, whose library believes what the header says of the sizes."""
    import numcodecs.blosc

    version, _, flags, _, unpacked, block, packed = struct.unpack_from("<BBBBIII", content)
    copied = bool(flags & 2)
    if version != 2 or unpacked != size or packed != len(content) or block > max(size, 1):
        raise ValueError("its header contradicts its size")
    if copied and packed != size + 16:
        raise ValueError("its header contradicts its size")
    numcodecs.blosc.decompress(content, memory := bytearray(size))
    return memory


def _unpack_zstd(content: bytes, size: int) -> bytes | bytearray:
    import numcodecs.zstd

    if (stated := _zstd_size(content)) not in (None, size):
        raise ValueError(f"it unpacks to {stated} bytes")
    # of a size that is not stated, the library fails unless it fills the memory
    numcodecs.zstd.decompress(content, memory := bytearray(size))
    return memory


def _zstd_size(content: bytes) -> int | None:
    """Return what the header of a Zstandard frame says of its content (RFC 8878, 3.1.1.1)."""
    if content[:4] != b"\x28\xb5\x2f\xfd" or len(content) < 6:
        raise ValueError("it is no Zstandard frame")
    mark = content[4]
    single = bool(mark & 0x20)
    start = 5 + (not single) + (0, 1, 2, 4)[mark & 3]
    width = (int(single), 2, 4, 8)[mark >> 6]
    stated = int.from_bytes(content[start : start + width], "little")
    return None if width == 0 else stated + 256 if width == 2 else stated


def _unpack_lz4(content: bytes, size: int) -> bytes | bytearray:
    import numcodecs.lz4

    if int.from_bytes(content[:4], "little") != size:
        raise ValueError("its header contradicts its size")
    numcodecs.lz4.decompress(content, memory := bytearray(size))
    return memory


def _inflate(content: bytes, size: int) -> bytes:
    """Unpack zlib or gzip, a byte more than `size` at most."""
    inflater = zlib.decompressobj(wbits=47)  # either header
    unpacked = inflater.decompress(content, size + 1)
    if not inflater.eof or inflater.unused_data:
        raise ValueError("it is cut, unpacks to more than its size, or something follows it")
    return unpacked


_UNPACK: dict[str, Callable[[bytes, int], bytes | bytearray]] = {
    "": lambda content, _: content,
    "blosc": _unpack_blosc,
    "zstd": _unpack_zstd,
    "lz4": _unpack_lz4,
    "zlib": _inflate,
    "gzip": _inflate,
}


def open_store(
    http: Client, address: Address, names: Sequence[str]
) -> tuple[dict[str, Any], dict[str, Chunked]]:
    """Return the attributes of the store at `address` and the arrays `names`.

    Consolidated metadata of format 2 is looked for first, then format 3.

    Raises
    ------
    StoreError
        If the store cannot be reached, is none, or lacks one of the arrays.
    """
    url = str(address)
    consolidated = _read(http, address.child(".zmetadata"))
    arrays: dict[str, Chunked] = {}
    try:
        if consolidated is not None:
            entries = _mapping(consolidated["metadata"])
            for name in names:
                array = entries[f"{name}/.zarray"]
                arrays[name] = _parse(url, name, array, entries.get(f"{name}/.zattrs"))
            return _mapping(entries.get(".zattrs") or {}), arrays
        group = _read(http, address.child("zarr.json"))
        if group is None:
            raise StoreError(Outcome.ABSENT, f"there is no Zarr store at {url}; check HEPHAESTUS_ARCO_URL")
        inline = _mapping(group.get("consolidated_metadata") or {})
        entries = _mapping(inline.get("metadata") or {})
        for name in names:
            entry = entries.get(name) or _read(http, address.child(f"{name}/zarr.json"))
            if entry is None:
                raise KeyError(f"{name}/zarr.json")
            arrays[name] = _parse(url, name, entry, _mapping(entry).get("attributes"))
        return _mapping(group.get("attributes") or {}), arrays
    except KeyError as error:
        missing = str(error.args[0]).partition("/")[0]
        raise StoreError(Outcome.CORRUPT, f"the Zarr store at {url} has no {missing}") from None
    except ValueError:
        raise StoreError(Outcome.CORRUPT, f"the metadata at {url} are not those of a Zarr store") from None


def _parse(url: str, name: str, metadata: Any, attributes: Any) -> Chunked:
    try:
        return parse_array(name, metadata, attributes)
    except ValueError as error:
        raise StoreError(Outcome.CORRUPT, f"{name} in the Zarr store at {url} is not used: {error}") from None


def moments(axis: Chunked, numbers: np.ndarray) -> list[datetime]:
    """Return what `numbers` of a CF time axis stand for, UTC without a zone.

    Raises
    ------
    StoreError
        If the axis has no usable units.
    """
    units, calendar = axis.attributes.get("units"), axis.attributes.get("calendar", "standard")
    try:
        if not (isinstance(units, str) and isinstance(calendar, str)):
            raise ValueError("it has no units")
        return decode_times(numbers, units, calendar)
    except ValueError as error:
        raise StoreError(Outcome.CORRUPT, f"the {axis.name} axis of the store: {error}") from None


def _read(http: Client, address: Address) -> dict[str, Any] | None:
    """Return the JSON at `address`, None if there is nothing."""
    page = http.get_page(address.whole, max_bytes=_LARGEST_METADATA)
    if page.outcome is Outcome.ABSENT:
        return None
    if not page.ok:
        raise StoreError(page.outcome, f"{address}: {page.detail}; check the network, then build again")
    try:
        value = parse_json(page.text, limit=_LARGEST_METADATA)
    except ValueError as error:
        raise StoreError(
            Outcome.CORRUPT, f"{address} is no JSON that is read: {plain_text(error, 100)}"
        ) from None
    return value if isinstance(value, dict) else {}
