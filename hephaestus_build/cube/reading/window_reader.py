"""Reader of windows of a cube's images, which decodes only the blocks that a window touches.

It is several times faster than zarr-python and reads only the layout that
:mod:`hephaestus_build.cube.codecs.image_encoder` writes:

1. An image is stored in strips of columns, each a file: a Blosc buffer of the full height of the image.
2. A window selects strips. With strips of 1000 columns, the window of columns 900 to 1199 touches the last
   100 columns of the first strip and the first 200 of the second.
3. A Blosc buffer begins with a header that has the offset of each block, and its blocks can be decoded
   separately. Only the blocks that contain the wanted rows are read and decoded
   (:mod:`hephaestus_build.cube.codecs.blosc_partial`). A block of phase has 512 KiB, so 131 rows of 1000
   columns.
"""

from __future__ import annotations

import os
import stat
import struct
import threading
from collections.abc import Hashable, Iterable, Mapping
from datetime import date
from functools import cached_property
from pathlib import Path
from typing import Any

import numcodecs
import numpy as np
import numpy.typing as npt

from hephaestus_build.core.concurrency import SharedCache, make_array_cache
from hephaestus_build.core.errors import HephaestusError, UsageError
from hephaestus_build.core.frames import Pair
from hephaestus_build.core.grid import Grid
from hephaestus_build.core.plain_files import FileIdentity, open_plain_file
from hephaestus_build.core.registry import describe_misnamed
from hephaestus_build.cube.codecs.blosc_partial import HEADER_BYTES, slice_blosc_buffer
from hephaestus_build.cube.codecs.decoded_size import check_decoded_size
from hephaestus_build.cube.key_spaces import KeySpace
from hephaestus_build.cube.reading.store_metadata import read_store_metadata
from hephaestus_build.cube.reading.verified_objects import (
    VerifyMode,
    check_absent,
    is_retired,
    make_object_verifier,
)
from hephaestus_build.cube.schema import cube_schema, describe_not_built
from hephaestus_build.cube.storage.generations import pinned_store

# importing image_encoder switches off Blosc's own threads, which do not survive a fork
_LOCAL = threading.local()
_BLOSC = numcodecs.Blosc()
_ZSTD = numcodecs.Zstd()
_OPEN_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_FIRST_DAY = date(1970, 1, 1).toordinal()


class WindowReader:
    """Reader of windows of one pinned cube; it keeps no file open.

    Parameters
    ----------
    store : pathlib.Path
        Store of a generation. A link is resolved once, here.
    recent : SharedCache, optional
        Cache of decoded strips, for the DEM, which all interferograms share, and for reads with `keep`. By
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
        try:
            self.store = pinned_store(store)
        except (OSError, RuntimeError, ValueError):  # reading its metadata reports why
            self.store = store.absolute()
        self.frame = store.stem
        self.verifier = make_object_verifier(self.store, verify)
        self._strip_cache = recent if recent is not None else make_array_cache(64 << 20)
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

    def has_variable(self, name: str) -> bool:
        """Return whether the cube has a variable of this name."""
        return name in self._metadata

    def image_storage(self, variable: str) -> _ImageStorage:
        """Return how the images of `variable` are stored."""
        if variable not in self._image_storages:
            self._require_array(variable, image=True)
            try:
                self._image_storages[variable] = _ImageStorage.from_metadata(self._metadata[variable])
            except (ValueError, KeyError, TypeError, IndexError) as error:
                raise HephaestusError(
                    f"{self.frame}: {variable} is stored in a layout that this version does not read "
                    f"({error}); `hephaestus migrate {self.frame}` brings an older cube over"
                ) from error
        return self._image_storages[variable]

    def _require_array(self, name: str, *, image: bool) -> None:
        """Raise an error if `name` is no array of a cube or of this one, or no image where one is asked for.

        An array that should be there and is not is reported as damage where it is read.
        """
        variable = cube_schema().variables.get(name)
        if variable is None:
            if name not in self._metadata:
                raise UsageError(f"{self.frame}: {describe_misnamed(name, image=image)}")
        elif image and not variable.is_georeferenced:
            raise UsageError(f"{self.frame}: {describe_misnamed(name, image=True)}")
        elif variable.optional and name not in self._metadata:
            raise UsageError(describe_not_built(self.frame, variable))

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
            Whether to put the decoded strips into the cache, for further windows of the same image.

        Returns
        -------
        numpy.ndarray
            `out`.

        Raises
        ------
        UsageError
            If `variable` is no image of a cube; the message names those that are near.
        HephaestusError
            If a stored object is damaged.
        """
        images = self.image_storage(variable)
        height, width = images.shape
        top, left = max(row, 0), max(column, 0)
        bottom, right = min(row + out.shape[0], height), min(column + out.shape[1], width)
        place = () if pair is None else self.pair_position(pair)
        if place is None or (bottom - top, right - left) != out.shape:
            out[...] = images.fill
        if place is None or top >= bottom or left >= right:
            return out
        target = out[top - row : bottom - row, left - column : right - column]
        for strip, columns, part in images.strip_parts(left, right):
            if keep or pair is None:
                values = self._read_cached_strip(images, variable, pair, place, strip)
                values = None if values is None else values[top:bottom]
            else:
                values = self._read_strip(images, variable, pair, place, strip, slice(top, bottom))
            target[:, part] = images.fill if values is None else values[:, columns]
        return out

    def iter_strips(self, variable: str, pair: Pair) -> Iterable[tuple[int, npt.NDArray[Any]]]:
        """Yield the first column and the values of each stored strip, cropped to the frame.

        Strips that contain only fill values are not stored and not yielded. The values are a view of a
        buffer that the next read on this thread overwrites.
        """
        images = self.image_storage(variable)
        place = self.pair_position(pair)
        if place is None:
            return
        height, width = images.shape
        for strip in range(images.strip_count):
            values = self._read_strip(images, variable, pair, place, strip, slice(0, height))
            if values is not None:
                column = strip * images.strip_width
                yield column, values[:, : width - column]

    def read_union(self, variable: str, pairs: Iterable[Pair]) -> npt.NDArray[np.uint8]:
        """Return the highest code of each pixel over several pairs: uint8, in the frame's shape."""
        union = np.zeros(self.shape, np.uint8)
        for pair in pairs:
            for column, values in self.iter_strips(variable, pair):
                part = union[:, column : column + values.shape[1]]
                np.maximum(part, values, out=part)
        return union

    def _read_cached_strip(
        self, images: _ImageStorage, variable: str, pair: Pair | None, place: tuple[int, ...], strip: int
    ) -> np.ndarray | None:
        """Return a strip of an image through the cache, or None if it is not stored."""
        key = self.store, variable, pair, strip
        values: np.ndarray | None = self._strip_cache.get(key)
        if values is None:
            values = self._read_strip(images, variable, pair, place, strip, slice(0, images.shape[0]))
            if values is not None:
                values = values.copy()
                self._strip_cache.put(key, values)
        return values

    def _read_strip(
        self,
        images: _ImageStorage,
        variable: str,
        pair: Pair | None,
        place: tuple[int, ...],
        strip: int,
        rows: slice,
    ) -> np.ndarray | None:
        """Return `rows` of a strip with all its columns, or None if the strip is not stored.

        Only the Blosc blocks that contain `rows` are read and decoded. The result is a view of a buffer that
        the next call on this thread overwrites.
        """
        key = images.key_space.chunk_key(variable, place, 2, strip)
        descriptor = -1
        try:
            # as text: joining paths as objects takes a twentieth of the time of a window
            descriptor = os.open(f"{self.store}/{key}", _OPEN_FLAGS)
            facts = os.fstat(descriptor)
            if not stat.S_ISREG(facts.st_mode):
                raise ValueError("it is not a plain file")
            if self.verifier is not None:
                identity = FileIdentity(facts.st_dev, facts.st_ino, facts.st_size)
                self.verifier.verify(key, descriptor, identity)
            if is_retired(descriptor, facts.st_size):
                return None
            return _decode_rows(descriptor, facts.st_size, images, rows)
        except FileNotFoundError:  # a strip that contains only fill values is not stored
            check_absent(self.store, key, self.verifier)
            return None
        except HephaestusError:
            raise
        except (OSError, ValueError, RuntimeError, struct.error) as error:
            raise self._damaged(str(pair) if pair else "frame", variable, error) from error
        finally:
            if descriptor >= 0:
                os.close(descriptor)

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
        self._require_array(name, image=False)
        try:
            metadata = self._metadata[name]
            shape = tuple(metadata["shape"])
            chunk = tuple(metadata["chunk_grid"]["configuration"]["chunk_shape"])
            if any(size > stored for size, stored in zip(shape, chunk, strict=True)):
                raise ValueError("it is stored in several chunks")
            values = self._read_chunk(name, (), chunk)
        except (ValueError, KeyError, TypeError, RuntimeError) as error:
            raise self._damaged(name, name, error) from error
        if values is None:
            return np.full(shape, *_fill_and_dtype(metadata))
        return values[tuple(map(slice, shape))]  # chunks are padded along the dates

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
                values = None if position is None else self._read_chunk(name, (position,), shape)
            except (ValueError, KeyError, TypeError, RuntimeError) as error:
                raise self._damaged(f"{day:%Y%m%d} {name}", name, error) from error
            fields.append(np.full(shape, np.nan, np.float32) if values is None else values)
        return np.stack(fields)

    def _read_chunk(self, name: str, leading: tuple[int, ...], shape: tuple[int, ...]) -> np.ndarray | None:
        """Return the chunk at a position on the leading dimensions, or None if it is not stored."""
        metadata = self._metadata[name]
        key = KeySpace.from_metadata(metadata).chunk_key(name, leading, len(shape))
        try:
            with open_plain_file(self.store, key) as (descriptor, facts):
                if self.verifier is not None:
                    self.verifier.verify(key, descriptor, facts)
                if is_retired(descriptor, facts.size):
                    return None
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
    """Storage layout of the images of one variable: strips of columns."""

    def __init__(
        self, shape: tuple[int, int], strip_width: int, dtype: np.dtype, fill: Any, key_space: KeySpace
    ) -> None:
        self.shape, self.strip_width, self.dtype, self.fill = shape, strip_width, dtype, fill
        self.key_space = key_space
        self.strip_count = -(-shape[1] // strip_width)

    @classmethod
    def from_metadata(cls, metadata: Mapping[str, Any]) -> _ImageStorage:
        """Return the layout from an array's metadata; raise ValueError if the writer uses another one."""
        height, width = metadata["shape"][-2:]
        chunk = metadata["chunk_grid"]["configuration"]["chunk_shape"]
        if chunk[:-1] != [*[1] * (len(metadata["shape"]) - 2), height]:
            raise ValueError(f"its chunks are {chunk}")
        names = [codec["name"] for codec in metadata["codecs"]]
        if names != ["bytes", "blosc"]:
            raise ValueError(f"its codecs are {', '.join(names)}")
        fill, dtype = _fill_and_dtype(metadata)
        return cls((height, width), chunk[-1], dtype, fill, KeySpace.from_metadata(metadata))

    def strip_parts(self, left: int, right: int) -> Iterable[tuple[int, slice, slice]]:
        """Yield each strip that a range of columns touches: number, its columns, their place in the range."""
        for strip in range(left // self.strip_width, -(-right // self.strip_width)):
            start = strip * self.strip_width
            columns = slice(max(left - start, 0), min(right - start, self.strip_width))
            yield strip, columns, slice(start + columns.start - left, start + columns.stop - left)


def _decode_rows(descriptor: int, size: int, images: _ImageStorage, rows: slice) -> np.ndarray:
    """Decode the blocks of an open strip that contain `rows`, and return these rows."""
    stride = images.strip_width * images.dtype.itemsize
    head = os.pread(descriptor, min(size, HEADER_BYTES), 0)
    part = slice_blosc_buffer(head, size, images.shape[0] * stride, rows.start * stride, rows.stop * stride)
    encoded = _scratch_buffer("encoded", len(part.header) + part.end - part.begin)
    encoded[: len(part.header)] = np.frombuffer(part.header, np.uint8)
    rest = encoded.data[len(part.header) :]
    if os.preadv(descriptor, [rest], part.begin) != len(rest):
        raise ValueError("it is truncated")
    values = _scratch_buffer("decoded", part.decoded_size)
    _BLOSC.decode(encoded, out=values)
    # blocks need not begin at the beginning of a row
    first = rows.start * stride - part.first_byte
    wanted = values[first : first + (rows.stop - rows.start) * stride]
    return wanted.view(images.dtype).reshape(-1, images.strip_width)


def _scratch_buffer(purpose: str, size: int) -> np.ndarray:
    """Return a buffer of this thread that the next call reuses; allocation is half the cost of a read."""
    memory: np.ndarray | None = getattr(_LOCAL, purpose, None)
    if memory is None or memory.size < size:
        memory = np.empty(size, np.uint8)
        setattr(_LOCAL, purpose, memory)
    return memory[:size]


def _fill_and_dtype(metadata: Mapping[str, Any]) -> tuple[Any, np.dtype]:
    fill = metadata["fill_value"]
    return float("nan") if fill == "NaN" else fill, np.dtype(metadata["data_type"]).newbyteorder("<")
