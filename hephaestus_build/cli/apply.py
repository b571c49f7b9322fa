"""``hephaestus apply``."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from hephaestus_build.cli.console import err, print_json, print_table, worst_exit_code
from hephaestus_build.cli.messages import BuildSummary, print_owed_notices, print_run
from hephaestus_build.cli.next_commands import carry_data_options
from hephaestus_build.cli.options import JSON_OPTION
from hephaestus_build.core.errors import HephaestusError
from hephaestus_build.core.extras import check_extra, find_plugins, install_hint
from hephaestus_build.core.plain_text import count_of
from hephaestus_build.core.progress import show_progress
from hephaestus_build.operations.batch import build_frames
from hephaestus_build.operations.jobs import Job, JobFile, read_job_file
from hephaestus_build.operations.run_log import BuildRun
from hephaestus_build.simulation.server.embedded import serve_for_frames

#: Entry points of packages that run jobs on a schedule: a function of the jobs by name and of the name of the
#: work pool, which returns the name of each deployment.
SCHEDULER_GROUP = "hephaestus_build.schedulers"


def apply(
    jobs: Annotated[Path, typer.Argument(metavar="FILE", help="YAML file of jobs (schemas/jobs.json).")],
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Check the file and say what would be done; ask nobody.")
    ] = False,
    as_json: bool = JSON_OPTION,
) -> None:
    """Do the jobs of a YAML file: build once, or schedule with Prefect.

    A job without `schedule` builds its frames once, as `build` does. One with a schedule makes or updates the
    Prefect deployment watch/NAME, which looks for what is new at these times; that needs the extra `flows`, a
    server and a worker of the work pool. The whole file is checked before anything is done. Exits as `build`
    does.
    """
    wanted = read_job_file(jobs)
    if dry_run:
        _print_jobs(wanted, as_json=as_json)
        return
    deployments = _schedule({name: job for name, job in wanted.jobs.items() if job.schedule}, wanted)
    runs: dict[str, list[BuildRun]] = {}
    for name, job in wanted.jobs.items():
        if job.schedule:
            err.print(f"{name}: {deployments[name]}, {job.schedule} {job.timezone}")
        else:
            runs[name] = _build(name, job, as_json=as_json)
    if as_json:
        print_json({"jobs": [_job_json(*item, deployments, runs) for item in wanted.jobs.items()]})
    raise typer.Exit(worst_exit_code(run.exit_code for each in runs.values() for run in each))


def _schedule(jobs: Mapping[str, Job], wanted: JobFile) -> Mapping[str, str]:
    """Return the deployment of each scheduled job, which now exists.

    Raises
    ------
    HephaestusError
        If Prefect is not installed, or its server refuses.
    """
    if not jobs:
        return {}
    check_extra("flows", "a job with a schedule")
    plugins = find_plugins(SCHEDULER_GROUP)
    if not plugins:
        raise HephaestusError(f"no installed package schedules jobs; {install_hint('flows')}")
    made: Mapping[str, str] = next(iter(plugins.values())).load()(jobs, wanted.work_pool)
    return made


def _build(name: str, job: Job, *, as_json: bool) -> list[BuildRun]:
    """Build the frames of a job once."""
    carry_data_options({"simulated": job.simulated, "data_dir": job.data_dir})
    runs, summary = [], BuildSummary()
    with serve_for_frames(job.load_settings(), job.find_frames()) as served, show_progress() as listener:
        for run in build_frames(job.make_requests(), served, listener=listener, at_a_time=job.at_a_time):
            runs.append(run)
            summary.add(run)
            if not as_json:
                print_run(run, as_json=False)
    for run in runs:
        print_owed_notices(str(run.frame), run.result.owed if run.result else ())
    summary.print(f"{name}: ")
    return runs


def _print_jobs(wanted: JobFile, *, as_json: bool) -> None:
    """Say what the jobs are."""
    if as_json:
        print_json({"jobs": [_job_json(name, job, {}, {}) for name, job in wanted.jobs.items()]})
        return
    columns = ("job", "frames", "pairs", "since", "ERA5", "data", "when")
    rows = []
    for name, job in wanted.jobs.items():
        settings, frames = job.load_settings(), job.find_frames()
        more = f" and {len(frames) - 1} more" if len(frames) > 1 else ""
        when = f"{job.schedule} {job.timezone}, as watch/{name}" if job.schedule else "once, now"
        rows.append(
            (
                name,
                f"{frames[0]}{more}",
                settings.pairs,
                job.since or "-",
                settings.era5,
                settings.data_dir,
                when,
            )
        )
    print_table(columns, rows)
    err.print(f"{count_of(len(rows), 'job')}; nothing was done (--dry-run)")


def _job_json(
    name: str, job: Job, deployments: Mapping[str, str], runs: Mapping[str, list[BuildRun]]
) -> dict[str, Any]:
    settings = job.load_settings()
    return {
        "name": name,
        "frames": [str(frame) for frame in job.find_frames()],
        "pairs": settings.pairs,
        "since": job.since,
        "era5": settings.era5,
        "data_dir": str(settings.data_dir),
        "schedule": job.schedule,
        "timezone": job.timezone,
        "deployment": deployments.get(name),
        "runs": [run.to_json() for run in runs.get(name, ())],
    }
