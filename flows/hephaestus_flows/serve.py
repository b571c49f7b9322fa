"""Server and deployments of the flows: ``python -m hephaestus_flows.serve`` (``make serve``).

Starts a Prefect server if none answers, creates the concurrency limits for the archives, and serves the
deployments until Ctrl-C, which stops only what was started here.
"""

from __future__ import annotations

import asyncio
import re
import signal
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Annotated, NoReturn, cast
from urllib.parse import urlsplit
from uuid import UUID

import typer
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterState, FlowRunFilterStateType
from prefect.client.schemas.objects import StateType
from prefect.deployments.runner import RunnerDeployment
from prefect.exceptions import TerminationSignal
from prefect.runner import Runner
from prefect.settings import get_current_settings, temporary_settings
from prefect.states import Crashed
from prefect.types.entrypoint import EntrypointType

from hephaestus_build.cli.console import err, print_notice, run_module
from hephaestus_build.core.errors import HephaestusError
from hephaestus_build.core.filesystem.locks import try_lock_file
from hephaestus_build.core.settings import load_settings
from hephaestus_build.core.web_address import redact_url
from hephaestus_flows.concurrency_limits import create_missing_limits, renew_limits
from hephaestus_flows.local_server import ServerProcess, check_home, ensure_server
from hephaestus_flows.parameter_folders import allowed_path_pattern
from hephaestus_flows.server_api import (
    api_client_settings,
    api_url,
    bypass_proxies,
    check_access,
    is_server_healthy,
    require_server,
)


def make_deployments() -> list[RunnerDeployment]:
    """Return one deployment per flow, named like the flow; ``watch`` has a schedule."""
    # by module, not by file: so it is found from any folder
    from hephaestus_flows.benchmark import benchmark
    from hephaestus_flows.build_frame import build_frame  # seconds of imports, while the server starts
    from hephaestus_flows.build_many import WATCH_INTERVAL, build_dataset, watch

    by_module = EntrypointType.MODULE_PATH
    made = [
        RunnerDeployment.from_flow(build_frame, "build-frame", entrypoint_type=by_module),
        RunnerDeployment.from_flow(build_dataset, "build-dataset", entrypoint_type=by_module),
        RunnerDeployment.from_flow(watch, "watch", interval=WATCH_INTERVAL, entrypoint_type=by_module),
        RunnerDeployment.from_flow(benchmark, "benchmark", entrypoint_type=by_module),
    ]
    inside = allowed_path_pattern(load_settings())
    for deployment in made:
        # so that the server itself refuses to create a run with paths elsewhere
        for name, parameter in deployment._parameter_openapi_schema.properties.items():
            if name == "preset":
                parameter["pattern"] = rf"^[A-Za-z0-9_-]+$|{inside}"
            for choice in parameter.get("anyOf", ()):
                if choice.get("format") == "path":
                    choice["pattern"] = inside
    return made


def pause_schedules(deployments: Iterable[UUID]) -> None:
    """Pause deployments, so that no runs are scheduled while nobody serves them."""
    with get_client(sync_client=True) as client:
        for deployment in deployments:
            client.pause_deployment(deployment)


async def _run_until_end(runner: Runner, server: ServerProcess) -> None:
    """Serve until a signal, or until a server that was started here has ended."""
    serving = asyncio.ensure_future(runner.start())
    try:
        while not (await asyncio.wait({serving}, timeout=1))[0] and not server.has_ended():
            pass
    finally:
        serving.cancel()
        ended = await asyncio.gather(serving, return_exceptions=True)
    if isinstance(ended[0], Exception) and not server.has_ended():
        raise ended[0]


def close_served_runs(seconds: float) -> None:
    """Wait for served runs to end, and mark killed ones as crashed."""
    open_types = [StateType.PENDING, StateType.RUNNING, StateType.CANCELLING]
    states = FlowRunFilterStateType(any_=open_types)
    unfinished = FlowRunFilter(state=FlowRunFilterState(type=states))
    deadline = time.monotonic() + seconds
    with get_client(sync_client=True) as client:
        while True:
            runs = client.read_flow_runs(flow_run_filter=unfinished)
            # a worker's runs, and those that a person started by hand, live on without us
            runs = [run for run in runs if run.deployment_id and not run.work_pool_name]
            if not runs or time.monotonic() > deadline:
                break
            time.sleep(0.5)
        for run in runs:
            message = f"it was stopped; `prefect flow-run retry {run.id}` goes on from what is finished"
            client.set_flow_run_state(run.id, Crashed(message=message), force=True)


def _main(
    at_once: Annotated[int, typer.Option(min=1, help="How many frames to build at once.")] = 2,
) -> None:
    """Start the server and serve the deployments until Ctrl-C."""
    for name in ("SIGTERM", "SIGHUP"):  # a closed terminal too; under nohup it is to be ignored
        number = getattr(signal, name, None)
        if number is not None and signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _raise_interrupt)
    bypass_proxies()
    url = api_url()
    err.print(f"Prefect at {redact_url(url)} ...")
    try:
        log = check_home() / "hephaestus-server.log"
        with (
            temporary_settings(api_client_settings(url)),
            _only_one(url),
            ensure_server(url, log) as server,
        ):
            served = make_deployments()
            started = server.wait()
            require_server(url)
            if trouble := check_access(url):
                print_notice(trouble)
            if started:  # what a server before it left
                close_served_runs(0)
                renew_limits()
            create_missing_limits()
            runner = Runner(limit=at_once, query_seconds=2, pause_on_shutdown=False)
            ids = [cast(UUID, runner.add_deployment(deployment)) for deployment in served]
            err.print("started; Ctrl-C stops it" if started else "answers already; Ctrl-C leaves it running")
            err.print("in another terminal: .venv/bin/prefect deployment run build-frame -p frame=...")
            try:
                asyncio.run(_run_until_end(runner, server))
            finally:
                if is_server_healthy(url):
                    pause_schedules(ids)
                    if started:
                        close_served_runs(15)
            if server.has_ended():
                raise HephaestusError(
                    f"the Prefect server at {redact_url(url)} has ended, see {log}; `make serve` starts it "
                    f"again, and builds go on from what is finished"
                )
    except HephaestusError as error:
        print_notice(str(error))
        sys.exit(error.exit_code)
    except (KeyboardInterrupt, TerminationSignal):
        pass
    err.print("stopped")


@contextmanager
def _only_one(url: str) -> Iterator[None]:
    """Be the only process of this machine and user that serves the flows of a server.

    Raises
    ------
    HephaestusError
        If another one does.
    """
    parts = urlsplit(url)
    where = re.sub(r"[^a-z0-9]+", "-", f"{parts.hostname}-{parts.port}")
    lock = get_current_settings().home / f"hephaestus-serve-{where}.lock"
    with ExitStack() as held:
        try:
            is_free = held.enter_context(try_lock_file(lock))
        except OSError:
            is_free = True  # a file system without locks
        if not is_free:
            raise HephaestusError(
                f"`make serve` is at work already for the Prefect server at {redact_url(url)}, and runs are "
                f"built there; PREFECT_SERVER_API_PORT=4201 gives this one a server of its own"
            )
        yield


def _raise_interrupt(*_: object) -> NoReturn:
    raise KeyboardInterrupt


if __name__ == "__main__":
    run_module(_main)
