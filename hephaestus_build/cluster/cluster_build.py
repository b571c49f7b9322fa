"""Builds of many frames on a cluster, as the caller runs them: one frame a task, heaviest first."""

from __future__ import annotations

import logging
import queue
import secrets
import time
from collections import Counter
from collections.abc import Generator, Mapping, Sequence
from contextlib import suppress
from contextvars import copy_context
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hephaestus_build.cluster.connection import connect_to_cluster, parse_local_workers
from hephaestus_build.cluster.frame_events import OWN_LOGGER, TOPIC, show_event
from hephaestus_build.cluster.frame_task import FrameOutcome, FrameTask, build_frame_here
from hephaestus_build.cluster.pending_frame import PendingFrame
from hephaestus_build.cluster.request_leases import LeaseBook
from hephaestus_build.cluster.worker_check import (
    WorkerReport,
    WorkerRequirements,
    check_scheduler,
    check_workers,
    describe_unfit,
    require_of_workers,
)
from hephaestus_build.core.errors import HephaestusError
from hephaestus_build.core.plain_text import count_of, sanitize_text
from hephaestus_build.core.progress import NullListener, PrefixedListener, ProgressListener
from hephaestus_build.core.settings import Settings
from hephaestus_build.core.web_address import HttpUrl
from hephaestus_build.operations.run_log import BuildRun, record_finished_run
from hephaestus_build.pipeline.frame_cost import expected_cost
from hephaestus_build.pipeline.plan import BuildRequest

if TYPE_CHECKING:
    from distributed import Client

log = logging.getLogger(__name__)

_LOOK_SECONDS = 1.0  # between two looks at the cluster while no frame ends
_STOP_SECONDS = 3.0  # for the frames to stop, of the five of Ctrl-C
_MOST_TRIES = 10  # of a frame, each of which Dask repeats on a few workers


def build_on_cluster(
    requests: Sequence[BuildRequest],
    settings: Settings,
    address: str,
    *,
    listener: ProgressListener | None = None,
    wait: bool = False,
) -> Generator[BuildRun]:
    """Build frames on a Dask cluster, one frame a task; a failed frame does not stop the others.

    The frame of a worker that is lost is built elsewhere, from what is finished. Where the iteration ends
    early, the frames are stopped; the cluster goes on.

    Parameters
    ----------
    requests : sequence of BuildRequest
        What to build, each frame once.
    settings : Settings
        Archives, folders and limits, for all workers; limits hold for the cluster as a whole.
    address : str
        Address of the scheduler, or ``local:N`` for N workers on this machine.
    listener : ProgressListener, optional
        Receives progress.
    wait : bool
        Whether to wait for another build of the same frame.

    Yields
    ------
    BuildRun
        The run of each frame, as it ends; it is also written to the log of runs, unless another build was at
        work on the frame.

    Raises
    ------
    UsageError
        If `address` is no address.
    HephaestusError
        If no scheduler answers, a worker cannot build, or the connection is lost.
    """
    parse_local_workers(address)
    if not requests:
        return
    settings = _with_absolute_folders(settings)
    first = settings.for_frame(requests[0].frame)
    with connect_to_cluster(address, len(requests)) as client, require_of_workers(first) as requirements:
        build = _ClusterBuild(client, settings, requirements, listener or NullListener(), wait)
        build.check()
        build.register_limits()
        try:
            build.start(sorted(requests, key=lambda item: -expected_cost(item).download_bytes))
            for run in build.collect():
                record_finished_run(settings.for_frame(run.frame).data_dir, run)
                yield run
        finally:
            build.stop()


def _with_absolute_folders(settings: Settings) -> Settings:
    """Return settings that mean the same in any working folder."""
    folders: dict[str, Any] = {
        name: folder.absolute()
        for name in ("data_dir", "cache_dir")
        if (folder := getattr(settings, name)) is not None
    }
    if settings.annotations and "://" not in settings.annotations:
        folders["annotations"] = str(Path(settings.annotations).absolute())
    return settings.model_copy(update=folders)


class _ClusterBuild:
    def __init__(
        self,
        client: Client,
        settings: Settings,
        requirements: WorkerRequirements,
        listener: ProgressListener,
        wait: bool,
    ) -> None:
        self._client, self._settings, self._requirements = client, settings, requirements
        self._address = client.scheduler.address if client.scheduler else ""
        self._listener, self._wait = listener, wait
        self._context = copy_context()  # in which the caller's loggers know it
        self._name = secrets.token_hex(8)
        self._frames: dict[str, PendingFrame] = {}
        self._done: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._at_work: dict[str, bool] = {}  # whether a worker has said that it began, and not that it ended
        self._fit: dict[str, WorkerReport] = {}
        self._said_unfit: set[str] = set()
        self._frames_by_place: Counter[str] = Counter()
        self._clock = time.monotonic()

    # before the first frame

    def check(self) -> None:
        """Check the workers that are there; wait until there is one.

        Raises
        ------
        HephaestusError
            If one cannot build.
        """
        if not self._workers():
            self._listener.note("the cluster has no worker yet: waiting for one")
        while not (present := self._workers()):
            self._require_connection()
            time.sleep(_LOOK_SECONDS)
        reports = check_workers(self._client, self._requirements, present)
        if problem := check_scheduler(self._client) or describe_unfit(reports):
            raise HephaestusError(problem)
        self._fit = reports
        for address, report in reports.items():
            self._frames_by_place[report.place] += present[address]
        slots = sum(self._frames_by_place.values())
        self._listener.note(
            f"{count_of(len(present), 'worker')} of the cluster at {self._address} can build, "
            f"{count_of(slots, 'frame')} at once"
        )

    def register_limits(self) -> None:
        """Have the scheduler make the leases of the archives that are known, as the settings say."""
        book = LeaseBook(self._client.scheduler, self._client.loop)
        home = self._settings.for_simulated() if self._settings.embedded_archive else self._settings
        for text in (home.licsar_url, home.licsar_mirror_url, home.annotations, home.arco_url):
            with suppress(ValueError):
                url = HttpUrl.parse(text or "")
                book.places_of(url.netloc, home.connections_allowed)
                if (rate := home.request_rate(is_loopback=url.is_loopback)) is not None:
                    book.turns_of(url.netloc, rate)

    # the frames

    def start(self, requests: Sequence[BuildRequest]) -> None:
        """Submit frames, in their order."""
        self._client.subscribe_topic(TOPIC, self._receive)
        for rank, request in enumerate(requests):
            self._frames[request.frame.id] = frame = PendingFrame(request, rank)
            self._submit(frame)

    def _submit(self, frame: PendingFrame) -> None:
        name = frame.request.frame.id
        frame.tries += 1
        frame.starts = frame.steps = 0
        task = FrameTask(
            build=self._name,
            request=frame.request,
            settings=self._settings,
            wait=self._wait or frame.began > 0,  # its earlier worker may not have ended yet
            log_level=logging.getLogger(OWN_LOGGER).getEffectiveLevel(),
            frames_by_place=dict(self._frames_by_place),
            requirements=self._requirements,
            checked=frozenset(self._fit),
        )
        frame.future = self._client.submit(
            build_frame_here,
            task,
            key=f"hephaestus-build-{name}-{self._name}-{frame.tries}",
            priority=-frame.rank,
            pure=False,
            workers=frame.workers or None,
        )
        frame.future.add_done_callback(lambda _: self._done.put(name))

    def collect(self) -> Generator[BuildRun]:
        """Yield the run of each frame as it ends, and submit those again that ended for another reason."""
        had_workers = True
        while self._frames:
            try:
                frame = self._frames[self._done.get(timeout=_LOOK_SECONDS)]
            except queue.Empty:
                self._require_connection()
                present = self._workers()
                if had_workers and not present:
                    self._listener.note("the cluster has no worker left: waiting for one")
                had_workers = bool(present)
                self._release_stranded(present)
                continue
            except KeyError:  # of a task that was replaced meanwhile
                continue
            run = self._settle(frame)
            if run is None:
                self._submit(frame)
            else:
                del self._frames[frame.request.frame.id]
                yield run

    def _settle(self, frame: PendingFrame) -> BuildRun | None:
        """Return the run of a frame whose task has ended; None if it is to be submitted again."""
        future = frame.future
        assert future is not None
        if future.status in ("cancelled", "lost"):
            self._require_connection(lost=True)
        if future.status == "error":
            return self._settle_failed_task(frame, future.exception())
        outcome: FrameOutcome = future.result()
        run = outcome.run
        if run is None:
            self._exclude_unfit(frame, outcome.problem)
            return None
        if run.is_skipped and frame.began > 1:
            return None  # the worker that was lost holds its lock a while longer
        return run

    def _settle_failed_task(self, frame: PendingFrame, error: BaseException | None) -> BuildRun | None:
        from distributed import KilledWorker

        name = frame.request.frame
        if isinstance(error, KilledWorker):
            if frame.tries < _MOST_TRIES and (frame.steps or not frame.starts):
                return None  # it went on, or had not begun: its workers are stopped for another reason
            said = (
                f"{name}: each worker that built it was lost, {error.last_worker.address} last: their logs "
                f"say why, too little memory is usual; the same command goes on from what is finished"
            )
        else:
            self._exclude_unfit(frame, "")
            if frame.workers and frame.tries < _MOST_TRIES:
                return None
            said = (
                f"{name}: its task failed ({type(error).__name__}: {sanitize_text(error, 500)}); the log of "
                f"its worker says more, the same command tries again"
            )
        seconds = (datetime.now(UTC) - frame.since).total_seconds()
        return BuildRun(name, frame.since, seconds, error=said, exception=HephaestusError(said))

    def _exclude_unfit(self, frame: PendingFrame, problem: str) -> None:
        """Leave a frame to the workers that can build: one has joined that cannot.

        Raises
        ------
        HephaestusError
            If no worker can.
        """
        present = self._workers()
        if problem or any(worker not in self._fit for worker in present):
            reports = check_workers(self._client, self._requirements, set(present) - set(self._fit))
            self._fit |= {worker: report for worker, report in reports.items() if not report.problem}
            said = describe_unfit(reports)
            if said and said not in self._said_unfit:
                self._said_unfit.add(said)
                log.warning("%s; its frames go to the others", said)
            if said:
                frame.workers = [worker for worker in present if worker in self._fit]
                if not frame.workers:
                    raise HephaestusError(said)

    def _release_stranded(self, present: Mapping[str, int]) -> None:
        """Submit frames again that only workers may build which have gone."""
        for frame in self._frames.values():
            if frame.workers and not any(worker in present for worker in frame.workers):
                assert frame.future is not None
                future, frame.workers = frame.future, []
                self._submit(frame)
                self._client.cancel([future], force=True)

    def stop(self) -> None:
        """Stop the frames that are not finished, and wait a moment until they have stopped."""
        futures = [frame.future for frame in self._frames.values() if frame.future is not None]
        if self._client.status != "running":
            return
        if futures:
            self._client.cancel(futures, force=True)
            end = time.monotonic() + _STOP_SECONDS
            while any(self._at_work.values()) and time.monotonic() < end:
                time.sleep(0.05)
        self._client.unsubscribe_topic(TOPIC)

    # what the cluster says

    def _workers(self) -> dict[str, int]:
        """Return the threads of each worker, by its address."""
        try:
            return dict(self._client.nthreads())
        except OSError:
            self._require_connection(lost=True)
            raise

    def _require_connection(self, *, lost: bool = False) -> None:
        if lost or self._client.status != "running":
            raise HephaestusError(
                f"the connection to the scheduler at {self._address} is lost: look at its log, start it "
                f"again where it has ended; the same command goes on from what is finished"
            )

    def _receive(self, event: tuple[float, Any]) -> None:
        """Show what a worker says; called in the thread of the connection."""
        said = event[1]
        if isinstance(said, dict) and said.get("build") == self._name:
            self._context.run(self._show, said)

    def _show(self, said: dict[str, Any]) -> None:
        shown = PrefixedListener(self._listener, said["frame"])
        if (frame := self._frames.get(said["frame"])) is not None:
            frame.note_event(said, shown)
        show_event(said, shown)
        if said["kind"] in ("began", "ended"):
            self._at_work[said["frame"]] = said["kind"] == "began"
