"""What the cubes of many frames cost, from what is known without asking an archive."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

from hephaestus_build.core.errors import HephaestusError
from hephaestus_build.core.filesystem.manners import probe_filesystem
from hephaestus_build.core.frames import Frame, Pair
from hephaestus_build.core.registry import published_frames
from hephaestus_build.core.settings import Settings
from hephaestus_build.cube.storage.generations import FrameStore
from hephaestus_build.download.request_pace import RequestLimits, spacing_of
from hephaestus_build.operations.era5_outlook import CdsOutlook, expect_months, outlook_of_cds
from hephaestus_build.operations.status import list_frames_on_disk
from hephaestus_build.pipeline.frame_cost import FrameCost, expected_cost, expected_pixels
from hephaestus_build.pipeline.kept.generation_summary import GenerationSummary, read_summary
from hephaestus_build.pipeline.plan import (
    REQUESTS_PER_FRAME,
    REQUESTS_PER_PAIR,
    BuildRequest,
    PlanState,
    select_pairs,
)
from hephaestus_build.sources.era5.selection import choose_era5_source
from hephaestus_build.sources.interferograms import InterferogramSource
from hephaestus_build.sources.selection import open_interferogram_source


@dataclass(frozen=True)
class FrameOutlook:
    """What the build of one frame is expected to fetch and to take.

    Attributes
    ----------
    frame : Frame
        The frame.
    wanted : int
        Number of its pairs that are asked for.
    stored : int
        Number of pairs in its cube, of those wanted.
    is_listed : bool
        Whether `wanted` was counted in a kept listing; else it is expected.
    to_fetch : FrameCost
        The pairs that are not stored.
    """

    frame: Frame
    wanted: int
    stored: int
    is_listed: bool
    to_fetch: FrameCost

    @property
    def state(self) -> PlanState:
        """How the frame stands, as far as it is known without asking; owed pairs are among those to fetch."""
        if not self.stored:
            return PlanState.NEW
        return PlanState.EXTEND if self.to_fetch.pairs else PlanState.CURRENT

    def to_json(self) -> dict[str, Any]:
        """Return the outlook as JSON values."""
        return {
            "frame": self.frame.id,
            "wanted": self.wanted,
            "in_cube": self.stored,
            "to_fetch": self.to_fetch.pairs,
            "is_listed": self.is_listed,
            "download_bytes": self.to_fetch.download_bytes,
            "disk_bytes": self.to_fetch.disk_bytes,
        }


@dataclass(frozen=True, repr=False)
class DatasetPlan:
    """What the cubes of many frames cost.

    Attributes
    ----------
    frames : tuple of FrameOutlook
        One for each frame.
    connections : int
        Requests to the portal at once.
    requests_per_second : float or None
        Requests per second to the portal; None if they are not limited.
    free_bytes : int or None
        Free space where the cubes are; None if the file system does not say.
    era5 : CdsOutlook or None
        What the atmosphere costs at the CDS; None where it comes from elsewhere.
    """

    frames: tuple[FrameOutlook, ...]
    connections: int
    requests_per_second: float | None
    free_bytes: int | None
    era5: CdsOutlook | None = None

    def __repr__(self) -> str:
        return f"<DatasetPlan of {len(self.frames)} frames: about {self.download_bytes / 1e9:.2f} GB>"

    @property
    def download_bytes(self) -> int:
        """Roughly what will be downloaded from the archive of interferograms."""
        return sum(item.to_fetch.download_bytes for item in self.frames)

    @property
    def disk_bytes(self) -> int:
        """Roughly what will be stored."""
        return sum(item.to_fetch.disk_bytes for item in self.frames)

    @property
    def portal_requests(self) -> int:
        """Roughly the number of requests to the portal."""
        pairs = sum(item.to_fetch.pairs for item in self.frames)
        return pairs * REQUESTS_PER_PAIR + len(self.frames) * REQUESTS_PER_FRAME

    @property
    def pace_seconds(self) -> float | None:
        """Least duration of these requests at the set rate, seconds; None if it is not limited."""
        rate = self.requests_per_second
        return None if rate is None else self.portal_requests * spacing_of(rate)

    def to_json(self) -> dict[str, Any]:
        """Return the plan as JSON values."""
        return {
            "wanted": sum(item.wanted for item in self.frames),
            "in_cube": sum(item.stored for item in self.frames),
            "to_fetch": sum(item.to_fetch.pairs for item in self.frames),
            "listed_frames": sum(item.is_listed for item in self.frames),
            "portal_requests": self.portal_requests,
            "connections": self.connections,
            "requests_per_second": self.requests_per_second,
            "pace_seconds": None if self.pace_seconds is None else round(self.pace_seconds, 1),
            "download_bytes": self.download_bytes,
            "disk_bytes": self.disk_bytes,
            "free_bytes": self.free_bytes,
            "era5": self.era5.to_json() if self.era5 else None,
            "frames": [item.to_json() for item in self.frames],
        }


def plan_dataset(requests: Sequence[BuildRequest], settings: Settings) -> DatasetPlan:
    """Return what builds of many frames will cost, from kept listings, cubes, the registry and ids.

    No archive is asked. Annotated pairs are counted by the registry, whatever the days of the request; other
    pairs by the last listing that was read of the frame, or as many as are typical.

    Parameters
    ----------
    requests : sequence of BuildRequest
        What to build.
    settings : Settings
        Folders and limits.
    """
    started = set(list_frames_on_disk(settings))
    by_cds = choose_era5_source(settings).name == "cds"
    atmospheres = []
    with ExitStack() as closing:
        sources: dict[str, InterferogramSource] = {}
        outlooks = []
        for request in requests:
            kind = request.frame.source
            if kind not in sources:
                sources[kind] = open_interferogram_source(settings, request.frame)
                closing.callback(sources[kind].close)
            summary = _read_summary(request.frame, settings) if request.frame in started else None
            wanted, listed = _count_wanted(request, sources[kind], summary)
            stored = min(summary.pairs, wanted) if summary else 0
            cost = FrameCost(wanted - stored, expected_pixels(request.frame))
            outlooks.append(FrameOutlook(request.frame, wanted, stored, listed is not None, cost))
            if by_cds and cost.pairs:
                pairs = listed[-cost.pairs :] if listed is not None else None
                atmospheres.append(expect_months(request, cost.pairs, pairs))
    return DatasetPlan(
        tuple(outlooks),
        settings.connections_allowed,
        None if settings.is_archive_embedded else RequestLimits(settings).rate_of(settings.licsar_url),
        probe_filesystem(settings.cubes_dir).free_bytes,
        outlook_of_cds(atmospheres, settings.era5_area, settings.era5_fields) if by_cds else None,
    )


def _count_wanted(
    request: BuildRequest, source: InterferogramSource, summary: GenerationSummary | None
) -> tuple[int, tuple[Pair, ...] | None]:
    """Return the number of pairs that `request` asks for, and which they are if a listing says so.

    Annotated pairs that the archive lacks, which `summary` of the cube names, are not counted.
    """
    known = published_frames().get(request.frame.id)
    annotations = known.annotations if known else summary.annotated if summary else 0
    if request.pairs == "annotated" or (request.pairs == "auto" and annotations):
        absent = len(summary.absent) if summary else 0
        pairs = max(0, annotations - absent)
        return pairs if request.limit is None else min(pairs, request.limit), None
    kept = source.kept_listing(request.frame)
    if kept is None:
        return expected_cost(request).pairs, None
    wanted = select_pairs(request, kept.pairs, ()).wanted
    return len(wanted), wanted


def _read_summary(frame: Frame, settings: Settings) -> GenerationSummary | None:
    """Return the summary of a frame's cube; None if there is none that can be read."""
    store = FrameStore(settings.cubes_dir, frame)
    try:
        current = store.published_generation()
        return read_summary(store, current) if current else None
    except HephaestusError:  # `status` says why
        return None
