"""Server and deployments of the flows: ``python -m hephaestus_flows.serve`` (``make serve``).

Starts a Prefect server if none answers, creates the concurrency limits for the archives, and serves the
deployments until Ctrl-C, which stops only what was started here.
"""

from __future__ import annotations

import signal
import sys
import time
from typing import Annotated, NoReturn

import typer
from prefect import serve
from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import GlobalConcurrencyLimitUpdate
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterState, FlowRunFilterStateType
from prefect.client.schemas.objects import StateType
from prefect.deployments.runner import RunnerDeployment
from prefect.exceptions import ObjectNotFound
from prefect.settings import get_current_settings, temporary_settings
from prefect.states import Crashed
from prefect.types.entrypoint import EntrypointType

from hephaestus_build.cli.console import err, print_notice, run_module
from hephaestus_build.core.errors import HephaestusError
from hephaestus_build.core.settings import load_settings
from hephaestus_build.core.web_address import redact_url
from hephaestus_flows.local_server import api_client_settings, api_url, check_access, ensure_server
from hephaestus_flows.parameter_folders import allowed_path_pattern

#: Largest number of concurrent tasks per archive, over all processes of one Prefect server, by tag.
CONCURRENCY_LIMITS = {"licsar": 2, "cds": 2}


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


def create_missing_limits() -> None:
    """Create missing concurrency limits; existing ones are kept."""
    with get_client(sync_client=True) as client:
        for tag, limit in CONCURRENCY_LIMITS.items():
            try:
                client.read_concurrency_limit_by_tag(tag)
            except ObjectNotFound:
                client.create_concurrency_limit(tag, limit)


def release_stale_slots() -> None:
    """Release slots that tasks held when an earlier server ended without recording their leases."""
    if not get_current_settings().server.concurrency.lease_storage.endswith(".memory"):
        return  # leases that outlive the server end by themselves
    with get_client(sync_client=True) as client:
        for tag in CONCURRENCY_LIMITS:
            client.update_global_concurrency_limit(f"tag:{tag}", GlobalConcurrencyLimitUpdate(active_slots=0))


def close_served_runs(seconds: float) -> None:
    """Wait for served runs to end, and mark killed ones as crashed."""
    states = FlowRunFilterStateType(any_=[StateType.RUNNING, StateType.CANCELLING])
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
    url = api_url()
    log = get_current_settings().home / "hephaestus-server.log"
    err.print(f"Prefect at {redact_url(url)} ...")
    try:
        with temporary_settings(api_client_settings(url)), ensure_server(url, log) as answers:
            served = make_deployments()
            started = answers()
            if trouble := check_access(url):
                print_notice(trouble)
            create_missing_limits()
            if started:
                close_served_runs(0)  # what a killed server left
                release_stale_slots()
            err.print("started; Ctrl-C stops it" if started else "answers already; Ctrl-C leaves it running")
            err.print("in another terminal: .venv/bin/prefect deployment run build-frame -p frame=...")
            try:
                serve(*served, limit=at_once, query_seconds=2, print_starting_message=False)
            finally:
                if started:
                    close_served_runs(15)
    except HephaestusError as error:
        print_notice(str(error))
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        pass
    err.print("stopped")


def _raise_interrupt(*_: object) -> NoReturn:
    raise KeyboardInterrupt


if __name__ == "__main__":
    run_module(_main)
