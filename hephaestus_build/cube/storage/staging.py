"""The staging area: finished granules of an unpublished build, from which a killed build resumes."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import msgspec

from hephaestus_build.core.atomic_io import append_line, encode_json, hash_bytes, sync_files, write_atomic
from hephaestus_build.core.errors import HephaestusError
from hephaestus_build.core.machine.limits import count_usable_cores
from hephaestus_build.core.plain_files import (
    hash_descriptor,
    open_plain_file,
    open_real_folder,
    read_plain_file,
    remove_folder,
)
from hephaestus_build.cube.granule_checks import check_granule
from hephaestus_build.cube.granules import AnyGranule, ChunkRef, Granule
from hephaestus_build.cube.storage.frame_folder import LEDGER, OBJECTS

#: Maximum size of a ledger; every build of 1,000 pairs adds about 3 MB.
_LEDGER_BYTES = 256 << 20


class StagingArea:
    """The finished granules of a build that is not published yet.

    The objects of a granule are written before its line in the ledger; objects without a line are ignored.
    Each line is appended in a single write, so several processes may share a staging area.

    Parameters
    ----------
    folder : pathlib.Path
        Folder of the staging area; created when the first granule is added.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._ledger = folder / LEDGER

    def chunk_path(self, granule: Granule, name: str) -> Path:
        """Return the path of the object `name` of `granule`."""
        # the name contains the content's hash, so a granule that is built again does not overwrite an object
        # that is in use
        return (
            self.folder
            / OBJECTS
            / granule.kind
            / granule.name
            / f"{name}.{granule.objects[name].digest[:16]}"
        )

    def chunk_paths(self, granule: Granule) -> dict[str, str]:
        """Return the paths of all objects of `granule`, by name."""
        return {name: str(self.chunk_path(granule, name)) for name in granule.objects}

    def add(self, granule: Granule, contents: Mapping[str, bytes]) -> Granule:
        """Store the objects of a finished granule and add it to the ledger.

        Parameters
        ----------
        granule : Granule
            The granule, without objects.
        contents : mapping of str to bytes
            The encoded objects by variable.

        Returns
        -------
        Granule
            The granule with the hash and size of its objects.
        """
        granule = msgspec.structs.replace(
            granule,
            objects={name: ChunkRef(hash_bytes(content), len(content)) for name, content in contents.items()},
        )
        for name, content in contents.items():
            write_atomic(self.chunk_path(granule, name), content)
        # the leading newline ends a line that a killed build may have left incomplete
        append_line(self._ledger, "\n" + encode_json(granule).decode() + "\n")
        return granule

    def read_granules(self, *, check: bool = True) -> dict[str, Granule]:
        """Return the finished granules by key.

        Parameters
        ----------
        check : bool
            Whether to hash every object and leave out granules whose objects are damaged or gone.

        Raises
        ------
        HephaestusError
            If the ledger cannot be read.
        """
        try:
            ledger = read_plain_file(self.folder, self._ledger.name, _LEDGER_BYTES)
        except (FileNotFoundError, NotADirectoryError):
            return {}
        except (OSError, ValueError) as error:
            reason = (error.strerror if isinstance(error, OSError) else None) or error
            raise HephaestusError(
                f"{self.folder.parent.name}: {self._ledger}, the list of finished granules, cannot be read "
                f"({reason}); remove {self.folder} and run the same command again"
            ) from error
        granules: dict[str, Granule] = {}
        for line in ledger.split(b"\n"):
            try:
                granule: Granule = msgspec.json.decode(line, type=AnyGranule)
                check_granule(granule, whole=True)
            except (ValueError, RecursionError):
                continue  # a line that a killed build left incomplete, or one that no build wrote
            granules[granule.key] = granule
        if not check:
            return granules
        with ThreadPoolExecutor(count_usable_cores(), "check") as pool:  # hashing releases the GIL
            whole = pool.map(self._is_intact, granules.values())
            return {
                key: granule for (key, granule), good in zip(granules.items(), whole, strict=True) if good
            }

    def _is_intact(self, granule: Granule) -> bool:
        return all(
            self._is_chunk_intact(self.chunk_path(granule, name), item)
            for name, item in granule.objects.items()
        )

    def _is_chunk_intact(self, path: Path, item: ChunkRef) -> bool:
        try:
            with open_plain_file(self.folder, str(path.relative_to(self.folder))) as (descriptor, facts):
                return facts.size == item.size and hash_descriptor(descriptor, facts.size) == item.digest
        except OSError:
            return False

    def sync(self, granules: Iterable[Granule]) -> None:
        """Flush the objects of `granules` to disk; call it before a published cube links to them."""
        sync_files(self.chunk_path(granule, name) for granule in granules for name in granule.objects)

    def discard(self) -> None:
        """Remove the staging area with all its granules.

        If the process is killed meanwhile, the rest is a leftover that the next writer removes.
        """
        home, left = self.folder.parent, f".removed-{uuid.uuid4().hex[:12]}"
        with suppress(OSError), open_real_folder(home.parent, home.name) as root:
            os.rename(self.folder.name, left, src_dir_fd=root, dst_dir_fd=root)
            remove_folder(root, left)
