"""Tests of access to the local Prefect server, and of the folders that flows may use."""

from __future__ import annotations

import asyncio
import base64
import re
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest
from prefect.settings import (
    PREFECT_API_AUTH_STRING,
    PREFECT_SERVER_API_AUTH_STRING,
    PREFECT_SERVER_API_CORS_ALLOWED_ORIGINS,
    temporary_settings,
)

from hephaestus_build.core.errors import HephaestusError, UsageError
from hephaestus_build.core.settings import load_settings
from hephaestus_flows.guarded_server import OriginGuard, allowed_origins, refusal_reason
from hephaestus_flows.local_server import _server_environment
from hephaestus_flows.parameter_folders import allowed_path_pattern, load_flow_settings, resolve_allowed_path
from hephaestus_flows.server_api import api_credentials, check_access

OWN = allowed_origins(4200)


def headers(host="127.0.0.1:4200", **more):
    return [(b"host", host.encode()), *((name.encode(), value.encode()) for name, value in more.items())]


@pytest.mark.parametrize(
    "host", ["127.0.0.1:4200", "localhost:4200", "LOCALHOST", "[::1]:4200", "127.0.0.1:5000"]
)
def test_this_machines_names_are_answered(host):
    assert refusal_reason(headers(host), OWN) is None


@pytest.mark.parametrize(
    "host",
    [
        "evil.example:4200", "127.0.0.1.evil.example", "localhost.evil.example", "", "evil.example@localhost",
        "localhost@evil.example", "localhost/evil", "[::1", "127.0.0.1:4200, evil.example", "localhost#",
        "0.0.0.0:4200", "2130706433",
    ],
)  # fmt: skip
def test_other_names_are_refused_so_that_no_page_can_rebind_its_own(host):
    assert "Host" in refusal_reason(headers(host), OWN)


def test_a_request_names_one_host():
    assert "Host" in refusal_reason([], OWN)
    assert "Host" in refusal_reason([*headers(), *headers("evil.example")], OWN)


@pytest.mark.parametrize("origin", ["http://127.0.0.1:4200", "http://localhost:4200", "http://[::1]:4200"])
def test_its_own_pages_may_ask(origin):
    assert refusal_reason(headers(origin=origin), OWN) is None


@pytest.mark.parametrize(
    "origin",
    [
        "http://evil.example", "null", "https://127.0.0.1:4200", "http://127.0.0.1:8080", "http://localhost",
        "http://127.0.0.1:4200.evil.example", "file://", "", "*", "http://localhost:4200, http://evil.example",
    ],
)  # fmt: skip
def test_pages_of_other_sites_may_not(origin):
    assert "Origin" in refusal_reason(headers(origin=origin), OWN)
    assert "Origin" in refusal_reason([*headers(origin=OWN[0]), (b"origin", origin.encode())], OWN)


def test_a_reverse_proxys_address_can_be_added_and_no_star():
    proxied = allowed_origins(4200, "https://prefect.example.org")
    assert (
        refusal_reason(headers("prefect.example.org", origin="https://prefect.example.org"), proxied) is None
    )
    assert refusal_reason(headers("prefect.example.org"), OWN) is not None
    for wrong in ("*", "prefect.example.org", "https://prefect.example.org/path", "null"):
        with pytest.raises(ValueError, match="no origin"):
            allowed_origins(4200, wrong)


@pytest.mark.parametrize("kind", ["http", "websocket"])
def test_requests_and_websockets_are_refused_before_the_application_sees_them(kind):
    seen, sent = [], []

    async def app(scope, receive, send):
        seen.append(scope)

    async def send(message):
        sent.append(message)

    guard = OriginGuard(app, OWN)
    asyncio.run(guard({"type": kind, "headers": headers(origin="http://evil.example")}, None, send))
    assert not seen
    assert sent[0].get("status", sent[0].get("code")) in (403, 1008)
    assert not any(b"access-control" in name for name, _ in sent[0].get("headers", ()))
    asyncio.run(guard({"type": kind, "headers": headers()}, None, send))
    asyncio.run(guard({"type": "lifespan"}, None, send))
    assert len(seen) == 2


def test_a_server_is_started_guarded_and_with_the_password(monkeypatch):
    url = "http://127.0.0.1:4200/api"
    environment = _server_environment(url, 4200)
    assert environment["PREFECT_SERVER_API_CSRF_PROTECTION_ENABLED"] == "true"
    assert environment["PREFECT_SERVER_API_CORS_ALLOWED_ORIGINS"].split(",") == list(OWN)
    assert "PREFECT_SERVER_API_AUTH_STRING" not in environment
    for name in (PREFECT_API_AUTH_STRING, PREFECT_SERVER_API_AUTH_STRING):
        with temporary_settings({name: "user:open-sesame"}):
            assert _server_environment(url, 4200)["PREFECT_SERVER_API_AUTH_STRING"] == "user:open-sesame"
            assert api_credentials(url) == "user:open-sesame"
    with temporary_settings({PREFECT_SERVER_API_AUTH_STRING: "user:open-sesame"}):
        assert api_credentials("https://prefect.example.org/api") is None  # it is not that server's
    for wrong in ("open-sesame", "user:sésame"):
        with temporary_settings({PREFECT_SERVER_API_AUTH_STRING: wrong}):
            with pytest.raises(UsageError, match="user:password") as refused:
                _server_environment(url, 4200)
            assert wrong not in str(refused.value)
    with temporary_settings({PREFECT_SERVER_API_CORS_ALLOWED_ORIGINS: "*"}):
        with pytest.raises(UsageError, match="nothing was started"):
            _server_environment(url, 4200)


@contextmanager
def answering(status, **headers):
    """A server that answers every GET alike, and notes what it was sent."""
    seen = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            seen.append(dict(self.headers))
            authorized = self.headers.get("Authorization") == headers.get("wants")
            self.send_response(status if authorized else 401)
            for name, value in headers.get("sends", {}).items():
                self.send_header(name, value)
            self.end_headers()

        def log_message(self, *_):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as served:
        thread = Thread(target=served.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{served.server_port}/api", seen
        finally:
            served.shutdown()
            thread.join()


ALL = {"Access-Control-Allow-Origin": "*"}


@pytest.mark.parametrize(
    ("status", "sends", "is_open"), [(422, ALL, True), (200, ALL, True), (200, {}, False)]
)
def test_a_server_that_any_page_may_use_is_told(status, sends, is_open):
    with answering(status, sends=sends) as (url, _):
        said = check_access(url)
    assert bool(said) is is_open
    assert not is_open or ("is open" in said and "\n" not in said)


def test_a_server_that_wants_a_password_says_so_and_no_password_is_shown(monkeypatch):
    token = "Basic " + base64.b64encode(b"user:open-sesame").decode()
    with answering(422, wants=token, sends=ALL) as (url, seen):
        with pytest.raises(HephaestusError, match="wants a password"):
            check_access(url)
        with temporary_settings({PREFECT_API_AUTH_STRING: "user:wrong-sesame"}):
            with pytest.raises(HephaestusError, match="does not take") as refused:
                check_access(url.replace("http://", "http://me:hidden@"))
            assert "sesame" not in str(refused.value)
            assert "hidden" not in str(refused.value)
        with temporary_settings({PREFECT_SERVER_API_AUTH_STRING: "user:open-sesame"}):
            assert check_access(url) is None
        assert all("Authorization" not in sent for sent in seen if "Origin" in sent)


@pytest.fixture
def roots(tmp_path, monkeypatch):
    """A data folder, one of data_roots, and a folder that is neither, with links between them."""
    for name in ("data/sub", "more", "outside"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "data" / "out").symlink_to(tmp_path / "outside")
    (tmp_path / "data" / "over").symlink_to(tmp_path / "more")
    monkeypatch.setenv("HEPHAESTUS_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setenv("HEPHAESTUS_DATA_ROOTS", str(tmp_path / "more"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_flow_writes_below_the_data_folder_or_a_root(roots):
    assert load_flow_settings().data_dir == roots / "data"
    for given, meant in {
        "data": "data", "data/sub": "data/sub", "data/new/deep": "data/new/deep", "more": "more",
        "data/over/x": "more/x", "./data/sub/../sub": "data/sub",
    }.items():  # fmt: skip
        assert load_flow_settings(Path(given)).data_dir == roots / meant
        assert load_flow_settings(roots / given).data_dir == roots / meant


@pytest.mark.parametrize(
    "path",
    ["outside", "data/out", "data/out/x", "data/../outside", "database", "/", "..", ".", "~", "a\0b",
     "/dev/zero", "s3://bucket/x", "x" * 5000, "data/sub/../../outside"],
)  # fmt: skip
def test_no_flow_writes_elsewhere(roots, path):
    with pytest.raises(UsageError) as refused:
        load_flow_settings(Path(path))
    message = str(refused.value)
    assert message.startswith("data_dir ")
    assert message.isprintable()
    assert not list((roots / "outside").iterdir())


@pytest.mark.parametrize(
    "path", ["data/cubes", "data/cubes/.generations/x", "more/volcano/cache", "data/results"]
)
def test_no_data_folder_begins_inside_of_what_another_keeps(roots, path):
    with pytest.raises(UsageError, match="no data folder lies in"):
        load_flow_settings(Path(path))


def test_what_a_run_reads_lies_there_too(roots):
    settings = load_settings()
    assert resolve_allowed_path("cubes", roots / "more" / "cubes", settings) == roots / "more" / "cubes"
    for path in ("/etc/passwd", "outside/preset.yaml"):
        with pytest.raises(UsageError, match="preset"):
            resolve_allowed_path("preset", Path(path), settings)


def test_the_server_refuses_such_paths_when_a_run_is_created(roots):
    known = re.compile(allowed_path_pattern(load_settings()))
    for path in (roots / "data", roots / "data" / "x y", roots / "more" / "z", roots / "data" / "a..b"):
        assert known.search(str(path))
    wrong = ("outside", "data/../outside", "database", "data/..", "")
    for path in ("/", "", "outside", *(f"{roots}/{name}" for name in wrong)):
        assert not known.search(str(path))
