"""What one build of one frame knows while it runs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from functools import cached_property
from typing import Any

from hephaestus_build.core.era5_grid import EXPVER_PRELIMINARY, nearest_era5_hour
from hephaestus_build.core.errors import HephaestusError
from hephaestus_build.core.frames import Frame, Pair
from hephaestus_build.core.grid import Grid
from hephaestus_build.core.progress import ProgressListener
from hephaestus_build.core.provenance import Receipt
from hephaestus_build.core.registry import published_frames
from hephaestus_build.core.settings import Settings
from hephaestus_build.cube.fingerprints import fingerprint_grid, fingerprint_inputs, grid_as_dict
from hephaestus_build.cube.granules import ChunkKeys, DateAxes, Granule
from hephaestus_build.cube.storage.generations import FrameStore, Generation
from hephaestus_build.pipeline.missing_products import find_missing_products
from hephaestus_build.pipeline.plan import BuildPlan, BuildRequest, needs_fetching
from hephaestus_build.pipeline.registry_check import find_registry_mismatches
from hephaestus_build.pipeline.upstream_changes import UpstreamState
from hephaestus_build.sources.annotations.archive import Annotation
from hephaestus_build.sources.era5.selection import Era5Source
from hephaestus_build.sources.licsar.geotiff import Raster
from hephaestus_build.sources.licsar.portal import FrameMetadata, LicsarPortal

#: Final ERA5 replaces the preliminary within two to three months.
FINAL_AFTER = timedelta(days=92)


def should_be_final(day: date, today: date | None = None) -> bool:
    """Return whether ERA5 of `day` should be final by now."""
    return (today or datetime.now(UTC).date()) - day > FINAL_AFTER


def hours_since_1970(moment: datetime) -> int:
    """Return how the cube writes an hour of ERA5."""
    return int((moment - datetime(1970, 1, 1)).total_seconds()) // 3600


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
    known : Upstream
        What was known of the archive beforehand.
    due : set of str
        Units that are fetched again although they are whole, because their products have changed.
    failed : dict of str to Unit
        Attempts to fetch whole units again that came to nothing: what was stored before stays.
    seen : dict of Pair to (Receipt, Raster)
        Phases, three at most, that were fetched to settle the grid: they need not be fetched again.
    """

    request: BuildRequest
    settings: Settings
    shelf: FrameStore
    portal: LicsarPortal
    source: Era5Source
    metadata: FrameMetadata
    plan: BuildPlan
    modified: Mapping[Pair, str | None]
    annotations: Mapping[Pair, Annotation]
    previous: Generation | None
    units: dict[str, Granule]
    grid: Grid | None
    listener: ProgressListener
    published: Mapping[str, Granule] = field(default_factory=dict)
    known: UpstreamState = field(default_factory=UpstreamState)
    due: set[str] = field(default_factory=set)
    failed: dict[str, Granule] = field(default_factory=dict)
    seen: dict[Pair, tuple[Receipt, Raster]] = field(default_factory=dict)

    @property
    def frame(self) -> Frame:
        """Whose cube it is."""
        return self.request.frame

    @property
    def simulated(self) -> bool:
        """Whether the data is simulated: by its frame's track, or by what the archive says."""
        return self.frame.is_simulated or self.metadata.fields.get("simulated", "").lower() == "true"

    def disagreements(self) -> tuple[str, ...]:
        """Return how the frame differs from what the registry of published frames says of it, in words."""
        known = published_frames().get(self.frame.id)
        return find_registry_mismatches(known, self.metadata.center_time, self.grid) if known else ()

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
        return nearest_era5_hour(day, self.metadata.center_time)

    def inputs(self, *parts: Any) -> str:
        """Return the fingerprint of a unit that depends on the grid and on `parts`."""
        grid = self.on_grid()
        return fingerprint_inputs(grid_as_dict(grid), *parts) if parts else fingerprint_grid(grid)

    def mask_inputs(self, annotation: Annotation) -> str:
        """Return the fingerprint of a pair's masks."""
        written = {name: value for name, value in vars(annotation).items() if name not in ("frame", "pair")}
        written["polygons"] = [polygon.tolist() for polygon in annotation.polygons]
        return self.inputs(written)

    def stale(self, key: str, inputs: str) -> bool:
        """Return whether the unit `key` is missing, incomplete, or made from other inputs."""
        unit = self.units.get(key)
        return unit is None or not unit.is_complete or unit.inputs != inputs

    def replaced(self, pair: Pair) -> bool:
        """Return whether the archive is known to hold other files of a stored pair by now."""
        before = self.units.get(f"pair/{pair}")
        stored = before is not None and before.is_complete
        return f"pair/{pair}" in self.due or (stored and needs_fetching(before, self.modified.get(pair)))

    def wants(self, pair: Pair) -> bool:
        """Return whether a pair must be fetched: it is new, owed, changed upstream, or on another grid."""
        key = f"pair/{pair}"
        if key in self.due or needs_fetching(self.units.get(key), self.modified.get(pair)):
            return True
        return self.grid is not None and self.stale(key, self.inputs())

    def wants_mask(self, pair: Pair) -> bool:
        """Return whether an annotated pair's masks must be drawn: they are missing, or of another making.

        A preview tells how they lie; it may have come, or been replaced, with the pair's other files.
        """
        if self.stale(f"mask/{pair}", self.mask_inputs(self.annotations[pair])):
            return True
        facts = self.units[f"mask/{pair}"].facts
        if "preview" not in facts or pair not in self.modified:
            return False
        return not facts["listed"] or self.modified[pair] not in (None, facts["modified"])

    def wants_hour(self, day: date, today: date | None = None) -> bool:
        """Return whether ERA5 at an acquisition date must be asked for: it is missing, or should be final."""
        key = f"epoch/{day:%Y%m%d}"
        if self.stale(key, self.inputs()):
            return True
        facts = self.units[key].facts
        return facts["era5_time"] != hours_since_1970(self.hour(day)) or (
            facts["era5_expver"] == EXPVER_PRELIMINARY and should_be_final(day, today)
        )

    @property
    def gone(self) -> tuple[Pair, ...]:
        """The stored pairs that are no longer in the archive's listing."""
        stored = (unit.pair for unit in self.units.values() if unit.kind == "pair" and unit.is_complete)
        return tuple(sorted(pair for pair in stored if pair not in self.modified))

    def finish(self, unit: Granule, contents: Mapping[str, bytes]) -> Granule:
        """Store a finished unit, so that it need never be built again.

        What was stored of it before stays when nothing came of the attempt.
        """
        before = self.units.get(unit.key)
        if (
            not unit.is_complete
            and before is not None
            and before.is_complete
            and before.inputs == unit.inputs
        ):
            self.failed[unit.key] = unit
            return before
        stored = self.shelf.staging.add(unit, contents)
        self.units[stored.key] = stored
        self.failed.pop(unit.key, None)
        if stored.is_complete:
            self.due.discard(unit.key)
        return stored

    def learnt(self) -> UpstreamState:
        """Return what is known of the archive at the end of the build."""
        changed = {key: why for key, why in self.known.changed.items() if key in self.due}
        for item in find_missing_products(self.failed):
            changed[item.unit] = f"{item.product}: {item.outcome}, {item.detail}"
        gone = self.gone
        here = self.units.keys() - {f"pair/{pair}" for pair in gone}
        changed = {key: why for key, why in changed.items() if key in here and self.units[key].is_complete}
        return UpstreamState(self.known.checked, changed, tuple(pair.name for pair in gone))

    @property
    def staged(self) -> list[Granule]:
        """The finished units that are not in the previous cube, or not as they are there."""
        return [unit for key, unit in self.units.items() if self.published.get(key) is not unit]

    def origin(self, unit: Granule) -> dict[str, str]:
        """Return the files that hold the objects of `unit` now, by name."""
        if self.previous is not None and self.published.get(unit.key) is unit:
            store = str(self.previous.store)  # thousands of Paths take longer than all else that is done here
            return {name: f"{store}/{key}" for name, key in self._places.keys(unit)}
        return self.shelf.staging.chunk_paths(unit)

    @cached_property
    def _places(self) -> ChunkKeys:
        """Where the objects of the previous cube's units stand in it."""
        return ChunkKeys(DateAxes.from_granules(self.published.values()))

    @property
    def changed(self) -> bool:
        """Whether what is finished differs from what is published."""
        if self.previous is None or self.units.keys() != self.published.keys():
            return True
        return any(unit.identity != self.published[unit.key].identity for unit in self.staged)
