"""ERA5 that was asked for before, kept month by month, and what the two sources share because of it.

The files are small and may be thrown away at any time: what is missing or damaged is asked for again.
"""

from __future__ import annotations

import json
import logging
import os
import re
import threading
import zipfile
import zlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import datetime
from pathlib import Path

import msgspec
import numpy as np

from hephaestus_build.core.atomic_io import hash_bytes
from hephaestus_build.core.era5_grid import ERA5_VARIABLE_NAMES, EXPVER_FINAL, Era5Area
from hephaestus_build.core.frames import Frame
from hephaestus_build.core.provenance import Outcome, Receipt
from hephaestus_build.core.settings import Settings
from hephaestus_build.core.web_address import HttpUrl
from hephaestus_build.download.cache import VanishedError, open_plain, translate_cache_errors
from hephaestus_build.sources.era5.fields import (
    Era5Batch,
    Era5Fields,
    assemble_fields,
    group_into_batches,
    merge_fields,
)

log = logging.getLogger(__name__)

#: Told how many of the hours asked for are settled, how many there are, and what goes on.
HourProgress = Callable[[int, int, str], None]
#: What is kept of the receipts of a month: those of each hour.
_ReceiptsPerHour = list[tuple[Receipt, ...]]


class MonthCache:
    """Fields of one source on disk, one file for each area, month and hour.

    Parameters
    ----------
    folder : Path
        Need not exist.
    source : str
        Name of the source, for the fields that come out.

    Attributes
    ----------
    expected_hash : callable
        Returns the seal of an hour's values when they were first used, as a published cube has it, else None.
    """

    def __init__(self, folder: Path, source: str) -> None:
        self.folder = folder
        self.source = source
        self.expected_hash: Callable[[datetime], str | None] = lambda time: None

    def path(self, area: Era5Area, batch: Era5Batch) -> Path:
        """Return where the month of `batch` is kept."""
        return self.folder / str(area) / f"{batch.name}.npz"

    def load(self, area: Era5Area, batch: Era5Batch) -> Era5Fields:
        """Return what is kept of the month of `batch`, which may be nothing."""
        # a damaged file is no file: zip's own checksums tell
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
        """Return the hours whose values are what they were when they were first used."""
        seals = _value_hashes(area, fields)
        changed = [
            time
            for time, seal in seals.items()
            if any(
                is_altered_hour(seal, first)
                for first in (
                    self.expected_hash(time),
                    *(receipt.values for receipt in fields.receipts_by_hour[time]),
                )
            )
        ]
        if changed:
            log.warning(
                "%d hours of ERA5 in the cache (the first is %s) are not what they were when first used: "
                "they are asked for again",
                len(changed),
                changed[0],
            )
        return attach_value_hashes(
            area, fields.select([time for time in fields.times if time not in changed])
        )

    def add(self, area: Era5Area, fields: Era5Fields) -> None:
        """Keep `fields` beside what is kept of their months already.

        Two processes that add to one month at once lose one addition; it is asked for again.
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
            temporary = path.with_name(f".{path.name}.{os.getpid()}-{threading.get_ident()}")
            # a cache that is emptied meanwhile has nothing to keep
            with suppress(VanishedError), translate_cache_errors(path):
                path.parent.mkdir(parents=True, exist_ok=True)
                try:
                    with temporary.open("wb") as stream:
                        np.savez_compressed(stream, values=both.values, notes=encoded)
                    temporary.replace(path)
                finally:
                    temporary.unlink(missing_ok=True)


def _value_hashes(area: Era5Area, fields: Era5Fields) -> dict[datetime, str]:
    """Return what tells the values of each hour from others: whose they are, and their hash."""
    return {
        time: f"{fields.source} {area} {version} {hash_bytes(np.ascontiguousarray(plane).tobytes())}"
        for time, version, plane in zip(fields.times, fields.expver, fields.values, strict=True)
    }


def attach_value_hashes(area: Era5Area, fields: Era5Fields) -> Era5Fields:
    """Return `fields` with the seal of each hour's values in its receipts."""
    seals = _value_hashes(area, fields)
    proofs = {
        time: tuple(receipt.replace(values=seals[time]) if receipt.ok else receipt for receipt in receipts)
        if time in seals
        else receipts
        for time, receipts in fields.receipts_by_hour.items()
    }
    return replace(fields, receipts_by_hour=proofs)


def is_altered_hour(seal: str, first: str | None) -> bool:
    """Whether values claim to be those of `first` (source, area, version) and have another hash."""
    claim, _, content = seal.rpartition(" ")
    known, _, before = (first or "").rpartition(" ")
    return claim == known and content != before


class CachedEra5Source(ABC):
    """A source of ERA5 that asks for what it does not keep.

    Parameters
    ----------
    settings : Settings
        Where the cache is.
    name : str
        ``cds`` or ``arco``.
    address : HttpUrl
        Of the archive; what came from one place is never taken for another's.

    Attributes
    ----------
    url : str
        The address as it may be shown and stored.
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
        """Which source this is and why, in a few words."""

    @abstractmethod
    def _retrieve(
        self, frame: Frame, area: Era5Area, wanted: Sequence[Era5Batch], say: Callable[[str], None]
    ) -> Iterator[Era5Fields]:
        """Ask for the batches; yield each one's fields, with proofs for every hour of it."""

    def set_expected_hashes(self, seals: Callable[[datetime], str | None]) -> None:
        """Believe kept hours only if their values are those that a published cube first used."""
        self.month_cache.expected_hash = seals

    def fetch(
        self,
        frame: Frame,
        area: Era5Area,
        times: Sequence[datetime],
        progress: HourProgress | None = None,
        *,
        refresh_preliminary: bool = False,
    ) -> Era5Fields:
        """Return the fields of `area` at `times`, as many of them as can be had.

        Parameters
        ----------
        frame : Frame
            Whom they are for: named in the receipts.
        area : Era5Area
            Where.
        times : sequence of datetime
            Whole hours, UTC without a zone.
        progress : callable, optional
            Told how many hours are settled, how many there are, and what goes on.
        refresh_preliminary : bool
            Ask again for hours that are kept in their preliminary version; the kept ones stay where the
            source has nothing newer.

        Returns
        -------
        Era5Fields
            Hours that are not in it are in its ``owed``, with the reason. Hours that were kept carry the
            receipt of the request that brought them, its outcome now ``unchanged``.

        Raises
        ------
        HephaestusError
            If the cache cannot be written.
        ValueError
            If a time is not a whole hour.
        """
        parts: list[Era5Fields] = []
        missing: list[Era5Batch] = []
        for batch in group_into_batches(times):
            kept = self.month_cache.load(area, batch).select(batch.times)
            parts.append(
                replace(
                    kept,
                    receipts_by_hour={t: _mark_unchanged(some) for t, some in kept.receipts_by_hour.items()},
                )
            )
            final = {
                time
                for time, version in zip(kept.times, kept.expver, strict=True)
                if version == EXPVER_FINAL or not refresh_preliminary
            }
            if days := tuple(time.day for time in batch.times if time not in final):
                missing.append(replace(batch, days=days))
        total = len(set(times))
        settled = total - sum(len(batch.days) for batch in missing)

        def say(message: str) -> None:
            if progress is not None:
                progress(settled, total, message)

        say(f"{settled} of {total} hours are in the cache")
        if missing:
            for new in self._retrieve(frame, area, missing, say):
                part = attach_value_hashes(area, new)
                self.month_cache.add(area, part)
                parts.append(part)
                settled += len(part.receipts_by_hour)
                say(f"{len(part.times)} hours came")
        return merge_fields(area, self.name, parts)


def era5_product_name(frame: Frame, batch: Era5Batch) -> str:
    """Return what a receipt calls the fields of one batch."""
    return f"{frame}.era5.{batch.name}"


def failed_fields(area: Era5Area, source: str, batch: Era5Batch, receipt: Receipt) -> Era5Fields:
    """Return no fields for `batch`, with `receipt` as the reason."""
    return assemble_fields(area, source, {}, {}, dict.fromkeys(batch.times, (receipt,)))


def _mark_unchanged(receipts: Sequence[Receipt]) -> tuple[Receipt, ...]:
    return tuple(
        receipt.replace(outcome=Outcome.UNCHANGED) if receipt.ok else receipt for receipt in receipts
    )
