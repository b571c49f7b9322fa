"""A Dask cluster of separate processes on this machine, as others run it on many."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

#: Seconds for a process to start, on a machine with other work.
PATIENCE = 120.0


class DaskProcesses:
    """A scheduler and workers, each a process with a scratch folder of its own; a context manager.

    Parameters
    ----------
    folder : pathlib.Path
        Folder of logs and scratch folders.
    environment : mapping, optional
        Variables of all processes beside those of this one.
    scheduler_environment : mapping, optional
        Further ones of the scheduler.
    """

    def __init__(
        self,
        folder: Path,
        environment: Mapping[str, str] | None = None,
        scheduler_environment: Mapping[str, str] | None = None,
    ) -> None:
        self._folder, self._environment = folder, dict(environment or {})
        self._scheduler_environment = scheduler_environment
        self._processes: list[subprocess.Popen[bytes]] = []
        folder.mkdir(parents=True, exist_ok=True)

    def __enter__(self) -> Self:
        place = self._folder / "scheduler.json"
        options = ["--host", "127.0.0.1", "--port", "0", "--scheduler-file", str(place)]
        options += ["--no-dashboard", "--dashboard-address", "127.0.0.1:0"]
        self.scheduler = self._start("scheduler", options, self._scheduler_environment)
        self._wait_until(lambda: place.is_file() and place.read_text().endswith("}"))
        self.address: str = json.loads(place.read_text())["address"]
        return self

    def add_worker(
        self, *options: str, environment: Mapping[str, str] | None = None, wait: bool = True
    ) -> subprocess.Popen[bytes]:
        """Start a worker of one thread, a single process without a nanny that would start it again."""
        name = f"worker-{len(self._processes)}"
        common = ["--nthreads", "1", "--no-nanny", "--no-dashboard", "--memory-limit", "0", "--name", name]
        scratch = ["--local-directory", str(self._folder / name)]
        worker = self._start("worker", [self.address, *common, *scratch, *options], environment, name)
        if wait:
            self._wait_until(lambda: "Registered to" in self.log_of(name))
        return worker

    def wait_for_workers(self, count: int) -> None:
        """Wait until so many workers have registered."""
        names = [f"worker-{number}" for number in range(1, len(self._processes))]
        self._wait_until(lambda: sum("Registered to" in self.log_of(name) for name in names) >= count)

    def log_of(self, name: str) -> str:
        """Return what a process has written."""
        return (self._folder / f"{name}.log").read_text(errors="replace")

    def _start(
        self,
        kind: str,
        options: list[str],
        environment: Mapping[str, str] | None = None,
        name: str = "scheduler",
    ) -> subprocess.Popen[bytes]:
        with (self._folder / f"{name}.log").open("wb") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "dask", kind, *options],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env={**os.environ, **self._environment, **(environment or {})},
                cwd=self._folder,
                start_new_session=True,
            )
        self._processes.append(process)
        return process

    def _wait_until(self, is_so: Callable[[], bool]) -> None:
        end = time.monotonic() + PATIENCE
        while not is_so():
            if time.monotonic() > end or self._processes[-1].poll() is not None:
                raise RuntimeError(f"a process of the cluster did not start; see the logs in {self._folder}")
            time.sleep(0.05)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for process in self._processes:
            process.kill()
        for process in self._processes:
            process.wait()
