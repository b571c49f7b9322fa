"""Tests of the simulated CDS with the released ``cdsapi`` client."""

from __future__ import annotations

import hashlib
import zipfile
from collections.abc import Iterator
from datetime import date, datetime
from pathlib import Path
from typing import Any

import cdsapi
import netCDF4
import numpy as np
import pytest
import requests
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from hephaestus_build.core.era5_grid import ERA5_VARIABLE_NAMES
from hephaestus_build.simulation.server.cds_app import DATASET, CdsApp
from hephaestus_build.simulation.server.era5_netcdf import round_as_grib
from hephaestus_build.simulation.server.http_server import LoopbackServer

REQUEST: dict[str, Any] = {
    "product_type": ["reanalysis"],
    "variable": list(ERA5_VARIABLE_NAMES),
    "year": ["2018"],
    "month": ["06"],
    "day": ["01", "13"],
    "time": ["12:00"],
    "data_format": "netcdf",
    "download_format": "unarchived",
    "area": [44.0, -5.25, 43.0, -3.5],
}


def fields(time: datetime, latitudes: np.ndarray, longitudes: np.ndarray) -> np.ndarray:
    levels = np.array([30.0, 95_000.0, 2.3e6]).reshape(3, 1, 1)
    shape = np.sin(0.3 * latitudes)[:, None] + np.cos(0.2 * longitudes + time.day)
    return (levels * (1 + 0.05 * shape)).astype(np.float32)


@pytest.fixture
def app() -> CdsApp:
    return CdsApp(fields, key="right")


@pytest.fixture
def server(app: CdsApp) -> Iterator[LoopbackServer]:
    with LoopbackServer([app]) as running:
        yield running


def client(server: LoopbackServer, key: str = "right", **options: Any) -> cdsapi.Client:
    return cdsapi.Client(
        url=f"{server.base_url}/api",
        key=key,
        quiet=True,
        progress=False,
        **{"sleep_max": 0.01, "retry_max": 3, **options},
    )


def test_the_released_client_gets_the_fields(app: CdsApp, server: LoopbackServer, tmp_path: Path) -> None:
    target = tmp_path / "answer.nc"
    client(server).retrieve(DATASET, REQUEST, str(target))
    with xr.open_dataset(target) as answer:
        assert dict(answer.sizes) == {"valid_time": 2, "latitude": 5, "longitude": 8}
        assert set(answer.data_vars) == {"tcwv", "sp", "vit"}
        assert {name: int(answer[name].GRIB_paramId) for name in answer.data_vars} == {
            "tcwv": 137,
            "sp": 134,
            "vit": 162054,
        }
        assert answer.latitude.values.tolist() == [44, 43.75, 43.5, 43.25, 43]
        assert answer.longitude.values[[0, -1]].tolist() == [-5.25, -3.5]
        assert answer.valid_time.values.tolist() == [
            np.datetime64(day, "ns").astype(int) for day in ("2018-06-01T12", "2018-06-13T12")
        ]
        assert answer.expver.values.tolist() == ["0001", "0001"]
        assert answer.vit.units == "K kg m**-2"
        assert answer.attrs["simulated"] == "true"
        truth = fields(datetime(2018, 6, 13, 12), answer.latitude.values, answer.longitude.values)
        for name, field in zip(("tcwv", "sp", "vit"), truth, strict=True):
            assert answer[name].dtype == np.float32
            error = np.abs(answer[name].isel(valid_time=1).values - field)
            assert 0 < error.max() <= np.ptp(field) / 2**15
    assert len(app.jobs) == 1


def test_the_calls_are_those_of_the_real_service(server: LoopbackServer, tmp_path: Path) -> None:
    client(server).retrieve(DATASET, REQUEST, str(tmp_path / "answer.nc"))
    calls = [(entry.method, entry.path.split("/")[-1], entry.status) for entry in server.log]
    job = calls[3][1]
    assert calls == [
        ("GET", "messages", 200),
        ("GET", DATASET, 200),
        ("POST", "execution", 201),
        ("GET", job, 200),
        ("GET", job, 200),
        ("GET", "results", 200),
        ("HEAD", f"{job}.nc", 200),
        ("GET", f"{job}.nc", 200),
    ]
    assert all("private-token" in entry.headers for entry in server.log[:6])
    assert all("private-token" not in entry.headers for entry in server.log[6:])


def test_unpacked_fields_are_exact(app: CdsApp, server: LoopbackServer, tmp_path: Path) -> None:
    app.grib_packing, app.short_names = False, ("tcwv", "sp", "p54.162")
    client(server).retrieve(DATASET, REQUEST, str(tmp_path / "answer.nc"))
    with netCDF4.Dataset(tmp_path / "answer.nc") as answer:
        assert answer["valid_time"].dtype == np.int64
        assert answer["valid_time"].units == "seconds since 1970-01-01"
        truth = fields(datetime(2018, 6, 1, 12), answer["latitude"][:], answer["longitude"][:])
        np.testing.assert_array_equal(answer["p54.162"][0], truth[2])


def test_only_days_that_exist_of_the_product_come(server: LoopbackServer, tmp_path: Path) -> None:
    request = {**REQUEST, "year": ["2019", "2020"], "month": "02", "day": ["28", "29"], "time": "00:00"}
    client(server).retrieve(DATASET, request, str(tmp_path / "answer.nc"))
    with xr.open_dataset(tmp_path / "answer.nc") as answer:
        assert [str(time)[:10] for time in answer.valid_time.values] == [
            "2019-02-28",
            "2020-02-28",
            "2020-02-29",
        ]


def test_a_slow_queue_is_polled_until_it_moves(app: CdsApp, server: LoopbackServer) -> None:
    app.queue_polls = 2
    remote = client(server, wait_until_complete=False).retrieve(DATASET, REQUEST)
    assert [remote.status for _ in range(4)] == ["accepted", "running", "successful", "successful"]
    early = requests.get(f"{remote.url}/results", headers={"PRIVATE-TOKEN": "right"}, timeout=5)
    assert early.status_code == 200


def test_results_are_not_ready_before_the_job_is(app: CdsApp, server: LoopbackServer) -> None:
    app.queue_polls = 2
    remote = client(server, wait_until_complete=False).retrieve(DATASET, REQUEST)
    early = requests.get(f"{remote.url}/results", headers={"PRIVATE-TOKEN": "right"}, timeout=5)
    assert (early.status_code, early.json()["title"]) == (404, "job results not ready")


def test_a_job_is_found_again_by_its_id(server: LoopbackServer, tmp_path: Path) -> None:
    remote = client(server, wait_until_complete=False).retrieve(DATASET, REQUEST)
    again = client(server).client.get_remote(remote.request_id)
    assert again.request == REQUEST
    again.download(str(tmp_path / "answer.nc"))
    assert (tmp_path / "answer.nc").read_bytes()[:4] == b"\x89HDF"


def test_a_missing_variable_and_a_zip_can_be_had(app: CdsApp, server: LoopbackServer, tmp_path: Path) -> None:
    app.missing_variables, app.zipped = frozenset({ERA5_VARIABLE_NAMES[0]}), True
    results = client(server).retrieve(DATASET, REQUEST)
    results.download(str(tmp_path / "answer.zip"))
    content = (tmp_path / "answer.zip").read_bytes()
    assert results.asset["file:checksum"] == hashlib.md5(content, usedforsecurity=False).hexdigest()
    with zipfile.ZipFile(tmp_path / "answer.zip") as archive:
        (tmp_path / "answer.nc").write_bytes(archive.read("data_stream-oper_stepType-instant.nc"))
    with xr.open_dataset(tmp_path / "answer.nc") as answer:
        assert set(answer.data_vars) == {"sp", "vit"}


def test_recent_days_are_preliminary_and_later_ones_not_there(
    app: CdsApp, server: LoopbackServer, tmp_path: Path
) -> None:
    app.final_until, app.available_until = date(2018, 6, 5), date(2018, 6, 20)
    request = {**REQUEST, "day": ["01", "13", "25"]}
    client(server).retrieve(DATASET, request, str(tmp_path / "answer.nc"))
    with xr.open_dataset(tmp_path / "answer.nc") as answer:
        assert answer.expver.values.tolist() == ["0001", "0005"]
    with pytest.raises(requests.HTTPError, match="None of the data you have requested is available yet"):
        client(server).retrieve(DATASET, {**REQUEST, "day": ["25"]})


@pytest.mark.parametrize(
    ("options", "request_change", "message"),
    [
        ({"key": "left"}, {}, r"401 Client Error(.|\n)*authentication required"),
        ({"licence_accepted": False}, {}, r"403(.|\n)*tab=download#manage-licences"),
        ({"cost_limit": 5}, {}, r"403(.|\n)*cost limits exceeded\nYour request is too large"),
        ({}, {"variable": ["nonsense"]}, r"400(.|\n)*invalid request\nvariable not available: nonsense"),
        ({}, {"month": ["13"]}, r"400(.|\n)*no such day: 2018-13-01"),
        ({}, {"area": [43, 0, 44, 1]}, r"400(.|\n)*area must be North, West, South, East"),
        ({"job_end": "failed"}, {}, r"400(.|\n)*The job has failed\nmars - ERROR"),
        ({"job_end": "rejected", "job_reason": "queue full"}, {}, r"The job has rejected\nqueue full"),
    ],
)
def test_errors_are_worded_as_the_real_service_words_them(
    app: CdsApp, server: LoopbackServer, options: dict[str, Any], request_change: dict[str, Any], message: str
) -> None:
    for name, value in options.items():
        setattr(app, name, value)
    with pytest.raises(requests.HTTPError, match=message):
        client(server).retrieve(DATASET, {**REQUEST, **request_change})


def test_unknown_datasets_and_jobs_are_not_found(server: LoopbackServer) -> None:
    with pytest.raises(requests.HTTPError, match=r"404(.|\n)*process not found"):
        client(server).retrieve("reanalysis-era6", REQUEST)
    with pytest.raises(requests.HTTPError, match=r"404(.|\n)*job not found"):
        client(server).client.get_remote("00000000-0000-0000-0000-000000000000")


def test_a_rate_limit_passes(app: CdsApp, server: LoopbackServer, tmp_path: Path) -> None:
    waiting = client(server)
    app.rate_limited = 1
    waiting.retrieve(DATASET, REQUEST, str(tmp_path / "answer.nc"))
    assert [entry.status for entry in server.log].count(429) == 1
    app.rate_limited = 1
    turned_away = requests.get(f"{server.base_url}/api/retrieve/v1/processes/{DATASET}", timeout=5)
    assert (turned_away.status_code, turned_away.headers["Retry-After"]) == (429, "1")


def test_a_deleted_job_is_gone(app: CdsApp, server: LoopbackServer) -> None:
    remote = client(server, wait_until_complete=False).retrieve(DATASET, REQUEST)
    remote.delete()
    assert not app.jobs


@given(
    arrays.arrays(
        np.float64, arrays.array_shapes(min_dims=3, max_dims=3, max_side=4), elements=st.floats(-1e5, 3e6)
    )
)
def test_packing_spends_sixteen_bits(values: np.ndarray) -> None:
    packed = round_as_grib(values).astype(np.float64)
    for plane, field in zip(packed, values, strict=True):
        span = float(np.ptp(field))
        assert np.abs(plane - field).max() <= span / 2**15 / 2 + np.spacing(np.float32(3e6))
        assert np.unique(plane).size <= 2**16
