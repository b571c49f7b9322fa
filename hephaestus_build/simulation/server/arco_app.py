"""Simulated ARCO-ERA5 store: Zarr format 2 over plain HTTP, with chunks computed on request.

Values are computed around the simulated frames alone, since a globe takes seconds; the store's attributes
``simulated_areas`` and ``comment`` say where, and the rest of the globe is NaN.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from typing import Any

import numpy as np
from cachetools import LRUCache
from numcodecs import Blosc

from hephaestus_build.core.concurrency import SharedCache
from hephaestus_build.core.era5_grid import ERA5_STEP, ERA5_VARIABLE_NAMES, ERA5_VARIABLES, Era5Area
from hephaestus_build.simulation.server.cds_app import FINAL_LAG, PRELIMINARY_LAG, FieldProvider
from hephaestus_build.simulation.server.cds_catalogue import FIRST_DATE
from hephaestus_build.simulation.server.http_server import HttpRequest, HttpResponse, json_response

STORE_NAME = "full_37-1h-0p25deg-chunk-1.zarr-v3"  # the real store's name; its format is 2 nevertheless
ARCO_PREFIX = f"/arco/{STORE_NAME}"

#: Time axis of the real store, which extends far beyond the hours with data.
_FIRST_HOUR, _LAST_HOUR = datetime(1900, 1, 1), datetime(2050, 12, 31, 23)
_HOUR = timedelta(hours=1)
_TIME_CHUNK = 1 << 16
_MAX_HOURS_KEPT = 16
_LATITUDES = 90.0 - ERA5_STEP * np.arange(721)
_LONGITUDES = ERA5_STEP * np.arange(1440)
_CODEC = Blosc(cname="lz4", clevel=5, shuffle=Blosc.SHUFFLE)


@dataclass
class ArcoApp:
    """The store as an app of a :class:`~hephaestus_build.simulation.server.http_server.LoopbackServer`.

    Attributes
    ----------
    fields : callable
        Function that returns the ERA5 fields of one hour; see `FieldProvider`.
    valid_start, valid_stop, valid_stop_era5t : datetime.date
        First date with data, last date of final data, last date of preliminary data; by default with the lag
        of the real store.
    areas : tuple of Era5Area
        Areas to compute; the rest of the globe is NaN. If empty, the whole globe is computed, which is slow.
        The store's attributes name them.
    missing_variables : frozenset of str
        Variables that the store does not have.
    encoded_hours : SharedCache
        Encoded fields of the hours requested last.
    globes_computed : int
        Number of hours computed so far.
    """

    fields: FieldProvider
    valid_start: date = FIRST_DATE
    valid_stop: date = field(default_factory=lambda: datetime.now(UTC).date() - FINAL_LAG)
    valid_stop_era5t: date = field(default_factory=lambda: datetime.now(UTC).date() - PRELIMINARY_LAG)
    areas: tuple[Era5Area, ...] = ()
    missing_variables: frozenset[str] = frozenset()
    globes_computed: int = 0
    encoded_hours: SharedCache[int, list[bytes]] = field(
        default_factory=lambda: SharedCache(LRUCache(_MAX_HOURS_KEPT)), repr=False
    )

    def reset(self) -> None:
        """Let the store have every variable."""
        self.missing_variables = frozenset()

    def __call__(self, request: HttpRequest) -> HttpResponse | None:
        """Return the response to a request, or None if there is no such object (or chunk)."""
        if request.method != "GET" or not request.path.startswith(f"{ARCO_PREFIX}/"):
            return None
        key = request.path.removeprefix(f"{ARCO_PREFIX}/")
        metadata = self._metadata()
        if key == ".zmetadata":
            return json_response({"metadata": metadata, "zarr_consolidated_format": 1})
        if key in metadata:
            return json_response(metadata[key])
        name, _, chunk = key.partition("/")
        content = self._coordinate(name, chunk) if name in _COORDINATES else self._chunk(name, chunk)
        return None if content is None else HttpResponse(200, content)

    def _metadata(self) -> dict[str, Any]:
        found: dict[str, Any] = {
            ".zgroup": {"zarr_format": 2},
            ".zattrs": {
                "valid_time_start": self.valid_start.isoformat(),
                "valid_time_stop": self.valid_stop.isoformat(),
                "valid_time_stop_era5t": self.valid_stop_era5t.isoformat(),
                "last_updated": f"{self.valid_stop_era5t.isoformat()} 00:00:00+00:00",
                "simulated": "true",
                **self._limits(),
            },
        }
        for name, (axis, attributes) in _COORDINATES.items():
            found[f"{name}/.zarray"] = _array(
                axis.shape, (min(axis.size, _TIME_CHUNK),), axis.dtype.str, None
            )
            found[f"{name}/.zattrs"] = {"_ARRAY_DIMENSIONS": [name], **attributes}
        shape = tuple(axis.size for axis, _ in _COORDINATES.values())
        for variable in ERA5_VARIABLES:
            if variable.name not in self.missing_variables:
                found[f"{variable.name}/.zarray"] = _array(shape, (1, *shape[1:]), "<f4", "NaN")
                found[f"{variable.name}/.zattrs"] = {
                    "_ARRAY_DIMENSIONS": list(_COORDINATES),
                    "long_name": variable.long_name,
                    "short_name": variable.aliases[0],
                    "units": variable.units,
                }
        return found

    def _limits(self) -> dict[str, Any]:
        """Return the attributes that say where the store has values, if that is not everywhere."""
        if not self.areas:
            return {}
        return {
            "comment": "Simulated fields. Values are computed in simulated_areas alone (each as north, west, "
            "south, east, in degrees); elsewhere they are NaN.",
            "simulated_areas": [list(area.cds_bounds) for area in self.areas],
        }

    def _coordinate(self, name: str, chunk: str) -> bytes | None:
        axis = _COORDINATES[name][0]
        if not chunk.isdecimal() or int(chunk) * _TIME_CHUNK >= axis.size:
            return None
        part = axis[int(chunk) * _TIME_CHUNK :][:_TIME_CHUNK]
        length = min(axis.size, _TIME_CHUNK)  # format 2 pads the last chunk to full size
        return bytes(_CODEC.encode(np.pad(part, (0, length - part.size))))

    def _chunk(self, name: str, chunk: str) -> bytes | None:
        position = chunk.split(".")
        if name not in ERA5_VARIABLE_NAMES or name in self.missing_variables or position[1:] != ["0", "0"]:
            return None
        if not position[0].isdecimal():
            return None
        index = int(position[0])
        if not self.valid_start <= (_FIRST_HOUR + index * _HOUR).date() <= self.valid_stop_era5t:
            return None
        # clients request the three variables at once; they are computed together
        fields = self.encoded_hours.get_or_compute(
            index, lambda: [bytes(_CODEC.encode(plane)) for plane in self._globe(index)]
        )
        return fields[ERA5_VARIABLE_NAMES.index(name)]

    def _globe(self, index: int) -> np.ndarray:
        self.globes_computed += 1
        time = _FIRST_HOUR + index * _HOUR
        if not self.areas:
            return np.ascontiguousarray(self.fields(time, _LATITUDES, _LONGITUDES), dtype=np.float32)
        globe = np.full(
            (len(ERA5_VARIABLE_NAMES), _LATITUDES.size, _LONGITUDES.size), np.nan, dtype=np.float32
        )
        for area in self.areas:
            rows = np.round((90.0 - area.latitudes) / ERA5_STEP).astype(int)
            columns = np.round(area.longitudes % 360 / ERA5_STEP).astype(int)
            globe[:, rows[:, None], columns] = self.fields(time, area.latitudes, area.longitudes)
        return globe


_COORDINATES: dict[str, tuple[np.ndarray, dict[str, str]]] = {
    "time": (
        np.arange((_LAST_HOUR - _FIRST_HOUR) // _HOUR + 1, dtype="<i8"),
        {"units": "hours since 1900-01-01", "calendar": "proleptic_gregorian"},
    ),
    "latitude": (_LATITUDES.astype("<f4"), {"units": "degrees_north", "long_name": "latitude"}),
    "longitude": (_LONGITUDES.astype("<f4"), {"units": "degrees_east", "long_name": "longitude"}),
}


def _array(shape: tuple[int, ...], chunks: tuple[int, ...], dtype: str, fill: str | None) -> dict[str, Any]:
    return {
        "zarr_format": 2,
        "shape": list(shape),
        "chunks": list(chunks),
        "dtype": dtype,
        "compressor": _CODEC.get_config(),
        "fill_value": fill,
        "filters": None,
        "order": "C",
    }
