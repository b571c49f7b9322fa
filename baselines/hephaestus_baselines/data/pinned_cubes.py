"""The generations of cubes that a grid of runs reads: settled when it begins, the same for all its runs.

A folder of links, ``<frame>.zarr``, that lead to generations and not to the published names. So builds may
publish further ones while a grid runs, stops and goes on, and its runs stay comparable.
"""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

from filelock import FileLock, Timeout

from hephaestus_build.core.atomic_io import encode_json, hash_bytes, translate_os_errors, write_atomic
from hephaestus_build.core.embedded_hash import add_json_hash, parse_hashed_json
from hephaestus_build.core.errors import HephaestusError
from hephaestus_build.core.parsing import read_bounded
from hephaestus_build.core.plain_text import sanitize_text
from hephaestus_build.cube.discovery import are_simulated, list_cubes
from hephaestus_build.cube.storage.frame_folder import PROVENANCE
from hephaestus_build.cube.storage.generations import Generation

log = logging.getLogger(__name__)

#: In the folder of links: what each of them leads to.
_PINS_FILE = "pins.json"
_MAX_PINS_BYTES = 1 << 20  # bytes of it


def pin_cubes(cubes: Path | Sequence[Path], folder: Path, *, mixed: bool = False) -> tuple[Path, list[str]]:
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
    given = list_cubes([cubes] if isinstance(cubes, Path) else cubes)
    are_simulated([*given, *list_cubes([pinned])], mixed=mixed)
    found = {path.name: path.resolve() for path in given}
    if not pinned.is_dir():
        if not found:
            raise HephaestusError(
                f"there are no cubes{f' in {cubes}' if isinstance(cubes, Path) else ''}; `hephaestus build "
                f"FRAME` builds one, --simulated makes some"
            )
        with translate_os_errors(f"benchmark: pinning the cubes in {folder}"):
            _create_pins(found, pinned)
    stores = {
        name: _resolve_pin(pinned, name, known, found.get(name)) for name, known in _read_pins(pinned).items()
    }
    changed = {name for name in found.keys() | stores.keys() if found.get(name) != stores.get(name)}
    return pinned, sorted(name.removesuffix(".zarr") for name in changed)


def _resolve_pin(pinned: Path, name: str, known: str, published: Path | None) -> Path:
    """Return the store that a pin leads to; where its content is elsewhere by now, the pin is set anew.

    A results folder may have been moved without its cubes, and a damaged generation been repaired: the
    published generation goes before others with the same content.
    """
    link = pinned / name
    store = link.resolve()
    for other in (
        _iter_generations(published) if published and (link.is_symlink() or not link.exists()) else ()
    ):
        if other != store and _content_hash(other) == known:
            draft = pinned / f".{name}.{uuid4().hex[:12]}"
            with translate_os_errors(f"benchmark: pinning {other}"):
                draft.symlink_to(os.path.relpath(other, pinned.resolve()))
                draft.replace(link)
            log.warning("%s: the runs read %s from now on, which holds the same", link.stem, other)
            return other
        if other == store:  # no newer one holds the same
            break
    if not (store / "zarr.json").is_file() or _content_hash(store) != known:
        raise HephaestusError(
            f"{store} is gone, the generation of {link.stem} that the runs in {pinned.parent} read, or holds "
            f"something else by now; give the folder of cubes that has it with --cubes, or move that folder "
            f"away to begin again"
        )
    return store


def _iter_generations(published: Path) -> Iterator[Path]:
    """Yield the stores of a frame, the published one first, then the newest ones."""
    yield published
    frame_store = published.parents[1]
    if published.parent.name.isdigit():
        numbers = sorted((path.name for path in frame_store.iterdir() if path.name.isdigit()), reverse=True)
        yield from (frame_store / number / published.name for number in numbers)


def _content_hash(store: Path) -> str:
    """Return a hash of all that a cube holds, whatever is told of where it came from; nothing unknown."""
    try:
        objects = Generation.from_path(store).read_manifest()
    except HephaestusError:
        return "unknown"
    return hash_bytes(encode_json({path: objects[path] for path in sorted(objects.keys() - {PROVENANCE})}))


def _read_pins(pinned: Path) -> dict[str, str]:
    """Return the content of each pinned cube by the name of its link.

    Raises
    ------
    HephaestusError
        If the record is missing or damaged.
    """
    try:
        cubes = parse_hashed_json(read_bounded(pinned / _PINS_FILE, _MAX_PINS_BYTES))["cubes"]
        if not all(
            isinstance(name, str) and Path(name).name == name and isinstance(content, str)
            for name, content in cubes.items()
        ):
            raise ValueError("it names other places")
        return dict(cubes)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise HephaestusError(
            f"{pinned / _PINS_FILE}, which says what cubes the runs in {pinned.parent} read, cannot be read "
            f"({sanitize_text(error, 100)}); take a whole copy of it, or move that folder away to begin again"
        ) from error


def _create_pins(found: dict[str, Path], pinned: Path) -> None:
    """Make the folder of links; it appears whole or not at all, and the first one to make it wins."""
    draft = pinned.with_name(f".{pinned.name}.{uuid4().hex[:12]}")
    draft.mkdir(parents=True)
    for name, store in found.items():
        # relative, so that a data folder may be moved
        (draft / name).symlink_to(os.path.relpath(store, pinned.resolve()))
    record = {name: _content_hash(store) for name, store in found.items()}
    write_atomic(draft / _PINS_FILE, add_json_hash(encode_json({"cubes": record})))
    try:
        draft.rename(pinned)
    except OSError:
        shutil.rmtree(draft)
        if not pinned.is_dir():
            raise


def cube_generation_number(store: Path) -> int:
    """Return the number of the generation that a pinned cube is; 0 for a copy that stands alone."""
    return Generation.from_path(store).number if (store / PROVENANCE).exists() else 0


@contextmanager
def try_lock_folder(folder: Path) -> Iterator[bool]:
    """Lock a folder while the block runs, if nobody else does; give whether it is ours.

    The lock goes with the process that holds it, however that ends.
    """
    if folder.is_symlink() or (folder / "lock").is_symlink():
        raise HephaestusError(
            f"{folder} or the lock in it is a link; remove it, nothing is written through it"
        )
    with translate_os_errors(f"benchmark: locking {folder}"):
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
