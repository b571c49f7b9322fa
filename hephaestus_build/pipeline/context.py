"""Immutable state of a build: the request, the archive's listing, annotations and the published cube."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, datetime

from hephaestus_build.core.era5_grid import nearest_era5_hour
from hephaestus_build.core.frames import Frame, Pair
from hephaestus_build.core.progress import ProgressListener
from hephaestus_build.core.provenance import Receipt
from hephaestus_build.core.settings import Settings
from hephaestus_build.cube.granules import Granule
from hephaestus_build.cube.inventory import CubeInventory
from hephaestus_build.cube.storage.generations import FrameStore, Generation
from hephaestus_build.pipeline.plan import BuildRequest, PairSelection
from hephaestus_build.pipeline.upstream_changes import UpstreamState, describe_retraction
from hephaestus_build.sources.annotations.record import Annotation
from hephaestus_build.sources.era5.selection import Era5Source
from hephaestus_build.sources.interferograms import EpochBaselines, FrameMetadata, InterferogramSource


@dataclass(frozen=True)
class BuildContext:
    """What a build of one frame knows before it starts; nothing in it changes while the build runs.

    Attributes
    ----------
    request : BuildRequest
        The request.
    settings : Settings
        Settings that apply to the frame.
    store : FrameStore
        Folder of the frame's generations.
    interferograms : InterferogramSource
        Source of interferograms and of the DEM.
    era5 : Era5Source
        Source of the atmosphere.
    metadata : FrameMetadata
        Metadata of the frame from the interferogram source.
    baselines : tuple of Receipt and EpochBaselines or None
        Perpendicular baselines of the frame's acquisitions, and the receipt of their file.
    modified : mapping of Pair to str or None
        Listed pairs, with the time at which the listing says that each was last modified.
    annotations : mapping of Pair to Annotation
        Annotations of the frame.
    selection : PairSelection
        Pairs that the request selects.
    previous : Generation or None
        Published generation that the build extends; None for the first build.
    inventory : CubeInventory or None
        Inventory of that generation.
    upstream : UpstreamState
        Known differences between the archive and that generation.
    today : datetime.date
        Date (UTC) at the start of the build.
    listener : ProgressListener
        Receives progress and notes.
    """

    request: BuildRequest
    settings: Settings
    store: FrameStore
    interferograms: InterferogramSource
    era5: Era5Source
    metadata: FrameMetadata
    baselines: tuple[Receipt, EpochBaselines | None]
    modified: Mapping[Pair, str | None]
    annotations: Mapping[Pair, Annotation]
    selection: PairSelection
    previous: Generation | None
    inventory: CubeInventory | None
    upstream: UpstreamState
    today: date
    listener: ProgressListener

    @property
    def frame(self) -> Frame:
        """The frame to build."""
        return self.request.frame

    def object_paths(self, granule: Granule) -> Mapping[str, str]:
        """Return the files that hold the objects of a finished granule now, by name of the object."""
        # text instead of Path: making thousands of Paths would dominate the time
        if self.previous is not None and self.inventory is not None:
            store, published = str(self.previous.store), self.inventory
            if published.granules.get(granule.key) is granule:
                return {name: f"{store}/{key}" for name, key in published.chunk_keys.keys(granule)}
        return self.store.staging.chunk_paths(granule)

    @property
    def published(self) -> Mapping[str, Granule]:
        """Granules of the published generation, by key."""
        return self.inventory.granules if self.inventory is not None else {}

    @property
    def retraction(self) -> str:
        """How much of the published cube the archive's listing lacks, if it is most of it; else empty."""
        return describe_retraction(self.published, self.modified)

    @property
    def is_simulated(self) -> bool:
        """Whether the data is simulated, according to the frame's id or to the archive."""
        return self.frame.is_simulated or self.metadata.is_simulated

    def era5_hour(self, day: date) -> datetime | None:
        """Return the ERA5 hour nearest to the acquisition of `day`; None if its time is unknown."""
        center_time = self.metadata.center_time
        return nearest_era5_hour(day, center_time) if center_time is not None else None
