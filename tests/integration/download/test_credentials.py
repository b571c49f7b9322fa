"""Tests that each credential is sent to one origin only, and is never shown, logged or stored."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
from requests.adapters import BaseAdapter

from era5_servers import AREA, FRAME, JUNE, KEY, cds_source, fields, settings
from hephaestus_build.core.errors import UsageError
from hephaestus_build.core.frames import Frame
from hephaestus_build.core.provenance import Outcome
from hephaestus_build.core.settings import Settings, load_settings
from hephaestus_build.core.web_address import HttpUrl
from hephaestus_build.download.client import HttpClient
from hephaestus_build.download.credentials import CdsCredentials, netrc_login
from hephaestus_build.download.transport import StrictSession
from hephaestus_build.simulation.server.arco_app import ARCO_PREFIX, ArcoApp
from hephaestus_build.simulation.server.cds_app import CdsApp
from hephaestus_build.simulation.server.http_server import HttpRequest, HttpResponse, LoopbackServer
from hephaestus_build.sources.annotations.archive import find_annotations
from hephaestus_build.sources.era5.arco import ArcoEra5Source
from hephaestus_build.sources.era5.cds import CdsEra5Source
from hephaestus_build.sources.licsar.archive_addresses import ArchiveAddresses


class Net(BaseAdapter):
    """Simulated network of many hosts, with the response of each address and a log of requests."""

    def __init__(self, moved: dict[str, str]) -> None:
        super().__init__()
        self.moved = moved
        self.asked: list[requests.PreparedRequest] = []

    def send(self, request: requests.PreparedRequest, **_: Any) -> requests.Response:  # type: ignore[override]
        self.asked.append(request)
        response = requests.Response()
        response.request, response.url = request, request.url
        response.raw = io.BytesIO()
        response.status_code = 302 if request.url in self.moved else 404
        if request.url in self.moved:
            response.headers["Location"] = self.moved[request.url]
        return response

    def close(self) -> None:
        """Do nothing."""


@pytest.fixture
def network(monkeypatch) -> Callable[[dict[str, str]], Net]:
    def plug(moved: dict[str, str]) -> Net:
        net = Net(moved)
        monkeypatch.setattr(StrictSession, "get_adapter", lambda self, url: net)
        return net

    return plug


def client(tmp_path: Path, **options: Any) -> HttpClient:
    return HttpClient(Settings(cache_dir=tmp_path, timeout=5, retries=0), **options)


@pytest.mark.parametrize(
    ("start", "target", "outcome", "kept"),
    [
        ("https://a.org/x", "https://a.org/y", Outcome.ABSENT, True),
        ("https://a.org/x", "/y", Outcome.ABSENT, True),
        ("https://a.org/x", "https://b.org/y", Outcome.ABSENT, False),
        ("https://a.org/x", "https://a.org:8443/y", Outcome.ABSENT, False),
        ("http://a.org/x", "https://a.org/y", Outcome.ABSENT, False),
        ("https://a.org/x", "http://a.org/y", Outcome.REFUSED, None),
        ("https://a.org/x", "http://a.org:443/y", Outcome.REFUSED, None),
        ("https://a.org/x", "https://u:p@b.org/y", Outcome.ABSENT, False),
        ("https://a.org/x", "http://b.org\\.a.org/y", Outcome.REFUSED, None),
        ("https://a.org/x", "ftp://a.org/y", Outcome.REFUSED, None),
    ],
)
def test_a_redirect_takes_a_credential_nowhere_else(network, tmp_path, start, target, outcome, kept):
    net = network({start: target})
    with client(tmp_path, session_headers={"X-Key": "secret"}) as asking:
        page = asking.get_text(start.replace("//", "//me:secret@"))
    assert page.outcome is outcome
    assert "secret" not in repr(page)
    assert {"Authorization", "X-Key"} <= net.asked[0].headers.keys()
    if kept is None:
        assert len(net.asked) == 1
    else:
        sent = {"Authorization", "X-Key"} & net.asked[1].headers.keys()
        assert sent == ({"Authorization", "X-Key"} if kept else set())


def test_a_redirect_back_does_not_bring_the_credential_again(network, tmp_path):
    net = network({"https://a.org/x": "https://b.org/", "https://b.org/": "https://a.org/y"})
    with client(tmp_path) as asking:
        asking.get_text("https://me:secret@a.org/x")
    assert ["Authorization" in request.headers for request in net.asked] == [True, False, False]


def test_only_an_entry_of_the_very_host_counts_and_only_over_https(network, tmp_path, monkeypatch):
    file = tmp_path / "netrc"
    file.write_text("machine a.org login me password secret\ndefault login me password other\n")
    file.chmod(0o600)
    monkeypatch.setenv("NETRC", str(file))
    assert netrc_login(HttpUrl.parse("https://a.org/x")) == ("me", "secret")
    for other in ("http://a.org/", "https://a.org:8443/", "https://b.org/", "http://b.org/"):
        assert netrc_login(HttpUrl.parse(other)) is None
    net = network({"https://a.org/x": "https://b.org/y"})
    with client(tmp_path) as asking:
        for url in ("https://a.org/x", "http://a.org/x", "https://b.org/x"):
            asking.get_text(url)
    sent = [(request.url, "Authorization" in request.headers) for request in net.asked]
    assert sent == [
        ("https://a.org/x", True),
        ("https://b.org/y", False),
        ("http://a.org/x", False),
        ("https://b.org/x", False),
    ]
    file.write_text("machine " * 10)
    assert netrc_login(HttpUrl.parse("https://a.org/x")) is None


def test_the_portals_password_stays_with_its_origin():
    addresses = ArchiveAddresses(Settings(licsar_url="https://me:secret@host.example/x"))
    for link in ("http://host.example/a.tif", "https://host.example:8443/a.tif", "https://x.ceda.ac.uk/a"):
        assert addresses.file_url(link) == link
    assert not addresses.is_trusted_url("http://evil.example\\.ceda.ac.uk/x")
    assert not addresses.is_trusted_url("http://evil.example\t.ceda.ac.uk/x")


def test_cookies_are_not_kept(tmp_path):
    def app(request: HttpRequest) -> HttpResponse:
        return HttpResponse(200, b"x", {"Set-Cookie": "a=b; Path=/"})

    with LoopbackServer([app]) as server, client(tmp_path) as asking:
        assert asking.get_text(f"{server.base_url}/1").ok
        assert asking.get_text(f"{server.base_url}/2").ok
        assert all("cookie" not in entry.headers for entry in server.log)


def test_a_signature_is_sent_and_never_logged(tmp_path, caplog):
    caplog.set_level(logging.DEBUG, "urllib3")

    def app(request: HttpRequest) -> HttpResponse:
        return HttpResponse(200, b"x", {"X-Odd": "y"})

    with LoopbackServer([app]) as server, client(tmp_path) as asking:
        page = asking.get_text(f"{server.base_url}/a?sig=secret".replace("//", "//me:secret@"))
        assert page.ok
        assert server.log[0].query == {"sig": "secret"}
    assert "/a" in caplog.text
    assert "secret" not in caplog.text + repr(page)


# --- ERA5 ----------------------------------------------------------------------------------------------


@pytest.fixture
def elsewhere() -> Iterator[LoopbackServer]:
    with LoopbackServer([lambda request: HttpResponse(200, b"{}")]) as server:
        yield server


@pytest.mark.parametrize("how", ["redirect", "link", "scheme"])
def test_the_key_of_the_cds_goes_to_its_own_origin_alone(tmp_path, elsewhere, how):
    cds = CdsApp(fields=fields, key=KEY)

    def away(request: HttpRequest) -> HttpResponse | None:
        if "/execution" in request.path and how == "redirect":
            return HttpResponse(307, b"", {"Location": elsewhere.base_url + "/x"})
        if "/execution" in request.path and how == "scheme":
            return HttpResponse(307, b"", {"Location": request.base_url.replace("http:", "https:") + "/x"})
        if "/execution" in request.path:
            link = {"rel": "monitor", "href": elsewhere.base_url + "/x"}
            body = {"jobID": "a", "status": "accepted", "links": [link]}
            return HttpResponse(201, json.dumps(body).encode(), {"Content-Type": "application/json"})
        return None

    with LoopbackServer([away, cds]) as server:
        found = cds_source(server, tmp_path).fetch(FRAME, AREA, JUNE)
    assert not elsewhere.log
    receipt = found.missing_hours[JUNE[0]]
    assert receipt.outcome is Outcome.REFUSED
    assert "that the key is not sent to" in receipt.detail
    assert KEY not in repr(found)


def test_a_redirect_within_the_cds_is_followed(tmp_path):
    cds = CdsApp(fields=fields, key=KEY)

    def app(request: HttpRequest) -> HttpResponse | None:
        if request.path.startswith("/old/"):
            return HttpResponse(307, b"", {"Location": request.path.removeprefix("/old")})
        return None

    with LoopbackServer([app, cds]) as server:
        source = CdsEra5Source(
            settings(server, tmp_path),
            CdsCredentials(f"{server.base_url}/old/api", KEY, "x"),
            longest_pause=0.02,
        )
        assert len(source.fetch(FRAME, AREA, JUNE).times) == 2


def test_a_store_behind_a_password_and_a_signature_is_read_and_shown_without_them(tmp_path):
    store = ArcoApp(fields, areas=(AREA,))

    def guarded(request: HttpRequest) -> HttpResponse | None:
        if "authorization" not in request.headers or request.query != {"sig": "secret"}:
            return HttpResponse(401, b"")
        return store(request)

    with LoopbackServer([guarded]) as server:
        url = server.base_url.replace("//", "//me:secret@") + ARCO_PREFIX + "?sig=secret"
        source = ArcoEra5Source(load_settings(data_dir=tmp_path, arco_url=url, timeout=30, retries=0))
        found = source.fetch(FRAME, AREA, JUNE)
        assert len(found.times) == 2
    assert "secret" not in repr(found) + source.url + source.description + repr(found.receipts)
    kept = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert kept
    assert not any(b"secret" in path.read_bytes() or "secret" in str(path) for path in kept)


def test_an_address_of_another_kind_is_not_quoted(tmp_path):
    with pytest.raises(UsageError, match="HEPHAESTUS_ARCO_URL") as caught:
        ArcoEra5Source(load_settings(data_dir=tmp_path, arco_url="s3://me:secret@bucket/x"))
    assert "secret" not in str(caught.value)
    named = load_settings(data_dir=tmp_path, annotations="ftp://me:secret@host/x.tar.gz")
    with pytest.raises(UsageError, match="HEPHAESTUS_ANNOTATIONS") as caught:
        find_annotations(named, Frame("124D_04854_171313"))
    assert "secret" not in str(caught.value)
