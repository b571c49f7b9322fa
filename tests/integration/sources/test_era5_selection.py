"""Tests of the choice of ERA5 source, and of the agreement of both."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from era5_servers import AREA, ELSEWHERE, FRAME, JUNE, KEY, arco_source, cds_source, fields
from hephaestus_build.core.errors import UsageError
from hephaestus_build.core.settings import load_settings
from hephaestus_build.download.credentials import CdsCredentials, find_cds_credentials
from hephaestus_build.simulation.server.arco_app import ArcoApp
from hephaestus_build.simulation.server.cds_app import CdsApp
from hephaestus_build.simulation.server.http_server import LoopbackServer
from hephaestus_build.sources.era5.cds import CdsEra5Source
from hephaestus_build.sources.era5.selection import choose_era5_source


@pytest.fixture
def cds() -> CdsApp:
    return CdsApp(fields, key=KEY, grib_packing=False)


@pytest.fixture
def arco() -> ArcoApp:
    return ArcoApp(fields, areas=(AREA, ELSEWHERE))


@pytest.fixture
def server(cds: CdsApp, arco: ArcoApp) -> Iterator[LoopbackServer]:
    with LoopbackServer([cds, arco]) as running:
        yield running


@pytest.fixture
def source(server: LoopbackServer, tmp_path: Path) -> CdsEra5Source:
    return cds_source(server, tmp_path)


def test_auto_takes_the_cds_where_there_is_a_key_and_arco_elsewhere(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    assert choose_era5_source(load_settings()).name == "arco"
    assert "ERA5 comes from ARCO-ERA5 (storage.googleapis.com), because no CDS key" in caplog.text
    monkeypatch.setenv("CDSAPI_KEY", KEY)
    source = choose_era5_source(load_settings())
    assert (source.name, source.url) == ("cds", "https://cds.climate.copernicus.eu/api")
    assert "ERA5 comes from the Climate Data Store (cds.climate.copernicus.eu), with the key" in caplog.text
    monkeypatch.setenv("CDSAPI_URL", "http://127.0.0.1:1/api/")
    assert choose_era5_source(load_settings()).url == "http://127.0.0.1:1/api"
    assert choose_era5_source(load_settings(era5="arco")).name == "arco"
    monkeypatch.delenv("CDSAPI_KEY")
    assert choose_era5_source(load_settings()).name == "arco"
    rc = tmp_path / "rc"
    rc.write_text(f"url: http://127.0.0.1:2/api\nkey: {KEY}\nverify: 0\n")
    monkeypatch.setenv("CDSAPI_RC", str(rc))
    monkeypatch.delenv("CDSAPI_URL")
    source = choose_era5_source(load_settings())
    assert (source.name, source.url) == ("cds", "http://127.0.0.1:2/api")
    assert find_cds_credentials() == CdsCredentials("http://127.0.0.1:2/api", KEY, str(rc), verify_tls=False)
    assert KEY not in caplog.text + repr(find_cds_credentials())


def test_the_cds_without_a_key_is_a_usage_error() -> None:
    with pytest.raises(UsageError, match=r"needs a key in CDSAPI_KEY or ~/\.cdsapirc.*--era5 arco"):
        choose_era5_source(load_settings(era5="cds"))


@pytest.mark.parametrize(("key", "url"), [("1234:abcd", None), ("abcd", "https://cds.example.org/api/v2")])
def test_a_key_of_the_old_service_is_told_apart(
    monkeypatch: pytest.MonkeyPatch, key: str, url: str | None
) -> None:
    monkeypatch.setenv("CDSAPI_KEY", key)
    if url:
        monkeypatch.setenv("CDSAPI_URL", url)
    assert "of the old service" in choose_era5_source(load_settings()).description
    with pytest.raises(UsageError, match="switched off in 2024"):
        choose_era5_source(load_settings(era5="cds"))


def test_both_sources_agree_within_the_packing(
    cds: CdsApp, server: LoopbackServer, source: CdsEra5Source, tmp_path: Path
) -> None:
    cds.grib_packing = True
    ours = source.fetch(FRAME, AREA, JUNE).values
    theirs = arco_source(server, tmp_path).fetch(FRAME, AREA, JUNE).values
    assert not np.array_equal(ours, theirs)
    for one, other in zip(ours.reshape(-1, 5, 7), theirs.reshape(-1, 5, 7), strict=True):
        assert np.abs(one - other).max() <= np.ptp(other) / 2**15


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (f"url: http://127.0.0.1:2/api\nkey: {KEY}\n".encode("utf-16"), "UTF-16 text; save it as UTF-8"),
        (f"key: {KEY}\n".encode("utf-16-le"), "null characters"),
        (b"key: \xff\n", "not UTF-8 text"),
        (b"url: http://127.0.0.1:2/api\n", "no line `key: ...`"),
        (b"x" * (2 << 20), "larger than"),
    ],
)
def test_a_key_file_that_is_broken_is_named_and_not_passed_over(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, content: bytes, said: str
) -> None:
    rc = tmp_path / "rc"
    rc.write_bytes(content)
    monkeypatch.setenv("CDSAPI_RC", str(rc))
    with pytest.raises(UsageError, match=said) as refused:
        choose_era5_source(load_settings())
    assert str(rc) in str(refused.value)
    assert "--era5 arco" in str(refused.value)
    assert KEY not in str(refused.value)
    assert choose_era5_source(load_settings(era5="arco")).name == "arco"
    monkeypatch.setenv("CDSAPI_KEY", KEY)
    monkeypatch.setenv("CDSAPI_URL", "http://127.0.0.1:1/api")
    assert choose_era5_source(load_settings()).name == "cds"


def test_a_key_file_may_have_a_byte_order_mark_and_be_named_from_home(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("CDSAPI_RC", "$HOME/rc")
    (tmp_path / "rc").write_bytes(f"url: http://127.0.0.1:2/api\r\nkey: {KEY}\r\n".encode("utf-8-sig"))
    assert find_cds_credentials() == CdsCredentials("http://127.0.0.1:2/api", KEY, str(tmp_path / "rc"))
    for place in (tmp_path, tmp_path / "pipe"):  # neither is waited for
        if place != tmp_path:
            os.mkfifo(place)
        monkeypatch.setenv("CDSAPI_RC", str(place))
        with pytest.raises(UsageError, match="not a file"):
            find_cds_credentials()
    monkeypatch.setenv("CDSAPI_RC", os.devnull)
    assert find_cds_credentials() is None
    monkeypatch.delenv("CDSAPI_RC")
    monkeypatch.setattr("hephaestus_build.core.machine.user_paths.find_home", lambda: None)
    assert find_cds_credentials() is None
