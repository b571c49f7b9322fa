"""Whether the workers of a cluster can build the frames of a command, found out before the first frame.

A worker must have the same version of this package, see the same data folder, be able to write to it, and
take the atmosphere from the same source. The settings are those of the command and are sent with each frame;
a worker whose own environment or file sets one of them otherwise is refused, since somebody expects that
value to hold.
"""

from __future__ import annotations

import asyncio
import hashlib
import secrets
import socket
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hephaestus_build import __version__
from hephaestus_build.core.atomic_io import make_folder, translate_os_errors, write_atomic
from hephaestus_build.core.configuration.settings_reference import find_setting_origins
from hephaestus_build.core.errors import HephaestusError
from hephaestus_build.core.machine.limits import identify_shared_cores
from hephaestus_build.core.plain_files import read_plain_file
from hephaestus_build.core.plain_text import count_of, sanitize_text
from hephaestus_build.core.settings import ENV_PREFIX, Settings, load_settings
from hephaestus_build.core.web_address import HttpUrl
from hephaestus_build.sources.era5.selection import choose_era5_source

if TYPE_CHECKING:
    from distributed import Client

_DISTRIBUTION = "hephaestus-build"
_LOOK_SECONDS = 60.0  # for the data folder, which may be on a file system that hangs
_CONNECT_SECONDS = 5.0


@dataclass(frozen=True)
class WorkerRequirements:
    """What a worker must have.

    Attributes
    ----------
    settings : Settings
        Settings of the frames.
    salt : str
        Makes the hashes of settings different from build to build: some are secret.
    allowed : dict of str to frozenset of str
        Hashes of the values that a worker may set, by setting.
    note, content : str
        Name of a file in the data folder, and what is in it.
    atmosphere : str
        Where the command takes ERA5 from.
    """

    settings: Settings
    salt: str
    allowed: dict[str, frozenset[str]]
    note: str
    content: str
    atmosphere: str


@dataclass(frozen=True)
class WorkerReport:
    """What a worker says of itself.

    Attributes
    ----------
    problem : str
        Why it cannot build, and what to do; empty if it can.
    place : str
        The same for workers that share the cores of a machine.
    """

    problem: str
    place: str = ""


@contextmanager
def require_of_workers(settings: Settings) -> Iterator[WorkerRequirements]:
    """Put a note into the data folder for the time of the block, and return what workers must have.

    Raises
    ------
    HephaestusError
        If the data folder cannot be written.
    """
    salt, content = secrets.token_hex(16), secrets.token_hex(16)
    own = load_settings()
    allowed = {
        name: frozenset(
            _digest(salt, value)
            for given in (own, settings)
            for value in (getattr(given, name), _absolute(getattr(given, name)))
        )
        for name in Settings.model_fields
    }
    note = f".cluster-{secrets.token_hex(8)}"
    path = settings.data_dir / note
    with translate_os_errors(f"writing to the data folder {settings.data_dir}"):
        make_folder(settings.data_dir)
        write_atomic(path, content.encode())
    try:
        yield WorkerRequirements(settings, salt, allowed, note, content, _describe_atmosphere(settings))
    finally:
        with suppress(OSError):
            path.unlink()


def check_workers(
    client: Client, requirements: WorkerRequirements, workers: Collection[str]
) -> dict[str, WorkerReport]:
    """Return what workers say of themselves, by address.

    Parameters
    ----------
    client : distributed.Client
        Connection to the cluster.
    requirements : WorkerRequirements
        What they must have.
    workers : collection of str
        Their addresses.
    """
    reports: dict[str, WorkerReport] = {}
    # a function of Python, since a worker may not have this module
    for worker, found in client.run(version, _DISTRIBUTION, workers=list(workers), on_error="return").items():
        if found != __version__:
            has = f"hephaestus-build {found}" if isinstance(found, str) else "no hephaestus-build"
            reports[worker] = WorkerReport(
                f"it has {has}, this command is of {__version__}: install hephaestus-build {__version__} "
                f"with the extra cluster there, and start it again"
            )
    asked = [worker for worker in workers if worker not in reports]
    if asked:
        for worker, said in client.run(
            inspect_worker, requirements, workers=asked, on_error="return"
        ).items():
            if not isinstance(said, WorkerReport):
                why = f"{type(said).__name__}: {sanitize_text(said, 300)}"
                said = WorkerReport(
                    f"its check failed ({why}): see its log, install the same packages there as here, and "
                    f"start it again"
                )
            reports[worker] = said
    return reports


def check_scheduler(client: Client) -> str:
    """Return why the scheduler cannot take tasks, and what to do; empty if it can."""
    address = client.scheduler.address if client.scheduler else ""
    try:
        found = f"hephaestus-build {client.run_on_scheduler(version, _DISTRIBUTION)}"
    except ImportError:  # of the metadata
        found = "no hephaestus-build"
    if found == f"hephaestus-build {__version__}":
        return ""
    return (
        f"the scheduler at {address} has {found}, this command is of {__version__}: start it in the "
        f"environment of the workers"
    )


def describe_unfit(reports: Mapping[str, WorkerReport]) -> str:
    """Return one line on the workers that cannot build; empty if all can."""
    unfit = {worker: report.problem for worker, report in reports.items() if report.problem}
    if not unfit:
        return ""
    first, problem = next(iter(unfit.items()))
    more = f" ({count_of(len(unfit) - 1, 'other worker')} cannot either)" if len(unfit) > 1 else ""
    return f"the worker {first} cannot build: {problem}{more}"


async def inspect_worker(requirements: WorkerRequirements) -> WorkerReport:
    """Return what the worker on which this runs says of itself."""
    try:
        problem = await asyncio.wait_for(asyncio.to_thread(find_worker_problem, requirements), _LOOK_SECONDS)
    except TimeoutError:
        problem = (
            f"it did not finish looking at {requirements.settings.data_dir} in {_LOOK_SECONDS:g} s: check "
            f"that file system there"
        )
    return WorkerReport(problem, identify_shared_cores())


def find_worker_problem(requirements: WorkerRequirements) -> str:
    """Return why this process cannot build, and what to do; empty if it can."""
    try:
        return (
            _find_other_setting(requirements)
            or _find_folder_problem(requirements)
            or _find_other_atmosphere(requirements)
            or _find_archive_problem(requirements.settings)
        )
    except HephaestusError as error:
        return f"{error}"


def _find_other_setting(requirements: WorkerRequirements) -> str:
    own = load_settings()
    for name, origin in find_setting_origins().items():
        if (
            origin != "default"
            and _digest(requirements.salt, getattr(own, name)) not in requirements.allowed[name]
        ):
            where = (
                f"{ENV_PREFIX}{name.upper()}" if origin == "environment" else f"{name} in its settings file"
            )
            return (
                f"it sets {where} otherwise than this command: remove it there or set the same, and start it "
                f"again"
            )
    return ""


def _find_folder_problem(requirements: WorkerRequirements) -> str:
    folder = requirements.settings.data_dir
    try:
        content = read_plain_file(folder, requirements.note, 1 << 10)
    except (OSError, ValueError):
        content = b""
    if content != requirements.content.encode():
        return (
            f"it does not see the data folder {folder} of this command: mount the same folder at the same "
            f"path there, or choose one with --data-dir that all see"
        )
    trial = folder / f"{requirements.note}-{secrets.token_hex(8)}"
    try:
        write_atomic(trial, b"")
        trial.unlink()
    except OSError as error:
        return f"it cannot write to the data folder {folder} ({error.strerror}): check the rights of its user"
    return ""


def _find_other_atmosphere(requirements: WorkerRequirements) -> str:
    found = _describe_atmosphere(requirements.settings)
    if found == requirements.atmosphere:
        return ""
    return (
        f"it would take ERA5 from {found}, this command from {requirements.atmosphere}: set CDSAPI_URL and "
        f"CDSAPI_KEY there as here, or choose with --era5"
    )


def _find_archive_problem(settings: Settings) -> str:
    archive = settings.embedded_archive
    if archive is None:
        return ""
    address = HttpUrl.parse(archive.licsar_url)
    try:
        with socket.create_connection((address.host, address.port or 80), _CONNECT_SECONDS):
            return ""
    except OSError:
        return (
            f"it does not reach the simulated archive that this command serves on its own machine "
            f"({address.netloc}): use workers of that machine"
        )


def _describe_atmosphere(settings: Settings) -> str:
    source = choose_era5_source(settings)
    return f"{source.name} ({sanitize_text(HttpUrl.parse(source.url), 200)})"


def _digest(salt: str, value: Any) -> str:
    shown = str(value) if isinstance(value, Path) else repr(value)
    return hashlib.sha256(f"{salt} {shown}".encode()).hexdigest()


def _absolute(value: Any) -> Any:
    return value.absolute() if isinstance(value, Path) else value
