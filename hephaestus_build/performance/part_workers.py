"""Processes that build the parts of many frames as the tasks of an array do, and are killed now and again."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path


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
        self._alive: set[subprocess.Popen[bytes]] = set()
        self._lock, ended = threading.Lock(), threading.Event()
        killer = threading.Thread(target=self._kill, args=(ended,), daemon=True)
        began = time.perf_counter()
        killer.start()
        try:
            with ThreadPoolExecutor(self.workers) as pool:
                list(pool.map(self._build_part, range(1, self.parts + 1)))
        finally:
            ended.set()
            killer.join()
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
            with self._lock:
                self._alive.add(process)
            code = process.wait()
            with self._lock:
                self._alive.discard(process)
            if code == 0:
                return
            if code != -signal.SIGKILL:
                raise RuntimeError(f"part {number} of {self.parts} ended with {code}; see {self.log}")

    def _kill(self, ended: threading.Event) -> None:
        chance = random.Random(0)
        while not ended.wait(self.kill_every):
            with self._lock, suppress(IndexError, ProcessLookupError):
                victim = chance.choice(sorted(self._alive, key=lambda process: process.pid))
                if victim.poll() is None:
                    victim.kill()
                    self.kills += 1
