"""Rebuild exactly what is damaged in a published cube, and nothing else."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from hephaestus_build.core.atomic_io import explained
from hephaestus_build.core.errors import HephaestusError
from hephaestus_build.core.frames import Frame, Pair, parse_day
from hephaestus_build.core.plain_files import read_plain
from hephaestus_build.core.progress import Listener
from hephaestus_build.core.settings import Settings
from hephaestus_build.cube.granules import Places, Unit
from hephaestus_build.cube.inventory import Contents
from hephaestus_build.cube.schema import cube_schema
from hephaestus_build.cube.storage.generations import RECORD_BYTES, Generation, Shelf
from hephaestus_build.cube.storage.migration import refuse_unmoved
from hephaestus_build.cube.storage.writer import metadata_of, write_store
from hephaestus_build.cube.validation.checksums import Damage, read_record, verify_content
from hephaestus_build.cube.validation.record_consistency import UNREPAIRABLE, check_implied
from hephaestus_build.cube.validation.schema_conformance import check_schema
from hephaestus_build.pipeline.build import (
    build_dem,
    build_epochs,
    build_masks,
    build_pairs,
    fetch_atmosphere,
    prepare,
)
from hephaestus_build.pipeline.frame_grid import DEM
from hephaestus_build.pipeline.plan import Request, Selection
from hephaestus_build.pipeline.upstream_changes import read_upstream, write_upstream


@dataclass(frozen=True)
class Repair:
    """What was damaged and what became of it.

    Attributes
    ----------
    frame : Frame
        Whose cube.
    generation : int
        Of the cube that is published now.
    damages : tuple of Damage
        What was found.
    rebuilt : tuple of str
        Units that were built again.
    changed : tuple of str
        Those of them that upstream has changed since: the cube holds what is there now.
    lost : tuple of str
        Units that could not be had again; they are owed.
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


def repair(frame: Frame, settings: Settings, listener: Listener | None = None) -> Repair:
    """Find what is damaged, build only that again, and publish a whole generation.

    Damaged metadata and tables follow from the record and need no network.

    Raises
    ------
    HephaestusError
        If there is no cube, no copy of its record can be read, or what a repair needs is not at hand; what
        is published stays as it is.
    """
    settings = settings.for_frame(frame)
    refuse_unmoved(settings, frame)
    shelf = Shelf(settings.cubes_dir, frame, staging="repair")
    with shelf.lock():
        current = shelf.current()
        if current is None:
            raise HephaestusError(
                f"{frame}: there is no cube to repair; `hephaestus build {frame}` builds it"
            )
        damages = tuple(verify_content(current, listener) or _contradictions(current, listener))
        if not damages:
            return Repair(frame, current.number, ())
        _, contents = read_record(current)
        written = contents.attributes.get("schema_version", cube_schema().version)
        if written != cube_schema().version:
            raise HephaestusError(
                f"{frame}: it is written in schema {written}, this version writes "
                f"{cube_schema().version}; `hephaestus build {frame}` builds it anew"
            )
        broken = sorted({damage.unit for damage in damages if damage.unit})
        units = _rebuild(frame, settings, shelf, contents, broken, listener) if broken else {}
        _publish(shelf, current, contents, units)
        shelf.staging.discard()
        whole = {key for key, unit in units.items() if unit.complete}
        known = read_upstream(shelf)
        changed = {key: why for key, why in known.changed.items() if key not in whole}
        write_upstream(shelf, replace(known, changed=changed))
        published = shelf.current()
        assert published is not None
        return Repair(
            frame,
            published.number,
            damages,
            rebuilt=tuple(sorted(whole)),
            changed=tuple(key for key in sorted(whole) if units[key].objects != contents.units[key].objects),
            lost=tuple(key for key in broken if key not in whole),
        )


def _contradictions(current: Generation, listener: Listener | None) -> list[Damage]:
    """Return metadata and tables that are as they were listed, and not what follows from the record.

    Raises
    ------
    HephaestusError
        If the record contradicts itself or the images: nothing can be made of it.
    """
    wrong = check_schema(current.store)
    if wrong:  # mended if it is not what the record gives
        right = metadata_of(current.contents()).items()
        lost = [] if any(_stored(current, path) != content for path, content in right) else wrong
    else:
        wrong = check_implied(current, listener)
        lost = [finding for finding in wrong if finding.where in UNREPAIRABLE]
    if lost:
        raise HephaestusError(
            f"{current.store.stem}: its record is not true ({lost[0]}), so nothing can be mended by it; "
            f"remove {current.store.parent} and the link to it, and "
            f"`hephaestus build {current.store.stem}` builds it again"
        )
    return [Damage(item.where, "damaged", variable=item.where, detail=item.what) for item in wrong]


def _stored(current: Generation, path: str) -> bytes:
    """Return a stored file; empty where it is none."""
    try:
        return read_plain(current.store, path, RECORD_BYTES)
    except (OSError, ValueError):
        return b""


def _rebuild(
    frame: Frame,
    settings: Settings,
    shelf: Shelf,
    contents: Contents,
    broken: list[str],
    listener: Listener | None,
) -> dict[str, Unit]:
    """Return the broken units, built again from their sources, or as owed where these do not give them."""
    job = prepare(Request(frame, pairs="all"), settings, shelf, listener, contents=contents)
    job.grid = contents.grid
    # what a repair that was killed has finished need not be built again
    done = {unit.key for unit in job.staged if _same(unit, contents.units.get(unit.key))}
    todo = [key for key in broken if key not in done]
    receipts = (receipt for key in todo for receipt in contents.units[key].receipts)
    job.portal.proven = frozenset(receipt.digest for receipt in receipts if receipt.digest)
    for key in todo:
        job.units.pop(key, None)
    names = {kind: [key.partition("/")[2] for key in todo if key.startswith(kind + "/")] for kind in _KINDS}
    pairs, masks = ([Pair.parse(name) for name in names[kind]] for kind in ("pair", "mask"))
    if undrawn := [pair for pair in masks if pair not in job.annotations]:
        raise HephaestusError(
            f"{frame}: the masks of {undrawn[0]} must be drawn again, and its annotation is not at hand; set "
            f"HEPHAESTUS_ANNOTATIONS to the archive that has it and run the same command again"
        )
    job.plan = replace(job.plan, selection=Selection((), ()))
    if names["dem"]:
        build_dem(job)
        if not job.on_grid().same_as(contents.grid):
            write_upstream(shelf, replace(job.known, changed={**job.known.changed, DEM: "another grid"}))
            raise HephaestusError(
                f"{frame}: the DEM upstream has another grid by now; `hephaestus build {frame}` builds all "
                f"on that one"
            )
    build_pairs(job, pairs)
    build_masks(job, masks)
    if names["epoch"]:
        days = [parse_day(name) for name in names["epoch"]]
        build_epochs(job, fetch_atmosphere(job, days), days)
    return {key: job.units[key] for key in broken}


def _same(staged: Unit, published: Unit | None) -> bool:
    """Whether what an earlier repair made is still what the cube should hold: a build may have passed it."""
    return published is not None and staged.identity == published.identity


_KINDS = ("pair", "mask", "epoch", "dem")


def _publish(shelf: Shelf, current: Generation, contents: Contents, units: Mapping[str, Unit]) -> None:
    places = Places(contents.axes)

    def origin(unit: Unit) -> dict[str, str]:
        if unit.key in units:
            return shelf.staging.paths(unit)
        return {name: f"{current.store}/{key}" for name, key in places.keys(unit)}

    whole = Contents(contents.grid, {**contents.units, **units}, contents.attributes)
    with explained(f"{shelf.frame}: publishing the repaired cube"), shelf.assembling() as store:
        shelf.staging.sync(units.values())
        write_store(store, whole, origin)
