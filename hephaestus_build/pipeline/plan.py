"""Which pairs a build takes, and what that will cost: decided before anything is fetched."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from datetime import date
from enum import StrEnum
from typing import Any

from hephaestus_build.core.errors import HephaestusError
from hephaestus_build.core.filesystem.manners import FilesystemManners
from hephaestus_build.core.frames import Frame, Pair
from hephaestus_build.core.grid import Grid
from hephaestus_build.core.settings import PairChoice
from hephaestus_build.cube.granules import Granule, InterferogramGranule
from hephaestus_build.download.request_pace import spacing_of
from hephaestus_build.pipeline.upstream_changes import describe_retraction
from hephaestus_build.sources.era5.requests import Era5Cost

#: Bytes a pixel of typical products: as downloaded, and as stored in the cube (docs/performance.md).
DOWNLOAD_BYTES_PER_PIXEL = 1.6
STORED_BYTES_PER_PIXEL = 2.6
#: Bytes a pixel of a raster of an optional variable, as downloaded and as stored: floats compress little.
OPTIONAL_BYTES_PER_PIXEL = 2.5
#: Requests to the portal for a pair: phase, coherence, and the preview of an annotated one or a page.
REQUESTS_PER_PAIR = 3
#: And for a frame: its listing, metadata, baselines and heights.
REQUESTS_PER_FRAME = 4
#: Pixels of a frame whose size is not known yet: what the 38 published frames have in the middle.
TYPICAL_PIXELS = 2700 * 2600


@dataclass(frozen=True)
class BuildRequest:
    """What a user asks to be built of a frame.

    Attributes
    ----------
    frame : Frame
        Whose cube.
    pairs : str
        ``annotated``, ``all``, or ``auto``: annotated where the frame has annotations, else all.
    since, until : datetime.date or None
        Both dates of a pair must lie in this range, its ends included.
    limit : int or None
        Take no more than this many pairs, the earliest first.
    variables : tuple of str
        Optional variables to add to those that the cube has; ``("none",)`` for none at all.
    """

    frame: Frame
    pairs: PairChoice = "auto"
    since: date | None = None
    until: date | None = None
    limit: int | None = None
    variables: tuple[str, ...] = ()


@dataclass(frozen=True)
class PairSelection:
    """The pairs of one request.

    Attributes
    ----------
    wanted : tuple of Pair
        To be in the cube, in date order.
    unlisted : tuple of Pair
        Annotated and requested pairs that the archive does not list.
    skipped : dict of str to int
        How many listed pairs are left out, by reason.
    resolved_choice : str
        ``annotated`` or ``all``.
    """

    wanted: tuple[Pair, ...]
    unlisted: tuple[Pair, ...]
    skipped: Mapping[str, int] = field(default_factory=dict)
    resolved_choice: str = "all"


def select_pairs(
    request: BuildRequest, listed: Collection[Pair], annotated: Collection[Pair]
) -> PairSelection:
    """Return the pairs that `request` selects.

    Parameters
    ----------
    request : Request
        What is asked for.
    listed : collection of Pair
        Pairs that the archive lists.
    annotated : collection of Pair
        Annotated pairs.
    """
    choice = request.pairs
    if choice == "auto":
        choice = "annotated" if annotated else "all"
    skipped: dict[str, int] = {}

    def within(pair: Pair) -> str | None:
        if request.since is not None and pair.primary < request.since:
            return "before --since"
        if request.until is not None and pair.secondary > request.until:
            return "after --until"
        return None

    wanted: list[Pair] = []
    known = set(annotated)
    for pair in sorted(set(listed)):
        reason = "not annotated" if choice == "annotated" and pair not in known else within(pair)
        if reason is None and request.limit is not None and len(wanted) >= request.limit:
            reason = "beyond --limit"
        if reason is None:
            wanted.append(pair)
        else:
            skipped[reason] = skipped.get(reason, 0) + 1
    unlisted = (
        ()
        if request.limit is not None
        else tuple(pair for pair in sorted(known - set(listed)) if within(pair) is None)
    )
    return PairSelection(tuple(wanted), unlisted, skipped, choice)


class PlanState(StrEnum):
    """How a frame stands before a build, from what there is to do."""

    NEW = "new"
    EXTEND = "to extend"
    OWED = "owed"
    CURRENT = "up to date"


@dataclass(frozen=True, repr=False)
class BuildPlan:
    """What a build of one frame will do.

    Attributes
    ----------
    request : BuildRequest
        What is asked for.
    selection : PairSelection
        Its pairs.
    pairs_to_fetch : tuple of Pair
        Wanted pairs that must be fetched: new, owed or changed upstream.
    era5_dates : tuple of datetime.date
        Dates whose ERA5 fields must be fetched.
    era5_cost : Era5Cost
        Requests for them and their size, as if nothing of them were cached.
    grid : Grid or None
        The frame's grid; None where it is not known yet.
    listed_count : int
        Number of pairs that the archive lists.
    optional_products : dict of str to int
        Number of products to fetch of each optional variable.
    era5_problem : str
        Why the atmosphere will be owed whatever its archive has; empty if nothing is known against it.
    manners : FilesystemManners or None
        What the file system of the cubes can do; None if it was not tried.
    connections : int
        Requests to the portal at once.
    requests_per_second : float or None
        Requests per second to the portal; None if they are not limited.
    is_published : bool
        Whether there is a cube of the frame.
    new_count : int
        Number of the pairs and optional products to fetch that no build has asked for, or that have changed.
    owed_count : int
        Number of products that earlier builds have asked for in vain.
    """

    request: BuildRequest
    selection: PairSelection
    pairs_to_fetch: tuple[Pair, ...]
    era5_dates: tuple[date, ...]
    era5_cost: Era5Cost
    grid: Grid | None
    listed_count: int
    optional_products: Mapping[str, int] = field(default_factory=dict)
    era5_problem: str = ""
    manners: FilesystemManners | None = None
    connections: int = 1
    requests_per_second: float | None = None
    is_published: bool = False
    new_count: int = 0
    owed_count: int = 0

    def __repr__(self) -> str:
        wanted, size = len(self.selection.wanted), self.download_bytes / 1e9
        return (
            f"<BuildPlan {self.request.frame}: {len(self.pairs_to_fetch)} of {wanted} pairs to fetch, "
            f"about {size:.2f} GB>"
        )

    @property
    def state(self) -> PlanState:
        """How the frame stands."""
        if not self.is_published:
            return PlanState.NEW
        if self.new_count:
            return PlanState.EXTEND
        return PlanState.OWED if self.owed_count or self.era5_dates else PlanState.CURRENT

    @property
    def pixels_per_image(self) -> int:
        """Pixels of an image, exact or typical."""
        return self.grid.width * self.grid.height if self.grid else TYPICAL_PIXELS

    @property
    def download_bytes(self) -> int:
        """Roughly what will be downloaded from LiCSAR."""
        each = self._optional_images * OPTIONAL_BYTES_PER_PIXEL
        return int((len(self.pairs_to_fetch) * DOWNLOAD_BYTES_PER_PIXEL + each) * self.pixels_per_image)

    @property
    def disk_bytes(self) -> int:
        """Roughly what the build will take on disk; with copies of the cube where there are no hard links."""
        each = self._optional_images * OPTIONAL_BYTES_PER_PIXEL
        new = len(self.pairs_to_fetch) * STORED_BYTES_PER_PIXEL + each
        copies = self.manners.copies_per_generation if self.manners and new else 0
        whole = len(self.selection.wanted) * STORED_BYTES_PER_PIXEL + each
        return int((new + copies * whole) * self.pixels_per_image)

    @property
    def portal_requests(self) -> int:
        """Roughly the number of requests to the portal."""
        return len(self.pairs_to_fetch) * REQUESTS_PER_PAIR + sum(self.optional_products.values())

    @property
    def pace_seconds(self) -> float | None:
        """Least duration of these requests at the set rate, seconds; None if it is not limited."""
        rate = self.requests_per_second
        return None if rate is None else self.portal_requests * spacing_of(rate)

    @property
    def file_system(self) -> tuple[str, ...]:
        """What the file system of the cubes lacks, and what follows from it; why it cannot be used first."""
        if self.manners is None:
            return ()
        try:
            self.manners.require_usable(self.request.frame)
        except HephaestusError as error:
            return (str(error).removeprefix(f"{self.request.frame}: "), *self.manners.describe_lacks())
        return self.manners.describe_lacks()

    @property
    def _optional_images(self) -> int:
        """Number of rasters among the optional products; the file of baselines is none."""
        return sum(
            count for name, count in self.optional_products.items() if name != "perpendicular_baseline"
        )

    def to_json(self) -> dict[str, Any]:
        """Return the plan as JSON values."""
        return {
            "frame": str(self.request.frame),
            "selection": self.selection.resolved_choice,
            "listed": self.listed_count,
            "wanted": len(self.selection.wanted),
            "to_fetch": len(self.pairs_to_fetch),
            "in_cube": len(self.selection.wanted) - len(self.pairs_to_fetch),
            "absent": [pair.name for pair in self.selection.unlisted],
            "skipped": dict(self.selection.skipped),
            "era5_dates": len(self.era5_dates),
            "era5_requests": self.era5_cost.requests,
            "era5_bytes": self.era5_cost.bytes,
            "era5_problem": self.era5_problem,
            "optional_products": dict(self.optional_products),
            "portal_requests": self.portal_requests,
            "connections": self.connections,
            "requests_per_second": self.requests_per_second,
            "pace_seconds": None if self.pace_seconds is None else round(self.pace_seconds, 1),
            "download_bytes": self.download_bytes,
            "disk_bytes": self.disk_bytes,
            "size_is_exact": self.grid is not None,
            "free_bytes": self.manners.free_bytes if self.manners else None,
            "file_system": list(self.file_system),
        }


def drop_withdrawn_pairs(
    granules: Mapping[str, Granule], listed: Collection[Pair], annotated: Collection[Pair]
) -> dict[str, Granule]:
    """Return `granules` without incomplete pairs that are neither listed nor annotated any more.

    All are kept if the listing lacks most of the others too, see :func:`describe_retraction`.
    """
    if describe_retraction(granules, listed):
        return dict(granules)

    def withdrawn(granule: Granule) -> bool:
        return (
            isinstance(granule, InterferogramGranule)
            and not granule.is_complete
            and granule.pair not in listed
            and granule.pair not in annotated
        )

    return {key: granule for key, granule in granules.items() if not withdrawn(granule)}


def needs_fetching(granule: InterferogramGranule | None, modified: str | None) -> bool:
    """Return whether a pair must be fetched: it is new, owed, or was modified according to the listing."""
    if granule is None or not granule.is_complete:
        return True
    before = granule.modified
    return modified is not None and before is not None and modified != before
