"""The task of one frame, as a worker runs it: the build, and the events by which the caller sees it.

A task is stopped from outside at its next request, image or message: once the scheduler has taken it from the
worker, because the caller has cancelled it, has ended or has lost its connection.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

from hephaestus_build.cluster.frame_events import OWN_LOGGER, EventSender, LogForwarder
from hephaestus_build.cluster.request_leases import ClusterPace
from hephaestus_build.cluster.worker_check import (
    WorkerRequirements,
    find_worker_problem,
)
from hephaestus_build.core.errors import FrameBusyError, HephaestusError
from hephaestus_build.core.machine.limits import identify_shared_cores, read_machine_limits
from hephaestus_build.core.settings import Settings
from hephaestus_build.download.request_pace import set_request_pace
from hephaestus_build.operations.batch import build_one_frame
from hephaestus_build.operations.run_log import BuildRun
from hephaestus_build.pipeline.plan import BuildRequest

_BUSY_SECONDS = 3.0  # between two looks at a frame that another build works on


class StopFrame(BaseException):
    """Raised in a build whose task was taken from its worker."""


@dataclass(frozen=True)
class FrameTask:
    """What a worker needs to build a frame.

    Attributes
    ----------
    build : str
        Name of the caller's build, by which it knows its events.
    request : BuildRequest
        What to build.
    settings : Settings
        Archives, folders and limits of the frame.
    wait : bool
        Whether to wait for another build of the same frame.
    log_level : int
        Level from which on the lines of the log go to the caller.
    frames_by_place : mapping of str to int
        Frames that are built at once where workers share cores.
    requirements : WorkerRequirements
        What a worker must have that was not there when the others were checked.
    checked : frozenset of str
        Addresses of those.
    """

    build: str
    request: BuildRequest
    settings: Settings
    wait: bool
    log_level: int
    frames_by_place: Mapping[str, int]
    requirements: WorkerRequirements
    checked: frozenset[str]

    def local_settings(self, threads: int) -> Settings:
        """Return the settings for this worker, of so many threads: it takes its part of the cores."""
        if self.settings.workers:
            return self.settings
        frames = max(threads, self.frames_by_place.get(identify_shared_cores(), 0))
        workers = max(1, read_machine_limits().image_workers // frames)
        return self.settings.model_copy(update={"workers": workers})


class _RunningTasks:
    """The tasks of this process, which share the cluster's pace; each caller gets the log once."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._stops: dict[str, Callable[[], bool]] = {}
        self._forwarders: dict[str, tuple[LogForwarder, int]] = {}
        self._has_pace = False

    @contextmanager
    def join(
        self, worker: Any, key: str, task: FrameTask, events: EventSender, is_stopped: Callable[[], bool]
    ) -> Iterator[None]:
        logger = logging.getLogger(OWN_LOGGER)
        with self._lock:
            if not self._has_pace:
                set_request_pace(ClusterPace(worker, self._check_all))
                self._has_pace = True
            self._stops[key] = is_stopped
            forwarder, users = self._forwarders.get(task.build) or (LogForwarder(events, task.log_level), 0)
            self._forwarders[task.build] = forwarder, users + 1
            if not users:
                logger.addHandler(forwarder)
            logger.setLevel(min(item.level for item, _ in self._forwarders.values()))
        try:
            yield
        finally:
            with self._lock:
                del self._stops[key]
                forwarder, users = self._forwarders.pop(task.build)
                if users > 1:
                    self._forwarders[task.build] = forwarder, users - 1
                else:
                    logger.removeHandler(forwarder)

    def _check_all(self) -> None:
        """Raise if every task is stopped: a request does not know whose it is."""
        with self._lock:
            stops = list(self._stops.values())
        if all(is_stopped() for is_stopped in stops):
            raise StopFrame


_running = _RunningTasks()


@dataclass(frozen=True)
class FrameOutcome:
    """What became of a task.

    Attributes
    ----------
    run : BuildRun or None
        The run; None if it was stopped, or if the worker does not fit.
    problem : str
        Why the worker cannot build.
    """

    run: BuildRun | None
    problem: str = ""


def build_frame_here(task: FrameTask) -> FrameOutcome:
    """Build a frame in the task of a worker."""
    from distributed import get_worker

    worker = get_worker()
    if worker.address not in task.checked and (problem := find_worker_problem(task.requirements)):
        return FrameOutcome(None, problem)
    key = str(worker.get_current_task())

    def is_stopped() -> bool:
        known = worker.state.tasks.get(key)
        return known is None or known.state == "cancelled" or worker.status.name in ("closing", "closed")

    def check_stop() -> None:
        if is_stopped():
            raise StopFrame

    events = EventSender(worker, task.build, task.request.frame.id, check_stop)
    with _running.join(worker, key, task, events, is_stopped):
        events.send("began")
        try:
            return FrameOutcome(_build_patiently(task, events, check_stop, worker.state.nthreads))
        except StopFrame:
            return FrameOutcome(None)
        finally:
            events.send("ended")


def _build_patiently(
    task: FrameTask, events: EventSender, check_stop: Callable[[], None], threads: int
) -> BuildRun:
    """Build a frame; where another build works on it and the task says so, once that has ended."""
    settings = task.local_settings(threads)
    while True:
        run = build_one_frame(task.request, settings, events, is_recorded=False)
        check_stop()
        if not (task.wait and isinstance(run.exception, FrameBusyError)):
            return replace(run, exception=_portable(run.exception, run.error))
        time.sleep(_BUSY_SECONDS)


def _portable(error: Exception | None, said: str) -> Exception | None:
    """Return an error that the caller can read: those of libraries may lack what they are made of there."""
    return error if error is None or isinstance(error, HephaestusError) else HephaestusError(said)
