"""Reader of an untrusted Zarr store over plain HTTP: checked metadata and single chunks.

Metadata may name a codec that runs code or claim any shape, and a chunk may decompress to any size.
Therefore only arrays of plain numbers with a few common codecs are read, and each chunk is decompressed into
a buffer of the expected size.
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
import numpy.typing as npt

from hephaestus_build.core.parsing import parse_json
from hephaestus_build.core.plain_text import sanitize_text
from hephaestus_build.core.provenance import Outcome
from hephaestus_build.core.web_address import HttpUrl
from hephaestus_build.download.client import HttpClient
from hephaestus_build.sources.era5.fields import decode_cf_times

#: Bytes of an unpacked chunk; a globe has 4 MB, ARCO-ERA5's whole time axis 10 MB.
MAX_CHUNK_BYTES = 64 << 20
_MAX_METADATA_BYTES = 16 << 20  # ARCO-ERA5's 273 variables have half a megabyte
_MAX_AXIS_LENGTH = 1 << 40
_MAX_RANK = 8


class RemoteStoreError(Exception):
    """The store cannot be used; `outcome` is the kind of failure, for the receipt."""

    def __init__(self, outcome: Outcome, detail: str) -> None:
        super().__init__(detail)
        self.outcome = outcome


@dataclass(frozen=True)
class RemoteArray:
    """Metadata of one array of a store, of Zarr format 2 or 3.

    Attributes
    ----------
    name : str
        Path in the store.
    shape, chunks : tuple of int
        Shape of the array and of one chunk.
    dtype : np.dtype
        Type of the numbers.
    order : str
        Order of the numbers in a chunk, ``C`` or ``F``.
    compressor : str
        Name of the codec; empty for none.
    checksum : bool
        Whether each chunk ends with a CRC32C.
    prefix, separator : str
        Parts of a chunk's key, such as ``c`` and ``/`` in ``c/0/1``.
    attributes : dict
        Attributes of the array.
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
    def max_stored_bytes(self) -> int:
        """Upper limit of a stored chunk in bytes: its unpacked size plus the overhead of codecs."""
        size = self._chunk_bytes
        return size + size // 16 + (1 << 16)

    @property
    def _chunk_bytes(self) -> int:
        return math.prod(self.chunks) * self.dtype.itemsize

    def chunk_key(self, position: Sequence[int]) -> str:
        """Return the key of the chunk at `position`, relative to the array."""
        return self.separator.join([*([self.prefix] if self.prefix else []), *map(str, position)])

    def decode_chunk(self, content: bytes) -> npt.NDArray[Any]:
        """Decode one stored chunk.

        Raises
        ------
        ValueError
            If its checksum or size is wrong, or it cannot be decompressed.
        """
        try:
            if self.checksum:
                content, stated = content[:-4], content[-4:]
                if google_crc32c.value(content).to_bytes(4, "little") != stated:
                    raise ValueError("its checksum is wrong")
            unpacked = _DECOMPRESSORS[self.compressor](content, self._chunk_bytes)
            if len(unpacked) != self._chunk_bytes:
                raise ValueError("its size is wrong")
        except (ValueError, RuntimeError, zlib.error, struct.error) as error:
            raise ValueError(f"the chunk cannot be decoded ({sanitize_text(error, 100)})") from None
        values = np.frombuffer(unpacked, self.dtype)
        return values.reshape(self.chunks, order="F" if self.order == "F" else "C")


def parse_array_metadata(name: str, metadata: Any, attributes: Any) -> RemoteArray:
    """Parse and check the metadata of an array.

    Parameters
    ----------
    name : str
        Path of the array in the store.
    metadata : object
        Parsed content of ``.zarray`` or ``zarr.json``.
    attributes : object
        Parsed content of ``.zattrs``, or of the key ``attributes``; None if missing.

    Raises
    ------
    ValueError
        If the array is not of plain numbers, uses an unsupported codec, or has an impossible shape or chunks
        that are too large.
    """
    metadata = _check_mapping(metadata)
    parse = {2: _parse_format2, 3: _parse_format3}.get(_check_integer(metadata.get("zarr_format")))
    if parse is None:
        raise ValueError("it is of neither Zarr format 2 nor 3")
    array = parse(name, metadata, _check_mapping(attributes or {}))
    if len(array.shape) != len(array.chunks) or not 0 < len(array.shape) <= _MAX_RANK:
        raise ValueError(f"it has {len(array.shape)} dimensions, its chunks {len(array.chunks)}")
    if array._chunk_bytes > MAX_CHUNK_BYTES:
        raise ValueError(f"its chunks have more than {MAX_CHUNK_BYTES >> 20} MB")
    return array


def _parse_format2(name: str, metadata: Mapping[str, Any], attributes: dict[str, Any]) -> RemoteArray:
    kind = metadata.get("dtype")
    if not (isinstance(kind, str) and re.fullmatch("[<>|][iu][1248]|[<>]f[48]", kind)):
        raise ValueError("it is of another type than plain numbers")
    if metadata.get("filters"):
        raise ValueError("it uses filters, which are not supported")
    compressor = metadata.get("compressor")
    return RemoteArray(
        name,
        _check_sizes(metadata.get("shape"), least=0),
        _check_sizes(metadata.get("chunks"), least=1),
        np.dtype(kind),
        _check_choice(metadata.get("order", "C"), "CF"),
        "" if compressor is None else _check_codec(_check_mapping(compressor).get("id")),
        checksum=False,
        prefix="",
        separator=_check_choice(metadata.get("dimension_separator", "."), "./"),
        attributes=attributes,
    )


def _parse_format3(name: str, metadata: Mapping[str, Any], attributes: dict[str, Any]) -> RemoteArray:
    kind = metadata.get("data_type")
    if not (isinstance(kind, str) and re.fullmatch("u?int(8|16|32|64)|float(32|64)", kind)):
        raise ValueError("it is of another type than plain numbers")
    grid, keys = (
        _check_mapping(metadata.get("chunk_grid")),
        _check_mapping(metadata.get("chunk_key_encoding")),
    )
    if grid.get("name") != "regular" or metadata.get("storage_transformers"):
        raise ValueError("it is not in regular chunks")
    codecs = metadata.get("codecs")
    if not isinstance(codecs, list) or not codecs:
        raise ValueError("it has no codecs")
    names = [_check_mapping(codec).get("name") for codec in codecs]
    first, *packing = names
    checksum = packing[-1:] == ["crc32c"]
    packing = packing[:-1] if checksum else packing
    if first != "bytes" or len(packing) > 1:
        raise ValueError(
            f"it is packed by {sanitize_text(', '.join(map(str, names)), 80)}, which is not supported"
        )
    endian = _check_mapping(_check_mapping(codecs[0]).get("configuration") or {}).get("endian", "little")
    plain = keys.get("name") == "v2"
    if not plain and keys.get("name") != "default":
        raise ValueError("the key encoding of its chunks is not supported")
    separator = _check_mapping(keys.get("configuration") or {}).get("separator", "." if plain else "/")
    return RemoteArray(
        name,
        _check_sizes(metadata.get("shape"), least=0),
        _check_sizes(_check_mapping(grid.get("configuration")).get("chunk_shape"), least=1),
        np.dtype(kind).newbyteorder("<" if _check_choice(endian, ("little", "big")) == "little" else ">"),
        "C",
        _check_codec(packing[0]) if packing else "",
        checksum,
        "" if plain else "c",
        _check_choice(separator, "./"),
        attributes,
    )


def _check_mapping(value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ValueError("its metadata are not those of an array")
    return value


def _check_integer(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise ValueError("its metadata have another value where an integer is expected")
    return value


def _check_sizes(value: Any, least: int) -> tuple[int, ...]:
    if not isinstance(value, list):
        raise ValueError("its metadata have no shape")
    sizes = tuple(map(_check_integer, value))
    if not all(least <= size <= _MAX_AXIS_LENGTH for size in sizes):
        raise ValueError("it has an impossible shape")
    return sizes


def _check_choice(value: Any, known: Sequence[str]) -> str:
    if not isinstance(value, str) or value not in tuple(known):
        raise ValueError(f"its metadata say {sanitize_text(repr(value), 40)}, known are {', '.join(known)}")
    return value


def _check_codec(name: Any) -> str:
    short = name.removeprefix("numcodecs.") if isinstance(name, str) else ""
    if short not in _DECOMPRESSORS or not short:
        raise ValueError(f"it is packed by {sanitize_text(name, 40)}, which is not supported")
    return short


def _unpack_blosc(content: bytes, size: int) -> bytes | bytearray:
    """Decompress Blosc; the library trusts the sizes in the header, so they are checked first."""
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
    # if the header states no size, the library raises unless the output has exactly the buffer's size
    numcodecs.zstd.decompress(content, memory := bytearray(size))
    return memory


def _zstd_size(content: bytes) -> int | None:
    """Return the content size in the header of a Zstandard frame (RFC 8878, 3.1.1.1); None if not stated."""
    if content[:4] != b"\x28\xb5\x2f\xfd" or len(content) < 6:
        raise ValueError("it is not a Zstandard frame")
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


def _unpack_zlib(content: bytes, size: int) -> bytes:
    """Decompress zlib or gzip, at most one byte more than `size`."""
    inflater = zlib.decompressobj(wbits=47)  # either header
    unpacked = inflater.decompress(content, size + 1)
    if not inflater.eof or inflater.unused_data:
        raise ValueError("it is cut, unpacks to more than its size, or something follows it")
    return unpacked


_DECOMPRESSORS: dict[str, Callable[[bytes, int], bytes | bytearray]] = {
    "": lambda content, _: content,
    "blosc": _unpack_blosc,
    "zstd": _unpack_zstd,
    "lz4": _unpack_lz4,
    "zlib": _unpack_zlib,
    "gzip": _unpack_zlib,
}


def open_remote_store(
    http: HttpClient, address: HttpUrl, names: Sequence[str]
) -> tuple[dict[str, Any], dict[str, RemoteArray]]:
    """Return the attributes of a Zarr store and the metadata of some of its arrays.

    Consolidated metadata of format 2 is tried first, then format 3.

    Parameters
    ----------
    http : HttpClient
        Client to read with.
    address : HttpUrl
        Root of the store.
    names : sequence of str
        Arrays to open.

    Raises
    ------
    RemoteStoreError
        If the store cannot be reached, is not a Zarr store, or lacks one of the arrays.
    """
    url = str(address)
    consolidated = _fetch_json(http, address.child(".zmetadata"))
    arrays: dict[str, RemoteArray] = {}
    try:
        if consolidated is not None:
            entries = _check_mapping(consolidated["metadata"])
            for name in names:
                array = entries[f"{name}/.zarray"]
                arrays[name] = _parse_or_fail(url, name, array, entries.get(f"{name}/.zattrs"))
            return _check_mapping(entries.get(".zattrs") or {}), arrays
        group = _fetch_json(http, address.child("zarr.json"))
        if group is None:
            raise RemoteStoreError(
                Outcome.ABSENT, f"there is no Zarr store at {url}; check HEPHAESTUS_ARCO_URL"
            )
        inline = _check_mapping(group.get("consolidated_metadata") or {})
        entries = _check_mapping(inline.get("metadata") or {})
        for name in names:
            entry = entries.get(name) or _fetch_json(http, address.child(f"{name}/zarr.json"))
            if entry is None:
                raise KeyError(f"{name}/zarr.json")
            arrays[name] = _parse_or_fail(url, name, entry, _check_mapping(entry).get("attributes"))
        return _check_mapping(group.get("attributes") or {}), arrays
    except KeyError as error:
        missing = str(error.args[0]).partition("/")[0]
        raise RemoteStoreError(Outcome.CORRUPT, f"the Zarr store at {url} has no {missing}") from None
    except ValueError:
        raise RemoteStoreError(
            Outcome.CORRUPT, f"the metadata at {url} are not those of a Zarr store"
        ) from None


def _parse_or_fail(url: str, name: str, metadata: Any, attributes: Any) -> RemoteArray:
    try:
        return parse_array_metadata(name, metadata, attributes)
    except ValueError as error:
        raise RemoteStoreError(
            Outcome.CORRUPT, f"{name} in the Zarr store at {url} is not used: {error}"
        ) from None


def decode_time_axis(axis: RemoteArray, numbers: npt.NDArray[Any]) -> list[datetime]:
    """Decode `numbers` of a CF time axis, UTC without a time zone.

    Raises
    ------
    RemoteStoreError
        If the axis has no usable units.
    """
    units, calendar = axis.attributes.get("units"), axis.attributes.get("calendar", "standard")
    try:
        if not (isinstance(units, str) and isinstance(calendar, str)):
            raise ValueError("it has no units")
        return decode_cf_times(numbers, units, calendar)
    except ValueError as error:
        raise RemoteStoreError(Outcome.CORRUPT, f"the {axis.name} axis of the store: {error}") from None


def _fetch_json(http: HttpClient, address: HttpUrl) -> dict[str, Any] | None:
    """Return the JSON object at `address`; None if it is absent."""
    page = http.get_text(address.url_with_secrets, max_bytes=_MAX_METADATA_BYTES)
    if page.outcome is Outcome.ABSENT:
        return None
    if not page.ok:
        raise RemoteStoreError(page.outcome, f"{address}: {page.detail}; check the network, then build again")
    try:
        value = parse_json(page.text, limit=_MAX_METADATA_BYTES)
    except ValueError as error:
        raise RemoteStoreError(
            Outcome.CORRUPT, f"{address} is not valid JSON: {sanitize_text(error, 100)}"
        ) from None
    return value if isinstance(value, dict) else {}
