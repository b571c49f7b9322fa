"""Start of a Prefect server on this machine, where none answers."""

from __future__ import annotations

import errno
import os
import re
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any
from urllib.parse import urlsplit

from prefect.settings import (
    PREFECT_SERVER_API_CORS_ALLOWED_ORIGINS,
    PREFECT_SERVER_API_CSRF_PROTECTION_ENABLED,
    get_current_settings,
)
from prefect.settings.legacy import Setting

from hephaestus_build.core.errors import HephaestusError, UsageError
from hephaestus_build.core.plain_text import sanitize_text
from hephaestus_build.core.web_address import redact_url
from hephaestus_flows.concurrency_limits import LEASE_STORAGE
from hephaestus_flows.guarded_server import LOOPBACK_HOSTS, allowed_origins
from hephaestus_flows.server_api import advise_on_start, api_credentials, check_address, is_server_healthy

#: Line of a log that names an error, as the last line of a traceback does.
_ERROR_LINE = re.compile(r"[\w.]+(?:Error|Exception)\b: |(?:ERROR|CRITICAL):? .*\[Errno")
#: What to do about the server's database, by words of the error.
_DATABASE_ADVICE = {
    "database is locked": "another program uses {database}; end it",
    "not a database": "move {database} away, and with it the records of earlier runs; cubes are not in it",
    "malformed": "move {database} away, and with it the records of earlier runs; cubes are not in it",
    "locate revision": "a newer Prefect made {database}; use that one, or move the file away",
}
#: Seconds; the first start creates the database and byte code, half a minute on two busy cores.
_START_SECONDS = 180.0


#: For the server that Prefect itself starts for one run without any: it has no pages, so none may ask it.
EPHEMERAL_SERVER_SETTINGS: dict[Setting, Any] = {
    PREFECT_SERVER_API_CSRF_PROTECTION_ENABLED: True,
    PREFECT_SERVER_API_CORS_ALLOWED_ORIGINS: "http://127.0.0.1",
}


@dataclass(frozen=True)
class ServerProcess:
    """A Prefect server within :func:`ensure_server`.

    Attributes
    ----------
    url : str
        Address of its API.
    log : pathlib.Path
        Where it writes, if it was started here.
    process : subprocess.Popen or None
        Its process, if it was started here.
    """

    url: str
    log: Path
    process: subprocess.Popen[bytes] | None = None

    def wait(self) -> bool:
        """Wait until it answers, and return whether it was started here.

        Raises
        ------
        HephaestusError
            If it does not.
        """
        return self.process is not None and _wait_until_healthy(self.process, self.url, self.log)

    def has_ended(self) -> bool:
        """Return whether it was started here and runs no longer."""
        return self.process is not None and self.process.poll() is not None


@contextmanager
def ensure_server(url: str, log: Path) -> Iterator[ServerProcess]:
    """Ensure that a Prefect server runs at `url` within the block.

    Parameters
    ----------
    url : str
        Address of the API. Only on a loopback address is a server started, and only where none answers; a
        server that was started here is stopped at the end, any other is left alone.
    log : pathlib.Path
        Where the started server writes.

    Yields
    ------
    ServerProcess
        Which may not answer yet.

    Raises
    ------
    HephaestusError
        If none answers and none can be started.
    """
    check_address(url)
    if is_server_healthy(url):
        yield ServerProcess(url, log)
        return
    parts = urlsplit(url)
    if (
        parts.hostname not in LOOPBACK_HOSTS
        or parts.port is None
        or parts.scheme != "http"
        or "@" in parts.netloc
    ):
        raise HephaestusError(f"no Prefect server answers at {redact_url(url)}; {advise_on_start(url)}")
    _check_port(parts.hostname, parts.port)
    # left by a killed server; its number may be another process's by now, which would be waited for
    with suppress(OSError):
        (get_current_settings().home / "concurrency_leases" / "expirations.lock").unlink()
    command = [
        sys.executable,
        "-m",
        "hephaestus_flows.guarded_server",
        "--host",
        parts.hostname,
        "--port",
        str(parts.port),
    ]
    with _open_private_file(log) as output:
        # a session of its own: Ctrl-C in our terminal must reach the runs first and the server last
        process = subprocess.Popen(
            command,
            env={**os.environ, **_server_environment(url, parts.port)},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    try:
        yield ServerProcess(url, log, process)
    finally:
        _stop_process(process)


def _check_port(host: str, port: int) -> None:
    """Check that a server can listen on a port of this machine.

    Raises
    ------
    HephaestusError
        If not, for example since another program does.
    """
    try:
        with socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET):
            pass
    except OSError as error:
        why = (
            "another program listens there, which does not answer as a Prefect server"
            if error.errno == errno.EADDRINUSE
            else error.strerror or str(error)
        )
        raise HephaestusError(
            f"no Prefect server can be started at port {port} of {host}: {why}; end it, or take another "
            f"port: `{_port_variable(host)} make serve`"
        ) from None


def _port_variable(host: str) -> str:
    """Return an assignment that chooses another port, as the port was chosen."""
    if get_current_settings().api.url is None:
        return "PREFECT_SERVER_API_PORT=4201"
    return f"PREFECT_API_URL=http://{f'[{host}]' if ':' in host else host}:4201/api"


def check_home() -> Path:
    """Return Prefect's home, made if it was not there.

    Raises
    ------
    HephaestusError
        If it cannot be made or written to.
    """
    home = get_current_settings().home
    try:
        home.mkdir(mode=0o700, parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=home):
            pass
    except OSError as error:
        raise HephaestusError(
            f"Prefect's home {home} cannot be written to ({error.strerror or error}): set PREFECT_HOME to "
            f"another folder"
        ) from None
    return home


def _server_environment(url: str, port: int) -> dict[str, str]:
    """Return Prefect's settings for a server that serves only its own pages and local programs."""
    settings = get_current_settings()
    api = settings.server.api
    more = api.cors_allowed_origins if "cors_allowed_origins" in api.model_fields_set else ""
    try:
        origins = allowed_origins(port, more)
    except ValueError as error:
        raise UsageError(f"PREFECT_SERVER_API_CORS_ALLOWED_ORIGINS: {error}; nothing was started") from None
    guarded = {
        "PREFECT_SERVER_API_CSRF_PROTECTION_ENABLED": "true",
        "PREFECT_SERVER_API_CORS_ALLOWED_ORIGINS": ",".join(origins),
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    }
    if "lease_storage" not in settings.server.concurrency.model_fields_set:
        guarded["PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE"] = LEASE_STORAGE
    own = api.auth_string
    if secret := (own.get_secret_value() if own else None) or api_credentials(url):
        if not (secret.isascii() and secret.isprintable() and ":" in secret):
            raise UsageError(
                "PREFECT_SERVER_API_AUTH_STRING must be user:password in printable ASCII; nothing was started"
            )
        guarded["PREFECT_SERVER_API_AUTH_STRING"] = (
            secret  # under the other name alone it would not ask for it
        )
    return {**settings.to_environment_variables(exclude_unset=True), **guarded}


def _open_private_file(log: Path) -> IO[bytes]:
    """Open a file for writing that only its owner can read."""
    log.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | getattr(os, "O_NOFOLLOW", 0), 0o600)
    if hasattr(os, "fchmod"):
        os.fchmod(descriptor, 0o600)  # one of an earlier version, too
    return os.fdopen(descriptor, "wb")


def _wait_until_healthy(process: subprocess.Popen[bytes], url: str, log: Path) -> bool:
    deadline = time.monotonic() + _START_SECONDS
    while not is_server_healthy(url):
        ended = process.poll() is not None
        if ended or time.monotonic() > deadline:
            what = "start" if ended else f"answer within {_START_SECONDS:.0f} s"
            raise HephaestusError(
                f"the Prefect server did not {what} ({_failure_reason(log)}); {log} says more"
            )
        time.sleep(0.3)
    return True


def _failure_reason(log: Path) -> str:
    """Return why a server did not start, from what it wrote, and what to do about its database."""
    with suppress(OSError):
        lines = [line.strip() for line in log.read_text(errors="replace").splitlines() if line.strip()]
        errors = [line for line in lines if _ERROR_LINE.match(line)]
        said = sanitize_text((errors or lines or ["it said nothing"])[-1], 300)
        database = get_current_settings().home / "prefect.db"
        for sign, advice in _DATABASE_ADVICE.items():
            if sign in said:
                return f"{said}: {advice.format(database=database)}"
        return said
    return "it said nothing"


def _stop_process(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(15)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
