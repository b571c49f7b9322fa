"""What the build of a frame is expected to cost, and frames split into parts of equal cost.

Both follow from the requests and the registry of published frames alone, so that every machine computes the
same: no listing, cube or clock of one machine counts.
"""

from __future__ import annotations

import hashlib
import heapq
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from hephaestus_build.core.era5_grid import Era5Area, era5_area_around
from hephaestus_build.core.errors import UsageError
from hephaestus_build.core.frame_search import approximate_centre, approximate_extent
from hephaestus_build.core.frames import Frame
from hephaestus_build.core.grid import Grid
from hephaestus_build.core.registry import published_frames
from hephaestus_build.pipeline.plan import (
    DOWNLOAD_BYTES_PER_PIXEL,
    STORED_BYTES_PER_PIXEL,
    TYPICAL_PIXELS,
    BuildRequest,
)

#: Interferograms of a frame whose listing is not known: LiCSAR has a million of two thousand frames.
TYPICAL_PAIRS = 500
# Size of LiCSAR's pixels, degrees.
_PIXEL = 0.001
# Height and width of a frame, degrees.
_TYPICAL_EXTENT = (2.5, 3.0)
#: As large as a frame's area usually is, wherever it lies.
TYPICAL_ERA5_AREA = Era5Area(1.75, -2.0, -1.75, 2.0)


@dataclass(frozen=True)
class FrameCost:
    """The size of a frame's whole build.

    Attributes
    ----------
    pairs : int
        Interferograms.
    pixels : int
        Pixels of each.
    """

    pairs: int
    pixels: int

    @property
    def download_bytes(self) -> int:
        """Roughly what is downloaded from the archive of interferograms."""
        return int(self.pairs * self.pixels * DOWNLOAD_BYTES_PER_PIXEL)

    @property
    def disk_bytes(self) -> int:
        """Roughly what the cube takes on disk."""
        return int(self.pairs * self.pixels * STORED_BYTES_PER_PIXEL)


def expected_cost(request: BuildRequest) -> FrameCost:
    """Return what a build from nothing is expected to cost; the days of `request` do not count.

    Pairs are the annotated ones of a published frame where these are asked for, else :data:`TYPICAL_PAIRS`.
    Pixels follow from what the annotations imply, else from the id, else they are typical.

    Examples
    --------
    >>> from hephaestus_build.core.frames import Frame
    >>> expected_cost(BuildRequest(Frame("124D_05291_081406"))).pairs
    928
    """
    known = published_frames().get(request.frame.id)
    annotated = known.annotations if known else 0
    if request.pairs == "annotated" or (request.pairs == "auto" and annotated):
        pairs = annotated
    else:
        pairs = max(annotated, TYPICAL_PAIRS)
    if request.limit is not None:
        pairs = min(pairs, request.limit)
    return FrameCost(pairs, expected_pixels(request.frame))


def expected_pixels(frame: Frame) -> int:
    """Return the expected number of pixels of an image of a frame; no raster is read."""
    known = published_frames().get(frame.id)
    if known and known.implied_shape:
        return known.implied_shape[0] * known.implied_shape[1]
    latitude = known.latitude if known else frame.nominal_latitude
    extent = None if latitude is None or frame.is_simulated else approximate_extent(frame, latitude)
    return int(extent[0] * extent[1] / _PIXEL**2) if extent else TYPICAL_PIXELS


def expected_era5_area(frame: Frame) -> Era5Area | None:
    """Return the area of ERA5 that a frame is expected to need; None where its place is not known.

    Examples
    --------
    >>> str(expected_era5_area(Frame("124D_05291_081406")))
    'N38.5_W12.5_S35_E16.5'
    """
    known = published_frames().get(frame.id)
    centre = (known.latitude, known.longitude) if known else approximate_centre(frame)
    if centre is None:
        return None
    if known and known.implied_shape:
        height, width = (count * known.implied_pixel for count in known.implied_shape)
    else:
        height, width = approximate_extent(frame, centre[0]) or _TYPICAL_EXTENT
    latitude, longitude = centre
    rows, columns = math.ceil(height / _PIXEL), math.ceil(width / _PIXEL)
    north = min(90.0, latitude + height / 2)
    return era5_area_around(Grid(columns, rows, longitude - width / 2, north, _PIXEL, _PIXEL).in_first_turn())


def select_frame_part(requests: Sequence[BuildRequest], part: tuple[int, int]) -> tuple[BuildRequest, ...]:
    """Return the i-th of n parts of some requests, the one that costs most first.

    Every request is in one part, whatever the order of `requests`, and the parts cost about the same.

    Parameters
    ----------
    requests : sequence of BuildRequest
        Requests of different frames.
    part : tuple of int
        (i, n), where i counts from 1.

    Raises
    ------
    UsageError
        If i is not between 1 and n.
    """
    number, count = part
    if not 1 <= number <= count:
        raise UsageError(f"there is no part {number} of {count}: parts go from 1/{count} to {count}/{count}")
    by_frame = {request.frame.id: request for request in requests}
    costs = {name: expected_cost(request).download_bytes for name, request in by_frame.items()}
    # parts beyond the number of frames are empty, however many there are
    chosen = split_by_cost(costs, min(count, len(costs)))[number - 1 :][:1]
    return tuple(by_frame[name] for names in chosen for name in names)


def fingerprint_frames(requests: Iterable[BuildRequest]) -> str:
    """Return a short hash of frames and their costs: where it is the same, so are their parts."""
    costs = sorted((item.frame.id, item.pairs, expected_cost(item).download_bytes) for item in requests)
    return hashlib.sha256(repr(costs).encode()).hexdigest()[:8]


def split_by_cost(costs: Mapping[str, int], count: int) -> list[list[str]]:
    """Return names in `count` parts of about the same cost; some parts are empty where there are few names.

    Names are taken by falling cost, each into the part that costs least so far, of equal ones into that with
    the fewest names; ties go by name and number. No part costs more than an equal share and one name.

    Examples
    --------
    >>> split_by_cost({"a": 3, "b": 5, "c": 2, "d": 4}, 2)
    [['b', 'c'], ['d', 'a']]
    """
    parts: list[list[str]] = [[] for _ in range(count)]
    loads = [(0, 0, number) for number in range(min(count, len(costs)))]  # parts beyond stay empty
    for name in sorted(costs, key=lambda name: (-costs[name], name)):
        load, names, number = heapq.heappop(loads)
        parts[number].append(name)
        heapq.heappush(loads, (load + costs[name], names + 1, number))
    return parts
