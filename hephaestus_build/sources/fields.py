"""ERA5 fields as value types: where, when, what, and the limits of what can be true."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from functools import cached_property

import numpy as np

from hephaestus_build.grid import Grid
from hephaestus_build.plain_text import plain_text
from hephaestus_build.sources.receipt import Receipt

#: Spacing of ERA5's grid as both archives hand it out, degrees.
STEP = 0.25
#: Fields of final ERA5, and of the first issue (ERA5T) that it replaces after about three months.
FINAL, PRELIMINARY = "0001", "0005"
#: An answer that does not say which of the two it holds.
UNSTATED = "unstated"

_CENTER_TIME = re.compile(r"(?:(-?\d+) days?, )?(\d{1,2}):([0-5]\d):([0-5]\d)(?:\.(\d{1,6}))?")


@dataclass(frozen=True)
class Variable:
    """One ERA5 variable and the names it travels under.

    Attributes
    ----------
    name : str
        The CDS's long name; also the cube's.
    param : int
        GRIB parameter id.
    aliases : tuple of str
        Names that netCDF answers have used.
    long_name : str
        As in GRIB tables.
    units : str
        As in GRIB tables.
    lowest, highest : float
        Limits beyond which a value is a mistake, wide of anything ever analysed.
    """

    name: str
    param: int
    aliases: tuple[str, ...]
    long_name: str
    units: str
    lowest: float
    highest: float


CATALOGUE = (
    Variable(
        "total_column_water_vapour",
        137,
        ("tcwv",),
        "Total column vertically-integrated water vapour",
        "kg m**-2",
        -2.0,
        150.0,
    ),
    Variable("surface_pressure", 134, ("sp",), "Surface pressure", "Pa", 20_000.0, 120_000.0),
    Variable(
        "vertical_integral_of_temperature",
        162054,
        ("vit", "p54.162", "p54_162", "p162054"),
        "Vertical integral of temperature",
        "K kg m**-2",
        2e5,
        4e6,
    ),
)
#: The three variables in the order of every array of fields.
VARIABLES = tuple(variable.name for variable in CATALOGUE)


@dataclass(frozen=True)
class Area:
    """A rectangle whose edges are lines of ERA5's grid, within 180 degrees east and west.

    Parameters
    ----------
    north, west, south, east : float
        Degrees, multiples of 0.25.
    """

    north: float
    west: float
    south: float
    east: float

    def __post_init__(self) -> None:
        if any(edge * 4 != round(edge * 4) for edge in self.bounds):
            raise ValueError(f"the edges of an area are multiples of {STEP}, got {self.bounds}")
        if not (-90 <= self.south < self.north <= 90 and -180 <= self.west < self.east <= 180):
            raise ValueError(f"not north, west, south, east of a rectangle: {self.bounds}")

    @property
    def bounds(self) -> tuple[float, float, float, float]:
        """North, west, south and east, the order in which the CDS wants them."""
        return self.north, self.west, self.south, self.east

    @property
    def latitudes(self) -> np.ndarray:
        """Grid lines from north to south, degrees."""
        return self.north - STEP * np.arange(round((self.north - self.south) / STEP) + 1)

    @property
    def longitudes(self) -> np.ndarray:
        """Grid lines from west to east, degrees."""
        return self.west + STEP * np.arange(round((self.east - self.west) / STEP) + 1)

    @property
    def shape(self) -> tuple[int, int]:
        """Number of latitudes and longitudes."""
        return self.latitudes.size, self.longitudes.size

    def __str__(self) -> str:
        return f"N{self.north:g}_W{self.west:g}_S{self.south:g}_E{self.east:g}"


def area_of(grid: Grid) -> Area:
    """Return the area with at least one cell of margin beyond every pixel centre of `grid`.

    It is clipped at the poles and at 180 degrees east and west, so that plain north, west, south and
    east describe it; no LiCSAR frame crosses the antimeridian.

    Raises
    ------
    ValueError
        If a pixel centre lies beyond 180 degrees or a pole.
    """
    north, south = float(grid.latitudes[0]), float(grid.latitudes[-1])
    west, east = float(grid.longitudes[0]), float(grid.longitudes[-1])
    if not (-90 <= south <= north <= 90 and -180 <= west <= east <= 180):
        raise ValueError(
            f"the grid reaches beyond 180 degrees or a pole: {north:.4f} N, {west:.4f} E to {south:.4f} N, "
            f"{east:.4f} E"
        )
    return Area(
        min(90.0, math.ceil(north / STEP + 1) * STEP),
        max(-180.0, math.floor(west / STEP - 1) * STEP),
        max(-90.0, math.floor(south / STEP - 1) * STEP),
        min(180.0, math.ceil(east / STEP + 1) * STEP),
    )


def parse_center_time(text: str) -> timedelta:
    """Return the time of day that LiCSAR's ``metadata.txt`` writes, such as ``5:03:37.608476``.

    LiCSAR writes Python's ``str(timedelta)``: hours without a leading zero, no fraction when the seconds
    are whole, and ``1 day, 0:00:12`` past midnight.

    Raises
    ------
    ValueError
        If `text` is no such time.
    """
    match = _CENTER_TIME.fullmatch(text.strip())
    if match is None or int(match[2]) > 23 or match[1] not in (None, "0", "1", "-1"):
        raise ValueError(f"center_time {text!r} is no time of day: expected the form 5:03:37.608476")
    days, hours, minutes, seconds = (int(group or 0) for group in match.groups()[:4])
    fraction = int((match[5] or "").ljust(6, "0"))
    return timedelta(days=days, hours=hours, minutes=minutes, seconds=seconds, microseconds=fraction)


def nearest_hour(day: date, center_time: timedelta) -> datetime:
    """Return the whole hour (UTC) nearest to `center_time` of `day`; half past belongs to the next hour.

    The hour may lie on the next day: an acquisition at 23:42 belongs to 00:00 of the day after.
    """
    moment = datetime(day.year, day.month, day.day) + center_time + timedelta(minutes=30)
    return moment.replace(minute=0, second=0, microsecond=0)


def decode_times(numbers: np.ndarray, units: str, calendar: str) -> list[datetime]:
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
        raise ValueError(f"its times cannot be read: {plain_text(error, 200)}") from None


@dataclass(frozen=True, order=True)
class Batch:
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


def batches(times: Iterable[datetime]) -> list[Batch]:
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
    return sorted(Batch(*key, tuple(sorted(found))) for key, found in days.items())


@dataclass(frozen=True)
class Fields:
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
        In the order of :data:`VARIABLES`, in their units.
    expver : tuple of str
        For each time ``0001`` (final), ``0005`` (preliminary, ERA5T) or ``unstated``.
    source : str
        ``cds`` or ``arco``.
    proofs : mapping of datetime to tuple of Receipt
        What was asked for each hour and how it ended, also for the hours that are not here.
    """

    times: tuple[datetime, ...]
    latitude: np.ndarray
    longitude: np.ndarray
    values: np.ndarray
    expver: tuple[str, ...]
    source: str
    proofs: Mapping[datetime, tuple[Receipt, ...]]

    @cached_property
    def index(self) -> dict[datetime, int]:
        """Position of each time."""
        return {time: position for position, time in enumerate(self.times)}

    @property
    def receipts(self) -> tuple[Receipt, ...]:
        """Every request's receipt, once: without the seals of the hours, of which a request has many."""
        found = [receipt.but(values=None) for _, some in sorted(self.proofs.items()) for receipt in some]
        return tuple(dict.fromkeys(found))

    @property
    def owed(self) -> dict[datetime, Receipt]:
        """For each hour that was asked for and is not here, the receipt that says why."""
        return {
            time: next((receipt for receipt in some if not receipt.ok), some[-1])
            for time, some in sorted(self.proofs.items())
            if time not in self.index
        }

    def at(self, time: datetime) -> np.ndarray:
        """Return the three fields of one hour, shape (3, n, m); KeyError if it is not here."""
        return self.values[self.index[time]]

    def select(self, times: Iterable[datetime]) -> Fields:
        """Return the same with only those of `times` that are here or have a proof."""
        wanted = set(times)
        kept = [position for position, time in enumerate(self.times) if time in wanted]
        return Fields(
            tuple(self.times[position] for position in kept),
            self.latitude,
            self.longitude,
            self.values[kept],
            tuple(self.expver[position] for position in kept),
            self.source,
            {time: proof for time, proof in self.proofs.items() if time in wanted},
        )


def assemble(
    area: Area,
    source: str,
    values: Mapping[datetime, np.ndarray],
    expver: Mapping[datetime, str],
    proofs: Mapping[datetime, tuple[Receipt, ...]],
) -> Fields:
    """Return fields of `area` from each hour's values, shape (3, n, m), and version; possibly of no hour."""
    times = tuple(sorted(values))
    stack = np.empty((len(times), len(VARIABLES), *area.shape), dtype=np.float32)
    for position, time in enumerate(times):
        stack[position] = values[time]
    versions = tuple(expver[time] for time in times)
    return Fields(times, area.latitudes, area.longitudes, stack, versions, source, dict(proofs))


def merge(area: Area, source: str, parts: Sequence[Fields]) -> Fields:
    """Return all of `parts` as one; of an hour that several hold, the last one's."""
    values = {time: part.at(time) for part in parts for time in part.times}
    expver = {time: version for part in parts for time, version in zip(part.times, part.expver, strict=True)}
    proofs: dict[datetime, tuple[Receipt, ...]] = {}
    for part in parts:
        # a failure does not hide the proof of an hour that another part holds
        proofs.update({t: proof for t, proof in part.proofs.items() if t in part.index or t not in values})
    return assemble(area, source, values, expver, proofs)


def plain_units(units: str) -> str:
    """Return `units` without the marks of exponents, which are written in several ways."""
    return " ".join(units.replace("**", "").replace("^", "").split())


def implausible(variable: Variable, field: np.ndarray) -> str:
    """Return why `field` cannot be `variable` at one hour, or nothing."""
    if not np.isfinite(field).all():
        return f"{variable.name} has missing values"
    low, high = float(field.min()), float(field.max())
    if low < variable.lowest or high > variable.highest:
        return f"{variable.name} of {low:g} to {high:g} {variable.units} cannot be"
    return ""
