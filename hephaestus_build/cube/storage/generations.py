"""The generations of a frame's cube and the lock of its writer.

``<cubes>/<frame>.zarr`` is a symbolic link to ``.generations/<frame>/<number>/<frame>.zarr``. A generation is
published by replacing this link with one atomic rename, and never changes after it has its number. A reader
that resolves the link once therefore sees the same data until the generation is removed.

A new generation is written in five steps:

1. The store is filled in a draft folder, ``.draft-<random>``.
2. Manifest and provenance are copied next to the store, in case the copies in the store are damaged.
3. The draft is flushed to disk and renamed to its number, such as ``000004``.
4. A link with a temporary name is made to the new store.
5. That link is renamed to ``<frame>.zarr``.

A build that is killed before step 3 leaves a draft, which :meth:`FrameStore.remove_leftovers` removes. One
that is killed before step 5 leaves an unpublished generation, which the next writer publishes when it takes
the lock.
"""

from __future__ import annotations

import errno
import logging
import os
import re
import shutil
import socket
import stat
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from hephaestus_build.core.atomic_io import (
    hash_bytes,
    make_folder,
    sync_folder,
    translate_os_errors,
    write_json,
)
from hephaestus_build.core.errors import FrameBusyError, HephaestusError
from hephaestus_build.core.frames import Frame
from hephaestus_build.core.parsing import parse_json
from hephaestus_build.core.plain_files import is_plain_file, is_real_folder, list_names, read_plain_file
from hephaestus_build.core.plain_text import sanitize_text
from hephaestus_build.cube.inventory import CubeInventory, StoredHistory
from hephaestus_build.cube.schema import GRID_MAPPING
from hephaestus_build.cube.storage.frame_folder import (
    GENERATION_NUMBER,
    GENERATIONS,
    MANIFEST,
    PROVENANCE,
    FrameFolder,
)
from hephaestus_build.cube.storage.manifest import decode_manifest
from hephaestus_build.cube.storage.staging import StagingArea

log = logging.getLogger(__name__)

#: The lock of a frame, and the description of the process that holds it.
LOCK_FILE, LOCK_HOLDER_FILE = "lock", "lock.json"
#: Maximum size of a manifest or a provenance record; a frame with 1,000 pairs has about 3 MB.
MAX_RECORD_BYTES = 64 << 20


@dataclass(frozen=True)
class Generation:
    """One complete, immutable version of a cube.

    Attributes
    ----------
    number : int
        Number of the generation, from 1; 0 for a copy of a cube outside ``.generations``.
    store : pathlib.Path
        The Zarr store, not the link to it.
    """

    number: int
    store: Path

    @classmethod
    def from_path(cls, path: Path) -> Generation:
        """Return the generation whose store, or a link to it, is at `path`.

        Raises
        ------
        HephaestusError
            If there is no cube.
        """
        try:
            store = path.resolve(strict=True)
        except (OSError, RuntimeError, ValueError) as error:  # RuntimeError: a loop of links
            reason = (error.strerror if isinstance(error, OSError) else None) or error
            raise HephaestusError(f"there is no cube at {path} ({reason})") from None
        if not (is_plain_file(store, MANIFEST) or is_plain_file(store, PROVENANCE)):
            raise HephaestusError(f"there is no cube at {path}: a cube has a {MANIFEST} and a {PROVENANCE}")
        return cls(generation_number(store) or 0, store)

    @property
    def record_folders(self) -> tuple[Path, ...]:
        """Folders that hold a copy of manifest and provenance: the store and, for redundancy, its parent."""
        return (self.store, self.store.parent) if self.number else (self.store,)

    def read_manifest(self) -> dict[str, list[Any]]:
        """Return the hash and size of every stored object by path, from an undamaged copy of the manifest.

        Raises
        ------
        HephaestusError
            If no copy is undamaged.
        """
        manifests = list(self._manifests())
        if not manifests:
            raise self._unreadable(MANIFEST)
        if len(manifests) > 1 and manifests[0] != manifests[1]:  # one belongs to another generation
            manifests.sort(key=lambda objects: self._provenance(objects) is None)
        return manifests[0]

    def _manifests(self) -> Iterator[dict[str, list[Any]]]:
        for folder in self.record_folders:
            with suppress(OSError, ValueError):
                yield decode_manifest(read_plain_file(folder, MANIFEST, MAX_RECORD_BYTES))

    def _provenance(self, objects: Mapping[str, list[Any]]) -> bytes | None:
        """Return the provenance whose hash is in a list of objects, or None if no copy has that hash."""
        recorded = objects.get(PROVENANCE, [""])[0]
        for folder in self.record_folders:
            with suppress(OSError, ValueError):
                content = read_plain_file(folder, PROVENANCE, MAX_RECORD_BYTES)
                if hash_bytes(content) == recorded:
                    return content
        return None

    def read_inventory(self) -> CubeInventory:
        """Return the cube's inventory, from an undamaged copy of its provenance.

        Raises
        ------
        HephaestusError
            If no copy is undamaged, or its content is not a valid inventory.
        """
        for objects in self._manifests():
            if (content := self._provenance(objects)) is not None:
                try:
                    return CubeInventory.decode(content)
                except ValueError as error:  # the hash is right, but no build writes such a record
                    raise HephaestusError(
                        f"{self.store.stem}: the record of the cube in {self.store} is damaged "
                        f"({sanitize_text(error, 200)}); copy the cube again, or remove it and build it with "
                        f"`hephaestus build {self.store.stem}`"
                    ) from error
        raise self._unreadable(PROVENANCE)

    def _unreadable(self, name: str) -> HephaestusError:
        frame = self.store.stem
        return HephaestusError(
            f"{frame}: every copy of {name} of generation {self.number} in {self.store} is damaged; "
            f"`hephaestus repair {frame}` rebuilds what is damaged"
        )


def generation_number(store: Path) -> int | None:
    """Return the generation number of a store, or None if it is not in a folder of generations."""
    folder = store.parent
    own = GENERATION_NUMBER.fullmatch(folder.name) and folder.parent.parent.name == GENERATIONS
    return int(folder.name) if own else None


class FrameStore:
    """The store of one frame: its generations, its staging area and its lock.

    Parameters
    ----------
    cubes : pathlib.Path
        Folder of the published cubes.
    frame : Frame
        The frame.
    staging : str
        Name of the staging area; builds and repairs use different ones.
    """

    def __init__(self, cubes: Path, frame: Frame, *, staging: str = "staging") -> None:
        self.frame = frame
        self.published_link = cubes / f"{frame}.zarr"
        self._folder = FrameFolder(cubes, str(frame))
        self.root = self._folder.path
        self.staging = StagingArea(self.root / staging)

    @property
    def baselines_file(self) -> Path:
        """File of the perpendicular baselines of the frame's acquisitions."""
        return self.root / "baselines.json"

    def has_content(self) -> bool:
        """Return whether there is any part of a cube, beyond the lock and the file of baselines."""
        try:
            names = list_names(self.root) if is_real_folder(self.root) else []
        except OSError:
            return True  # the command that reads the folder reports the error
        return (
            self.published_link.is_symlink()
            or self.root.is_symlink()
            or bool({*names} - {LOCK_FILE, LOCK_HOLDER_FILE, self.baselines_file.name})
        )

    def generation_numbers(self) -> list[int]:
        """Return the numbers of all generations on disk, sorted.

        Raises
        ------
        HephaestusError
            If the frame's folder is a link or cannot be read.
        """
        return self._folder.generation_numbers()

    def published_generation(self) -> Generation | None:
        """Return the published generation, or None if nothing is published yet.

        Raises
        ------
        HephaestusError
            If the published name is not a link that a build made, leads to a generation that is gone, or
            cannot be read.
        """
        with self._folder.guard_access():
            # read the link only once: another process may publish between two reads
            try:
                target = self.published_link.readlink()
            except (FileNotFoundError, NotADirectoryError):
                return None
            except OSError as error:
                if error.errno != errno.EINVAL:  # not a link
                    raise
                raise HephaestusError(
                    f"{self.frame}: {self.published_link} is a folder that this program did not publish; "
                    "move it away "
                    f"and run the same command again"
                ) from error
            number = target.parent.name
            store = self._folder.store_path(int(number)) if GENERATION_NUMBER.fullmatch(number) else None
            if store is None or target != Path(os.path.relpath(store, self.published_link.parent)):
                raise HephaestusError(
                    f"{self.frame}: {self.published_link} is a link that this program did not make; move "
                    "it away and "
                    f"run the same command again"
                )
            for folder in (store.parent, store):
                if folder.is_symlink():
                    raise self._folder.foreign_file_error(folder, stat.S_IFLNK)
            if not store.is_dir():
                raise HephaestusError(
                    f"{self.frame}: generation {int(number)}, which {self.published_link} leads to, is "
                    "gone; remove "
                    f"the link, and `hephaestus build {self.frame}` builds the cube again"
                )
            return Generation(int(number), store)

    def history(self) -> StoredHistory:
        """Return what is on disk of earlier generations; looked up when it is called for."""
        return StoredHistory(self._published_chunk_keys, self._used_key_spaces)

    def _published_chunk_keys(self) -> set[str]:
        """Return the keys of all chunks of the published generation, without the retired ones."""
        current = self.published_generation()
        if current is None:
            return set()
        keys = (key for key in current.read_manifest() if "/" in key and not key.endswith("zarr.json"))
        # a grid mapping has one value, which has no meaning and always the same key
        chunks = {key for key in keys if GRID_MAPPING not in key.split("/")}
        return chunks.difference(current.read_inventory().retired_keys)

    def _used_key_spaces(self) -> set[tuple[int, int]]:
        """Return the key spaces of all generations on disk whose record can be read."""
        used = set()
        for number in self.generation_numbers():
            with suppress(HephaestusError):
                contents = Generation(number, self._folder.store_path(number)).read_inventory()
                used.add((contents.keys.index, contents.pair_keys.index))
        return used

    @contextmanager
    def lock(self, *, wait: bool = False, restore: bool = True) -> Iterator[None]:
        """Hold the lock of this frame, so that no other process writes to it.

        Parameters
        ----------
        wait : bool
            Whether to wait for another writer; if false, its lock is an error.
        restore : bool
            Whether to publish the newest generation if a killed build left it unpublished.

        Raises
        ------
        FrameBusyError
            If another build holds the lock and `wait` is false.
        """
        holder = self.root / LOCK_HOLDER_FILE
        self._folder.check_for_writing(self.root / LOCK_FILE, self.staging.folder)
        with translate_os_errors(f"{self.frame}: making the folder of its cube"):
            make_folder(self.root)
            lock = FileLock(self.root / LOCK_FILE, timeout=-1 if wait else 0)
            try:
                lock.acquire()
            except Timeout:
                raise FrameBusyError(
                    f"{self.frame}: another build is running ({_describe(holder)}); try again when it "
                    f"has ended, or `hephaestus build {self.frame} --wait`"
                ) from None
        try:
            with suppress(OSError):  # only used in messages; `gc` must work on a full disk
                write_json(
                    holder,
                    {
                        "pid": os.getpid(),
                        "host": socket.gethostname(),
                        "since": datetime.now(UTC).isoformat(" ", "seconds"),
                    },
                )
            if restore:
                self._republish_newest()
            yield
        finally:
            with suppress(OSError):
                holder.unlink(missing_ok=True)
            lock.release()

    @contextmanager
    def new_generation(self) -> Iterator[Path]:
        """Yield an empty store to fill; publish it if the block succeeds, discard it if it raises."""
        self.remove_leftovers()
        self.published_generation()  # raises if the published name is not a link that a build made
        number = max(self._folder.used_numbers(), default=0) + 1
        draft = self.root / f".draft-{uuid.uuid4().hex[:12]}"
        store = draft / f"{self.frame}.zarr"
        try:
            with translate_os_errors(f"{self.frame}: writing generation {number}"):
                store.mkdir(parents=True)
                yield store
                for name in (PROVENANCE, MANIFEST):  # a second copy, in case the first is damaged
                    shutil.copyfile(store / name, draft / name)
                sync_folder(draft)
                draft.rename(self.root / f"{number:06d}")
                sync_folder(self.root)
                self._publish(number)
        finally:
            self._folder.remove_draft(draft.name)

    def _publish(self, number: int) -> None:
        store = self._folder.store_path(number)
        link = self.published_link.with_name(f".{self.published_link.name}.{uuid.uuid4().hex[:12]}")
        link.symlink_to(os.path.relpath(store, self.published_link.parent))
        link.replace(self.published_link)
        sync_folder(self.published_link.parent)

    def _republish_newest(self) -> None:
        """Publish the newest generation if a build was killed before it did so, or the link was lost."""
        current, numbers = self.published_generation(), self.generation_numbers()
        newest = numbers[-1] if numbers else 0
        if (
            newest > (current.number if current else 0)
            and (self._folder.store_path(newest) / MANIFEST).exists()
        ):
            log.warning("%s: generation %d was complete but not published; published it", self.frame, newest)
            self._publish(newest)

    def remove_old(self, *, keep: int, older_than: timedelta) -> list[int]:
        """Remove old generations and return their numbers.

        Parameters
        ----------
        keep : int
            Number of newest generations to keep whatever their age. The published one is always kept.
        older_than : datetime.timedelta
            Minimum time since a generation was replaced; readers may have pinned it before.

        Returns
        -------
        list of int
            Numbers of the removed generations, in order.
        """
        with translate_os_errors(f"{self.frame}: removing old generations"):
            self.remove_leftovers()
            numbers, current = self.generation_numbers(), self.published_generation()
            now = datetime.now(UTC).timestamp()
            removed = []
            for number, successor in pairwise(numbers):
                replaced = self.publication_time(successor)
                if number in numbers[-keep:] or now - replaced < older_than.total_seconds():
                    continue
                if current is not None and number == current.number:
                    continue
                if self._folder.remove_generation(number):
                    removed.append(number)
                else:
                    log.warning(
                        "%s: generation %d is kept: it contains files that no build made", self.frame, number
                    )
        return removed

    def publication_time(self, number: int) -> float:
        """Return when a generation was written, in seconds since 1970-01-01 UTC.

        Raises
        ------
        HephaestusError
            If the generation is gone.
        """
        folder = self.root / f"{number:06d}"
        with self._folder.guard_access():
            try:  # the copy of the manifest is written last
                return (folder / MANIFEST).lstat().st_mtime
            except FileNotFoundError:
                return folder.lstat().st_mtime

    def remove_leftovers(self) -> None:
        """Remove the drafts, files and links that killed builds left."""
        self._folder.remove_leftovers()
        left = re.compile(rf"\.{re.escape(self.published_link.name)}\.[0-9a-f]{{12}}")
        for path in self.published_link.parent.glob(f".{self.published_link.name}.*"):
            if left.fullmatch(path.name) and path.is_symlink():
                path.unlink(missing_ok=True)


def _describe(holder: Path) -> str:
    try:
        value = parse_json(read_plain_file(holder.parent, holder.name, 1 << 16))
        return f"process {value['pid']} on {value['host']} since {value['since']}"
    except (OSError, ValueError, KeyError, TypeError):
        return "its process is not known"
