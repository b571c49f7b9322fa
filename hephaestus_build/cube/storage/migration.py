"""Migration of simulated cubes from the folder of real cubes, where earlier versions put them.

A frame is moved while its locks in the old and the new folder are held:

1. A marker file in the new folder records that a migration has begun.
2. Its downloads are renamed into the cache of the simulated archive.
3. Its generations are renamed one by one, the published one last.
4. The link to the published generation, or the plain folder in its place, is renamed. The link is relative,
   so it is valid in the new folder too.
5. The marker is removed.

A migration that was interrupted continues from the marker. Nothing in the new folder is replaced.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hephaestus_build.core.atomic_io import sync_folder, translate_os_errors, write_json
from hephaestus_build.core.errors import HephaestusError, UsageError
from hephaestus_build.core.filesystem.locks import try_lock_file
from hephaestus_build.core.frames import Frame
from hephaestus_build.core.plain_files import is_real_folder
from hephaestus_build.core.settings import Settings
from hephaestus_build.cube.discovery import (
    BENCHMARK_FOLDER,
    MIGRATION_MARKER,
    is_at_legacy_path,
    is_simulated_cube,
    legacy_cubes_dir,
)
from hephaestus_build.cube.storage.frame_folder import GENERATIONS
from hephaestus_build.cube.storage.generations import LOCK_FILE, LOCK_HOLDER_FILE, FrameStore

#: File next to the cubes of the simulated benchmark that describes their simulated world.
WORLD_FILE = "world.json"
#: Files of a frame's folder that belong to its lock, not to its cube.
_LOCKS = (LOCK_FILE, LOCK_HOLDER_FILE)


@dataclass(frozen=True)
class MigratedCube:
    """A cube that was moved.

    Attributes
    ----------
    frame : Frame
        Frame of the cube.
    source, target : pathlib.Path
        Published path before and after the move.
    generations : tuple of int
        Numbers of its generations.
    """

    frame: Frame
    source: Path
    target: Path
    generations: tuple[int, ...]

    def to_json(self) -> dict[str, Any]:
        """Return the attributes as JSON values."""
        return {
            "frame": str(self.frame),
            "from": str(self.source),
            "to": str(self.target),
            "generations": list(self.generations),
        }


def require_migrated(settings: Settings, frame: Frame) -> None:
    """Check that a simulated frame has no cube that must be migrated before a new one is written.

    Raises
    ------
    HephaestusError
        If it has one.
    """
    if settings.is_simulated and needs_migration(settings, frame):
        raise HephaestusError(
            f"{frame}: its simulated cube is in {legacy_cubes_dir(settings)}, where earlier versions put it; "
            f"move it with `hephaestus migrate {frame}`, then run the same command again"
        )


def frames_to_migrate(settings: Settings) -> list[Frame]:
    """Return the frames whose simulated cubes are in the folder of real cubes, sorted."""
    cubes = legacy_cubes_dir(settings)
    if cubes is None:
        return []
    generations = cubes / GENERATIONS
    names = {path.name for path in generations.iterdir()} if generations.is_dir() else set()
    names |= {path.stem for path in cubes.glob("*.zarr")}
    # frames of which an interrupted migration has moved a part
    apart = settings.for_simulated().cubes_dir / GENERATIONS
    names |= {path.parent.name for path in apart.glob(f"*/{MIGRATION_MARKER}")}
    return [frame for frame in _frames(names) if needs_migration(settings, frame)]


def _frames(names: set[str]) -> Iterator[Frame]:
    for name in sorted(names):
        with suppress(UsageError):
            yield Frame(name)


def needs_migration(settings: Settings, frame: Frame) -> bool:
    """Return whether a frame has a simulated cube among the real ones, or an interrupted migration."""
    cubes = legacy_cubes_dir(settings)
    if cubes is None:
        return False
    if (FrameStore(settings.for_simulated().cubes_dir, frame).root / MIGRATION_MARKER).exists():
        return True
    store = cubes / f"{frame}.zarr"
    return is_at_legacy_path(settings, frame) or (os.path.lexists(store) and is_simulated_cube(store))


def migrate_cube(frame: Frame, settings: Settings) -> MigratedCube:
    """Move a simulated cube from the folder of real cubes to the folder of simulated ones.

    Raises
    ------
    HephaestusError
        If there is nothing to move, another process holds a lock, the new folder already has a cube of the
        frame, or the file system refuses the rename.
    """
    cubes = legacy_cubes_dir(settings)
    if cubes is None or not needs_migration(settings, frame):
        raise HephaestusError(
            f"{frame}: there is no simulated cube to move in {cubes}; `hephaestus status` lists the cubes "
            f"to move"
        )
    old = FrameStore(cubes, frame)
    new = FrameStore(settings.for_simulated().cubes_dir, frame)
    for folder in (old.root, new.root):
        if folder.is_symlink():
            raise HephaestusError(
                f"{frame}: {folder} is a link that this program did not make; move the cube by hand"
            )
    with ExitStack() as locks:
        locks.enter_context(old.lock(restore=False))
        locks.enter_context(new.lock(restore=False))
        with translate_os_errors(f"{frame}: moving its cube to {new.published_link.parent}"):
            if is_real_folder(old.published_link):
                old.published_generation()  # raises if it is no cube of this frame
            _begin_migration(old, new)
            _move_downloads(frame, settings)
            _rename_entries(old, new)
            for name in _LOCKS:
                (old.root / name).unlink(missing_ok=True)
            with suppress(OSError):  # another process may just have created its lock again
                old.root.rmdir()
    return MigratedCube(frame, old.published_link, new.published_link, tuple(new.generation_numbers()))


def _begin_migration(old: FrameStore, new: FrameStore) -> None:
    """Check that the new folder has no cube of the frame, and write the marker."""
    if not (new.root / MIGRATION_MARKER).exists():
        if new.published_link.is_symlink() or new.published_link.exists() or any(_frame_entries(new)):
            raise HephaestusError(
                f"{old.frame}: there is already a cube in {new.published_link.parent}, and nothing is "
                f"replaced; remove {old.published_link} and {old.root}, or those in the new folder, then run "
                "the same command again"
            )
        write_json(new.root / MIGRATION_MARKER, {"from": os.path.relpath(old.root, new.root)})


def _frame_entries(frame_store: FrameStore) -> list[Path]:
    """Return the entries of a frame's folder except lock and marker, the published generation last."""
    aside = (*_LOCKS, MIGRATION_MARKER)
    parts = [path for path in frame_store.root.iterdir() if path.name not in aside]
    published = (
        [frame_store.published_link.readlink().parent.name] if frame_store.published_link.is_symlink() else []
    )
    return sorted(parts, key=lambda path: (path.name in published, path.name))


def _rename_entries(old: FrameStore, new: FrameStore) -> None:
    for part in _frame_entries(old):
        target = new.root / part.name
        if os.path.lexists(target):  # not from an interrupted migration: a rename leaves no source behind
            raise HephaestusError(
                f"{old.frame}: cannot move {part}: {target} already exists; move one of them away and run "
                f"`hephaestus migrate {old.frame}` again"
            )
        part.rename(target)
    sync_folder(new.root)
    if os.path.lexists(old.published_link):
        if os.path.lexists(new.published_link):
            raise HephaestusError(
                f"{old.frame}: cannot move {old.published_link}: {new.published_link} already exists; move "
                f"it away and run `hephaestus migrate {old.frame}` again"
            )
        old.published_link.rename(
            new.published_link
        )  # the link is relative, so it is valid in the new folder too
    sync_folder(new.published_link.parent)
    sync_folder(old.published_link.parent)
    (new.root / MIGRATION_MARKER).unlink()


def _move_downloads(frame: Frame, settings: Settings) -> None:
    """Move the cached products of a simulated frame, so that they are not downloaded again.

    Errors are ignored: a product that is not in the cache is downloaded again.
    """
    if not frame.is_simulated or settings.real_data_dir is None:
        return  # products of other frames may be real
    apart = settings.for_simulated().downloads_dir
    together = apart.parent if settings.cache_dir is not None else settings.real_data_dir / "cache"
    for folder in sorted(together.glob(f"licsar/*/{frame.id}")):
        target = apart / folder.relative_to(together)
        if any(path.is_symlink() for path in (folder, folder.parent)) or os.path.lexists(target):
            continue
        with suppress(OSError):
            target.parent.mkdir(parents=True, exist_ok=True)
            folder.rename(target)


def folders_to_migrate(settings: Settings) -> list[tuple[Path, Path]]:
    """Return (source, target) folders of the simulated benchmark's cubes and results that must be moved.

    The order matters: cubes come first. The results contain relative links to the cubes, which stay valid.
    """
    apart, data = settings.for_simulated().data_dir, settings.real_data_dir
    if data is None:
        return []
    found = [data / BENCHMARK_FOLDER] if (data / BENCHMARK_FOLDER / WORLD_FILE).is_file() else []
    for grid in sorted(path.parent for path in (data / "results").glob("*/cubes")):
        stores = list((grid / "cubes").glob("*.zarr"))
        if stores and all(map(is_simulated_cube, stores)):
            found.append(grid)
    return [(path, apart / path.relative_to(data)) for path in found]


def migrate_folder(source: Path, target: Path) -> None:
    """Move the simulated benchmark's cubes, or the results of a grid of runs, by one rename.

    Raises
    ------
    HephaestusError
        If another process holds a lock in `source`, `target` exists, or the file system refuses the rename.
    """
    with ExitStack() as locks, translate_os_errors(f"moving {source} to {target}"):
        for name in sorted(
            [*source.glob(f"cubes/{GENERATIONS}/*/{LOCK_FILE}"), *source.glob(f"runs/*/{LOCK_FILE}")]
        ):
            if not locks.enter_context(try_lock_file(name)):
                raise HephaestusError(
                    f"another process is using {name.parent}; run the same command again when it has ended"
                )
        if os.path.lexists(target):
            raise HephaestusError(
                f"{target} already exists, and nothing is replaced; move it or {source} away, then run the "
                f"same command again"
            )
        target.parent.mkdir(parents=True, exist_ok=True)
        source.rename(target)
        sync_folder(target.parent)
        sync_folder(source.parent)
