"""Monthly cache of ERA5 fields, and the base class of the sources that use it.

The files are small and may be deleted at any time: missing or damaged hours are requested again.
"""

from __future__ import annotations

import io
import json
import logging
import re
import zipfile
import zlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import datetime
from pathlib import Path

import msgspec
import numpy as np

from hephaestus_build.core.atomic_io import hash_bytes, write_atomic
from hephaestus_build.core.era5_grid import ERA5_VARIABLE_NAMES, EXPVER_FINAL, Era5Area
from hephaestus_build.core.frames import Frame
from hephaestus_build.core.plain_text import count_of
from hephaestus_build.core.provenance import Outcome, Receipt
from hephaestus_build.core.settings import Settings
from hephaestus_build.core.web_address import HttpUrl
from hephaestus_build.download.cache_files import VanishedError, open_plain, translate_cache_errors
from hephaestus_build.sources.era5.fields import (
    Era5Batch,
    Era5Fields,
    assemble_fields,
    group_into_batches,
    merge_fields,
)

log = logging.getLogger(__name__)

#: Progress callback: hours done, hours requested, and a message.
HourProgress = Callable[[int, int, str], None]
#: Cached receipts of a month, one tuple for each hour.
_ReceiptsPerHour = list[tuple[Receipt, ...]]


class MonthCache:
    """Cache of one source's fields on disk, one file for each area, month and hour of the day.

    Parameters
    ----------
    folder : Path
        Folder of the cache; need not exist.
    source : str
        Name of the source, for the loaded fields.

    Attributes
    ----------
    expected_hash : callable
        Returns the value hash that a published cube records for an hour, or None if there is none.
    """

    def __init__(self, folder: Path, source: str) -> None:
        self.folder = folder
        self.source = source
        self.expected_hash: Callable[[datetime], str | None] = lambda time: None

    def path(self, area: Era5Area, batch: Era5Batch) -> Path:
        """Return the cache file of `batch`, whichever its days."""
        return self.folder / str(area) / f"{batch.name}.npz"

    def load(self, area: Era5Area, batch: Era5Batch) -> Era5Fields:
        """Return all cached fields of the month and hour of `batch`, possibly none."""
        # a damaged file counts as missing; zip's checksums detect damage
        with suppress(OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile, zlib.error):
            with open_plain(self.path(area, batch)) as file, np.load(file, allow_pickle=False) as kept:
                notes = json.loads(kept["notes"].tobytes())
                values = kept["values"]
            times = tuple(datetime.fromisoformat(text) for text in notes["times"])
            if values.dtype == np.float32 and values.shape == (
                len(times),
                len(ERA5_VARIABLE_NAMES),
                *area.shape,
            ):
                kept_fields = Era5Fields(
                    times,
                    area.latitudes,
                    area.longitudes,
                    values,
                    tuple(notes["expver"]),
                    self.source,
                    dict(zip(times, msgspec.convert(notes["receipts"], _ReceiptsPerHour), strict=True)),
                )
                return self._drop_altered_hours(area, kept_fields)
        return assemble_fields(area, self.source, {}, {}, {})

    def _drop_altered_hours(self, area: Era5Area, fields: Era5Fields) -> Era5Fields:
        """Return the hours whose values still have the hash of their first use."""
        value_hashes = _value_hashes(area, fields)
        changed = [
            time
            for time, value_hash in value_hashes.items()
            if any(
                is_altered_hour(value_hash, first)
                for first in (
                    self.expected_hash(time),
                    *(receipt.values for receipt in fields.receipts_by_hour[time]),
                )
            )
        ]
        if changed:
            log.warning(
                "%d hours of ERA5 in the cache (the first is %s) have changed since they were first used: "
                "they are requested again",
                len(changed),
                changed[0],
            )
        return attach_value_hashes(
            area, fields.select([time for time in fields.times if time not in changed])
        )

    def add(self, area: Era5Area, fields: Era5Fields) -> None:
        """Add `fields` to the cached files of their months.

        If two processes add to one month at the same time, one addition is lost and requested again later.
        """
        for batch in group_into_batches(fields.times):
            path = self.path(area, batch)
            both = merge_fields(area, self.source, [self.load(area, batch), fields.select(batch.times)])
            notes = {
                "times": [time.isoformat() for time in both.times],
                "expver": both.expver,
                "receipts": msgspec.to_builtins([both.receipts_by_hour.get(time, ()) for time in both.times]),
            }
            encoded = np.frombuffer(json.dumps(notes).encode(), dtype=np.uint8)
            archive = io.BytesIO()  # in memory: numpy's archive of a file warns when a disk is full
            np.savez_compressed(archive, values=both.values, notes=encoded)
            # the cache may be deleted during the build; the fields are then only used, not cached
            with suppress(VanishedError), translate_cache_errors(path):
                write_atomic(path, archive.getvalue())


def _value_hashes(area: Era5Area, fields: Era5Fields) -> dict[datetime, str]:
    """Return the value hash of each hour: source, area and version, then the hash of the values."""
    return {
        time: f"{fields.source} {area} {version} {hash_bytes(np.ascontiguousarray(plane).tobytes())}"
        for time, version, plane in zip(fields.times, fields.expver, fields.values, strict=True)
    }


def attach_value_hashes(area: Era5Area, fields: Era5Fields) -> Era5Fields:
    """Return `fields` with the value hash of each hour in its receipts."""
    value_hashes = _value_hashes(area, fields)
    receipts_by_hour = {
        time: tuple(
            receipt.replace(values=value_hashes[time]) if receipt.ok else receipt for receipt in receipts
        )
        if time in value_hashes
        else receipts
        for time, receipts in fields.receipts_by_hour.items()
    }
    return replace(fields, receipts_by_hour=receipts_by_hour)


def is_altered_hour(value_hash: str, first: str | None) -> bool:
    """Return whether two value hashes agree in source, area and version but not in the values.

    Values of another source or version may differ, so only a contradiction within one counts.
    """
    claim, _, content = value_hash.rpartition(" ")
    known, _, before = (first or "").rpartition(" ")
    return claim == known and content != before


class CachedEra5Source(ABC):
    """Base class of ERA5 sources: serves hours from the cache and requests the others.

    Parameters
    ----------
    settings : Settings
        Settings with the cache folder.
    name : str
        ``cds`` or ``arco``.
    address : HttpUrl
        Address of the archive. Each address has its own cache folder.

    Attributes
    ----------
    url : str
        The address without secrets, for messages and receipts.
    """

    def __init__(self, settings: Settings, name: str, address: HttpUrl) -> None:
        self.name = name
        self.address = address
        self.url = str(address).rstrip("/")
        place = re.sub(r"[^\w.-]+", "_", f"{address.host.strip('[]')}{address.path.rstrip('/')}")
        self.folder = settings.downloads_dir / "era5" / name / place
        self.month_cache = MonthCache(self.folder / "areas", name)

    @property
    @abstractmethod
    def description(self) -> str:
        """Name of the source and why it was chosen, for messages."""

    @abstractmethod
    def _retrieve(
        self,
        frame: Frame,
        area: Era5Area,
        wanted: Sequence[Era5Batch],
        say: Callable[[str], None],
        *,
        only_final: bool,
    ) -> Iterator[Era5Fields]:
        """Request the hours of the batches; yield fields with receipts for every hour of them, in parts.

        A part may hold further hours, and hours that another process has cached meanwhile.
        """

    def set_expected_hashes(self, expected_hash: Callable[[datetime], str | None]) -> None:
        """Use cached hours only if their value hashes are those that `expected_hash` returns, if any."""
        self.month_cache.expected_hash = expected_hash

    def fetch(
        self,
        frame: Frame,
        area: Era5Area,
        times: Sequence[datetime],
        progress: HourProgress | None = None,
        *,
        refresh_preliminary: bool = False,
    ) -> Era5Fields:
        """Fetch the fields of `area` at `times`, as many as are available.

        Parameters
        ----------
        frame : Frame
            Frame that the receipts name.
        area : Era5Area
            Area of the fields.
        times : sequence of datetime
            Whole hours, UTC without a time zone.
        progress : callable, optional
            Called with the number of hours done, the number of hours requested, and a message.
        refresh_preliminary : bool
            Request hours again whose cached version is preliminary. The cached ones are used where the
            source has no newer version.

        Returns
        -------
        Era5Fields
            Hours that are not available are in its ``missing_hours``, with the reason. Cached hours have the
            receipt of the request that downloaded them, with the outcome ``unchanged``.

        Raises
        ------
        HephaestusError
            If the cache cannot be written.
        ValueError
            If a time is not a whole hour.
        """
        place = self._area_to_ask(area)
        parts: list[Era5Fields] = []
        missing: list[Era5Batch] = []
        for batch in group_into_batches(times):
            kept, rest = self._find_kept(place, batch, only_final=refresh_preliminary)
            parts.append(kept.crop(area))
            missing += [rest] if rest is not None else []
        total, due = len(set(times)), {time for batch in missing for time in batch.times}
        settled = total - len(due)

        def say(message: str) -> None:
            if progress is not None:
                progress(settled, total, message)

        say(f"{settled} of {total} hours are in the cache")
        if missing:
            for new in self._retrieve(frame, place, missing, say, only_final=refresh_preliminary):
                came = attach_value_hashes(place, new)
                self.month_cache.add(place, came)
                part = came.select(due).crop(area)
                parts.append(part)
                settled += len(part.receipts_by_hour)
                say(f"{count_of(len(part.times), 'hour')} came")
        return merge_fields(area, self.name, parts)

    def _area_to_ask(self, area: Era5Area) -> Era5Area:
        """Return the area that is asked for and cached where `area` is needed."""
        return area

    def _find_kept(
        self, area: Era5Area, batch: Era5Batch, *, only_final: bool
    ) -> tuple[Era5Fields, Era5Batch | None]:
        """Return the cached hours of `batch`, and what of it must be asked for, if anything.

        Parameters
        ----------
        area : Era5Area
            Area of the cached fields.
        batch : Era5Batch
            Hours that are needed.
        only_final : bool
            Whether to ask for hours too whose cached version is preliminary.
        """
        kept = self.month_cache.load(area, batch).select(batch.times)
        receipts = {time: _mark_unchanged(some) for time, some in kept.receipts_by_hour.items()}
        enough = {
            time
            for time, version in zip(kept.times, kept.expver, strict=True)
            if version == EXPVER_FINAL or not only_final
        }
        days = tuple(time.day for time in batch.times if time not in enough)
        return replace(kept, receipts_by_hour=receipts), replace(batch, days=days) if days else None


def failed_fields(area: Era5Area, source: str, times: Iterable[datetime], receipt: Receipt) -> Era5Fields:
    """Return empty fields for hours that failed.

    Parameters
    ----------
    area : Era5Area
        Requested area.
    source : str
        ``cds`` or ``arco``.
    times : iterable of datetime
        Requested hours.
    receipt : Receipt
        The failure, recorded for each of the hours.
    """
    return assemble_fields(area, source, {}, {}, dict.fromkeys(times, (receipt,)))


def _mark_unchanged(receipts: Sequence[Receipt]) -> tuple[Receipt, ...]:
    return tuple(
        receipt.replace(outcome=Outcome.UNCHANGED) if receipt.ok else receipt for receipt in receipts
    )
