"""Integrity check of cubes before training: each object that a run reads is hashed once.

A data loader cannot detect a flipped bit in phase, coherence or height. Hashing reads each object once more
than statistics and training do. Verified objects are recorded beside the results, by frame and manifest, so
that the runs of a grid check each object only once.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from hephaestus_build.core.atomic_io import encode_json, hash_bytes, translate_os_errors, write_atomic
from hephaestus_build.core.embedded_hash import add_json_hash, parse_hashed_json
from hephaestus_build.core.errors import HephaestusError
from hephaestus_build.core.frames import Pair
from hephaestus_build.core.parsing import read_bounded
from hephaestus_build.core.progress import NullListener, ProgressListener
from hephaestus_build.cube.granules import DEM_KEY, GranuleKey
from hephaestus_build.cube.storage.frame_folder import MANIFEST, PROVENANCE
from hephaestus_build.cube.storage.generations import Generation
from hephaestus_build.cube.validation.checksums import verify_objects

log = logging.getLogger(__name__)

_MAX_RECORD_BYTES = 256 << 20  # bytes of a record of verified objects


class CubeIntegrityChecker:
    """Compare objects of cubes with their manifests, each object once.

    Parameters
    ----------
    folder : pathlib.Path, optional
        Where verified objects are recorded; they are not recorded by default.
    listener : ProgressListener, optional
        Receives progress, and the size and duration of the check.
    """

    def __init__(self, folder: Path | None = None, listener: ProgressListener | None = None) -> None:
        self.folder, self.listener = folder, listener or NullListener()
        self._frames_without_manifest: set[str] = set()

    def check_cube(self, store: Path, pairs: Iterable[Pair]) -> None:
        """Check the metadata and tables of a cube, and the stored objects of some pairs and their dates.

        Parameters
        ----------
        store : pathlib.Path
            Store of a generation.
        pairs : iterable of Pair
            Pairs to check; if empty, only metadata and tables are checked.

        Raises
        ------
        HephaestusError
            If an object differs from the manifest; the message names the frame, the pair and the variable.
        """
        frame = store.stem
        if not (store / MANIFEST).exists() and not (store / PROVENANCE).exists():
            if frame not in self._frames_without_manifest:
                log.warning("%s: this copy has no manifest, so its objects cannot be checked", frame)
                self._frames_without_manifest.add(frame)
            return
        generation = Generation.from_path(store)
        objects = generation.read_manifest()
        name = hash_bytes(encode_json(objects, order="deterministic"))
        known = self._read_checked(frame, name)
        todo = _objects_to_check(generation, objects, tuple(pairs)) - known
        if not todo:
            return
        began = time.monotonic()
        damages = verify_objects(
            generation, sorted(todo), _FixedStageListener(self.listener, f"checking {frame}")
        )
        if damages:
            more = f" and {len(damages) - 1} more" if len(damages) > 1 else ""
            raise HephaestusError(
                f"{frame}: {damages[0]}{more}, so this cube is not used; `hephaestus repair {frame}` "
                f"rebuilds what is damaged, then run the same command again"
            )
        size = sum(objects[path][1] for path in todo if path in objects)
        if any(path.count("/") for path in todo) and size > 1 << 20:
            self.listener.note(
                f"{frame}: {len(todo)} stored objects ({size / 1e6:.0f} MB) match the manifest "
                f"(checked in {time.monotonic() - began:.1f} s)"
            )
        self._write_checked(frame, name, known | todo)

    def _record_path(self, frame: str) -> Path | None:
        return self.folder / "checked" / f"{frame}.json" if self.folder else None

    def _read_checked(self, frame: str, manifest: str) -> set[str]:
        if (place := self._record_path(frame)) is None:
            return set()
        try:
            record = parse_hashed_json(read_bounded(place, _MAX_RECORD_BYTES))
            return set(record["objects"]) if record["manifest"] == manifest else set()
        except (OSError, ValueError, KeyError, TypeError):  # unreadable record: check again
            return set()

    def _write_checked(self, frame: str, manifest: str, compared: set[str]) -> None:
        if (place := self._record_path(frame)) is not None:
            with translate_os_errors(f"{frame}: writing {place}"):
                write_atomic(
                    place, add_json_hash(encode_json({"manifest": manifest, "objects": sorted(compared)}))
                )


def _objects_to_check(generation: Generation, objects: dict[str, Any], pairs: tuple[Pair, ...]) -> set[str]:
    """Return the objects of the metadata and tables, and those of the pairs and their dates."""
    contents = generation.read_inventory()
    places = contents.chunk_keys
    granules: set[GranuleKey] = {DEM_KEY} if pairs else set()
    for pair in pairs:
        granules |= {
            GranuleKey.of_pair(pair),
            GranuleKey.of_mask(pair),
            *map(GranuleKey.of_epoch, pair.dates),
        }
    stored = {
        granule.key: {path for _, path in places.keys(granule)} for granule in contents.granules.values()
    }
    rest = objects.keys() - set().union(*stored.values())
    return rest.union(*(stored.get(key, set()) for key in granules))


class _FixedStageListener:
    """A listener that reports every stage under one name."""

    def __init__(self, listener: ProgressListener, name: str) -> None:
        self._listener, self._name = listener, name

    def stage(self, name: str, total: int) -> None:
        self._listener.stage(self._name, total)

    def advance(self, name: str, steps: int = 1) -> None:
        self._listener.advance(self._name, steps)

    def note(self, text: str) -> None:
        self._listener.note(text)
