"""Verification of a cube's stored objects against the hashes that were published with it."""

from __future__ import annotations

import logging
import os
import stat
from collections.abc import Collection, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, Literal

from hephaestus_build.core.atomic_io import hash_bytes
from hephaestus_build.core.errors import HephaestusError
from hephaestus_build.core.machine.limits import count_usable_cores
from hephaestus_build.core.plain_files import (
    FileIdentity,
    UnsafePathError,
    describe_file_type,
    hash_descriptor,
    open_plain_file,
    read_plain_file,
    walk_files,
)
from hephaestus_build.core.plain_text import sanitize_text
from hephaestus_build.core.progress import NullListener, ProgressListener
from hephaestus_build.cube.granules import ChunkRef
from hephaestus_build.cube.inventory import CubeInventory
from hephaestus_build.cube.pair_tables import fill_tables
from hephaestus_build.cube.schema import cube_schema
from hephaestus_build.cube.storage.frame_folder import MANIFEST, PROVENANCE
from hephaestus_build.cube.storage.generations import Generation
from hephaestus_build.cube.storage.manifest import MAX_RECORD_BYTES, decode_manifest
from hephaestus_build.cube.storage.published_name import has_record_of

log = logging.getLogger(__name__)

#: Maximum number of unlisted files that are reported.
_MAX_UNLISTED = 1000

DamageKind = Literal["damaged", "missing", "unknown", "unreadable"]


class LostRecordError(HephaestusError):
    """No copy of a cube's provenance can be read."""


@dataclass(frozen=True)
class Damage:
    """One stored object that differs from what was published.

    Attributes
    ----------
    path : str
        Path in the store.
    what : str
        ``damaged`` (other content), ``missing``, ``unknown`` (not published) or ``unreadable``.
    unit : str
        Key of the granule, such as ``pair/20160909_20160921``; empty for metadata and tables.
    variable : str
        Variable of the cube; empty for files that belong to none.
    detail : str
        Further description, or empty.
    """

    path: str
    what: DamageKind
    unit: str = ""
    variable: str = ""
    detail: str = ""

    def __str__(self) -> str:
        names = " of ".join(part for part in (self.variable, self.unit) if part) or "the cube's own record"
        why = f" ({self.detail})" if self.detail else ""
        return sanitize_text(f"{names}: {sanitize_text(self.path, 200)} is {self.what}{why}", 1000)


@dataclass(frozen=True)
class ExpectedObject:
    """Expected hash and size of a stored object, and the key of its granule."""

    chunk: ChunkRef
    granule: str = ""


def expected_objects(objects: Mapping[str, Any], contents: CubeInventory) -> dict[str, ExpectedObject]:
    """Return the expected objects of a store by path.

    Objects of granules are taken from the provenance, which is authoritative. Metadata and tables, which are
    derived from it, are taken from the manifest.
    """
    expected = {path: ExpectedObject(ChunkRef(*value)) for path, value in objects.items()}
    for granule in contents.granules.values():
        for name, path in contents.chunk_keys.keys(granule):
            expected[path] = ExpectedObject(granule.objects[name], granule.key)
    return expected


def _find_manifest_mismatches(
    objects: Mapping[str, Any], expected: Mapping[str, ExpectedObject]
) -> Iterator[Damage]:
    """Yield the objects of granules that the manifest, if readable, lists differently from the provenance."""
    for path, item in expected.items():
        listed = objects.get(path)
        if objects and (listed is None or ChunkRef(*listed) != item.chunk):
            detail = "the manifest and the provenance disagree"
            yield Damage(path, "damaged", item.granule, variable_of_path(path), detail)


def read_record(generation: Generation) -> tuple[dict[str, Any], CubeInventory]:
    """Return a generation's manifest and inventory, even if all copies of its record are damaged.

    Copies are tried in this order:

    1. an undamaged manifest, and the provenance with the hash that the manifest lists;
    2. any manifest that can be read, or an empty one, and any provenance that is a valid inventory.

    Raises
    ------
    LostRecordError
        If no copy of the provenance can be read.
    """
    try:
        return generation.read_manifest(), generation.read_inventory()
    except HephaestusError:  # no undamaged copy, but a readable one may still list the granules
        objects = next(
            filter(None, (_read_manifest_objects(folder) for folder in generation.record_folders)), {}
        )
        for folder in generation.record_folders:
            # its content may be damaged: use it only if tables can be made from it
            with suppress(OSError, ValueError, KeyError, TypeError, AttributeError):
                contents = CubeInventory.decode(read_plain_file(folder, PROVENANCE, MAX_RECORD_BYTES))
                fill_tables(contents.granules.values(), contents.axes)
                log.warning(
                    "%s: every copy of the provenance is damaged; using a readable one", generation.store.stem
                )
                return objects, contents
    frame = generation.store.stem
    raise LostRecordError(
        f"{frame}: no copy of the provenance of {generation.store} can be read, so it is unknown what the "
        f"cube was made from; `hephaestus repair {frame}` builds it again from the archive and the cache"
    )


def _read_manifest_objects(folder: Path) -> dict[str, Any]:
    with suppress(OSError, ValueError):
        return decode_manifest(read_plain_file(folder, MANIFEST, MAX_RECORD_BYTES))
    return {}


def _find_record_damages(
    generation: Generation, objects: Mapping[str, Any], recorded: str | None
) -> Iterator[Damage]:
    """Yield the copies of manifest and provenance that are missing or damaged."""
    for folder, prefix in zip(generation.record_folders, ("", "../"), strict=False):
        for name in (MANIFEST, PROVENANCE):
            if not os.path.lexists(folder / name):
                yield Damage(prefix + name, "missing")
            elif name == MANIFEST and not ((found := _read_manifest_objects(folder)) and found == objects):
                yield Damage(prefix + name, "damaged", detail="of another generation" if found else "")
            elif name == PROVENANCE and recorded not in (None, _hash(folder, name)):
                yield Damage(prefix + name, "damaged")


def _hash(folder: Path, name: str) -> str:
    """Return the hash of a file of the record, or an empty string if it cannot be read."""
    with suppress(OSError, ValueError):
        return hash_bytes(read_plain_file(folder, name, MAX_RECORD_BYTES))
    return ""


def verify_generation(generation: Generation, listener: ProgressListener | None = None) -> list[Damage]:
    """Compare every stored object of a generation, and its record, with what was published.

    Parameters
    ----------
    generation : Generation
        The generation to verify; all of its bytes are read.
    listener : ProgressListener, optional
        Receives the progress.

    Returns
    -------
    list of Damage
        Empty if every byte is as it was published.

    Raises
    ------
    HephaestusError
        If no copy of the provenance can be read.
    """
    objects, contents = read_record(generation)
    expected = expected_objects(objects, contents)
    recorded = expected.pop(PROVENANCE, None)
    damages = list(_find_record_damages(generation, objects, recorded.chunk.digest if recorded else None))
    damages += _find_manifest_mismatches(objects, expected)
    damages += _compare_all(generation.store, expected, listener)
    damages += _find_unlisted(generation.store, {*expected, MANIFEST, PROVENANCE})
    if generation.copy is not None:
        expected |= {PROVENANCE: recorded} if recorded else {}
        in_copy = list(_find_copy_damages(generation.copy, objects, expected, listener))
        # a folder that another generation has replaced meanwhile is not that of this one
        damages += in_copy if has_record_of(generation.copy, list(generation.record_folders)) else []
    log.info("%s: %d objects compared, %d damaged", generation.store.stem, len(expected), len(damages))
    return damages


def _find_copy_damages(
    copy: Path,
    objects: Mapping[str, Any],
    expected: Mapping[str, ExpectedObject],
    listener: ProgressListener | None,
) -> Iterator[Damage]:
    """Yield the damages of the plain folder with the published name, for which no granule is made again."""
    found = _compare_all(copy, expected, listener)
    if _read_manifest_objects(copy) != objects:
        found.append(Damage(MANIFEST, "damaged"))
    for damage in (*found, *_find_unlisted(copy, {*expected, MANIFEST, PROVENANCE})):
        detail = f"{damage.detail}, in the published folder" if damage.detail else "in the published folder"
        yield replace(damage, unit="", detail=detail)


def verify_objects(
    generation: Generation, wanted: Iterable[str] | None = None, listener: ProgressListener | None = None
) -> list[Damage]:
    """Compare some stored objects of a generation with its manifest.

    The record itself (manifest and provenance) is not verified; :func:`verify_generation` does that, but
    reads the whole cube.

    Parameters
    ----------
    generation : Generation
        The generation to verify.
    wanted : iterable of str, optional
        Paths in the store, such as ``insar_difference/c.3.5.0.0``; by default all that the manifest lists.
        A path that it does not list is ``unknown`` if a file exists there. If none exists it is correct: an
        image without data is not stored.
    listener : ProgressListener, optional
        Receives the progress.

    Returns
    -------
    list of Damage
        Empty if all objects are as they were published.

    Raises
    ------
    HephaestusError
        If no copy of the manifest is undamaged.
    """
    objects = generation.read_manifest()
    paths = objects.keys() if wanted is None else dict.fromkeys(wanted)
    expected = {path: ExpectedObject(ChunkRef(*objects[path])) for path in paths if path in objects}
    damages = _compare_all(generation.store, expected, listener)
    for path in paths:
        if path not in objects and os.path.lexists(generation.store / path):
            damages.append(Damage(path, "unknown", variable=variable_of_path(path)))
    return with_granules(generation, damages)


def with_granules(generation: Generation, damages: list[Damage]) -> list[Damage]:
    """Return damages with the keys of their granules, as far as the record can be read."""
    if not damages:
        return damages
    with suppress(HephaestusError):
        contents = generation.read_inventory()
        granules = {
            path: granule.key
            for granule in contents.granules.values()
            for _, path in contents.chunk_keys.keys(granule)
        }
        return [replace(damage, unit=granules.get(damage.path, "")) for damage in damages]
    return damages


def _compare_all(
    store: Path, expected: Mapping[str, ExpectedObject], listener: ProgressListener | None
) -> list[Damage]:
    """Compare every expected object with the file at its path, in parallel."""
    listener = listener or NullListener()
    listener.stage("objects", len(expected))
    hashes: dict[FileIdentity, str] = {}  # a file with several hard links is hashed once
    damages: list[Damage] = []
    with ThreadPoolExecutor(count_usable_cores(), thread_name_prefix="verify") as pool:
        compare = partial(_compare, store, hashes)
        for damage in pool.map(lambda item: compare(*item), sorted(expected.items())):
            damages += [damage] if damage is not None else []
            listener.advance("objects")
    return damages


def _find_unlisted(store: Path, known: Collection[str]) -> Iterator[Damage]:
    """Yield the files of a store that are not listed, up to ``_MAX_UNLISTED``."""
    strange = ((path, facts) for path, facts in walk_files(store) if path not in known)
    try:
        for path, facts in islice(strange, _MAX_UNLISTED):
            detail = "" if stat.S_ISREG(facts.st_mode) else describe_file_type(facts.st_mode)
            yield Damage(path, "unknown", variable=variable_of_path(path), detail=detail)
    except OSError as error:
        where = os.path.relpath(error.filename or store, store)
        yield Damage(
            where, "unreadable", variable=variable_of_path(where), detail=error.strerror or str(error)
        )


def variable_of_path(path: str) -> str:
    """Return the variable of an object's path, or an empty string for a file of no variable.

    Examples
    --------
    >>> variable_of_path("dem/c.0.0"), variable_of_path("overview/coherence/c.3.0.0")
    ('dem', 'overview/coherence')
    """
    first, _, rest = path.partition("/")
    return (
        f"{first}/{rest.partition('/')[0]}"
        if first in cube_schema().groups and "/" in rest
        else (first if rest else "")
    )


def _compare(store: Path, hashes: dict[FileIdentity, str], path: str, item: ExpectedObject) -> Damage | None:
    what: DamageKind
    try:
        with open_plain_file(store, path) as (descriptor, facts):
            if facts.size == item.chunk.size:
                if facts not in hashes:
                    hashes[facts] = hash_descriptor(descriptor, facts.size)
                if hashes[facts] == item.chunk.digest:
                    return None
            what, detail = (
                "damaged",
                f"{facts.size} bytes" if facts.size != item.chunk.size else "other content",
            )
    except UnsafePathError as error:
        what, detail = "damaged", error.strerror or ""
    except FileNotFoundError:
        what, detail = "missing", ""
    except OSError as error:
        what, detail = "unreadable", error.strerror or str(error)
    return Damage(path, what, item.granule, variable_of_path(path), detail)
