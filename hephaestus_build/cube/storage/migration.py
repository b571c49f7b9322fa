"""Bring the cubes of earlier versions to where this version has them.

Earlier versions put simulated cubes among the real ones. A frame is moved by renames alone, under its locks
of both places. Its generations go first, the link to the published one last: a move that is cut off goes on
where it stopped, and nothing that stands in the new place already is replaced.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from hephaestus_build.core.atomic_io import sync_folder, translate_os_errors, write_json
from hephaestus_build.core.errors import HephaestusError, UsageError
from hephaestus_build.core.frames import Frame
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

#: Beside the cubes of the simulated benchmark: which world they are of.
WORLD_FILE = "world.json"
#: What is of a lock, and not of a cube.
_LOCKS = (LOCK_FILE, LOCK_HOLDER_FILE)


@dataclass(frozen=True)
class MigratedCube:
    """A cube that was moved.

    Attributes
    ----------
    frame : Frame
        Whose.
    source, target : pathlib.Path
        The published name before and now.
    generations : tuple of int
        Those that moved with it.
    """

    frame: Frame
    source: Path
    target: Path
    generations: tuple[int, ...]

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON values."""
        return {
            "frame": str(self.frame),
            "from": str(self.source),
            "to": str(self.target),
            "generations": list(self.generations),
        }


def require_migrated(settings: Settings, frame: Frame) -> None:
    """Refuse to write a simulated frame's cube while there is one that has to be moved first.

    Raises
    ------
    HephaestusError
        If there is.
    """
    if settings.is_simulated and needs_migration(settings, frame):
        raise HephaestusError(
            f"{frame}: its simulated cube stands in {legacy_cubes_dir(settings)}, where earlier versions "
            f"put it; `hephaestus migrate {frame}` moves it apart, then run the same command again"
        )


def frames_to_migrate(settings: Settings) -> list[Frame]:
    """Return the frames whose simulated cubes stand among the real ones, in order."""
    cubes = legacy_cubes_dir(settings)
    if cubes is None:
        return []
    generations = cubes / GENERATIONS
    names = {path.name for path in generations.iterdir()} if generations.is_dir() else set()
    names |= {path.stem for path in cubes.glob("*.zarr") if path.is_symlink()}
    # and what a move that was cut off has left in the new place
    apart = settings.for_simulated().cubes_dir / GENERATIONS
    names |= {path.parent.name for path in apart.glob(f"*/{MIGRATION_MARKER}")}
    return [frame for frame in _frames(names) if needs_migration(settings, frame)]


def _frames(names: set[str]) -> Iterator[Frame]:
    for name in sorted(names):
        with suppress(UsageError):
            yield Frame(name)


def needs_migration(settings: Settings, frame: Frame) -> bool:
    """Return whether a frame's cube is simulated and stands among the real ones, or is half moved."""
    cubes = legacy_cubes_dir(settings)
    if cubes is None:
        return False
    if (FrameStore(settings.for_simulated().cubes_dir, frame).root / MIGRATION_MARKER).exists():
        return True
    store = cubes / f"{frame}.zarr"
    return is_at_legacy_path(settings, frame) or (store.is_symlink() and is_simulated_cube(store))


def migrate_cube(frame: Frame, settings: Settings) -> MigratedCube:
    """Move a simulated cube from among the real ones to where it stands apart.

    Raises
    ------
    HephaestusError
        If there is nothing to move, another build is at work on it, something stands in the new place
        already, or the disk refuses it.
    """
    cubes = legacy_cubes_dir(settings)
    if cubes is None or not needs_migration(settings, frame):
        raise HephaestusError(
            f"{frame}: there is no simulated cube of it in {cubes}; `hephaestus status` says which have to "
            f"be moved"
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
            _begin_migration(old, new)
            _move_downloads(frame, settings)
            _rename_entries(old, new)
            for name in _LOCKS:
                (old.root / name).unlink(missing_ok=True)
            with suppress(OSError):  # another program looks for its lock just now
                old.root.rmdir()
    return MigratedCube(frame, old.published_link, new.published_link, tuple(new.generation_numbers()))


def _begin_migration(old: FrameStore, new: FrameStore) -> None:
    """Refuse to merge two cubes into one, and write down that a move has begun."""
    if not (new.root / MIGRATION_MARKER).exists():
        if new.published_link.is_symlink() or new.published_link.exists() or any(_frame_entries(new)):
            raise HephaestusError(
                f"{old.frame}: there is a cube of it in {new.published_link.parent} too, and nothing is "
                "replaced; "
                f"remove {old.published_link} and {old.root}, or those in the new place, then run it again"
            )
        write_json(new.root / MIGRATION_MARKER, {"from": os.path.relpath(old.root, new.root)})


def _frame_entries(frame_store: FrameStore) -> list[Path]:
    """Return what stands beside a frame store's lock, the published generation last."""
    aside = (*_LOCKS, MIGRATION_MARKER)
    parts = [path for path in frame_store.root.iterdir() if path.name not in aside]
    published = (
        [frame_store.published_link.readlink().parent.name] if frame_store.published_link.is_symlink() else []
    )
    return sorted(parts, key=lambda path: (path.name in published, path.name))


def _rename_entries(old: FrameStore, new: FrameStore) -> None:
    for part in _frame_entries(old):
        target = new.root / part.name
        if os.path.lexists(target):  # not of an earlier part of this move: a rename leaves nothing behind
            raise HephaestusError(f"{old.frame}: {target} stands in the way of {part}; move one of them away")
        part.rename(target)
    sync_folder(new.root)
    if old.published_link.is_symlink():
        if os.path.lexists(new.published_link):
            raise HephaestusError(
                f"{old.frame}: {new.published_link} stands in the way of {old.published_link}; move it away"
            )
        old.published_link.rename(
            new.published_link
        )  # where it leads to is written relative to it, and is the same there
    sync_folder(new.published_link.parent)
    sync_folder(old.published_link.parent)
    (new.root / MIGRATION_MARKER).unlink()


def _move_downloads(frame: Frame, settings: Settings) -> None:
    """Move what the cache holds of a simulated frame's products, so that none is downloaded again.

    Where that cannot be done they are: a cache is never needed.
    """
    if not frame.is_simulated or settings.real_data_dir is None:
        return  # of another frame they may be real
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
    """Return where the simulated benchmark's cubes and results are and where they belong, in that order.

    The results lead to the cubes by relative links, which are the same in the new place.
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
    """Move the simulated benchmark's cubes, or the results of a grid, by one rename.

    Raises
    ------
    HephaestusError
        If somebody works in the folder, the new place is taken, or the disk refuses it.
    """
    with ExitStack() as locks, translate_os_errors(f"moving {source} to {target}"):
        for name in sorted(
            [*source.glob(f"cubes/{GENERATIONS}/*/{LOCK_FILE}"), *source.glob(f"runs/*/{LOCK_FILE}")]
        ):
            try:
                locks.enter_context(FileLock(name, timeout=0))
            except Timeout:
                raise HephaestusError(
                    f"another process works in {name.parent}; run the same command again when it has ended"
                ) from None
        if os.path.lexists(target):
            raise HephaestusError(
                f"{target} is there already, and nothing is replaced; move it or {source} away, then run the "
                f"same command again"
            )
        target.parent.mkdir(parents=True, exist_ok=True)
        source.rename(target)
        sync_folder(target.parent)
        sync_folder(source.parent)
