"""A single HTTP exchange: overall deadlines, readable failures, credentials that stay with their origin."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any

import requests
import urllib3
from requests.auth import HTTPBasicAuth

from hephaestus_build import __version__
from hephaestus_build.core.plain_text import sanitize_text
from hephaestus_build.core.provenance import Outcome
from hephaestus_build.core.web_address import HttpUrl, redact_url
from hephaestus_build.download.credentials import netrc_login
from hephaestus_build.download.deadline_adapter import DeadlineAdapter
from hephaestus_build.download.request_errors import CONNECT_TIMEOUT, RequestFailed, classify_transport_error
from hephaestus_build.download.request_pace import RequestLimits
from hephaestus_build.download.traffic import TRAFFIC

USER_AGENT = f"hephaestus-build/{__version__} (LiCSAR and ERA5 cube builder; python-requests)"
#: Minimum transfer rate, bytes per second; users report 9,000 on slow days.
MIN_BYTES_PER_SECOND = 1024.0
_BLOCK = 1 << 18
_MAX_REDIRECTS = 5


class _QueryRedactor(logging.Filter):
    """Logging filter that removes queries, which may contain tokens, from addresses logged by urllib3."""

    def filter(self, record: logging.LogRecord) -> bool:
        if isinstance(record.args, tuple):
            record.args = tuple(
                _strip_query(arg) if isinstance(arg, str | Exception) else arg for arg in record.args
            )
        record.exc_info = None  # messages of exceptions quote addresses too
        return True


def _strip_query(text: object) -> str:
    return sanitize_text(str(text).partition("?")[0])


for _name in ("urllib3.connectionpool", "urllib3.connection", "urllib3.response"):
    logging.getLogger(_name).addFilter(_QueryRedactor())


class StrictSession(requests.Session):
    """A session without automatic redirects, cookies, or logins from ``~/.netrc``.

    As usual, proxies and certificates are taken from the environment.

    Parameters
    ----------
    limits : RequestLimits
        What each request waits for, one after a redirect too.
    """

    def __init__(self, limits: RequestLimits) -> None:
        super().__init__()
        # no compression: products are compressed already, and Content-Length must be the file's size
        self.headers.update({"User-Agent": USER_AGENT, "Accept-Encoding": "identity", "Accept": "*/*"})
        self.auth = _no_auth  # otherwise requests sends logins of ~/.netrc, even over http
        for scheme in ("http://", "https://"):
            self.mount(scheme, DeadlineAdapter(limits))

    def resolve_redirects(self, *_: Any, **__: Any) -> Iterator[Any]:
        """Follow no redirects, since requests reads the whole body of a redirect first."""
        return iter(())


def _no_auth(request: requests.PreparedRequest) -> requests.PreparedRequest:
    return request


class Transport:
    """Persistent connections to the hosts of one archive, separate for each thread.

    Parameters
    ----------
    timeout : float
        Seconds without a byte after which an exchange counts as stalled.
    headers : mapping
        Headers for the requested origin; not sent to redirect targets of other origins.
    follow : callable or None
        Returns whether to follow a redirect to an address.
    limits : RequestLimits
        What each request waits for.
    """

    def __init__(
        self,
        timeout: float,
        headers: Mapping[str, str],
        follow: Callable[[str], bool] | None,
        limits: RequestLimits,
    ) -> None:
        self._timeout = timeout
        self._limits = limits
        self._headers = headers
        self._follow = follow or (lambda url: True)
        self._local = threading.local()
        self._sessions: list[requests.Session] = []
        self._lock = threading.Lock()

    def close(self) -> None:
        """Close all idle connections."""
        with self._lock:
            for session in self._sessions:
                session.close()

    def _session(self) -> requests.Session:
        session: requests.Session | None = getattr(self._local, "session", None)
        if session is None:
            session = self._local.session = StrictSession(self._limits)
            with self._lock:
                self._sessions.append(session)
        return session

    def send(self, method: str, url: str, headers: Mapping[str, str]) -> requests.Response:
        """Send a request, follow redirects, and return the response with its body unread.

        The login, from the address or ``~/.netrc``, and the transport's headers are sent only to the
        requested origin. After the first redirect to another origin, they are no longer sent.

        Raises
        ------
        RequestFailed
            If there is no response.
        """
        try:
            address = HttpUrl.parse(url)
        except ValueError:
            raise RequestFailed(Outcome.UNREACHABLE, f"{redact_url(url)!r} is not a valid address") from None
        session, origin = self._session(), address.origin
        login, own = address.credentials or netrc_login(address), self._headers
        for _ in range(_MAX_REDIRECTS + 1):
            try:
                response = session.request(
                    method,
                    address.request_url,
                    headers={**own, **headers},
                    auth=HTTPBasicAuth(*(part.encode() for part in login)) if login else _no_auth,
                    stream=True,
                    timeout=(min(self._timeout, CONNECT_TIMEOUT), self._timeout),
                    allow_redirects=False,
                )
                target = session.get_redirect_target(response)
            except (requests.RequestException, urllib3.exceptions.HTTPError, OSError, ValueError) as error:
                raise self._classify_error(error, str(address)) from error
            if target is None:
                return response
            response.close()  # unread, since the body of a redirect may be endless
            asked = str(address)
            try:
                address = address.join(target)
            except ValueError:
                raise RequestFailed(
                    Outcome.REFUSED, "redirected to something that is not a web address", asked
                ) from None
            if not self._follow(address.request_url):
                detail = f"redirected to {sanitize_text(address, 200)!r}, which is not allowed"
                raise RequestFailed(Outcome.REFUSED, detail, asked)
            if address.origin != origin:
                if (login or own) and (origin[0], address.scheme) == ("https", "http"):
                    detail = (
                        f"redirected from https to {sanitize_text(address, 200)!r}, which is not followed"
                    )
                    raise RequestFailed(Outcome.REFUSED, detail, asked)
                login, own = None, {}
        raise RequestFailed(Outcome.UNREACHABLE, f"redirected more than {_MAX_REDIRECTS} times", str(address))

    def stream_body(self, response: requests.Response, deadline: float) -> Iterator[bytes]:
        """Yield the body of a response of :meth:`send` as it arrives; see :func:`stream_body`."""
        return stream_body(response, self._timeout, deadline)

    def _classify_error(self, error: Exception, url: str) -> RequestFailed:
        return classify_transport_error(error, url, self._timeout)


def stream_body(response: requests.Response, timeout: float, deadline: float) -> Iterator[bytes]:
    """Yield the body of `response` as it arrives, without decoding.

    Parameters
    ----------
    response : requests.Response
        Response with an unread body.
    timeout : float
        Seconds without a byte after which the response counts as stalled.
    deadline : float
        Value of ``time.monotonic()`` by which the body must be complete.

    Raises
    ------
    RequestFailed
        If the transfer stalls, is too slow, is interrupted, or misses the deadline.
    """
    url = redact_url(response.request.url or "")
    since, received = time.monotonic(), 0
    with _read_watchdog(response, timeout) as reading:
        while True:
            try:
                with reading:
                    block = response.raw.read1(_BLOCK, decode_content=False)
            except (urllib3.exceptions.HTTPError, OSError) as error:
                raise classify_transport_error(error, url, timeout) from error
            if reading.hung_up:  # otherwise the truncated body would pass as complete
                raise RequestFailed(
                    Outcome.UNREACHABLE, "sends endless data after the content", url, retry_policy="passing"
                )
            if not block:
                return
            TRAFFIC.add_bytes(len(block))
            yield block
            received += len(block)
            now = time.monotonic()
            if now > deadline:
                raise RequestFailed(Outcome.UNREACHABLE, "still incomplete after the maximum duration", url)
            if now - since >= timeout:
                if received < MIN_BYTES_PER_SECOND * (now - since):
                    detail = f"too slow: {received} bytes in {now - since:.3g} s"
                    raise RequestFailed(Outcome.UNREACHABLE, detail, url, retry_policy="passing")
                since, received = now, 0


class _SocketRead:
    """Timer of a single read call, which can last as long as a server sends bytes that are not content."""

    def __init__(self) -> None:
        self.hung_up = False
        self._since: float | None = None

    def __enter__(self) -> None:
        self._since = time.monotonic()

    def __exit__(self, *_: object) -> None:
        self._since = None

    @property
    def seconds(self) -> float:
        """Duration of the current read call, seconds; 0 between calls."""
        since = self._since
        return 0.0 if since is None else time.monotonic() - since


@contextmanager
def _read_watchdog(response: requests.Response, timeout: float) -> Iterator[_SocketRead]:
    """Close the connection if a single read call takes too long, as with endless chunked trailers."""
    reading, ended = _SocketRead(), threading.Event()

    def watch() -> None:
        while not ended.wait(timeout / 4):
            if reading.seconds > 2 * timeout:
                reading.hung_up = True
                with suppress(OSError, ValueError, RuntimeError):
                    response.raw.shutdown()
                return

    watcher = threading.Thread(target=watch, daemon=True, name="watch")
    watcher.start()
    try:
        yield reading
    finally:
        ended.set()
