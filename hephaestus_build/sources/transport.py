"""One HTTP exchange with the limits that sockets do not have, and failures told in words."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from http.client import HTTPException
from typing import Any, Literal
from urllib.parse import urljoin, urlsplit, urlunsplit

import requests
import urllib3
from requests.adapters import HTTPAdapter
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool

from hephaestus_build import __version__
from hephaestus_build.sources.receipt import Outcome

USER_AGENT = f"hephaestus-build/{__version__} (LiCSAR and ERA5 cube builder; python-requests)"
#: Bytes a second below which a body counts as stalled; users report days of 9,000.
SLOWEST = 1024.0
# A host that is there takes a connection within seconds; one that is not must not cost minutes.
_CONNECT = 15.0
_BLOCK = 1 << 18
_REDIRECTS = 5

Again = Literal["never", "content", "passing"]


class Failed(Exception):  # noqa: N818 (an outcome, not an error of the program)
    """A request did not end well.

    Attributes
    ----------
    outcome : Outcome
        What to call it.
    detail : str
        Why, in words.
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
        again: Again = "never",
    ) -> None:
        super().__init__(detail)
        self.outcome = outcome
        self.detail = detail
        self.url = url
        self.status = status
        self.again = again


def redacted(url: str) -> str:
    """Return `url` without whatever may carry a credential: user, password, query and fragment."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return "(no address)"
    host = parts.netloc.rpartition("@")[2]
    return urlunsplit((parts.scheme, host, parts.path, "", ""))


class Transport:
    """Connections to one archive's hosts, kept open per thread.

    Parameters
    ----------
    timeout : float
        Seconds without a byte after which an exchange counts as stalled.
    headers : mapping
        Sent to the host that is asked, not to those it redirects to.
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
        self._guard = threading.Lock()

    def close(self) -> None:
        """Close all connections that wait for another request."""
        with self._guard:
            for session in self._sessions:
                session.close()

    def _session(self) -> requests.Session:
        session: requests.Session | None = getattr(self._local, "session", None)
        if session is None:
            session = requests.Session()
            # products are compressed already, and a length must be that of the file
            session.headers.update({"User-Agent": USER_AGENT, "Accept-Encoding": "identity", "Accept": "*/*"})
            for scheme in ("http://", "https://"):
                session.mount(scheme, _Adapter())
            self._local.session = session
            with self._guard:
                self._sessions.append(session)
        return session

    def send(self, method: str, url: str, headers: Mapping[str, str]) -> requests.Response:
        """Return the answer to one request, redirects followed and the body not yet read.

        Raises
        ------
        Failed
            If no answer came.
        """
        session, origin = self._session(), origin_of(url)
        for _ in range(_REDIRECTS + 1):
            own = self._headers if origin_of(url) == origin else {}
            try:
                response = session.request(
                    method,
                    url,
                    headers={**own, **headers},
                    stream=True,
                    timeout=(min(self._timeout, _CONNECT), self._timeout),
                    allow_redirects=False,
                )
                target = session.get_redirect_target(response)
            except (requests.RequestException, urllib3.exceptions.HTTPError, OSError, ValueError) as error:
                raise self._failure(error, redacted(url)) from error
            if target is None:
                return response
            response.close()  # unread: the body of a redirect may be endless too
            url, asked = _joined(url, target), redacted(url)
            if not (url.startswith(("http://", "https://")) and self._follow(url)):
                detail = f"redirected to {redacted(url)[:200]!r}, which may not be asked"
                raise Failed(Outcome.REFUSED, detail, asked)
        raise Failed(Outcome.UNREACHABLE, f"redirected more than {_REDIRECTS} times", redacted(url))

    def body(self, response: requests.Response, deadline: float, *, decode: bool = False) -> Iterator[bytes]:
        """Yield the body of `response` as it arrives.

        Parameters
        ----------
        response : requests.Response
            An answer of :meth:`send`.
        deadline : float
            ``time.monotonic()`` by which it must have ended.
        decode : bool
            Undo a Content-Encoding; otherwise the bytes are yielded as sent.

        Raises
        ------
        Failed
            If it stalls, trickles, breaks off or takes too long.
        """
        url = redacted(response.request.url or "")
        since, received = time.monotonic(), 0
        while True:
            try:
                block = response.raw.read1(_BLOCK, decode_content=decode)
            except (urllib3.exceptions.HTTPError, OSError) as error:
                raise self._failure(error, url) from error
            if not block:
                return
            yield block
            received += len(block)
            now = time.monotonic()
            if now > deadline:
                raise Failed(Outcome.UNREACHABLE, "still not complete after all the time allowed", url)
            if now - since >= self._timeout:
                if received < SLOWEST * (now - since):
                    detail = f"trickled: {received} bytes in {now - since:.3g} s"
                    raise Failed(Outcome.UNREACHABLE, detail, url, again="passing")
                since, received = now, 0

    def _failure(self, error: Exception, url: str) -> Failed:
        """Say in words what a library's exception means."""
        chain: list[BaseException] = [error]
        for link in chain:
            found = [link.__cause__, link.__context__, *link.args, getattr(link, "reason", None)]
            chain += [item for item in found if isinstance(item, BaseException) and item not in chain]

        def among(*kinds: type[BaseException]) -> bool:
            return any(isinstance(link, kinds) for link in chain)

        if isinstance(error, ValueError):
            return Failed(Outcome.UNREACHABLE, f"{url[:200]!r} is no address that can be asked")
        if among(urllib3.exceptions.IncompleteRead):
            return Failed(
                Outcome.CORRUPT, "cut: the connection ended before the file did", url, again="passing"
            )
        reasons: list[tuple[tuple[type[BaseException], ...], str]] = [
            ((urllib3.exceptions.NameResolutionError, socket.gaierror), "its host's name cannot be resolved"),
            ((ConnectionRefusedError,), "its host refuses connections"),
            (
                (urllib3.exceptions.ConnectTimeoutError,),
                f"no connection within {min(self._timeout, _CONNECT):g} s",
            ),
            ((urllib3.exceptions.TimeoutError, TimeoutError), f"stalled: no byte for {self._timeout:g} s"),
            ((urllib3.exceptions.SSLError,), "no secure connection could be made"),
            ((ConnectionError, urllib3.exceptions.ProtocolError), "the connection was reset"),
        ]
        for kinds, words in reasons:
            if among(*kinds):
                return Failed(Outcome.UNREACHABLE, words, url, again="passing")
        return Failed(Outcome.UNREACHABLE, f"no answer ({type(error).__name__})", url, again="passing")


def origin_of(url: str) -> tuple[str, str]:
    """Return scheme and host of `url`; empty if it has none."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return "", ""
    return parts.scheme, parts.netloc


def _joined(url: str, target: str) -> str:
    try:
        return urljoin(url, target)
    except ValueError:
        return ""


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


class _Http(_HeaderDeadline, HTTPConnection):
    pass


class _Https(_HeaderDeadline, HTTPSConnection):
    pass


class _HttpPool(HTTPConnectionPool):
    ConnectionCls = _Http


class _HttpsPool(HTTPSConnectionPool):
    ConnectionCls = _Https


class _Adapter(HTTPAdapter):
    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        super().init_poolmanager(*args, **kwargs)
        self.poolmanager.pool_classes_by_scheme = {"http": _HttpPool, "https": _HttpsPool}

    def proxy_manager_for(self, *args: Any, **kwargs: Any) -> Any:
        manager = super().proxy_manager_for(*args, **kwargs)
        manager.pool_classes_by_scheme = {"http": _HttpPool, "https": _HttpsPool}
        return manager
