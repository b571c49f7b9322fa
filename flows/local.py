"""The Prefect server of this machine: where it is, whether it answers, and how one is started."""

from __future__ import annotations

import http.client
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import ProxyHandler, build_opener

from prefect.settings import get_current_settings

from hephaestus_build.errors import HephaestusError

_LOOPBACK = {"127.0.0.1", "localhost", "::1"}
#: A first start makes the database and compiles everything: half a minute on two busy cores.
_START_SECONDS = 180.0


def api_url() -> str:
    """Return the address of Prefect's API: the configured one, or where a server of this machine stands."""
    settings = get_current_settings()
    if settings.api.url:
        return settings.api.url.rstrip("/")
    server = settings.server.api
    host = "127.0.0.1" if server.host in ("0.0.0.0", "::") else server.host
    return f"http://{host}:{server.port}{server.base_path or '/api'}"


def healthy(url: str, timeout: float = 2.0) -> bool:
    """Return whether a Prefect server answers at `url`, asked directly, never through a proxy."""
    try:
        with build_opener(ProxyHandler({})).open(f"{url}/health", timeout=timeout) as answer:
            return answer.read(16).strip() == b"true"
    except (OSError, ValueError, http.client.HTTPException):
        return False


@contextmanager
def server(url: str, log: Path) -> Iterator[Callable[[], bool]]:
    """See to it that a Prefect server stands at `url` while the block runs.

    Parameters
    ----------
    url : str
        Address of the API. Only on a loopback address is a server started, and only where none answers; a
        server that was started here is stopped at the end, any other is left alone.
    log : pathlib.Path
        Where the started server writes.

    Yields
    ------
    callable
        Waits until the server answers, and returns whether it was started here.

    Raises
    ------
    HephaestusError
        If none answers and none can be started; some of it when the callable is called.
    """
    if healthy(url):
        yield lambda: False
        return
    parts = urlsplit(url)
    if parts.hostname not in _LOOPBACK or parts.port is None:
        raise HephaestusError(
            f"no Prefect server answers at {url}: start it there, or `prefect config unset PREFECT_API_URL` "
            f"to have one started on this machine"
        )
    command = [sys.executable, "-m", "prefect", "--no-prompt", "server", "start", "--analytics-off"]
    command += ["--host", parts.hostname, "--port", str(parts.port)]
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("wb") as output:
        # a session of its own: Ctrl-C in our terminal must reach the runs first and the server last
        process = subprocess.Popen(
            command,
            env={**os.environ, **get_current_settings().to_environment_variables(exclude_unset=True)},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    try:
        yield partial(_wait, process, url, log)
    finally:
        _stop(process)


def _wait(process: subprocess.Popen[bytes], url: str, log: Path) -> bool:
    deadline = time.monotonic() + _START_SECONDS
    while not healthy(url):
        if process.poll() is not None:
            lines = log.read_text(errors="replace").strip().splitlines() or ["it said nothing"]
            raise HephaestusError(f"the Prefect server did not start ({lines[-1].strip()}); {log} says more")
        if time.monotonic() > deadline:
            raise HephaestusError(
                f"the Prefect server did not answer within {_START_SECONDS:.0f} s; {log} says why"
            )
        time.sleep(0.3)
    return True


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(15)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
