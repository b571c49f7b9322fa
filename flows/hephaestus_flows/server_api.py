"""The API of a Prefect server: its address, its credentials, and whether it answers and to whom."""

from __future__ import annotations

import base64
import http.client
import os
from collections.abc import Mapping
from contextlib import suppress
from email.message import Message
from typing import Any
from urllib.error import HTTPError
from urllib.parse import urlsplit
from urllib.request import ProxyHandler, Request, build_opener

import prefect
from prefect.settings import (
    PREFECT_API_AUTH_STRING,
    PREFECT_API_URL,
    get_current_settings,
)
from prefect.settings.legacy import Setting

from hephaestus_build.core.errors import HephaestusError, UsageError
from hephaestus_build.core.plain_text import sanitize_text
from hephaestus_build.core.web_address import redact_url
from hephaestus_flows.guarded_server import LOOPBACK_HOSTS

_OK, _UNAUTHORIZED, _FORBIDDEN, _SERVER_ERROR = 200, 401, 403, 500
_MOST_READ = 64  # bytes of an answer
#: Seconds in which a server on a busy machine answers.
_PATIENT_SECONDS = 10.0
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
    return f"http://{f'[{host}]' if ':' in host else host}:{server.port}{server.base_path or '/api'}"


def check_address(url: str) -> None:
    """Check that `url` can be the address of an API.

    Raises
    ------
    UsageError
        If not.
    """
    with suppress(ValueError):
        parts = urlsplit(url)
        if parts.scheme in ("http", "https") and parts.hostname and parts.port != 0:
            return
    raise UsageError("PREFECT_API_URL is no address such as http://127.0.0.1:4200/api")


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


def bypass_proxies() -> None:
    """Have this process and those that it starts ask this machine directly, whatever proxy is set."""
    for name in ("NO_PROXY", "no_proxy"):  # some programs read one, some the other
        known = [item for item in os.environ.get(name, "").replace(" ", "").split(",") if item]
        os.environ[name] = ",".join(dict.fromkeys((*known, *sorted(LOOPBACK_HOSTS))))


def is_server_healthy(url: str, timeout: float = 2.0) -> bool:
    """Return whether a Prefect server answers at `url`: on this machine asked directly, not through a proxy.

    A server elsewhere may stand behind others, such as a page that asks for a password: any answer is one.
    """
    status, _, body = _send_get(f"{url}/health", {}, timeout)
    return body.strip() == b"true" if _is_local(url) else 0 < status < _SERVER_ERROR


def _is_local(url: str) -> bool:
    try:
        return urlsplit(url).hostname in LOOPBACK_HOSTS
    except ValueError:
        return False


def require_server(url: str) -> None:
    """Check that a Prefect server of a fitting version answers at `url` and takes this user.

    Raises
    ------
    HephaestusError
        If not; the message says what to do.
    """
    check_address(url)
    if not is_server_healthy(url, _PATIENT_SECONDS):
        raise HephaestusError(f"no Prefect server answers at {redact_url(url)}; {advise_on_start(url)}")
    check_access(url)
    status, _, body = _send_get(f"{url}/admin/version", _authorization(api_credentials(url)))
    theirs = sanitize_text(body.decode(errors="replace").strip('" \n'), 40)
    major = theirs.partition(".")[0]
    if status == _OK and major.isdecimal() and major != prefect.__version__.partition(".")[0]:
        raise HephaestusError(
            f"the Prefect server at {redact_url(url)} is of version {theirs}, and this is Prefect "
            f"{prefect.__version__}: stop that one and let `make serve` start one, or choose another with "
            f"PREFECT_API_URL"
        )


def advise_on_start(url: str) -> str:
    """Return what to do where no server answers."""
    if get_current_settings().api.url is None:
        return "`make serve` starts one"
    where = "`make serve` starts one there" if _is_local(url) else "start it there"
    return f"{where}, or unset PREFECT_API_URL (`prefect config unset PREFECT_API_URL`) to use this machine's"


def check_access(url: str) -> str | None:
    """Return what is wrong with the access control of a server, or None.

    Raises
    ------
    HephaestusError
        If it refuses this user.
    """
    about = f"{url}/csrf-token?client=hephaestus"
    status, headers, _ = _send_get(about, {"Origin": _FOREIGN_ORIGIN})
    open_to_pages = status not in (_UNAUTHORIZED, _FORBIDDEN) and (
        status != _OK or headers.get("Access-Control-Allow-Origin") in ("*", _FOREIGN_ORIGIN)
    )
    if get_current_settings().api.key is None:
        secret = api_credentials(url)
        if _send_get(about, _authorization(secret))[0] == _UNAUTHORIZED:
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


def _authorization(secret: str | None) -> dict[str, str]:
    if not secret:
        return {}
    return {"Authorization": f"Basic {base64.b64encode(secret.encode()).decode()}"}


def _send_get(url: str, headers: Mapping[str, str], timeout: float = 5.0) -> tuple[int, Message, bytes]:
    """Return status, headers and the beginning of the body of a GET; status 0 where nothing answers."""
    try:
        parts = urlsplit(url)
        request = Request(
            parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl(), headers=dict(headers)
        )
        if request.type not in ("http", "https"):
            return 0, Message(), b""
        proxies = ProxyHandler({} if _is_local(url) else None)
        with build_opener(proxies).open(request, timeout=timeout) as answer:
            return answer.status, answer.headers, answer.read(_MOST_READ)
    except HTTPError as error:
        with error:
            return error.code, error.headers, b""
    except (OSError, ValueError, http.client.HTTPException):
        return 0, Message(), b""
