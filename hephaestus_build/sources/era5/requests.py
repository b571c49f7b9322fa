"""Which requests the CDS is sent for the hours that a frame needs: pure functions, and what they cost."""

from __future__ import annotations

from calendar import monthrange
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Any

from hephaestus_build.core.era5_grid import ERA5_VARIABLE_NAMES, Era5Area
from hephaestus_build.sources.era5.fields import Era5Batch
from hephaestus_build.sources.era5.tiles import era5_tile_hours

#: Days after the end of a month from which the whole of it is asked for; ERA5 is about five days late.
WHOLE_AFTER = timedelta(days=8)
#: Bytes of a packed value, in the CDS's own GRIB.
_PACKED_BYTES = 2
_VARIABLES = len(ERA5_VARIABLE_NAMES)


@dataclass(frozen=True)
class Era5Request:
    """Days and hours of one month, of which a request to the CDS takes every combination.

    Attributes
    ----------
    year, month : int
        UTC.
    days, hours : tuple of int
        Sorted.
    """

    year: int
    month: int
    days: tuple[int, ...]
    hours: tuple[int, ...]

    @property
    def name(self) -> str:
        """The month, and the hour where there is but one, such as ``201806T12``."""
        hour = f"T{self.hours[0]:02d}" if len(self.hours) == 1 else ""
        return f"{self.year:04d}{self.month:02d}{hour}"

    @property
    def times(self) -> tuple[datetime, ...]:
        """The hours of the request, sorted."""
        return tuple(datetime(self.year, self.month, day, hour) for day in self.days for hour in self.hours)

    @property
    def fields(self) -> int:
        """Number of fields, which the CDS limits."""
        return _VARIABLES * len(self.days) * len(self.hours)

    def inputs(self, area: Era5Area) -> dict[str, Any]:
        """Return the inputs of the request for `area`, in the keys of *ERA5 hourly data on single levels*."""
        return {
            "product_type": ["reanalysis"],
            "variable": list(ERA5_VARIABLE_NAMES),
            "year": [f"{self.year:04d}"],
            "month": [f"{self.month:02d}"],
            "day": [f"{day:02d}" for day in self.days],
            "time": [f"{hour:02d}:00" for hour in self.hours],
            "data_format": "netcdf",
            "download_format": "unarchived",
            "area": list(area.cds_bounds),
        }


@dataclass(frozen=True)
class Era5Cost:
    """What the atmosphere of some hours costs.

    Attributes
    ----------
    requests : int
        Number of requests.
    bytes : int
        Size of the values as the archive packs them; files are smaller where they are compressed, and larger
        where numbers are unpacked.
    """

    requests: int
    bytes: int


def frame_requests(batches: Iterable[Era5Batch], limit: int) -> list[Era5Request]:
    """Return the requests for exactly the hours of `batches`: one for each, or more where `limit` is less.

    Parameters
    ----------
    batches : iterable of Era5Batch
        Hours that are needed.
    limit : int
        Largest number of fields of a request.
    """
    return [
        Era5Request(batch.year, batch.month, days, (batch.hour,))
        for batch in batches
        for days in _chunk(batch.days, limit // _VARIABLES)
    ]


def tile_requests(tile: Era5Area, batches: Iterable[Era5Batch], today: date, limit: int) -> list[Era5Request]:
    """Return the requests of a tile that have the hours of `batches`, the same for all frames of the tile.

    Of a month that is complete, they take all days, at the hours at which the satellites pass the tile;
    another hour is a request of its own. Of a month that is not, they take what is needed.

    Parameters
    ----------
    tile : Era5Area
        The tile.
    batches : iterable of Era5Batch
        Hours that are needed.
    today : datetime.date
        Decides which months are complete.
    limit : int
        Largest number of fields of a request.
    """
    found: dict[Era5Request, None] = {}
    usual = era5_tile_hours(tile)
    for batch in batches:
        length = monthrange(batch.year, batch.month)[1]
        if date(batch.year, batch.month, length) + WHOLE_AFTER > today:
            found |= dict.fromkeys(frame_requests([batch], limit))
            continue
        for days in _chunk(range(1, length + 1), limit // _VARIABLES):
            groups = _chunk(usual, limit // (_VARIABLES * len(days)))
            hours = next((group for group in groups if batch.hour in group), (batch.hour,))
            if not set(days).isdisjoint(batch.days):
                found[Era5Request(batch.year, batch.month, days, hours)] = None
    return list(found)


def requests_cost(requests: Iterable[Era5Request], area: Era5Area) -> Era5Cost:
    """Return what requests for an area cost."""
    fields = [request.fields for request in requests]
    rows, columns = area.shape
    return Era5Cost(len(fields), sum(fields) * rows * columns * _PACKED_BYTES)


def _chunk(items: Sequence[int], size: int) -> list[tuple[int, ...]]:
    """Return `items` in runs of at most `size`, which are about equally long."""
    count = -(-len(items) // max(1, size))
    each = -(-len(items) // count) if count else 1
    return [tuple(items[start : start + each]) for start in range(0, len(items), each)]
