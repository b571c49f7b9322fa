"""Value types for ERA5 requests and fields, with CF time decoding and plausibility checks."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from hephaestus_build.core.era5_grid import ERA5_STEP, ERA5_VARIABLE_NAMES, Era5Area, Era5Variable
from hephaestus_build.core.plain_text import sanitize_text
from hephaestus_build.core.provenance import Receipt


def decode_cf_times(numbers: npt.NDArray[Any], units: str, calendar: str) -> list[datetime]:
    """Decode the numbers of a CF time axis.

    Parameters
    ----------
    numbers : np.ndarray
        Values of the axis.
    units, calendar : str
        Attributes of the axis, such as ``hours since 1900-01-01`` and ``standard``.

    Returns
    -------
    list of datetime
        UTC without a time zone, rounded to the second.

    Raises
    ------
    ValueError
        If a value is missing, or units or calendar cannot be interpreted.
    """
    import cftime

    if not np.isfinite(numbers).all() or max(len(units), len(calendar)) > 200:
        raise ValueError("its times cannot be read: values are missing, or the units are too long")
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
    """Days of one month at one hour of the day, which are needed and cached together.

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
        """The hours of the batch, sorted."""
        return tuple(datetime(self.year, self.month, day, self.hour) for day in self.days)


def group_into_batches(times: Iterable[datetime]) -> list[Era5Batch]:
    """Group `times` into batches, sorted.

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
        Available hours, UTC without a time zone, sorted.
    latitude : np.ndarray, shape (n,)
        Descending, degrees.
    longitude : np.ndarray, shape (m,)
        Ascending, degrees.
    values : np.ndarray, float32, shape (times, 3, n, m)
        In the order and units of :data:`ERA5_VARIABLES`.
    expver : tuple of str
        For each time ``0001`` (final), ``0005`` (preliminary, ERA5T) or ``unstated``.
    source : str
        ``cds`` or ``arco``.
    receipts_by_hour : mapping of datetime to tuple of Receipt
        Receipts of the requests for each hour, including requested hours that are not available.
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
        """Receipt of each request, once, without the value hashes of its hours."""
        found = [
            receipt.replace(values=None)
            for _, some in sorted(self.receipts_by_hour.items())
            for receipt in some
        ]
        return tuple(dict.fromkeys(found))

    @property
    def missing_hours(self) -> dict[datetime, Receipt]:
        """For each requested hour that is not available, the receipt that says why."""
        return {
            time: next((receipt for receipt in some if not receipt.ok), some[-1])
            for time, some in sorted(self.receipts_by_hour.items())
            if time not in self.time_index
        }

    def fields_at(self, time: datetime) -> npt.NDArray[Any]:
        """Return the three fields of one hour, shape (3, n, m); KeyError if it is not available."""
        return self.values[self.time_index[time]]

    def select(self, times: Iterable[datetime]) -> Era5Fields:
        """Return the fields and receipts of those of `times` that have any."""
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

    def crop(self, area: Era5Area) -> Era5Fields:
        """Return the fields on `area`, which lies within that of these fields, in the same turn."""
        top = round((float(self.latitude[0]) - area.north) / ERA5_STEP)
        left = round((area.west - float(self.longitude[0])) / ERA5_STEP)
        rows, columns = area.shape
        window = self.values[:, :, top : top + rows, left : left + columns]
        return replace(
            self, latitude=area.latitudes, longitude=area.longitudes, values=np.ascontiguousarray(window)
        )


def assemble_fields(
    area: Era5Area,
    source: str,
    values: Mapping[datetime, npt.NDArray[Any]],
    expver: Mapping[datetime, str],
    receipts: Mapping[datetime, tuple[Receipt, ...]],
) -> Era5Fields:
    """Assemble the fields of `area` from single hours, of which there may be none.

    Parameters
    ----------
    area : Era5Area
        Area of the fields.
    source : str
        ``cds`` or ``arco``.
    values : mapping of datetime to np.ndarray, shape (3, n, m)
        Fields of each available hour.
    expver : mapping of datetime to str
        Version of each available hour.
    receipts : mapping of datetime to tuple of Receipt
        Receipts of each requested hour.
    """
    times = tuple(sorted(values))
    stack = np.empty((len(times), len(ERA5_VARIABLE_NAMES), *area.shape), dtype=np.float32)
    for position, time in enumerate(times):
        stack[position] = values[time]
    versions = tuple(expver[time] for time in times)
    return Era5Fields(times, area.latitudes, area.longitudes, stack, versions, source, dict(receipts))


def merge_fields(area: Era5Area, source: str, parts: Sequence[Era5Fields]) -> Era5Fields:
    """Merge `parts`; for an hour in several of them, the last one is taken.

    Parameters
    ----------
    area : Era5Area
        Area of all parts.
    source : str
        ``cds`` or ``arco``.
    parts : sequence of Era5Fields
        Fields to merge.
    """
    values = {time: part.fields_at(time) for part in parts for time in part.times}
    expver = {time: version for part in parts for time, version in zip(part.times, part.expver, strict=True)}
    receipts: dict[datetime, tuple[Receipt, ...]] = {}
    for part in parts:
        # a failed request does not replace the receipts of an hour that another part has
        receipts.update(
            {
                t: proof
                for t, proof in part.receipts_by_hour.items()
                if t in part.time_index or t not in values
            }
        )
    return assemble_fields(area, source, values, expver, receipts)


def normalize_units(units: str) -> str:
    """Return `units` without exponent signs, which are written in several ways (``m**2``, ``m^2``)."""
    return " ".join(units.replace("**", "").replace("^", "").split())


def implausibility_reason(variable: Era5Variable, field: npt.NDArray[Any]) -> str:
    """Return why `field` is not a plausible field of `variable`; empty if it is."""
    if not np.isfinite(field).all():
        return f"{variable.name} has missing values"
    low, high = float(field.min()), float(field.max())
    if low < variable.lowest or high > variable.highest:
        return f"{variable.name} of {low:g} to {high:g} {variable.units} is implausible"
    return ""
