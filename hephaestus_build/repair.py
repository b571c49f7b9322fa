"""Rebuild exactly what is damaged in a published cube, and nothing else."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from hephaestus_build.build import (
    build_dem,
    build_epochs,
    build_masks,
    build_pairs,
    fetch_atmosphere,
    prepare,
)
from hephaestus_build.cube.contents import Contents
from hephaestus_build.cube.files import explained
from hephaestus_build.cube.generation import Generation, Shelf
from hephaestus_build.cube.units import Places, Unit
from hephaestus_build.cube.verify import Damage, read_record, verify_content
from hephaestus_build.cube.writer import write_store
from hephaestus_build.errors import HephaestusError
from hephaestus_build.frames import Frame, Pair, parse_day
from hephaestus_build.plan import Request, Selection
from hephaestus_build.progress import Listener, Silent
from hephaestus_build.settings import Settings


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
        If there is no cube, or no copy of its record can be read.
    """
    shelf = Shelf(settings.cubes_dir, frame)
    with shelf.lock():
        current = shelf.current()
        if current is None:
            raise HephaestusError(
                f"{frame}: there is no cube to repair; `hephaestus build {frame}` builds it"
            )
        damages = tuple(verify_content(current))
        if not damages:
            return Repair(frame, current.number, ())
        _, contents, _ = read_record(current)
        broken = sorted({damage.unit for damage in damages if damage.unit})
        units = _rebuild(frame, settings, shelf, contents, broken, listener or Silent()) if broken else {}
        _publish(shelf, current, contents, units)
        shelf.staging.discard()
        published = shelf.current()
        assert published is not None
        return Repair(
            frame,
            published.number,
            damages,
            rebuilt=tuple(key for key in broken if key in units and units[key].complete),
            changed=tuple(
                key
                for key, unit in units.items()
                if unit.complete and unit.objects != contents.units[key].objects
            ),
            lost=tuple(key for key in broken if key not in units or not units[key].complete),
        )


def _rebuild(
    frame: Frame, settings: Settings, shelf: Shelf, contents: Contents, broken: list[str], listener: Listener
) -> dict[str, Unit]:
    """Return the broken units, built again from their sources."""
    shelf.staging.discard()
    job = prepare(Request(frame, pairs="all"), settings, shelf, listener, contents=contents)
    for key in broken:
        del job.units[key]
    named = {kind: [key.partition("/")[2] for key in broken if key.startswith(kind + "/")] for kind in _KINDS}
    job.grid = contents.grid
    job.plan = replace(job.plan, selection=Selection(tuple(map(Pair.parse, named["pair"])), ()))
    if named["dem"]:
        build_dem(job)
    build_pairs(job, [Pair.parse(name) for name in named["pair"]])
    build_masks(job, [Pair.parse(name) for name in named["mask"] if Pair.parse(name) in job.annotations])
    if named["epoch"]:
        days = [parse_day(name) for name in named["epoch"]]
        build_epochs(job, fetch_atmosphere(job, days), days)
    return {key: job.units[key] for key in broken if key in job.units}


_KINDS = ("pair", "mask", "epoch", "dem")


def _publish(shelf: Shelf, current: Generation, contents: Contents, units: dict[str, Unit]) -> None:
    places = Places(contents.axes)

    def origin(unit: Unit, name: str) -> Any:
        if unit.key in units:
            return shelf.staging.path(unit, name)
        return current.store / next(key for found, key in places.keys(unit) if found == name)

    whole = Contents(contents.grid, {**contents.units, **units}, contents.attributes)
    with explained(f"{shelf.frame}: publishing the repaired cube"), shelf.assembling() as store:
        shelf.staging.sync(units.values())
        write_store(store, whole, origin)
