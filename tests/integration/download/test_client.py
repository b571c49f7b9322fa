"""Tests of the HTTP client against good and faulty servers: every outcome has its name."""

from __future__ import annotations

import errno
import hashlib
import os
import re
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from email.utils import formatdate
from functools import partial
from http.server import BaseHTTPRequestHandler, SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

import msgspec
import pytest
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st

from hephaestus_build import __version__
from hephaestus_build.core.atomic_io import encode_json, hash_bytes
from hephaestus_build.core.errors import HephaestusError
from hephaestus_build.core.provenance import Outcome, PriorUse, Receipt, receipt_path
from hephaestus_build.core.settings import Settings
from hephaestus_build.core.web_address import redact_url
from hephaestus_build.download.cache import read_receipt
from hephaestus_build.download.cache_files import translate_cache_errors
from hephaestus_build.download.client import HttpClient
from hephaestus_build.download.rate_limit import AdaptiveLimiter, parse_retry_after
from hephaestus_build.download.transport import USER_AGENT
from hephaestus_build.simulation.server import faults
from hephaestus_build.simulation.server.http_server import HttpRequest, HttpResponse, LoopbackServer

CONTENT = b"II*\0" + bytes(range(256)) * 4000  # a megabyte
LAST_MODIFIED = "Mon, 02 Sep 2024 10:00:00 GMT"


class Site:
    """Files to serve, and their server."""

    def __init__(self, server: LoopbackServer, files: dict[str, HttpResponse]) -> None:
        self.server, self.files, self.faults = server, files, server.faults

    def url(self, path: str = "/a.tif") -> str:
        return self.server.base_url + path

    def put(self, path: str, content: bytes, **headers: str) -> None:
        given = {key.replace("_", "-"): value for key, value in headers.items()}
        self.files[path] = HttpResponse(200, content, {"Last-Modified": LAST_MODIFIED, **given})

    def asked(self, path: str = "/a.tif", count: int = 0) -> list[Any]:
        """Return the requests for `path`, waiting for `count` of them, as the server logs with a delay."""
        give_up = time.monotonic() + 30
        while True:
            found = [entry for entry in self.server.log if entry.path == path]
            if len(found) >= count or time.monotonic() > give_up:
                return found
            time.sleep(0.005)


@pytest.fixture
def site() -> Iterator[Site]:
    files: dict[str, HttpResponse] = {}

    def app(request: HttpRequest) -> HttpResponse | None:
        found = files.get(request.path)
        return HttpResponse(found.status, found.body, dict(found.headers)) if found else None

    with LoopbackServer([app]) as server:
        site = Site(server, files)
        site.put("/a.tif", CONTENT)
        yield site


def settings(tmp_path: Path, **options: Any) -> Settings:
    return Settings(**{"cache_dir": tmp_path / "cache", "timeout": 8, "retries": 2, **options})


@pytest.fixture
def client(tmp_path: Path) -> Iterator[HttpClient]:
    with HttpClient(settings(tmp_path)) as client:
        yield client


def read(path: Path) -> bytes:
    content = path.read_bytes()
    if not content.startswith(b"II*\0") or len(content) % 256 != 4:
        raise ValueError("not a product")
    return content


def get(client: HttpClient, *urls: str, **options: Any) -> tuple[Receipt, bytes | None]:
    target = client.cache.folder / "frame" / "a.tif"
    return client.download(urls, target, **{"product": "a.tif", "read": read, **options})


def leftovers(client: HttpClient) -> list[str]:
    files = (path for path in client.cache.folder.rglob("*") if path.is_file())
    return sorted(path.name for path in files if path.name != ".hephaestus-growth.json")


# --- successful requests -------------------------------------------------------------------------------


def test_a_download_arrives_with_its_receipt(site, client):
    arrived: list[int] = []
    receipt, content = get(client, site.url(), progress=arrived.append)
    assert content == CONTENT
    assert receipt.outcome is Outcome.DOWNLOADED
    assert receipt.url == site.url()
    assert receipt.size == len(CONTENT) == sum(arrived)
    assert receipt.blake3 == hash_bytes(CONTENT)
    assert receipt.last_modified == LAST_MODIFIED
    assert receipt.etag
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\+00:00", receipt.fetched or "")
    assert leftovers(client) == ["a.tif", "a.tif.receipt.json"]
    assert read_receipt(client.cache.folder / "frame/a.tif") == receipt
    [entry] = site.asked(count=1)
    assert entry.headers["user-agent"] == USER_AGENT
    assert f"hephaestus-build/{__version__}" in USER_AGENT


def test_a_second_time_it_comes_from_the_cache_without_a_request(site, client):
    first, _ = get(client, site.url())
    second, content = get(client, site.url())
    assert content == CONTENT
    assert second.outcome is Outcome.UNCHANGED
    assert second.digest == first.digest
    assert len(site.asked(count=1)) == 1


@pytest.mark.parametrize("damage", ["flip", "shorten", "no receipt", "other receipt"])
def test_a_damaged_cache_is_not_believed(site, client, damage):
    get(client, site.url())
    target = client.cache.folder / "frame" / "a.tif"
    if damage == "flip":
        target.write_bytes(CONTENT[:-1] + b"x")
    elif damage == "shorten":
        target.write_bytes(CONTENT[:-256])
    elif damage == "no receipt":
        receipt_path(target).unlink()
    else:
        receipt_path(target).write_text('{"product": "b.tif"}')
    receipt, content = get(client, site.url())
    assert (receipt.outcome, content) == (Outcome.DOWNLOADED, CONTENT)


def test_a_page_and_a_head_arrive(site, client):
    site.put("/index", "Ätna".encode(), Content_Type="text/html;charset=UTF-8")
    page = client.get_text(site.url("/index"))
    assert (page.ok, page.text, page.status, page.last_modified) == (True, "Ätna", 200, LAST_MODIFIED)
    head = client.head(site.url())
    assert head.ok
    assert head.headers["content-length"] == str(len(CONTENT))
    assert client.get_text(site.url("/none")).outcome is Outcome.ABSENT
    assert client.get_text(site.url("/index"), max_bytes=3).outcome is Outcome.CORRUPT


def test_one_connection_serves_many_requests(client):
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        ports: ClassVar[set[int]] = set()

        def do_GET(self) -> None:
            self.ports.add(self.client_address[1])
            self.send_response(200)
            self.send_header("Content-Length", str(len(CONTENT)))
            self.end_headers()
            self.wfile.write(CONTENT)

        def log_message(self, *args: object) -> None:
            """Log nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        try:
            for number in range(5):
                url = f"http://127.0.0.1:{server.server_address[1]}/{number}"
                target = client.cache.folder / str(number)
                assert client.download([url], target, product="x", read=read)[0].ok
        finally:
            server.shutdown()
            client.close()
            thread.join()
    assert len(Handler.ports) == 1


# --- each outcome --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fault", "outcome", "tries", "words"),
    [
        (faults.error_status(404), Outcome.ABSENT, 1, "404"),
        (faults.error_status(410), Outcome.ABSENT, 1, "410"),
        (faults.error_status(401), Outcome.REFUSED, 1, "401"),
        (faults.error_status(403), Outcome.REFUSED, 1, "403"),
        (faults.error_status(400), Outcome.UNREACHABLE, 1, "400"),
        (faults.error_status(429), Outcome.UNREACHABLE, 3, "429"),
        (faults.error_status(500), Outcome.UNREACHABLE, 3, "500"),
        (faults.error_status(503), Outcome.UNREACHABLE, 3, "503"),
        (faults.reset_connection(), Outcome.UNREACHABLE, 3, "reset"),
        (faults.reset_connection(70_000), Outcome.UNREACHABLE, 3, "reset"),
        (faults.stall_body(), Outcome.UNREACHABLE, 3, "stalled"),
        (faults.stall_body(70_000), Outcome.UNREACHABLE, 3, "stalled"),
        (faults.delay_response(300), Outcome.UNREACHABLE, 3, "stalled"),
        (faults.trickle_body(100), Outcome.UNREACHABLE, 3, "too slow"),
        (faults.cut_connection(70_000), Outcome.CORRUPT, 3, "cut"),
        (faults.claim_length(len(CONTENT) + 9), Outcome.CORRUPT, 3, "cut"),
        (faults.claim_length(len(CONTENT) - 9), Outcome.CORRUPT, 2, "not a product"),
        (faults.empty_body(), Outcome.CORRUPT, 2, "zero bytes"),
        (faults.serve_html(), Outcome.CORRUPT, 2, "web page"),
        (faults.truncate_body(), Outcome.CORRUPT, 2, "not a product"),
        (faults.replace_body(b"PK\3\4" * 500), Outcome.CORRUPT, 2, "not a product"),
    ],
    ids=lambda value: str(value)[:60] if isinstance(value, Outcome) else None,
)
def test_every_fault_ends_in_its_outcome(site, tmp_path, fault, outcome, tries, words):
    if fault.stall_after == 70_000 or fault.cut_after == 70_000:
        site.faults.add("no", faults.refuse_ranges())
        fault = faults.Fault(**{**vars(fault), "ignore_ranges": True})
    rule = site.faults.add(r"/a\.tif", fault)
    silent = fault.stall_after is not None or fault.delay
    # a body that arrives 20 times a second must not count as stalled on a busy machine
    client = HttpClient(settings(tmp_path, timeout=0.25 if silent else 1 if fault.rate else 8))
    started = time.monotonic()
    with client:
        receipt, content = get(client, site.url())
    assert time.monotonic() - started < 200
    assert content is None
    assert receipt.outcome is outcome
    assert words in receipt.detail
    assert receipt.url == site.url()
    assert rule.hits == tries
    assert not (client.cache.folder / "frame" / "a.tif").exists()
    resumable = [name for name in leftovers(client) if name not in ("a.tif.part", "a.tif.part.json")]
    assert resumable == []


@pytest.mark.parametrize(
    "fault",
    [
        faults.error_status(503),
        faults.error_status(429, retry_after=0),
        faults.reset_connection(),
        faults.reset_connection(300_000),
        faults.stall_body(300_000),
        faults.cut_connection(300_000),
        faults.empty_body(),
        faults.serve_html(),
        faults.truncate_body(),
    ],
    ids=["503", "429", "reset", "reset within", "stall", "cut", "empty", "HTML", "truncated"],
)
def test_a_passing_fault_is_survived(site, tmp_path, fault):
    site.faults.add(r"/a\.tif", fault, times=1)
    client = HttpClient(settings(tmp_path, timeout=2 if fault.stall_after else 8))
    with client:
        receipt, content = get(client, site.url())
    assert (receipt.outcome, content) == (Outcome.DOWNLOADED, CONTENT)
    assert receipt.blake3 == hash_bytes(CONTENT)
    assert leftovers(client) == ["a.tif", "a.tif.receipt.json"]


def test_first_bytes_end_a_wrong_download_early(site, client):
    site.put("/a.tif", b"PK\3\4" + bytes(60_000_000), Etag='"large"')
    receipt, _ = get(client, site.url(), has_signature=lambda first: first.startswith(b"II*\0"))
    assert receipt.outcome is Outcome.CORRUPT
    assert "first bytes" in receipt.detail
    assert all(entry.sent < 30_000_000 for entry in site.asked())


def test_too_many_bytes_are_refused_with_and_without_a_length(site, client):
    for fault in (faults.Fault(), faults.Fault(omit_length=True)):
        site.faults.clear()
        site.faults.add("a.tif", fault)
        receipt, _ = get(client, site.url(), max_bytes=1000)
        assert receipt.outcome is Outcome.CORRUPT
        assert "1000" in receipt.detail or "too many" in receipt.detail


def test_a_body_without_a_length_is_accepted(site, client):
    site.faults.add("a.tif", faults.Fault(omit_length=True))
    receipt, content = get(client, site.url())
    assert (receipt.outcome, content) == (Outcome.DOWNLOADED, CONTENT)


def test_nobody_listening_is_unreachable(client):
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"http://user:secret@127.0.0.1:{unused.getsockname()[1]}/a.tif?token=secret"
        receipt, _ = get(client, url)
        page = client.get_text(url)
    assert receipt.outcome is page.outcome is Outcome.UNREACHABLE
    assert receipt.detail == page.detail == "its host refuses connections"
    assert "secret" not in f"{receipt}{page}"


def test_a_name_that_does_not_exist_and_an_address_that_is_none(client):
    assert client.get_text("http://archive.invalid/").detail == "its host's name cannot be resolved"
    for text in ("", "http://", "ftp://127.0.0.1/a", "http://[::1/a"):
        assert client.get_text(text).outcome is Outcome.UNREACHABLE


@pytest.mark.parametrize("start", [b"H", b"HTTP/1.1 200 OK\r\nX-Slow: "], ids=["status", "header"])
def test_headers_that_trickle_end(tmp_path, start):
    """Single bytes of a header, sent slowly, restart every socket timeout."""
    stop = threading.Event()

    def serve(listener: socket.socket) -> None:
        while not stop.is_set():
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            with connection:
                connection.sendall(start)
                try:
                    while not stop.wait(0.1):
                        connection.sendall(b"a")
                except OSError:
                    continue

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve, args=(listener,), daemon=True)
        thread.start()
        started = time.monotonic()
        with HttpClient(settings(tmp_path, timeout=0.3, retries=0)) as client:
            page = client.get_text(f"http://127.0.0.1:{listener.getsockname()[1]}/")
        stop.set()
        listener.shutdown(socket.SHUT_RDWR)
    thread.join(60)
    assert page.outcome is Outcome.UNREACHABLE
    assert "stalled" in page.detail
    assert time.monotonic() - started < 200


def test_a_download_that_never_ends_is_left_for_the_next_run(site, tmp_path, monkeypatch):
    slow = site.faults.add("a.tif", faults.trickle_body(300_000))
    with HttpClient(settings(tmp_path, timeout=10)) as client:
        with monkeypatch.context() as patch:
            patch.setattr("hephaestus_build.download.client.TIMEOUTS_PER_DOWNLOAD", 0.1)
            receipt, _ = get(client, site.url())
        assert receipt.outcome is Outcome.UNREACHABLE
        assert "maximum duration" in receipt.detail
        assert slow.hits == 1
        site.faults.clear()
        receipt, content = get(client, site.url())
    assert (receipt.outcome, content) == (Outcome.DOWNLOADED, CONTENT)
    assert 206 in [entry.status for entry in site.asked(count=2)]


# --- several addresses ---------------------------------------------------------------------------------


def test_the_next_address_is_asked_where_one_fails(site, client):
    site.put("/b.tif", CONTENT)
    site.faults.add("/a.tif", faults.serve_html())
    receipt, content = get(client, site.url("/none"), site.url(), site.url("/b.tif"), site.url("/never"))
    assert (receipt.outcome, content, receipt.url) == (Outcome.DOWNLOADED, CONTENT, site.url("/b.tif"))
    assert not site.asked("/never")


def test_absent_only_if_every_address_says_so(site, client):
    receipt, _ = get(client, site.url("/x"), site.url("/y"))
    assert (receipt.outcome, receipt.url) == (Outcome.ABSENT, site.url("/y"))
    site.faults.add("/y", faults.error_status(503))
    assert get(client, site.url("/x"), site.url("/y"))[0].outcome is Outcome.UNREACHABLE
    assert get(client)[0].outcome is Outcome.ABSENT


def test_redirects_are_followed_within_bounds(site, tmp_path):
    def redirect(path: str, to: str) -> None:
        site.files[path] = HttpResponse(302, b"", {"Location": to})

    redirect("/moved", "/a.tif")
    redirect("/loop", "/loop")
    redirect("/away", "http://127.0.0.1:1/a.tif")
    redirect("/file", "file:///etc/hostname")
    with HttpClient(settings(tmp_path), follow=lambda url: url.startswith(site.url("/"))) as client:
        assert get(client, site.url("/moved"))[0].url == site.url("/a.tif")
        for path, outcome in (
            ("/loop", Outcome.UNREACHABLE),
            ("/away", Outcome.REFUSED),
            ("/file", Outcome.REFUSED),
        ):
            assert client.get_text(site.url(path)).outcome is outcome


def test_a_key_is_not_sent_where_a_redirect_leads(site, tmp_path):
    with LoopbackServer([lambda request: HttpResponse(200, CONTENT)]) as elsewhere:
        site.files["/moved"] = HttpResponse(302, b"", {"Location": elsewhere.base_url + "/a.tif"})
        with HttpClient(settings(tmp_path), session_headers={"X-Key": "secret"}) as client:
            assert get(client, site.url("/moved"))[1] == CONTENT
        assert "x-key" in site.asked("/moved", 1)[0].headers
        assert elsewhere.log
        assert "x-key" not in elsewhere.log[0].headers


# --- resuming ------------------------------------------------------------------------------------------


def interrupt(site: Site, client: HttpClient, after: int = 600_000) -> None:
    """Leave a partial download."""
    rule = site.faults.add(r"/a\.tif", faults.error_status(404), skip=1)
    cut = site.faults.add(r"/a\.tif", faults.cut_connection(after), times=1)
    receipt, _ = get(client, site.url())
    assert receipt.outcome is Outcome.ABSENT
    site.faults.remove(rule)
    site.faults.remove(cut)
    assert len(site.asked(count=2)) == 2
    site.server.clear_log()


def test_a_cut_download_goes_on_in_the_same_run(site, client):
    site.faults.add(r"/a\.tif", faults.cut_connection(600_000), times=1)
    receipt, content = get(client, site.url())
    assert (receipt.outcome, content) == (Outcome.DOWNLOADED, CONTENT)
    first, second = site.asked(count=2)
    assert first.sent + second.sent == len(CONTENT)
    assert second.headers["range"] == "bytes=600000-"
    assert second.headers["if-range"] == receipt.etag
    assert receipt.blake3 == hash_bytes(CONTENT)


def test_another_run_goes_on_too(site, client, tmp_path):
    interrupt(site, client)
    assert leftovers(client) == ["a.tif.part", "a.tif.part.json"]
    with HttpClient(settings(tmp_path)) as later:
        _, content = get(later, site.url())
    assert content == CONTENT
    [entry] = site.asked(count=1)
    assert (entry.status, entry.sent) == (206, len(CONTENT) - 600_000)
    assert leftovers(client) == ["a.tif", "a.tif.receipt.json"]


def test_an_address_without_the_product_does_not_cost_the_part(site, client):
    interrupt(site, client)
    assert get(client, site.url("/none"), site.url())[1] == CONTENT
    assert site.asked(count=1)[0].status == 206


def test_a_part_of_a_file_that_was_replaced_is_thrown_away(site, client):
    interrupt(site, client)
    other = b"II*\0" + bytes(len(CONTENT) - 4)
    site.put("/a.tif", other)
    assert get(client, site.url())[1] == other
    assert site.asked(count=1)[0].status == 200


def test_a_server_that_ignores_ranges_begins_again(site, client):
    interrupt(site, client)
    site.faults.add("a.tif", faults.refuse_ranges())
    assert get(client, site.url())[1] == CONTENT
    assert site.asked(count=1)[0].sent == len(CONTENT)


def test_a_part_from_elsewhere_or_without_proof_is_not_continued(site, client):
    interrupt(site, client)
    site.put("/b.tif", b"II*\0" + bytes(512))
    _, content = get(client, site.url("/b.tif"))
    assert content == b"II*\0" + bytes(512)
    assert "range" not in site.asked("/b.tif", 1)[0].headers

    site.faults.add("/a.tif", faults.Fault(headers={"Etag": "", "Last-Modified": ""}, cut_after=600_000))
    client.cache.discard(client.cache.folder / "frame" / "a.tif")
    assert get(client, site.url())[0].outcome is Outcome.CORRUPT
    assert leftovers(client) == []


def test_the_rest_of_another_version_is_not_spliced_in(site, client):
    """Some servers ignore If-Range; the validators of their response show which version it is."""
    interrupt(site, client)
    other = b"II*\0" + bytes(len(CONTENT) - 4)
    whole = {"Content-Range": f"bytes 600000-{len(CONTENT) - 1}/{len(CONTENT)}", "ETag": '"other"'}
    site.files["/a.tif"] = HttpResponse(206, other[600_000:], whole)
    receipt, content = get(client, site.url())
    assert (receipt.ok, content) == (False, None)
    site.put("/a.tif", other)
    assert get(client, site.url())[1] == other


def test_a_copy_without_a_tag_is_not_asked_about_by_its_date_where_it_was_replaced(site, client):
    bare = HttpResponse(200, CONTENT, {"Last-Modified": LAST_MODIFIED, "ETag": ""})
    site.files["/a.tif"] = bare
    site.faults.add("a.tif", faults.Fault(headers={"Etag": ""}))
    get(client, site.url())
    get(client, site.url(), revalidate=True)
    get(client, site.url(), revalidate=True, revalidate_by_date=False)
    asked = [entry.headers.get("if-modified-since") for entry in site.asked(count=3)]
    assert asked == [None, LAST_MODIFIED, None]


def test_comments_before_a_page_cost_no_time(site, client):
    site.put("/a.tif", b"<!-- a -->\n" * 40 + b"<p>Service unavailable</p>")
    start = time.monotonic()
    assert get(client, site.url())[0].outcome is Outcome.CORRUPT
    assert time.monotonic() - start < 30


def test_a_wrong_part_is_not_spliced_in(site, client):
    interrupt(site, client)
    rule = site.faults.add("a.tif", faults.Fault(headers={"Content-Range": "bytes 5-9/10"}), times=1)
    assert get(client, site.url())[1] == CONTENT
    assert rule.hits == 1


def test_a_spoilt_part_does_not_spoil_the_product(site, client):
    interrupt(site, client)
    part = client.cache.folder / "frame" / "a.tif.part"
    part.write_bytes(b"XX" + part.read_bytes()[2:])
    _, content = get(client, site.url())
    assert content == CONTENT
    assert [entry.status for entry in site.asked(count=2)] == [206, 200]


def test_a_killed_download_goes_on(site, client, tmp_path):
    site.faults.add("a.tif", faults.stall_body(700_000), times=1)
    program = (
        "import sys, pathlib; from hephaestus_build.core.settings import Settings\n"
        "from hephaestus_build.download.client import HttpClient\n"
        "folder = pathlib.Path(sys.argv[2])\n"
        "client = HttpClient(Settings(cache_dir=folder, timeout=30))\n"
        "client.download([sys.argv[1]], folder / 'frame/a.tif', product='a.tif',"
        " read=pathlib.Path.read_bytes)\n"
    )
    part = client.cache.folder / "frame" / "a.tif.part"
    process = subprocess.Popen([sys.executable, "-c", program, site.url(), str(client.cache.folder)])
    try:
        give_up = time.monotonic() + 200
        while not (part.exists() and part.stat().st_size >= 600_000) and time.monotonic() < give_up:
            time.sleep(0.02)
    finally:
        process.kill()
        process.wait()
    held = part.stat().st_size
    assert held >= 600_000
    site.server.clear_log()
    assert get(client, site.url())[1] == CONTENT
    assert [entry.sent for entry in site.asked(count=1) if entry.status == 206] == [len(CONTENT) - held]


# --- retries -------------------------------------------------------------------------------------------


def test_revalidation_asks_and_believes_304(site, client):
    first, _ = get(client, site.url())
    receipt, content = get(client, site.url(), revalidate=True)
    assert (receipt.outcome, content) == (Outcome.UNCHANGED, CONTENT)
    assert site.asked(count=2)[-1].status == 304
    receipt, content = get(client, site.url(), revalidate=True, known_receipt=first)
    assert (receipt.outcome, content, receipt.digest) == (Outcome.UNCHANGED, None, first.digest)
    shutil.rmtree(client.cache.folder)
    receipt, content = get(client, site.url(), revalidate=True, known_receipt=first)
    assert (receipt.outcome, content) == (Outcome.UNCHANGED, None)
    assert leftovers(client) == []


def test_revalidation_finds_what_was_replaced_in_place(site, client):
    get(client, site.url())
    other = b"II*\0" + bytes(2560)
    site.put("/a.tif", other)
    assert get(client, site.url())[1] == CONTENT
    receipt, content = get(client, site.url(), revalidate=True)
    assert (receipt.outcome, content) == (Outcome.DOWNLOADED, other)
    assert get(client, site.url())[1] == other


def test_the_same_bytes_again_are_unchanged_whatever_the_server_says(site, client):
    first, _ = get(client, site.url())
    site.put("/a.tif", CONTENT, Etag='"new"', Last_Modified="Tue, 03 Sep 2024 10:00:00 GMT")
    receipt, _ = get(client, site.url(), revalidate=True, known_receipt=first)
    assert (receipt.outcome, receipt.etag) == (Outcome.UNCHANGED, '"new"')


def test_a_failed_revalidation_leaves_the_cached_copy(site, client):
    get(client, site.url())
    site.faults.add("a.tif", faults.error_status(503))
    assert get(client, site.url(), revalidate=True)[0].outcome is Outcome.UNREACHABLE
    assert get(client, site.url())[1] == CONTENT


def test_a_static_server_without_ranges_or_etags_will_do(client, tmp_path):
    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *args: object) -> None:
            """Log nothing."""

    (tmp_path / "served").mkdir()
    (tmp_path / "served" / "a.tif").write_bytes(CONTENT)
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(tmp_path / "served"))) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        url = f"http://127.0.0.1:{server.server_address[1]}/a.tif"
        try:
            assert get(client, url)[1] == CONTENT
            receipt, content = get(client, url, revalidate=True)
        finally:
            server.shutdown()
            thread.join()
    assert (receipt.outcome, content) == (Outcome.UNCHANGED, CONTENT)


# --- rate limits ---------------------------------------------------------------------------------------


def test_never_more_requests_at_once_than_allowed(tmp_path):
    guard, now, most = threading.Lock(), 0, 0

    def app(request: HttpRequest) -> HttpResponse:
        nonlocal now, most
        with guard:
            now += 1
            most = max(most, now)
        time.sleep(0.05)
        with guard:
            now -= 1
        return HttpResponse(200, b"page")

    with LoopbackServer([app]) as server, HttpClient(settings(tmp_path, connections=3)) as client:
        with ThreadPoolExecutor(8) as pool:
            assert all(page.ok for page in pool.map(client.get_text, [server.base_url + "/p"] * 12))
    assert most == 3


def test_a_busy_archive_is_asked_less_and_after_the_time_it_asks_for(site, tmp_path):
    site.put("/p", b"page")
    site.faults.add("/p", faults.error_status(429, retry_after=1), times=1)
    with HttpClient(settings(tmp_path, connections=4)) as client:
        assert client.permits == 4
        started = time.monotonic()
        assert client.get_text(site.url("/p")).ok
        assert time.monotonic() - started >= 1
        assert client.permits == 2
        for _ in range(16):
            client.get_text(site.url("/p"))
        assert client.permits == 4
        site.faults.add("/p", faults.error_status(503))
        client.get_text(site.url("/p"))
        assert client.permits == 1


def test_a_dead_host_is_not_asked_again_and_again(site, tmp_path):
    dead = site.faults.add("/p", faults.error_status(503))
    with HttpClient(settings(tmp_path, timeout=8)) as client:
        for _ in range(12):
            client.get_text(site.url("/p"))
        assert dead.hits == 8 * 3 + 4 * 1
        site.faults.clear()
        assert get(client, site.url())[0].ok
        again = site.faults.add("/p", faults.error_status(503))
        client.get_text(site.url("/p"))
        assert again.hits == 3


def test_waiting_times_of_every_kind_are_understood():
    assert parse_retry_after(None) == parse_retry_after("soon") == parse_retry_after("-5") == 0
    assert parse_retry_after("120") == 120
    assert parse_retry_after("9" * 400) == float("inf")
    assert parse_retry_after("nan") == parse_retry_after("9" * 400 + ".") == 0
    assert 55 < parse_retry_after(formatdate(time.time() + 60, usegmt=True)) <= 60
    assert parse_retry_after("Mon, 02 Sep 2019 10:00:00 GMT") == 0


@examples(deadline=None)
@given(st.lists(st.sampled_from(["on_throttle", "on_success"]), max_size=60), st.integers(1, 16))
def test_the_gate_stays_between_one_and_all(steps, permits):
    gate = AdaptiveLimiter(permits)
    for step in steps:
        getattr(gate, step)()
        assert 1 <= gate.permits <= permits


@examples(deadline=None)
@given(st.text(max_size=20), st.text(max_size=20))
def test_no_credential_survives_in_an_address(user, password):
    from urllib.parse import quote

    url = f"https://{quote(user, safe='')}:{quote(password, safe='')}@host:8443/a/b.tif?sig=XYZZY#f"
    assert redact_url(url) == "https://host:8443/a/b.tif"


# --- concurrency ---------------------------------------------------------------------------------------


def test_threads_that_want_the_same_product_fetch_it_once(site, client):
    site.faults.add("a.tif", faults.trickle_body(8_000_000))
    with ThreadPoolExecutor(6) as pool:
        results = list(pool.map(lambda _: get(client, site.url()), range(6)))
    assert all(content == CONTENT for _, content in results)
    assert sorted(receipt.outcome for receipt, _ in results) == ["downloaded"] + ["unchanged"] * 5
    assert len(site.asked(count=1)) == 1
    assert leftovers(client) == ["a.tif", "a.tif.receipt.json"]


def test_processes_that_want_the_same_product_fetch_it_once(site, client):
    site.faults.add("a.tif", faults.trickle_body(1_000_000))
    program = (
        "import sys, pathlib; from hephaestus_build.core.settings import Settings\n"
        "from hephaestus_build.download.client import HttpClient\n"
        "folder = pathlib.Path(sys.argv[2])\n"
        "print(HttpClient(Settings(cache_dir=folder)).download([sys.argv[1]], folder / 'frame/a.tif',"
        " product='a.tif', read=pathlib.Path.read_bytes)[0].outcome)\n"
    )
    command = [sys.executable, "-c", program, site.url(), str(client.cache.folder)]
    running = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    outcomes = sorted(process.communicate(timeout=240)[0].strip() for process in running)
    assert outcomes == ["downloaded", "unchanged"]
    assert len(site.asked(count=1)) == 1


# --- the disk ------------------------------------------------------------------------------------------


def test_the_cache_may_vanish_at_any_time(site, client):
    def remove_once(path: Path) -> bytes:
        if not removed:
            removed.append(path)
            shutil.rmtree(client.cache.folder)
        return read(path) if path.exists() else bool(read(Path(os.devnull)))  # type: ignore[return-value]

    removed: list[Path] = []
    receipt, content = get(client, site.url(), read=remove_once)
    assert (receipt.outcome, content) == (Outcome.DOWNLOADED, CONTENT)

    def always(path: Path) -> bytes:
        shutil.rmtree(client.cache.folder)
        raise ValueError("gone")

    shutil.rmtree(client.cache.folder)
    with pytest.raises(HephaestusError, match=r"a\.tif: .* is removed .* HEPHAESTUS_CACHE_DIR"):
        get(client, site.url(), read=always)


@pytest.mark.parametrize("known", [True, False], ids=["kept", "fetched"])
def test_a_product_that_another_build_removes_while_it_is_read_is_fetched_again(site, client, known):
    if known:
        get(client, site.url())

    def too_late(path: Path) -> bytes:
        if not removed:
            removed.append(path)
            path.unlink()
        return read(path)

    removed: list[Path] = []
    receipt, content = get(client, site.url(), read=too_late)
    assert (receipt.outcome, content) == (Outcome.DOWNLOADED, CONTENT)
    assert len(site.asked()) == 2
    assert leftovers(client) == ["a.tif", "a.tif.receipt.json"]


def test_a_cache_that_vanishes_in_mid_download_is_made_anew(site, client):
    def remove(_: int) -> None:
        if not removed:
            removed.append(1)
            shutil.rmtree(client.cache.folder)

    removed: list[int] = []
    receipt, content = get(client, site.url(), progress=remove)
    assert (receipt.outcome, content) == (Outcome.DOWNLOADED, CONTENT)
    assert leftovers(client) == ["a.tif", "a.tif.receipt.json"]


def test_a_cache_that_cannot_be_written_is_explained(site, tmp_path):
    (tmp_path / "cache").write_text("a file where the folder should be")
    with HttpClient(settings(tmp_path)) as client:
        with pytest.raises(HephaestusError, match=r"a\.tif .* HEPHAESTUS_CACHE_DIR"):
            get(client, site.url())


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (errno.ENOSPC, "the disk is full"),
        (errno.EDQUOT, "quota"),
        (errno.EACCES, "no permission"),
        (errno.EROFS, "read-only"),
        (errno.EIO, "check the disk"),
    ],
)
def test_each_refusal_of_the_disk_says_what_to_do(number, words, tmp_path):
    with (
        pytest.raises(HephaestusError, match=words) as caught,
        translate_cache_errors(tmp_path / "a.tif.part"),
    ):
        raise OSError(number, os.strerror(number))
    message = str(caught.value)
    assert "a.tif " in message
    assert str(tmp_path) in message
    assert "\n" not in message


def test_a_disk_that_fills_leaves_nothing_behind(site, client):
    """A limit on file sizes simulates a full disk: the write fails in the same place."""
    program = (
        "import resource, signal, sys, pathlib; from hephaestus_build.core.settings import Settings\n"
        "from hephaestus_build.core.errors import HephaestusError\n"
        "from hephaestus_build.download.client import HttpClient\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (500_000, 500_000))\n"
        "folder = pathlib.Path(sys.argv[2])\n"
        "try:\n"
        "    HttpClient(Settings(cache_dir=folder)).download([sys.argv[1]], folder / 'frame/a.tif',"
        " product='a.tif', read=pathlib.Path.read_bytes)\n"
        "except HephaestusError as error: print(error)\n"
    )
    # -B: .pyc files truncated at the limit would remain and break later imports
    command = [sys.executable, "-B", "-c", program, site.url(), str(client.cache.folder)]
    ran = subprocess.run(command, capture_output=True, text=True)
    assert "a.tif" in ran.stdout
    assert "HEPHAESTUS_CACHE_DIR" in ran.stdout
    assert ran.stderr == ""
    assert leftovers(client) == []


def test_downloads_keep_the_cache_within_its_limit(site, tmp_path):
    with HttpClient(settings(tmp_path, cache_limit_gb=3 * len(CONTENT) / 1e9)) as client:
        for number in range(8):
            site.put(f"/{number}", CONTENT)
            target = client.cache.folder / f"{number}.tif"
            receipt, _ = client.download([site.url(f"/{number}")], target, product=target.name, read=read)
            assert receipt.ok
            assert target.exists()
    held = sum(path.stat().st_size for path in client.cache.folder.glob("*.tif"))
    assert len(CONTENT) <= held <= 3 * len(CONTENT)
    assert (client.cache.folder / "7.tif").exists()


# --- trust in cached copies ------------------------------------------------------------------------------


@pytest.mark.parametrize("marks", [{"ETag": '"other"'}, {"Last-Modified": "Tue, 03 Sep 2024 10:00:00 GMT"}])
def test_not_modified_with_another_mark_is_no_proof(site, tmp_path, marks):
    other = b"II*\0" + bytes(2560)
    with HttpClient(settings(tmp_path, retries=0)) as client:
        first, _ = get(client, site.url())
        given = {"ETag": first.etag, "Last-Modified": LAST_MODIFIED, **marks}

        def app(request: HttpRequest) -> HttpResponse:
            asked.append(request.headers.get("if-none-match"))
            return HttpResponse(304, b"", given) if asked[-1] else HttpResponse(200, other, given)

        asked: list[str | None] = []
        site.server.apps.insert(0, app)
        receipt, content = get(client, site.url(), revalidate=True)
    assert (receipt.outcome, content) == (Outcome.DOWNLOADED, other)
    assert asked == [first.etag, None]


def test_a_doubted_copy_and_part_are_fetched_again_once(site, client):
    first, _ = get(client, site.url())
    prior_use = PriorUse(first, time.time() + 60)
    site.server.clear_log()
    receipt, _ = get(client, site.url(), revalidate=True, prior_use=prior_use)
    assert receipt.outcome is Outcome.UNCHANGED  # the same bytes
    (entry,) = site.asked(count=1)
    assert entry.status == 200
    assert not {"if-none-match", "if-modified-since", "range"} & entry.headers.keys()
    receipt, _ = get(client, site.url(), revalidate=True, prior_use=PriorUse(first, time.time() - 60))
    assert site.asked(count=2)[-1].status == 304  # fetched since, so revalidated as usual


def test_a_doubted_part_is_not_continued(site, client):
    interrupt(site, client)
    get(client, site.url(), prior_use=PriorUse(None, time.time() + 60))
    assert all("range" not in entry.headers for entry in site.asked(count=1))


ALGORITHMS = {"blake3": hash_bytes, "sha256": lambda content: hashlib.sha256(content).hexdigest()}


def named(receipt: Receipt, algorithm: str, content: bytes) -> Receipt:
    """Return the receipt of `content` with the hash that `algorithm` gives."""
    return receipt.replace(**{**dict.fromkeys(ALGORITHMS), algorithm: ALGORITHMS[algorithm](content)})


@pytest.mark.parametrize("before", ALGORITHMS)
@pytest.mark.parametrize("here", ALGORITHMS)
def test_a_copy_that_claims_to_be_what_was_used_first_is_not_believed(site, client, caplog, before, here):
    first = named(get(client, site.url())[0], before, CONTENT)
    target = client.cache.folder / "frame" / "a.tif"
    forged = b"II*\0" + bytes(2560)
    target.write_bytes(forged)
    receipt = named(first.replace(size=len(forged)), here, forged)
    receipt_path(target).write_bytes(encode_json(receipt))
    assert get(client, site.url())[1] == forged
    assert get(client, site.url(), prior_use=PriorUse(first))[1] == CONTENT
    assert caplog.text.count("is not what it was when first used") == 1


@pytest.mark.parametrize("conditional", [True, False])
@pytest.mark.parametrize("before", ALGORITHMS)
@pytest.mark.parametrize("here", ALGORITHMS)
def test_the_same_content_is_unchanged_whatever_algorithms_its_records_name(
    site, client, before, here, conditional
):
    first, _ = get(client, site.url())
    target = client.cache.folder / "frame" / "a.tif"
    receipt_path(target).write_bytes(encode_json(named(first, here, CONTENT)))
    used = named(first, before, CONTENT)
    if not conditional:
        site.put("/a.tif", CONTENT, ETag='"moved"', Last_Modified="Tue, 03 Sep 2024 10:00:00 GMT")
    receipt, content = get(client, site.url(), revalidate=True, prior_use=PriorUse(used))
    assert (receipt.outcome, content) == (Outcome.UNCHANGED, CONTENT)
    assert site.asked()[-1].status == (304 if conditional else 200)
    assert receipt.digest == used.digest  # as recorded at the earlier use
    written = msgspec.json.decode(receipt_path(target).read_bytes(), type=Receipt)
    assert written.digest.algorithm == (here if conditional else "blake3")
    # other content differs, whatever the algorithm
    changed = CONTENT[:-1] + b"x"
    site.put("/a.tif", changed, ETag='"new"', Last_Modified="Wed, 04 Sep 2024 10:00:00 GMT")
    receipt, _ = get(client, site.url(), revalidate=True, prior_use=PriorUse(used))
    assert (receipt.outcome, receipt.blake3) == (Outcome.DOWNLOADED, hash_bytes(changed))


@pytest.mark.parametrize("length", ["9" * 5000, "-1", "x", "1e3"])
def test_a_length_that_is_none_is_no_traceback(site, tmp_path, length):
    site.put("/a.tif", CONTENT, Content_Length=length)
    with HttpClient(settings(tmp_path, retries=0)) as client:
        receipt, _ = get(client, site.url())
    assert receipt.detail.isprintable()
    assert len(receipt.detail) < 600
