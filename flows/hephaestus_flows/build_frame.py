"""The flow ``build-frame``: the stages of :mod:`hephaestus_build.pipeline.build` as tasks.

Prefect's states hold no data: every finished granule is in the frame's staging folder, so a retry, or the
next run after a kill, continues from there. Without a server: ``python -m hephaestus_flows.build_frame
FRAME``.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, ParamSpec, TypeVar, cast

import typer
from prefect import Task, flow, get_run_logger, task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State
from prefect.settings import get_current_settings, temporary_settings
from prefect.states import Completed, Failed
from prefect.utilities.annotations import quote
from pydantic import Field

from hephaestus_build.cli.console import print_notice, run_module
from hephaestus_build.core.configuration.setting_values import NO_OPTIONAL_VARIABLES
from hephaestus_build.core.errors import (
    FrameBusyError,
    HephaestusError,
    MissingProductsError,
    UnreachableError,
)
from hephaestus_build.core.frame_search import frame_named
from hephaestus_build.core.plain_text import count_of, sanitize_text
from hephaestus_build.core.progress import NullListener
from hephaestus_build.core.provenance import Outcome
from hephaestus_build.core.registry import OPTIONAL_VARIABLES
from hephaestus_build.core.settings import Era5Choice, PairChoice, Settings
from hephaestus_build.cube.granules import GranuleKey
from hephaestus_build.cube.storage.generations import FrameStore
from hephaestus_build.cube.storage.migration import require_migrated
from hephaestus_build.operations.run_log import RecordedRun
from hephaestus_build.pipeline.kept.last_look import keep_look, look_after_build
from hephaestus_build.pipeline.plan import BuildRequest
from hephaestus_build.pipeline.prepare import prepare_build, prepare_folder
from hephaestus_build.pipeline.publish import publish
from hephaestus_build.pipeline.result import BuildResult
from hephaestus_build.pipeline.stage import Build, Stage, run_stage
from hephaestus_build.pipeline.stages import (
    ATMOSPHERE,
    GRID,
    INTERFEROGRAMS,
    MASKS,
    OPTIONAL,
    OVERVIEWS,
    STAGES,
)
from hephaestus_build.simulation.server.embedded import serve_for_frames
from hephaestus_flows.artifacts import create_cube_table_artifact, create_quicklook_artifact
from hephaestus_flows.concurrency_limits import report_waiting
from hephaestus_flows.failures import EXPECTED_FAILURES, failed_state
from hephaestus_flows.local_server import EPHEMERAL_SERVER_SETTINGS, check_home
from hephaestus_flows.parameter_folders import load_flow_settings
from hephaestus_flows.parameter_types import Day, FrameName, frame_run_name
from hephaestus_flows.server_api import (
    api_client_settings,
    api_url,
    bypass_proxies,
    is_server_healthy,
    require_server,
)

P = ParamSpec("P")
T = TypeVar("T")

#: A parameter's value that names an optional variable, or none of them.
OptionalVariable = Annotated[
    str, Field(pattern=f"^(?:{'|'.join((*OPTIONAL_VARIABLES, NO_OPTIONAL_VARIABLES))})$")
]
#: Name of the state of a run or task that has completed with missing products.
OWED_STATE = "Owed"
#: Name of the state of a run that has completed without doing anything, since another build is at work.
SKIPPED_STATE = "Skipped"
#: Largest number of tasks of one kind per frame; each task costs Prefect's server some records.
MAX_BATCHES = 24
#: Tag of tasks that use the archive of interferograms; tasks that use ERA5 have its source as tag.
LICSAR_TAG = "licsar"
_MIN_PAIRS_PER_BATCH = 8  # pairs a batch, so that the threads of a batch have something to share


def split_into_batches(
    items: Sequence[T], most: int = MAX_BATCHES, least: int = _MIN_PAIRS_PER_BATCH
) -> list[Sequence[T]]:
    """Return `items` in order, in at most `most` batches of nearly equal size, of `least` items or more."""
    count = min(most, max(1, len(items) // least)) if items else 0
    edges = [round(index * len(items) / count) for index in range(count + 1)] if count else []
    return [items[start:end] for start, end in pairwise(edges)]


def _uncached_task(name: str, **options: Any) -> Callable[[Callable[P, T]], Task[P, T]]:
    """Make a function a task that Prefect never skips; the ledger records what is finished."""
    return task(name=name, cache_policy=NO_CACHE, persist_result=False, **options)


def _retrying_task(name: str, **options: Any) -> Callable[[Callable[P, T]], Task[P, T]]:
    """Make a function a task that is retried if an archive was unreachable."""
    retries = {"retries": 2, "retry_delay_seconds": [60, 300], "retry_condition_fn": _should_retry}
    return _uncached_task(name, **retries, **options)


def _should_retry(_task: object, _run: object, state: State[Any]) -> bool:
    if state.name == OWED_STATE:
        return True
    return isinstance(state.result(raise_on_failure=False), UnreachableError)


def _quote_argument(value: T) -> T:
    """Wrap `value` so that Prefect passes it to a task without searching it for futures."""
    return cast(T, quote(value))


def _task_state(build: Build, keys: Collection[GranuleKey]) -> State[Any]:
    """Return the final state of a task that makes the granules `keys`."""
    granules = [granule for key in keys if (granule := build.ledger.latest(key)) is not None]
    missing = [granule for granule in granules if granule.outcome is Outcome.UNREACHABLE]
    if not missing:
        return Completed(message=f"{sum(item.is_complete for item in granules)} of {len(keys)} are whole")
    why = next(receipt.detail for receipt in missing[0].receipts if receipt.outcome is Outcome.UNREACHABLE)
    lack = f"{len(missing)} of {len(keys)} are unreachable ({missing[0].name}: {why})"
    return Failed(name=OWED_STATE, message=sanitize_text(lack, 2000))


def _check_task_state(state: State[Any]) -> bool:
    """Return whether a task has completed without missing products; raise its error if it failed."""
    if state.is_completed():
        return True
    if state.name != OWED_STATE:
        state.result()
    return False


@_retrying_task("plan", tags=[LICSAR_TAG])
def plan_task(request: BuildRequest, settings: Settings, store: FrameStore) -> Build:
    """Prepare the build: find out what to make."""
    return prepare_build(request, settings, store, RunLogListener())


def _make(build: Build, stage: Stage, keys: Sequence[GranuleKey], batch: str) -> State[Any]:
    """Make a batch of granules; a retry skips complete ones."""
    run_stage(build, stage, only=keys)
    return _task_state(build, keys)


#: Task of each stage, and its largest number of batches. ERA5 is requested by month for all dates together,
#: so #: it is one batch.
STAGE_TASKS: dict[Stage, tuple[Task[..., State[Any]], int]] = {
    GRID: (_retrying_task("DEM", tags=[LICSAR_TAG])(_make), 1),
    INTERFEROGRAMS: (
        _retrying_task("interferograms", tags=[LICSAR_TAG], task_run_name="interferograms {batch}")(_make),
        MAX_BATCHES,
    ),
    MASKS: (
        _retrying_task("annotations", tags=[LICSAR_TAG], task_run_name="annotations {batch}")(_make),
        MAX_BATCHES // 4,
    ),
    ATMOSPHERE: (_retrying_task("ERA5")(_make), 1),
    OPTIONAL: (
        _retrying_task("optional variables", tags=[LICSAR_TAG], task_run_name="optional variables {batch}")(
            _make
        ),
        MAX_BATCHES,
    ),
    OVERVIEWS: (_retrying_task("overviews")(_make), 1),
}


@_uncached_task("publish")
def publish_task(build: Build) -> BuildResult:
    """Publish the finished granules."""
    return publish(build)


@_uncached_task("picture")
def quicklook_task(result: BuildResult, settings: Settings) -> None:
    """Draw the cube's picture and create its artifact."""
    from hephaestus_build.report.quicklook import write_quicklook

    picture = write_quicklook(result.path, settings.data_dir / "quicklooks", keep=not result.published)
    create_quicklook_artifact(result.frame, picture.path)


@flow(name="build-frame", flow_run_name=frame_run_name, persist_result=False)
def build_frame(
    frame: FrameName,
    pairs: PairChoice | None = None,
    since: Day | None = None,
    until: Day | None = None,
    limit: Annotated[int, Field(ge=1)] | None = None,
    era5: Era5Choice | None = None,
    variables: list[OptionalVariable] | None = None,
    data_dir: Path | None = None,
    simulated: bool = False,
    wait: bool = False,
) -> State[Any]:
    """Build or extend the cube of a frame and publish it.

    What is not given here comes from the settings of the process that runs this: HEPHAESTUS_* or its file.

    Args:
        frame: LiCSAR frame id, or a volcano of one frame.
        pairs: annotated, all, or auto (annotated where the frame has annotations).
        since: Leave out pairs that begin before this day.
        until: Leave out pairs that end after this day.
        limit: Take no more pairs than this, the earliest first.
        era5: Source of ERA5: cds, arco, or auto (the CDS where a key is configured).
        variables: Optional variables to add; a cube keeps those that it has, and none takes them all away.
        data_dir: Folder of cubes/, the cache and the results: in the server's own, or in one of data_roots.
        simulated: Among the simulated cubes, where frames of tracks above 175 are anyway.
        wait: Wait while another build works on the frame.
    """
    # Prefect shows these lines beside the fields of its form, and reads them in that style alone.
    # Completed, with what is in the cube as data, and named Owed when a later run must try again, or Skipped
    # when another build is at work on the frame; Failed, with the reason as message, when nothing was built.
    try:
        settings = load_flow_settings(data_dir, simulated, era5=era5, pairs=pairs, variables=variables)
        request = BuildRequest(frame_named(frame), settings.pairs, since, until, limit, settings.variables)
        with serve_for_frames(settings, [request.frame]) as served:
            settings = served.for_frame(request.frame)
            with RecordedRun(request.frame, settings.data_dir) as recorded:
                require_migrated(settings, request.frame)
                store = FrameStore(settings.cubes_dir, request.frame)
                with _lock(store, wait=wait):
                    prepare_folder(store)
                    with report_waiting(LICSAR_TAG):
                        build = plan_task(
                            _quote_argument(request), _quote_argument(settings), _quote_argument(store)
                        )
                    _make_granules(build)
                    recorded.result = result = publish_task(_quote_argument(build))
                    keep_look(store, look_after_build(build, result))
            create_cube_table_artifact(result, build.ledger.snapshot().values())
            quicklook_task(
                _quote_argument(result), _quote_argument(settings), return_state=True
            )  # a cube without a picture is a cube
    except FrameBusyError as busy:
        return Completed(name=SKIPPED_STATE, message=str(busy))
    except EXPECTED_FAILURES as error:
        return failed_state(error)
    return _final_state(result)


@contextmanager
def _lock(store: FrameStore, *, wait: bool) -> Iterator[None]:
    """Hold the lock of a frame; what is waited for is in the log of the flow run."""
    with ExitStack() as held:
        try:
            held.enter_context(store.lock())
        except FrameBusyError as busy:
            if not wait:
                raise
            get_run_logger().info("waiting: %s", sanitize_text(busy, 2000))
            held.enter_context(store.lock(wait=True))
        yield


def _make_granules(build: Build) -> None:
    """Run the stages of a build, each as one or more tasks."""
    may_retry = dict.fromkeys((LICSAR_TAG, build.context.era5.name), True)
    for stage in STAGES:
        task, most = STAGE_TASKS[stage]
        archive = build.context.era5.name if stage is ATMOSPHERE else LICSAR_TAG
        if stage is OPTIONAL and not stage.items(build):
            continue  # most cubes have none
        # an empty batch still does the shared work of its stage
        todo = split_into_batches(stage.items(build), most) or [()]
        for number, batch in enumerate(todo, 1):
            # once a batch stayed unreachable through all retries, the remaining ones are tried once
            tried = task.with_options(tags=[archive], retries=task.retries if may_retry[archive] else 0)
            label = f"{number} of {len(todo)}"
            with report_waiting(archive):
                state = tried(
                    _quote_argument(build),
                    _quote_argument(stage),
                    _quote_argument(batch),
                    label,
                    return_state=True,
                )
            may_retry[archive] &= _check_task_state(state)


def _final_state(result: BuildResult) -> State[Any]:
    kept = ", ".join(
        (
            count_of(result.pairs, "interferogram"),
            count_of(result.epochs, "ERA5 date"),
            count_of(result.masks, "annotation"),
        )
    )
    if not result.owed:
        return Completed(message=f"{result.frame}: {kept}", data=result.to_json())
    first = result.owed[0]
    return Completed(
        name=OWED_STATE,
        message=sanitize_text(
            f"{result.frame}: {kept}; owed: {count_of(len(result.owed), 'product')}, such as {first.product} "
            f"({first.outcome}: {first.detail}); the next run tries again",
            2000,
        ),
        data=result.to_json(),
    )


class RunLogListener(NullListener):
    """A listener that writes notes to the log of the flow run."""

    def note(self, text: str) -> None:
        """Write a note."""
        get_run_logger().info("%s", sanitize_text(text, 2000))


def _main(
    frame: Annotated[str, typer.Argument(help="Such as 124D_04854_171313, 144A_SM_REUN_S6 or Etna.")],
    limit: Annotated[int | None, typer.Option(min=1, help="Take no more pairs than this.")] = None,
    simulated: Annotated[bool, typer.Option("--simulated", help="Among the simulated cubes.")] = False,
) -> None:
    """Run the flow once in this process; without a server, Prefect starts a temporary one."""
    try:
        bypass_proxies()
        name, url = str(frame_named(frame)), api_url()
        if get_current_settings().api.url is not None or is_server_healthy(url):
            require_server(url)
            chosen = api_client_settings(url)
        else:
            check_home()
            chosen = EPHEMERAL_SERVER_SETTINGS
        with temporary_settings(chosen):
            state = build_frame(name, limit=limit, simulated=simulated, return_state=True)
    except HephaestusError as error:
        print_notice(str(error))
        sys.exit(error.exit_code)
    print_notice(state.message or state.name or "")
    sys.exit(exit_code_for_state(state))


def exit_code_for_state(state: State[Any]) -> int:
    """Return the exit code of `hephaestus build` for a state."""
    if state.is_completed():
        return MissingProductsError.exit_code if state.name == OWED_STATE else 0
    error = state.result(raise_on_failure=False)
    return error.exit_code if isinstance(error, HephaestusError) else 1


if __name__ == "__main__":
    run_module(_main)
