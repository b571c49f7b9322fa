"""What a build knows before it begins: what is asked for, and what there is upstream and here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, datetime

from hephaestus_build.core.era5_grid import nearest_era5_hour
from hephaestus_build.core.frames import Frame, Pair
from hephaestus_build.core.progress import ProgressListener
from hephaestus_build.core.settings import Settings
from hephaestus_build.cube.granules import Granule
from hephaestus_build.cube.storage.generations import FrameStore, Generation
from hephaestus_build.pipeline.plan import BuildRequest, PairSelection
from hephaestus_build.pipeline.upstream_changes import UpstreamState
from hephaestus_build.sources.annotations.archive import Annotation
from hephaestus_build.sources.era5.selection import Era5Source
from hephaestus_build.sources.interferograms import FrameMetadata, InterferogramSource


@dataclass(frozen=True)
class BuildContext:
    """What a build of one frame knows before it begins; nothing of it changes while it runs.

    Attributes
    ----------
    request : BuildRequest
        What is asked for.
    settings : Settings
        Those that hold for the frame.
    store : FrameStore
        Where the cube stands.
    interferograms : InterferogramSource
        The source of interferograms and of the elevation model.
    era5 : Era5Source
        The source of the atmosphere.
    metadata : FrameMetadata
        What that source says of the frame.
    modified : mapping of Pair to str or None
        The pairs in the portal's listing, and when it says that each was last changed.
    annotations : mapping of Pair to Annotation
        Those of the frame.
    selection : PairSelection
        The pairs that the request takes.
    previous : Generation or None
        The published cube that the build starts from.
    published : mapping of str to Granule
        The granules of that cube, by key.
    upstream : UpstreamState
        What was known beforehand of how the archive differs from that cube.
    today : datetime.date
        The day, UTC, on which the build began.
    listener : ProgressListener
        What is told how far the build is.
    """

    request: BuildRequest
    settings: Settings
    store: FrameStore
    interferograms: InterferogramSource
    era5: Era5Source
    metadata: FrameMetadata
    modified: Mapping[Pair, str | None]
    annotations: Mapping[Pair, Annotation]
    selection: PairSelection
    previous: Generation | None
    published: Mapping[str, Granule]
    upstream: UpstreamState
    today: date
    listener: ProgressListener

    @property
    def frame(self) -> Frame:
        """The frame that is built."""
        return self.request.frame

    @property
    def is_simulated(self) -> bool:
        """Whether the data is simulated: by the frame's id, or by what the archive says."""
        return self.frame.is_simulated or self.metadata.is_simulated

    def era5_hour(self, day: date) -> datetime:
        """Return the hour of ERA5 that belongs to the acquisition of `day`."""
        return nearest_era5_hour(day, self.metadata.center_time)
