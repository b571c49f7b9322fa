"""Arrays of a Zarr group that grow along their first axis, and whose parts are replaced under new keys.

Zarr names a chunk by its position, in one of three ways: ``c/3/0/0``, ``c.3.0.0`` or ``3.0.0``. The array's
metadata says in which, and the metadata of all arrays is one document, replaced by one rename. To replace
chunks, those that stay are linked to their names in another way (a *space*), the others are written there,
and the document is switched::

    before            beside             after the rename of zarr.json
    c/0/0/0  a        c/0/0/0  a         c/0/0/0  a      for readers that opened it before
    c/1/0/0  b        c/1/0/0  b         c/1/0/0  b
                      c.0.0.0  a         c.0.0.0  a      the same file as c/0/0/0
                      c.1.0.0  B         c.1.0.0  B

No file that a published document names is ever written again, but for tables, which only get longer. Readers
that opened the group before go on reading their own files; these are removed a day later, or when a third
replacement needs their names.
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

#: The ways to name chunks; of arrays with one axis the two separators of ``v2`` would give the same names.
_KEY_ENCODINGS = (("default", "/"), ("default", "."), ("v2", "."))
_KEY_PATTERNS = (re.compile(r"c"), re.compile(r"c\.[0-9.]+"), re.compile(r"[0-9][0-9.]*"))
_LEFTOVER_PATTERN = re.compile(
    r"\..+\.[0-9a-f]{12}"
)  # what a killed process leaves of a file that it was writing
_CODECS = {"bytes", "blosc", "zstd", "gzip", "crc32c"}
_DATA_TYPES = {"float32", "int32", "int64"}
_METADATA_FILE = "zarr.json"
_MAX_METADATA_BYTES = 16 << 20  # bytes of the document
_MAX_LENGTH = 1_000_000  # along the first axis
#: Seconds for which replaced files stay, for the readers that opened them.
REPLACED_FILES_GRACE = 86_400.0


class GrowingArrays:
    """Some arrays of a Zarr group on disk, and the document that publishes them.

    Parameters
    ----------
    path : pathlib.Path
        Of the group.
    names : sequence of str
        Its arrays whose first axis grows; the last one is written last where chunks are replaced.

    Raises
    ------
    ValueError
        If there is no such group, or its arrays are stored in another way than this program's are.
    OSError
        If it cannot be read.
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
            raise ValueError("its arrays do not belong together")
        (self._encoding,) = spaces
        for array in arrays.values():  # of the coordinates too
            _check_codecs(array)
        self._replacement_encoding: int | None = None

    @property
    def length(self) -> int:
        """Along the first axis, as published."""
        return int(self._arrays[self.names[0]]["shape"][0])

    def write_new_chunk(self, name: str, place: int, values: np.ndarray) -> None:
        """Write the chunk at a place that is not published yet."""
        if place < self.length:
            raise ValueError("what is published is not written again")
        self._write_chunk(name, self._encoding, place, values)

    def write_replacement(self, name: str, place: int, values: np.ndarray) -> None:
        """Write a chunk that will be in the place of a published one; nobody sees it yet."""
        if self._replacement_encoding is None:
            self._replacement_encoding = self._clear_oldest_encoding()
        self._write_chunk(name, self._replacement_encoding, place, values)

    def publish_new(self, tables: Mapping[str, np.ndarray], first: int) -> None:
        """Publish chunks that were appended.

        Parameters
        ----------
        tables : mapping of str to numpy.ndarray
            The whole of each of the other arrays, which are small; only what is new differs.
        first : int
            The first place that is new.
        """
        for name, values in tables.items():
            self._write_table(name, self._encoding, values, first)
        self._publish_encoding(self._encoding, len(next(iter(tables.values()))))

    def publish_replacements(
        self, name: str, changed: Collection[int], tables: Mapping[str, np.ndarray]
    ) -> None:
        """Publish chunks that were written beside others, and all others with them.

        Parameters
        ----------
        name : str
            The array that they are of.
        changed : collection of int
            Their places.
        tables : mapping of str to numpy.ndarray
            The whole of each of the other arrays.
        """
        assert self._replacement_encoding is not None
        was, space = self._encoding, self._replacement_encoding
        for place in range(self.length):
            if place not in changed:
                self._link_chunk(name, place, was, space)
        for other in self.names[1:]:
            self._write_table(other, space, tables[other], 0)
        self._publish_encoding(space, self.length)
        with suppress(OSError):  # since when it is not published any more
            os.utime(self._marker_path(was))
        self._replacement_encoding = None

    def remove_leftovers(self) -> None:
        """Remove what was never published, and what was replaced longer ago than readers need it.

        Raises
        ------
        OSError
            If something cannot be removed.
        """
        self._write_array_metadata()  # of a process that was killed after the rename
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
        """Give each array its own document, for readers that ask for an array alone."""
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
        """Write the chunks of an array that hold its rows from the first on."""
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
        if not os.path.lexists(source):  # an image without a value
            return
        if not is_plain_file(self.path, f"{name}/{encode_chunk_key(was, (place, *inner))}"):
            raise UnsafePathError("it is no plain file", source)
        self._check_folders(target)
        link_or_copy(source, target)

    def _check_folders(self, target: Path) -> None:
        for folder in target.parents:
            if not is_real_folder(folder) and os.path.lexists(folder):
                raise HephaestusError(
                    f"{self.path.stem}: {folder} is a link or a file where a folder of its maps belongs; "
                    f"move {self.path} away and run the same command again"
                )
            if folder == self.path:
                return

    def _marker_path(self, space: int) -> Path:
        """Return the file that is written last of a space."""
        return self.path / self.names[-1] / encode_chunk_key(space, (0,))

    def _seconds_since_replaced(self, space: int) -> float:
        """Return for how many seconds a space is not published any more; -1 where it never was."""
        try:
            return max(0.0, time.time() - self._marker_path(space).lstat().st_mtime)
        except OSError:
            return -1.0

    def _clear_oldest_encoding(self) -> int:
        """Return a space without files: one that is empty, or else the one that was replaced first."""
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
    """Return the name of the chunk at a position."""
    kind, separator = _KEY_ENCODINGS[space]
    return separator.join([*(["c"] if kind == "default" else []), *map(str, position)])


def _check_array(name: str, array: Mapping[str, Any]) -> int:
    """Return the space of an array that is stored as this program stores them.

    Raises
    ------
    ValueError
        If it is not.
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
        raise ValueError(f"{name} in it is not stored as maps are")
    return _KEY_ENCODINGS.index(space)


def _check_codecs(array: Mapping[str, Any]) -> None:
    if not {codec["name"] for codec in array["codecs"]} <= _CODECS:
        raise ValueError("it is stored with other codecs than maps are")


def _encode_chunk(document: Mapping[str, Any], values: np.ndarray) -> bytes:
    """Return the one chunk that holds `values`, as the metadata says that it is stored."""
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
