"""ERA5 from the ARCO-ERA5 Zarr store, over plain HTTP.

The store needs no key and has no queue, but each of its chunks holds one variable at one hour for the whole
globe. Only the chunks that are needed are fetched. They are cached as downloaded, because frames share hours.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime, time, timedelta
from pathlib import Path
from typing import Any

import numpy as np

from hephaestus_build.core.era5_grid import (
    ERA5_VARIABLE_NAMES,
    ERA5_VARIABLES,
    EXPVER_FINAL,
    EXPVER_PRELIMINARY,
    EXPVER_UNSTATED,
    Era5Area,
    Era5Variable,
)
from hephaestus_build.core.frames import Frame
from hephaestus_build.core.plain_text import sanitize_text
from hephaestus_build.core.provenance import Outcome, Receipt
from hephaestus_build.core.settings import Settings
from hephaestus_build.core.web_address import HttpUrl, parse_url_setting
from hephaestus_build.download.client import HttpClient
from hephaestus_build.sources.era5.fields import (
    Era5Batch,
    Era5Fields,
    assemble_fields,
    implausibility_reason,
    normalize_units,
)
from hephaestus_build.sources.era5.month_cache import CachedEra5Source, failed_fields
from hephaestus_build.sources.era5.remote_zarr import (
    RemoteArray,
    RemoteStoreError,
    decode_time_axis,
    open_remote_store,
)
from hephaestus_build.sources.era5.requests import Era5Cost

#: After this many hours in a row without an answer, the remaining hours are not requested.
_GIVE_UP_AFTER = 3
_GLOBE_BYTES = 721 * 1440 * 4  # of a chunk, before compression
_MAX_GRID_LINES = 100_000  # latitudes or longitudes of the globe; ERA5 has 1440 longitudes


class ArcoEra5Source(CachedEra5Source):
    """Source of ERA5 fields that reads the ARCO-ERA5 store.

    Parameters
    ----------
    settings : Settings
        Address of the store, cache folder and number of concurrent downloads.
    reason : str
        Why this source was chosen; shown in its description.
    """

    def __init__(self, settings: Settings, *, reason: str = "as the settings say") -> None:
        super().__init__(settings, "arco", parse_url_setting(settings.arco_url, "HEPHAESTUS_ARCO_URL"))
        self._settings = settings
        self._reason = reason

    @property
    def description(self) -> str:
        """Name of the source and why it was chosen, for messages."""
        return f"ARCO-ERA5 ({self.address.netloc}), {self._reason}"

    def estimate(self, area: Era5Area, times: Iterable[datetime]) -> Era5Cost:
        """Return what `times` cost: one chunk for each variable and hour, a globe whatever the area."""
        count = len(ERA5_VARIABLE_NAMES) * len(set(times))
        return Era5Cost(count, count * _GLOBE_BYTES)

    def _retrieve(
        self,
        frame: Frame,
        area: Era5Area,
        wanted: Sequence[Era5Batch],
        say: Callable[[str], None],
        *,
        only_final: bool,
    ) -> Iterator[Era5Fields]:
        with HttpClient(self._settings) as http:
            say("the ARCO-ERA5 store is opened")
            try:
                store = _ArcoStore(
                    http, self.address, self.folder, area, [t for batch in wanted for t in batch.times]
                )
            except RemoteStoreError as error:
                for batch in wanted:
                    receipt = Receipt("era5.store", error.outcome, self.url, detail=str(error))
                    yield failed_fields(area, self.name, batch.times, receipt)
                return
            pool = ThreadPoolExecutor(self._settings.connections_allowed, thread_name_prefix="arco")
            try:
                hours = {
                    moment: pool.submit(store.fetch_hour, moment)
                    for batch in wanted
                    for moment in batch.times
                }
                for batch in wanted:
                    results = {moment: hours[moment].result() for moment in batch.times}
                    here = {moment: hour for moment, hour in results.items() if hour.values is not None}
                    yield assemble_fields(
                        area,
                        self.name,
                        {moment: hour.values for moment, hour in here.items() if hour.values is not None},
                        {moment: hour.version for moment, hour in here.items()},
                        {moment: hour.receipts for moment, hour in results.items()},
                    )
            finally:
                pool.shutdown(wait=True, cancel_futures=True)


@dataclass(frozen=True)
class _HourResult:
    """Result of one hour: its fields, shape (3, n, m), or None with receipts that say why."""

    values: np.ndarray | None
    version: str
    receipts: tuple[Receipt, ...]


class _ArcoStore:
    """The opened store: positions of the requested hours and grid lines, and the range of valid times.

    Raises
    ------
    RemoteStoreError
        If the store cannot be reached or does not have the layout of ARCO-ERA5.
    """

    def __init__(
        self, http: HttpClient, address: HttpUrl, folder: Path, area: Era5Area, times: Sequence[datetime]
    ) -> None:
        self._http = http
        self._address, self._url = address, (url := str(address).rstrip("/"))
        self._folder = folder
        names = [variable.name for variable in ERA5_VARIABLES]
        attributes, self._arrays = open_remote_store(http, address, [*names, "time", "latitude", "longitude"])
        axes = [self._axis_length(name) for name in ("time", "latitude", "longitude")]
        for variable in ERA5_VARIABLES:
            if reason := _array_defect(variable, self._arrays[variable.name], axes):
                raise RemoteStoreError(Outcome.CORRUPT, f"{variable.name} in {url} {reason}")
        self._simulated = bool(attributes.get("simulated"))
        self._start = _parse_valid_time(attributes.get("valid_time_start"), time(0))
        self._stop = _parse_valid_time(attributes.get("valid_time_stop"), time(23))
        self._stop_preliminary = (
            _parse_valid_time(attributes.get("valid_time_stop_era5t"), time(23)) or self._stop
        )
        self._rows = self._locate_lines("latitude", area.latitudes)
        self._columns = self._locate_lines("longitude", area.longitudes)
        self._positions = self._locate_hours(times)
        self._unanswered_hours = 0
        self._lock = threading.Lock()

    def fetch_hour(self, moment: datetime) -> _HourResult:
        """Fetch the three variables of one hour; the receipts say why any of them is missing."""
        version = self._stated_version(moment)
        product = f"era5.{moment:%Y%m%dT%H}"
        position = self._positions.get(moment)
        if version is None or position is None:
            until = self._stop_preliminary or "an unknown hour"
            detail = f"ARCO-ERA5 holds hours from {self._start or 'an unknown hour'} to {until}; build later"
            return _HourResult(None, "", (Receipt(product, Outcome.ABSENT, self._url, detail=detail),))
        if self._unanswered_hours >= _GIVE_UP_AFTER:
            detail = f"not requested: no answer for {_GIVE_UP_AFTER} hours before it; build again later"
            return _HourResult(None, "", (Receipt(product, Outcome.UNREACHABLE, self._url, detail=detail),))
        planes, receipts = [], []
        for variable in ERA5_VARIABLES:
            receipt, plane = self._fetch_plane(variable, moment, position, version)
            receipts.append(receipt)
            if plane is None:
                break
            planes.append(plane)
        with self._lock:
            silent = receipts[-1].outcome is Outcome.UNREACHABLE
            self._unanswered_hours = self._unanswered_hours + 1 if silent else 0
        values = np.stack(planes) if len(planes) == len(ERA5_VARIABLES) else None
        return _HourResult(values, version, tuple(receipts))

    def _fetch_plane(
        self, variable: Era5Variable, moment: datetime, position: int, version: str
    ) -> tuple[Receipt, np.ndarray | None]:
        """Return one variable at one hour, cropped from the chunk that holds the whole globe."""
        array = self._arrays[variable.name]
        chunk, within = divmod(position, array.chunks[0])
        key = array.chunk_key((chunk, 0, 0))

        def read(path: Path) -> np.ndarray:
            globe = array.decode_chunk(path.read_bytes())[within]
            plane = np.ascontiguousarray(globe[np.ix_(self._rows, self._columns)], dtype=np.float32)
            if reason := implausibility_reason(variable, plane):
                raise ValueError(reason)
            return plane

        # preliminary chunks are cached apart from the final ones that replace them later
        target = self._folder / "chunks" / version / variable.name / str(chunk)
        product = f"era5.{moment:%Y%m%dT%H}.{variable.name}"
        receipt, plane = self._http.download(
            [self._address.child(f"{variable.name}/{key}").url_with_secrets],
            target,
            product=product,
            read=read,
            max_bytes=array.max_stored_bytes,
        )
        notes = ("cropped from the globe", *(("simulated",) if self._simulated else ()))
        return receipt.replace(notes=notes), plane

    def _stated_version(self, moment: datetime) -> str | None:
        """Return the version that the store's attributes state for an hour; None if outside their range."""
        if self._stop is None:
            return EXPVER_UNSTATED  # without a stated range, a missing hour shows when its chunk is fetched
        if self._start is not None and moment < self._start:
            return None
        if moment <= self._stop:
            return EXPVER_FINAL
        return EXPVER_PRELIMINARY if self._stop_preliminary and moment <= self._stop_preliminary else None

    def _axis_length(self, name: str) -> int:
        """Return the length of an axis."""
        array = self._arrays[name]
        if len(array.shape) != 1 or (name != "time" and array.chunks[0] > _MAX_GRID_LINES):
            raise RemoteStoreError(Outcome.CORRUPT, f"{name} in {self._url} is not an axis of a globe")
        return array.shape[0]

    def _locate_lines(self, name: str, wanted: np.ndarray) -> list[int]:
        """Return the index of each `wanted` grid line in the store; longitudes are compared modulo 360."""
        turn = 360_000 if name == "longitude" else 1 << 40
        array = self._arrays[name]
        axis = self._fetch_coordinate(array, 0)[: array.shape[0]]
        if not np.isfinite(axis).all():
            raise RemoteStoreError(Outcome.CORRUPT, f"the {name} axis of {self._url} has missing values")
        found = {round(float(degrees) * 1000) % turn: index for index, degrees in enumerate(axis)}
        try:
            return [found[round(float(degrees) * 1000) % turn] for degrees in wanted]
        except KeyError as error:
            raise RemoteStoreError(
                Outcome.CORRUPT, f"{self._url} has no {name} {int(error.args[0]) / 1000:g}"
            ) from None

    def _locate_hours(self, times: Sequence[datetime]) -> dict[datetime, int]:
        """Return the position of each hour on the time axis.

        1. Compute the expected position from the first two times of the axis, which give origin and step.
        2. Read the axis at that position and compare: an axis with gaps would yield a wrong hour silently.

        For example, on an hourly axis from 1900-01-01 00:00, 1900-01-02 03:00 is expected at position 27.
        Hours beyond the axis are left out.
        """
        array = self._arrays["time"]
        if min(array.shape[0], array.chunks[0]) < 2:
            raise RemoteStoreError(
                Outcome.CORRUPT, f"{self._url} has no time axis in chunks of several hours"
            )
        parts = {0: self._fetch_coordinate(array, 0)}
        first, second = decode_time_axis(array, parts[0][:2])
        step = second - first
        if step <= timedelta(0):
            raise RemoteStoreError(Outcome.CORRUPT, f"the time axis of {self._url} does not ascend")
        found: dict[datetime, int] = {}
        for moment in times:
            position, rest = divmod(moment - first, step)
            if rest or not 0 <= position < array.shape[0]:
                continue
            chunk, within = divmod(position, array.chunks[0])
            if chunk not in parts:
                parts[chunk] = self._fetch_coordinate(array, chunk)
            if decode_time_axis(array, parts[chunk][within : within + 1]) != [moment]:
                raise RemoteStoreError(Outcome.CORRUPT, f"the time axis of {self._url} has gaps")
            found[moment] = position
        return found

    def _fetch_coordinate(self, array: RemoteArray, chunk: int) -> np.ndarray:
        """Return one chunk of a coordinate; a cached copy is revalidated with the store."""
        key = array.chunk_key((chunk,))
        receipt, values = self._http.download(
            [self._address.child(f"{array.name}/{key}").url_with_secrets],
            self._folder / "axes" / array.name / f"{chunk}",
            product=f"era5.{array.name}.{chunk}",
            read=lambda path: array.decode_chunk(path.read_bytes()),
            revalidate=True,
            max_bytes=array.max_stored_bytes,
        )
        if values is None:
            raise RemoteStoreError(receipt.outcome, f"the {array.name} axis of {self._url}: {receipt.detail}")
        return values


def _array_defect(variable: Era5Variable, array: RemoteArray, axes: Sequence[int]) -> str:
    """Return why an array cannot be `variable` over axes of these lengths; empty if it can."""
    if len(array.shape) != 3 or array.shape[1:] != array.chunks[1:]:
        return "is not in chunks of whole globes"
    if list(array.shape) != list(axes):
        return f"is of shape {array.shape}, its axes of {tuple(axes)}"
    units = array.attributes.get("units", variable.units)
    if not isinstance(units, str) or normalize_units(units) != normalize_units(variable.units):
        return f"is in {sanitize_text(repr(units), 40)}, not in {variable.units!r}"
    if (array.attributes.get("scale_factor", 1), array.attributes.get("add_offset", 0)) != (1, 0):
        return "holds packed numbers"  # ARCO-ERA5 does not
    return ""


def _parse_valid_time(text: Any, hour: time) -> datetime | None:
    """Return one end of the valid times; a date without a time gets `hour`. None if unreadable."""
    if not isinstance(text, str):
        return None
    try:
        edge = datetime.fromisoformat(text.strip().removesuffix("Z")).replace(tzinfo=None)
    except ValueError:
        return None
    return datetime.combine(edge.date(), hour) if len(text.strip()) <= len("2021-01-01") else edge
