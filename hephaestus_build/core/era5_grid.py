"""ERA5's variables, its grid, and the ERA5 hour of an acquisition."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Any

import numpy as np
import numpy.typing as npt

from hephaestus_build.core.bounds import wrap_longitude
from hephaestus_build.core.grid import Grid

#: Grid spacing of ERA5 in both archives, degrees.
ERA5_STEP = 0.25


#: GRIB ``expver`` of final ERA5, and of preliminary ERA5T, which it replaces after about three months.
EXPVER_FINAL, EXPVER_PRELIMINARY = "0001", "0005"


#: Stands for the ``expver`` of data that does not state it.
EXPVER_UNSTATED = "unstated"


#: Stands for it where the fields were imported from a published cube, which states neither hour nor version.
EXPVER_PUBLISHED = "published"


_CLOCK_TIME = re.compile(
    r"(?:([+-]?\d{1,9}) days?,? ?)?(\d{1,2}) ?: ?([0-5]\d)(?: ?: ?([0-5]\d)(?:[.,](\d+))?)? ?(?:Z|UTC)?",
    re.ASCII | re.IGNORECASE,
)
_SECONDS_OF_DAY = re.compile(r"(\d{1,6})(?:[.,](\d+))? ?(s|sec|seconds)?", re.ASCII | re.IGNORECASE)
_PACKED_CLOCK_TIME = re.compile(r"([01]?\d|2[0-4])([0-5]\d)(?:([0-5]\d))?", re.ASCII)


@dataclass(frozen=True)
class Era5Variable:
    """One ERA5 variable, with its names and its valid range.

    Attributes
    ----------
    name : str
        Name in the CDS and in the cube.
    grib_param : int
        GRIB parameter id.
    aliases : tuple of str
        Names used in netCDF files.
    long_name : str
        As in GRIB tables.
    units : str
        As in GRIB tables.
    lowest, highest : float
        Valid range, with a wide margin around all analysed values.
    """

    name: str
    grib_param: int
    aliases: tuple[str, ...]
    long_name: str
    units: str
    lowest: float
    highest: float


ERA5_VARIABLES = (
    Era5Variable(
        "total_column_water_vapour",
        137,
        ("tcwv",),
        "Total column vertically-integrated water vapour",
        "kg m**-2",
        -2.0,
        150.0,
    ),
    Era5Variable("surface_pressure", 134, ("sp",), "Surface pressure", "Pa", 20_000.0, 120_000.0),
    Era5Variable(
        "vertical_integral_of_temperature",
        162054,
        ("vit", "p54.162", "p54_162", "p162054"),
        "Vertical integral of temperature",
        "K kg m**-2",
        2e5,
        4e6,
    ),
)


#: The three variables, in their order along the first axis of arrays of fields.
ERA5_VARIABLE_NAMES = tuple(variable.name for variable in ERA5_VARIABLES)


@dataclass(frozen=True)
class Era5Area:
    """A rectangle whose edges are lines of ERA5's grid.

    Parameters
    ----------
    north, west, south, east : float
        Degrees, multiples of 0.25. West is less than east: an area across 180 degrees goes beyond it, or
        begins before -180.
    """

    north: float
    west: float
    south: float
    east: float

    def __post_init__(self) -> None:
        edges = self.north, self.west, self.south, self.east
        if any(edge * 4 != round(edge * 4) for edge in edges):
            raise ValueError(f"edges of an area must be multiples of {ERA5_STEP}, got {edges}")
        around = -360 <= self.west < self.east <= 360 and self.east - self.west <= 360
        if not (-90 <= self.south < self.north <= 90 and around):
            raise ValueError(f"not north, west, south, east of a rectangle: {edges}")

    @property
    def cds_bounds(self) -> tuple[float, float, float, float]:
        """North, west, south and east edges, in the order and form of CDS requests.

        Longitudes lie between -180 and 180; those of an area across 180 degrees have west greater than east.
        """
        return self.north, wrap_longitude(self.west), self.south, wrap_longitude(self.east)

    @property
    def latitudes(self) -> npt.NDArray[Any]:
        """Grid lines from north to south, degrees."""
        return self.north - ERA5_STEP * np.arange(round((self.north - self.south) / ERA5_STEP) + 1)

    @property
    def longitudes(self) -> npt.NDArray[Any]:
        """Grid lines from west to east, degrees."""
        return self.west + ERA5_STEP * np.arange(round((self.east - self.west) / ERA5_STEP) + 1)

    @property
    def shape(self) -> tuple[int, int]:
        """Number of latitudes and longitudes."""
        return self.latitudes.size, self.longitudes.size

    def contains(self, other: Era5Area) -> bool:
        """Return whether all grid points of another area, in the same turn, are in this one."""
        return (
            self.south <= other.south
            and other.north <= self.north
            and self.west <= other.west
            and other.east <= self.east
        )

    def __str__(self) -> str:
        return f"N{self.north:g}_W{self.west:g}_S{self.south:g}_E{self.east:g}"


def era5_area_around(grid: Grid) -> Era5Area:
    """Return the ERA5 area that covers `grid` with a margin of at least one ERA5 cell.

    The area ends at the poles. It ends at 180 degrees too, without a margin, unless the grid crosses them.

    Parameters
    ----------
    grid : Grid
        In its first turn (:meth:`~hephaestus_build.core.grid.Grid.in_first_turn`).

    Raises
    ------
    ValueError
        If a pixel centre lies beyond a pole, or more than a turn away from longitude 0.
    """
    north, south = float(grid.latitudes[0]), float(grid.latitudes[-1])
    west, east = float(grid.longitudes[0]), float(grid.longitudes[-1])
    if not (-90 <= south <= north <= 90 and -359 <= west <= east <= 359):
        raise ValueError(
            f"the grid reaches beyond a pole or a turn: {north:.4f} N, {west:.4f} E to {south:.4f} N, "
            f"{east:.4f} E"
        )
    end = 180.0 if west >= -180 and east <= 180 else 360.0
    return Era5Area(
        min(90.0, math.ceil(north / ERA5_STEP + 1) * ERA5_STEP),
        max(-end, math.floor(west / ERA5_STEP - 1) * ERA5_STEP),
        max(-90.0, math.floor(south / ERA5_STEP - 1) * ERA5_STEP),
        min(end, math.ceil(east / ERA5_STEP + 1) * ERA5_STEP),
    )


def parse_center_time(text: str) -> timedelta:
    """Parse the acquisition time of LiCSAR's ``metadata.txt``, such as ``5:03:37.608476``.

    LiCSAR writes Python's ``str(timedelta)``: hours without a leading zero, no fraction when the seconds
    are whole, and ``1 day, 0:00:12`` past midnight. Other forms with a single meaning are taken too:
    ``24:00:01`` (past midnight), ``5:03``, a comma before the fraction, blanks, ``Z`` or ``UTC`` at the end,
    and seconds after midnight (``18217.6``), unless the number could be hours and minutes without a colon.

    Examples
    --------
    >>> parse_center_time("24:00:01") == parse_center_time("1 day, 0:00:01")
    True

    Raises
    ------
    ValueError
        If `text` has none of these forms.
    """
    text = " ".join(text.split())
    if (match := _CLOCK_TIME.fullmatch(text)) is not None:
        days, hours, minutes, seconds = (int(group or 0) for group in match.groups()[:4])
        if abs(days) <= 1 and (hours < 24 or (hours == 24 and match[1] is None)):
            return timedelta(days, seconds, _microseconds(match[5]), 0, minutes, hours)
    elif (
        (match := _SECONDS_OF_DAY.fullmatch(text)) is not None
        and int(match[1]) < 2 * 86400
        and (match[3] or not _PACKED_CLOCK_TIME.fullmatch(match[1]))
    ):
        return timedelta(seconds=int(match[1]), microseconds=_microseconds(match[2]))
    raise ValueError(f"center_time {text!r} is not a time of day: expected the form 5:03:37.608476")


def _microseconds(decimals: str | None) -> int:
    """Return the decimals of a number of seconds as microseconds, cut."""
    return int((decimals or "")[:6].ljust(6, "0"))


def nearest_era5_hour(day: date, center_time: timedelta) -> datetime:
    """Return the full hour (UTC) nearest to `center_time` on `day`, with half hours rounded up.

    The result may be on the next day: an acquisition at 23:42 is rounded to 00:00.
    """
    moment = datetime(day.year, day.month, day.day) + center_time + timedelta(minutes=30)
    return moment.replace(minute=0, second=0, microsecond=0)
