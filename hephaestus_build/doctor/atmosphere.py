"""Checks of ERA5's two sources: one hour of the smallest area, with its names, units and version."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import date, datetime, timedelta

from hephaestus_build.core.era5_grid import ERA5_VARIABLE_NAMES, Era5Area, era5_area_around, nearest_era5_hour
from hephaestus_build.core.errors import HephaestusError
from hephaestus_build.core.frames import Frame
from hephaestus_build.core.grid import Grid
from hephaestus_build.core.registry import published_frames
from hephaestus_build.core.settings import Settings
from hephaestus_build.doctor.check import Check
from hephaestus_build.doctor.portal import PortalFindings
from hephaestus_build.download.credentials import CDS_KEY_HELP, CdsCredentials, find_cds_credentials
from hephaestus_build.sources.era5.arco import ArcoEra5Source
from hephaestus_build.sources.era5.cds import CdsEra5Source
from hephaestus_build.sources.era5.month_cache import CachedEra5Source

#: Seconds that a request may wait in the queue of the CDS.
QUEUE_SECONDS = 300.0
_CHANGED = "report it with the file of `hephaestus doctor --live --report FILE`"
_VERSIONS = ("0001", "0005")
#: A date of which both sources have final values, if no acquisition is known.
_ANY_DAY, _MORNING = date(2019, 1, 5), timedelta(hours=6)


def check_atmosphere(frame: Frame, settings: Settings, findings: PortalFindings) -> Iterator[Check]:
    """Yield the checks of ARCO, and of the CDS where a key is configured.

    Parameters
    ----------
    frame : Frame
        Frame that is asked for.
    settings : Settings
        Addresses; the cache folder should be an empty one, so that the archives are really asked.
    findings : PortalFindings
        Place and time of an acquisition; the registry knows them of the published frames too.
    """
    area = _small_area(frame, findings.grid)
    if area is None:
        yield Check("era5", "warning", f"not asked: where {frame} lies is unknown", "mend the portal first")
        return
    time_of_day = findings.center_time if findings.center_time is not None else _MORNING
    hour = nearest_era5_hour(findings.day or _ANY_DAY, time_of_day)
    least = {"era5_deadline": min(settings.era5_deadline, QUEUE_SECONDS), "era5_area": "frame"}
    bounded = settings.model_copy(update=least)
    yield _check_source("arco", frame, lambda: ArcoEra5Source(bounded), area, hour)
    own = settings.embedded_archive
    try:
        credentials = (
            CdsCredentials(own.cds_url, own.cds_key, "the embedded archive")
            if own
            else find_cds_credentials()
        )
    except HephaestusError:
        credentials = None  # `cds_key` says so
    if credentials is not None:
        known = credentials
        check = _check_source("cds", frame, lambda: CdsEra5Source(bounded, known), area, hour)
        yield check
        yield _check_licence(check)


def _small_area(frame: Frame, grid: Grid | None) -> Era5Area | None:
    """Return ERA5's grid points around the middle of a frame."""
    known = published_frames().get(frame.id)
    if grid is not None:
        west, south, east, north = grid.bounds
        middle = (west + east) / 2, (south + north) / 2
    elif known is not None:
        middle = known.longitude, known.latitude
    else:
        return None
    return era5_area_around(Grid(1, 1, middle[0], middle[1], 0.001, 0.001))


def _check_source(
    name: str, frame: Frame, open_source: Callable[[], CachedEra5Source], area: Era5Area, hour: datetime
) -> Check:
    """Ask one source for one hour, and describe what came."""
    try:
        fields = open_source().fetch(frame, area, [hour])
    except HephaestusError as error:
        return Check(name, "failed", str(error), _next_step(name, str(error)))
    if hour not in fields.time_index:
        failed = next((item for item in fields.receipts_by_hour.get(hour, ()) if not item.ok), None)
        why = f"{failed.outcome}: {failed.detail}" if failed is not None else "the hour is missing"
        return Check(name, "failed", f"ERA5 of {hour:%Y-%m-%d %H}:00: {why}", _next_step(name, why))
    version = fields.expver[fields.time_index[hour]]
    names = ", ".join(ERA5_VARIABLE_NAMES)
    if version not in _VERSIONS:
        return Check(name, "warning", f"{names} came, but expver is {version}", _CHANGED)
    return Check(name, "ok", f"{names} of {hour:%Y-%m-%d %H}:00 in the expected units, expver {version}")


def _check_licence(cds: Check) -> Check:
    """Tell from the check of the CDS whether the licence of ERA5 is accepted."""
    if cds.verdict != "failed":
        return Check("cds_licence", "ok", "the account of the key has accepted the licence of ERA5")
    if "licence" in cds.detail.lower():
        return Check("cds_licence", "failed", "the licence of ERA5 is not accepted", cds.next)
    return Check("cds_licence", "warning", "not known, since the CDS delivered nothing", "mend `cds` first")


def _next_step(name: str, why: str) -> str:
    if name == "cds" and "licence" in why.lower():
        return "accept the licence on the data set's page of the CDS, with the account of the key"
    if name == "cds" and "key" in why.lower():
        return CDS_KEY_HELP
    other = "cds" if name == "arco" else "arco"
    return f"use --era5 {other} meanwhile; if it stays so, {_CHANGED}"
