"""Checks whether the interferogram archive still looks as this version expects.

The smallest products of each kind are asked for: one listing, ``metadata.txt``, one pair's page of links, its
two rasters and its preview.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from functools import partial
from http.client import FORBIDDEN, UNAUTHORIZED
from typing import TypeVar

from hephaestus_build.core.errors import HephaestusError, RefusedError
from hephaestus_build.core.frames import Frame, Pair
from hephaestus_build.core.grid import Grid
from hephaestus_build.core.provenance import Outcome, Receipt
from hephaestus_build.core.settings import Settings
from hephaestus_build.core.web_address import parse_url_setting, redact_url
from hephaestus_build.doctor.check import Check, judge
from hephaestus_build.doctor.configuration import find_portal_login
from hephaestus_build.doctor.machine import check_clock
from hephaestus_build.sources.licsar.portal import LicsarPortal

T = TypeVar("T")
#: Answers to a login that is missing or wrong.
_LOGIN_REFUSED = (UNAUTHORIZED, FORBIDDEN)
#: Pairs that are tried, since the archive lacks a product of some.
_TRIED_PAIRS = 3
#: Lines that ``metadata.txt`` has, beside the time of the acquisition.
_EXPECTED_KEYS = ("heading", "avg_incidence_angle")
_LATER = "run the same command again later; if it stays so, report it with the file of --report"
_CHANGED = "report it with the file of `hephaestus doctor --live --report FILE`"


@dataclass
class PortalFindings:
    """What the checks of the portal have learnt, for those of the atmosphere.

    Attributes
    ----------
    day : datetime.date or None
        Date of an acquisition.
    center_time : datetime.timedelta or None
        Its time of day.
    grid : Grid or None
        Grid of a raster.
    """

    day: date | None = None
    center_time: timedelta | None = None
    grid: Grid | None = None


def check_portal(frame: Frame, settings: Settings, findings: PortalFindings) -> Iterator[Check]:
    """Yield the checks of the LiCSAR portal that the settings name; fills `findings`.

    Parameters
    ----------
    frame : Frame
        Frame that is asked for.
    settings : Settings
        Address of the portal; the cache folder should be an empty one, so that the portal is really asked.
    findings : PortalFindings
        Filled with what is learnt.
    """
    with LicsarPortal(settings) as portal:
        address = parse_url_setting(settings.licsar_url, "HEPHAESTUS_LICSAR_URL")
        answer = portal.client.head(address.url_with_secrets)
        yield check_clock(datetime.now(UTC), answer.headers.get("Date"))
        pairs: list[Pair] = []
        try:
            listing = portal.listing(frame)
        except HephaestusError as error:
            yield Check("portal_listing", "failed", str(error), _LATER)
            if isinstance(error, RefusedError) and error.status in _LOGIN_REFUSED:
                yield _describe_refused_login(error.status, settings)
        else:
            pairs = sorted(item.pair for item in listing.pairs)[:_TRIED_PAIRS]
            yield judge(
                "portal_listing",
                "" if pairs else f"the listing of {frame} names no interferogram",
                ok=f"{len(listing.pairs)} interferograms of {frame} at {redact_url(settings.licsar_url)}",
                next_step=_LATER,
            )
            place = find_portal_login(settings)
            said = f"the portal takes the login in {place}" if place else "the portal asks for none"
            yield Check("portal_login", "ok", said)
        yield from _check_metadata(frame, portal, findings)
        if pairs:
            findings.day = pairs[0].primary
            yield _check_links(frame, pairs[0], portal)
            yield _check_rasters(frame, pairs, portal, findings)
            yield _check_preview(frame, pairs, portal)


def _describe_refused_login(status: int, settings: Settings) -> Check:
    """Return the check of a login that the portal refuses, or misses."""
    place = find_portal_login(settings)
    if place:
        fault, step = f"the portal refuses the login in {place}", f"correct it in {place}, or remove it"
    else:
        fault = "the portal asks for a login" if status == UNAUTHORIZED else "the portal refuses access"
        step = "put a line `machine HOST login USER password PASSWORD` with its host into ~/.netrc"
    return Check("portal_login", "failed", f"{fault} (HTTP {status})", step)


def _check_metadata(frame: Frame, portal: LicsarPortal, findings: PortalFindings) -> Iterator[Check]:
    try:
        metadata = portal.metadata(frame)
    except HephaestusError as error:
        yield Check("portal_metadata", "failed", str(error), _LATER)
        return
    findings.center_time = metadata.center_time
    if not metadata.receipt.ok:
        what = f"metadata.txt of {frame}: {metadata.receipt.outcome}: {metadata.receipt.detail}"
        yield Check("portal_metadata", "failed", what, _LATER)
        return
    lacking = [key for key in ("center_time", *_EXPECTED_KEYS) if key not in metadata.fields]
    unreadable = metadata.center_time is None
    yield judge(
        "portal_metadata",
        f"metadata.txt of {frame} lacks {', '.join(lacking)}"
        if lacking
        else "metadata.txt states no time that can be read"
        if unreadable
        else "",
        ok=f"metadata.txt has {', '.join(('center_time', *_EXPECTED_KEYS))}",
        next_step=_CHANGED,
        verdict="failed" if unreadable or "center_time" in lacking else "warning",
    )


def _check_links(frame: Frame, pair: Pair, portal: LicsarPortal) -> Check:
    page, links = portal.search.fetch_links(frame, pair)
    wanted = {f"{pair}.geo.diff_pha.tif", f"{pair}.geo.cc.tif"}
    if not page.ok:
        fault = f"the page of {pair}: {page.outcome}: {page.detail}"
    elif not wanted <= links.keys():
        fault = f"the page of {pair} does not lead to {', '.join(sorted(wanted - links.keys()))}"
    else:
        fault = ""
    return judge(
        "portal_links",
        fault,
        ok=f"the page of {pair} leads to {len(links)} files",
        next_step=f"nothing if `portal_rasters` is ok: files are found elsewhere; else {_CHANGED}",
        verdict="warning",
    )


def _fetch_first(
    pairs: Sequence[Pair], fetch: Callable[[Pair], tuple[Receipt, T | None]]
) -> tuple[Pair, Receipt, T | None]:
    """Return the first product that is not absent, since single pairs lack some; else the last answer."""
    for pair in pairs:
        receipt, content = fetch(pair)
        if receipt.outcome is not Outcome.ABSENT:
            break
    return pair, receipt, content


def _check_rasters(
    frame: Frame, pairs: Sequence[Pair], portal: LicsarPortal, findings: PortalFindings
) -> Check:
    pair, receipt, coherence = _fetch_first(pairs, partial(portal.coherence, frame))
    if coherence is None:
        return Check("portal_rasters", "failed", _describe(receipt), _LATER)
    receipt, phase = portal.phase(frame, pair)
    if phase is None:
        return Check("portal_rasters", "failed", _describe(receipt), _LATER)
    findings.grid = phase.grid
    rows, columns = phase.grid.shape
    return judge(
        "portal_rasters",
        "" if phase.grid.same_as(coherence.grid) else f"phase and coherence of {pair} lie on different grids",
        ok=f"phase ({phase.values.dtype}) and coherence ({coherence.values.dtype}) of {pair}: {rows} rows x "
        f"{columns} columns, a pixel of {phase.grid.dx:g} x {phase.grid.dy:g} degrees",
        next_step=_CHANGED,
        verdict="warning",
    )


def _check_preview(frame: Frame, pairs: Sequence[Pair], portal: LicsarPortal) -> Check:
    pair, receipt, size = _fetch_first(pairs, partial(portal.preview, frame))
    return judge(
        "portal_preview",
        _describe(receipt) if size is None else "",
        ok=f"the preview of {pair} has {size.width} x {size.height} pixels" if size is not None else "",
        next_step="nothing, unless masks are drawn: they need its size",
        verdict="warning",
    )


def _describe(receipt: Receipt) -> str:
    return f"{receipt.product}: {receipt.outcome}: {receipt.detail}"
