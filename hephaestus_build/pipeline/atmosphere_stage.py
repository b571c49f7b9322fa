"""Stage of the atmosphere: ERA5 at every acquisition date, on the frame's grid."""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterable, Sequence
from datetime import date, datetime, timedelta

from hephaestus_build.core.era5_grid import EXPVER_PRELIMINARY, era5_area_around
from hephaestus_build.core.frames import Frame, Pair
from hephaestus_build.core.progress import ProgressListener
from hephaestus_build.core.provenance import Outcome, Receipt
from hephaestus_build.cube.granules import EpochGranule, GranuleKey
from hephaestus_build.pipeline.encoding import encode_atmosphere
from hephaestus_build.pipeline.ledger import keys_of_kind
from hephaestus_build.pipeline.stage import Build, Stage
from hephaestus_build.sources.era5.fields import merge_fields

#: Final ERA5 replaces the preliminary within two to three months.
FINAL_AFTER = timedelta(days=92)

log = logging.getLogger(__name__)


class AtmosphereStage(Stage):
    """Fetches ERA5 for all dates at once, then interpolates, encodes and stores it date by date."""

    name = "atmosphere"

    def items(self, build: Build, only: Collection[GranuleKey] | None = None) -> Sequence[GranuleKey]:
        """Return the dates whose atmosphere is missing, outdated, or preliminary where final data is due."""
        keys = epoch_keys(build) if only is None else keys_of_kind(only, "epoch")
        return [key for key in keys if _must_fetch(build, key)]

    def begin(self, build: Build, keys: Sequence[GranuleKey]) -> None:
        """Fetch ERA5 for the dates `keys`; failures are recorded in the receipts of the fields.

        Hours cached in their preliminary version are requested again once final data should exist.
        """
        if not keys:
            return
        context = build.context
        if context.metadata.center_time is None:
            super().begin(build, keys)
            return
        context.listener.stage("ERA5 hours", len(keys))
        area = era5_area_around(build.ledger.require_grid())
        parts = []
        for final in (False, True):
            days = [key.day for key in keys if _should_be_final(key.day, context.today) is final]
            if days:
                hours = [hour for day in days if (hour := context.era5_hour(day))]
                progress = _Steps(context.listener, "ERA5 hours", context.frame)
                parts.append(
                    context.era5.fetch(context.frame, area, hours, progress, refresh_preliminary=final)
                )
        build.ledger.keep_era5(merge_fields(area, context.era5.name, parts))
        super().begin(build, keys)

    def run(self, build: Build, key: GranuleKey) -> None:
        """Interpolate and store ERA5 for one date; a missing hour is owed."""
        context, ledger = build.context, build.ledger
        day, inputs, hour = key.day, ledger.grid_inputs(), context.era5_hour(key.day)
        if hour is None:
            unknown = context.metadata.unknown_time
            receipt = (unknown or Receipt("", Outcome.ABSENT, "")).replace(product="era5")
            ledger.record(EpochGranule.make(day, inputs, (receipt,), None), {})
            return
        fields = ledger.era5
        receipts = fields.receipts_by_hour[hour]
        era5 = None
        contents: dict[str, bytes] = {}
        if hour in fields.time_index:
            receipts = tuple(receipt for receipt in receipts if receipt.ok)
            era5 = _hours_since_1970(hour), fields.expver[fields.time_index[hour]], fields.source
            before = ledger.get(key)
            if (
                isinstance(before, EpochGranule)
                and not ledger.needs(key, inputs)
                and before.era5_expver == EXPVER_PRELIMINARY
                and (before.era5_time, before.era5_expver, before.source) == era5
            ):
                return  # still preliminary at the source
            contents = encode_atmosphere(
                fields.fields_at(hour), fields.latitude, fields.longitude, ledger.require_grid()
            )
        granule = EpochGranule.make(day, inputs, receipts, era5)
        ledger.record(granule, contents)


def epoch_keys(build: Build, coming: Iterable[Pair] = ()) -> list[GranuleKey]:
    """Return every acquisition date of the stored and the `coming` pairs, in order."""
    days = {day for pairs in (build.ledger.complete_pairs(), coming) for pair in pairs for day in pair.dates}
    return list(map(GranuleKey.of_epoch, sorted(days)))


def _must_fetch(build: Build, key: GranuleKey) -> bool:
    context, ledger = build.context, build.ledger
    granule = ledger.get(key)
    if (
        not isinstance(granule, EpochGranule)
        or ledger.grid is None
        or ledger.needs(key, ledger.grid_inputs())
    ):
        return True
    if granule.is_imported:
        return ledger.must_refetch(key)
    hour = context.era5_hour(key.day)
    if hour is None:
        return False
    return granule.era5_time != _hours_since_1970(hour) or (
        granule.era5_expver == EXPVER_PRELIMINARY and _should_be_final(key.day, context.today)
    )


def _should_be_final(day: date, today: date) -> bool:
    """Return whether final ERA5 data of `day` should exist."""
    return today - day > FINAL_AFTER


def _hours_since_1970(moment: datetime) -> int:
    """Return an hour as the cube stores it."""
    return int((moment - datetime(1970, 1, 1)).total_seconds()) // 3600


class _Steps:
    """Adapter from progress in totals to a listener that counts steps."""

    def __init__(self, listener: ProgressListener, stage: str, frame: Frame) -> None:
        self._listener, self._stage, self._frame = listener, stage, frame
        self._before, self._said = 0, ""

    def __call__(self, settled: int, total: int, message: str) -> None:
        if message != self._said:
            log.info("%s: ERA5: %s", self._frame, message)
        self._said = message
        self._listener.advance(self._stage, settled - self._before)
        self._before = settled
