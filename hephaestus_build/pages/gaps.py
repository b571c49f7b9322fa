"""Gaps in the acquisitions of a frame: pure functions of the dates of its pairs."""

from __future__ import annotations

from collections.abc import Collection
from datetime import date
from itertools import pairwise
from statistics import median

from hephaestus_build.core.frames import Pair
from hephaestus_build.pages.page_data import AcquisitionGap

#: An interval of more than this many usual ones is a gap; shorter than this many days it never is.
_USUAL, _SHORTEST = 3, 30


def find_gaps(pairs: Collection[Pair]) -> tuple[AcquisitionGap, ...]:
    """Return the long intervals between acquisitions, and those that no pair spans.

    Parameters
    ----------
    pairs : collection of Pair
        The stored pairs.

    Returns
    -------
    tuple of AcquisitionGap
        In order of time. Long is more than three times the usual interval, and more than 30 days.

    Examples
    --------
    >>> days = "20200101_20200113", "20200113_20200125", "20200601_20200613"
    >>> find_gaps([Pair.parse(text) for text in days])
    (AcquisitionGap(start='2020-01-25', end='2020-06-01', days=128, spanned=False),)
    """
    days = sorted({day for pair in pairs for day in pair.dates})
    if len(days) < 2:
        return ()
    usual = median((after - before).days for before, after in pairwise(days))
    reach: dict[date, date] = {}
    for pair in pairs:
        reach[pair.primary] = max(reach.get(pair.primary, pair.secondary), pair.secondary)
    gaps, furthest = [], days[0]
    for before, after in pairwise(days):
        furthest = max(furthest, reach.get(before, before))
        length, spanned = (after - before).days, furthest >= after
        if not spanned or length > max(_USUAL * usual, _SHORTEST):
            gaps.append(AcquisitionGap(before.isoformat(), after.isoformat(), length, spanned))
    return tuple(gaps)
