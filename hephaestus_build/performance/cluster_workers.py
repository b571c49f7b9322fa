"""A build of many frames on a Dask cluster of separate processes, of which some are killed."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from hephaestus_build.performance.dask_processes import DaskProcesses
from hephaestus_build.performance.process_timer import process_cpu_seconds
from hephaestus_build.performance.worker_killer import Worker, WorkerKiller


@dataclass
class ClusterWorkers:
    """A scheduler, workers, and ``hephaestus build --cluster``, each a process of its own.

    Attributes
    ----------
    command : sequence of str
        The command without the cluster.
    workers : int
        How many workers.
    environment : mapping
        Further variables of all processes.
    folder : pathlib.Path
        Of what they write, and scratch folders.
    kill_every : float or None
        Seconds after which a worker is killed, and another one joins, again and again.
    kills : int
        How many were killed.
    scheduler_cpu, command_cpu : float
        Processor seconds of the scheduler and of the command while the frames were built.
    """

    command: Sequence[str]
    workers: int
    environment: Mapping[str, str]
    folder: Path
    kill_every: float | None = None
    kills: int = field(default=0, init=False)
    scheduler_cpu: float = field(default=0.0, init=False)
    command_cpu: float = field(default=0.0, init=False)

    def run(self) -> float:
        """Build all frames, and return the seconds that it took from when the workers were there.

        Raises
        ------
        RuntimeError
            If a process does not start, or the command fails.
        """
        with DaskProcesses(self.folder, self.environment) as cluster:
            running: list[Worker] = [cluster.add_worker(wait=False) for _ in range(self.workers)]
            cluster.wait_for_workers(self.workers)

            def replace(killed: Worker) -> None:
                running.remove(killed)
                running.append(cluster.add_worker(wait=False))

            began, before = time.perf_counter(), process_cpu_seconds(cluster.scheduler.pid)
            with WorkerKiller(self.kill_every, lambda: list(running), replace) as killer:
                code = self._run_command(cluster.address)
            seconds = time.perf_counter() - began
            self.kills = killer.kills
            self.scheduler_cpu = process_cpu_seconds(cluster.scheduler.pid) - before
        if code:
            raise RuntimeError(f"the build on a cluster ended with {code}; see {self._log}")
        return seconds

    @property
    def _log(self) -> Path:
        return self.folder / "command.txt"

    def _run_command(self, address: str) -> int:
        with self._log.open("wb") as output:
            process = subprocess.Popen(
                [*self.command, "--cluster", address],
                env={**os.environ, **self.environment},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
            )
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        self.command_cpu = usage.ru_utime + usage.ru_stime
        return process.returncode
