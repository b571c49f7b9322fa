"""Pinned cube generations: the generations that all runs of a grid read, fixed when the grid starts.

The pins are a folder of links, ``<frame>.zarr``, to generations instead of to the published names. Builds may
publish new generations while a grid runs, stops and resumes; its runs stay comparable. Where the file system
has no symbolic links, a pin is a small text file with the path that a link would have.
"""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from uuid import uuid4

from hephaestus_build.core.atomic_io import encode_json, hash_bytes, translate_os_errors, write_atomic
from hephaestus_build.core.embedded_hash import add_json_hash, parse_hashed_json
from hephaestus_build.core.errors import HephaestusError
from hephaestus_build.core.filesystem.locks import try_lock_file
from hephaestus_build.core.parsing import read_bounded
from hephaestus_build.core.plain_files import is_real_folder, read_plain_file
from hephaestus_build.core.plain_text import sanitize_text
from hephaestus_build.cube.discovery import are_simulated, list_cubes
from hephaestus_build.cube.storage.frame_folder import PROVENANCE
from hephaestus_build.cube.storage.generations import Generation, pinned_store

log = logging.getLogger(__name__)

#: File in the folder of links that records the target of each link.
_PINS_FILE = "pins.json"
_MAX_PINS_BYTES = 1 << 20  # bytes of that file
_MAX_PATH_BYTES = 1 << 14  # bytes of a pin that is a text file


def pin_cubes(cubes: Path | Sequence[Path], folder: Path, *, mixed: bool = False) -> tuple[Path, list[str]]:
    """Pin the cubes in a folder, unless they are pinned already.

    Parameters
    ----------
    cubes : pathlib.Path or sequence of pathlib.Path
        Folder of published cubes, or the cubes themselves.
    folder : pathlib.Path
        Folder of the grid; the links are in its subfolder ``cubes``.
    mixed : bool
        Whether real and simulated cubes may be mixed.

    Returns
    -------
    tuple of pathlib.Path and list of str
        The folder of links, and the frames with a newer published generation.

    Raises
    ------
    HephaestusError
        If there are no cubes, or a pinned one is missing.
    UsageError
        If there are both real and simulated cubes and `mixed` is false.
    """
    pinned = folder / "cubes"
    given = list_cubes([cubes] if isinstance(cubes, Path) else cubes)
    are_simulated([*given, *map(resolve_pin, list_cubes([pinned]))], mixed=mixed)
    found = {path.name: resolve_pin(path) for path in given}
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
    """Return the store that a pin leads to; if another store has the pinned content, point the pin there.

    This happens if a results folder was moved without its cubes, or a damaged generation was repaired. The
    published generation is preferred to others with the same content.
    """
    link = pinned / name
    store = resolve_pin(link)
    for other in _iter_generations(published) if published and not is_real_folder(link) else ():
        if other != store and _content_hash(other) == known:
            draft = pinned / f".{name}.{uuid4().hex[:12]}"
            with translate_os_errors(f"benchmark: pinning {other}"):
                _write_pin(draft, other, pinned)
                draft.replace(link)
            log.warning("%s: the runs now read %s, which has the same content", link.stem, other)
            return other
        if other == store:  # no newer generation has the same content
            break
    if not (store / "zarr.json").is_file() or _content_hash(store) != known:
        raise HephaestusError(
            f"{store} is gone, the generation of {link.stem} that the runs in {pinned.parent} read, or has "
            f"other content now; give the folder of cubes that has it with --cubes, or move that folder "
            f"away to start again"
        )
    return store


def resolve_pin(path: Path) -> Path:
    """Return the store that a pin, or a published name, leads to; it need not exist.

    Parameters
    ----------
    path : pathlib.Path
        A link to a cube, a text file with a relative path, or a cube.
    """
    with suppress(OSError, ValueError):
        text = read_plain_file(path.parent, path.name, _MAX_PATH_BYTES).decode()
        return (path.parent / text.removesuffix("\n")).resolve()
    try:
        return pinned_store(path)
    except (OSError, RuntimeError, ValueError):  # the reader of the store says that it is gone
        return Path(os.path.realpath(path))


def _write_pin(link: Path, store: Path, pinned: Path) -> None:
    """Write a pin that leads to a store once it is in the folder `pinned`."""
    target = os.path.relpath(store, pinned.resolve())  # relative, so that a data folder may be moved
    try:
        link.symlink_to(target)
    except OSError:  # file systems without symbolic links answer in many ways; a full disk refuses files too
        write_atomic(link, f"{target}\n".encode())


def _iter_generations(published: Path) -> Iterator[Path]:
    """Yield the stores of a frame, the published one first, then the newest ones."""
    yield published
    frame_store = published.parents[1]
    if published.parent.name.isdigit():
        numbers = sorted((path.name for path in frame_store.iterdir() if path.name.isdigit()), reverse=True)
        yield from (frame_store / number / published.name for number in numbers)


def _content_hash(store: Path) -> str:
    """Return a hash of the content of a cube, without its provenance; "unknown" without a manifest."""
    try:
        objects = Generation.from_path(store).read_manifest()
    except HephaestusError:
        return "unknown"
    return hash_bytes(encode_json({path: objects[path] for path in sorted(objects.keys() - {PROVENANCE})}))


def _read_pins(pinned: Path) -> dict[str, str]:
    """Return the content hash of each pinned cube by the name of its link.

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
            raise ValueError("its entries are not names of cubes")
        return dict(cubes)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise HephaestusError(
            f"{pinned / _PINS_FILE}, the list of cubes for the runs in {pinned.parent}, cannot be read "
            f"({sanitize_text(error, 100)}); restore it from a copy, or move that folder away to start again"
        ) from error


def _create_pins(found: dict[str, Path], pinned: Path) -> None:
    """Create the folder of links atomically; if another process created it first, that one is kept."""
    draft = pinned.with_name(f".{pinned.name}.{uuid4().hex[:12]}")
    draft.mkdir(parents=True)
    for name, store in found.items():
        _write_pin(draft / name, store, pinned)
    record = {name: _content_hash(store) for name, store in found.items()}
    write_atomic(draft / _PINS_FILE, add_json_hash(encode_json({"cubes": record})))
    try:
        draft.rename(pinned)
    except OSError:
        shutil.rmtree(draft)
        if not pinned.is_dir():
            raise


def cube_generation_number(store: Path) -> int:
    """Return the generation number of a pinned cube; 0 for a standalone copy."""
    return Generation.from_path(store).number if (store / PROVENANCE).exists() else 0


@contextmanager
def try_lock_folder(folder: Path) -> Iterator[bool]:
    """Try to lock a folder for the duration of the block; yield whether the lock was acquired.

    The lock is released when the process ends, however it ends.
    """
    if folder.is_symlink() or (folder / "lock").is_symlink():
        raise HephaestusError(
            f"{folder} or the lock file in it is a symbolic link; remove it and run the same command again"
        )
    with ExitStack() as held:
        with translate_os_errors(f"benchmark: locking {folder}"):
            locked = held.enter_context(try_lock_file(folder / "lock"))
        yield locked
