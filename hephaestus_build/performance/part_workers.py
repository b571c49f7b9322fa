"""Processes that build the parts of many frames as the tasks of an array do, and are killed now and again."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from hephaestus_build.performance.worker_killer import Worker, WorkerKiller


@dataclass
class PartWorkers:
    """Processes of ``hephaestus build --part``.

    Attributes
    ----------
    command : sequence of str
        The command without the part.
    parts : int
        How many parts.
    workers : int
        How many processes at once.
    environment : mapping
        Their further variables.
    log : pathlib.Path
        What they write.
    kill_every : float or None
        Seconds after which one of them is killed, again and again; what it had begun is begun again.
    kills : int
        How many were killed.
    """

    command: Sequence[str]
    parts: int
    workers: int
    environment: Mapping[str, str]
    log: Path
    kill_every: float | None = None
    kills: int = field(default=0, init=False)

    def run(self) -> float:
        """Build all parts, and return the seconds that it took.

        Raises
        ------
        RuntimeError
            If a process fails for another reason than having been killed.
        """
        self._alive: set[Worker] = set()
        began = time.perf_counter()
        with (
            WorkerKiller(self.kill_every, self._alive.copy) as killer,
            ThreadPoolExecutor(self.workers) as pool,
        ):
            list(pool.map(self._build_part, range(1, self.parts + 1)))
        self.kills = killer.kills
        return time.perf_counter() - began

    def _build_part(self, number: int) -> None:
        command = [*self.command, "--part", f"{number}/{self.parts}"]
        while True:
            with self.log.open("ab") as output:
                process = subprocess.Popen(
                    command,
                    env={**os.environ, **self.environment},
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=output,
                )
            self._alive.add(process)
            code = process.wait()
            self._alive.discard(process)
            if code == 0:
                return
            if code != -signal.SIGKILL:
                raise RuntimeError(f"part {number} of {self.parts} ended with {code}; see {self.log}")
