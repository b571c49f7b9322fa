"""Checks before an export writes: one writer at a time, no leftovers, and never into a cube."""

from __future__ import annotations

import re
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from hephaestus_build.core.errors import HephaestusError, UsageError
from hephaestus_build.core.filesystem.locks import try_lock_file
from hephaestus_build.core.plain_files import walk_files
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
