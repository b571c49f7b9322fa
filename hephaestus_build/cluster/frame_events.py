"""What happens to a frame on a worker, as events on the scheduler that the caller receives."""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

from hephaestus_build.core.progress import ProgressListener
from hephaestus_build.download.traffic import TRAFFIC

#: Topic of the events on the scheduler, which keeps the last thousand of them.
TOPIC = "hephaestus-build"
#: Logger whose lines go to the caller.
OWN_LOGGER = "hephaestus_build"
_EVENT_SECONDS = 0.5  # between two events that only count steps


class EventSender:
    """Sends what happens to a frame to the caller; a listener of the build.

    Steps are counted and sent together, since an event is a message to the scheduler.

    Parameters
    ----------
    worker : object
        The worker, of Dask.
    build, frame : str
        Name of the caller's build, and id of the frame.
    check_stop : callable
        Called at each event of the build; raises to stop it.
    """

    def __init__(self, worker: Any, build: str, frame: str, check_stop: Callable[[], None]) -> None:
        self._worker, self._check_stop = worker, check_stop
        self._head = {"build": build, "frame": frame}
        self._lock = threading.Lock()
        self._steps: Counter[str] = Counter()
        self._sent = 0.0

    def stage(self, name: str, total: int) -> None:
        """Send the start of a stage."""
        self._check_stop()
        self.send("stage", name=name, total=total)

    def advance(self, name: str, steps: int = 1) -> None:
        """Count steps, and send them if it is time to."""
        self._check_stop()
        with self._lock:
            self._steps[name] += steps
            is_due = time.monotonic() - self._sent > _EVENT_SECONDS
        if is_due:
            self.send("steps")

    def note(self, text: str) -> None:
        """Send a message for the user."""
        self._check_stop()
        self.send("note", text=text)

    def send(self, kind: str, **about: object) -> None:
        """Send an event, after the steps that were counted."""
        with self._lock:
            steps, self._steps = dict(self._steps), Counter()
            self._sent = time.monotonic()
            event = {**self._head, "kind": kind, "about": about, "steps": steps, "received": _take_received()}
            self._worker.log_event(TOPIC, event)


_received_lock = threading.Lock()
_received = 0


def _take_received() -> int:
    """Return the number of bytes that this process has received since the last call."""
    global _received
    with _received_lock:
        before, _received = _received, TRAFFIC.received_bytes
        return _received - before


class LogForwarder(logging.Handler):
    """Sends the lines of the log of this process to a caller.

    Parameters
    ----------
    events : EventSender
        Sends them.
    level : int
        Level from which on they are sent.
    """

    def __init__(self, events: EventSender, level: int) -> None:
        super().__init__(level)
        self._events = events
        self._line = logging.Formatter("%(message)s")

    def emit(self, record: logging.LogRecord) -> None:
        """Send a line, with the traceback if it has one."""
        self._events.send("log", logger=record.name, level=record.levelno, text=self._line.format(record))


def show_event(event: dict[str, Any], listener: ProgressListener) -> None:
    """Show an event to the caller: progress, notes and lines of the log.

    Parameters
    ----------
    event : dict
        The event.
    listener : ProgressListener
        Receives progress of the frame.
    """
    TRAFFIC.add_bytes(event["received"])
    for name, steps in event["steps"].items():
        listener.advance(name, steps)
    about = event["about"]
    match event["kind"]:
        case "stage":
            listener.stage(about["name"], about["total"])
        case "note":
            listener.note(about["text"])
        case "log" if str(about["logger"]).startswith(OWN_LOGGER):
            level, worker = int(about["level"]), event.get("worker")
            logging.getLogger(about["logger"]).log(level, "%s (worker %s)", about["text"], worker)
