"""Tests of the loopback server, with and without injected faults."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests

from hephaestus_build.simulation.server import faults
from hephaestus_build.simulation.server.http_server import HttpRequest, HttpResponse, LoopbackServer

BODY = bytes(range(256)) * 400  # 102,400 bytes


@pytest.fixture
def server(tmp_path: Path) -> Iterator[LoopbackServer]:
    (tmp_path / "file.bin").write_bytes(BODY)

    def app(request: HttpRequest) -> HttpResponse | None:
        if request.path == "/file.bin":
            return HttpResponse(body=tmp_path / "file.bin")
        if request.path == "/bytes with blank":
            return HttpResponse(body=BODY, headers={"Content-Type": "text/x-test"})
        if request.path == "/echo" and request.method == "POST":
            return HttpResponse(201, request.body + request.headers["X-Case"].encode())
        if request.path == "/broken":
            raise RuntimeError("no")
        return None

    with LoopbackServer([app]) as running:
        yield running


def test_content_comes_whole_and_head_promises_the_same(server: LoopbackServer) -> None:
    for path in ("/file.bin", "/bytes%20with%20blank"):
        head, get = requests.head(server.base_url + path), requests.get(server.base_url + path)
        assert get.content == BODY
        assert head.content == b""
        assert head.headers["Content-Length"] == get.headers["Content-Length"] == str(len(BODY))
        assert head.headers["ETag"] == get.headers["ETag"]
    assert requests.get(server.base_url + "/bytes%20with%20blank").headers["Content-Type"] == "text/x-test"
    assert requests.post(server.base_url + "/echo", data=b"a", headers={"x-cAsE": "b"}).content == b"ab"
    assert requests.get(server.base_url + "/nothing").status_code == 404
    assert requests.get(server.base_url + "/broken").status_code == 500


@pytest.mark.parametrize(
    ("asked", "status", "part"),
    [
        ("bytes=0-9", 206, BODY[:10]),
        ("bytes=102390-", 206, BODY[-10:]),
        ("bytes=-10", 206, BODY[-10:]),
        ("bytes=5-999999", 206, BODY[5:]),
        ("bytes=102400-", 416, b""),
        ("bytes=0-1,5-6", 200, BODY),
        ("lines=1-2", 200, BODY),
    ],
)
def test_ranges(server: LoopbackServer, asked: str, status: int, part: bytes) -> None:
    answer = requests.get(server.base_url + "/file.bin", headers={"Range": asked})
    assert (answer.status_code, answer.content) == (status, part)
    if status == 206:
        start = BODY.index(part) if part != BODY[-10:] else len(BODY) - 10
        assert answer.headers["Content-Range"] == f"bytes {start}-{start + len(part) - 1}/{len(BODY)}"


def test_a_changed_file_is_not_resumed_and_an_unchanged_one_not_sent(
    server: LoopbackServer, tmp_path: Path
) -> None:
    url = server.base_url + "/file.bin"
    first = requests.get(url)
    tag, modified = first.headers["ETag"], first.headers["Last-Modified"]
    rest = requests.get(url, headers={"Range": "bytes=10-", "If-Range": tag})
    assert (rest.status_code, rest.content) == (206, BODY[10:])
    assert requests.get(url, headers={"If-None-Match": tag}).status_code == 304
    assert requests.get(url, headers={"If-Modified-Since": modified}).status_code == 304
    (tmp_path / "file.bin").write_bytes(b"new" * 10)
    assert requests.get(url, headers={"If-None-Match": tag}).content == b"new" * 10
    again = requests.get(url, headers={"Range": "bytes=10-", "If-Range": tag})
    assert (again.status_code, again.content) == (200, b"new" * 10)


def test_the_log_shows_manners_but_no_credentials(server: LoopbackServer) -> None:
    requests.get(server.base_url + "/file.bin?a=1", headers={"PRIVATE-TOKEN": "hush", "Range": "bytes=0-4"})
    (entry,) = server.log
    assert (entry.method, entry.path, entry.query, entry.status, entry.sent) == (
        "GET", "/file.bin", {"a": "1"}, 206, 5,
    )  # fmt: skip
    assert entry.headers["range"] == "bytes=0-4"
    assert "hush" not in repr(entry)


def test_a_burst_of_errors_ends(server: LoopbackServer) -> None:
    rule = server.faults.add("file", faults.error_status(503, retry_after=7), times=2, skip=1)
    answers = [requests.get(server.base_url + "/file.bin") for _ in range(5)]
    assert [answer.status_code for answer in answers] == [200, 503, 503, 200, 200]
    assert answers[1].headers["Retry-After"] == "7"
    assert rule.hits == 2


def test_rules_look_at_method_and_path(server: LoopbackServer) -> None:
    server.faults.add(r"\.bin$", faults.error_status(403), methods={"HEAD"})
    assert requests.head(server.base_url + "/file.bin").status_code == 403
    assert requests.get(server.base_url + "/file.bin").status_code == 200
    assert requests.head(server.base_url + "/bytes%20with%20blank").status_code == 200
    server.faults.clear()
    assert requests.head(server.base_url + "/file.bin").status_code == 200


@pytest.mark.parametrize("after", [None, 1000])
def test_reset(server: LoopbackServer, after: int | None) -> None:
    server.faults.add("file", faults.reset_connection(after))
    with pytest.raises((requests.ConnectionError, requests.exceptions.ChunkedEncodingError), match="reset"):
        requests.get(server.base_url + "/file.bin")


def test_a_cut_body_promised_more(server: LoopbackServer) -> None:
    server.faults.add("file", faults.cut_connection(1000))
    with requests.get(server.base_url + "/file.bin", stream=True) as answer:
        assert answer.headers["Content-Length"] == str(len(BODY))
        with pytest.raises(requests.exceptions.ChunkedEncodingError, match="IncompleteRead"):
            list(answer.iter_content(1 << 16))


def test_other_bodies(server: LoopbackServer) -> None:
    url = server.base_url + "/file.bin"
    for fault, expected in [
        (faults.empty_body(), b""),
        (faults.serve_html(), faults.MAINTENANCE_PAGE),
        (faults.truncate_body(0.25), BODY[:25600]),
        (faults.replace_body(lambda content: content[::-1]), BODY[::-1]),
    ]:
        server.faults.add("file", fault, times=1)
        answer = requests.get(url)
        assert (answer.status_code, answer.content) == (200, expected)
        assert answer.headers["Content-Length"] == str(len(expected))
    server.faults.add("file", faults.Fault(omit_length=True), times=2)
    assert "Content-Length" not in requests.head(url).headers
    assert requests.get(url).content == BODY
    server.faults.add("file", faults.refuse_ranges(), times=1)
    assert requests.get(url, headers={"Range": "bytes=5-"}).content == BODY


def test_wrong_length(server: LoopbackServer) -> None:
    server.faults.add("file", faults.claim_length(2000), times=1)
    assert requests.get(server.base_url + "/file.bin").content == BODY[:2000]
    server.faults.add("file", faults.claim_length(len(BODY) + 5), times=1)
    with pytest.raises(requests.exceptions.ChunkedEncodingError):
        requests.get(server.base_url + "/file.bin")


def test_slow_answers(server: LoopbackServer) -> None:
    server.faults.add("file", faults.delay_response(0.2), times=1)
    started = time.monotonic()
    assert requests.get(server.base_url + "/file.bin").content == BODY
    assert time.monotonic() - started >= 0.2
    server.faults.add("bytes", faults.trickle_body(400_000), times=1)
    started = time.monotonic()
    assert requests.get(server.base_url + "/bytes%20with%20blank").content == BODY
    assert 0.2 < time.monotonic() - started < 20


def test_a_stall_lasts_until_the_server_stops() -> None:
    server = LoopbackServer([lambda _: HttpResponse(body=BODY)]).start()
    server.faults.add("", faults.stall_body(100))
    with pytest.raises(requests.exceptions.RequestException, match="timed out"):
        requests.get(server.base_url, timeout=0.5)
    before = threading.active_count()
    with socket.create_connection(("127.0.0.1", server.port)) as idle:
        idle.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        assert idle.recv(10)
        server.close()
        assert b"" in iter(lambda: idle.recv(1 << 16), None)
    assert threading.active_count() < before  # no thread is left waiting
    with pytest.raises(requests.ConnectionError):
        requests.get(server.base_url, timeout=1)
