"""Repair of published cubes: only damaged objects are rebuilt."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from hephaestus_build.core.atomic_io import translate_os_errors
from hephaestus_build.core.errors import HephaestusError
from hephaestus_build.core.frames import Frame
from hephaestus_build.core.plain_files import read_plain_file
from hephaestus_build.core.progress import ProgressListener
from hephaestus_build.core.settings import Settings
from hephaestus_build.cube.granules import DEM_KEY, Granule, GranuleKey
from hephaestus_build.cube.inventory import CubeInventory
from hephaestus_build.cube.overview_parts import find_orphans
from hephaestus_build.cube.storage.adoption import adopt_copy
from hephaestus_build.cube.storage.frame_folder import PROVENANCE
from hephaestus_build.cube.storage.generations import FrameStore, Generation, LostGenerationError
from hephaestus_build.cube.storage.manifest import MAX_RECORD_BYTES
from hephaestus_build.cube.storage.migration import require_migrated
from hephaestus_build.cube.storage.writer import encode_metadata, write_cube_store
from hephaestus_build.cube.validation.checksums import (
    Damage,
    LostRecordError,
    read_record,
    verify_generation,
)
from hephaestus_build.cube.validation.record_consistency import UNREPAIRABLE, check_record_consistency
from hephaestus_build.cube.validation.schema_conformance import check_schema
from hephaestus_build.operations.lost_record import rebuild_lost_cube
from hephaestus_build.pipeline.plan import BuildRequest, PairSelection
from hephaestus_build.pipeline.prepare import open_ledger, prepare_context, require_current_schema
from hephaestus_build.pipeline.stage import Build, run_stage
from hephaestus_build.pipeline.stages import OVERVIEWS, STAGES
from hephaestus_build.pipeline.upstream_changes import read_upstream_state, write_upstream_state

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class RepairReport:
    """Result of a repair.

    Attributes
    ----------
    frame : Frame
        The frame.
    generation : int
        Number of the published generation.
    damages : tuple of Damage
        The damages found.
    rebuilt : tuple of str
        Granules that were rebuilt.
    changed : tuple of str
        Rebuilt granules whose products have changed upstream; the cube now holds the new ones.
    lost : tuple of str
        Granules that could not be rebuilt; they are owed.
    """

    frame: Frame
    generation: int
    damages: tuple[Damage, ...]
    rebuilt: tuple[str, ...] = ()
    changed: tuple[str, ...] = ()
    lost: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Return the repair as JSON values."""
        return {
            **vars(self),
            "frame": str(self.frame),
            "damages": [vars(damage) for damage in self.damages],
        }


def repair(frame: Frame, settings: Settings, listener: ProgressListener | None = None) -> RepairReport:
    """Find damaged objects, rebuild only these, and publish a complete generation.

    Metadata and tables are rebuilt from the record, without a network. If the record is lost, or the link
    leads to a generation that is gone and no other is left, the whole cube is built again, from the cache
    where it has the products.

    Raises
    ------
    HephaestusError
        If there is no cube, or an input is not available; the published
        cube stays unchanged.
    """
    settings = settings.for_frame(frame)
    require_migrated(settings, frame)
    frame_store = FrameStore(settings.cubes_dir, frame, staging="repair")
    with frame_store.lock(restore=False):
        try:
            frame_store.republish_newest()
            adopt_copy(frame_store, damaged=True)
            current = frame_store.published_generation()
        except LostGenerationError as lost:
            frame_store.forget_lost_generation()
            return _rebuild_whole(frame, settings, frame_store, None, str(lost), listener)
        if current is None:
            raise HephaestusError(
                f"{frame}: there is no cube to repair; `hephaestus build {frame}` builds it"
            )
        try:
            damages = tuple(verify_generation(current, listener))
        except LostRecordError as lost:
            return _rebuild_whole(frame, settings, frame_store, current.store, str(lost), listener)
        if not damages and not read_record(current)[1].is_outdated:
            damages = tuple(_find_inconsistencies(current, listener))
        if not damages:
            return RepairReport(frame, current.number, ())
        _, contents = read_record(current)
        require_current_schema(frame, contents)
        broken = sorted({GranuleKey(damage.unit) for damage in damages if damage.unit})
        granules = _rebuild(frame, settings, frame_store, contents, broken, listener) if broken else {}
        _publish_repaired(frame_store, current, contents, granules)
        frame_store.staging.discard()
        whole = {key for key, granule in granules.items() if granule.is_complete}
        known = read_upstream_state(frame_store)
        changed = {key: why for key, why in known.changed.items() if key not in whole}
        write_upstream_state(frame_store, replace(known, changed=changed))
        published = frame_store.published_generation()
        assert published is not None
        return RepairReport(
            frame,
            published.number,
            damages,
            rebuilt=tuple(key for key in broken if key in whole),
            changed=tuple(
                key
                for key in broken
                if key in whole and granules[key].objects != contents.granules[key].objects
            ),
            lost=tuple(key for key in broken if key not in whole),
        )


def _rebuild_whole(
    frame: Frame,
    settings: Settings,
    frame_store: FrameStore,
    store: Path | None,
    reason: str,
    listener: ProgressListener | None,
) -> RepairReport:
    """Build a cube again whose record is lost, or whose store is."""
    log.warning("%s", reason)
    number, made, lost = rebuild_lost_cube(frame, settings, frame_store, store, listener)
    frame_store.staging.discard()
    return RepairReport(frame, number, (Damage(PROVENANCE, "missing"),), rebuilt=made, lost=lost)


def _find_inconsistencies(current: Generation, listener: ProgressListener | None) -> list[Damage]:
    """Return metadata and tables that match the manifest but contradict the record.

    Raises
    ------
    HephaestusError
        If the record contradicts itself or the images, so that it cannot be used.
    """
    wrong = check_schema(current.store)
    if wrong:  # repairable if it differs from what the record gives
        right = encode_metadata(current.read_inventory()).items()
        lost = [] if any(_read_stored_file(current, path) != content for path, content in right) else wrong
    else:
        wrong = check_record_consistency(current, listener)
        lost = [finding for finding in wrong if finding.where in UNREPAIRABLE]
    if lost:
        raise HephaestusError(
            f"{current.store.stem}: its record is wrong ({lost[0]}), so it cannot be used for a repair; "
            f"remove {current.store.parent} and the link to it, and "
            f"`hephaestus build {current.store.stem}` builds it again"
        )
    return [Damage(item.where, "damaged", variable=item.where, detail=item.what) for item in wrong]


def _read_stored_file(current: Generation, path: str) -> bytes:
    """Return a stored file; empty where it is none."""
    try:
        return read_plain_file(current.store, path, MAX_RECORD_BYTES)
    except (OSError, ValueError):
        return b""


def _rebuild(
    frame: Frame,
    settings: Settings,
    frame_store: FrameStore,
    contents: CubeInventory,
    broken: list[GranuleKey],
    listener: ProgressListener | None,
) -> dict[str, Granule]:
    """Return the damaged granules, rebuilt from their sources; those that fail are owed.

    Overviews of granules that have changed thereby are drawn again too; those of lost pairs are left out.
    """
    settings = settings.model_copy(update={"overview_factor": contents.overview_factor})
    request = BuildRequest(frame, pairs="all")
    receipts = (receipt for key in broken for receipt in contents.granules[key].receipts)
    accepted = frozenset(receipt.digest for receipt in receipts if receipt.digest)
    context = prepare_context(
        request, settings, frame_store, listener, contents=contents, accepted_hashes=accepted
    )
    context = replace(context, selection=PairSelection((), ()))  # only the damaged granules
    ledger = open_ledger(context, grid=contents.grid)
    build = Build(context, ledger)
    # granules that a killed repair has finished are not rebuilt
    done = {
        granule.key
        for granule in build.staged()
        if _is_same_granule(granule, contents.granules.get(granule.key))
    }
    todo = [key for key in broken if key not in done]
    for key in todo:
        if key.kind == "mask" and key.pair not in context.annotations:
            raise HephaestusError(
                f"{frame}: the masks of {key.pair} must be drawn again, and its annotation is not available; "
                f"set HEPHAESTUS_ANNOTATIONS to the archive that has it and run the same command again"
            )
    ledger.drop(todo)
    for stage in STAGES:
        run_stage(build, stage, only=todo)
        if not ledger.require_grid().same_as(contents.grid):  # known once the DEM has been fetched
            known = context.upstream
            write_upstream_state(
                frame_store, replace(known, changed={**known.changed, DEM_KEY: "another grid"})
            )
            raise HephaestusError(
                f"{frame}: the DEM upstream has another grid by now; `hephaestus build {frame}` builds all "
                f"on that one"
            )
    drawn = OVERVIEWS.items(build)
    run_stage(build, OVERVIEWS, only=drawn)
    granules = ledger.snapshot()
    return {key: granules[key] for key in (*broken, *drawn) if key in granules}


def _is_same_granule(staged: Granule, published: Granule | None) -> bool:
    """Return whether a granule of an earlier repair still belongs in the cube."""
    return published is not None and staged.identity == published.identity


def _publish_repaired(
    frame_store: FrameStore, current: Generation, contents: CubeInventory, granules: Mapping[str, Granule]
) -> None:
    def origin(granule: Granule) -> dict[str, str]:
        if granule.key in granules:
            return frame_store.staging.chunk_paths(granule)
        return {name: f"{current.store}/{key}" for name, key in contents.chunk_keys.keys(granule)}

    kept = {**contents.granules, **granules}
    for key in find_orphans(kept, contents.grid):  # their pairs are lost
        del kept[key]
    whole = contents.succeed(
        contents.grid, kept, contents.attributes, listed=(), history=frame_store.history()
    )
    with (
        translate_os_errors(f"{frame_store.frame}: publishing the repaired cube"),
        frame_store.new_generation() as store,
    ):
        frame_store.staging.sync(granules.values())
        write_cube_store(store, whole, origin)
