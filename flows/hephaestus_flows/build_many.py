"""The flows ``build-dataset`` and ``watch``: many frames, each a task, a few at a time.

A task returns the logged run of its frame, failed or not: a failed frame does not stop the others. Frames are
built by :func:`hephaestus_build.operations.batch.build_frames`.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any

from prefect import flow, get_run_logger, task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State
from prefect.runtime import flow_run
from prefect.states import Completed, Failed
from prefect.task_runners import ThreadPoolTaskRunner
from prefect.utilities.annotations import quote
from pydantic import Field

from hephaestus_build.cluster.cluster_build import build_on_cluster
from hephaestus_build.cluster.connection import parse_local_workers
from hephaestus_build.core.errors import UsageError
from hephaestus_build.core.frame_search import frame_named, list_published_frames
from hephaestus_build.core.plain_text import count_of, sanitize_text
from hephaestus_build.core.settings import Era5Choice, PairChoice, Settings
from hephaestus_build.operations.batch import build_frames
from hephaestus_build.operations.look_schedule import WatchRound, plan_round
from hephaestus_build.operations.round_report import RoundReporter
from hephaestus_build.operations.run_log import BuildRun
from hephaestus_build.operations.status import frames_with_settings
from hephaestus_build.pipeline.frame_cost import expected_cost
from hephaestus_build.pipeline.plan import BuildRequest
from hephaestus_build.simulation.server.embedded import embedded_frames, serve_for_frames
from hephaestus_flows.artifacts import create_rows_artifact
from hephaestus_flows.build_frame import LICSAR_TAG, OWED_STATE, SKIPPED_STATE, RunLogListener
from hephaestus_flows.concurrency_limits import report_waiting
from hephaestus_flows.failures import EXPECTED_FAILURES, failed_state
from hephaestus_flows.frame_runs import create_frame_runs
from hephaestus_flows.parameter_folders import load_flow_settings
from hephaestus_flows.parameter_types import Day, FrameName

#: Interval of the served flow ``watch``; LiCSAR adds interferograms about every six days.
WATCH_INTERVAL = timedelta(hours=12)

_MOST_LOCAL_WORKERS = 32

FramesAtOnce = Annotated[int, Field(ge=1, le=8, description="Frames at once; they share the connections.")]


@task(name="frame", task_run_name="{frame}", cache_policy=NO_CACHE, persist_result=False, tags=[LICSAR_TAG])
def build_frame_task(
    frame: str, request: BuildRequest, settings: Settings, *, only_news: bool = False
) -> BuildRun:
    """Build one frame and return its run, failed or not.

    It never waits for another build of the frame, since that may wait for the slot that this task holds.
    """
    return next(iter(build_frames([request], settings, only_news=only_news)))


def _build_all(
    requests: Sequence[BuildRequest], settings: Settings, at_a_time: int, *, only_news: bool = False
) -> list[BuildRun]:
    at_a_time = min(at_a_time, settings.connections_allowed)
    share = settings.model_copy(update={"connections": settings.connections // at_a_time})
    runner: ThreadPoolTaskRunner[BuildRun] = ThreadPoolTaskRunner(max_workers=at_a_time)
    with runner, report_waiting(LICSAR_TAG):
        futures = [
            runner.submit(
                build_frame_task,
                {
                    "frame": str(item.frame),
                    "request": quote(item),
                    "settings": quote(share),
                    "only_news": only_news,
                },
            )
            for item in requests
        ]
        return [future.result() for future in futures]


@task(name="cluster", task_run_name="cluster", cache_policy=NO_CACHE, persist_result=False, tags=[LICSAR_TAG])
def build_on_cluster_task(
    cluster: str, requests: Sequence[BuildRequest], settings: Settings
) -> list[BuildRun]:
    """Build frames on a Dask cluster and return their runs, failed or not; all have one slot of a limit."""
    return list(build_on_cluster(requests, settings, cluster, listener=RunLogListener()))


def _require_allowed(cluster: str, settings: Settings) -> None:
    """Check that a cluster is one of this machine or of the settings: what it answers is run here.

    Raises
    ------
    UsageError
        If it is neither.
    """
    workers = parse_local_workers(cluster)
    if workers is None and cluster not in settings.clusters:
        raise UsageError(
            f"the cluster {sanitize_text(cluster, 200)} is not in the setting clusters; add it to "
            f"HEPHAESTUS_CLUSTERS of the process that runs the flows, and start that again"
        )
    if workers is not None and workers > _MOST_LOCAL_WORKERS:
        raise UsageError(f"{cluster}: a flow starts at most {_MOST_LOCAL_WORKERS} workers on its machine")


def _final_state(runs: Sequence[BuildRun], key: str) -> State[Any]:
    create_rows_artifact(map(_run_row, runs), key, count_of(len(runs), "frame"))
    skipped = [run for run in runs if run.is_skipped]
    failed = [run for run in runs if run.result is None and run not in skipped]
    owed = [run for run in runs if run.result is not None and run.result.owed]
    whole = len(runs) - len(failed) - len(owed) - len(skipped)
    said = f"{count_of(len(runs), 'frame')}: {whole} whole, {len(owed)} owe, {len(failed)} failed"
    said += f", {len(skipped)} skipped, where another build is at work" if skipped else ""
    data = [run.to_json() for run in runs]
    if failed:
        return Failed(message=sanitize_text(f"{said}; {failed[0].error}", 2000), data=data)
    name = OWED_STATE if owed else SKIPPED_STATE if len(skipped) == len(runs) else "Completed"
    return Completed(name=name, message=said, data=data)


def _run_row(run: BuildRun) -> dict[str, Any]:
    result = run.result
    if result is None:
        return {
            "frame": str(run.frame),
            "state": "skipped" if run.is_skipped else "failed",
            "why": run.error,
        }
    return {
        "frame": str(run.frame),
        "state": "owed" if result.owed else "whole",
        "generation": result.generation,
        "new": result.published,
        "interferograms": result.pairs,
        "owed": len(result.owed),
        "accepted": len(result.accepted),
        "simulated": result.simulated,
    }


@flow(name="build-dataset", persist_result=False)
def build_dataset(
    frames: list[FrameName] | None = None,
    pairs: PairChoice | None = None,
    since: Day | None = None,
    until: Day | None = None,
    limit: Annotated[int, Field(ge=1)] | None = None,
    era5: Era5Choice | None = None,
    data_dir: Path | None = None,
    at_a_time: FramesAtOnce = 2,
    simulated: bool = False,
    cluster: Annotated[str, Field(max_length=200)] | None = None,
    apart: bool = False,
) -> State[Any]:
    """Build the cubes of the 38 published frames, or of a list, a few at a time.

    Args:
        frames: LiCSAR frame ids; the registry's 38 by default.
        pairs: annotated, all, or auto (annotated where the frame has annotations).
        since: Leave out pairs that begin before this day.
        until: Leave out pairs that end after this day.
        limit: Take no more pairs of a frame than this, the earliest first.
        era5: Source of ERA5: cds, arco, or auto.
        data_dir: Folder of cubes/, the cache and the results: in the server's own, or in one of data_roots.
        at_a_time: Frames at once.
        simulated: Among the simulated cubes; by default the frames of the embedded archive.
        cluster: Dask cluster that builds them, local:4 or one of the setting clusters, in place of at_a_time.
        apart: Each frame as a run of build-frame of its own, which workers take; this run ends at once.
    """
    try:
        settings = load_flow_settings(data_dir, simulated, era5=era5, pairs=pairs)
        if cluster is not None:
            _require_allowed(cluster, settings)
        chosen = list(dict.fromkeys(map(frame_named, frames or ())))
        chosen = chosen or (list(embedded_frames()) if simulated else list_published_frames())
        requests = [
            BuildRequest(frame, settings.pairs, since, until, limit, settings.variables) for frame in chosen
        ]
        if apart and cluster is not None:
            raise UsageError(
                "a dataset is built on a cluster or as runs apart: give cluster or apart, not both"
            )
        if apart:
            heaviest = sorted(requests, key=lambda item: -expected_cost(item).download_bytes)
            passed: dict[str, Any] = {"pairs": pairs, "since": since, "until": until, "limit": limit}
            passed |= {"era5": era5, "data_dir": data_dir, "simulated": simulated or None}
            count = create_frame_runs((item.frame for item in heaviest), passed, str(flow_run.id))
            return Completed(message=f"{count_of(count, 'run')} of build-frame created, heaviest first")
        with serve_for_frames(settings, chosen) as served:
            if cluster is None:
                return _final_state(_build_all(requests, served, at_a_time), "dataset")
            with report_waiting(LICSAR_TAG):
                given: dict[str, Any] = {"requests": quote(requests), "settings": quote(served)}
                return _final_state(build_on_cluster_task(cluster, **given), "dataset")
    except EXPECTED_FAILURES as error:
        return failed_state(error)


@flow(name="watch", persist_result=False)
def watch(
    frames: list[FrameName] | None = None,
    pairs: PairChoice | None = None,
    since: Day | None = None,
    era5: Era5Choice | None = None,
    data_dir: Path | None = None,
    at_a_time: FramesAtOnce = 2,
    simulated: bool = False,
) -> State[Any]:
    """Look for new interferograms once, and build what arrived; the deployment's schedule repeats it.

    Frames that are not named are looked at less often the longer nothing new has come (setting quiet_share).
    As the command does, it then writes metrics_file, sends the heartbeat, and names overdue frames.

    Args:
        frames: LiCSAR frame ids, annotated or not; by default the frames that have a cube of real data.
        pairs: annotated, all, or auto (annotated where the frame has annotations).
        since: Leave out pairs that begin before this day.
        era5: Source of ERA5: cds, arco, or auto.
        data_dir: Folder of cubes/, the cache and the results: in the server's own, or in one of data_roots.
        at_a_time: Frames at once.
        simulated: Among the simulated cubes; by default all of them.
    """
    try:
        settings = load_flow_settings(data_dir, simulated, pairs=pairs, era5=era5)
        known = [frame for frame, home in frames_with_settings(settings) if home.is_simulated == simulated]
        chosen = list(dict.fromkeys(map(frame_named, frames))) if frames else known
        if not chosen and not settings.data_dir.is_dir():
            return Completed(
                name=SKIPPED_STATE,
                message=f"nothing to watch: there is no folder {settings.data_dir}; is its disk mounted?",
            )
        if not chosen:
            return Completed(
                message="nothing to watch: no frame is named, and there is no cube of "
                f"{'simulated' if simulated else 'real'} data yet"
            )
        requests = [
            BuildRequest(frame, settings.pairs, since, variables=settings.variables) for frame in chosen
        ]
        with serve_for_frames(settings, chosen) as served:
            coming = WatchRound(tuple(requests)) if frames else plan_round(requests, served)
            reporter = RoundReporter(chosen, served)
            runs = _build_all(coming.due, served, at_a_time, only_news=True) if coming.due else []
            for line in reporter.end(runs, len(coming.later)):
                get_run_logger().warning("%s", sanitize_text(line, 2000))
            if not coming.due:
                later = count_of(len(coming.later), "frame")
                return Completed(message=f"nothing is due: {later} with nothing new for long")
            return _final_state(runs, "watch")
    except EXPECTED_FAILURES as error:
        return failed_state(error)
