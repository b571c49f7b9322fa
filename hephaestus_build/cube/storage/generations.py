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

Where the file system has no symbolic links, ``<cubes>/<frame>.zarr`` is a plain folder that equals the
published generation (:mod:`hephaestus_build.cube.storage.published_name`). A cube that was copied with its
links followed (``cp -rL``, ``zip``, ``rsync -L``, S3) looks the same, and is taken for the generation whose
record it has. If there is none, the folder itself is the published cube, numbered 0, until the next writer
makes a generation of it (:mod:`hephaestus_build.cube.storage.adoption`).
"""

from __future__ import annotations

import errno
import logging
import os
import shutil
import socket
import stat
import uuid
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

from hephaestus_build.core.atomic_io import (
    hash_bytes,
    sync_folder,
    translate_os_errors,
    write_json,
)
from hephaestus_build.core.errors import FrameBusyError, HephaestusError
from hephaestus_build.core.filesystem.locks import try_lock_file
from hephaestus_build.core.frames import Frame
from hephaestus_build.core.parsing import parse_json
from hephaestus_build.core.plain_files import (
    is_plain_file,
    is_real_folder,
    list_names,
    read_plain_file,
    walk_files,
)
from hephaestus_build.core.plain_text import sanitize_text
from hephaestus_build.cube.inventory import CubeInventory, StoredHistory
from hephaestus_build.cube.key_spaces import KEY_SPACES, is_chunk_key
from hephaestus_build.cube.schema import GRID_MAPPING
from hephaestus_build.cube.storage.frame_folder import (
    GENERATION_NUMBER,
    GENERATIONS,
    MANIFEST,
    PROVENANCE,
    FrameFolder,
)
from hephaestus_build.cube.storage.manifest import MAX_RECORD_BYTES, decode_manifest
from hephaestus_build.cube.storage.published_name import (
    PublishedName,
    copy_store,
    has_record_of,
    wait_for_replacement,
)
from hephaestus_build.cube.storage.staging import StagingArea

log = logging.getLogger(__name__)

#: The lock of a frame, and the description of the process that holds it.
LOCK_FILE, LOCK_HOLDER_FILE = "lock", "lock.json"
#: Maximum size of the metadata of a folder that may be a cube.
_MAX_METADATA_BYTES = 8 << 20


class LostGenerationError(HephaestusError):
    """The published link leads to a generation that is gone."""


@dataclass(frozen=True)
class Generation:
    """One complete, immutable version of a cube.

    Attributes
    ----------
    number : int
        Number of the generation, from 1; 0 for a copy of a cube outside ``.generations``.
    store : pathlib.Path
        The Zarr store, not the link to it.
    copy : pathlib.Path or None
        The plain folder with the published name that equals the store; None if the name is a link.
    """

    number: int
    store: Path
    copy: Path | None = None

    @classmethod
    def from_path(cls, path: Path) -> Generation:
        """Return the generation whose store, or a link to it, is at `path`.

        Raises
        ------
        HephaestusError
            If there is no cube.
        """
        try:
            store = pinned_store(path)
        except (OSError, RuntimeError, ValueError) as error:  # RuntimeError: a loop of links
            reason = (error.strerror if isinstance(error, OSError) else None) or error
            raise HephaestusError(f"there is no cube at {path} ({reason})") from None
        if not (is_plain_file(store, MANIFEST) or is_plain_file(store, PROVENANCE)):
            raise HephaestusError(f"there is no cube at {path}: a cube has a {MANIFEST} and a {PROVENANCE}")
        copy = path.resolve()
        return cls(generation_number(store) or 0, store, None if copy == store else copy)

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
        self._name = PublishedName(self.published_link, self.root)
        self.staging = StagingArea(self.root / staging)

    @property
    def baselines_file(self) -> Path:
        """File of the perpendicular baselines of the frame's acquisitions."""
        return self.root / "baselines.json"

    @property
    def summary_file(self) -> Path:
        """File of the summary of the published generation."""
        return self.root / "summary.json"

    @property
    def look_file(self) -> Path:
        """File of the last look at the frame's listing."""
        return self.root / "look.json"

    def has_content(self) -> bool:
        """Return whether there is any part of a cube, beyond the lock and what is kept beside it."""
        extras = (self.baselines_file.name, self.summary_file.name, self.look_file.name)
        try:
            names = list_names(self.root) if is_real_folder(self.root) else []
        except OSError:
            return True  # the command that reads the folder reports the error
        return (
            os.path.lexists(self.published_link)
            or self.root.is_symlink()
            or bool({*names} - {LOCK_FILE, LOCK_HOLDER_FILE, *extras})
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
            If the published name is neither a link that a build made nor a cube of this frame, leads to a
            generation that is gone, or cannot be read.
        """
        with self._folder.guard_access():
            # read the link only once: another process may publish between two reads
            try:
                target = self.published_link.readlink()
            except (FileNotFoundError, NotADirectoryError):
                return self.published_generation() if wait_for_replacement(self.published_link) else None
            except OSError as error:
                if error.errno != errno.EINVAL:  # not a link
                    raise
                return self._generation_of_folder()
            number = target.parent.name
            store = self._folder.store_path(int(number)) if GENERATION_NUMBER.fullmatch(number) else None
            if store is None or target != Path(os.path.relpath(store, self.published_link.parent)):
                raise HephaestusError(
                    f"{self.frame}: {self.published_link} is a link that this program did not make; move it "
                    "away and run the same command again"
                )
            for folder in (store.parent, store):
                if folder.is_symlink():
                    raise self._folder.foreign_file_error(folder, stat.S_IFLNK)
            if not store.is_dir():
                raise LostGenerationError(
                    f"{self.frame}: generation {int(number)}, which {self.published_link} leads to, is gone; "
                    f"`hephaestus repair {self.frame}` publishes the newest one that is left, or builds the "
                    f"cube again from the archive and the cache"
                )
            return Generation(int(number), store)

    def _generation_of_folder(self) -> Generation:
        """Return the generation that a plain folder with the published name equals, or stands for itself."""
        store = self.published_link
        for number in reversed(self.generation_numbers()):
            if has_record_of(store, [folder := self._folder.store_path(number), folder.parent]):
                return Generation(number, folder, store)
        frame, words = _frame_of_folder(store), f"{self.frame}: {store} is"
        if not frame or not any(is_plain_file(store, name) for name in (MANIFEST, PROVENANCE)):
            raise HephaestusError(
                f"{words} a folder that this program did not publish; move it away and run the same command "
                f"again"
            )
        if frame != self.frame.id:
            raise HephaestusError(
                f"{words} a cube of {sanitize_text(frame, 40)}; move it away and run the same command again"
            )
        return Generation(0, store)

    def history(self) -> StoredHistory:
        """Return what is on disk of earlier generations; looked up when it is called for."""
        return StoredHistory(self._published_chunk_keys, self._used_key_spaces)

    def _published_chunk_keys(self) -> set[str]:
        """Return the keys of all chunks of the published generation, the retired ones among them."""
        current = self.published_generation()
        if current is None:
            return set()
        try:
            listed = {*current.read_manifest()}
        except HephaestusError:  # it is lost
            listed = {name for name, _ in walk_files(current.store)}
        # a grid mapping has one value, which has no meaning and always the same key
        return {key for key in listed if is_chunk_key(key) and GRID_MAPPING not in key.split("/")}

    def _used_key_spaces(self) -> set[tuple[int, int]]:
        """Return the key spaces that generations on disk use; one whose record is lost may use any."""
        used = set()
        for number in self.generation_numbers():
            try:
                contents = Generation(number, self._folder.store_path(number)).read_inventory()
                used.add((contents.keys.index, contents.pair_keys.index))
            except HephaestusError:
                used.update((index, index) for index in range(len(KEY_SPACES)))
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
        with ExitStack() as held:
            with translate_os_errors(f"{self.frame}: locking the folder of its cube"):
                locked = held.enter_context(try_lock_file(self.root / LOCK_FILE, wait=wait))
            if not locked:
                raise FrameBusyError(
                    f"{self.frame}: another build is running ({_describe(holder)}); try again when it "
                    f"has ended, or `hephaestus build {self.frame} --wait`"
                )
            with suppress(OSError):  # only used in messages; `gc` must work on a full disk
                write_json(
                    holder,
                    {
                        "pid": os.getpid(),
                        "host": socket.gethostname(),
                        "since": datetime.now(UTC).isoformat(" ", "seconds"),
                    },
                )
            try:
                if restore:
                    self.republish_newest()
                yield
            finally:
                with suppress(OSError):
                    holder.unlink(missing_ok=True)

    @contextmanager
    def new_generation(self) -> Iterator[Path]:
        """Yield an empty store to fill; publish it if the block succeeds, discard it if it raises."""
        self.remove_leftovers()
        current = self.published_generation()  # raises if the name is not one that a build made
        if current is not None and not current.number:
            raise HephaestusError(f"{self.frame}: {current.store} is a copy that was not taken over yet")
        with self._next_generation() as (number, store):
            yield store
        self._publish(number)

    def adopt(self, copy: Generation) -> Generation:
        """Make a generation of a cube that was copied to the published name, and publish it.

        Returns
        -------
        Generation
            The new generation, of hard links to the copy's files or copies of them.
        """
        self.remove_leftovers()
        with self._next_generation() as (number, store):
            copy_store(copy.store, store)
        self._publish(number)
        return Generation(number, self._folder.store_path(number))

    @contextmanager
    def _next_generation(self) -> Iterator[tuple[int, Path]]:
        """Yield the next number and an empty store; complete the generation unless the block raises."""
        number = max(self._folder.used_numbers(), default=0) + 1
        draft = self.root / f".draft-{uuid.uuid4().hex[:12]}"
        store = draft / f"{self.frame}.zarr"
        try:
            with translate_os_errors(f"{self.frame}: writing generation {number}"):
                store.mkdir(parents=True)
                yield number, store
                for name in (PROVENANCE, MANIFEST):  # a second copy, in case the first is damaged
                    with suppress(FileNotFoundError):  # of a copy that came without it
                        shutil.copyfile(store / name, draft / name)
                sync_folder(draft)
                draft.rename(self.root / f"{number:06d}")
                sync_folder(self.root)
        finally:
            self._folder.remove_draft(draft.name)

    def _publish(self, number: int) -> None:
        with translate_os_errors(f"{self.frame}: publishing generation {number}"):
            self._name.point_to(self._folder.store_path(number))
            self._folder.remove_leftovers()

    def unpublished_number(self) -> int | None:
        """Return the number of a complete generation if none is published; None otherwise."""
        if os.path.lexists(self.published_link):
            return None
        return next(filter(self._is_complete, reversed(self.generation_numbers())), None)

    def _is_complete(self, number: int) -> bool:
        return (self._folder.store_path(number) / MANIFEST).exists()

    def republish_newest(self) -> None:
        """Publish the newest generation if a build was killed before it did so, or the published one is lost.

        Raises
        ------
        LostGenerationError
            If the published link leads nowhere, and there is no other generation.
        """
        complete = filter(self._is_complete, reversed(self.generation_numbers()))
        newest = next(complete, 0)
        try:
            current = self.published_generation()
        except LostGenerationError:
            if not newest:
                raise
            current = None
        if current is not None and not current.number:  # a copy in place of them all
            return
        if newest > (current.number if current else 0):
            self._publish(newest)
            log.warning(
                "%s: generation %d was complete but not published; it is published now", self.frame, newest
            )

    def forget_lost_generation(self) -> None:
        """Remove the published link, which leads to a generation that is gone."""
        with translate_os_errors(f"{self.frame}: removing a link that leads nowhere"):
            if self.published_link.is_symlink():
                self.published_link.unlink()

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
        """Return when a generation was written, in seconds since 1970-01-01 UTC; 0 means a copy's own folder.

        Raises
        ------
        HephaestusError
            If the generation is gone.
        """
        folder = self.root / f"{number:06d}" if number else self.published_link
        with self._folder.guard_access():
            try:  # the copy of the manifest is written last
                return (folder / MANIFEST).lstat().st_mtime
            except FileNotFoundError:
                return folder.lstat().st_mtime

    def remove_leftovers(self) -> None:
        """Remove the drafts, files and links that killed builds left."""
        self._folder.remove_leftovers()
        self._name.remove_leftovers()


def pinned_store(path: Path) -> Path:
    """Return the store to read when a cube is opened at a path.

    It keeps its content when another generation is published: a link is resolved, and in place of a plain
    folder with a published name the generation that it equals is taken.

    Raises
    ------
    OSError, RuntimeError, ValueError
        If there is nothing at the path, it is a loop of links, or it is no valid name.
    """
    wait_for_replacement(path)
    store = path.resolve(strict=True)
    if generation_number(store) is None and is_real_folder(store.parent / GENERATIONS):
        with suppress(HephaestusError):
            current = FrameStore(store.parent, Frame(store.name.removesuffix(".zarr"))).published_generation()
            return current.store if current is not None else store
    return store


def _frame_of_folder(store: Path) -> str:
    """Return the frame that the metadata or the record of a folder names; empty if it is no cube."""
    with suppress(OSError, ValueError, KeyError, TypeError):
        content = read_plain_file(store, "zarr.json", _MAX_METADATA_BYTES)
        return str(parse_json(content, limit=_MAX_METADATA_BYTES)["attributes"]["frame"])
    with suppress(OSError, ValueError, KeyError):
        content = read_plain_file(store, PROVENANCE, MAX_RECORD_BYTES)
        return str(CubeInventory.decode(content).attributes["frame"])
    return ""


def _describe(holder: Path) -> str:
    try:
        value = parse_json(read_plain_file(holder.parent, holder.name, 1 << 16))
        return f"process {value['pid']} on {value['host']} since {value['since']}"
    except (OSError, ValueError, KeyError, TypeError):
        return "its process is not known"
