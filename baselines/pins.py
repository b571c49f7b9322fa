"""The generations of cubes that a grid of runs reads: settled when it begins, the same for all its runs.

A folder of links, ``<frame>.zarr``, that lead to generations and not to the published names. So builds may
publish further ones while a grid runs, stops and goes on, and its runs stay comparable.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

from filelock import FileLock, Timeout

from hephaestus_build.collection import in_folders, of_one_kind
from hephaestus_build.cube.generation import PROVENANCE, Generation
from hephaestus_build.errors import HephaestusError
from hephaestus_build.files import explained


def pin(cubes: Path | Sequence[Path], folder: Path, *, mixed: bool = False) -> tuple[Path, list[str]]:
    """Pin the cubes in a folder, unless that was done before.

    Parameters
    ----------
    cubes : pathlib.Path or sequence of pathlib.Path
        Folder of published cubes, or the cubes.
    folder : pathlib.Path
        Of the grid; the links are in ``cubes`` below it.
    mixed : bool
        Whether real and simulated cubes may be among them.

    Returns
    -------
    tuple of pathlib.Path and list of str
        The folder of links, and the frames whose published cubes are others by now.

    Raises
    ------
    HephaestusError
        If there are no cubes, or one that was pinned is gone.
    UsageError
        If there are real and simulated ones and `mixed` does not ask for that.
    """
    pinned = folder / "cubes"
    given = in_folders([cubes] if isinstance(cubes, Path) else cubes)
    of_one_kind([*given, *in_folders([pinned])], mixed=mixed)
    found = {path.name: path.resolve() for path in given}
    if not pinned.is_dir():
        if not found:
            raise HephaestusError(
                f"there are no cubes{f' in {cubes}' if isinstance(cubes, Path) else ''}; `hephaestus build "
                f"FRAME` builds one, --simulated makes some"
            )
        with explained(f"benchmark: pinning the cubes in {folder}"):
            _link(found, pinned)
    stores = {path.name: path.resolve() for path in sorted(pinned.glob("*.zarr"))}
    for name, store in stores.items():
        if not (store / "zarr.json").is_file():
            raise HephaestusError(
                f"{store} is gone, the generation of {name.removesuffix('.zarr')} that the runs in {folder} "
                f"read; move that folder away to begin anew"
            )
    changed = {name for name in found.keys() | stores.keys() if found.get(name) != stores.get(name)}
    return pinned, sorted(name.removesuffix(".zarr") for name in changed)


def _link(found: dict[str, Path], pinned: Path) -> None:
    """Make the folder of links; it appears whole or not at all, and the first one to make it wins."""
    draft = pinned.with_name(f".{pinned.name}.{uuid4().hex[:12]}")
    draft.mkdir(parents=True)
    for name, store in found.items():
        # relative, so that a data folder may be moved
        (draft / name).symlink_to(os.path.relpath(store, pinned.resolve()))
    try:
        draft.rename(pinned)
    except OSError:
        shutil.rmtree(draft)
        if not pinned.is_dir():
            raise


def generation_of(store: Path) -> int:
    """Return the number of the generation that a pinned cube is; 0 for a copy that stands alone."""
    return Generation.at(store).number if (store / PROVENANCE).exists() else 0


@contextmanager
def alone(folder: Path) -> Iterator[bool]:
    """Lock a folder while the block runs, if nobody else does; give whether it is ours.

    The lock goes with the process that holds it, however that ends.
    """
    with explained(f"benchmark: locking {folder}"):
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder / "lock", timeout=0)
        try:
            lock.acquire()
        except Timeout:
            yield False
            return
    try:
        yield True
    finally:
        lock.release()
