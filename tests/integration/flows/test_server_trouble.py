"""Tests of what stands around the Prefect server: each trouble is one line and an exit code, soon.

Commands run as processes, since Prefect reads its settings when it is imported.
"""

from __future__ import annotations

import os
import pty
import socket
import sqlite3
import subprocess
import sys
import time
from contextlib import closing, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest
from prefect.settings import (
    PREFECT_API_URL,
    PREFECT_HOME,
    PREFECT_SERVER_API_HOST,
    PREFECT_SERVER_API_PORT,
    temporary_settings,
)

from checkout import ROOT
from hephaestus_build.core.errors import HephaestusError, UsageError
from hephaestus_flows.concurrency_limits import LEASE_STORAGE
from hephaestus_flows.local_server import _server_environment, check_home, ensure_server
from hephaestus_flows.prefect_plugin import asks_api
from hephaestus_flows.server_api import api_url, bypass_proxies, is_server_healthy, require_server

pytestmark = pytest.mark.flows

FRAME = "198A_00210_131313"
SHORT_FORM = ("prefect", "deployment", "run", "build-frame", "-p", f"frame={FRAME}")
LONG_FORM = ("prefect", "deployment", "run", "build-frame/build-frame", "-p", f"frame={FRAME}")
SERVE = ("-m", "hephaestus_flows.serve")
WITHOUT_SERVER = ("-m", "hephaestus_flows.build_frame", FRAME, "--limit", "1")
#: Seconds; a machine with other work takes many times as long to import Prefect.
BOUND = 240
NOBODY = "http://127.0.0.1:9/api"


def run(words, home, **environment):
    """Run a command in the checkout with a Prefect home of its own; return its code and its lines."""
    known = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
    command = [sys.executable, *words]
    if words[0] == "prefect":
        command = [Path(sys.executable).with_name("prefect"), *words[1:]]
    done = subprocess.run(
        command, cwd=ROOT, env={**known, "PREFECT_HOME": str(home), **environment}, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, check=False,
        timeout=BOUND,
    )  # fmt: skip
    assert "Traceback" not in done.stdout, done.stdout
    return done.returncode, done.stdout.splitlines()


@contextmanager
def free_port():
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    yield port


@contextmanager
def listening():
    """The port of a program that takes connections and answers none."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        yield silent.getsockname()[1]


@contextmanager
def server_of_version(version):
    """The API of a healthy server that says it is of a version."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            known = {"/api/health": b"true", "/api/admin/version": f'"{version}"'.encode()}
            body = known.get(self.path)
            self.send_response(200 if body else 422)
            self.end_headers()
            self.wfile.write(body or b"")

        def log_message(self, *_):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as served:
        thread = Thread(target=served.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{served.server_port}/api"
        finally:
            served.shutdown()
            thread.join()


@pytest.mark.parametrize("words", [SHORT_FORM, LONG_FORM, WITHOUT_SERVER], ids=["short", "long", "here"])
def test_an_address_at_which_nobody_answers(words, tmp_path):
    code, lines = run(words, tmp_path, PREFECT_API_URL=NOBODY)
    assert code == 1
    (line,) = lines
    assert line.startswith(
        f"hephaestus: no Prefect server answers at {NOBODY}; `make serve` starts one there"
    )


@pytest.mark.parametrize("words", [WITHOUT_SERVER, SERVE], ids=["here", "serve"])
@pytest.mark.parametrize(("content", "fault"), [(None, "does not exist"), ("x", "holds no certificates")])
def test_certificates_that_are_lost_are_named(words, content, fault, tmp_path):
    bundle = tmp_path / "ca.pem"
    if content:
        bundle.write_text(content)
    code, lines = run(words, tmp_path, SSL_CERT_FILE=str(bundle))
    assert code == 1
    assert lines == [f"hephaestus: SSL_CERT_FILE names {bundle}, which {fault}: correct or unset it"]


def test_the_short_form_ends_where_there_is_no_server(tmp_path):
    with free_port() as port:
        code, lines = run(SHORT_FORM, tmp_path, PREFECT_SERVER_API_PORT=str(port))
    assert code == 1
    expected = (
        f"hephaestus: no Prefect server answers at http://127.0.0.1:{port}/api; `make serve` starts one"
    )
    assert lines == [expected]


def test_a_home_that_cannot_be_made(tmp_path):
    file = tmp_path / "file"
    file.write_text("")
    for words in (SERVE, WITHOUT_SERVER):
        with free_port() as port:
            code, lines = run(words, file / "home", PREFECT_SERVER_API_PORT=str(port))
        assert code == 1
        assert lines[-1].startswith(f"hephaestus: Prefect's home {file / 'home'} cannot be written to")
        assert lines[-1].endswith("set PREFECT_HOME to another folder")
        assert len(lines) <= 2


@pytest.mark.parametrize(
    ("name", "value"), [("PREFECT_SERVER_API_PORT", "abc"), ("PREFECT_PROFILES_PATH", "profiles.toml")]
)
def test_settings_that_cannot_be_read(name, value, tmp_path):
    if name == "PREFECT_PROFILES_PATH":
        value = tmp_path / value
        value.write_text("[[[")
    code, lines = run(SERVE, tmp_path, **{name: str(value)})
    assert code == 1
    assert lines[-1].startswith("hephaestus: Prefect's settings cannot be read (")


def test_a_database_that_is_none(tmp_path):
    (tmp_path / "prefect.db").write_bytes(b"nonsense" * 1000)
    with free_port() as port:
        code, lines = run(SERVE, tmp_path, PREFECT_SERVER_API_PORT=str(port))
    assert code == 1
    assert "the Prefect server did not start (" in lines[-1]
    assert "not a database" in lines[-1]
    assert f"move {tmp_path / 'prefect.db'} away" in lines[-1]
    assert (tmp_path / "prefect.db").read_bytes().startswith(b"nonsense")


def test_a_database_that_another_program_has_locked(tmp_path):
    with closing(sqlite3.connect(tmp_path / "prefect.db", isolation_level=None)) as other:
        other.execute("CREATE TABLE t (x)")
        other.execute("BEGIN EXCLUSIVE")
        with free_port() as port:
            code, lines = run(SERVE, tmp_path, PREFECT_SERVER_API_PORT=str(port))
    assert code == 1
    assert "the Prefect server did not" in lines[-1]
    assert "database is locked" in lines[-1]
    assert "another program uses" in lines[-1]


def test_a_port_that_another_program_has(tmp_path):
    with listening() as port, temporary_settings({PREFECT_HOME: tmp_path, PREFECT_SERVER_API_PORT: port}):
        began = time.monotonic()
        assert not is_server_healthy(api_url())
        with pytest.raises(HephaestusError, match="another program listens there") as said:
            with ensure_server(api_url(), tmp_path / "log"):
                pass
        assert time.monotonic() - began < 30
    assert "PREFECT_SERVER_API_PORT=4201 make serve" in str(said.value)
    with listening() as port, temporary_settings({PREFECT_API_URL: f"http://127.0.0.1:{port}/api"}):
        with pytest.raises(HephaestusError, match=r"PREFECT_API_URL=http://127\.0\.0\.1:4201/api make serve"):
            with ensure_server(api_url(), tmp_path / "log"):
                pass


def test_a_server_of_another_version():
    with server_of_version("2.20.4") as url:
        with pytest.raises(HephaestusError, match=r"is of version 2\.20\.4, and this is Prefect 3"):
            require_server(url)
    for near in ("3.1.0", "3.99.0+fork", ""):
        with server_of_version(near) as url:
            require_server(url)


@pytest.mark.parametrize(
    "text", ["nonsense", "http://", "ftp://127.0.0.1:4200/api", "http://[::1", "http://x:99999"]
)
def test_an_address_that_is_none(text, tmp_path):
    with pytest.raises(UsageError, match="is no address such as"):
        require_server(text)
    with pytest.raises(UsageError, match="is no address such as"), ensure_server(text, tmp_path / "log"):
        pass


def test_a_proxy_is_not_asked_for_this_machine(monkeypatch):
    monkeypatch.setenv("no_proxy", "example.org")
    monkeypatch.delenv("NO_PROXY", raising=False)
    for name in ("HTTP_PROXY", "http_proxy"):
        monkeypatch.setenv(name, NOBODY)
    bypass_proxies()
    bypass_proxies()
    assert os.environ["no_proxy"].split(",") == ["example.org", "127.0.0.1", "::1", "localhost"]
    assert "127.0.0.1" in os.environ["NO_PROXY"].split(",")
    with server_of_version("3.9.1") as url:
        require_server(url)


def test_a_server_on_the_other_loopback_address_is_found():
    with temporary_settings({PREFECT_SERVER_API_HOST: "::1", PREFECT_API_URL: None}):
        assert api_url().startswith("http://[::1]:")


def test_the_servers_leases_are_on_disk_unless_a_setting_says_otherwise(monkeypatch):
    name = "PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE"
    assert _server_environment(NOBODY, 9)[name] == LEASE_STORAGE


def test_a_home_is_made_and_a_read_only_one_refused(tmp_path):
    with temporary_settings({PREFECT_HOME: tmp_path / "a" / "b"}):
        assert check_home() == tmp_path / "a" / "b"
        assert (tmp_path / "a" / "b").is_dir()
    with temporary_settings({PREFECT_HOME: Path("/proc/nothing")}):
        with pytest.raises(HephaestusError, match="cannot be written to"):
            check_home()


@pytest.mark.parametrize(
    ("words", "asks"),
    [
        ("deployment run x", True),
        ("--no-prompt deploy --all", True),
        ("concurrency-limit inspect licsar", True),
        ("deployment run --help", False),
        ("config view", False),
        ("server start", False),
        ("version", False),
        ("", False),
    ],
)
def test_commands_that_ask_a_server_are_known(words, asks):
    assert asks_api(["prefect", *words.split()]) is asks


def test_no_flow_tells_a_terminal_that_prefect_collects_data(tmp_path: Path) -> None:
    """Prefect's client says so at its first start with a home, whatever the settings of the server."""
    shown, terminal = pty.openpty()
    dropped = ("PREFECT_", "CI", "GITHUB_", "DO_NOT_TRACK")
    known = {name: value for name, value in os.environ.items() if not name.startswith(dropped)}
    with os.fdopen(terminal, "wb") as out:
        subprocess.run(
            [sys.executable, "-c", "import hephaestus_flows, prefect; print('imported')"],
            env={**known, "PREFECT_HOME": str(tmp_path), "PREFECT_TEST_MODE": "0"},
            cwd=ROOT,
            stdout=out,
            stderr=out,
            timeout=BOUND,
            check=True,
        )
    said = os.read(shown, 10_000).decode()
    os.close(shown)
    assert "imported" in said
    assert "usage data" not in said
