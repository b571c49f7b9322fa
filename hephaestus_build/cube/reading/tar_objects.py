"""The objects of stores within a tar file, which is never unpacked: one pass over its headers finds them."""

from __future__ import annotations

import os
from array import array
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from hephaestus_build.core.errors import HephaestusError, UsageError
from hephaestus_build.core.filesystem.tar_members import TarEntry, TarError, scan_tar_file
from hephaestus_build.core.plain_files import UnsafePathError, is_plain_file, open_plain_file
from hephaestus_build.core.plain_text import sanitize_text
from hephaestus_build.core.progress import NullListener, ProgressListener

#: First bytes of what is often taken for a plain tar file, its name, and the command that makes one of it.
_PACKED = (
    (b"\x1f\x8b", "compressed with gzip", "gunzip -k"),
    (b"BZh", "compressed with bzip2", "bunzip2 -k"),
    (b"\xfd7zXZ\0", "compressed with xz", "unxz -k"),
    (b"\x28\xb5\x2f\xfd", "compressed with Zstandard", "unzstd"),
    (b"PK\x03\x04", "a zip file", "unzip"),
)
#: First bytes of a NetCDF file.
_NETCDF = (b"CDF", b"\x89HDF")
#: Members of a tar file, each of which takes some 200 bytes of memory.
_MAX_MEMBERS = 5_000_000
_MAX_NAME_LENGTH = 1000
#: Stores that an error lists.
_LISTED = 3
_MIB = 1 << 20
#: Files of which either marks a group in Zarr format 2.
_GROUP_MARKS = (".zgroup", ".zmetadata")


class _Version(NamedTuple):
    """What a file was when its members were found."""

    device: int
    inode: int
    size: int
    modified: int

    @classmethod
    def of(cls, descriptor: int) -> _Version:
        facts = os.fstat(descriptor)
        return cls(facts.st_dev, facts.st_ino, facts.st_size, facts.st_mtime_ns)


@dataclass(frozen=True, eq=False)
class TarObjects:
    """The objects of a store within a tar file.

    Attributes
    ----------
    tar : pathlib.Path
        The tar file.
    root : str
        Folder of the store within it; empty if its members are the store's own.
    """

    tar: Path
    root: str
    _version: _Version
    _places: dict[str, int] = field(default_factory=dict)
    _offsets: array[int] = field(default_factory=lambda: array("Q"))
    _sizes: array[int] = field(default_factory=lambda: array("Q"))

    @property
    def path(self) -> Path:
        """Path of the tar file, and the folder within it, for messages."""
        return self.tar / self.root if self.root else self.tar

    @property
    def name(self) -> str:
        """Name of the tar file, and the folder within it."""
        return f"{self.tar.name}/{self.root}".rstrip("/")

    def add(self, key: str, offset: int, size: int) -> None:
        """Note where an object lies; of several with one key the last counts, as for ``tar``."""
        self._places[key] = len(self._offsets)
        self._offsets.append(offset)
        self._sizes.append(size)

    def find(self, key: str) -> tuple[int, int] | None:
        """Return the first byte and the size of an object; None if there is none."""
        place = self._places.get(key)
        return None if place is None else (self._offsets[place], self._sizes[place])

    def __len__(self) -> int:
        return len(self._offsets)

    def __iter__(self) -> Iterator[str]:
        return iter(self._places)

    @contextmanager
    def open(self, key: str) -> Iterator[tuple[int, int, int]]:
        """Open an object; see :class:`~hephaestus_build.cube.reading.store_objects.StoreObjects`."""
        place = self.find(key)
        if place is None:
            raise FileNotFoundError(key)
        with open_plain_file(self.tar.parent, self.tar.name) as (descriptor, _):
            if _Version.of(descriptor) != self._version:
                raise UnsafePathError("the tar file was changed while it was read", self.tar)
            yield descriptor, *place

    def is_there(self) -> bool:
        """Return whether the tar file is still there."""
        return is_plain_file(self.tar.parent, self.tar.name)

    def list_names(self, folder: str = "") -> list[str]:
        """Return the sorted names in a folder of the store."""
        prefix = f"{folder}/" if folder else ""
        within = (key[len(prefix) :] for key in self._places if key.startswith(prefix))
        return sorted({key.partition("/")[0] for key in within})


def find_tar_stores(path: Path, listener: ProgressListener | None = None) -> list[TarObjects]:
    """Return the stores in Zarr format 2 within a plain tar file, in the order of their folders.

    Raises
    ------
    UsageError, HephaestusError
        As :func:`index_tar`.
    """
    return _split_into_stores(index_tar(path, listener))


def index_tar(path: Path, listener: ProgressListener | None = None) -> TarObjects:
    """Return the members of a plain tar file, of which only the headers are read.

    Parameters
    ----------
    path : pathlib.Path
        The tar file.
    listener : ProgressListener, optional
        Receives progress, in MiB.

    Raises
    ------
    UsageError
        If it is no plain tar file.
    HephaestusError
        If it is cut or damaged, or has members that no cube and no shard has: links, or paths that lead out.
    """
    listener = listener or NullListener()
    stage = f"index of {path.name}"
    with open_plain_file(path.parent, path.name) as (descriptor, facts):
        _require_plain_tar(path, os.pread(descriptor, 8, 0))
        listener.stage(stage, facts.size // _MIB)
        everything = TarObjects(path, "", _Version.of(descriptor))
        done = 0
        try:
            for entry in scan_tar_file(descriptor, facts.size):
                _add_checked(everything, entry)
                if (new := (entry.offset + entry.size) // _MIB) > done:
                    listener.advance(stage, new - done)
                    done = new
        except TarError as error:
            raise HephaestusError(
                f"{path} is no whole tar file: {error}; nothing of it was used, copy it again whole (tar -tf "
                f"{path.name} reads it to its end)"
            ) from error
    return everything


def find_tar_store(path: Path, listener: ProgressListener | None = None) -> TarObjects | None:
    """Return the store at a path such as ``all.tar/124D_04854_171313.zarr``; None if no part of it is a file.

    The path of the tar file alone is enough where it holds one store.

    Parameters
    ----------
    path : pathlib.Path
        Path of the tar file, and the folder of the store within it.
    listener : ProgressListener, optional
        Receives progress, in MiB.

    Raises
    ------
    UsageError
        If it is no plain tar file, holds no store, or several of which none is named.
    HephaestusError
        As :func:`find_tar_stores`.
    """
    path = path.resolve()
    tar = next((part for part in (path, *path.parents) if is_plain_file(part.parent, part.name)), None)
    if tar is None:
        return None
    stores = find_tar_stores(tar, listener)
    named = [store for store in stores if path in (tar, store.path)]
    if len(named) == 1:
        return named[0]
    listed = ", ".join(str(store.path) for store in stores[:_LISTED])
    more = f" and {len(stores) - _LISTED} more" if len(stores) > _LISTED else ""
    raise UsageError(
        f"{path} is no cube within the tar file {tar.name}, which holds {listed}{more}; name one of them"
        if stores
        else f"{tar} holds no cube in Zarr format 2; `tar -tf {tar}` lists what it holds"
    )


def _require_plain_tar(path: Path, head: bytes) -> None:
    if head.startswith(_NETCDF):
        raise UsageError(
            f"{path} is a NetCDF file; cubes are read as Zarr: xarray's to_zarr(..., zarr_format=2) makes one"
        )
    for mark, what, command in _PACKED:
        if head.startswith(mark):
            raise UsageError(
                f"{path} is {what}, in which nothing can be found without unpacking all that stands before "
                f"it; `{command} {path}` unpacks it, then name what that makes"
            )


def _add_checked(found: TarObjects, entry: TarEntry) -> None:
    """Note a member; a hard link to an earlier one is that one under another name.

    Raises
    ------
    HephaestusError
        If it is another link or a device, its path leads out of the folder, or there are too many members.
    """
    if len(found) >= _MAX_MEMBERS:
        raise HephaestusError(f"{found.tar} has more than {_MAX_MEMBERS} members, too many for a cube")
    key, what = _plain_path(entry.name), ""
    if key is None:
        what = "has a path that leads out of the file, or a name that cannot be printed"
    elif entry.target:
        if (place := found.find(_plain_path(entry.target) or "")) is not None:
            found.add(key, *place)
        else:
            what = "is a link to no member before it"
    elif entry.kind not in ("", "a folder"):
        what = f"is {entry.kind}"
    elif not entry.kind:
        found.add(key, entry.offset, entry.size)
    if what:
        raise HephaestusError(
            f"{found.tar}: its member {sanitize_text(entry.name, 200)} {what}, which no cube or shard has; "
            f"nothing of it was used, see where the file is from"
        )


def _plain_path(name: str) -> str | None:
    """Return the path of a member without ``./`` before and a slash behind it; None if it is not plain."""
    parts = name.rstrip("/").split("/")
    while parts[:1] == ["."]:
        parts.pop(0)
    plain = {"", ".", ".."}.isdisjoint(parts) and "\\" not in name and name.isprintable()
    return "/".join(parts) if plain and len(name) <= _MAX_NAME_LENGTH else None


def _split_into_stores(everything: TarObjects) -> list[TarObjects]:
    """Return one object for each outermost group among the members of a tar file."""
    marked = {key.rpartition("/")[0] for key in everything._places if key.rpartition("/")[2] in _GROUP_MARKS}
    roots = sorted(root for root in marked if not any(_is_within(root, other) for other in marked))
    if roots == [""]:
        return [everything]
    stores = {root: TarObjects(everything.tar, root, everything._version) for root in roots}
    for key, place in everything._places.items():
        root = next((root for root in _parents(key) if root in stores), None)
        if root is not None:
            inner = key.removeprefix(f"{root}/")
            stores[root].add(inner, everything._offsets[place], everything._sizes[place])
    return [stores[root] for root in roots]


def _is_within(folder: str, other: str) -> bool:
    return folder != other and (not other or folder.startswith(f"{other}/"))


def _parents(key: str) -> Iterator[str]:
    """Yield the folders of a key, the innermost first."""
    while "/" in key:
        key = key.rpartition("/")[0]
        yield key
