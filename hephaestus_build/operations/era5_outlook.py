"""What the atmosphere of many frames costs at the CDS, by arithmetic from frames, months and form."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Any

from hephaestus_build.core.era5_grid import Era5Area, nearest_era5_hour, parse_center_time
from hephaestus_build.core.frames import Frame, Pair
from hephaestus_build.core.registry import published_frames
from hephaestus_build.core.settings import Era5Form
from hephaestus_build.pipeline.frame_cost import TYPICAL_ERA5_AREA, expected_era5_area
from hephaestus_build.pipeline.plan import BuildRequest
from hephaestus_build.sources.era5.fields import Era5Batch
from hephaestus_build.sources.era5.requests import Era5Cost, frame_requests, requests_cost, tile_requests
from hephaestus_build.sources.era5.tiles import era5_tile_around, era5_tile_hours

#: First acquisitions of Sentinel-1 in LiCSAR, and the last day of the published data set.
_FIRST_DAY, _LAST_ANNOTATED = date(2014, 10, 7), date(2021, 11, 20)
#: Pairs of each date in LiCSAR's networks.
_PAIRS_PER_DATE = 3
#: Acquisitions of all frames of a tile may lie on any day.
_ANY_DAYS = tuple(range(1, 29))


@dataclass(frozen=True)
class FrameMonths:
    """When a frame needs the atmosphere.

    Attributes
    ----------
    frame : Frame
        The frame.
    months : tuple of (int, int)
        Years and months, sorted.
    dates : int
        Number of acquisitions in them.
    """

    frame: Frame
    months: tuple[tuple[int, int], ...]
    dates: int


@dataclass(frozen=True)
class CdsOutlook:
    """What the CDS is expected to be asked for.

    Attributes
    ----------
    area : str
        ``frame`` or ``tile``, the setting ``era5_area``.
    cost : Era5Cost
        Requests and their size.
    """

    area: Era5Form
    cost: Era5Cost

    def to_json(self) -> dict[str, Any]:
        """Return the outlook as JSON values."""
        return {"area": self.area, "requests": self.cost.requests, "bytes": self.cost.bytes}


def expect_months(request: BuildRequest, count: int, pairs: Sequence[Pair] | None) -> FrameMonths:
    """Return when a frame needs the atmosphere for `count` pairs.

    Parameters
    ----------
    request : BuildRequest
        The frame, and the days that are asked for.
    count : int
        Number of pairs.
    pairs : sequence of Pair or None
        The pairs, where they are known; else every month is taken since there are acquisitions, of annotated
        pairs until the last annotated one, or as many as there are dates.
    """
    if pairs is not None:
        days = {day for pair in pairs for day in pair.dates}
        return FrameMonths(request.frame, tuple(sorted({(day.year, day.month) for day in days})), len(days))
    known = published_frames().get(request.frame.id)
    annotated = known is not None and known.annotations > 0 and request.pairs != "all"
    last = _LAST_ANNOTATED if annotated else datetime.now(UTC).date()
    first, last = max(_FIRST_DAY, request.since or _FIRST_DAY), min(last, request.until or last)
    dates = count // _PAIRS_PER_DATE + 1
    return FrameMonths(request.frame, _months_between(first, last)[:dates], dates)


def outlook_of_cds(
    frames: Iterable[FrameMonths], form: Era5Form, limit: int, today: date | None = None
) -> CdsOutlook:
    """Return what the atmosphere of frames costs at the CDS, if nothing of it is cached.

    Parameters
    ----------
    frames : iterable of FrameMonths
        Each frame once.
    form : str
        ``frame`` or ``tile``.
    limit : int
        Largest number of fields of a request.
    today : datetime.date, optional
        Decides which months are complete.

    Examples
    --------
    >>> one = FrameMonths(Frame("022D_04826_121209"), ((2019, 1), (2019, 2)), 10)
    >>> other = FrameMonths(Frame("124D_04854_171313"), ((2019, 2), (2019, 3)), 10)
    >>> [outlook_of_cds([one, other], form, 1000).cost.requests for form in ("frame", "tile")]
    [4, 3]
    """
    today = today or datetime.now(UTC).date()
    requests, size = 0, 0
    tiles: dict[Era5Area | Frame, dict[tuple[int, int], set[int]]] = {}
    for item in frames:
        area = expected_era5_area(item.frame)
        if form == "tile":
            tile = item.frame if area is None else era5_tile_around(area)  # nowhere: a tile of its own
            hour = _expected_hour(item.frame, area)
            months = tiles.setdefault(tile, {})
            for month in item.months:
                months.setdefault(month, set()).add(hour)
        elif item.months:
            each = tuple(range(1, 1 + max(1, round(item.dates / len(item.months)))))
            batches = (Era5Batch(*month, 0, each) for month in item.months)
            cost = requests_cost(frame_requests(batches, limit), area or TYPICAL_ERA5_AREA)
            requests, size = requests + cost.requests, size + cost.bytes
    for place, months in tiles.items():
        tile = place if isinstance(place, Era5Area) else era5_tile_around(TYPICAL_ERA5_AREA)
        wanted = [
            Era5Batch(*month, hour, _ANY_DAYS) for month, hours in months.items() for hour in sorted(hours)
        ]
        cost = requests_cost(tile_requests(tile, wanted, today, limit), tile)
        requests, size = requests + cost.requests, size + cost.bytes
    return CdsOutlook(form, Era5Cost(requests, size))


def _expected_hour(frame: Frame, area: Era5Area | None) -> int:
    """Return the hour of the day at which a frame is passed."""
    known = published_frames().get(frame.id)
    if known:
        return nearest_era5_hour(_FIRST_DAY, parse_center_time(known.center_time)).hour
    return era5_tile_hours(era5_tile_around(area or TYPICAL_ERA5_AREA))[0]


def _months_between(first: date, last: date) -> tuple[tuple[int, int], ...]:
    """Return the months from that of one day to that of another."""
    months = []
    day = first.replace(day=1)
    while day <= last:
        months.append((day.year, day.month))
        day = (day + timedelta(days=31)).replace(day=1)
    return tuple(months)
