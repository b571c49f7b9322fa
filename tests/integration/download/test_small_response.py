"""Tests of pages and headers of hostile servers: limits on bytes and time, whatever they claim."""

from __future__ import annotations

import gzip
import time
import zlib
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st

from hephaestus_build.core.provenance import Outcome
from hephaestus_build.core.settings import Settings
from hephaestus_build.download.client import HttpClient
from hephaestus_build.download.content_coding import decode_content
from hephaestus_build.download.rate_limit import parse_retry_after
from hephaestus_build.download.small_response import decode_text
from hephaestus_build.download.validators import Validators, parse_content_length, parse_content_range
from hephaestus_build.simulation.server.http_server import HttpRequest, HttpResponse, LoopbackServer
from hephaestus_build.sources.licsar.text_files import read_metadata

BOMB = gzip.compress(bytes(64 << 20), 9, mtime=0)


def coded(encoding: str | None) -> dict[str, str]:
    return {} if encoding is None else {"Content-Encoding": encoding}


def test_one_layer_of_compression_is_undone():
    page = b"<html>" * 1000
    raw = zlib.compressobj(wbits=-15)
    for encoding, body in (
        (None, page),
        ("identity", page),
        ("gzip", gzip.compress(page, mtime=0)),
        ("X-GZIP", gzip.compress(page, mtime=0)),
        ("deflate", zlib.compress(page)),
        ("deflate", raw.compress(page) + raw.flush()),
    ):
        assert decode_content(body, coded(encoding), 10_000) == page


@pytest.mark.parametrize(
    ("encoding", "body", "words"),
    [
        ("gzip", BOMB, "larger than 1000"),
        ("deflate", zlib.compress(bytes(64 << 20)), "larger than 1000"),
        ("gzip, gzip", gzip.compress(BOMB, mtime=0), "gzip, gzip"),
        ("br", b"x", "br"),
        ("zstd", b"x", "zstd"),
        ("gzip", b"\x1f\x8b\x08 no gzip" * 9, "damaged"),
        ("gzip", gzip.compress(b"x" * 500, mtime=0)[:-4], "truncated"),
    ],
)
def test_other_encodings_and_bombs_are_refused_before_memory_is_taken(encoding, body, words):
    with pytest.raises(ValueError, match=words):
        decode_content(body, coded(encoding), 1000)


@pytest.mark.parametrize(
    "codec", ["punycode", "idna", "unicode_escape", "zlib_codec", "utf-7", "hex", "\x1b"]
)
def test_a_server_does_not_choose_the_codec(codec):
    page = b"a" * 4000 + b"-" + b"b" * 2_000_000
    began = time.process_time()
    assert decode_text(page, f"text/html; charset={codec}") == page.decode()
    assert time.process_time() - began < 5  # punycode takes hours
    assert decode_text("ä".encode("latin-1"), "text/html; charset=ISO-8859-1") == "ä"
    assert decode_text("ä€".encode("windows-1252"), 'text/html; charset="windows-1252"') == "ä€"
    assert decode_text("ä".encode(), None) == decode_text("ä".encode(), "text/html;charset=UTF-8") == "ä"


@examples(deadline=None)
@given(st.binary(max_size=300), st.text(max_size=60), st.text(max_size=60))
def test_no_page_and_no_header_escapes(body, encoding, kind):
    decode_text(body, kind)
    decode_text(body, f"x; charset={kind}")
    for name in (encoding, "gzip", "deflate"):
        with suppress(ValueError):
            assert len(decode_content(body, coded(name), 1000)) <= 1000


@examples(deadline=None)
@given(st.one_of(st.text(max_size=80), st.text('0123456789W/"-*bytes ', max_size=80)))
def test_headers_are_kept_only_if_they_are_what_they_should_be(value):
    headers = {"ETag": value, "Last-Modified": value, "Content-Length": value, "Content-Range": value}
    etag, last_modified = Validators.from_headers(headers)
    for mark in (etag, last_modified):
        assert mark is None or (mark.isascii() and mark.isprintable() and len(mark) <= 256)
    length, span = parse_content_length(headers), parse_content_range(headers)
    assert length is None or 0 <= length < 10**18
    assert span is None or 0 <= span.start < 10**18
    assert parse_retry_after(value) >= 0


def test_numbers_of_thousands_of_digits_are_none():
    digits = "9" * 5000
    assert parse_content_length({"Content-Length": digits}) is None
    assert parse_content_range({"Content-Range": f"bytes {digits}-{digits}/{digits}"}) is None
    assert Validators.from_headers({"ETag": '"' + "x" * 5000 + '"', "Last-Modified": digits}) == Validators()
    assert Validators.from_headers({"ETag": '"\x1b[2J"', "Last-Modified": "\x07"}) == Validators()
    assert (
        Validators.from_headers({"ETag": ' W/"a b" ', "Last-Modified": "Mon, 02 Sep 2024 10:00:00 GMT"}).etag
        == 'W/"a b"'
    )
    assert parse_retry_after("Mon, " * 20_000) == 0


@pytest.fixture
def client(tmp_path: Path) -> Iterator[HttpClient]:
    with HttpClient(Settings(cache_dir=tmp_path, timeout=2, retries=0)) as client:
        yield client


@pytest.mark.parametrize(
    ("headers", "outcome"),
    [
        ({"Content-Encoding": "gzip"}, Outcome.CORRUPT),
        ({"Content-Encoding": "gzip, gzip"}, Outcome.CORRUPT),
        ({"ETag": '"' + "x" * 60_000 + '"'}, Outcome.DOWNLOADED),
        ({f"X-{number}": "y" * 60_000 for number in range(200)}, Outcome.UNREACHABLE),
        ({"Set-Cookie": "a=" + "; expires=" * 6000}, Outcome.DOWNLOADED),
    ],
    ids=["bomb", "nested", "tag", "headers", "cookie"],
)
def test_a_hostile_answer_ends_in_its_outcome(client, headers, outcome):
    with LoopbackServer([lambda request: HttpResponse(200, BOMB, dict(headers))]) as server:
        page = client.get_text(server.base_url + "/", max_bytes=1 << 20)
    assert page.outcome is outcome
    assert len(repr(page.headers)) < 2000
    assert len(page.etag or "") < 300


def test_a_reason_of_a_server_is_one_harmless_line(client):
    def app(request: HttpRequest) -> HttpResponse:
        return HttpResponse(302, b"", {"Location": "http://evil.example/\x1b[2J\x07"})

    with LoopbackServer([app]) as server:
        page = client.get_text(server.base_url + "/")
    assert page.outcome is Outcome.REFUSED
    assert page.detail.isprintable()


def test_trailers_without_end_end(client):
    import socket
    import threading

    with socket.create_server(("127.0.0.1", 0)) as listening:

        def serve() -> None:
            connection, _ = listening.accept()
            with connection:
                connection.recv(65536)
                connection.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n")
                try:
                    while True:
                        connection.sendall(b"X-Trailer: y\r\n")
                        time.sleep(0.01)
                except OSError:
                    pass

        threading.Thread(target=serve, daemon=True).start()
        began = time.monotonic()
        page = client.get_text(f"http://127.0.0.1:{listening.getsockname()[1]}/")
    assert not page.ok
    assert time.monotonic() - began < 60


@examples(deadline=None)
@given(st.binary(max_size=400))
def test_metadata_of_any_kind_are_fields_or_refused(tmp_path_factory, content):
    path = tmp_path_factory.getbasetemp() / "metadata.txt"
    path.write_bytes(content + b"\ncenter_time=5:03:37\n" if len(content) % 2 else content)
    try:
        fields = read_metadata(path)
    except ValueError:
        return
    assert all(
        key.isidentifier() and value.isprintable() and len(value) <= 201 for key, value in fields.items()
    )


def test_metadata_without_bounds_are_refused(tmp_path):
    path = tmp_path / "metadata.txt"
    path.write_text("".join(f"key{number}=1\n" for number in range(10_000)))
    with pytest.raises(ValueError, match="lines"):
        read_metadata(path)
    path.write_bytes(b"a=1\n" * (1 << 19))
    with pytest.raises(ValueError, match="larger"):
        read_metadata(path)
    path.write_text("heading=\x1b[2J" + "1" * 1000 + "\n")
    assert read_metadata(path)["heading"].isprintable()
