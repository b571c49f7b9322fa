"""Everything that the flows need, in one command: ``python -m flows.serve`` (``make serve``).

Starts a Prefect server where none answers, makes the limits that cap requests across processes, and serves
the deployments until Ctrl-C, which stops what was started here and only that.
"""

from __future__ import annotations

import signal
import sys
from typing import Annotated, NoReturn

import typer
from prefect import serve
from prefect.client.orchestration import get_client
from prefect.deployments.runner import EntrypointType, RunnerDeployment
from prefect.exceptions import ObjectNotFound
from prefect.settings import PREFECT_API_URL, get_current_settings, temporary_settings

from flows.build_frame import build_frame
from flows.local import api_url, server
from hephaestus_build.cli.common import err, explain
from hephaestus_build.errors import HephaestusError

#: How many tasks may talk to an archive at once, over all processes of one Prefect server, by the tasks' tag.
LIMITS = {"licsar": 2, "cds": 2}


def deployments() -> list[RunnerDeployment]:
    """Return the deployments, one a flow and named like it."""
    # by module, not by file: so it is found from any folder
    by_module = EntrypointType.MODULE_PATH
    return [RunnerDeployment.from_flow(build_frame, "build-frame", entrypoint_type=by_module)]


def make_limits() -> None:
    """Make the concurrency limits that are missing; what a person has set stays."""
    with get_client(sync_client=True) as client:
        for tag, limit in LIMITS.items():
            try:
                client.read_concurrency_limit_by_tag(tag)
            except ObjectNotFound:
                client.create_concurrency_limit(tag, limit)


def main(
    at_once: Annotated[int, typer.Option(min=1, help="How many frames to build at once.")] = 2,
) -> None:
    """Start what the flows need and serve them until Ctrl-C."""
    signal.signal(signal.SIGTERM, _interrupt)
    url = api_url()
    err.print(f"Prefect at {url} ...")
    try:
        with (
            temporary_settings({PREFECT_API_URL: url}),
            server(url, get_current_settings().home / "hephaestus-server.log") as started,
        ):
            make_limits()
            err.print(
                f"the server {'is started' if started else 'answers already'}; Ctrl-C stops what is ours"
            )
            err.print("in another terminal, here: prefect deployment run build-frame -p frame=...")
            serve(*deployments(), limit=at_once, print_starting_message=False)
    except HephaestusError as error:
        explain(str(error))
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        pass
    err.print("stopped")


def _interrupt(*_: object) -> NoReturn:
    raise KeyboardInterrupt


if __name__ == "__main__":
    typer.run(main)
