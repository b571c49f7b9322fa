"""The Prefect server of this machine: its address, its access control, and starting it."""

from __future__ import annotations

import base64
import http.client
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from email.message import Message
from functools import partial
from pathlib import Path
from typing import IO, Any
from urllib.error import HTTPError
from urllib.parse import urlsplit
from urllib.request import ProxyHandler, Request, build_opener

from prefect.settings import (
    PREFECT_API_AUTH_STRING,
    PREFECT_API_URL,
    PREFECT_SERVER_API_CORS_ALLOWED_ORIGINS,
    PREFECT_SERVER_API_CSRF_PROTECTION_ENABLED,
    get_current_settings,
)
from prefect.settings.legacy import Setting

from hephaestus_build.core.errors import HephaestusError, UsageError
from hephaestus_build.core.web_address import redact_url
from hephaestus_flows.guarded_server import LOOPBACK_HOSTS, allowed_origins

#: Seconds; the first start creates the database and byte code, half a minute on two busy cores.
_START_SECONDS = 180.0
#: What a server that listens on all addresses is given; a client finds it on this machine's.
_WILDCARD_ADDRESSES = ("0.0.0.0", "::")  # nosec B104
#: Origin of no page of this project: a server that allows it allows every page.
_FOREIGN_ORIGIN = "http://page.invalid"


def api_url() -> str:
    """Return the address of Prefect's API: the configured one, or where a server of this machine stands."""
    settings = get_current_settings()
    if settings.api.url:
        return settings.api.url.rstrip("/")
    server = settings.server.api
    host = "127.0.0.1" if server.host in _WILDCARD_ADDRESSES else server.host
    return f"http://{host}:{server.port}{server.base_path or '/api'}"


def api_credentials(url: str) -> str | None:
    """Return ``user:password`` of the API at `url`; that of a server here goes to no other machine."""
    settings = get_current_settings()
    here = settings.server.api.auth_string if urlsplit(url).hostname in LOOPBACK_HOSTS else None
    for secret in (settings.api.auth_string, here):
        if secret is not None and secret.get_secret_value():
            return secret.get_secret_value()
    return None


def api_client_settings(url: str) -> dict[Setting, Any]:
    """Return the settings with which Prefect's clients reach the API at `url`."""
    return {PREFECT_API_URL: url, PREFECT_API_AUTH_STRING: api_credentials(url)}


#: For the server that Prefect itself starts for one run without any: it has no pages, so none may ask it.
EPHEMERAL_SERVER_SETTINGS: dict[Setting, Any] = {
    PREFECT_SERVER_API_CSRF_PROTECTION_ENABLED: True,
    PREFECT_SERVER_API_CORS_ALLOWED_ORIGINS: "http://127.0.0.1",
}


def is_server_healthy(url: str, timeout: float = 2.0) -> bool:
    """Return whether a Prefect server answers at `url`, asked directly, never through a proxy."""
    return _send_get(f"{url}/health", {}, timeout)[2].strip() == b"true"


def check_access(url: str) -> str | None:
    """Return what is wrong with the access control of a server, or None.

    Raises
    ------
    HephaestusError
        If it refuses this user.
    """
    about = f"{url}/csrf-token?client=hephaestus"
    status, headers, _ = _send_get(about, {"Origin": _FOREIGN_ORIGIN})
    open_to_pages = status not in (401, 403) and (
        status != 200 or headers.get("Access-Control-Allow-Origin") in ("*", _FOREIGN_ORIGIN)
    )
    if get_current_settings().api.key is None:
        secret = api_credentials(url)
        token = base64.b64encode((secret or "").encode()).decode()
        if _send_get(about, {"Authorization": f"Basic {token}"} if secret else {})[0] == 401:
            wrong = "does not take the password in" if secret else "wants a password: set"
            raise HephaestusError(
                f"the Prefect server at {redact_url(url)} {wrong} PREFECT_API_AUTH_STRING (user:password), "
                f"as in PREFECT_SERVER_API_AUTH_STRING where it was started"
            )
    if open_to_pages:
        return (
            f"the Prefect server at {redact_url(url)} is open: any web page that you visit may start flows "
            f"there; stop it and let `make serve` start one, or start it with PREFECT_SERVER_API_AUTH_STRING"
        )
    return None


def _send_get(url: str, headers: Mapping[str, str], timeout: float = 5.0) -> tuple[int, Message, bytes]:
    """Return status, headers and the beginning of the body of a GET; status 0 where nothing answers."""
    try:
        parts = urlsplit(url)
        request = Request(
            parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl(), headers=dict(headers)
        )
        if request.type not in ("http", "https"):
            return 0, Message(), b""
        with build_opener(ProxyHandler({})).open(request, timeout=timeout) as answer:
            return answer.status, answer.headers, answer.read(16)
    except HTTPError as error:
        with error:
            return error.code, error.headers, b""
    except (OSError, ValueError, http.client.HTTPException):
        return 0, Message(), b""


@contextmanager
def ensure_server(url: str, log: Path) -> Iterator[Callable[[], bool]]:
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
    callable
        Waits until the server answers, and returns whether it was started here.

    Raises
    ------
    HephaestusError
        If none answers and none can be started; some of it when the callable is called.
    """
    if is_server_healthy(url):
        yield lambda: False
        return
    parts = urlsplit(url)
    if (
        parts.hostname not in LOOPBACK_HOSTS
        or parts.port is None
        or parts.scheme != "http"
        or "@" in parts.netloc
    ):
        raise HephaestusError(
            f"no Prefect server answers at {redact_url(url)}: start it there, or `prefect config unset "
            f"PREFECT_API_URL` to have one started on this machine"
        )
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
        yield partial(_wait_until_healthy, process, url, log)
    finally:
        _stop_process(process)


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
        if process.poll() is not None:
            lines = log.read_text(errors="replace").strip().splitlines() or ["it said nothing"]
            raise HephaestusError(f"the Prefect server did not start ({lines[-1].strip()}); {log} says more")
        if time.monotonic() > deadline:
            raise HephaestusError(
                f"the Prefect server did not answer within {_START_SECONDS:.0f} s; {log} says why"
            )
        time.sleep(0.3)
    return True


def _stop_process(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(15)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
