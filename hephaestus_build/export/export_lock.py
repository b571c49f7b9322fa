"""Checks before an export writes: one writer, no leftovers, nothing of others replaced, never into a cube."""

from __future__ import annotations

import re
import stat
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from hephaestus_build.core.errors import HephaestusError, UsageError
from hephaestus_build.core.filesystem.locks import try_lock_file
from hephaestus_build.core.plain_files import walk_files
from hephaestus_build.core.plain_text import count_of
from hephaestus_build.cube.storage.frame_folder import GENERATIONS

# of this program, and of zarr-python
_UNFINISHED = re.compile(r"\..+\.[0-9a-f]{12}|.+\.[0-9a-f]{32}\.partial")


@contextmanager
def exclusive_lock(target: Path) -> Iterator[None]:
    """Hold the lock of `target`, a file or folder whose parent folder is created if needed.

    Raises
    ------
    HephaestusError
        If another process is writing it now.
    """
    path = target.with_name(f".{target.name}.lock")
    with try_lock_file(path) as locked:
        if not locked:
            raise HephaestusError(f"another export is writing {target} now; wait for its end")
        try:
            yield
        finally:
            path.unlink(missing_ok=True)


def remove_unfinished_files(folder: Path) -> None:
    """Remove files that a killed writer left unfinished in `folder` and below."""
    for name, facts in list(walk_files(folder)) if folder.is_dir() else []:
        if _UNFINISHED.fullmatch(name.rpartition("/")[2]) and stat.S_ISREG(facts.st_mode):
            (folder / name).unlink()


def paths_to_write(
    folder: Path, wanted: Mapping[str, str], read_key: Callable[[Path], str | None], *, force: bool
) -> list[str]:
    """Return which files of an export are not there yet with their content.

    Parameters
    ----------
    folder : pathlib.Path
        Folder of the export.
    wanted : mapping of str to str
        Key of the content of each file, by its path below the folder.
    read_key : callable
        Returns the key of a file; None for one that is missing or of another program.
    force : bool
        Whether files of another content are replaced.

    Raises
    ------
    UsageError
        If a file is of another program, or of another content and `force` is false.
    """
    keys = {path: read_key(folder / path) for path in wanted}
    todo = [path for path, key in wanted.items() if keys[path] != key]
    taken = [path for path in todo if (folder / path).exists()]
    if foreign := [path for path in taken if keys[path] is None]:
        raise UsageError(
            f"{folder / foreign[0]}{_and_more(foreign)} of no export of this program, never replaced; "
            "move such files away or choose another --out"
        )
    if taken and not force:
        raise UsageError(
            f"{folder / taken[0]}{_and_more(taken)} not of this cube as it is now; "
            "add --force to replace what stands there"
        )
    return todo


def _and_more(paths: Sequence[object]) -> str:
    """Return what follows the first of several files in a sentence, with the verb."""
    return f" and {count_of(len(paths) - 1, 'more file')} are" if len(paths) > 1 else " is"


def check_export_target(store: Path, target: Path) -> None:
    """Refuse to export a cube onto or into a cube, or among generations.

    Parameters
    ----------
    store : pathlib.Path
        The store of the exported generation.
    target : pathlib.Path
        Destination of the export.

    Raises
    ------
    UsageError
        If `target` is a link or lies in a cube.
    """
    if target.is_symlink():
        raise UsageError(
            f"{target} is a link, as the names of published cubes are, and is never replaced; choose another "
            "--out"
        )
    place, home = target.resolve(), store.parent.resolve()
    inside = any(
        home / store.name == part or (part / "zarr.json").is_file() for part in (place, *place.parents)
    )
    among = GENERATIONS in place.parts or any((part / GENERATIONS).exists() for part in (place, place.parent))
    if inside or among or place == home:
        raise UsageError(f"{target} is in a cube or among the published ones; choose another --out")
