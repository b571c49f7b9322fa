"""Bounds for the HTTP session of a client library: answers are JSON of limited size, in limited time."""

from __future__ import annotations

import threading
from contextlib import suppress
from typing import Any

import requests
import urllib3
from requests.adapters import BaseAdapter

from hephaestus_build.parsing import parse_json

_BLOCK = 1 << 18


def bound_answers(session: requests.Session, *, seconds: float, limit: int) -> None:
    """Bound the answers that `session` gets from now on.

    A body that is larger than `limit`, or is no JSON within the bounds of :func:`parse_json`, is taken for
    an empty one: the library that asked then finds no answer in it. A body that takes longer than `seconds`
    ends as a timeout does.

    Parameters
    ----------
    session : requests.Session
        Its adapters are wrapped.
    seconds : float
        From the headers of an answer to the end of its body.
    limit : int
        Bytes of a body, once its encoding is undone.
    """
    for prefix, adapter in list(session.adapters.items()):
        session.mount(prefix, _Bounded(adapter, seconds, limit))


class _Bounded(BaseAdapter):
    def __init__(self, inner: BaseAdapter, seconds: float, limit: int) -> None:
        super().__init__()
        self._inner = inner
        self._seconds = seconds
        self._limit = limit

    def send(self, request: requests.PreparedRequest, *args: Any, **kwargs: Any) -> requests.Response:
        # requests gives every option by name
        response = self._inner.send(request, *args, **{**kwargs, "stream": True})
        body = self._body(response)
        with suppress(ValueError):
            parse_json(body, limit=self._limit)
            response._content = body
            return response
        response._content = b""
        return response

    def close(self) -> None:
        self._inner.close()

    def _body(self, response: requests.Response) -> bytes:
        """Return the body, one byte more than the limit at most."""
        body = bytearray()
        late = threading.Event()
        watch = threading.Timer(self._seconds, _hang_up, (response, late))
        watch.daemon = True
        watch.start()
        try:
            while len(body) <= self._limit and (block := response.raw.read1(_BLOCK, decode_content=True)):
                body += block
        except (urllib3.exceptions.HTTPError, OSError) as error:
            # a socket's timeout begins with each byte; that of the whole body is this
            if late.is_set() or isinstance(error, urllib3.exceptions.TimeoutError | TimeoutError):
                raise requests.exceptions.ReadTimeout(f"no whole answer in {self._seconds:g} s") from None
            raise requests.exceptions.ChunkedEncodingError(type(error).__name__) from None
        finally:
            watch.cancel()
            response._content_consumed = True  # type: ignore[attr-defined]
            response.raw.close() if len(body) > self._limit or late.is_set() else response.raw.release_conn()
        if late.is_set():
            raise requests.exceptions.ReadTimeout(f"no whole answer in {self._seconds:g} s")
        return bytes(body)


def _hang_up(response: requests.Response, late: threading.Event) -> None:
    late.set()
    with suppress(Exception):  # it may end at this very moment
        response.raw.shutdown()
