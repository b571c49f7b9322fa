"""A SOCKS 5 proxy on the loopback address, for tests of builds behind one."""

from __future__ import annotations

import socket
import threading
from contextlib import suppress
from socketserver import BaseRequestHandler, ThreadingTCPServer
from types import TracebackType
from typing import Self

_CONNECT, _DOMAIN, _IPV4 = 1, 3, 1


class SocksProxy:
    """A SOCKS 5 proxy without login; a context manager.

    Attributes
    ----------
    asked : list of (str, int)
        Host and port of each connection that was asked for.
    """

    def __init__(self) -> None:
        self.asked: list[tuple[str, int]] = []
        self._server = _Server(self.asked)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)

    @property
    def address(self) -> str:
        """What a proxy variable holds; host names are resolved by the proxy."""
        return f"socks5h://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


class _Server(ThreadingTCPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 64

    def __init__(self, asked: list[tuple[str, int]]) -> None:
        self.asked = asked
        super().__init__(("127.0.0.1", 0), _Handler)


class _Handler(BaseRequestHandler):
    server: _Server
    request: socket.socket

    def handle(self) -> None:
        with suppress(OSError):
            self._read(self._read(2)[1])  # the ways to log in
            self.request.sendall(b"\x05\x00")
            _, command, _, kind = self._read(4)
            host = (
                self._read(self._read(1)[0]).decode() if kind == _DOMAIN else socket.inet_ntoa(self._read(4))
            )
            port = int.from_bytes(self._read(2), "big")
            if command != _CONNECT or kind not in (_DOMAIN, _IPV4):
                return
            self.server.asked.append((host, port))
            with socket.create_connection((host, port), 10) as upstream:
                self.request.sendall(b"\x05\x00\x00\x01\x00\x00\x00\x00\x00\x00")
                back = threading.Thread(target=_copy, args=(upstream, self.request), daemon=True)
                back.start()
                _copy(self.request, upstream)
                back.join(10)

    def _read(self, count: int) -> bytes:
        content = b""
        while len(content) < count:
            if not (block := self.request.recv(count - len(content))):
                raise ConnectionError
            content += block
        return content


def _copy(source: socket.socket, target: socket.socket) -> None:
    with suppress(OSError):
        while block := source.recv(1 << 16):
            target.sendall(block)
    with suppress(OSError):
        target.shutdown(socket.SHUT_WR)
