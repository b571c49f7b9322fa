"""A read-only zarr-python store that reads only plain files with the expected decoded size.

zarr-python's own store follows links, blocks on pipes, and allocates the memory that a chunk header states.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from zarr.abc.store import (
    ByteRequest,
    OffsetByteRequest,
    RangeByteRequest,
    Store,
    SuffixByteRequest,
)
from zarr.core.buffer import Buffer, BufferPrototype, default_buffer_prototype

from hephaestus_build.core.errors import HephaestusError
from hephaestus_build.core.plain_files import (
    FileIdentity,
    UnsafePathError,
    is_plain_file,
    list_names,
    open_plain_file,
    open_real_folder,
    walk_files,
)
from hephaestus_build.cube.codecs.decoded_size import check_decoded_size
from hephaestus_build.cube.key_spaces import find_array
from hephaestus_build.cube.reading.store_metadata import MAX_METADATA_BYTES
from hephaestus_build.cube.reading.store_objects import read_range
from hephaestus_build.cube.reading.verified_objects import ObjectVerifier, check_absent, is_retired


class PlainStore(Store):
    """A read-only store of one cube.

    Parameters
    ----------
    root : pathlib.Path
        Folder of the store, not a link to it.
    arrays : mapping
        Metadata of the arrays by path, from
        :func:`~hephaestus_build.cube.reading.store_metadata.read_store_metadata`. Other arrays are not read.
    checks : ObjectVerifier, optional
        Compares each object with the manifest when it is first read.
    """

    supports_writes = False
    supports_deletes = False
    supports_listing = True

    def __init__(
        self, root: Path, arrays: Mapping[str, Mapping[str, Any]], checks: ObjectVerifier | None = None
    ) -> None:
        super().__init__(read_only=True)
        self.root, self.arrays, self.verifier = root, arrays, checks
        self._size_checked: set[str] = set()

    def __str__(self) -> str:
        return f"file://{self.root}"

    def __repr__(self) -> str:
        return f"PlainStore('{self.root}')"

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, PlainStore)
            and self.root == other.root
            and (self.verifier is None) == (other.verifier is None)
        )

    def __hash__(self) -> int:
        return hash(self.root)

    def __reduce__(self) -> Any:
        return PlainStore, (self.root, self.arrays, self.verifier)

    def __dask_tokenize__(self) -> Any:
        return str(self.root), self.verifier is None

    def read(self, key: str, wanted: ByteRequest | None = None) -> bytes | None:
        """Return an object or a range of its bytes, or None if the object is not stored.

        Parameters
        ----------
        key : str
            Path of the object in the store.
        wanted : ByteRequest, optional
            The bytes to read; by default all.

        Raises
        ------
        HephaestusError
            If the object is damaged, or was removed although the manifest lists it.
        """
        frame = self.root.stem
        try:
            with open_plain_file(self.root, key) as (descriptor, facts):
                if self.verifier is not None:
                    self.verifier.verify(key, descriptor, facts)
                if is_retired(descriptor, facts.size):
                    return None
                self._check(key, descriptor, facts)
                begin, end = byte_range(wanted, facts.size)
                return read_range(descriptor, begin, end)
        except (FileNotFoundError, NotADirectoryError):
            check_absent(self.root, key, self.verifier)
            return None
        except (UnsafePathError, ValueError) as error:
            reason = error.strerror if isinstance(error, OSError) else error
            raise HephaestusError(
                f"{frame}: {key} of the cube in {self.root} is damaged ({reason}); "
                f"`hephaestus repair {frame}` rebuilds it"
            ) from error

    def _check(self, key: str, descriptor: int, facts: FileIdentity) -> None:
        if key in self._size_checked:
            return
        name = find_array(key, self.arrays)
        if "/" not in key or key.endswith("/zarr.json"):
            if facts.size > MAX_METADATA_BYTES:
                raise ValueError(f"it has {facts.size} bytes")
        elif not name:
            raise ValueError("zarr.json describes no such array")
        else:
            check_decoded_size(descriptor, facts.size, self.arrays[name])
        self._size_checked.add(key)

    async def get(
        self, key: str, prototype: BufferPrototype | None = None, byte_range: ByteRequest | None = None
    ) -> Buffer | None:
        """Return an object or a range of its bytes, or None if the object is not stored."""
        content = await asyncio.to_thread(self.read, key, byte_range)
        return (
            None if content is None else (prototype or default_buffer_prototype()).buffer.from_bytes(content)
        )

    async def get_partial_values(
        self, prototype: BufferPrototype, key_ranges: Iterable[tuple[str, ByteRequest | None]]
    ) -> list[Buffer | None]:
        """Return a range of bytes of several objects."""
        return list(await asyncio.gather(*(self.get(key, prototype, wanted) for key, wanted in key_ranges)))

    async def exists(self, key: str) -> bool:
        """Return whether the object is stored as a plain file."""
        return await asyncio.to_thread(is_plain_file, self.root, key)

    async def set(self, key: str, value: Buffer) -> None:
        """Raise PermissionError: a published cube never changes."""
        raise PermissionError("a published cube is read-only")

    async def delete(self, key: str) -> None:
        """Raise PermissionError: a published cube never changes."""
        raise PermissionError("a published cube is read-only")

    async def list(self) -> AsyncIterator[str]:
        """Yield the keys of all objects."""
        for path, _ in walk_files(self.root):
            yield path

    async def list_prefix(self, prefix: str) -> AsyncIterator[str]:
        """Yield the keys that begin with `prefix`."""
        async for path in self.list():
            if path.startswith(prefix):
                yield path

    async def list_dir(self, prefix: str) -> AsyncIterator[str]:
        """Yield the names of a folder's direct entries."""
        try:
            with open_real_folder(self.root, prefix) if prefix else nullcontext(self.root) as folder:
                names = list_names(folder)
        except OSError:
            return
        for name in names:
            yield name


def byte_range(wanted: ByteRequest | None, size: int) -> tuple[int, int]:
    """Return the half-open range of bytes that a request selects in an object of `size` bytes."""
    match wanted:
        case None:
            return 0, size
        case RangeByteRequest(start, end):
            return start, min(end, size)
        case OffsetByteRequest(offset):
            return offset, size
        case SuffixByteRequest(suffix):
            return max(0, size - suffix), size
    raise TypeError(f"{wanted!r} is not a byte request")
