"""Tests of odd but harmless answers of servers: decoded, understood, or named; nothing is fetched twice."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import pytest
import requests

from hephaestus_build.core.atomic_io import hash_bytes
from hephaestus_build.core.provenance import Outcome, Receipt
from hephaestus_build.core.settings import Settings
from hephaestus_build.download.client import HttpClient
from hephaestus_build.download.revalidation import describe_difference
from hephaestus_build.download.small_response import SmallResponse
from hephaestus_build.download.validators import Validators
from hephaestus_build.simulation.server import faults
from hephaestus_build.simulation.server.http_server import HttpResponse, LoopbackServer

CONTENT = b"II*\0" + bytes(range(256)) * 2000
DATE = "Mon, 02 Sep 2024 10:00:00 GMT"
PROXY_VARIABLES = ("http_proxy", "https_proxy", "all_proxy", "no_proxy")


class Site:
    """One product, its page, and their server."""

    def __init__(self) -> None:
        self.files = {"/a.tif": HttpResponse(200, CONTENT, {"Last-Modified": DATE})}
        self.server = LoopbackServer([lambda request: self.files.get(request.path)])
        self.faults = self.server.faults

    def url(self, path: str = "/a.tif") -> str:
        return self.server.base_url + path

    def sent(self) -> list[tuple[str, int]]:
        """Return method and status of each request so far."""
        return [(entry.method, entry.status) for entry in self.server.log]


@pytest.fixture
def site() -> Iterator[Site]:
    site = Site()
    with site.server:
        yield site


@pytest.fixture
def client(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[HttpClient]:
    for name in PROXY_VARIABLES:
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    with HttpClient(Settings(cache_dir=tmp_path / "cache", timeout=5, retries=1)) as client:
        yield client


def read(path: Path) -> bytes:
    content = path.read_bytes()
    if content != CONTENT:
        raise ValueError("not the product")
    return content


def get(client: HttpClient, url: str, **options: Any) -> tuple[Receipt, bytes | None]:
    asked = {"product": "a.tif", "read": read, "has_signature": lambda first: first.startswith(b"II*\0")}
    return client.download([url], client.cache.folder / "f" / "a.tif", **{**asked, **options})


# --- content codings -------------------------------------------------------------------------------------


@pytest.mark.parametrize("encoding", ["gzip", "x-gzip", "deflate", "raw deflate"])
@pytest.mark.parametrize("transfer", ["length", "chunked", "closed"])
def test_a_product_that_is_compressed_unasked_is_decoded(site, client, encoding, transfer):
    options = {"length": {}, "chunked": {"chunked": True}, "closed": {"omit_length": True}}[transfer]
    fault = faults.compress_body(encoding)
    site.faults.add("a.tif", faults.Fault(**{**vars(fault), **options}))
    receipt, content = get(client, site.url())
    assert (receipt.outcome, content) == (Outcome.DOWNLOADED, CONTENT)
    assert (receipt.size, receipt.blake3) == (len(CONTENT), hash_bytes(CONTENT))
    assert receipt.last_modified == DATE
    again, _ = get(client, site.url(), revalidate=True)
    assert again.outcome is Outcome.UNCHANGED
    assert site.sent() == [("GET", 200), ("GET", 304)]
    assert describe_difference(receipt, client.head(site.url())) == ""


@pytest.mark.parametrize("encoding", ["gzip", "br", "deflate", "x-none"])
def test_a_coding_that_was_not_applied_is_disregarded(site, client, encoding):
    site.faults.add("a.tif", faults.claim_encoding(encoding))
    receipt, content = get(client, site.url())
    assert (receipt.outcome, content) == (Outcome.DOWNLOADED, CONTENT)


@pytest.mark.parametrize("encoding", ["br", "zstd", "gzip, gzip"])
def test_a_coding_that_cannot_be_undone_is_named(site, client, encoding):
    site.faults.add("a.tif", faults.compress_body(encoding))
    receipt, content = get(client, site.url())
    assert (receipt.outcome, content) == (Outcome.CORRUPT, None)
    assert f"compressed ({encoding}) although that was not asked for" in receipt.detail
    assert len(site.sent()) == 1  # asking again would give the same
    page = client.get_text(site.url())
    assert page.outcome is Outcome.CORRUPT
    assert encoding in page.detail


def test_a_product_that_is_compressed_itself_stays_compressed(site, client):
    # Apache's AddEncoding gives an archive's own compression as that of the transfer
    archive = gzip.compress(CONTENT, mtime=0)
    site.files["/a.tif"] = HttpResponse(200, archive, {"Content-Encoding": "x-gzip"})
    _, content = get(
        client,
        site.url(),
        read=lambda path: path.read_bytes(),
        has_signature=lambda first: first.startswith(b"\x1f\x8b"),
    )
    assert content == archive


@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
def test_a_bomb_ends_at_the_limit(site, client, encoding):
    bomb = faults.compress_body(encoding)
    site.files["/a.tif"] = HttpResponse(200, b"II*\0" + bytes(64 << 20))
    site.faults.add("a.tif", bomb)
    receipt, content = get(client, site.url(), max_bytes=1 << 20)
    assert (receipt.outcome, content) == (Outcome.CORRUPT, None)
    assert str(1 << 20) in receipt.detail
    assert not [
        path for path in client.cache.folder.rglob("*") if path.is_file() and path.stat().st_size > 4 << 20
    ]


@pytest.mark.parametrize("fault", ["cut", "damaged", "length"])
def test_a_compressed_product_that_is_cut_or_damaged_is_refused_and_comes_the_next_time(site, client, fault):
    packed = zlib.compress(CONTENT)
    broken = {
        "cut": faults.Fault(**{**vars(faults.compress_body("deflate")), "cut_after": len(packed) // 2}),
        "damaged": faults.Fault(
            encode=lambda content: packed[:200] + bytes(200) + packed[400:],
            headers={"Content-Encoding": "deflate"},
        ),
        "length": faults.Fault(**{**vars(faults.compress_body("deflate")), "length": len(packed) + 9}),
    }[fault]
    rule = site.faults.add("a.tif", broken)
    receipt, _ = get(client, site.url())
    assert receipt.outcome is Outcome.CORRUPT
    assert "cut" in receipt.detail or "damaged" in receipt.detail
    assert rule.hits == 2
    site.faults.clear()
    receipt, content = get(client, site.url())
    assert (receipt.outcome, content) == (Outcome.DOWNLOADED, CONTENT)
    assert all("range" not in entry.headers for entry in site.server.log)


def test_a_cut_download_whose_rest_comes_compressed_starts_anew(site, client):
    site.faults.add("a.tif", faults.cut_connection(300_000), times=1)
    site.faults.add("a.tif", faults.compress_body("gzip"), times=1)
    receipt, content = get(client, site.url())
    assert (receipt.outcome, content) == (Outcome.DOWNLOADED, CONTENT)


# --- transfer --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "fault",
    [
        faults.chunk_body(),
        faults.chunk_body(length="5"),
        faults.speak_http10(),
        faults.send_unasked_range(),
        faults.Fault(headers={"Transfer-Encoding": "identity"}),
        faults.Fault(headers={"Content-Encoding": "UTF-8"}),
    ],
    ids=["chunked", "chunked, false length", "HTTP/1.0", "206 unasked", "identity", "UTF-8"],
)
def test_unusual_transfers_arrive(site, client, fault):
    site.faults.add("a.tif", fault)
    receipt, content = get(client, site.url())
    assert (receipt.outcome, content) == (Outcome.DOWNLOADED, CONTENT)
    assert client.head(site.url()).outcome is Outcome.DOWNLOADED
    page = client.get_text(site.url())
    assert page.ok


def test_malformed_chunks_are_named(site, client):
    site.faults.add("a.tif", faults.chunk_body(malformed=True))
    receipt, content = get(client, site.url())
    assert content is None
    assert "cut" in receipt.detail or "reset" in receipt.detail


@pytest.mark.parametrize("second", [faults.shift_ranges(), faults.refuse_ranges(), faults.speak_http10()])
def test_a_wrong_answer_to_a_range_request_is_not_spliced_in(site, client, second):
    site.faults.add("a.tif", faults.cut_connection(300_000), times=1)
    site.faults.add("a.tif", second, times=1)
    client._settings = client._settings.model_copy(update={"retries": 3})
    receipt, content = get(client, site.url())
    assert (receipt.outcome, content) == (Outcome.DOWNLOADED, CONTENT)
    assert "range" in site.server.log[1].headers


# --- versions --------------------------------------------------------------------------------------------


def test_tags_that_differ_from_server_to_server_are_no_change(site, client):
    site.faults.add("a.tif", faults.vary_etags(3))
    first, _ = get(client, site.url())
    arrived: list[int] = []
    for _ in range(4):
        receipt, content = get(client, site.url(), revalidate=True, progress=arrived.append)
        assert (receipt.outcome, content) == (Outcome.UNCHANGED, CONTENT)
        assert describe_difference(first, client.head(site.url())) == ""
    assert arrived == []


def test_a_file_of_another_date_or_length_is_found_whatever_its_tag(site, client):
    site.faults.add("a.tif", faults.Fault(etag=lambda _: '"same"'))
    receipt, _ = get(client, site.url())
    site.files["/a.tif"] = HttpResponse(200, CONTENT, {"Last-Modified": "Tue, 03 Sep 2024 10:00:00 GMT"})
    assert "last modified" in describe_difference(receipt, client.head(site.url()))
    site.files["/a.tif"] = HttpResponse(200, CONTENT[:-256], {"Last-Modified": DATE})
    assert "size" in describe_difference(receipt, client.head(site.url()))


@pytest.mark.parametrize(
    ("held", "now"),
    [
        ('"5f-61"', 'W/"5f-61"'),
        ('W/"5f-61"', '"5f-61"'),
        ('"5f-61"', '"5f-61-gzip"'),
        ('"5f-61-gzip"', '"5f-61"'),
        ('"5f-61;gzip"', 'W/"5f-61"'),
        ('"5f-61--gzip"', '"5f-61-df"'),
    ],
)
def test_a_weak_tag_and_the_suffix_of_a_coding_name_the_same_version(held, now):
    assert not Validators(held).differs_from(Validators(now))
    assert Validators(held).differs_from(Validators(now.replace("61", "62")))


def answer(**headers: str) -> SmallResponse:
    marks = Validators.from_headers({key.replace("_", "-"): value for key, value in headers.items()})
    kept = {key.replace("_", "-"): value for key, value in headers.items()}
    return SmallResponse(
        Outcome.DOWNLOADED, "http://a.b/c", 200, "", marks.last_modified, marks.etag, "", kept
    )


@pytest.mark.parametrize(
    ("then", "now", "changed"),
    [
        ((DATE, '"a"'), {"Last_Modified": DATE, "ETag": '"b"'}, ""),
        ((DATE, '"a"'), {"Content_Length": "9", "ETag": '"b"'}, ""),
        ((None, '"a"'), {"ETag": '"b"'}, "etag"),  # nothing else says anything
        ((None, '"a"'), {"ETag": 'W/"a"'}, ""),
        ((DATE, '"a"'), {"Last_Modified": "Monday, 02-Sep-24 10:00:00 GMT", "ETag": '"b"'}, ""),
        ((DATE, '"a"'), {"Last_Modified": "Mon Sep  2 10:00:00 2024", "ETag": '"b"'}, ""),
        ((DATE, '"a"'), {"Last_Modified": "Mon, 02 Sep 2024 12:00:00 +0200"}, ""),
        ((DATE, '"a"'), {"Last_Modified": "2 days ago", "ETag": '"a"'}, ""),
        ((DATE, '"a"'), {"Last_Modified": "Mon, 02 Sep 2024 10:00:01 GMT", "ETag": '"a"'}, "last modified"),
        ((DATE, '"a"'), {"Content_Length": "10", "Last_Modified": DATE, "ETag": '"a"'}, "size"),
        ((DATE, '"a"'), {"Content_Length": "4", "Content_Encoding": "gzip", "Last_Modified": DATE}, ""),
    ],
)  # fmt: skip
def test_length_and_date_decide_and_a_tag_only_where_neither_is_known(then, now, changed):
    receipt = Receipt(
        "a.tif", Outcome.DOWNLOADED, "http://a.b/c", size=9, last_modified=then[0], etag=then[1]
    )
    said = describe_difference(receipt, answer(**now))
    assert (changed in said) if changed else said == ""


@pytest.mark.parametrize("ahead", [timedelta(0), timedelta(days=40)], ids=["now", "in the future"])
def test_a_date_that_no_file_can_have_says_nothing(ahead):
    now = datetime.now(UTC)
    headers = {
        "Date": format_datetime(now, usegmt=True),
        "Last-Modified": format_datetime(now + ahead, usegmt=True),
    }
    assert Validators.from_headers(headers).last_modified is None
    headers["Last-Modified"] = format_datetime(now - timedelta(minutes=1), usegmt=True)
    assert Validators.from_headers(headers).last_modified == headers["Last-Modified"]


@pytest.mark.parametrize("date", ["yesterday", "0", "Mon, 99 Sep 2024 10:00:00 GMT", ""])
def test_a_date_that_is_none_costs_nothing(site, client, date):
    site.faults.add("a.tif", faults.claim_date(date))
    receipt, _ = get(client, site.url())
    assert (receipt.outcome, receipt.last_modified) == (Outcome.DOWNLOADED, None)
    assert get(client, site.url(), revalidate=True)[0].outcome is Outcome.UNCHANGED
    assert describe_difference(receipt, client.head(site.url())) == ""


# --- HEAD ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("code", [400, 401, 403, 404, 405, 500, 501, 503])
def test_where_head_is_refused_get_is_asked_without_its_body(site, client, code):
    site.faults.add("a.tif", faults.refuse_head(code))
    receipt, _ = get(client, site.url())
    site.server.clear_log()
    for _ in range(3):
        page = client.head(site.url())
        assert (page.outcome, page.size, page.last_modified) == (Outcome.DOWNLOADED, len(CONTENT), DATE)
        assert describe_difference(receipt, page) == ""
    assert site.sent() == [("HEAD", code), *[("GET", 200)] * 3]  # HEAD is not tried again


@pytest.mark.parametrize("fault", [faults.Fault(reset=True), faults.Fault(stall_after=0, delay=60)])
def test_where_head_is_not_answered_get_is_asked(site, tmp_path, fault):
    site.faults.add("a.tif", fault, methods={"HEAD"})
    with HttpClient(Settings(cache_dir=tmp_path, timeout=0.5, retries=0)) as client:
        assert client.head(site.url()).size == len(CONTENT)


@pytest.mark.parametrize("length", ["", "0"])
def test_a_head_without_the_length_is_no_file_of_length_zero(site, client, length):
    site.faults.add("a.tif", faults.head_without_length(length))
    receipt, _ = get(client, site.url())
    assert client.head(site.url()).size == len(CONTENT)
    assert describe_difference(receipt, client.head(site.url())) == ""


def test_what_neither_method_gives_is_absent(site, client):
    assert client.head(site.url("/b.tif")).outcome is Outcome.ABSENT
    site.faults.add("a.tif", faults.error_status(503))
    assert client.head(site.url()).outcome is Outcome.UNREACHABLE


# --- text ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "charset", ["x-none", "utf-99", "binary", "none", "UTF8,utf8", "\N{SNOWMAN}", '"', ""]
)
def test_a_charset_that_does_not_exist_is_utf_8(site, client, charset):
    text = "<a href='20190604_20190616/'>Ätna</a>"
    site.files["/"] = HttpResponse(
        200, text.encode(), {"Content-Type": f"text/html; charset={charset}".encode().decode("latin-1")}
    )
    assert client.get_text(site.url("/")).text == text


@pytest.mark.parametrize("codec", ["utf-8-sig", "utf-16", "utf-16-le", "utf-32"])
def test_a_byte_order_mark_names_the_codec(site, client, codec):
    text = "<a href='20190604_20190616/'>Ätna</a>"
    body = text.encode(codec) if codec != "utf-16-le" else b"\xff\xfe" + text.encode(codec)
    site.files["/"] = HttpResponse(200, body, {"Content-Type": "text/html; charset=utf-8"})
    assert client.get_text(site.url("/")).text == text


# --- the way to the server -------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["ALL_PROXY", "all_proxy", "http_proxy", "HTTP_PROXY"])
def test_a_socks_proxy_without_its_package_is_named_with_its_variable(client, monkeypatch, name):
    def missing(*_: object, **__: object) -> None:  # as requests has it where PySocks is not installed
        raise requests.exceptions.InvalidSchema("Missing dependencies for SOCKS support.")

    monkeypatch.setattr("requests.adapters.SOCKSProxyManager", missing)
    monkeypatch.setenv(name, "socks5://user:secret@127.0.0.1:9")
    page = client.get_text("http://archive.example/x/")
    assert page.outcome is Outcome.UNREACHABLE
    assert name in page.detail
    assert "PySocks" in page.detail
    assert "secret" not in page.detail
    assert "unset" in page.detail


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ("http://127.0.0.1:1", "refuses connections"),
        ("http://proxy.invalid:8080", "cannot be resolved"),
        ("http://", "not a valid address"),
        ("quic://127.0.0.1:1", "not a valid address|not supported"),
    ],
)  # fmt: skip
def test_a_proxy_that_does_not_work_is_named_instead_of_the_archive(client, monkeypatch, value, words):
    import re

    monkeypatch.setenv("http_proxy", value)
    page = client.get_text("http://archive.example/x/")
    assert page.outcome is Outcome.UNREACHABLE
    assert "http_proxy" in page.detail
    assert re.search(words, page.detail)


def test_a_proxy_that_refuses_is_named(client, monkeypatch, site):
    site.faults.add("", faults.error_status(407))
    monkeypatch.setenv("http_proxy", site.server.base_url)
    page = client.get_text("http://archive.example/x/")
    assert page.outcome is Outcome.REFUSED
    assert "the proxy in http_proxy" in page.detail
