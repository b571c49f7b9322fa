"""Where the objects of somebody else's store lie: in a folder, or wherever another class says."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from hephaestus_build.core.plain_files import is_real_folder, list_names, open_plain_file, open_real_folder


class StoreObjects(Protocol):
    """The objects of a store, by key, such as ``dem/0.0``; implementations are thread-safe."""

    @property
    def path(self) -> Path:
        """Folder or file that holds them, for messages."""

    @property
    def name(self) -> str:
        """What a record says of it: its name, without the folders above it."""

    def open(self, key: str) -> AbstractContextManager[tuple[int, int, int]]:
        """Open an object and yield a descriptor, the position of its first byte, and its size.

        Raises
        ------
        OSError
            If there is no such object, or it is no plain file.
        """

    def list_names(self, folder: str = "") -> list[str]:
        """Return the sorted names in a folder of the store; empty if there is no such folder."""

    def is_there(self) -> bool:
        """Return whether the folder or file that holds them is still there."""


@dataclass(frozen=True)
class FolderObjects:
    """The objects of a store that is a folder; links are not followed."""

    path: Path

    @property
    def name(self) -> str:
        """Name of the folder."""
        return self.path.name

    @contextmanager
    def open(self, key: str) -> Iterator[tuple[int, int, int]]:
        """Open an object; see :meth:`StoreObjects.open`."""
        with open_plain_file(self.path, key) as (descriptor, facts):
            yield descriptor, 0, facts.size

    def list_names(self, folder: str = "") -> list[str]:
        """Return the sorted names in a folder of the store."""
        if not folder:
            return list_names(self.path)
        try:
            with open_real_folder(self.path, folder) as descriptor:
                return list_names(descriptor)
        except OSError:
            return []

    def is_there(self) -> bool:
        """Return whether the folder is still there."""
        return is_real_folder(self.path)


def has_object(objects: StoreObjects, key: str) -> bool:
    """Return whether a store has an object that can be opened."""
    try:
        with objects.open(key):
            return True
    except OSError:
        return False


def read_object(objects: StoreObjects, key: str, limit: int) -> bytes:
    """Return an object.

    Raises
    ------
    ValueError
        If it has more than `limit` bytes.
    OSError
        If it cannot be read.
    """
    with objects.open(key) as (descriptor, begin, size):
        if size > limit:
            raise ValueError(f"it is larger than {limit} bytes")
        return read_range(descriptor, begin, begin + size)


def read_range(descriptor: int, begin: int, end: int) -> bytes:
    """Return the bytes of an open file from `begin` to `end`; fewer if it is shorter."""
    parts = []
    while begin < end and (part := os.pread(descriptor, end - begin, begin)):
        parts.append(part)
        begin += len(part)
    return parts[0] if len(parts) == 1 else b"".join(parts)
