"""Tests of the simulated CDS with the released ``ecmwf-datastores-client``: everything beside a retrieval."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import cdsapi
import numpy as np
import pytest
import requests
import xarray as xr
from ecmwf.datastores import Client

from hephaestus_build.core.era5_grid import ERA5_VARIABLE_NAMES
from hephaestus_build.simulation.server.cds_app import DATASET, CdsApp
from hephaestus_build.simulation.server.http_server import LoopbackServer

REQUEST: dict[str, Any] = {
    "product_type": ["reanalysis"],
    "variable": list(ERA5_VARIABLE_NAMES),
    "year": ["2018"],
    "month": ["06"],
    "day": ["01"],
    "time": ["12:00"],
    "data_format": "netcdf",
    "download_format": "unarchived",
    "area": [44.0, -5.25, 43.0, -3.5],
}


def fields(time: datetime, latitudes: np.ndarray, longitudes: np.ndarray) -> np.ndarray:
    return np.full((3, latitudes.size, longitudes.size), 30.0 + time.hour, dtype=np.float32)


@pytest.fixture
def app() -> CdsApp:
    return CdsApp(fields, key="right")


@pytest.fixture
def server(app: CdsApp) -> Iterator[LoopbackServer]:
    with LoopbackServer([app]) as server:
        yield server


def client(server: LoopbackServer, key: str = "right") -> Client:
    return Client(
        url=f"{server.base_url}/api", key=key, progress=False, sleep_max=0.01, retry_after=0, maximum_tries=2
    )


def request_at(day: date, **changes: Any) -> dict[str, Any]:
    return {**REQUEST, "year": [f"{day:%Y}"], "month": [f"{day:%m}"], "day": [f"{day:%d}"], **changes}


def test_a_key_is_verified(server: LoopbackServer) -> None:
    assert client(server).check_authentication()["sub"] == "simulated"
    with pytest.raises(requests.HTTPError, match=r"401(.|\n)*authentication required"):
        client(server, key="left").check_authentication()


def test_the_catalogue_describes_the_data_set(server: LoopbackServer, app: CdsApp) -> None:
    asking = client(server)
    assert asking.get_collections(query="era5", limit=5).collection_ids == [DATASET]
    assert asking.get_collections(query="sea level").collection_ids == []
    assert asking.get_collections().next is None
    collection = asking.get_collection(DATASET)
    assert collection.id == DATASET
    assert "simulated" in collection.title
    assert collection.bbox == (-180, -90, 180, 90)
    assert collection.begin_datetime == datetime(1940, 1, 1, tzinfo=UTC)
    assert collection.end_datetime is not None
    assert collection.end_datetime.date() == app.latest_date
    assert collection.published_at <= collection.updated_at <= datetime.now(UTC)
    assert {item["name"] for item in collection.form} >= {"variable", "year", "data_format"}
    assert all(set(ERA5_VARIABLE_NAMES) == set(item["variable"]) for item in collection.constraints)
    assert asking.get_processes().collection_ids == [DATASET]
    assert asking.get_process(DATASET).id == DATASET
    with pytest.raises(requests.HTTPError, match=r"404(.|\n)*dataset not found"):
        asking.get_collection("reanalysis-era6")


def test_constraints_are_those_of_the_selection_and_of_the_dates_that_there_are(
    server: LoopbackServer, app: CdsApp
) -> None:
    app.available_until = date(2020, 3, 17)
    asking = client(server)
    every = asking.apply_constraints(DATASET, {})
    assert (every["year"][0], every["year"][-1]) == ("1940", "2020")
    assert (len(every["month"]), len(every["day"])) == (12, 31)
    assert set(every["variable"]) == set(ERA5_VARIABLE_NAMES)
    assert asking.apply_constraints(DATASET, {"year": ["2020"]})["month"] == ["01", "02", "03"]
    last = asking.get_collection(DATASET).apply_constraints({"year": "2020", "month": ["03"]})
    assert last["day"][-1] == "17"
    assert asking.apply_constraints(DATASET, {"year": ["2019", "2020"]})["month"][-1] == "12"
    with pytest.raises(requests.HTTPError, match=r"422(.|\n)*invalid parameter\n.*nonsense"):
        asking.apply_constraints(DATASET, {"nonsense": ["1"]})


def test_costs_are_estimated(server: LoopbackServer, app: CdsApp) -> None:
    app.cost_limit = 5
    cost = client(server).estimate_costs(DATASET, REQUEST)
    assert (cost["id"], cost["cost"], cost["limit"], cost["request_is_valid"]) == ("size", 3, 5, True)
    more = client(server).get_collection(DATASET).estimate_costs({**REQUEST, "day": ["01", "02"]})
    assert (more["cost"], more["request_is_valid"]) == (6, False)


def test_a_licence_is_accepted_by_its_revision(server: LoopbackServer, app: CdsApp, tmp_path: Path) -> None:
    app.licence_accepted = False
    asking = client(server)
    (licence,) = asking.get_licences(scope="dataset")
    assert asking.get_licences(scope="portal") == asking.get_accepted_licences() == []
    with pytest.raises(requests.HTTPError, match="required licences not accepted"):
        asking.submit(DATASET, REQUEST)
    with pytest.raises(requests.HTTPError, match="404"):
        asking.accept_licence(licence["id"], licence["revision"] + 1)
    assert asking.accept_licence(licence["id"], licence["revision"])["id"] == licence["id"]
    assert [item["id"] for item in asking.get_accepted_licences()] == [licence["id"]]
    asking.retrieve(DATASET, REQUEST, str(tmp_path / "answer.nc"))
    assert asking.star_collection(DATASET) == [DATASET]
    asking.unstar_collection(DATASET)


def test_jobs_are_listed_in_pages_by_status_and_deleted(server: LoopbackServer, app: CdsApp) -> None:
    asking = client(server)
    assert asking.get_jobs().request_ids == []
    done = [asking.submit(DATASET, {**REQUEST, "time": [f"{hour:02d}:00"]}) for hour in range(3)]
    app.job_end = "failed"
    failed = asking.submit(DATASET, REQUEST)
    app.queue_polls = 0
    ids = [remote.request_id for remote in done]
    page = asking.get_jobs(limit=2, sortby="created")
    following = page.next
    assert following is not None
    assert page.request_ids + following.request_ids == [*ids, failed.request_id]
    assert following.next is None
    assert following.prev is not None
    assert following.prev.request_ids == page.request_ids
    assert asking.get_jobs(sortby="-created").request_ids == [failed.request_id, *reversed(ids)]
    assert asking.get_jobs(status="failed").request_ids == [failed.request_id]
    assert asking.get_jobs(status=["successful", "running"], sortby="created").request_ids == ids
    assert asking.get_remote(ids[0]).collection_id == DATASET
    assert done[0].created_at <= done[1].created_at <= datetime.now(UTC)
    assert done[0].get_receipt()["request"] == {**REQUEST, "time": ["00:00"]}
    assert asking.get_receipt(failed.request_id)["status"] == "failed"
    deleted = asking.delete(*ids[:2])
    assert [job["jobID"] for job in deleted["jobs"]] == ids[:2]
    assert list(app.jobs) == [ids[2], failed.request_id]
    with pytest.raises(requests.HTTPError, match="job not found"):
        asking.delete(ids[0])


def test_an_account_sees_nothing_without_its_key(server: LoopbackServer) -> None:
    stranger = client(server, key="left")
    for call in (stranger.get_jobs, stranger.get_accepted_licences, stranger.get_processes):
        with pytest.raises(requests.HTTPError, match="401"):
            call()
    assert stranger.get_collections().collection_ids == [DATASET]  # the catalogue is public


def test_a_zip_is_sent_where_one_is_asked_for(server: LoopbackServer, tmp_path: Path) -> None:
    target = tmp_path / "answer.zip"
    client(server).retrieve(DATASET, {**REQUEST, "download_format": "zip"}, str(target))
    with zipfile.ZipFile(target) as archive:
        (name,) = archive.namelist()
        archive.extract(name, tmp_path)
    with xr.open_dataset(tmp_path / name) as answer:
        assert set(answer.data_vars) == {"tcwv", "sp", "vit"}
    plain = {key: value for key, value in REQUEST.items() if key != "download_format"}
    client(server).retrieve(DATASET, plain, str(tmp_path / "plain.nc"))
    assert (tmp_path / "plain.nc").read_bytes()[:4] == b"\x89HDF"
    with pytest.raises(requests.HTTPError, match=r"400(.|\n)*download_format"):
        client(server).submit(DATASET, {**REQUEST, "download_format": "tar"})


@pytest.mark.parametrize("form", [{"data_format": "grib"}, {"data_format": None}, {"format": "grib"}])
def test_grib_is_refused_by_name(server: LoopbackServer, form: dict[str, Any]) -> None:
    request = {key: value for key, value in REQUEST.items() if key != "data_format"}
    request |= {key: value for key, value in form.items() if value}
    asking = cdsapi.Client(
        url=f"{server.base_url}/api", key="right", quiet=True, progress=False, sleep_max=0.01, retry_max=2
    )
    with pytest.raises(requests.HTTPError, match=r"400(.|\n)*GRIB is not simulated.*data_format.*netcdf"):
        asking.retrieve(DATASET, request)


@pytest.mark.parametrize("ahead", [-3, 0, 1, 40, 4000])
def test_days_that_are_not_released_yet_are_refused_as_by_the_real_service(
    server: LoopbackServer, ahead: int, tmp_path: Path
) -> None:
    day = datetime.now(UTC).date() + timedelta(days=ahead)
    # with a target: where the day is not refused, the client would write into the present folder
    with pytest.raises(requests.HTTPError, match="None of the data you have requested is available yet"):
        client(server).retrieve(DATASET, request_at(day), str(tmp_path / "answer.nc"))


def test_the_newest_days_are_preliminary(server: LoopbackServer, tmp_path: Path) -> None:
    today = datetime.now(UTC).date()
    for days, version in ((10, "0005"), (200, "0001")):
        target = tmp_path / f"{days}.nc"
        client(server).retrieve(DATASET, request_at(today - timedelta(days=days)), str(target))
        with xr.open_dataset(target) as answer:
            assert answer.expver.values.tolist() == [version]
