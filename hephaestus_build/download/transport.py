"""A single HTTP exchange: overall deadlines, readable failures, credentials that stay with their origin."""

from __future__ import annotations

import logging
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from http.client import HTTPException
from typing import Any, Literal

import requests
import urllib3
from requests.adapters import HTTPAdapter
from requests.auth import HTTPBasicAuth
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool

from hephaestus_build import __version__
from hephaestus_build.core.plain_text import sanitize_text
from hephaestus_build.core.provenance import Outcome
from hephaestus_build.core.web_address import HttpUrl, redact_url
from hephaestus_build.download.credentials import netrc_login

USER_AGENT = f"hephaestus-build/{__version__} (LiCSAR and ERA5 cube builder; python-requests)"
#: Bytes a second below which a body counts as stalled; users report days of 9,000.
MIN_BYTES_PER_SECOND = 1024.0
# A host that is there takes a connection within seconds; one that is not must not cost minutes.
_CONNECT_TIMEOUT = 15.0
_BLOCK = 1 << 18
_MAX_REDIRECTS = 5

RetryPolicy = Literal["never", "content", "passing"]


class RequestFailed(Exception):  # noqa: N818 (an outcome, not an error of the program)
    """A request did not end well.

    Attributes
    ----------
    outcome : Outcome
        What to call it.
    detail : str
        Why, in words: one harmless line, though it may quote the server.
    url : str
        Who said so, without credentials; empty if nobody did.
    status : int or None
        Of the answer, if there was one.
    again : str
        Whether to try again: ``never``; once if its ``content`` was wrong; a few times if it may be
        ``passing``.
    """

    def __init__(
        self,
        outcome: Outcome,
        detail: str,
        url: str = "",
        *,
        status: int | None = None,
        again: RetryPolicy = "never",
    ) -> None:
        self.outcome = outcome
        self.detail = sanitize_text(detail)
        super().__init__(self.detail)
        self.url = url
        self.status = status
        self.retry_policy = again


class _QueryRedactor(logging.Filter):
    """Cuts the queries off the addresses that urllib3 logs: they may hold a token or a signature."""

    def filter(self, record: logging.LogRecord) -> bool:
        if isinstance(record.args, tuple):
            record.args = tuple(
                _strip_query(arg) if isinstance(arg, str | Exception) else arg for arg in record.args
            )
        record.exc_info = None  # the words of exceptions quote addresses too
        return True


def _strip_query(text: object) -> str:
    return sanitize_text(str(text).partition("?")[0])


for _name in ("urllib3.connectionpool", "urllib3.connection", "urllib3.response"):
    logging.getLogger(_name).addFilter(_QueryRedactor())


class StrictSession(requests.Session):
    """A session that follows no redirect by itself, keeps no cookie and finds no password on its own.

    Proxies and certificates are taken from the environment as ever.
    """

    def __init__(self) -> None:
        super().__init__()
        # products are compressed already, and a length must be that of the file
        self.headers.update({"User-Agent": USER_AGENT, "Accept-Encoding": "identity", "Accept": "*/*"})
        self.auth = _no_auth  # else the entry of ~/.netrc for any host is sent, over http too
        for scheme in ("http://", "https://"):
            self.mount(scheme, DeadlineAdapter())

    def resolve_redirects(self, *_: Any, **__: Any) -> Iterator[Any]:
        """Follow nothing: even to find out where one leads, the library reads the whole body before."""
        return iter(())


def _no_auth(request: requests.PreparedRequest) -> requests.PreparedRequest:
    return request


class Transport:
    """Connections to one archive's hosts, kept open per thread.

    Parameters
    ----------
    timeout : float
        Seconds without a byte after which an exchange counts as stalled.
    headers : mapping
        Sent to the origin that is asked, not to those it redirects to.
    follow : callable or None
        Whether a redirect to an address may be followed.
    """

    def __init__(
        self, timeout: float, headers: Mapping[str, str], follow: Callable[[str], bool] | None
    ) -> None:
        self._timeout = timeout
        self._headers = headers
        self._follow = follow or (lambda url: True)
        self._local = threading.local()
        self._sessions: list[requests.Session] = []
        self._lock = threading.Lock()

    def close(self) -> None:
        """Close all connections that wait for another request."""
        with self._lock:
            for session in self._sessions:
                session.close()

    def _session(self) -> requests.Session:
        session: requests.Session | None = getattr(self._local, "session", None)
        if session is None:
            session = self._local.session = StrictSession()
            with self._lock:
                self._sessions.append(session)
        return session

    def send(self, method: str, url: str, headers: Mapping[str, str]) -> requests.Response:
        """Return the answer to one request, redirects followed and the body not yet read.

        The login of the address, that of ``~/.netrc`` and the transport's own headers go to the origin that
        is asked. From the first redirect to another one on they are left out, whatever comes after.

        Raises
        ------
        Failed
            If no answer came.
        """
        try:
            address = HttpUrl.parse(url)
        except ValueError:
            raise RequestFailed(
                Outcome.UNREACHABLE, f"{redact_url(url)!r} is no address that can be asked"
            ) from None
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
                    timeout=(min(self._timeout, _CONNECT_TIMEOUT), self._timeout),
                    allow_redirects=False,
                )
                target = session.get_redirect_target(response)
            except (requests.RequestException, urllib3.exceptions.HTTPError, OSError, ValueError) as error:
                raise self._classify_error(error, str(address)) from error
            if target is None:
                return response
            response.close()  # unread: the body of a redirect may be endless too
            asked = str(address)
            try:
                address = address.join(target)
            except ValueError:
                raise RequestFailed(
                    Outcome.REFUSED, "redirected to what is no address of the web", asked
                ) from None
            if not self._follow(address.request_url):
                detail = f"redirected to {sanitize_text(address, 200)!r}, which may not be asked"
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
        """Yield the body of an answer of :meth:`send` as it arrives; see :func:`stream_body`."""
        return stream_body(response, self._timeout, deadline)

    def _classify_error(self, error: Exception, url: str) -> RequestFailed:
        return classify_transport_error(error, url, self._timeout)


def stream_body(response: requests.Response, timeout: float, deadline: float) -> Iterator[bytes]:
    """Yield the body of `response` as it arrives, as it was sent.

    Parameters
    ----------
    response : requests.Response
        An answer whose body was not read yet.
    timeout : float
        Seconds without a byte after which it counts as stalled.
    deadline : float
        ``time.monotonic()`` by which it must have ended.

    Raises
    ------
    Failed
        If it stalls, trickles, breaks off or takes too long.
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
            if reading.hung_up:  # half a body would pass for all of it
                raise RequestFailed(
                    Outcome.UNREACHABLE, "sends what is no content, without end", url, again="passing"
                )
            if not block:
                return
            yield block
            received += len(block)
            now = time.monotonic()
            if now > deadline:
                raise RequestFailed(Outcome.UNREACHABLE, "still not complete after all the time allowed", url)
            if now - since >= timeout:
                if received < MIN_BYTES_PER_SECOND * (now - since):
                    detail = f"trickled: {received} bytes in {now - since:.3g} s"
                    raise RequestFailed(Outcome.UNREACHABLE, detail, url, again="passing")
                since, received = now, 0


class _SocketRead:
    """A single reading from a socket, which may last as long as a server sends what is no content."""

    def __init__(self) -> None:
        self.hung_up = False
        self._since: float | None = None

    def __enter__(self) -> None:
        self._since = time.monotonic()

    def __exit__(self, *_: object) -> None:
        self._since = None

    @property
    def seconds(self) -> float:
        """How long it has taken so far; 0 while nothing is read."""
        since = self._since
        return 0.0 if since is None else time.monotonic() - since


@contextmanager
def _read_watchdog(response: requests.Response, timeout: float) -> Iterator[_SocketRead]:
    """Hang up when one reading takes much too long: behind a last chunk, trailers may follow without end."""
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


def classify_transport_error(error: Exception, url: str, timeout: float) -> RequestFailed:
    """Say in words what a library's exception means.

    Parameters
    ----------
    error : Exception
        Of requests or urllib3, or of what they build on.
    url : str
        The address that was asked, redacted.
    timeout : float
        Seconds that were waited for a byte.
    """
    chain: list[BaseException] = [error]
    for link in chain:
        found = [link.__cause__, link.__context__, *link.args, getattr(link, "reason", None)]
        chain += [item for item in found if isinstance(item, BaseException) and item not in chain]

    def among(*kinds: type[BaseException]) -> bool:
        return any(isinstance(link, kinds) for link in chain)

    if isinstance(error, ValueError):
        return RequestFailed(Outcome.UNREACHABLE, f"{url[:200]!r} is no address that can be asked")
    if among(urllib3.exceptions.IncompleteRead):
        return RequestFailed(
            Outcome.CORRUPT, "cut: the connection ended before the file did", url, again="passing"
        )
    reasons: list[tuple[tuple[type[BaseException], ...], str]] = [
        ((urllib3.exceptions.NameResolutionError, socket.gaierror), "its host's name cannot be resolved"),
        ((ConnectionRefusedError,), "its host refuses connections"),
        (
            (urllib3.exceptions.ConnectTimeoutError,),
            f"no connection within {min(timeout, _CONNECT_TIMEOUT):g} s",
        ),
        ((urllib3.exceptions.TimeoutError, TimeoutError), f"stalled: no byte for {timeout:g} s"),
        ((urllib3.exceptions.SSLError,), "no secure connection could be made"),
        ((ConnectionError, urllib3.exceptions.ProtocolError), "the connection was reset"),
    ]
    for kinds, words in reasons:
        if among(*kinds):
            return RequestFailed(Outcome.UNREACHABLE, words, url, again="passing")
    return RequestFailed(Outcome.UNREACHABLE, f"no answer ({type(error).__name__})", url, again="passing")


class _HeaderDeadline:
    """A connection that hangs up when the headers of an answer trickle.

    A socket's timeout begins anew with each byte; a header may have a hundred lines of 65,536 of them.
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
            if hung_up.is_set():  # it was we who closed it, not the archive
                raise TimeoutError from error
            raise
        finally:
            watch.cancel()
        if hung_up.is_set():  # half the headers would pass for all of them
            response.close()
            raise TimeoutError
        return response

    def _hang_up(self, hung_up: threading.Event) -> None:
        hung_up.set()
        with suppress(OSError, AttributeError):
            self.sock.shutdown(socket.SHUT_RDWR)


class _HttpConnection(_HeaderDeadline, HTTPConnection):
    pass


class _HttpsConnection(_HeaderDeadline, HTTPSConnection):
    pass


class _HttpConnectionPool(HTTPConnectionPool):
    ConnectionCls = _HttpConnection


class _HttpsConnectionPool(HTTPSConnectionPool):
    ConnectionCls = _HttpsConnection


class DeadlineAdapter(HTTPAdapter):
    """Connections with a deadline for the headers of an answer, which bring no cookies."""

    def build_response(self, req: requests.PreparedRequest, resp: Any) -> requests.Response:  # noqa: D102 (the library's hook)
        for name in ("Set-Cookie", "Set-Cookie2"):  # none is kept, so none need be parsed
            with suppress(AttributeError):
                del resp._original_response.msg[name]
        return super().build_response(req, resp)

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:  # noqa: D102 (the library's hook)
        super().init_poolmanager(*args, **kwargs)
        self.poolmanager.pool_classes_by_scheme = {"http": _HttpConnectionPool, "https": _HttpsConnectionPool}

    def proxy_manager_for(self, *args: Any, **kwargs: Any) -> Any:  # noqa: D102 (the library's hook)
        manager = super().proxy_manager_for(*args, **kwargs)
        manager.pool_classes_by_scheme = {"http": _HttpConnectionPool, "https": _HttpsConnectionPool}
        return manager
