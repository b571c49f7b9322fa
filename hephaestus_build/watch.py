"""Look for what is new, build it, and write down what happened, again and again."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from hephaestus_build.build import Result, build
from hephaestus_build.errors import HephaestusError
from hephaestus_build.frames import Frame
from hephaestus_build.plan import Request
from hephaestus_build.progress import Listener
from hephaestus_build.registry import published_frames
from hephaestus_build.settings import Settings

#: One line for every frame of every round, in the data folder.
RUNS = "runs.jsonl"


@dataclass(frozen=True)
class Run:
    """What became of one frame in one round.

    Attributes
    ----------
    frame : Frame
        Which.
    began, seconds
        When, UTC, and for how long.
    result : Result or None
        How its build ended; None where it failed.
    error : str
        Why it failed, in one line.
    """

    frame: Frame
    began: datetime
    seconds: float
    result: Result | None = None
    error: str = ""

    @property
    def exit_code(self) -> int:
        """0 when all is there, 1 when something is owed or went wrong."""
        return self.result.exit_code if self.result else 1

    def to_json(self) -> dict[str, Any]:
        """Return the run as JSON values."""
        return {
            "frame": str(self.frame),
            "began": self.began.isoformat(timespec="seconds"),
            "seconds": round(self.seconds, 1),
            "exit_code": self.exit_code,
            **({"error": self.error} if self.error else {}),
            **({"result": self.result.to_json()} if self.result else {}),
        }


def all_frames() -> list[Frame]:
    """Return the 38 frames of the published data set."""
    return sorted(Frame(name) for name in published_frames())


def build_frames(
    requests: Iterable[Request], settings: Settings, *, listener: Listener | None = None, wait: bool = False
) -> Iterator[Run]:
    """Build frames one after the other; a frame that fails never stops the others.

    Downloads of one frame already use all the connections that are polite, so frames take turns.

    Yields
    ------
    Run
        As each frame ends; it is also written to the data folder's record.
    """
    for request in requests:
        began, clock = datetime.now(UTC), time.monotonic()
        try:
            result = build(request, settings, listener=listener, wait=wait)
            run = Run(request.frame, began, time.monotonic() - clock, result)
        except HephaestusError as error:
            run = Run(request.frame, began, time.monotonic() - clock, error=str(error))
        _record(settings.data_dir / RUNS, run)
        yield run


def watch(
    requests: Sequence[Request],
    settings: Settings,
    *,
    interval: float,
    rounds: int | None = None,
    listener: Listener | None = None,
    sleep: Callable[[float], None] = time.sleep,
) -> Iterator[Run]:
    """Build frames, wait until `interval` seconds after the round began, and again.

    Parameters
    ----------
    requests : sequence of Request
        What to keep up to date.
    settings : Settings
        Where from and where to.
    interval : float
        Seconds from one round's beginning to the next one's.
    rounds : int, optional
        How many rounds; for ever by default.
    listener : Listener, optional
        Who wants to know how far it is.
    sleep : callable
        Waits so many seconds.
    """
    done = 0
    while rounds is None or done < rounds:
        clock = time.monotonic()
        yield from build_frames(requests, settings, listener=listener, wait=True)
        done += 1
        if rounds is None or done < rounds:
            sleep(max(0.0, interval - (time.monotonic() - clock)))


def _record(path: Path, run: Run) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
    try:
        os.write(descriptor, (json.dumps(run.to_json(), ensure_ascii=False) + "\n").encode())
    finally:
        os.close(descriptor)
