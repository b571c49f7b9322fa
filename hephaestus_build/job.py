"""What one build of one frame knows while it runs."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import date, datetime
from functools import cached_property
from pathlib import Path
from typing import Any

from hephaestus_build.cube.generation import Generation, Shelf
from hephaestus_build.cube.schema import cube_schema
from hephaestus_build.cube.units import Axes, Places, Unit
from hephaestus_build.errors import HephaestusError
from hephaestus_build.frames import Frame, Pair
from hephaestus_build.grid import Grid
from hephaestus_build.plan import Plan, Request
from hephaestus_build.progress import Listener
from hephaestus_build.settings import Settings
from hephaestus_build.sources.annotations import Annotation
from hephaestus_build.sources.era5 import Source
from hephaestus_build.sources.fields import nearest_hour
from hephaestus_build.sources.licsar import Metadata, Portal
from hephaestus_build.sources.receipt import Outcome


def fingerprint(*parts: Any) -> str:
    """Return a short hash of JSON values: equal parts, equal text."""
    text = json.dumps([cube_schema().version, *parts], sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


@dataclass
class Job:
    """One build of one frame: what was asked, what was found, and what is finished so far.

    Attributes
    ----------
    request : Request
        What is asked for.
    settings : Settings
        Of the whole program.
    shelf : Shelf
        Where the cube stands.
    portal : Portal
        LiCSAR.
    source : Source
        ERA5.
    metadata : Metadata
        Of the frame.
    plan : Plan
        What there is to do.
    modified : dict of Pair to str or None
        What the portal's listing says of each pair's last change.
    annotations : dict of Pair to Annotation
        Of the frame.
    previous : Generation or None
        The published cube that this build starts from.
    units : dict of str to Unit
        Finished units by key: of the previous cube, and of this build and its interrupted predecessors.
    grid : Grid or None
        The frame's grid, known after the first stage.
    listener : Listener
        Who wants to know how far it is.
    published : dict of str to Unit
        The units of the previous cube.
    """

    request: Request
    settings: Settings
    shelf: Shelf
    portal: Portal
    source: Source
    metadata: Metadata
    plan: Plan
    modified: Mapping[Pair, str | None]
    annotations: Mapping[Pair, Annotation]
    previous: Generation | None
    units: dict[str, Unit]
    grid: Grid | None
    listener: Listener
    published: Mapping[str, Unit] = field(default_factory=dict)

    @property
    def frame(self) -> Frame:
        """Whose cube it is."""
        return self.request.frame

    @property
    def simulated(self) -> bool:
        """Whether the data is simulated: by its frame's track, or by what the archive says."""
        return self.frame.simulated or self.metadata.fields.get("simulated", "").lower() == "true"

    def on_grid(self) -> Grid:
        """Return the frame's grid.

        Raises
        ------
        HephaestusError
            If no raster has been read yet that could tell.
        """
        if self.grid is None:
            raise HephaestusError(
                f"{self.frame}: neither the DEM nor any interferogram could be read, so its grid is unknown; "
                f"`hephaestus plan {self.frame}` shows what the portal has, try again later"
            )
        return self.grid

    def hour(self, day: date) -> datetime:
        """Return the hour of ERA5 that belongs to the acquisition of `day`."""
        return nearest_hour(day, self.metadata.center_time)

    def inputs(self, *parts: Any) -> str:
        """Return the fingerprint of a unit that depends on the grid and on `parts`."""
        return fingerprint(asdict(self.on_grid()), *parts)

    def mask_inputs(self, annotation: Annotation) -> str:
        """Return the fingerprint of a pair's masks."""
        written = {name: value for name, value in vars(annotation).items() if name not in ("frame", "pair")}
        written["polygons"] = [polygon.tolist() for polygon in annotation.polygons]
        return self.inputs(written)

    def stale(self, key: str, inputs: str) -> bool:
        """Return whether the unit `key` is missing, incomplete, or made from other inputs."""
        unit = self.units.get(key)
        return unit is None or not unit.complete or unit.inputs != inputs

    def finish(self, unit: Unit, contents: Mapping[str, bytes]) -> Unit:
        """Store a finished unit, so that it need never be built again.

        What was stored of it before stays when nothing came of the attempt.
        """
        before = self.units.get(unit.key)
        if not unit.complete and before is not None and before.complete and before.inputs == unit.inputs:
            return before
        stored = self.shelf.staging.add(unit, contents)
        self.units[stored.key] = stored
        return stored

    @property
    def staged(self) -> list[Unit]:
        """The finished units that are not in the previous cube, or not as they are there."""
        return [unit for key, unit in self.units.items() if self.published.get(key) is not unit]

    def origin(self, unit: Unit, name: str) -> Path:
        """Return the file that holds the object `name` of `unit` now."""
        if self.previous is not None and self.published.get(unit.key) is unit:
            return self._stored[unit.key][name]
        return self.shelf.staging.path(unit, name)

    @cached_property
    def _stored(self) -> Mapping[str, Mapping[str, Path]]:
        """Where the objects of the previous cube's units stand."""
        assert self.previous is not None
        places, store = Places(Axes.of(self.published.values())), self.previous.store
        return {
            unit.key: {name: store / key for name, key in places.keys(unit)}
            for unit in self.published.values()
        }

    @property
    def changed(self) -> bool:
        """Whether what is finished differs from what is published."""
        if self.previous is None or self.units.keys() != self.published.keys():
            return True
        return any(
            (unit.objects, unit.inputs, unit.outcome, unit.facts)
            != (before.objects, before.inputs, before.outcome, before.facts)
            for unit, before in ((unit, self.published[key]) for key, unit in self.units.items())
        )


@dataclass(frozen=True)
class Owed:
    """Something that upstream promises and this cube does not have yet.

    Attributes
    ----------
    unit : str
        Such as ``pair/20160909_20160921`` or ``dem/dem``.
    product : str
        The product that failed.
    outcome : Outcome
        How it ended.
    detail : str
        Why, in words.
    """

    unit: str
    product: str
    outcome: Outcome
    detail: str


def owed_of(units: Mapping[str, Unit]) -> tuple[Owed, ...]:
    """Return what is owed among `units`, in order."""
    return tuple(
        Owed(unit.key, receipt.product, receipt.outcome, receipt.detail)
        for _, unit in sorted(units.items())
        if unit.owed
        for receipt in unit.receipts
        if not receipt.ok
    )
