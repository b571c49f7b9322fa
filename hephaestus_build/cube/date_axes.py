"""The axes of a cube: acquisition dates and pairs, in the order of their positions."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date
from functools import cached_property

from hephaestus_build.core.frames import Pair


def pair_sort_key(pair: Pair) -> tuple[date, date]:
    """Return the sorting key of the pair axis: the secondary date, then the primary one."""
    return pair.secondary, pair.primary


@dataclass(frozen=True)
class DateAxes:
    """The axes of a cube, without duplicates.

    Both date axes hold every acquisition of a listed pair, whether an interferogram is stored or not. New
    acquisitions therefore come last, and the positions of the others stay the same from one generation to the
    next, also for readers that opened an earlier one.

    Attributes
    ----------
    primary, secondary : tuple of datetime.date
        Dates of the two date axes. They are equal, except in cubes of schema 1, whose axes hold the dates of
        stored pairs only.
    pairs : tuple of Pair
        Pairs of the pair axis.
    """

    primary: tuple[date, ...]
    secondary: tuple[date, ...]
    pairs: tuple[Pair, ...] = ()

    @classmethod
    def from_pairs(cls, pairs: Iterable[Pair]) -> DateAxes:
        """Return the sorted axes of a new cube.

        Examples
        --------
        >>> axes = DateAxes.from_pairs([Pair.parse("20200113_20200125"), Pair.parse("20200101_20200125")])
        >>> [day.day for day in axes.primary], [pair.name for pair in axes.pairs]
        ([1, 13, 25], ['20200101_20200125', '20200113_20200125'])
        """
        axis = tuple(sorted(set(pairs), key=pair_sort_key))
        dates = tuple(sorted({day for pair in axis for day in pair.dates}))
        return cls(dates, dates, axis)

    @cached_property
    def epochs(self) -> tuple[date, ...]:
        """Dates of the epoch axis: those of either date axis."""
        if self.primary == self.secondary:
            return self.primary
        return tuple(sorted({*self.primary, *self.secondary}))

    def append_dates(self, wanted: DateAxes) -> DateAxes:
        """Return these axes with the dates of `wanted` that they lack at their end, however old these are."""
        dates = (*self.epochs, *(day for day in wanted.epochs if day not in set(self.epochs)))
        return DateAxes(dates, dates, wanted.pairs)

    def append_pairs(self, wanted: DateAxes) -> DateAxes:
        """Return `wanted` with the pair axis of these axes, and the pairs that it lacks at its end."""
        known = set(self.pairs)
        pairs = (*self.pairs, *(pair for pair in wanted.pairs if pair not in known))
        return DateAxes(wanted.primary, wanted.secondary, pairs)
