"""Deployments of the scheduled jobs of ``hephaestus apply``: the flow ``watch`` with parameters."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import httpx
from prefect.client.orchestration import get_client
from prefect.deployments.runner import DeploymentApplyError, RunnerDeployment
from prefect.exceptions import ObjectNotFound, PrefectHTTPStatusError
from prefect.schedules import Cron
from prefect.settings import temporary_settings
from prefect.types.entrypoint import EntrypointType

from hephaestus_build.core.errors import HephaestusError
from hephaestus_build.core.plain_text import sanitize_text
from hephaestus_build.core.web_address import redact_url
from hephaestus_build.operations.jobs import Job
from hephaestus_flows.build_many import watch
from hephaestus_flows.server_api import api_client_settings, api_url, bypass_proxies, require_server

#: Tag of the deployments that are made here.
JOB_TAG = "hephaestus-job"


def deploy_jobs(jobs: Mapping[str, Job], work_pool: str) -> dict[str, str]:
    """Make or update a deployment of the flow ``watch`` for each job, and return their names by job.

    Raises
    ------
    HephaestusError
        If no server answers, it has no such work pool, or it refuses a deployment.
    """
    bypass_proxies()
    url = api_url()
    with temporary_settings(api_client_settings(url)):
        require_server(url)
        try:
            with get_client(sync_client=True) as client:
                client.read_work_pool(work_pool)
            return {name: _deploy(name, job, work_pool) for name, job in jobs.items()}
        except ObjectNotFound:
            raise HephaestusError(
                f"the Prefect server at {redact_url(url)} has no work pool {work_pool}: `prefect work-pool "
                f"create {work_pool} --type process` makes it, and `prefect worker start --pool {work_pool}` "
                f"works for it"
            ) from None
        except (DeploymentApplyError, PrefectHTTPStatusError, httpx.HTTPError) as error:
            why = sanitize_text(" ".join(str(error).split()), 300)
            raise HephaestusError(
                f"the Prefect server at {redact_url(url)} took no deployment: {why}"
            ) from error


def _deploy(name: str, job: Job, work_pool: str) -> str:
    assert job.schedule is not None
    deployment = RunnerDeployment.from_flow(
        watch,
        name,
        schedule=Cron(job.schedule, timezone=job.timezone),
        parameters=job_parameters(job),
        description="Made by `hephaestus apply`; change it in its file of jobs.",
        tags=[JOB_TAG],
        work_pool_name=work_pool,
        entrypoint_type=EntrypointType.MODULE_PATH,
    )
    deployment.apply()
    return f"{watch.name}/{name}"


def job_parameters(job: Job) -> dict[str, Any]:
    """Return the parameters of the flow for a job, as JSON values; what it leaves open is the worker's."""
    given = job.model_dump(mode="json", include={"pairs", "since", "era5", "at_a_time", "simulated"})
    folder = {} if job.data_dir is None else {"data_dir": str(job.data_dir.absolute())}
    frames = [str(frame) for frame in job.find_frames()]
    return {"frames": frames, **{key: value for key, value in given.items() if value is not None}, **folder}
