"""ERA5 fields as value types: where, when, what, and the limits of what can be true."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cached_property

import numpy as np

from hephaestus_build.core.era5_grid import ERA5_VARIABLE_NAMES, Era5Area, Era5Variable
from hephaestus_build.core.plain_text import sanitize_text
from hephaestus_build.core.provenance import Receipt


def decode_cf_times(numbers: np.ndarray, units: str, calendar: str) -> list[datetime]:
    """Return what `numbers` on a CF time axis stand for, to the second, UTC without a zone.

    Raises
    ------
    ValueError
        If units and calendar make no sense.
    """
    import cftime

    if not np.isfinite(numbers).all() or max(len(units), len(calendar)) > 200:
        raise ValueError("its times cannot be read: some are missing, or their units have no end")
    try:
        found = cftime.num2date(
            np.asarray(numbers),
            units,
            calendar,
            only_use_cftime_datetimes=False,
            only_use_python_datetimes=True,
        )
        # fractions of a day are not exact in floating point
        rounded = (moment + timedelta(seconds=0.5) for moment in np.atleast_1d(found))
        return [datetime(*moment.timetuple()[:6]) for moment in rounded]
    except (ValueError, TypeError, OverflowError, AttributeError) as error:
        raise ValueError(f"its times cannot be read: {sanitize_text(error, 200)}") from None


@dataclass(frozen=True, order=True)
class Era5Batch:
    """Some days of one month at one hour: what one request to the CDS asks for, with nothing wasted.

    Parameters
    ----------
    year, month, hour : int
        UTC.
    days : tuple of int
        Days of the month, sorted.
    """

    year: int
    month: int
    hour: int
    days: tuple[int, ...]

    @property
    def name(self) -> str:
        """The month and hour, such as ``201806T12``."""
        return f"{self.year:04d}{self.month:02d}T{self.hour:02d}"

    @property
    def times(self) -> tuple[datetime, ...]:
        """The hours asked for, sorted."""
        return tuple(datetime(self.year, self.month, day, self.hour) for day in self.days)


def group_into_batches(times: Iterable[datetime]) -> list[Era5Batch]:
    """Return the batches that hold exactly `times`, sorted.

    Raises
    ------
    ValueError
        If a time is not a whole hour.
    """
    days: dict[tuple[int, int, int], set[int]] = {}
    for time in times:
        if time != time.replace(minute=0, second=0, microsecond=0, tzinfo=None):
            raise ValueError(f"ERA5 has whole hours in UTC, not {time.isoformat()}")
        days.setdefault((time.year, time.month, time.hour), set()).add(time.day)
    return sorted(Era5Batch(*key, tuple(sorted(found))) for key, found in days.items())


@dataclass(frozen=True)
class Era5Fields:
    """ERA5 fields of one area at some hours.

    Attributes
    ----------
    times : tuple of datetime
        Hours that are here, UTC without a zone, sorted.
    latitude : np.ndarray, shape (n,)
        Descending, degrees.
    longitude : np.ndarray, shape (m,)
        Ascending, degrees.
    values : np.ndarray, float32, shape (times, 3, n, m)
        In the order of :data:`ERA5_VARIABLE_NAMES`, in their units.
    expver : tuple of str
        For each time ``0001`` (final), ``0005`` (preliminary, ERA5T) or ``unstated``.
    source : str
        ``cds`` or ``arco``.
    receipts_by_hour : mapping of datetime to tuple of Receipt
        What was asked for each hour and how it ended, also for the hours that are not here.
    """

    times: tuple[datetime, ...]
    latitude: np.ndarray
    longitude: np.ndarray
    values: np.ndarray
    expver: tuple[str, ...]
    source: str
    receipts_by_hour: Mapping[datetime, tuple[Receipt, ...]]

    @cached_property
    def time_index(self) -> dict[datetime, int]:
        """Position of each time."""
        return {time: position for position, time in enumerate(self.times)}

    @property
    def receipts(self) -> tuple[Receipt, ...]:
        """Every request's receipt, once: without the seals of the hours, of which a request has many."""
        found = [
            receipt.replace(values=None)
            for _, some in sorted(self.receipts_by_hour.items())
            for receipt in some
        ]
        return tuple(dict.fromkeys(found))

    @property
    def missing_hours(self) -> dict[datetime, Receipt]:
        """For each hour that was asked for and is not here, the receipt that says why."""
        return {
            time: next((receipt for receipt in some if not receipt.ok), some[-1])
            for time, some in sorted(self.receipts_by_hour.items())
            if time not in self.time_index
        }

    def fields_at(self, time: datetime) -> np.ndarray:
        """Return the three fields of one hour, shape (3, n, m); KeyError if it is not here."""
        return self.values[self.time_index[time]]

    def select(self, times: Iterable[datetime]) -> Era5Fields:
        """Return the same with only those of `times` that are here or have a proof."""
        wanted = set(times)
        kept = [position for position, time in enumerate(self.times) if time in wanted]
        return Era5Fields(
            tuple(self.times[position] for position in kept),
            self.latitude,
            self.longitude,
            self.values[kept],
            tuple(self.expver[position] for position in kept),
            self.source,
            {time: proof for time, proof in self.receipts_by_hour.items() if time in wanted},
        )


def assemble_fields(
    area: Era5Area,
    source: str,
    values: Mapping[datetime, np.ndarray],
    expver: Mapping[datetime, str],
    proofs: Mapping[datetime, tuple[Receipt, ...]],
) -> Era5Fields:
    """Return fields of `area` from each hour's values, shape (3, n, m), and version; possibly of no hour."""
    times = tuple(sorted(values))
    stack = np.empty((len(times), len(ERA5_VARIABLE_NAMES), *area.shape), dtype=np.float32)
    for position, time in enumerate(times):
        stack[position] = values[time]
    versions = tuple(expver[time] for time in times)
    return Era5Fields(times, area.latitudes, area.longitudes, stack, versions, source, dict(proofs))


def merge_fields(area: Era5Area, source: str, parts: Sequence[Era5Fields]) -> Era5Fields:
    """Return all of `parts` as one; of an hour that several hold, the last one's."""
    values = {time: part.fields_at(time) for part in parts for time in part.times}
    expver = {time: version for part in parts for time, version in zip(part.times, part.expver, strict=True)}
    proofs: dict[datetime, tuple[Receipt, ...]] = {}
    for part in parts:
        # a failure does not hide the proof of an hour that another part holds
        proofs.update(
            {
                t: proof
                for t, proof in part.receipts_by_hour.items()
                if t in part.time_index or t not in values
            }
        )
    return assemble_fields(area, source, values, expver, proofs)


def normalize_units(units: str) -> str:
    """Return `units` without the marks of exponents, which are written in several ways."""
    return " ".join(units.replace("**", "").replace("^", "").split())


def implausibility_reason(variable: Era5Variable, field: np.ndarray) -> str:
    """Return why `field` cannot be `variable` at one hour, or nothing."""
    if not np.isfinite(field).all():
        return f"{variable.name} has missing values"
    low, high = float(field.min()), float(field.max())
    if low < variable.lowest or high > variable.highest:
        return f"{variable.name} of {low:g} to {high:g} {variable.units} cannot be"
    return ""
