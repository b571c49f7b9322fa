"""What kills one of several workers now and again, as preemption and lack of memory do."""

from __future__ import annotations

import random
import subprocess
import threading
from collections.abc import Callable, Collection
from typing import Self

Worker = subprocess.Popen[bytes]


class WorkerKiller:
    """A thread that kills a worker again and again; a context manager.

    Parameters
    ----------
    every : float or None
        Seconds between two kills; None kills none.
    workers : callable
        Returns the workers that run.
    replace : callable, optional
        Called with a worker that was killed.

    Attributes
    ----------
    kills : int
        How many were killed.
    """

    def __init__(
        self,
        every: float | None,
        workers: Callable[[], Collection[Worker]],
        replace: Callable[[Worker], None] = lambda _: None,
    ) -> None:
        self._every, self._workers, self._replace = every, workers, replace
        self.kills = 0
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def _run(self) -> None:
        chance = random.Random(0)
        while not self._ended.wait(self._every):
            running = sorted(
                (worker for worker in self._workers() if worker.poll() is None), key=lambda item: item.pid
            )
            if running:
                victim = chance.choice(running)
                victim.kill()
                self.kills += 1
                self._replace(victim)
