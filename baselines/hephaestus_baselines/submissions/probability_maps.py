"""Probability maps of a submission: arrays of whole interferograms in an ``.npz`` or a folder of ``.npy``.

Nothing is unpickled or extracted, and no array is decoded that has another shape than its frame's images.
"""

from __future__ import annotations

import io
import math
import zipfile
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import IO

import numpy as np
import numpy.typing as npt

from hephaestus_build.core.errors import HephaestusError
from hephaestus_build.core.plain_files import is_real_folder, open_plain_file, read_plain_file, walk_files
from hephaestus_build.core.plain_text import count_of, sanitize_text

_MAX_ENTRIES = 200_000
_MAX_NPY_HEADER = 1024
_SUFFIX = ".npy"
#: Accepted types, and what a value is divided by to be a probability.
_TYPES = {"float32": 1, "float16": 1, "float64": 1, "uint8": 255, "bool": 1}
_READ_ERRORS = (
    OSError, ValueError, KeyError, TypeError, EOFError, RuntimeError, OverflowError, MemoryError, SyntaxError,
    zipfile.BadZipFile, zlib.error,
)  # fmt: skip


def map_key(frame: str, pair: str) -> str:
    """Return the name of the map of an interferogram or series.

    Examples
    --------
    >>> map_key("198A_00210_131313", "20190106_20190118")
    '198A_00210_131313/20190106_20190118'
    """
    return f"{frame}/{pair}"


class ProbabilityMaps:
    """The maps of a submission, read one at a time.

    Parameters
    ----------
    path : pathlib.Path
        A file of ``numpy.savez``, or a folder with ``<frame>/<pair>.npy``.
    wanted : iterable of str
        Names of all maps that are scored, see :func:`map_key`.

    Raises
    ------
    HephaestusError
        If it cannot be opened, or a map is missing, unknown or there twice; with the number of each.
    """

    def __init__(self, path: Path, wanted: Iterable[str]) -> None:
        self.path = path
        self._archive: zipfile.ZipFile | None = None
        try:
            if is_real_folder(path):
                names = []
                for name, _ in walk_files(path):
                    names.append(name)
                    self._check_count(len(names))
            else:
                with open_plain_file(path.parent, path.name):  # no link, no pipe
                    pass
                self._archive = zipfile.ZipFile(path)
                names = self._archive.namelist()
                self._check_count(len(names))
        except _READ_ERRORS as error:
            raise HephaestusError(
                f"the maps in {path} cannot be read ({sanitize_text(error, 200)}); write them with "
                "numpy.savez, or as <frame>/<pair>.npy in a folder"
            ) from error
        held = {name.removesuffix(_SUFFIX) for name in names if name.endswith(_SUFFIX)}
        known = set(wanted)
        faults = [
            f"{count} {words} (first: {sanitize_text(first, 80)})"
            for words, count, first in (
                ("missing", len(known - held), min(known - held, default="")),
                (
                    "unknown",
                    len(names) - len(held & known),
                    min({*names} - _files(known), default="the same"),
                ),
            )
            if count
        ]
        if faults:
            raise HephaestusError(
                f"{path}: of {count_of(len(known), 'map')}, {', '.join(faults)}; give exactly one map for "
                "each row of the submission, named <frame>/<pair>"
            )

    def read(self, name: str, shape: tuple[int, int]) -> npt.NDArray[np.float32]:
        """Return a map as float32 of the given shape, from 0 to 1.

        Raises
        ------
        HephaestusError
            If it is no array of numbers of this shape, or a value is NaN or outside 0 to 1.
        """
        try:
            limit = _MAX_NPY_HEADER + 8 * math.prod(shape)
            if self._archive is None:
                values = _read_npy(io.BytesIO(read_plain_file(self.path, name + _SUFFIX, limit)), shape)
            else:
                entry = self._archive.getinfo(name + _SUFFIX)
                if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                    raise ValueError("it is compressed in an unknown way")
                if entry.file_size > limit:
                    raise ValueError(f"it is larger than {shape[0]} x {shape[1]} pixels need")
                with self._archive.open(entry) as stream:
                    values = _read_npy(stream, shape)
            wrong = int(np.count_nonzero(~((values >= 0) & (values <= 1))))
            if wrong:
                raise ValueError(
                    f"{count_of(wrong, 'value')} of it NaN or outside 0 to 1 (write 0 where there is no data)"
                )
            return values
        except _READ_ERRORS as error:
            raise HephaestusError(
                f"{self.path}: the map {sanitize_text(name, 80)} cannot be used: "
                f"{sanitize_text(error, 200)}; write "
                f"a float32 array of {shape[0]} x {shape[1]} probabilities"
            ) from error

    def _check_count(self, count: int) -> None:
        if count > _MAX_ENTRIES:
            raise ValueError(f"it holds more than {_MAX_ENTRIES} files")


def _files(names: Iterable[str]) -> set[str]:
    return {name + _SUFFIX for name in names}


def _read_npy(stream: IO[bytes], shape: tuple[int, int]) -> npt.NDArray[np.float32]:
    """Read an array in the format npy, whose declared type and shape are checked before memory is taken."""
    version = np.lib.format.read_magic(stream)
    if version != (1, 0):
        raise ValueError(f"it has the npy version {version[0]}.{version[1]}")
    found, fortran, kind = np.lib.format.read_array_header_1_0(stream, max_header_size=_MAX_NPY_HEADER)
    if kind.name not in _TYPES:
        raise ValueError(f"it has the type {sanitize_text(kind, 30)}, not {', '.join(_TYPES)}")
    if found != shape:
        raise ValueError(f"it has the shape {sanitize_text(found, 40)}")
    size = math.prod(shape) * kind.itemsize
    content = stream.read(size + 1)
    if len(content) != size:
        raise ValueError("it is cut off, or has values left over")
    values = np.frombuffer(content, kind).reshape(shape, order="F" if fortran else "C")
    return np.ascontiguousarray(values, np.float32) / np.float32(_TYPES[kind.name])
