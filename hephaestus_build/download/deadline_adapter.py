"""Connections with a deadline for the headers of a response, whose requests wait for their turn."""

from __future__ import annotations

import socket
import threading
from contextlib import suppress
from http.client import HTTPException
from typing import Any

import requests
from requests.adapters import HTTPAdapter

from hephaestus_build.download.request_pace import RequestLimits
from hephaestus_build.download.traffic import TRAFFIC


class _HeaderDeadline:
    """A connection with an overall deadline for the headers of a response.

    A socket's timeout restarts with each byte, and headers may have 100 lines of 65,536 bytes.
    """

    sock: Any
    timeout: Any

    def getresponse(self) -> Any:
        limit = self.timeout if isinstance(self.timeout, int | float) else 60.0
        hung_up = threading.Event()
        watch = threading.Timer(2 * limit, self._hang_up, (hung_up,))
        watch.daemon = True
        watch.start()
        try:
            response = super().getresponse()  # type: ignore[misc]
        except (OSError, HTTPException) as error:
            if hung_up.is_set():  # closed by _hang_up, not by the archive
                raise TimeoutError from error
            raise
        finally:
            watch.cancel()
        if hung_up.is_set():  # otherwise truncated headers would pass as complete
            response.close()
            raise TimeoutError
        return response

    def _hang_up(self, hung_up: threading.Event) -> None:
        hung_up.set()
        with suppress(OSError, AttributeError):
            self.sock.shutdown(socket.SHUT_RDWR)


def _with_header_deadline(pool: Any) -> Any:
    """Return a class of connection pools, also one for SOCKS proxies, whose connections have the deadline."""
    if issubclass(pool.ConnectionCls, _HeaderDeadline):
        return pool
    connection = type(pool.ConnectionCls.__name__, (_HeaderDeadline, pool.ConnectionCls), {})
    return type(pool.__name__, (pool,), {"ConnectionCls": connection})


class DeadlineAdapter(HTTPAdapter):
    """Adapter for connections with a deadline for response headers, and without cookies.

    Parameters
    ----------
    limits : RequestLimits
        What each request waits for.
    """

    def __init__(self, limits: RequestLimits) -> None:
        self._limits = limits
        super().__init__()

    def send(self, request: requests.PreparedRequest, *args: Any, **options: Any) -> requests.Response:
        """Send a request when it is its turn, and count its answer."""
        url = request.url or ""
        self._limits.wait_turn(url)
        try:
            response = super().send(request, *args, **options)
        except Exception:
            TRAFFIC.add_answer(url, None)
            raise
        TRAFFIC.add_answer(url, response.status_code)
        return response

    def build_response(self, req: requests.PreparedRequest, resp: Any) -> requests.Response:  # noqa: D102 (the library's hook)
        for name in ("Set-Cookie", "Set-Cookie2"):  # cookies are not kept, so they need not be parsed
            with suppress(AttributeError):
                del resp._original_response.msg[name]
        return super().build_response(req, resp)

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:  # noqa: D102 (the library's hook)
        super().init_poolmanager(*args, **kwargs)
        self._set_header_deadline(self.poolmanager)

    def proxy_manager_for(self, *args: Any, **kwargs: Any) -> Any:  # noqa: D102 (the library's hook)
        manager = super().proxy_manager_for(*args, **kwargs)
        self._set_header_deadline(manager)
        return manager

    @staticmethod
    def _set_header_deadline(manager: Any) -> None:
        pools = manager.pool_classes_by_scheme
        manager.pool_classes_by_scheme = {name: _with_header_deadline(pool) for name, pool in pools.items()}
