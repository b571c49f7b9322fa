"""The pace of requests to an archive: how many begin in a second, shared by everything in this process.

The turns of requests are given out in one place. Usually that is this process, whose threads and clients
share them. Where many processes work together, :func:`set_request_pace` has them ask the engine that connects
them.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Protocol

from hephaestus_build.core.settings import Settings
from hephaestus_build.core.web_address import HttpUrl

#: Seconds over which a rate holds, wherever they begin.
RATE_WINDOW = 10.0


def spacing_of(rate: float) -> float:
    """Return the seconds between the beginnings of two requests.

    They are a little more than ``1 / rate``, so that a window of :data:`RATE_WINDOW` seconds that begins and
    ends with a request has no more than ``RATE_WINDOW * rate`` of them: 0.256 s for 4 requests a second.

    Parameters
    ----------
    rate : float
        Requests per second.
    """
    return (1 + 1 / (RATE_WINDOW * rate)) / rate


class TurnQueue:
    """The times at which requests to archives may begin, in the order in which they are asked for.

    Nothing accumulates while no request is made: two never begin closer together than the rate says.
    """

    def __init__(self) -> None:
        self._next: dict[str, float] = {}

    def reserve(self, archive: str, rate: float, now: float) -> float:
        """Reserve the next turn, and return the seconds until it.

        Parameters
        ----------
        archive : str
            Name of the archive, such as its host.
        rate : float
            Requests per second.
        now : float
            The time in seconds, of a clock that never goes back.
        """
        turn = max(now, self._next.get(archive, now))
        self._next[archive] = turn + spacing_of(rate)
        return turn - now


class RequestPace(Protocol):
    """What requests to archives wait for."""

    def hold_place(self, archive: str, at_once: int) -> AbstractContextManager[None]:
        """Wait for one of the `at_once` places of an archive, and hold it within the block."""

    def wait_turn(self, archive: str, rate: float) -> None:
        """Wait until a request may begin, of at most `rate` per second."""


class ProcessPace:
    """The pace of this process: one queue of turns for all threads. Places are limited by each client.

    Parameters
    ----------
    clock, sleep : callable
        Return the time in seconds, and wait for a number of seconds.
    """

    def __init__(
        self, clock: Callable[[], float] = time.monotonic, sleep: Callable[[float], None] = time.sleep
    ) -> None:
        self._clock, self._sleep = clock, sleep
        self._turns, self._lock = TurnQueue(), threading.Lock()

    def hold_place(self, archive: str, at_once: int) -> AbstractContextManager[None]:
        """Wait for nothing."""
        return nullcontext()

    def wait_turn(self, archive: str, rate: float) -> None:
        """Wait until a request may begin."""
        with self._lock:
            pause = self._turns.reserve(archive, rate, self._clock())
        if pause > 0:
            self._sleep(pause)


_pace: RequestPace = ProcessPace()


def set_request_pace(pace: RequestPace) -> RequestPace:
    """Have all requests of this process wait for `pace`; return what they waited for before."""
    global _pace
    before, _pace = _pace, pace
    return before


class RequestLimits:
    """The limits of the requests of a client: how many of an archive at once, and how many a second.

    Parameters
    ----------
    settings : Settings
        Provides the limits.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    def hold_place(self, url: str) -> AbstractContextManager[None]:
        """Hold a place of the archive of `url` within the block, which ends with the response."""
        if (address := _parse(url)) is None:
            return nullcontext()
        return _pace.hold_place(address.netloc, self._settings.connections_allowed)

    def wait_turn(self, url: str) -> None:
        """Wait until a request to the host of `url` may begin."""
        if (rate := self.rate_of(url)) is not None and (address := _parse(url)) is not None:
            _pace.wait_turn(address.netloc, rate)

    def rate_of(self, url: str) -> float | None:
        """Return the requests per second to the host of `url`; None if they are not limited."""
        address = _parse(url)
        return self._settings.request_rate(is_loopback=address.is_loopback) if address else None


def _parse(url: str) -> HttpUrl | None:
    """Return an address; None for a text that is none, which is refused where it is requested."""
    try:
        return HttpUrl.parse(url)
    except ValueError:
        return None
