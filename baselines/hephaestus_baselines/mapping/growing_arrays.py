"""Zarr arrays that can be appended to, and whose chunks can be replaced without disturbing open readers.

Zarr has three encodings for the key of a chunk: ``c/3/0/0``, ``c.3.0.0`` and ``3.0.0``. The array's metadata
states which one is in use, and the metadata of all arrays is one document, replaced by one rename. Chunks are
replaced in three steps. For example, to replace chunk 1 (b) by B:

1. Choose an encoding that is not in use. Write the new chunk under its key there.
2. Hard-link every unchanged chunk to its key in that encoding.
3. Replace ``zarr.json`` by one that states the new encoding::

    before            after steps 1, 2   after step 3
    c/0/0/0  a        c/0/0/0  a         c/0/0/0  a      still read by readers that opened the group before
    c/1/0/0  b        c/1/0/0  b         c/1/0/0  b
                      c.0.0.0  a         c.0.0.0  a      the same file as c/0/0/0
                      c.1.0.0  B         c.1.0.0  B

A file that a published document refers to is never overwritten, except for tables, where rows are only
appended. Replaced files are removed a day later, or earlier if a third replacement needs their keys.
"""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Collection, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import zarr
from zarr.core.buffer import default_buffer_prototype
from zarr.storage import MemoryStore

from hephaestus_build.core.atomic_io import link_or_copy, write_atomic
from hephaestus_build.core.errors import HephaestusError
from hephaestus_build.core.parsing import parse_json
from hephaestus_build.core.plain_files import (
    UnsafePathError,
    is_plain_file,
    is_real_folder,
    read_plain_file,
    remove_folder,
)

#: Chunk key encodings. ``v2`` with "/" is left out: for arrays with one axis it gives the same keys as "v2"
#: with ".".
_KEY_ENCODINGS = (("default", "/"), ("default", "."), ("v2", "."))
_KEY_PATTERNS = (re.compile(r"c"), re.compile(r"c\.[0-9.]+"), re.compile(r"[0-9][0-9.]*"))
_LEFTOVER_PATTERN = re.compile(r"\..+\.[0-9a-f]{12}")  # temporary file of a write that was interrupted
_CODECS = {"bytes", "blosc", "zstd", "gzip", "crc32c"}
_DATA_TYPES = {"float32", "int32", "int64"}
_METADATA_FILE = "zarr.json"
_MAX_METADATA_BYTES = 16 << 20  # bytes of zarr.json
_MAX_LENGTH = 1_000_000  # along the first axis
#: Seconds for which replaced files are kept for readers that have them open.
REPLACED_FILES_GRACE = 86_400.0


class GrowingArrays:
    """Arrays of a Zarr group on disk that share a growing first axis.

    Parameters
    ----------
    path : pathlib.Path
        Path of the group.
    names : collection of str
        Names of the growing arrays. The first holds one chunk per place; the others are small tables. When
        chunks are replaced, the last array is written last.

    Raises
    ------
    ValueError
        If the group does not exist, or its arrays are not stored as this module stores them.
    OSError
        If the group cannot be read.
    """

    def __init__(self, path: Path, names: Collection[str]) -> None:
        if not is_real_folder(path):
            raise UnsafePathError("it is a link or a file, not a folder", path)
        self.path, self.names = path, tuple(names)
        document = parse_json(read_plain_file(path, _METADATA_FILE, _MAX_METADATA_BYTES))
        self._document: dict[str, Any] = document
        arrays = document["consolidated_metadata"]["metadata"]
        self._arrays: dict[str, dict[str, Any]] = {name: arrays[name] for name in self.names}
        spaces = {_check_array(name, array) for name, array in self._arrays.items()}
        if len(spaces) != 1 or len({array["shape"][0] for array in self._arrays.values()}) != 1:
            raise ValueError("its arrays differ in length or chunk key encoding")
        (self._encoding,) = spaces
        for array in arrays.values():  # including the coordinates
            _check_codecs(array)
        self._replacement_encoding: int | None = None

    @property
    def length(self) -> int:
        """Published length along the first axis."""
        return int(self._arrays[self.names[0]]["shape"][0])

    def write_new_chunk(self, name: str, place: int, values: npt.NDArray[Any]) -> None:
        """Write a chunk at a place beyond the published length.

        Parameters
        ----------
        name : str
            Name of the array.
        place : int
            Position of the chunk along the first axis.
        values : numpy.ndarray
            Values of the chunk; its first axis has length 1.

        Raises
        ------
        ValueError
            If the place is published already.
        """
        if place < self.length:
            raise ValueError("published chunks are never overwritten")
        self._write_chunk(name, self._encoding, place, values)

    def write_replacement(self, name: str, place: int, values: npt.NDArray[Any]) -> None:
        """Write a replacement for a published chunk; :meth:`publish_replacements` makes it visible.

        Parameters
        ----------
        name : str
            Name of the array.
        place : int
            Position of the chunk along the first axis.
        values : numpy.ndarray
            New values of the chunk; its first axis has length 1.
        """
        if self._replacement_encoding is None:
            self._replacement_encoding = self._clear_oldest_encoding()
        self._write_chunk(name, self._replacement_encoding, place, values)

    def publish_new(self, tables: Mapping[str, npt.NDArray[Any]], first: int) -> None:
        """Publish chunks that were appended.

        Parameters
        ----------
        tables : mapping of str to numpy.ndarray
            Complete content of the other arrays; rows before `first` must be unchanged.
        first : int
            First new place along the first axis.
        """
        for name, values in tables.items():
            self._write_table(name, self._encoding, values, first)
        self._publish_encoding(self._encoding, len(next(iter(tables.values()))))

    def publish_replacements(
        self, name: str, changed: Collection[int], tables: Mapping[str, npt.NDArray[Any]]
    ) -> None:
        """Publish the chunks written by :meth:`write_replacement`, together with all unchanged chunks.

        Parameters
        ----------
        name : str
            Name of the array whose chunks were replaced.
        changed : collection of int
            Places of the replaced chunks.
        tables : mapping of str to numpy.ndarray
            Complete content of the other arrays.
        """
        assert self._replacement_encoding is not None
        was, space = self._encoding, self._replacement_encoding
        for place in range(self.length):
            if place not in changed:
                self._link_chunk(name, place, was, space)
        for other in self.names[1:]:
            self._write_table(other, space, tables[other], 0)
        self._publish_encoding(space, self.length)
        with suppress(OSError):  # records when the old encoding was replaced
            os.utime(self._marker_path(was))
        self._replacement_encoding = None

    def remove_leftovers(self) -> None:
        """Remove files that were never published, and files replaced more than a day ago.

        Raises
        ------
        OSError
            If a file cannot be removed.
        """
        self._write_array_metadata()  # missing if a process was killed right after the rename
        self._replacement_encoding = None
        for space in range(len(_KEY_ENCODINGS)):
            if (
                space != self._encoding
                and not 0 <= self._seconds_since_replaced(space) < REPLACED_FILES_GRACE
            ):
                self._remove_chunks(space)
        for folder in (self.path, *(self.path / name for name in self.names)):
            for inside, _, files in os.walk(folder):
                for left in filter(_LEFTOVER_PATTERN.fullmatch, files):
                    Path(inside, left).unlink(missing_ok=True)

    def _publish_encoding(self, space: int, length: int) -> None:
        kind, separator = _KEY_ENCODINGS[space]
        for array in self._arrays.values():
            array["shape"][0] = length
            array["chunk_key_encoding"] = {"name": kind, "configuration": {"separator": separator}}
        self._write_file(_METADATA_FILE, json.dumps(self._document).encode())
        self._encoding = space
        self._write_array_metadata()

    def _write_array_metadata(self) -> None:
        """Write the metadata file of each array, for readers that open a single array."""
        for name, array in self._arrays.items():
            content = json.dumps(array).encode()
            if _read_or_empty(self.path, f"{name}/{_METADATA_FILE}") != content:
                self._write_file(f"{name}/{_METADATA_FILE}", content)

    def _write_chunk(self, name: str, space: int, place: int, values: np.ndarray) -> None:
        array = self._arrays[name]
        content = _encode_chunk({**array, "shape": [1, *array["shape"][1:]]}, values)
        self._write_file(
            f"{name}/{encode_chunk_key(space, (place, *(0 for _ in values.shape[1:])))}", content
        )

    def _write_table(self, name: str, space: int, values: np.ndarray, first: int) -> None:
        """Write the chunks of a table that hold row `first` and all rows after it."""
        array = self._arrays[name]
        rows = array["chunk_grid"]["configuration"]["chunk_shape"][0]
        for chunk in range(first // rows, -(-len(values) // rows)):
            part = values[chunk * rows : (chunk + 1) * rows]
            content = _encode_chunk({**array, "shape": list(part.shape)}, part)
            self._write_file(
                f"{name}/{encode_chunk_key(space, (chunk, *(0 for _ in part.shape[1:])))}", content
            )

    def _write_file(self, name: str, content: bytes) -> None:
        target = self.path / name
        self._check_folders(target)
        write_atomic(target, content)

    def _link_chunk(self, name: str, place: int, was: int, space: int) -> None:
        inner = (0,) * (len(self._arrays[name]["shape"]) - 1)
        source, target = (self.path / name / encode_chunk_key(each, (place, *inner)) for each in (was, space))
        if not os.path.lexists(source):  # a chunk of fill values only is not stored
            return
        if not is_plain_file(self.path, f"{name}/{encode_chunk_key(was, (place, *inner))}"):
            raise UnsafePathError("it is not a regular file", source)
        self._check_folders(target)
        link_or_copy(source, target)

    def _check_folders(self, target: Path) -> None:
        for folder in target.parents:
            if not is_real_folder(folder) and os.path.lexists(folder):
                raise HephaestusError(
                    f"{self.path.stem}: {folder} is a link or a file, and must be a folder of the maps; "
                    f"move {self.path} away and run the same command again"
                )
            if folder == self.path:
                return

    def _marker_path(self, space: int) -> Path:
        """Return the path of the file that is written last in an encoding."""
        return self.path / self.names[-1] / encode_chunk_key(space, (0,))

    def _seconds_since_replaced(self, space: int) -> float:
        """Return the seconds since an encoding was replaced, or -1 if it was never published."""
        try:
            return max(0.0, time.time() - self._marker_path(space).lstat().st_mtime)
        except OSError:
            return -1.0

    def _clear_oldest_encoding(self) -> int:
        """Return an unused encoding, after removing the files of the one replaced first if none is free."""
        others = [space for space in range(len(_KEY_ENCODINGS)) if space != self._encoding]
        found = min(
            others,
            key=lambda space: (
                -self._seconds_since_replaced(space) if self._seconds_since_replaced(space) >= 0 else -np.inf
            ),
        )
        self._remove_chunks(found)
        return found

    def _remove_chunks(self, space: int) -> None:
        for name in self.names:
            folder = self.path / name
            self._check_folders(folder / _METADATA_FILE)
            with os.scandir(folder) as entries:
                found = [entry for entry in entries if _KEY_PATTERNS[space].fullmatch(entry.name)]
            for entry in found:
                if entry.is_dir(follow_symlinks=False):
                    remove_folder(folder, entry.name)
                else:
                    Path(entry).unlink(missing_ok=True)


def encode_chunk_key(space: int, position: tuple[int, ...]) -> str:
    """Return the key of the chunk at a position in an encoding."""
    kind, separator = _KEY_ENCODINGS[space]
    return separator.join([*(["c"] if kind == "default" else []), *map(str, position)])


def _check_array(name: str, array: Mapping[str, Any]) -> int:
    """Return the chunk key encoding of an array.

    Raises
    ------
    ValueError
        If the array is not stored as this module stores arrays.
    """
    shape, encoding = array["shape"], array["chunk_key_encoding"]
    chunks = array["chunk_grid"]["configuration"]["chunk_shape"]
    separator = encoding.get("configuration", {}).get("separator")
    space = (encoding["name"], separator or ("/" if encoding["name"] == "default" else "."))
    if (
        space not in _KEY_ENCODINGS
        or not 0 <= shape[0] <= _MAX_LENGTH
        or array["data_type"] not in _DATA_TYPES
        or list(chunks[1:]) != list(shape[1:])
        or array["node_type"] != "array"
        or not 1 <= chunks[0] <= 4096
    ):
        raise ValueError(f"array {name} has an unexpected layout")
    return _KEY_ENCODINGS.index(space)


def _check_codecs(array: Mapping[str, Any]) -> None:
    if not {codec["name"] for codec in array["codecs"]} <= _CODECS:
        raise ValueError("it uses an unexpected codec")


def _encode_chunk(document: Mapping[str, Any], values: np.ndarray) -> bytes:
    """Return `values` encoded as one chunk, with the codecs that the array's metadata states."""
    make = default_buffer_prototype().buffer.from_bytes
    objects: dict[str, Any] = {_METADATA_FILE: make(json.dumps(document).encode())}
    array = zarr.open_array(
        MemoryStore(objects), mode="r+", zarr_format=3, config={"write_empty_chunks": True}
    )
    array[...] = values
    (content,) = (item.to_bytes() for name, item in objects.items() if name != _METADATA_FILE)
    return content


def _read_or_empty(folder: Path, name: str) -> bytes:
    try:
        return read_plain_file(folder, name, _MAX_METADATA_BYTES)
    except (OSError, ValueError):
        return b""
