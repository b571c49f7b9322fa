"""Parser of TIFF directories without GDAL: tags, band layout and block table (TIFF 6.0 and BigTIFF).

GDAL takes a raster's meaning from more places than the file: environment variables, sidecar files and a
database of coordinate systems. This module reads the tags only and checks every size before memory is
allocated. GDAL then decodes the output of :func:`rebuild_minimal_tiff`, the compressed pixels in a new file
with minimal tags.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

import numpy as np
import numpy.typing as npt

#: Limits of one image; the largest real raster has 7,000 x 3,800 pixels of 4 bytes, 106 MB.
MAX_SIDE, MAX_PIXELS, MAX_BYTES = 20_000, 64 << 20, 512 << 20
#: The supported codecs reach about 1,400, except for blocks of a single value.
MAX_COMPRESSION_RATIO = 2_000
# Directories of one file (the image, its overviews and their masks), and tags of one directory.
_MAX_DIRECTORIES, _MAX_TAGS = 64, 1024
_MAX_TILE = 4096


class TiffTag(IntEnum):
    """TIFF tags that are read."""

    SUBFILE = 254
    OLD_SUBFILE = 255
    WIDTH = 256
    HEIGHT = 257
    BITS = 258
    COMPRESSION = 259
    PHOTOMETRIC = 262
    FILL_ORDER = 266
    STRIP_OFFSETS = 273
    ORIENTATION = 274
    SAMPLES = 277
    STRIP_ROWS = 278
    STRIP_COUNTS = 279
    PREDICTOR = 317
    TILE_WIDTH = 322
    TILE_HEIGHT = 323
    TILE_OFFSETS = 324
    TILE_COUNTS = 325
    EXTRA_SAMPLES = 338
    SAMPLE_FORMAT = 339
    PIXEL_SCALE = 33550
    TIE_POINTS = 33922
    TRANSFORMATION = 34264
    GEO_KEYS = 34735
    GEO_DOUBLES = 34736
    GEO_TEXTS = 34737
    GDAL_METADATA = 42112
    GDAL_NODATA = 42113


# TIFF data types: code, and numpy's name without byte order.
_VALUE_TYPES = {1: "u1", 2: "S1", 3: "u2", 4: "u4", 12: "f8", 16: "u8"}
_INTEGER_TYPES = (1, 3, 4, 16)
#: Lossless codecs of LiCSAR's files, and others that GDAL writes, with their names.
_CODECS = {1: "none", 5: "LZW", 8: "DEFLATE", 32946: "DEFLATE", 32773: "PackBits", 50000: "ZSTD"}
_OTHER_CODECS = {
    2: "CCITT", 3: "CCITT", 4: "CCITT", 6: "JPEG", 7: "JPEG", 34712: "JPEG 2000", 34887: "LERC",
    34925: "LZMA", 50001: "WebP", 50002: "JPEG XL", 52546: "JPEG XL",
}  # fmt: skip
_SAMPLE_FORMATS = {1: "uint", 2: "int", 3: "float", 5: "complex int", 6: "complex"}


@dataclass(frozen=True)
class TiffDirectory:
    """Tags of one image in a TIFF file.

    Attributes
    ----------
    content : bytes
        The whole file.
    byte_order : str
        Byte order in numpy's notation, ``<`` or ``>``.
    entries : mapping
        For each tag: type, number of values, and their offset in the file.
    """

    content: bytes
    byte_order: str
    entries: Mapping[int, tuple[int, int, int]]

    def values(
        self, tag: TiffTag, kinds: tuple[int, ...] = _INTEGER_TYPES, *, most: int
    ) -> npt.NDArray[Any] | None:
        """Return the values of a tag; None if the tag is missing or has another type.

        Parameters
        ----------
        tag : TiffTag
            The tag.
        kinds : tuple of int
            Allowed TIFF data types; by default the integers.
        most : int
            Largest allowed number of values.

        Raises
        ------
        ValueError
            If there are more values, or they lie beyond the end of the file.
        """
        kind, count, at = self.entries.get(tag, (0, 0, 0))
        if kind not in kinds:
            return None
        dtype = np.dtype(self.byte_order + _VALUE_TYPES[kind])
        if count > most:
            raise ValueError(f"its tag {tag.name} has {count} values")
        if at + count * dtype.itemsize > len(self.content):
            raise ValueError(f"the file is cut: the values of its tag {tag.name} lie beyond its end")
        return np.frombuffer(self.content, dtype, count, at)

    def integer(self, tag: TiffTag, default: int | None = None) -> int:
        """Return the integer of a tag, or `default` if the tag is missing.

        Raises
        ------
        ValueError
            If it is not a single integer, or is missing and there is no default.
        """
        if tag in self.entries:
            values = self.values(tag, most=1)
            if values is None or values.size != 1:
                raise ValueError(f"its tag {tag.name} is not an integer")
            return int(values[0])
        if default is None:
            raise ValueError(f"it has no tag {tag.name}")
        return default

    def doubles(self, tag: TiffTag, *, most: int) -> npt.NDArray[np.float64] | None:
        """Return the float64 values of a tag; None if it has none or any is not finite."""
        values = self.values(tag, (12,), most=most)
        return values if values is not None and np.isfinite(values).all() else None

    def text(self, tag: TiffTag, *, most: int) -> str | None:
        """Return the text of a tag up to its first NUL; None if the tag is missing."""
        values = self.values(tag, (2,), most=most)
        if values is not None:
            return values.tobytes().partition(b"\0")[0].decode("utf-8", "replace")
        if tag in self.entries:
            raise ValueError(f"its tag {tag.name} is not text")
        return None

    @property
    def subfile_type(self) -> int:
        """Kind of image as a sum of flags: 1 overview, 2 page, 4 mask; 0 for the image itself."""
        old = {2: 1, 3: 2}.get(self.integer(TiffTag.OLD_SUBFILE, 1), 0)
        return self.integer(TiffTag.SUBFILE, 0) | old


def read_tiff_directories(content: bytes) -> list[TiffDirectory]:
    """Return the directories of a TIFF or BigTIFF, in file order.

    Each directory ends with the offset of the next one, and 0 ends the chain.

    Raises
    ------
    ValueError
        If the file is not a TIFF, a directory is cut, or the chain is a cycle or too long.
    """
    order = {b"II": "<", b"MM": ">"}.get(content[:2], "")
    version = int.from_bytes(content[2:4], "big" if order == ">" else "little")
    if not order or len(content) < 16 or version not in (42, 43):
        raise ValueError("the file is not a TIFF")
    word, head, start = ("u4", "u2", 4) if version == 42 else ("u8", "u8", 8)  # 43 is BigTIFF
    found: list[TiffDirectory] = []
    seen: set[int] = set()
    at = int(np.frombuffer(content, order + word, 1, start)[0])
    while at:
        if at in seen or len(seen) == _MAX_DIRECTORIES:
            raise ValueError("the chain of its directories does not end")
        seen.add(at)
        directory, at = _read_directory(content, at, order, word, head)
        found.append(directory)
    if not found:
        raise ValueError("the file is cut: its directory is missing")
    return found


def _read_directory(content: bytes, at: int, order: str, word: str, head: str) -> tuple[TiffDirectory, int]:
    """Return the directory at offset `at`, and the offset of the next one.

    A directory is a count, that many entries, and the next offset. An entry is tag, type, count and a field
    that holds the values themselves if they fit, else their offset. For example, in classic TIFF, whose field
    has 4 bytes, one uint32 is stored inline and one float64 elsewhere.
    """
    entry = np.dtype(
        [("tag", order + "u2"), ("type", order + "u2"), ("count", order + word), ("at", order + word)]
    )
    inline = entry["at"].itemsize
    first = at + np.dtype(head).itemsize
    if first > len(content):
        raise ValueError("the file is cut: its directory is missing")
    count = int(np.frombuffer(content, order + head, 1, at)[0])
    if count > _MAX_TAGS:
        raise ValueError(f"its directory has {count} tags")
    end = first + count * entry.itemsize
    if end + inline > len(content):
        raise ValueError("the file is cut: its directory is not whole")
    entries: dict[int, tuple[int, int, int]] = {}
    for index, (tag, kind, number, value) in enumerate(np.frombuffer(content, entry, count, first).tolist()):
        if tag in entries:
            raise ValueError(f"its directory has tag {tag} twice")
        here = first + (index + 1) * entry.itemsize - inline
        small = kind in _VALUE_TYPES and number * np.dtype(_VALUE_TYPES[kind]).itemsize <= inline
        entries[tag] = kind, number, here if small else value
    return TiffDirectory(content, order, entries), int(np.frombuffer(content, order + word, 1, end)[0])


@dataclass(frozen=True)
class BandLayout:
    """Storage layout of one band.

    Attributes
    ----------
    width, height : int
        Columns and rows.
    bits, format : int
        TIFF's BitsPerSample and SampleFormat.
    dtype : str
        The same as a numpy name; ``bool`` for masks of one bit.
    codec, predictor : int
        TIFF's Compression and Predictor.
    block_shape : tuple of int
        Rows and columns of a block.
    tiled : bool
        Whether blocks are tiles; else they are strips.
    offsets, byte_counts : numpy.ndarray
        Offset and size of each block, row by row; size 0 if the block is not stored.
    """

    width: int
    height: int
    bits: int
    format: int
    dtype: str
    codec: int
    predictor: int
    block_shape: tuple[int, int]
    tiled: bool
    offsets: np.ndarray
    byte_counts: np.ndarray

    @property
    def missing_blocks(self) -> int:
        """Number of blocks that are not stored."""
        return int(np.count_nonzero(self.byte_counts == 0))


def read_band_layout(directory: TiffDirectory, dtypes: tuple[str, ...]) -> BandLayout:
    """Return the storage layout of an image's only band, with every size checked.

    Parameters
    ----------
    directory : TiffDirectory
        Tags of the image.
    dtypes : tuple of str
        Allowed data types.

    Raises
    ------
    ValueError
        If the image has another data type, several bands, or a lossy or unknown codec, or if its sizes are
        too large for a LiCSAR raster or contradict its blocks.
    """
    width, height = directory.integer(TiffTag.WIDTH), directory.integer(TiffTag.HEIGHT)
    claim, size = f"the header claims {width} x {height} pixels", len(directory.content)
    if max(width, height) > MAX_SIDE:
        raise ValueError(f"{claim}: no LiCSAR frame is that large")
    if not (width and height):
        raise ValueError(f"{claim}: it is empty")
    if (bands := directory.integer(TiffTag.SAMPLES, 1)) != 1:
        raise ValueError(f"the raster has {bands} bands where one was expected")
    bits, kind = directory.integer(TiffTag.BITS, 1), directory.integer(TiffTag.SAMPLE_FORMAT, 1)
    dtype = "bool" if (bits, kind) == (1, 1) else f"{_SAMPLE_FORMATS.get(kind, 'unknown')}{bits}"
    if dtype not in dtypes:
        raise ValueError(f"values of type {dtype} where {' or '.join(dtypes)} were expected")
    if width * height * bits > 8 * MAX_COMPRESSION_RATIO * size:
        raise ValueError(f"{claim}: too many for {size} bytes")
    if width * height > MAX_PIXELS or width * height * bits > 8 * MAX_BYTES:
        raise ValueError(f"{claim}: no LiCSAR frame is that large")
    codec, predictor = _read_compression(directory, bits, kind)
    tiled = TiffTag.TILE_WIDTH in directory.entries
    if tiled:
        block = directory.integer(TiffTag.TILE_HEIGHT), directory.integer(TiffTag.TILE_WIDTH)
        if block[0] % 16 or block[1] % 16 or not min(block) or max(block) > _MAX_TILE:
            raise ValueError(f"its tiles have {block[1]} x {block[0]} pixels")
    else:
        block = min(directory.integer(TiffTag.STRIP_ROWS, height), height), width
        if not block[0]:
            raise ValueError("its strips have no rows")
    blocks = -(-height // block[0]) * -(-width // block[1])
    if blocks * block[0] * block[1] > 2 * MAX_PIXELS:
        raise ValueError(f"{claim} in blocks of {block[1]} x {block[0]}: no LiCSAR frame is that large")
    offsets, counts = _read_block_table(directory, tiled, blocks)
    return BandLayout(width, height, bits, kind, dtype, codec, predictor, block, tiled, offsets, counts)


def _read_compression(directory: TiffDirectory, bits: int, kind: int) -> tuple[int, int]:
    """Return codec and predictor of an image; ValueError if either is not supported for its values."""
    codec, predictor = directory.integer(TiffTag.COMPRESSION, 1), directory.integer(TiffTag.PREDICTOR, 1)
    if codec not in _CODECS:
        allowed = ", ".join(dict.fromkeys(_CODECS.values()))
        raise ValueError(f"its codec is {_OTHER_CODECS.get(codec, codec)}, not one of {allowed}")
    if codec in (1, 32773):
        predictor = 1  # these codecs have no predictor, whatever the tag says
    floats = kind == 3 and bits in (32, 64)
    if predictor not in (1, 2, 3) or (predictor == 2 and bits == 1) or (predictor == 3 and not floats):
        raise ValueError(f"predictor {predictor} is not valid for its values")
    return codec, predictor


def _read_block_table(directory: TiffDirectory, tiled: bool, blocks: int) -> tuple[np.ndarray, np.ndarray]:
    """Return offsets and byte counts of all blocks; ValueError if they do not fit the file."""
    tags = (
        (TiffTag.TILE_OFFSETS, TiffTag.TILE_COUNTS)
        if tiled
        else (TiffTag.STRIP_OFFSETS, TiffTag.STRIP_COUNTS)
    )
    found: list[np.ndarray] = []
    for tag in tags:
        values = directory.values(tag, most=len(directory.content))
        if values is None or values.size != blocks:
            raise ValueError(f"its tag {tag.name} does not have {blocks} values, one for each block")
        found.append(values.astype(np.uint64))
    offsets, counts = found
    counts = np.where(offsets == 0, np.uint64(0), counts)
    size = np.uint64(len(directory.content))
    beyond = (counts > size) | (offsets > size - np.minimum(counts, size)) & (counts > 0)
    if beyond.any():
        cut = int(np.count_nonzero(beyond))
        raise ValueError(f"the file is cut: {cut} of its {blocks} blocks lie beyond its end")
    # if blocks could share bytes, a small file could take hours to decode
    if counts.sum(dtype=np.uint64) > size:
        raise ValueError("its blocks overlap")
    return offsets.astype(np.int64), counts.astype(np.int64)


def rebuild_minimal_tiff(directory: TiffDirectory, layout: BandLayout) -> bytes:
    """Return a new TIFF with an image's compressed blocks and only the tags that decoding needs.

    The file is written in this order:

    1. A header of 8 bytes with the offset of the directory.
    2. The stored blocks, one after the other. With blocks of 100, 0 (not stored) and 50 bytes, the offsets
       are 8, 0 and 108.
    3. The directory, at an even offset, followed by the values that do not fit into it.

    It gets a dummy georeference, since rasterio warns about rasters without one.
    """
    content = memoryview(directory.content)
    stored = layout.byte_counts > 0
    blocks = [
        content[start : start + count]
        for start, count in zip(
            layout.offsets[stored].tolist(), layout.byte_counts[stored].tolist(), strict=True
        )
    ]
    starts = np.where(stored, 8 + np.cumsum(layout.byte_counts) - layout.byte_counts, 0)
    tags: dict[TiffTag, tuple[int, Sequence[float] | np.ndarray]] = {
        TiffTag.WIDTH: (4, [layout.width]),
        TiffTag.HEIGHT: (4, [layout.height]),
        TiffTag.BITS: (3, [layout.bits]),
        TiffTag.COMPRESSION: (3, [layout.codec]),
        TiffTag.PHOTOMETRIC: (3, [1]),
        TiffTag.SAMPLES: (3, [1]),
        TiffTag.PREDICTOR: (3, [layout.predictor]),
        TiffTag.SAMPLE_FORMAT: (3, [layout.format]),
        TiffTag.PIXEL_SCALE: (12, [1.0, 1.0, 0.0]),
        TiffTag.TIE_POINTS: (12, [0.0, 0.0, 0.0, 1.0, 1.0, 0.0]),
    }
    if layout.tiled:
        tags |= {TiffTag.TILE_OFFSETS: (4, starts), TiffTag.TILE_COUNTS: (4, layout.byte_counts)}
        tags |= {
            TiffTag.TILE_HEIGHT: (4, layout.block_shape[:1]),
            TiffTag.TILE_WIDTH: (4, layout.block_shape[1:]),
        }
    else:
        tags |= {TiffTag.STRIP_OFFSETS: (4, starts), TiffTag.STRIP_COUNTS: (4, layout.byte_counts)}
        tags |= {TiffTag.STRIP_ROWS: (4, layout.block_shape[:1])}
    end = 8 + int(layout.byte_counts.sum())
    padding = end % 2
    head = np.array(end + padding, directory.byte_order + "u4").tobytes()
    mark = b"II*\0" if directory.byte_order == "<" else b"MM\0*"
    parts = _encode_directory(tags, end + padding, directory.byte_order)
    return b"".join([mark, head, *blocks, bytes(padding), *parts])


def _encode_directory(
    tags: Mapping[TiffTag, tuple[int, Sequence[float] | np.ndarray]], at: int, order: str
) -> Iterator[bytes]:
    """Yield the parts of a classic TIFF directory at offset `at`, then the values that do not fit into it."""
    spare = at + 2 + 12 * len(tags) + 4
    outside: list[bytes] = []
    yield np.array(len(tags), order + "u2").tobytes()
    for tag, (kind, values) in sorted(tags.items()):
        raw = np.asarray(values).astype(order + _VALUE_TYPES[kind]).tobytes()
        if len(raw) > 4:
            value = np.array(spare, order + "u4").tobytes()
            outside.append(raw + bytes(len(raw) % 2))
            spare += len(outside[-1])
        else:
            value = raw.ljust(4, b"\0")
        yield np.array([tag, kind], order + "u2").tobytes()
        yield np.array(len(values), order + "u4").tobytes() + value
    yield bytes(4)
    yield from outside
