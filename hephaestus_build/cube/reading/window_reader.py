"""Windows of a stored cube, read from its shards: only the tiles that a window touches are decoded.

zarr-python reads the same numbers in five times the time. The layout that is read here is the one that
:mod:`hephaestus_build.cube.codecs.shard_encoder` writes; a cube that is stored in another way is refused.
"""

from __future__ import annotations

import os
import stat
import struct
import threading
from collections.abc import Callable, Iterable, Mapping
from datetime import date
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import google_crc32c
import numcodecs
import numpy as np

from hephaestus_build.core.errors import HephaestusError
from hephaestus_build.core.frames import Pair
from hephaestus_build.core.grid import Grid
from hephaestus_build.core.plain_files import FileIdentity, open_plain_file
from hephaestus_build.cube.codecs.blosc_partial import HEADER_BYTES, slice_blosc_buffer
from hephaestus_build.cube.codecs.decoded_size import check_decoded_size
from hephaestus_build.cube.codecs.shard_encoder import chunk_key, shard_shape
from hephaestus_build.cube.reading.store_metadata import read_store_metadata
from hephaestus_build.cube.reading.tile_cache import TileCache
from hephaestus_build.cube.reading.verified_objects import VerifyMode, check_absent, make_object_verifier

__all__ = ["TileCache", "WindowReader"]

# Importing it switches Blosc's own threads off: they do not survive a fork.
_LOCAL = threading.local()
_BLOSC = numcodecs.Blosc()
_ZSTD = numcodecs.Zstd()
_ABSENT = 2**64 - 1
_ENTRY = 16
_CRC = 4
_OPEN_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_FIRST_DAY = date(1970, 1, 1).toordinal()


class WindowReader:
    """Reads windows of the images of one pinned cube. It opens nothing that stays open.

    Parameters
    ----------
    store : pathlib.Path
        A generation's store; a link is followed once, here.
    recent : TileCache, optional
        Where to keep tiles: those of the DEM, which every interferogram of the frame shares, and others that
        are asked to be kept.
    verify : {"first", None}
        Whether each stored object is compared with the manifest when it is first read, once in each process:
        only blocks of it are read otherwise, and a flipped bit in them is data.

    Raises
    ------
    HephaestusError
        If there is no cube, or its metadata cannot be read.
    """

    def __init__(self, store: Path, recent: TileCache | None = None, *, verify: VerifyMode = None) -> None:
        self.store = store.resolve()
        self.frame = store.stem
        self.verifier = make_object_verifier(self.store, verify)
        self._tile_cache = recent if recent is not None else TileCache(64 << 20)
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
                    f"{self.frame}: {variable} is not stored as this version reads it ({error}); "
                    f"`hephaestus build {self.frame}` writes the cube anew"
                ) from error
        return self._image_storages[variable]

    def read(
        self,
        variable: str,
        pair: Pair | None,
        row: int,
        column: int,
        out: np.ndarray,
        *,
        keep: bool = False,
    ) -> np.ndarray:
        """Read the window of an image that begins at `row` and `column` into `out`, and return it.

        Parameters
        ----------
        variable : str
            On the frame's grid, by pair or without a date.
        pair : Pair or None
            Whose image; None for ``dem``. A pair that is not stored reads as the fill value.
        row, column : int
            First pixel. The window may reach beyond the frame, on any side.
        out : numpy.ndarray
            Shape (rows, columns), of the variable's dtype. Beyond the frame it holds the fill value.
        keep : bool
            Whether to keep the tiles, since the next windows are of the same image.

        Raises
        ------
        HephaestusError
            If what is stored is damaged.
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

    def iter_tiles(self, variable: str, pair: Pair) -> Iterable[tuple[int, int, np.ndarray]]:
        """Yield first row, first column and values of each stored tile of an image, cut at the frame's edge.

        What lies in no tile is fill: an image of a few marked pixels is read in no time.
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
        """Read a window of an image whose tiles are kept."""
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
        """Return where the image is stored; None where the axes do not know the pair."""
        if pair is None:
            return self.store / chunk_key(variable, (), 2)
        leading = self.pair_position(pair)
        return None if leading is None else self.store / chunk_key(variable, leading, 2)

    def pair_position(self, pair: Pair) -> tuple[int, int] | None:
        """Return the places of a pair's dates on the two axes; None where the axes do not know them."""
        primary, secondary = self._positions["primary_date"], self._positions["secondary_date"]
        try:
            return primary[pair.primary.toordinal()], secondary[pair.secondary.toordinal()]
        except KeyError:
            return None

    @cached_property
    def _positions(self) -> dict[str, dict[int, int]]:
        """Position of each day (ordinal) on the date axes."""
        return {
            axis: {int(day) + _FIRST_DAY: index for index, day in enumerate(self.read_table(axis).tolist())}
            for axis in ("primary_date", "secondary_date", "epoch")
        }

    def read_table(self, name: str) -> np.ndarray:
        """Return a coordinate or table that is stored whole, as it is stored.

        Raises
        ------
        HephaestusError
            If there is none of that name, or it is damaged.
        """
        try:
            metadata = self._metadata[name]
            shape = tuple(metadata["shape"])
            if metadata["chunk_grid"]["configuration"]["chunk_shape"] != list(shape):
                raise ValueError("it is stored in parts")
            values = self._read_chunk(name, (0,) * len(shape), shape)
        except (ValueError, KeyError, TypeError, RuntimeError) as error:
            raise self._damaged(name, name, error) from error
        return values if values is not None else np.full(shape, *_fill_and_dtype(metadata))

    def read_coordinate(self, name: str) -> np.ndarray:
        """Return a coordinate as :meth:`table` does; it is read once."""
        if name not in self._coordinates:
            self._coordinates[name] = self.read_table(name)
        return self._coordinates[name]

    def read_epoch(self, variables: Iterable[str], day: date) -> np.ndarray:
        """Return fields of one date on ERA5's own grid, float32 (variables, n, m); NaN where owed.

        Raises
        ------
        HephaestusError
            If they are damaged.
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
        """Return a chunk that is stored by itself; None where there is none."""
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
                    raise ValueError(f"its codec {other} is not known")
        return np.frombuffer(content, _fill_and_dtype(metadata)[1]).reshape(shape)

    def _damaged(self, what: str, variable: str, error: object) -> HephaestusError:
        return HephaestusError(
            f"{self.frame}: {what} of the stored cube cannot be read ({variable}: {error}); "
            f"`hephaestus repair {self.frame}` rebuilds what is damaged"
        )


class _ImageStorage:
    """How the images of one variable are stored: nested shards of square tiles."""

    def __init__(self, shape: tuple[int, int], inner: int, dtype: np.dtype, fill: Any) -> None:
        self.shape, self.tile_size, self.dtype, self.fill = shape, inner, dtype, fill
        height, width = shard_shape(shape, inner)
        self.tiles_across = width // inner
        self.tile_count = height // inner * self.tiles_across

    @classmethod
    def from_metadata(cls, metadata: Mapping[str, Any]) -> _ImageStorage:
        """Read it from an array's metadata, and check that it is as the writer writes it."""
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
        """Yield, for each tile that a window touches: its number, its rows and columns, their place there."""
        inner = self.tile_size
        for down in range(top // inner, -(-bottom // inner)):
            rows = slice(max(top - down * inner, 0), min(bottom - down * inner, inner))
            place = slice(down * inner + rows.start - top, down * inner + rows.stop - top)
            for along in range(left // inner, -(-right // inner)):
                columns = slice(max(left - along * inner, 0), min(right - along * inner, inner))
                across = slice(along * inner + columns.start - left, along * inner + columns.stop - left)
                yield down * self.tiles_across + along, rows, columns, (place, across)


class _ShardFile:
    """One image's file, open."""

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
                raise ValueError("it is no plain file")
            if cube.verifier is not None:
                identity = FileIdentity(facts.st_dev, facts.st_ino, facts.st_size)
                cube.verifier.verify(f"{variable}/{path.name}", self._descriptor, identity)
            self._index_entries = self._read_index(facts.st_size)
        except FileNotFoundError:  # an image without a pixel that is not fill
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
        """Return offset and length of every tile, from the two indexes at the end of a file of `size`."""
        outer, inner = _ENTRY + _CRC, self._images.tile_count * _ENTRY + _CRC
        if size < outer + inner:
            raise ValueError(f"the file has {size} bytes")
        tail = os.pread(self._descriptor, outer + inner, size - outer - inner)
        if _decode_index(tail[inner:]) != (0, size - outer):
            raise ValueError("the index of the shard does not fit its file")
        return _decode_index(tail[:inner])

    def read_rows(self, tile: int, rows: slice) -> np.ndarray | None:
        """Return `rows` of a tile, all columns, until the next call; None where it is not stored.

        Blosc cuts a tile into blocks that are encoded apart; only those that hold `rows` are decoded.
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
                raise ValueError(f"tile {tile} is cut short")
            values = _scratch_buffer("decoded", part.decoded_size)
            _BLOSC.decode(encoded, out=values)
            values = values.view(images.dtype)
        except (OSError, ValueError, RuntimeError, struct.error) as error:
            raise self._error(error) from error
        skipped = part.first_byte // stride
        return values.reshape(-1, images.tile_size)[rows.start - skipped : rows.stop - skipped]


def _scratch_buffer(purpose: str, size: int) -> np.ndarray:
    """Return memory of this thread that the next call hands out again: fresh memory is half the cost."""
    memory: np.ndarray | None = getattr(_LOCAL, purpose, None)
    if memory is None or memory.size < size:
        memory = np.empty(size, np.uint8)
        setattr(_LOCAL, purpose, memory)
    return memory[:size]


def _decode_index(index: bytes) -> tuple[int, ...]:
    """Return the numbers of an index whose checksum is right."""
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
