"""When ``watch`` looks at a frame again: the longer nothing new has come, the later."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from hephaestus_build.core.frames import Frame
from hephaestus_build.core.settings import Settings
from hephaestus_build.core.web_address import parse_url_setting
from hephaestus_build.cube.storage.generations import FrameStore
from hephaestus_build.pipeline.kept.last_look import LastLook, read_last_look
from hephaestus_build.pipeline.plan import BuildRequest

#: No frame is left alone for longer.
LONGEST_INTERVAL = timedelta(days=14)
#: Part of an interval by which a look may come early, so that a round that begins a little early leaves no
#: frame to the next one.
_EARLY = 0.1


def look_interval(quiet: timedelta, share: float) -> timedelta:
    """Return how long to wait between two looks at a frame.

    Parameters
    ----------
    quiet : datetime.timedelta
        Time from the archive's last new product of the frame to the last look.
    share : float
        The setting ``quiet_share``; with 0 there is no waiting.

    Examples
    --------
    >>> look_interval(timedelta(days=5), 0.1), look_interval(timedelta(days=60), 0.1)
    (datetime.timedelta(seconds=43200), datetime.timedelta(days=6))
    >>> look_interval(timedelta(days=1000), 0.1)
    datetime.timedelta(days=14)
    """
    return min(LONGEST_INTERVAL, max(timedelta(0), quiet) * share)


def next_look(look: LastLook, share: float) -> datetime:
    """Return when a frame is to be looked at again, UTC; the time of the last look if that is at any time."""
    return look.at if look.pressing else look.at + look_interval(look.at - look.news, share)


def is_due(look: LastLook | None, now: datetime, share: float) -> bool:
    """Return whether a round that begins now looks at a frame."""
    if look is None or look.at > now:  # never looked at, or the clock was wrong
        return True
    return now >= next_look(look, share) - look_interval(look.at - look.news, share) * _EARLY


@dataclass(frozen=True)
class WatchRound:
    """What one round of ``watch`` does.

    Attributes
    ----------
    due : tuple of BuildRequest
        What it looks at.
    later : tuple of datetime and Frame
        Frames that it leaves out, each after the time at which it is due, the earliest first.
    """

    due: tuple[BuildRequest, ...]
    later: tuple[tuple[datetime, Frame], ...] = ()


def plan_round(
    requests: Iterable[BuildRequest], settings: Settings, now: datetime | None = None
) -> WatchRound:
    """Return which frames a round that begins now looks at."""
    now = now or datetime.now(UTC)
    due, later = [], []
    for item in requests:
        here = settings.for_frame(item.frame)
        look, share = read_last_look(FrameStore(here.cubes_dir, item.frame)), share_for(here)
        if look is None or is_due(look, now, share):
            due.append(item)
        else:
            later.append((next_look(look, share), item.frame))
    return WatchRound(tuple(due), tuple(sorted(later)))


def share_for(settings: Settings) -> float:
    """Return the setting ``quiet_share``; 0 for an archive on this machine, unless it is set."""
    if "quiet_share" in settings.model_fields_set:
        return settings.quiet_share
    address = parse_url_setting(settings.licsar_url, "HEPHAESTUS_LICSAR_URL")
    return 0.0 if settings.is_archive_embedded or address.is_loopback else settings.quiet_share
