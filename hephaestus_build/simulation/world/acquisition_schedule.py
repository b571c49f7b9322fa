"""Acquisition dates of the simulated satellite, and the pairs formed from them."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, timedelta
from functools import lru_cache

from hephaestus_build.core.frames import Pair

#: Days between two acquisitions of a frame.
REPEAT_DAYS = 12
#: First days, counted from `_FIRST_CAMPAIGN`, of the three short campaigns that a small archive covers: one
#: in each part of the paper's split by date (until May 2019, until December 2019, later).
CAMPAIGN_STARTS = (0, 168, 588)
_FIRST_CAMPAIGN = date(2019, 3, 5)
#: Largest number of dates that the campaigns hold; more dates form one unbroken series.
_MAX_CAMPAIGN_DATES = 36
#: Date before which nearly half of an unbroken series lies: the start of the paper's validation part.
_SERIES_MIDDLE = date(2019, 6, 1)
#: Each acquisition forms pairs with at most this many later ones, up to this many days apart.
MAX_NEIGHBOURS, MAX_TEMPORAL_BASELINE = 3, 48


def acquisition_dates(count: int, start: date | None = None, shift: int = 0) -> tuple[date, ...]:
    """Return the acquisition dates of a frame.

    Parameters
    ----------
    count : int
        Number of dates, at least 2.
    start : datetime.date, optional
        First date of an unbroken series. By default up to 36 dates form three campaigns in 2019 and 2020,
        and more form an unbroken series around June 2019.
    shift : int
        Days added to every date, so that frames differ.

    Raises
    ------
    ValueError
        If `count` is less than 2.
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
    """Return the pairs formed from sorted `epochs`; frames of equal dates share them.

    1. Each epoch is paired with the next 3, if they are at most 48 days later.
    2. The last epoch before a longer gap is paired with the first one after it, and its predecessor with
       the second one after it.
    3. Every sixth epoch is paired with the thirtieth one after it, about a year later.
    """
    return _form_pairs(tuple(epochs))


@lru_cache(maxsize=64)
def _form_pairs(epochs: tuple[date, ...]) -> tuple[Pair, ...]:
    pairs = set()
    for index, primary in enumerate(epochs):
        near = [
            day
            for day in epochs[index + 1 : index + 1 + MAX_NEIGHBOURS]
            if (day - primary).days <= MAX_TEMPORAL_BASELINE
        ]
        pairs |= {Pair(primary, day) for day in near}
        following = index + 1
        if following < len(epochs) and not near:  # last epoch before a gap: bridge it twice
            pairs.add(Pair(primary, epochs[following]))
            if index and following + 1 < len(epochs):
                pairs.add(Pair(epochs[index - 1], epochs[following + 1]))
        if index % 6 == 0 and index + 30 < len(epochs):
            pairs.add(Pair(primary, epochs[index + 30]))
    return tuple(sorted(pairs))
