"""What it costs to add one interferogram to a cube that has many; runs in a process of its own."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from hephaestus_build.core.frames import Frame
from hephaestus_build.core.settings import load_settings
from hephaestus_build.performance.process_timer import TaskTimer
from hephaestus_build.pipeline.build import build
from hephaestus_build.pipeline.plan import BuildRequest

_MAIN = "from hephaestus_build.cli import run_console_script; run_console_script()"


def run_incremental_builds(clock: TaskTimer, frame: str, data: str, pairs: int, more: int) -> dict[str, Any]:
    """Build a cube of `pairs` interferograms, then add `more`, each in a build of its own.

    The clock runs while they are added. The data folder is emptied first. As many are added after that by the
    command that a user types, which must start first.
    """
    settings = load_settings(data_dir=Path(data)).for_frame(Frame(frame))
    shutil.rmtree(settings.data_dir, ignore_errors=True)
    result = build(BuildRequest(Frame(frame), limit=pairs), settings)
    if result.pairs != pairs:
        raise RuntimeError(f"the archive has fewer than {pairs} pairs")
    seconds, dates = [], []
    for limit in range(pairs + 1, pairs + 1 + more):
        known = result.epochs
        with clock:
            start = time.perf_counter()
            result = build(BuildRequest(Frame(frame), limit=limit), settings)
            seconds.append(time.perf_counter() - start)
        dates.append(result.epochs - known)
        if result.pairs != limit or not result.published:
            raise RuntimeError(f"the build of {limit} pairs has {result.pairs}")
    with clock:
        start = time.perf_counter()
        again = build(BuildRequest(Frame(frame), limit=limit), settings)
        nothing = time.perf_counter() - start
    if again.published:
        raise RuntimeError("a build without anything new was published")
    commands = [_time_command(frame, data, limit + number) for number in range(1, more + 1)]
    if build(BuildRequest(Frame(frame), limit=limit + more), settings).pairs != limit + more:
        raise RuntimeError(f"the archive has fewer than {limit + more} pairs")
    return {
        "pairs": pairs,
        "seconds": seconds,
        "dates": dates,
        "nothing_new": nothing,
        "commands": commands,
    }


def _time_command(frame: str, data: str, limit: int) -> float:
    """Return the seconds that ``hephaestus build`` takes to add the pair that makes it `limit`."""
    command = [sys.executable, "-c", _MAIN, "build", frame, "--limit", str(limit)]
    start = time.perf_counter()
    subprocess.run(command, env={**os.environ, "HEPHAESTUS_DATA_DIR": data}, check=True, capture_output=True)
    return time.perf_counter() - start
