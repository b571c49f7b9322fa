"""Builds of many frames, a few at a time, and the watch that repeats them."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress

from hephaestus_build.core.concurrency import map_bounded
from hephaestus_build.core.plain_text import format_duration
from hephaestus_build.core.progress import NullListener, PrefixedListener, ProgressListener
from hephaestus_build.core.settings import Settings
from hephaestus_build.operations.look_schedule import WatchRound, plan_round
from hephaestus_build.operations.run_log import BuildRun, RecordedRun
from hephaestus_build.pipeline.build import build
from hephaestus_build.pipeline.plan import BuildRequest

log = logging.getLogger(__name__)


def build_frames(
    requests: Sequence[BuildRequest],
    settings: Settings,
    *,
    listener: ProgressListener | None = None,
    wait: bool = False,
    at_a_time: int = 1,
    only_news: bool = False,
) -> Iterator[BuildRun]:
    """Build frames, a few at a time; a failed frame does not stop the others.

    Parameters
    ----------
    requests : sequence of BuildRequest
        What to build.
    settings : Settings
        Archives, folders and limits. Frames built at the same time share the connections, so the archives
        get no more requests at once than for one frame.
    listener : ProgressListener, optional
        Receives progress.
    wait : bool
        Whether to wait for another build of the same frame.
    at_a_time : int
        Frames at once, at most one for each connection: while one waits in the queue of the CDS, another is
        downloaded.
    only_news : bool
        Whether to ask only for the listing of a frame of which nothing else is left to ask, as far as its
        listing tells.

    Yields
    ------
    BuildRun
        The run of each frame, as it ends; it is also written to the log of runs, unless another build was at
        work on the frame.
    """
    threads = max(1, min(at_a_time, len(requests), settings.connections_allowed))
    share = settings.model_copy(update={"connections": settings.connections // threads})
    listener = listener or NullListener()

    def work(request: BuildRequest) -> BuildRun:
        own = PrefixedListener(listener, str(request.frame))
        return build_one_frame(request, share, own, wait=wait, only_news=only_news)

    if threads == 1:  # in the main thread, which Ctrl-C interrupts
        yield from map(work, requests)
    else:
        yield from map_bounded(work, requests, threads)


def build_one_frame(
    request: BuildRequest,
    settings: Settings,
    listener: ProgressListener,
    *,
    wait: bool = False,
    only_news: bool = False,
    is_recorded: bool = True,
) -> BuildRun:
    """Build one frame and return its run, failed or not.

    Parameters
    ----------
    request : BuildRequest
        What to build.
    settings : Settings
        Archives, folders and limits.
    listener : ProgressListener
        Receives progress.
    wait : bool
        Whether to wait for another build of the same frame.
    only_news : bool
        As for :func:`build_frames`.
    is_recorded : bool
        Whether to write the run down in the log of runs; else the caller does.
    """
    settings = settings.for_frame(request.frame)
    recorded = RecordedRun(request.frame, settings.data_dir if is_recorded else None)
    with suppress(Exception), recorded:  # an error of this program too: the other frames go on
        recorded.result = build(request, settings, listener=listener, wait=wait, only_news=only_news)
    return recorded.run


def watch(
    requests: Sequence[BuildRequest],
    settings: Settings,
    *,
    interval: float,
    rounds: int | None = None,
    open_listener: Callable[[], AbstractContextManager[ProgressListener | None]] = nullcontext,
    at_a_time: int = 1,
    report_later: Callable[[WatchRound], None] | None = None,
    sleep: Callable[[float], None] = time.sleep,
) -> Iterator[BuildRun]:
    """Build frames in rounds that begin `interval` seconds apart.

    Parameters
    ----------
    requests : sequence of BuildRequest
        What to keep up to date.
    settings : Settings
        Archives, folders and limits.
    interval : float
        Seconds between the beginnings of two rounds.
    rounds : int, optional
        Number of rounds; unlimited by default.
    open_listener : callable
        Returns a context manager for each round, whose listener receives progress.
    at_a_time : int
        Frames at once.
    report_later : callable, optional
        Then a round leaves out the frames that are not due, and this is told of each round before it begins.
        By default every round looks at every frame.
    sleep : callable
        Called with the number of seconds to wait.
    """
    done = 0
    while rounds is None or done < rounds:
        clock = time.monotonic()
        with open_listener() as listener:
            coming = WatchRound(tuple(requests))
            if report_later is not None:
                coming = plan_round(requests, settings)
                report_later(coming)
            yield from build_frames(
                coming.due, settings, listener=listener, at_a_time=at_a_time, only_news=True
            )
        done += 1
        if rounds is None or done < rounds:
            pause = max(0.0, interval - (time.monotonic() - clock))
            log.info("round %d has ended; the next begins in %s", done, format_duration(pause))
            sleep(pause)
