"""When the simulated satellite passes, and which passes are interfered."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, timedelta

from hephaestus_build.core.frames import Pair

#: Days between two passes.
REPEAT_DAYS = 12
#: First days of the three short campaigns that a small archive covers: one in each part of the paper's
#: split by date (until May 2019, until December 2019, later).
CAMPAIGN_STARTS = (0, 168, 588)
_FIRST_CAMPAIGN = date(2019, 3, 5)
#: More passes than this do not fit between the campaigns and become one unbroken series.
_MAX_CAMPAIGN_DATES = 36
#: An unbroken series has nearly half of its days before this one, where the paper's validation begins.
_SERIES_MIDDLE = date(2019, 6, 1)
#: Each pass is interfered with so many next ones, if they are no further than this many days.
MAX_NEIGHBOURS, MAX_TEMPORAL_BASELINE = 3, 48


def acquisition_dates(count: int, start: date | None = None, shift: int = 0) -> tuple[date, ...]:
    """Return `count` days of acquisition.

    Parameters
    ----------
    count : int
        How many, at least 2.
    start : datetime.date, optional
        First day of an unbroken series. Without it up to 36 days form three campaigns in 2019 and 2020;
        more form an unbroken series that lies around June 2019.
    shift : int
        Days that a frame's passes lie behind the others'.
    """
    if count < 2:
        raise ValueError(f"a frame needs at least 2 epochs, not {count}")
    if start is None and count <= _MAX_CAMPAIGN_DATES:
        sizes = [(count + place) // len(CAMPAIGN_STARTS) for place in (2, 1, 0)]
        days = [
            first + REPEAT_DAYS * step
            for first, size in zip(CAMPAIGN_STARTS, sizes, strict=True)
            for step in range(size)
        ]
        start = _FIRST_CAMPAIGN
    else:
        start = start or _SERIES_MIDDLE - timedelta(days=REPEAT_DAYS * (count * 4 // 9))
        days = [REPEAT_DAYS * step for step in range(count)]
    return tuple(start + timedelta(days=shift + day) for day in days)


def form_pairs(epochs: Sequence[date]) -> tuple[Pair, ...]:
    """Return the pairs of sorted `epochs`: near neighbours, bridges over gaps, a few year-long ones."""
    pairs = set()
    for index, primary in enumerate(epochs):
        near = [
            day
            for day in epochs[index + 1 : index + 1 + MAX_NEIGHBOURS]
            if (day - primary).days <= MAX_TEMPORAL_BASELINE
        ]
        pairs |= {Pair(primary, day) for day in near}
        following = index + 1
        if following < len(epochs) and not near:  # the last before a gap: two bridges
            pairs.add(Pair(primary, epochs[following]))
            if index and following + 1 < len(epochs):
                pairs.add(Pair(epochs[index - 1], epochs[following + 1]))
        if index % 6 == 0 and index + 30 < len(epochs):
            pairs.add(Pair(primary, epochs[index + 30]))
    return tuple(sorted(pairs))
