"""Prefect's server behind a guard that refuses requests of other sites' pages.

Run by :mod:`hephaestus_flows.local_server` as ``python -m hephaestus_flows.guarded_server``. A browser sends
which host it asks (``Host``) and which page asks (``Origin``). Prefect checks neither: a page whose name was
made to resolve to this machine (DNS rebinding) could fetch a CSRF token, and websockets need none. So both
headers are checked here, in front of everything. Programs that are no browsers send no ``Origin`` and notice
nothing.
"""

from __future__ import annotations

import os
import re
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from dataclasses import dataclass
from typing import Annotated, Any
from urllib.parse import urlsplit

import typer

from hephaestus_build.cli.console import run_module

LOOPBACK_HOSTS = frozenset({"127.0.0.1", "localhost", "::1"})

_Message = MutableMapping[str, Any]
_Receive = Callable[[], Awaitable[_Message]]
_Send = Callable[[_Message], Awaitable[None]]
_App = Callable[[_Message, _Receive, _Send], Awaitable[None]]

_HOST_HEADER = re.compile(r"(\[[0-9a-f:.]+\]|[a-z0-9.-]+)(?::[0-9]{1,5})?")
_HTTP_FORBIDDEN = 403
_POLICY_VIOLATION = 1008  # code of a websocket's close


def allowed_origins(port: int, more: str = "") -> tuple[str, ...]:
    """Return the origins whose pages may use a server on `port` of this machine.

    Parameters
    ----------
    port : int
    more : str
        Further origins, separated by commas: of a reverse proxy.

    Raises
    ------
    ValueError
        If one of `more` is no origin; ``*`` is none.
    """
    own = (f"http://{host}:{port}" for host in ("127.0.0.1", "localhost", "[::1]"))
    further = (text.strip().lower() for text in more.split(","))
    return tuple(dict.fromkeys((*own, *(_validate_origin(text) for text in further if text))))


def _validate_origin(origin: str) -> str:
    parts = urlsplit(origin)
    if (
        parts.scheme not in ("http", "https")
        or not parts.hostname
        or origin != f"{parts.scheme}://{parts.netloc}"
    ):
        raise ValueError(f"{origin} is no origin such as https://prefect.example.org")
    return origin


@dataclass(frozen=True)
class OriginGuard:
    """An ASGI application in front of another, which refuses requests of other sites' pages.

    Attributes
    ----------
    app : callable
        What answers the others.
    origins : tuple of str
        Pages that may ask; requests must name one of their hosts, or this machine.
    """

    app: _App
    origins: tuple[str, ...]

    async def __call__(self, scope: _Message, receive: _Receive, send: _Send) -> None:
        """Answer a request, or hand it on."""
        kind = scope["type"]
        why = refusal_reason(scope["headers"], self.origins) if kind in ("http", "websocket") else None
        if why is None:
            await self.app(scope, receive, send)
        elif kind == "websocket":
            await send({"type": "websocket.close", "code": _POLICY_VIOLATION, "reason": why})
        else:
            headers = [
                (b"content-type", b"text/plain; charset=utf-8"),
                (b"x-content-type-options", b"nosniff"),
            ]
            await send({"type": "http.response.start", "status": _HTTP_FORBIDDEN, "headers": headers})
            await send({"type": "http.response.body", "body": f"{why}\n".encode()})


def refusal_reason(headers: Iterable[tuple[bytes, bytes]], origins: tuple[str, ...]) -> str | None:
    """Return why a request with these headers is refused, or None."""
    named = [(name.lower(), value.decode("latin-1").lower()) for name, value in headers]
    hosts = [value for name, value in named if name == b"host"]
    allowed = LOOPBACK_HOSTS | {urlsplit(origin).hostname for origin in origins}
    if len(hosts) != 1 or _parse_hostname(hosts[0]) not in allowed:
        return "this server does not go by that name (Host)"
    if any(name == b"origin" and value not in origins for name, value in named):
        return "pages of other sites may not use this server (Origin)"
    return None


def _parse_hostname(host: str) -> str | None:
    found = _HOST_HEADER.fullmatch(host)
    return found[1].strip("[]") if found else None


def _main(
    host: Annotated[str, typer.Option(help="Address to listen on.")],
    port: Annotated[int, typer.Option(help="Port to listen on.")],
) -> None:
    """Serve Prefect's API and pages until stopped."""
    import uvicorn
    from prefect.server.api.server import create_app
    from prefect.settings import get_current_settings

    settings = get_current_settings().server
    app = create_app(final=True)
    # from here on: the database and its records; the pages, copied by now, may be another user's too
    os.umask(0o077)
    uvicorn.run(
        OriginGuard(app, tuple(settings.api.cors_allowed_origins.split(","))),
        host=host,
        port=port,
        timeout_keep_alive=settings.api.keepalive_timeout,
        ws_ping_interval=settings.api.websocket_ping_interval,
        ws_ping_timeout=settings.api.websocket_ping_timeout,
        log_level=settings.logging_level.lower(),
    )


if __name__ == "__main__":
    run_module(_main)
