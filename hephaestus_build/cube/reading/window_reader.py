"""Reader of windows of a cube's images, which decodes only the tiles that a window touches.

It is about five times faster than zarr-python and reads only the layout that
:mod:`hephaestus_build.cube.codecs.shard_encoder` writes:

1. The file of an image ends with two indexes. The outer one has one entry, for the image as a whole; the
   inner one has the offset and length of every tile. Each index has a CRC-32C.
2. A window selects tiles. With tiles of 512 pixels, the window of rows 400 to 699 touches the first two rows
   of tiles: rows 400 to 511 of the first and rows 0 to 187 of the second.
3. A tile is a Blosc buffer of blocks that can be decoded separately. Only the blocks that contain the wanted
   rows are read and decoded (:mod:`hephaestus_build.cube.codecs.blosc_partial`). A block of phase has 256
   rows, so one of the two blocks of each tile in step 2 is decoded.
"""

from __future__ import annotations

import os
import stat
import struct
import threading
from collections.abc import Callable, Hashable, Iterable, Mapping
from datetime import date
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import google_crc32c
import numcodecs
import numpy as np
import numpy.typing as npt

from hephaestus_build.core.concurrency import SharedCache, make_array_cache
from hephaestus_build.core.errors import HephaestusError
from hephaestus_build.core.frames import Pair
from hephaestus_build.core.grid import Grid
from hephaestus_build.core.plain_files import FileIdentity, open_plain_file
from hephaestus_build.cube.codecs.blosc_partial import HEADER_BYTES, slice_blosc_buffer
from hephaestus_build.cube.codecs.decoded_size import check_decoded_size
from hephaestus_build.cube.codecs.shard_encoder import chunk_key, shard_shape
from hephaestus_build.cube.reading.store_metadata import read_store_metadata
from hephaestus_build.cube.reading.verified_objects import VerifyMode, check_absent, make_object_verifier

# importing shard_encoder switches off Blosc's own threads, which do not survive a fork
_LOCAL = threading.local()
_BLOSC = numcodecs.Blosc()
_ZSTD = numcodecs.Zstd()
_ABSENT = 2**64 - 1
_ENTRY = 16
_CRC = 4
_OPEN_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_FIRST_DAY = date(1970, 1, 1).toordinal()


class WindowReader:
    """Reader of windows of one pinned cube; it keeps no file open.

    Parameters
    ----------
    store : pathlib.Path
        Store of a generation. A link is resolved once, here.
    recent : SharedCache, optional
        Cache of decoded tiles, for the DEM, which all interferograms share, and for reads with `keep`. By
        default one of 64 MiB.
    verify : {"first", None}
        ``"first"`` compares each stored object with the manifest when it is first read, once per process.
        With None, only the needed blocks are read, and a flipped bit in them is returned as data.

    Raises
    ------
    HephaestusError
        If there is no cube, or its metadata cannot be read.
    """

    def __init__(
        self,
        store: Path,
        recent: SharedCache[Hashable, npt.NDArray[Any]] | None = None,
        *,
        verify: VerifyMode = None,
    ) -> None:
        self.store = store.resolve()
        self.frame = store.stem
        self.verifier = make_object_verifier(self.store, verify)
        self._tile_cache = recent if recent is not None else make_array_cache(64 << 20)
        self._image_storages: dict[str, _ImageStorage] = {}
        self._coordinates: dict[str, np.ndarray] = {}
        try:
            if self.verifier is not None:
                with open_plain_file(self.store, "zarr.json") as (descriptor, facts):
                    self.verifier.verify("zarr.json", descriptor, facts)
            metadata = read_store_metadata(self.store)
            self._metadata: Mapping[str, Any] = metadata.arrays
            self.attributes: Mapping[str, Any] = metadata.attributes
        except OSError as error:
            raise HephaestusError(
                f"{self.frame}: there is no cube at {store} ({error.strerror}); "
                f"`hephaestus build {self.frame}` builds it"
            ) from error
        except (ValueError, KeyError, TypeError) as error:
            raise self._damaged("metadata", "zarr.json", error) from error

    @cached_property
    def grid(self) -> Grid:
        """The frame's grid."""
        try:
            west, dx, _, north, _, dy = map(
                float, self._metadata["spatial_ref"]["attributes"]["GeoTransform"].split()
            )
            height, width = self._metadata["dem"]["shape"]
            return Grid(width, height, west, north, dx, -dy)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise self._damaged("grid", "spatial_ref", error) from error

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns of the frame."""
        return self.grid.shape

    def image_storage(self, variable: str) -> _ImageStorage:
        """Return how the images of `variable` are stored."""
        if variable not in self._image_storages:
            try:
                self._image_storages[variable] = _ImageStorage.from_metadata(self._metadata[variable])
            except (ValueError, KeyError, TypeError, IndexError) as error:
                raise HephaestusError(
                    f"{self.frame}: {variable} is stored in a layout that this version does not read "
                    f"({error}); `hephaestus build {self.frame}` writes the cube again"
                ) from error
        return self._image_storages[variable]

    def read(
        self,
        variable: str,
        pair: Pair | None,
        row: int,
        column: int,
        out: npt.NDArray[Any],
        *,
        keep: bool = False,
    ) -> npt.NDArray[Any]:
        """Read a window of an image into `out`.

        Parameters
        ----------
        variable : str
            A variable on the frame's grid, with the two date dimensions or with none.
        pair : Pair or None
            Pair of the image; None for ``dem``. A pair that is not stored reads as the fill value.
        row, column : int
            First pixel of the window. The window may extend beyond the frame on any side.
        out : numpy.ndarray
            Output of shape (rows, columns) and of the variable's dtype; its shape is the size of the window.
            Pixels beyond the frame are set to the fill value.
        keep : bool
            Whether to put the decoded tiles into the cache, for further windows of the same image.

        Returns
        -------
        numpy.ndarray
            `out`.

        Raises
        ------
        HephaestusError
            If a stored object is damaged.
        """
        images = self.image_storage(variable)
        height, width = images.shape
        top, left = max(row, 0), max(column, 0)
        bottom, right = min(row + out.shape[0], height), min(column + out.shape[1], width)
        place = self._image_path(variable, pair)
        if place is None or (bottom - top, right - left) != out.shape:
            out[...] = images.fill
        if place is None or top >= bottom or left >= right:
            return out
        target = out[top - row : bottom - row, left - column : right - column]
        if keep or pair is None:
            self._read_cached(images, variable, pair, place, (top, bottom, left, right), target)
        else:
            with _ShardFile(self, images, variable, pair, place) as shard:
                for tile, rows, columns, part in images.tile_parts(top, bottom, left, right):
                    values = shard.read_rows(tile, rows)
                    target[part] = images.fill if values is None else values[:, columns]
        return out

    def iter_tiles(self, variable: str, pair: Pair) -> Iterable[tuple[int, int, npt.NDArray[Any]]]:
        """Yield the first row, first column and values of each stored tile, cropped to the frame.

        Tiles that contain only fill values are not stored and not yielded.
        """
        images = self.image_storage(variable)
        place = self._image_path(variable, pair)
        if place is None:
            return
        with _ShardFile(self, images, variable, pair, place) as shard:
            for tile in range(images.tile_count):
                values = shard.read_rows(tile, slice(0, images.tile_size))
                if values is not None:
                    row, column = (
                        position * images.tile_size for position in divmod(tile, images.tiles_across)
                    )
                    yield row, column, values[: images.shape[0] - row, : images.shape[1] - column]

    def _read_cached(
        self,
        images: _ImageStorage,
        variable: str,
        pair: Pair | None,
        place: Path,
        window: tuple[int, int, int, int],
        target: np.ndarray,
    ) -> None:
        """Read a window of an image through the tile cache."""
        shard: _ShardFile | None = None
        try:
            for tile, rows, columns, part in images.tile_parts(*window):
                key = self.store, variable, pair, tile
                values = self._tile_cache.get(key)
                if values is None:
                    shard = shard or _ShardFile(self, images, variable, pair, place)
                    values = shard.read_rows(tile, slice(0, images.tile_size))
                    if values is None:
                        target[part] = images.fill
                        continue
                    values = values.copy()
                    self._tile_cache.put(key, values)
                target[part] = values[rows, columns]
        finally:
            if shard:
                shard.close()

    def _image_path(self, variable: str, pair: Pair | None) -> Path | None:
        """Return the file of an image, or None if the pair's dates are not on the axes."""
        if pair is None:
            return self.store / chunk_key(variable, (), 2)
        leading = self.pair_position(pair)
        return None if leading is None else self.store / chunk_key(variable, leading, 2)

    def pair_position(self, pair: Pair) -> tuple[int, int] | None:
        """Return the positions of a pair's dates on the two date axes, or None if they are not on them."""
        primary, secondary = self._positions["primary_date"], self._positions["secondary_date"]
        try:
            return primary[pair.primary.toordinal()], secondary[pair.secondary.toordinal()]
        except KeyError:
            return None

    @cached_property
    def _positions(self) -> dict[str, dict[int, int]]:
        """Position on each date axis by the ordinal of the day."""
        return {
            axis: {int(day) + _FIRST_DAY: index for index, day in enumerate(self.read_table(axis).tolist())}
            for axis in ("primary_date", "secondary_date", "epoch")
        }

    def read_table(self, name: str) -> npt.NDArray[Any]:
        """Return a coordinate or table of one chunk, without decoding dates or flags.

        Raises
        ------
        HephaestusError
            If the cube has no such array, or it is damaged.
        """
        try:
            metadata = self._metadata[name]
            shape = tuple(metadata["shape"])
            if metadata["chunk_grid"]["configuration"]["chunk_shape"] != list(shape):
                raise ValueError("it is stored in several chunks")
            values = self._read_chunk(name, (0,) * len(shape), shape)
        except (ValueError, KeyError, TypeError, RuntimeError) as error:
            raise self._damaged(name, name, error) from error
        return values if values is not None else np.full(shape, *_fill_and_dtype(metadata))

    def read_coordinate(self, name: str) -> npt.NDArray[Any]:
        """Return a coordinate like :meth:`read_table`; it is read once and then cached."""
        if name not in self._coordinates:
            self._coordinates[name] = self.read_table(name)
        return self._coordinates[name]

    def read_epoch(self, variables: Iterable[str], day: date) -> npt.NDArray[np.float32]:
        """Return ERA5 fields of one date on ERA5's own grid.

        Parameters
        ----------
        variables : iterable of str
            Names of variables with the dimension ``epoch``.
        day : datetime.date
            The acquisition date.

        Returns
        -------
        numpy.ndarray
            float32, shape (variables, era5_latitude, era5_longitude); NaN where the product is missing.

        Raises
        ------
        HephaestusError
            If a stored object is damaged.
        """
        fields = []
        position = self._positions["epoch"].get(day.toordinal())
        for name in variables:
            try:
                shape = tuple(self._metadata[name]["shape"][1:])
                values = None if position is None else self._read_chunk(name, (position, 0, 0), shape)
            except (ValueError, KeyError, TypeError, RuntimeError) as error:
                raise self._damaged(f"{day:%Y%m%d} {name}", name, error) from error
            fields.append(np.full(shape, np.nan, np.float32) if values is None else values)
        return np.stack(fields)

    def _read_chunk(self, name: str, position: tuple[int, ...], shape: tuple[int, ...]) -> np.ndarray | None:
        """Return an unsharded chunk, or None if it is not stored."""
        metadata = self._metadata[name]
        try:
            key = f"{name}/{'.'.join(['c', *map(str, position)])}"
            with open_plain_file(self.store, key) as (descriptor, facts):
                if self.verifier is not None:
                    self.verifier.verify(key, descriptor, facts)
                check_decoded_size(descriptor, facts.size, metadata)
                content = os.pread(descriptor, facts.size, 0)
        except FileNotFoundError:
            check_absent(self.store, key, self.verifier)
            return None
        except OSError as error:
            raise self._damaged(name, name, error) from error
        for codec in reversed(metadata["codecs"]):
            match codec["name"]:
                case "zstd":
                    content = _ZSTD.decode(content)
                case "blosc":
                    content = _BLOSC.decode(content)
                case "bytes":
                    pass
                case other:
                    raise ValueError(f"its codec {other} is not supported")
        return np.frombuffer(content, _fill_and_dtype(metadata)[1]).reshape(shape)

    def _damaged(self, what: str, variable: str, error: object) -> HephaestusError:
        return HephaestusError(
            f"{self.frame}: {what} of the stored cube cannot be read ({variable}: {error}); "
            f"`hephaestus repair {self.frame}` rebuilds what is damaged"
        )


class _ImageStorage:
    """Storage layout of the images of one variable: nested shards of square tiles."""

    def __init__(self, shape: tuple[int, int], inner: int, dtype: np.dtype, fill: Any) -> None:
        self.shape, self.tile_size, self.dtype, self.fill = shape, inner, dtype, fill
        height, width = shard_shape(shape, inner)
        self.tiles_across = width // inner
        self.tile_count = height // inner * self.tiles_across

    @classmethod
    def from_metadata(cls, metadata: Mapping[str, Any]) -> _ImageStorage:
        """Return the layout from an array's metadata; raise ValueError if the writer uses another one."""
        height, width = metadata["shape"][-2:]
        leading = [1] * (len(metadata["shape"]) - 2)
        outer = _sharding(metadata["codecs"])
        middle = _sharding(outer["codecs"])
        inner = middle["chunk_shape"][-1]
        if middle["chunk_shape"] != [*leading, inner, inner]:
            raise ValueError(f"its tiles are {middle['chunk_shape']}")
        image = [*leading, *shard_shape((height, width), inner)]
        if not image == outer["chunk_shape"] == metadata["chunk_grid"]["configuration"]["chunk_shape"]:
            raise ValueError(f"its shards are {outer['chunk_shape']}")
        names = [codec["name"] for codec in middle["codecs"]]
        if names != ["bytes", "blosc"]:
            raise ValueError(f"its codecs are {', '.join(names)}")
        fill, dtype = _fill_and_dtype(metadata)
        return cls((height, width), inner, dtype, fill)

    def tile_parts(
        self, top: int, bottom: int, left: int, right: int
    ) -> Iterable[tuple[int, slice, slice, tuple[slice, slice]]]:
        """Yield each tile that a window touches: number, rows and columns, and their place in the window."""
        inner = self.tile_size
        for down in range(top // inner, -(-bottom // inner)):
            rows = slice(max(top - down * inner, 0), min(bottom - down * inner, inner))
            place = slice(down * inner + rows.start - top, down * inner + rows.stop - top)
            for along in range(left // inner, -(-right // inner)):
                columns = slice(max(left - along * inner, 0), min(right - along * inner, inner))
                across = slice(along * inner + columns.start - left, along * inner + columns.stop - left)
                yield down * self.tiles_across + along, rows, columns, (place, across)


class _ShardFile:
    """The open file of one image, and its index of tiles."""

    def __init__(
        self, cube: WindowReader, images: _ImageStorage, variable: str, pair: Pair | None, path: Path
    ) -> None:
        self._images = images
        self._error: Callable[[Exception], HephaestusError] = partial(
            cube._damaged, str(pair) if pair else "frame", variable
        )
        self._descriptor = -1
        self._index_entries: tuple[int, ...] = (_ABSENT, _ABSENT) * images.tile_count
        try:
            self._descriptor = os.open(path, _OPEN_FLAGS)
            facts = os.fstat(self._descriptor)
            if not stat.S_ISREG(facts.st_mode):
                raise ValueError("it is not a plain file")
            if cube.verifier is not None:
                identity = FileIdentity(facts.st_dev, facts.st_ino, facts.st_size)
                cube.verifier.verify(f"{variable}/{path.name}", self._descriptor, identity)
            self._index_entries = self._read_index(facts.st_size)
        except FileNotFoundError:  # an image that contains only fill values is not stored
            check_absent(cube.store, f"{variable}/{path.name}", cube.verifier)
        except HephaestusError:
            self.close()
            raise
        except (OSError, ValueError) as error:
            self.close()
            raise self._error(error) from error

    def __enter__(self) -> _ShardFile:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def _read_index(self, size: int) -> tuple[int, ...]:
        """Return the offset and length of every tile, from the two indexes at the end of the file."""
        outer, inner = _ENTRY + _CRC, self._images.tile_count * _ENTRY + _CRC
        if size < outer + inner:
            raise ValueError(f"the file has {size} bytes")
        tail = os.pread(self._descriptor, outer + inner, size - outer - inner)
        if _decode_index(tail[inner:]) != (0, size - outer):
            raise ValueError("the index of the shard does not match its file")
        return _decode_index(tail[:inner])

    def read_rows(self, tile: int, rows: slice) -> np.ndarray | None:
        """Return `rows` of a tile with all columns, or None if the tile is not stored.

        Only the Blosc blocks that contain `rows` are read and decoded. The result is a view of a buffer that
        the next call on this thread overwrites.
        """
        offset, length = self._index_entries[2 * tile : 2 * tile + 2]
        if offset == _ABSENT:
            return None
        images = self._images
        stride = images.tile_size * images.dtype.itemsize
        try:
            head = os.pread(self._descriptor, min(length, HEADER_BYTES), offset)
            part = slice_blosc_buffer(
                head, length, images.tile_size * stride, rows.start * stride, rows.stop * stride
            )
            encoded = _scratch_buffer("encoded", len(part.header) + part.end - part.begin)
            encoded[: len(part.header)] = np.frombuffer(part.header, np.uint8)
            rest = encoded.data[len(part.header) :]
            if os.preadv(self._descriptor, [rest], offset + part.begin) != len(rest):
                raise ValueError(f"tile {tile} is truncated")
            values = _scratch_buffer("decoded", part.decoded_size)
            _BLOSC.decode(encoded, out=values)
            values = values.view(images.dtype)
        except (OSError, ValueError, RuntimeError, struct.error) as error:
            raise self._error(error) from error
        skipped = part.first_byte // stride
        return values.reshape(-1, images.tile_size)[rows.start - skipped : rows.stop - skipped]


def _scratch_buffer(purpose: str, size: int) -> np.ndarray:
    """Return a buffer of this thread that the next call reuses; allocation is half the cost of a read."""
    memory: np.ndarray | None = getattr(_LOCAL, purpose, None)
    if memory is None or memory.size < size:
        memory = np.empty(size, np.uint8)
        setattr(_LOCAL, purpose, memory)
    return memory[:size]


def _decode_index(index: bytes) -> tuple[int, ...]:
    """Return the numbers of an index, after checking its CRC-32C."""
    table = index[:-_CRC]
    if google_crc32c.value(table) != struct.unpack("<I", index[-_CRC:])[0]:
        raise ValueError("the checksum of the shard's index is wrong")
    return struct.unpack(f"<{len(table) // 8}Q", table)


def _sharding(codecs: Any) -> Mapping[str, Any]:
    if len(codecs) != 1 or codecs[0]["name"] != "sharding_indexed":
        raise ValueError("its images are not shards")
    configuration: Mapping[str, Any] = codecs[0]["configuration"]
    if configuration["index_location"] != "end":
        raise ValueError("its index is not at the end")
    return configuration


def _fill_and_dtype(metadata: Mapping[str, Any]) -> tuple[Any, np.dtype]:
    fill = metadata["fill_value"]
    return float("nan") if fill == "NaN" else fill, np.dtype(metadata["data_type"]).newbyteorder("<")
