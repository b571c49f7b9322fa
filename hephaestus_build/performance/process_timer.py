"""One measurement in a process of its own: wall time, processor time and peak memory."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any, Self


class TaskTimer:
    """Adds up the time of the blocks that are run under it.

    Attributes
    ----------
    seconds, cpu : float
        Wall time, and processor time of this process.
    elsewhere : float
        Processor time of everything else on this machine, its host included; 0 where it does not tell.
    """

    def __init__(self) -> None:
        self.seconds = self.cpu = self.elsewhere = 0.0

    def __enter__(self) -> Self:
        self._start = time.perf_counter(), time.process_time(), machine_cpu_seconds()
        return self

    def __exit__(self, *_: object) -> None:
        cpu = time.process_time() - self._start[1]
        self.seconds += time.perf_counter() - self._start[0]
        self.cpu += cpu
        self.elsewhere += max(0.0, machine_cpu_seconds() - self._start[2] - cpu)


@dataclass(frozen=True)
class Measurement:
    """What one run of a task took.

    Attributes
    ----------
    seconds, cpu : float
        Wall and processor time of what the task ran under its clock: imports are not in it.
    peak : int
        Largest resident memory of the whole process, bytes.
    elsewhere : float
        Processor time that everything else took meanwhile: how far the machine was disturbed.
    facts : dict
        JSON values that the task returned.
    """

    seconds: float
    cpu: float
    peak: int
    elsewhere: float
    facts: Mapping[str, Any] = field(default_factory=dict)


def measure_task(task: str, environment: Mapping[str, str] | None = None, **arguments: Any) -> Measurement:
    """Run ``module:function`` in a new process and return what it took.

    Parameters
    ----------
    task : str
        The function takes a :class:`TaskTimer` and the arguments, and returns JSON values.
    environment : mapping, optional
        Variables to set for the process.
    **arguments
        JSON values.

    Raises
    ------
    RuntimeError
        If the process fails; its own words are on standard error.
    """
    done = subprocess.run(
        [sys.executable, "-m", __name__, task],
        input=json.dumps(arguments),
        env={**os.environ, **(environment or {})},
        stdout=subprocess.PIPE,
        text=True,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(f"{task} ended with {done.returncode}")
    return Measurement(**json.loads(done.stdout.splitlines()[-1]))


def peak_memory() -> int:
    """Return the largest resident memory of this process so far, bytes."""
    status = Path("/proc/self/status")
    if status.exists():  # getrusage would count the parent's memory from before exec too
        found = re.search(r"VmHWM:\s*(\d+) kB", status.read_text())
        if found:
            return int(found[1]) * 1024
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def machine_cpu_seconds() -> float:
    """Return the processor time of the whole machine since its start, all but idle; 0 if it does not tell."""
    status = Path("/proc/stat")
    if not status.exists():
        return 0.0
    user, nice, system, _, _, *others = map(int, status.read_text().split("\n", 1)[0].split()[1:9])
    return float(user + nice + system + sum(others)) / os.sysconf("SC_CLK_TCK")


def process_cpu_seconds(pid: int) -> float:
    """Return the processor time of a process and of its children that have ended; 0 if it does not tell."""
    status = Path(f"/proc/{pid}/stat")
    if not status.exists():
        return 0.0
    # the name of the program, in parentheses, may hold anything
    values = status.read_text().rpartition(")")[2].split()
    return sum(map(int, values[11:15])) / os.sysconf("SC_CLK_TCK")


def wait_until_idle(limit: float, share: float = 0.1) -> None:
    """Wait until less than `share` of one core is in use, at most `limit` seconds."""
    end = time.monotonic() + limit
    while time.monotonic() < end:
        before = machine_cpu_seconds()
        time.sleep(2)
        if machine_cpu_seconds() - before < 2 * share:
            return


def _main(task: str) -> None:
    module, _, function = task.partition(":")
    work = getattr(import_module(module), function)
    clock = TaskTimer()
    facts = work(clock, **json.load(sys.stdin))
    print(json.dumps(vars(Measurement(clock.seconds, clock.cpu, peak_memory(), clock.elsewhere, facts))))


if __name__ == "__main__":
    _main(sys.argv[1])
