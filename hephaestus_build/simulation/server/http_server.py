"""Small loopback HTTP server that hosts the apps of the simulated archive.

It supports HEAD, ranges, conditional requests and keep-alive, and injects faults according to a
:class:`~hephaestus_build.simulation.server.faults.FaultPlan`.
"""

from __future__ import annotations

import hashlib
import io
import json
import re
import socket
import struct
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from email.utils import formatdate, parsedate_to_datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Self
from urllib.parse import parse_qsl, unquote, urlsplit

from hephaestus_build.simulation.server.faults import Fault, FaultPlan

_CHUNK = 1 << 16
_RANGE = re.compile(r"bytes=(\d*)-(\d*)")
#: Headers whose values are not logged.
_SECRET_HEADERS = frozenset({"private-token", "authorization", "cookie", "proxy-authorization"})


@dataclass(frozen=True)
class HttpRequest:
    """Request passed to an app. A HEAD request is passed as GET; the server omits the body.

    Attributes
    ----------
    method : str
        ``GET``, ``POST``, ``PUT`` or ``DELETE``.
    path : str
        Path, percent-decoded, without the query.
    query : dict of str
        Query parameters; of a repeated key, the last value.
    headers : mapping
        Headers, case-insensitive.
    body : bytes
        Body as sent.
    base_url : str
        Address of the server, such as ``http://127.0.0.1:8080``, without a trailing slash.
    query_string : str
        Query as sent, for parameters that may be repeated.
    """

    method: str
    path: str
    query: dict[str, str]
    headers: Mapping[str, str]
    body: bytes
    base_url: str
    query_string: str = ""


@dataclass
class HttpResponse:
    """Response of an app.

    Attributes
    ----------
    status : int
        HTTP status.
    body : bytes or Path
        Content, or the file that holds it.
    headers : dict of str
        Headers. The server adds Content-Type, ETag and Last-Modified if they are missing.
    """

    status: int = 200
    body: bytes | Path = b""
    headers: dict[str, str] = field(default_factory=dict)


def json_response(value: Any, status: int = 200) -> HttpResponse:
    """Return a value as JSON."""
    return HttpResponse(status, json.dumps(value).encode(), {"Content-Type": "application/json"})


#: Function that answers a request, or returns None if the path is not its own.
HttpApp = Callable[[HttpRequest], HttpResponse | None]


@dataclass
class RequestLogEntry:
    """One request as the server saw it, for tests of clients.

    Attributes
    ----------
    method, path : str
        Method, and path, percent-decoded.
    query : dict of str
        Query parameters; of a repeated key, the last value.
    status : int
        HTTP status of the response; 0 if the connection was reset before it.
    headers : dict of str
        Request headers, names in lower case; values of credentials are replaced by ``(sent)``.
    started : float
        ``time.monotonic()`` before the response.
    sent : int
        Number of body bytes sent so far.
    """

    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    started: float
    status: int = 0
    sent: int = 0


class CaseInsensitiveHeaders(dict[str, str]):
    """Dictionary of headers with case-insensitive names."""

    def __init__(self, items: Mapping[str, str] | None = None) -> None:
        super().__init__({key.lower(): value for key, value in (items or {}).items()})

    def __getitem__(self, key: str) -> str:
        return super().__getitem__(key.lower())

    def __setitem__(self, key: str, value: str) -> None:
        super().__setitem__(key.lower(), value)

    def __contains__(self, key: object) -> bool:
        return isinstance(key, str) and super().__contains__(key.lower())

    def get(self, key: str, default: Any = None) -> Any:
        """Return the value of the header `key` in any case, or `default`."""
        return super().get(key.lower(), default)


class LoopbackServer:
    """Server on 127.0.0.1 that handles each connection in a thread; a context manager.

    Parameters
    ----------
    apps : sequence of callables
        Apps, called in order; the first response that is not None is sent, or 404 if there is none.
    port : int
        Port to listen on; 0 selects a free one.
    faults : FaultPlan, optional
        Faults to inject; an empty plan by default.

    Attributes
    ----------
    faults : FaultPlan
        Faults to inject; may be changed at any time.
    """

    def __init__(self, apps: Sequence[HttpApp], *, port: int = 0, faults: FaultPlan | None = None) -> None:
        self.apps = list(apps)
        self.faults = faults if faults is not None else FaultPlan()
        self.stopping = threading.Event()
        self._log: list[RequestLogEntry] = []
        self._lock = threading.Lock()
        self._server = _Server(port, self)
        self._thread = threading.Thread(
            target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, name="loopback", daemon=True
        )

    @property
    def port(self) -> int:
        """Port that the server listens on."""
        return int(self._server.server_address[1])

    @property
    def base_url(self) -> str:
        """Address of the server, without a trailing slash."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def log(self) -> list[RequestLogEntry]:
        """Copy of the list of requests so far, in the order in which their responses started."""
        with self._lock:
            return list(self._log)

    def clear_log(self) -> None:
        """Clear the list of requests."""
        with self._lock:
            self._log.clear()

    def record(self, entry: RequestLogEntry) -> None:
        """Add one request to the log; called before the response starts, so clients find it there."""
        with self._lock:
            self._log.append(entry)

    def respond(self, request: HttpRequest) -> HttpResponse:
        """Return the first response of an app; 404 if none handles the path, 500 if one raises."""
        for app in self.apps:
            try:
                response = app(request)
            except Exception as error:  # a failing app must send 500 instead of leaving the client waiting
                return HttpResponse(500, f"{type(error).__name__}: {error}\n".encode())
            if response is not None and not (isinstance(response.body, Path) and not response.body.is_file()):
                return response
        return HttpResponse(404, b"<html><head><title>404 Not Found</title></head></html>\n", dict(_HTML))

    def start(self) -> Self:
        """Start serving in a thread and return the server."""
        self._thread.start()
        return self

    def close(self) -> None:
        """Stop serving: end stalled responses, close every connection and wait for the threads."""
        self.stopping.set()
        if self._thread.is_alive():
            self._server.shutdown()
            self._thread.join()
        self._server.close_connections()
        self._server.server_close()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


_HTML = {"Content-Type": "text/html;charset=UTF-8"}
#: Headers that a 304 response does not have.
_BODY_HEADERS = frozenset({"content-encoding", "content-length", "content-type", "transfer-encoding"})
#: Seconds to wait for all threads to end; less than the time a command has for its own shutdown.
_SHUTDOWN_SECONDS = 3.0


class _Server(ThreadingHTTPServer):
    """HTTP server that tracks its connections, to close kept-alive and stalled ones on shutdown."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, port: int, owner: LoopbackServer) -> None:
        self.owner = owner
        self._open: dict[socket.socket, threading.Thread] = {}
        self._guard = threading.Lock()
        super().__init__(("127.0.0.1", port), _Handler)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        with self._guard:
            self._open[request] = threading.current_thread()
        try:
            super().process_request_thread(request, client_address)
        finally:
            with self._guard:
                self._open.pop(request, None)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Ignore the error: clients that disconnect are expected in tests."""

    def close_connections(self) -> None:
        with self._guard:
            connections = dict(self._open)
        for connection in connections:
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        deadline = time.monotonic() + _SHUTDOWN_SECONDS
        for thread in connections.values():
            thread.join(max(0.0, deadline - time.monotonic()))


class _ResetError(Exception):
    """Signal that the connection must be reset."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server_version = "Apache/2.4.62"
    sys_version = ""
    disable_nagle_algorithm = True
    reset_connection = False
    _claimed_date = ""
    server: _Server
    entry: RequestLogEntry

    def finish(self) -> None:
        super().finish()
        if self.reset_connection:
            # with linger 0 close() sends RST; the server's own shutdown() would send FIN before it
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.connection.close()

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 -- its base class names it so
        """Write nothing to standard error; requests are logged in memory."""

    def do_GET(self) -> None:
        self._serve()

    do_HEAD = do_POST = do_DELETE = do_PUT = do_GET  # noqa: N815

    def _serve(self) -> None:
        owner = self.server.owner
        split = urlsplit(self.path)
        path, query = unquote(split.path), dict(parse_qsl(split.query, keep_blank_values=True))
        headers = CaseInsensitiveHeaders(dict(self.headers.items()))
        body = self.rfile.read(int(headers.get("content-length") or 0))
        fault = owner.faults.next_fault(self.command, path) or Fault()
        shown = {key: "(sent)" if key in _SECRET_HEADERS else value for key, value in headers.items()}
        self.entry = RequestLogEntry(self.command, path, query, shown, time.monotonic())
        try:
            if fault.delay:
                owner.stopping.wait(fault.delay)
            if fault.reset and fault.cut_after is None:
                raise _ResetError
            if fault.status is not None:
                text = f"{fault.status} {self.responses.get(fault.status, ('Error',))[0]}\n"
                response = HttpResponse(fault.status, text.encode(), {"Content-Type": "text/plain"})
            else:
                method = "GET" if self.command == "HEAD" else self.command
                response = owner.respond(
                    HttpRequest(method, path, query, headers, body, owner.base_url, split.query)
                )
            self._send(response, headers, fault)
        except _ResetError:
            self.close_connection = self.reset_connection = True
        except (ConnectionError, TimeoutError):
            self.close_connection = True
        finally:
            if not self.entry.status:
                owner.record(self.entry)

    def _send(self, response: HttpResponse, asked: CaseInsensitiveHeaders, fault: Fault) -> None:
        if fault.body is not None:
            content = response.body.read_bytes() if isinstance(response.body, Path) else response.body
            body = fault.body(content) if callable(fault.body) else fault.body
            response = replace(response, status=fault.status or 200, body=body)
        headers = CaseInsensitiveHeaders(response.headers)
        with _OpenedBody(response.body, fault.encode) as (stream, size, modified, tag):
            if response.status == 200 and self.command in ("GET", "HEAD"):
                headers.setdefault("accept-ranges", "bytes")
                headers.setdefault("last-modified", modified)
                if "etag" not in headers:
                    headers["etag"] = tag()
                if fault.etag:
                    headers["etag"] = fault.etag(headers["etag"])
            headers.setdefault("content-type", "application/octet-stream")
            status, start, length = response.status, 0, size
            if status == 200 and self.command in ("GET", "HEAD"):
                if _is_not_modified(asked, headers):
                    status, length = 304, 0
                elif (
                    not (fault.ignore_ranges or fault.http10)
                    and (part := (0, size) if fault.unasked_range else _parse_range(asked, headers, size))
                    is not None
                ):
                    if part[1] == 0:
                        status, length = 416, 0
                        headers["content-range"] = f"bytes */{size}"
                    else:
                        skipped = min(fault.range_shift, part[1] - 1)
                        status, start, length = 206, part[0] + skipped, part[1] - skipped
                        headers["content-range"] = f"bytes {start}-{start + length - 1}/{size}"
            headers["content-length"] = str(length if fault.length is None else fault.length)
            if status == 304 or fault.omit_length or fault.chunked:
                headers.pop("content-length")
            if fault.chunked and status != 304:
                headers["transfer-encoding"] = "chunked"
            if fault.http10:
                self.protocol_version = "HTTP/1.0"
                headers.pop("accept-ranges", None)
            if (
                fault.omit_length
                or fault.http10
                or fault.bad_chunks
                or (fault.length is not None and fault.length != length)
            ):
                self.close_connection = True
                headers["connection"] = "close"
            for key, value in fault.headers.items():
                if status != 304 or key.lower() not in _BODY_HEADERS:
                    headers[key] = value
            self.entry.status = status
            self.server.owner.record(self.entry)
            self._claimed_date = headers.pop("date", "")
            self.send_response(status)
            for key, value in headers.items():
                if value:
                    self.send_header(key.title() if key != "etag" else "ETag", value)
            self.end_headers()
            if self.command != "HEAD" and status not in (304, 416):
                stream.seek(start)
                self._stream(stream, length, fault)

    def date_time_string(self, timestamp: float | None = None) -> str:
        """Return the header ``Date``: the present time, or what a fault claims."""
        return self._claimed_date or super().date_time_string(timestamp)

    def _stream(self, stream: BinaryIO, length: int, fault: Fault) -> None:
        ends = [end for end in (fault.cut_after, fault.stall_after) if end is not None]
        limit = min([length, *ends])
        chunk = max(1, min(_CHUNK, int(fault.rate / 20))) if fault.rate else _CHUNK
        if limit and not fault.rate and not fault.chunked and not isinstance(stream, io.BytesIO):
            start = stream.tell()
            self.entry.sent = limit  # before sending: the client may read the log once it has the body
            try:
                self.connection.sendfile(stream, start, limit)  # the kernel copies, as in real web servers
            finally:
                self.entry.sent = stream.tell() - start
        while self.entry.sent < limit:
            data = stream.read(min(chunk, limit - self.entry.sent))
            if not data:
                break
            self.entry.sent += len(data)
            self.wfile.write(b"%x\r\n%b\r\n" % (len(data), data) if fault.chunked else data)
            if fault.bad_chunks:
                self.wfile.write(b"no number\r\n")
                return
            if fault.rate and self.server.owner.stopping.wait(len(data) / fault.rate):
                raise ConnectionAbortedError
        if ends and limit == min(ends):
            self.close_connection = True
            if fault.reset:
                raise _ResetError
            if fault.stall_after is not None:
                self.server.owner.stopping.wait()
        elif fault.chunked:
            self.wfile.write(b"0\r\n\r\n")


class _OpenedBody:
    """Context manager for a body: its stream, size, Last-Modified and a function for its ETag.

    With `encode`, stream and size are those of the encoded body, the rest those of the file.
    """

    def __init__(self, body: bytes | Path, encode: Callable[[bytes], bytes] | None = None) -> None:
        self._stream: BinaryIO
        if isinstance(body, Path):
            self._stream = body.open("rb")
            facts = body.stat()
            mark = f'"{facts.st_size:x}-{facts.st_mtime_ns:x}"'
            self._facts = (facts.st_size, formatdate(facts.st_mtime, usegmt=True), lambda: mark)
        else:
            self._stream = io.BytesIO(body)
            self._facts = (len(body), "", lambda: f'"{hashlib.sha256(body).hexdigest()[:16]}"')
        if encode is not None:
            with self._stream as stream:
                encoded = encode(stream.read())
            self._stream = io.BytesIO(encoded)
            self._facts = (len(encoded), *self._facts[1:])

    def __enter__(self) -> tuple[BinaryIO, int, str, Callable[[], str]]:
        return (self._stream, *self._facts)

    def __exit__(self, *_: object) -> None:
        self._stream.close()


def _is_not_modified(asked: CaseInsensitiveHeaders, headers: CaseInsensitiveHeaders) -> bool:
    """Return whether the client's copy is current; If-None-Match takes precedence over If-Modified-Since."""
    if wanted := asked.get("if-none-match"):
        tags = {tag.strip().removeprefix("W/") for tag in wanted.split(",")}
        return "*" in tags or headers.get("etag", "").removeprefix("W/") in tags
    if (since := asked.get("if-modified-since")) and headers.get("last-modified"):
        with suppress(ValueError, TypeError):
            return parsedate_to_datetime(headers["last-modified"]) <= parsedate_to_datetime(since)
    return False


def _parse_range(
    asked: CaseInsensitiveHeaders, headers: CaseInsensitiveHeaders, size: int
) -> tuple[int, int] | None:
    """Return start and length of the requested range; None for the full body, length 0 if unsatisfiable."""
    match = _RANGE.fullmatch(asked.get("range", "").strip())
    if not match or match[1] == match[2] == "":
        return None
    if (condition := asked.get("if-range")) and condition not in (
        headers.get("etag"),
        headers.get("last-modified"),
    ):
        return None
    if not match[1]:
        start, end = max(0, size - int(match[2])), size - 1
    else:
        start, end = int(match[1]), min(int(match[2] or size), size - 1)
    return (start, end - start + 1) if start <= end else (0, 0)
