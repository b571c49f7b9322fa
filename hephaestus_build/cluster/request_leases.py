"""The pace of requests to an archive by all workers of a cluster: leases that its scheduler gives out.

*At once*: a request holds a lease of the archive until its response has ended; there are as many leases as
requests are allowed at once. *Per second*: a request begins with a lease of a turn, which is kept for a while
after. With ``n`` turns that are kept for ``n`` times the spacing of requests each, no more requests begin
than the rate says, however many workers ask; what one worker does not use is free for the others.

Both are :class:`distributed.Semaphore`, of which the scheduler has one for each name. A worker renews its
leases every few seconds. Those of a killed worker are free again after half a minute (Dask's
``distributed.scheduler.locks.lease-timeout``): a kill makes requests slower for that time, never faster.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from hephaestus_build.core.errors import HephaestusError
from hephaestus_build.download.request_pace import RATE_WINDOW, spacing_of

if TYPE_CHECKING:
    from distributed import Semaphore

# Seconds of one question for a lease, between which a worker looks whether it is to stop.
_QUESTION_SECONDS = 2.0
_PAUSE = 0.2


def turns_of(rate: float) -> tuple[int, float]:
    """Return the number of turns of an archive, and the seconds for which each is kept.

    There is a turn for each request of a second, so that a question to the scheduler does not delay the next
    one. Each is used ``k`` times in :data:`RATE_WINDOW` seconds at most, so that all are used ``RATE_WINDOW *
    rate`` times at most; a fortieth more absorbs delays between a turn and its request.

    Parameters
    ----------
    rate : float
        Requests per second.

    Examples
    --------
    >>> turns_of(4.0)
    (4, 1.025)
    >>> turns_of(0.5)
    (1, 2.4)
    """
    turns = max(1, int(rate))
    if turns == 1:
        return 1, spacing_of(rate)
    each = int(RATE_WINDOW * rate / turns)
    return turns, RATE_WINDOW / each * 1.025


class LeaseBook:
    """The semaphores of a cluster's archives, found by name.

    Parameters
    ----------
    scheduler, loop
        Connection to the scheduler and event loop, of a worker or a client.
    """

    def __init__(self, scheduler: Any, loop: Any) -> None:
        self._scheduler, self._loop = scheduler, loop
        self._known: dict[str, Semaphore] = {}
        self._lock = threading.Lock()

    def places_of(self, archive: str, at_once: int) -> Semaphore:
        """Return the semaphore of requests at once.

        Raises
        ------
        HephaestusError
            If it is in use with another number.
        """
        return self._find(f"hephaestus-build: at once, {archive}", at_once, "connections")

    def turns_of(self, archive: str, rate: float) -> tuple[Semaphore, float]:
        """Return the semaphore of turns, and the seconds for which each is kept.

        Raises
        ------
        HephaestusError
            If it is in use with another rate.
        """
        turns, seconds = turns_of(rate)
        return self._find(f"hephaestus-build: per second, {archive}", turns, "requests_per_second"), seconds

    def forget(self, semaphore: Semaphore) -> None:
        """Ask for the semaphore of this name again: another build has replaced it."""
        with self._lock:
            self._known.pop(semaphore.name, None)

    def _find(self, name: str, leases: int, setting: str) -> Semaphore:
        with self._lock:
            found = self._known.get(name)
            if found is None or found.max_leases != leases:
                found = self._known[name] = self._register(name, leases, setting)
            return found

    def _register(self, name: str, leases: int, setting: str) -> Semaphore:
        from distributed import Semaphore

        semaphore = Semaphore(leases, name, scheduler_rpc=self._scheduler, loop=self._loop)
        try:
            semaphore.register()
        except ValueError:  # of another number
            if semaphore.get_value():
                raise HephaestusError(
                    f"another build on this cluster asks the same archive with another setting {setting} "
                    f"({name.partition(', ')[2]}); use the same setting, or wait until it has ended"
                ) from None
            semaphore.close()  # left by an earlier build
            semaphore = Semaphore(leases, name, scheduler_rpc=self._scheduler, loop=self._loop)
            semaphore.register()
        return semaphore


class ClusterPace:
    """The pace of a worker's requests (:class:`~hephaestus_build.download.request_pace.RequestPace`).

    Parameters
    ----------
    worker : object
        The worker, of Dask.
    check_stop : callable
        Called before each question to the scheduler; raises if no more requests are to be made.
    """

    def __init__(self, worker: Any, check_stop: Callable[[], None]) -> None:
        self._loop, self._check_stop = worker.loop, check_stop
        self._book = LeaseBook(worker.scheduler, worker.loop)

    @contextmanager
    def hold_place(self, archive: str, at_once: int) -> Iterator[None]:
        """Wait for one of the places of an archive, and hold it within the block."""
        places = self._acquire(lambda: self._book.places_of(archive, at_once))
        try:
            yield
        finally:
            places.release()

    def wait_turn(self, archive: str, rate: float) -> None:
        """Wait until a request may begin, and keep the turn for a while."""
        turns = self._acquire(lambda: self._book.turns_of(archive, rate)[0])
        seconds = self._book.turns_of(archive, rate)[1]

        def give_back() -> None:
            asyncio.ensure_future(turns.release())  # noqa: RUF006 (the semaphore holds it)

        self._loop.add_callback(self._loop.call_later, seconds, give_back)

    def _acquire(self, find: Callable[[], Semaphore]) -> Semaphore:
        while True:
            self._check_stop()
            semaphore = find()
            try:
                if semaphore.acquire(timeout=_QUESTION_SECONDS):
                    return semaphore
            except RuntimeError:  # unknown to the scheduler: closed by another build
                self._book.forget(semaphore)
                time.sleep(_PAUSE)
