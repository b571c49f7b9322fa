"""Repair of published cubes: only damaged objects are rebuilt."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from hephaestus_build.core.errors import HephaestusError
from hephaestus_build.core.frames import Frame
from hephaestus_build.core.progress import ProgressListener
from hephaestus_build.core.settings import Settings
from hephaestus_build.cube.granules import DEM_KEY, Granule, GranuleKey
from hephaestus_build.cube.inventory import CubeInventory
from hephaestus_build.cube.schema import cube_schema
from hephaestus_build.cube.schema_versions import FIRST_SCHEMA
from hephaestus_build.cube.storage.adoption import adopt_copy
from hephaestus_build.cube.storage.frame_folder import PROVENANCE
from hephaestus_build.cube.storage.generations import FrameStore, LostGenerationError
from hephaestus_build.cube.storage.migration import require_migrated
from hephaestus_build.cube.validation.checksums import Damage, LostRecordError, read_record
from hephaestus_build.operations.lost_record import rebuild_lost_cube
from hephaestus_build.operations.republication import republish
from hephaestus_build.operations.verification import verify_cube
from hephaestus_build.pipeline.prepare import open_ledger, prepare_repair_context
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
    version : str
        What is to be said of a whole cube that another version wrote; empty if there is nothing.
    """

    frame: Frame
    generation: int
    damages: tuple[Damage, ...]
    rebuilt: tuple[str, ...] = ()
    changed: tuple[str, ...] = ()
    lost: tuple[str, ...] = ()
    version: str = ""

    def to_json(self) -> dict[str, Any]:
        """Return the repair as JSON values."""
        return {
            **{name: value for name, value in vars(self).items() if name != "version"},
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
            found = verify_cube(current, listener)
        except LostRecordError as lost:
            return _rebuild_whole(frame, settings, frame_store, current.store, str(lost), listener)
        damages = found.damages
        if not damages:
            frame_store.staging.discard()  # of a repair that was killed once it had published
            return RepairReport(frame, current.number, (), version=found.describe_version(str(frame)))
        if found.false_record:
            raise HephaestusError(
                f"{frame}: its record is wrong ({found.false_record}), so it cannot be used for a repair; "
                f"{found.describe_remedy(str(frame), current.store)}"
            )
        _, contents = read_record(current)
        if found.is_outdated:
            raise HephaestusError(
                f"{frame}: its cube was written in schema {contents.schema_version or FIRST_SCHEMA}, this "
                f"version writes {cube_schema().version}; {found.describe_remedy(str(frame), current.store)}"
            )
        broken = sorted({GranuleKey(damage.unit) for damage in damages if damage.unit})
        granules = _rebuild(frame, settings, frame_store, contents, broken, listener) if broken else {}
        republish(frame_store, current, contents, granules)
        frame_store.staging.discard()
        whole = {key for key, granule in granules.items() if granule.is_complete}
        known = read_upstream_state(frame_store)
        before = contents.granules
        renewed = {key for key in whole & before.keys() if granules[key].objects != before[key].objects}
        changed = {key: why for key, why in known.changed.items() if key not in renewed}
        write_upstream_state(frame_store, replace(known, changed=changed))
        published = frame_store.published_generation()
        assert published is not None
        return RepairReport(
            frame,
            published.number,
            damages,
            rebuilt=tuple(key for key in broken if key in whole),
            changed=tuple(key for key in broken if key in renewed),
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
    context = prepare_repair_context(frame, settings, frame_store, listener, contents, broken)
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
