"""The last look at a frame's listing: what it showed, and whether a build after it had anything left to do.

It is kept beside the generations (``look.json``), so that ``watch`` can tell from the listing alone that
nothing is new, and when to look again. It may be deleted: then the next build is a whole one.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from datetime import UTC, date, datetime, time
from typing import Any

import msgspec

from hephaestus_build import __version__
from hephaestus_build.core.atomic_io import write_json
from hephaestus_build.core.era5_grid import EXPVER_PRELIMINARY
from hephaestus_build.core.frames import Pair
from hephaestus_build.core.plain_files import read_plain_file
from hephaestus_build.core.provenance import Outcome
from hephaestus_build.core.settings import Settings
from hephaestus_build.cube.fingerprints import fingerprint_inputs
from hephaestus_build.cube.granules import EpochGranule
from hephaestus_build.cube.storage.generations import FrameStore
from hephaestus_build.pipeline.plan import BuildRequest
from hephaestus_build.pipeline.result import BuildResult
from hephaestus_build.pipeline.stage import Build
from hephaestus_build.sources.annotations.record import Annotation

log = logging.getLogger(__name__)

_MAX_BYTES = 1 << 16
#: Forms of a listing's Last-modified column.
_MODIFIED_FORMS = ("%Y-%m-%d %H:%M", "%Y-%m-%d %H:%M:%S", "%d-%b-%Y %H:%M", "%d-%b-%Y %H:%M:%S")


class LastLook(msgspec.Struct, frozen=True, kw_only=True):
    """What is kept of the last build or look that ended well.

    Attributes
    ----------
    at : datetime.datetime
        When it ended, UTC.
    asked : str
        Fingerprint of the request, the annotations and the settings that decide what is made.
    listing : str
        Fingerprint of the listing, with its Last-modified column.
    generation : int
        Number of the generation that was published then.
    news : datetime.datetime
        When the archive's newest product of the frame appeared, UTC.
    settled : bool
        Whether nothing is left to ask for while the listing stays the same: nothing is missing, no ERA5 is
        preliminary, nothing has changed upstream.
    pressing : bool
        Whether the next look should not wait: something was unreachable, refused or damaged.
    newest : datetime.date or None
        Secondary date of the newest pair that the archive listed.
    reached : datetime.datetime or None
        When a build first got all of that news, UTC; None while something is pressing.
    """

    at: datetime
    asked: str
    listing: str
    generation: int
    news: datetime
    settled: bool
    pressing: bool
    newest: date | None = None
    reached: datetime | None = None


def read_last_look(store: FrameStore) -> LastLook | None:
    """Return the last look at a frame; None where none is kept or it cannot be read."""
    try:
        content = read_plain_file(store.root, store.look_file.name, _MAX_BYTES)
        look = msgspec.json.decode(content, type=LastLook)
        known = [moment for moment in (look.at, look.news, look.reached) if moment is not None]
        times = [moment.timestamp() for moment in known]  # raises where a time has no meaning
    except (OSError, ValueError, RecursionError, OverflowError):
        return None
    return look if min(times) > 0 and all(moment.tzinfo for moment in known) else None


def keep_look(store: FrameStore, look: LastLook) -> None:
    """Keep a look; a folder that cannot be written to only makes the next build a whole one."""
    try:
        write_json(store.look_file, look)
    except OSError as error:
        log.debug("%s could not be written: %s", store.look_file, error)


def look_after_build(build: Build, result: BuildResult) -> LastLook:
    """Return what is to be kept of a build that has just ended."""
    context = build.context
    epochs = (item for item in build.ledger.snapshot().values() if isinstance(item, EpochGranule))
    preliminary = any(item.is_complete and item.era5_expver == EXPVER_PRELIMINARY for item in epochs)
    asked = (context.metadata.receipt, context.baselines[0])  # nobody owes these
    silent = any(receipt.outcome is Outcome.UNREACHABLE for receipt in asked)
    now, prior = datetime.now(UTC), read_last_look(context.store)
    news = min(now, latest_news(context.modified) or now)
    pressing = bool(result.retraction) or any(item.outcome is not Outcome.ABSENT for item in result.owed)
    reached = prior.reached if prior is not None and prior.news == news else None
    return LastLook(
        at=now,
        asked=fingerprint_question(context.request, context.settings, context.annotations),
        listing=fingerprint_listing(context.modified),
        generation=result.generation,
        news=news,
        settled=not (result.owed or result.accepted or result.retraction or preliminary or silent),
        pressing=pressing,
        newest=max((pair.secondary for pair in context.modified), default=None),
        reached=None if pressing else reached or now,
    )


def fingerprint_question(
    request: BuildRequest, settings: Settings, annotations: Mapping[Pair, Annotation]
) -> str:
    """Return a hash of all that decides what a build makes of a listing; another version builds in full."""
    dates = [None if day is None else day.isoformat() for day in (request.since, request.until)]
    asked: list[Any] = [request.pairs, *dates, request.limit, sorted(request.variables)]
    written = [
        {**vars(item), "frame": str(item.frame), "pair": pair.name, "polygons": _vertices(item)}
        for pair, item in sorted(annotations.items())
    ]
    made = [settings.overview_factor, settings.center_time.get(str(request.frame)), __version__]
    return fingerprint_inputs(asked, written, made)


def _vertices(annotation: Annotation) -> list[Any]:
    return [polygon.tolist() for polygon in annotation.polygons]


def fingerprint_listing(listed: Mapping[Pair, str | None]) -> str:
    """Return a hash of a listing: its pairs and when each was last modified."""
    return fingerprint_inputs({pair.name: modified for pair, modified in listed.items()})


def latest_news(listed: Mapping[Pair, str | None]) -> datetime | None:
    """Return when the newest product of a listing appeared, taken as UTC; None for an empty one.

    Where the listing does not say when a pair was last modified, its later date counts.

    Examples
    --------
    >>> str(latest_news({Pair.parse("20200101_20200113"): "2020-01-20 10:00"}))
    '2020-01-20 10:00:00+00:00'
    >>> str(latest_news({Pair.parse("20200101_20200113"): None}))
    '2020-01-13 00:00:00+00:00'
    """
    appeared = (
        _parse_modified(modified) or datetime.combine(pair.secondary, time(), UTC)
        for pair, modified in listed.items()
    )
    return max(appeared, default=None)


def _parse_modified(text: str | None) -> datetime | None:
    for form in _MODIFIED_FORMS if text else ():
        try:
            return datetime.strptime(text or "", form).replace(tzinfo=UTC)
        except ValueError:
            continue
    return None
