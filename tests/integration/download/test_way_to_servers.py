"""Tests of the way to servers, proxies and certificates, by builds, cdsapi and ARCO with real ones."""

from __future__ import annotations

import os
import shutil
import ssl
import subprocess
import sys
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

import pytest
import requests

from archives import ALL, FRAME, objects, reached, settings_for, small_archive
from hephaestus_build.core.era5_grid import era5_area_around
from hephaestus_build.core.settings import Settings
from hephaestus_build.doctor.configuration import check_network
from hephaestus_build.download.credentials import CdsCredentials
from hephaestus_build.operations.batch import build_frames
from hephaestus_build.simulation.server.archive_server import ArchiveServer
from hephaestus_build.sources.era5.arco import ArcoEra5Source
from hephaestus_build.sources.era5.cds import CdsEra5Source
from socks_proxy import SocksProxy

CA_VARIABLES = ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE", "SSL_CERT_DIR")
PROXY_VARIABLES = ("http_proxy", "https_proxy", "all_proxy", "no_proxy")
HOUR = datetime(2019, 3, 5, 6)


@pytest.fixture(autouse=True)
def no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (*CA_VARIABLES, *PROXY_VARIABLES):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


# --- certificates ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A self-signed certificate of 127.0.0.1 and its key."""
    program = shutil.which("openssl")
    if program is None:
        pytest.skip("needs the program openssl, which makes a certificate")
    folder = tmp_path_factory.mktemp("tls")
    words = "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=127.0.0.1"
    words += " -addext subjectAltName=IP:127.0.0.1 -keyout key.pem -out cert.pem"
    subprocess.run([program, *words.split()], cwd=folder, check=True, capture_output=True)
    return folder / "cert.pem", folder / "key.pem"


@pytest.fixture(scope="module")
def secure(certificate: tuple[Path, Path]) -> Iterator[ArchiveServer]:
    """The archive over https."""
    server = small_archive()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*certificate)
    listening = server._server
    listening.socket = context.wrap_socket(listening.socket, server_side=True, do_handshake_on_connect=False)
    with server:
        yield server


@pytest.fixture
def settings(secure: ArchiveServer, tmp_path: Path) -> Iterator[Settings]:
    addresses = {
        "licsar_url": secure.licsar_url.replace("http:", "https:"),
        "arco_url": secure.arco_url.replace("http:", "https:"),
    }
    yield settings_for(tmp_path / "data", retries=0, **addresses)
    secure.reset()


def answers_of_all(server: ArchiveServer, settings: Settings) -> dict[str, str]:
    """Return what a build, ARCO and cdsapi say; empty where they work."""
    (run,) = build_frames([ALL], settings)
    area = era5_area_around(server.archive.world.scene(FRAME).grid)
    credentials = CdsCredentials(server.cds_url.replace("http:", "https:"), server.cds_key, "a test")
    said = {"build": run.error}
    for name, source in (
        ("ARCO", ArcoEra5Source(settings)),
        ("cdsapi", CdsEra5Source(settings, credentials)),
    ):
        fields = source.fetch(FRAME, area, [HOUR])
        said[name] = next((item.detail for item in fields.receipts_by_hour[HOUR] if not item.ok), "")
    return said


def make_bundle(kind: str, folder: Path, certificate: Path) -> Path:
    path = folder / kind.replace(" ", "-")
    if "folder" in kind:
        path.mkdir()
        if kind == "folder of plain names":
            shutil.copy(certificate, path / "cert.pem")
    elif kind != "lost":
        path.write_text({"empty": "", "text": "no certificate"}[kind])
    return path


FAULTS = {
    "lost": "which does not exist",
    "empty": "which holds no certificates",
    "text": "which holds no certificates",
    "empty folder": "which is an empty folder",
    "folder of plain names": "which is a folder without certificates named by their hash",
}


@pytest.mark.parametrize("kind", FAULTS)
@pytest.mark.parametrize("name", ["REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"])
def test_a_bundle_of_certificates_that_is_of_no_use_is_named(
    secure, settings, certificate, monkeypatch, tmp_path, name, kind
):
    path = make_bundle(kind, tmp_path, certificate[0])
    monkeypatch.setenv(name, str(path))
    for who, said in answers_of_all(secure, settings).items():
        assert f"{name} names {path}, {FAULTS[kind]}" in said, (who, said)
        assert "\n" not in said
    check = check_network(settings)
    assert check.verdict == "failed"
    assert f"{name} names {path}" in check.detail


@pytest.mark.parametrize("kind", ["lost", "empty", "empty folder"])
def test_a_variable_that_is_not_read_is_said_where_a_certificate_is_not_trusted(
    secure, settings, monkeypatch, tmp_path, kind, certificate
):
    monkeypatch.setenv("SSL_CERT_FILE", str(make_bundle(kind, tmp_path, certificate[0])))
    for who, said in answers_of_all(secure, settings).items():
        assert "its certificate is not trusted (self-signed certificate)" in said, (who, said)
        assert "SSL_CERT_FILE is not read here: name its authorities in REQUESTS_CA_BUNDLE" in said
    monkeypatch.delenv("SSL_CERT_FILE")
    assert "REQUESTS_CA_BUNDLE names other authorities" in answers_of_all(secure, settings)["build"]


def test_authorities_that_signed_others_are_said_to_have(
    secure, settings, certificate, monkeypatch, tmp_path
):
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", requests.certs.where())
    said = answers_of_all(secure, settings)["build"]
    assert f"no authority in {requests.certs.where()}, which REQUESTS_CA_BUNDLE names, has signed it" in said
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(certificate[0]))
    assert check_network(settings).verdict == "ok"
    said = answers_of_all(secure, settings)
    assert (said["build"], said["ARCO"]) == ("", "")  # the simulated CDS links to http, which is refused


# --- SOCKS -----------------------------------------------------------------------------------------------


def test_a_build_goes_through_a_socks_proxy(archive, clean_objects, monkeypatch, tmp_path):
    pytest.importorskip("socks", reason="needs PySocks, which is not installed")
    with reached(archive), SocksProxy() as proxy:
        monkeypatch.setenv("ALL_PROXY", proxy.address)
        settings = settings_for(tmp_path / "data")
        assert check_network(settings).detail.startswith("proxy in ALL_PROXY")
        other = settings_for(tmp_path / "other", era5="arco")
        for chosen in (settings, other):
            (run,) = build_frames([ALL], chosen)
            assert run.exit_code == 0, run.error
        assert set(proxy.asked) == {("127.0.0.1", archive.port)}
        assert objects(settings) == clean_objects


@pytest.fixture
def clean_objects(whole_cube):
    return objects(settings_for(whole_cube))


def test_a_socks_proxy_that_is_away_is_named(archive, monkeypatch, tmp_path):
    pytest.importorskip("socks", reason="needs PySocks, which is not installed")
    with reached(archive):
        monkeypatch.setenv("ALL_PROXY", "socks5h://user:secret@127.0.0.1:9")
        (run,) = build_frames([ALL], settings_for(tmp_path / "data", retries=0))
    assert "proxy in ALL_PROXY" in run.error
    assert "refuses connections" in run.error
    assert "secret" not in run.error


def test_a_socks_proxy_without_its_package_is_named_by_builds_and_the_doctor(upstream, tmp_path):
    without = (
        "import sys; sys.modules['socks'] = None; import hephaestus_build.cli as c; c.run_console_script()"
    )
    said = {}
    for words in (["build", str(FRAME)], ["doctor"]):
        done = subprocess.run(
            [sys.executable, "-c", without, *words, "--data-dir", str(tmp_path / "data")],
            env={**os.environ, "ALL_PROXY": "socks5://127.0.0.1:9"},
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 1
        said[words[0]] = next(line for line in (done.stdout + done.stderr).splitlines() if "PySocks" in line)
    for line in said.values():
        assert "ALL_PROXY names a SOCKS proxy, for which the package PySocks is missing" in line
        assert "`pip install PySocks`" in line
    assert said["doctor"].split()[:2] == ["failed", "network"]
