"""Tests of requests to the CDS for whole tiles, which several frames share, through the unmodified cdsapi."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from era5_servers import FRAME, JULY, JUNE, KEY, cds_source, fields, truth
from hephaestus_build.core.era5_grid import Era5Area
from hephaestus_build.core.frames import Frame
from hephaestus_build.core.provenance import Outcome
from hephaestus_build.simulation.server.cds_app import CdsApp
from hephaestus_build.simulation.server.http_server import LoopbackServer
from hephaestus_build.sources.era5.cds import CdsEra5Source
from hephaestus_build.sources.era5.fields import Era5Fields
from netcdf_pool import keep_netcdf_processes

HERE, THERE = Era5Area(44.0, 1.0, 43.0, 2.5), Era5Area(48.0, 6.0, 46.5, 8.0)
NEIGHBOUR = Frame("199A_00210_131313")
TILE = "N52.5_W-5_S37.5_E15"
MONTH = [f"{day:02d}" for day in range(1, 31)]


@pytest.fixture(autouse=True)
def reading_processes_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    keep_netcdf_processes(monkeypatch)


@pytest.fixture
def cds() -> CdsApp:
    return CdsApp(fields, key=KEY)  # values are packed, so that they depend on the area that is asked for


@pytest.fixture
def server(cds: CdsApp) -> Iterator[LoopbackServer]:
    with LoopbackServer([cds]) as running:
        yield running


def tile_source(server: LoopbackServer, folder: Path, **changes: Any) -> CdsEra5Source:
    return cds_source(server, folder, era5_area="tile", **changes)


def same(one: Era5Fields, other: Era5Fields) -> bool:
    return (
        one.times == other.times
        and one.expver == other.expver
        and np.array_equal(one.values, other.values)
        and np.array_equal(one.latitude, other.latitude)
        and np.array_equal(one.longitude, other.longitude)
    )


def test_two_frames_of_a_tile_make_one_request_and_have_their_values_whoever_was_first(
    cds: CdsApp, server: LoopbackServer, tmp_path: Path
) -> None:
    source = tile_source(server, tmp_path / "a")
    first = source.fetch(FRAME, HERE, JUNE)
    second = source.fetch(NEIGHBOUR, THERE, [datetime(2018, 6, 20, 12)])
    (job,) = cds.jobs.values()
    assert (job.inputs["day"], job.inputs["area"]) == (MONTH, [52.5, -5.0, 37.5, 15.0])
    assert source.estimate(HERE, JUNE).requests == 1
    assert first.times == tuple(JUNE)
    np.testing.assert_allclose(first.values, truth(JUNE, HERE), rtol=1e-3)
    np.testing.assert_array_equal(second.latitude, THERE.latitudes)
    np.testing.assert_array_equal(second.longitude, THERE.longitudes)

    other = tile_source(server, tmp_path / "b")
    assert same(other.fetch(NEIGHBOUR, THERE, second.times), second)
    assert same(other.fetch(FRAME, HERE, JUNE), first)
    assert same(tile_source(server, tmp_path / "c").fetch(FRAME, HERE, JUNE), first)
    assert same(other.fetch(FRAME, HERE, JUNE), first)  # all of it from the cache
    # an area of its own is packed otherwise
    own = cds_source(server, tmp_path / "d").fetch(FRAME, HERE, JUNE)
    assert not np.array_equal(own.values, first.values)


def test_the_provenance_of_both_frames_names_the_request_that_they_share(
    cds: CdsApp, server: LoopbackServer, tmp_path: Path
) -> None:
    source = tile_source(server, tmp_path)
    (first,) = source.fetch(FRAME, HERE, JUNE).receipts
    second = source.fetch(NEIGHBOUR, THERE, JUNE)
    (job,) = cds.jobs
    assert first.product == f"{TILE}.era5.201806T12"
    assert f"CDS request {job}" in first.notes
    assert f"cropped from {TILE}" in first.notes
    (again,) = second.receipts
    assert again == first.replace(outcome=Outcome.UNCHANGED)
    # what was used first is known by the values of the tile
    assert {some[0].values.split(" ")[1] for some in second.receipts_by_hour.values()} == {TILE}


def test_frames_that_are_passed_at_the_usual_hours_share_a_request_whatever_their_track(
    cds: CdsApp, server: LoopbackServer, tmp_path: Path
) -> None:
    source = tile_source(server, tmp_path)
    morning, evening = datetime(2018, 6, 3, 6), datetime(2018, 6, 9, 18)
    assert not source.fetch(FRAME, HERE, [morning]).missing_hours
    assert not source.fetch(NEIGHBOUR, THERE, [evening]).missing_hours
    (job,) = cds.jobs.values()
    assert job.inputs["time"] == ["05:00", "06:00", "07:00", "17:00", "18:00", "19:00"]


@pytest.mark.parametrize("limit", [300, 60])
def test_no_request_has_more_fields_than_the_setting_says(
    cds: CdsApp, server: LoopbackServer, tmp_path: Path, limit: int
) -> None:
    hours = [datetime(2018, 6, day, hour) for day in (3, 21) for hour in (6, 18)]
    whole = tile_source(server, tmp_path / "whole").fetch(FRAME, HERE, hours)
    cds.jobs.clear()
    cds.cost_limit = limit
    found = tile_source(server, tmp_path, era5_fields=limit).fetch(FRAME, HERE, hours)
    assert same(found, whole)
    sizes = [3 * len(job.inputs["day"]) * len(job.inputs["time"]) for job in cds.jobs.values()]
    assert len(sizes) == {300: 2, 60: 4}[limit]
    assert max(sizes) <= limit


def test_a_lower_limit_of_the_cds_is_said_with_the_setting(
    cds: CdsApp, server: LoopbackServer, tmp_path: Path
) -> None:
    cds.cost_limit = 500
    missing = tile_source(server, tmp_path).fetch(FRAME, HERE, [datetime(2018, 6, 3, 6)]).missing_hours
    (receipt,) = missing.values()
    assert receipt.outcome is Outcome.REFUSED
    assert "Your request is too large" in receipt.detail
    assert "set era5_fields to fewer fields" in receipt.detail


def test_of_a_month_that_is_not_over_only_what_is_needed_is_asked_for(
    cds: CdsApp, server: LoopbackServer, tmp_path: Path
) -> None:
    today = datetime.now(UTC).date()
    cds.available_until = today
    day = today - timedelta(days=1)
    hour = datetime(day.year, day.month, day.day, 6)
    source = tile_source(server, tmp_path)
    assert source.fetch(FRAME, HERE, [hour]).times == (hour,)
    (job,) = cds.jobs.values()
    assert (job.inputs["day"], job.inputs["time"]) == ([f"{day.day:02d}"], ["06:00"])


def test_a_month_with_preliminary_days_is_asked_for_once_more(
    cds: CdsApp, server: LoopbackServer, tmp_path: Path
) -> None:
    source = tile_source(server, tmp_path)
    cds.final_until = date(2018, 6, 5)
    assert source.fetch(FRAME, HERE, JUNE).expver == ("0001", "0005")
    cds.final_until = None
    assert source.fetch(FRAME, HERE, JUNE, refresh_preliminary=True).expver == ("0001", "0001")
    assert source.fetch(NEIGHBOUR, THERE, JUNE, refresh_preliminary=True).expver == ("0001", "0001")
    assert len(cds.jobs) == 2


def test_builds_at_the_same_time_make_one_request_a_month(
    cds: CdsApp, server: LoopbackServer, tmp_path: Path
) -> None:
    cds.queue_polls = 4
    said: set[str] = set()

    def fetch(area: Era5Area) -> Era5Fields:
        return tile_source(server, tmp_path).fetch(
            FRAME, area, [*JUNE, *JULY], lambda _, __, message: said.add(message)
        )

    with ThreadPoolExecutor(3) as pool:
        found = list(pool.map(fetch, [HERE, THERE, HERE]))
    assert not any(fields.missing_hours for fields in found)
    assert same(found[0], found[2])
    assert sorted(job.inputs["month"] for job in cds.jobs.values()) == [["06"], ["07"]]
    assert any("other builds ask for" in message for message in said)


OTHER_PROCESS = """
import sys
from datetime import datetime
from pathlib import Path
from hephaestus_build.core.era5_grid import Era5Area
from hephaestus_build.core.frames import Frame
from hephaestus_build.core.settings import load_settings
from hephaestus_build.download.credentials import CdsCredentials
from hephaestus_build.sources.era5.cds import CdsEra5Source
url, key, folder = sys.argv[1:]
settings, credentials = load_settings(data_dir=Path(folder), era5_area="tile"), CdsCredentials(url, key, "")
source = CdsEra5Source(settings, credentials, longest_pause=0.02)
there, frame = Era5Area(48.0, 6.0, 46.5, 8.0), Frame("199A_00210_131313")
found = source.fetch(frame, there, [datetime(2018, 6, 20, 12)])
print(len(found.times), flush=True)
"""


def test_the_request_of_a_process_that_is_killed_while_it_waits_is_taken_over(
    cds: CdsApp, server: LoopbackServer, tmp_path: Path
) -> None:
    cds.queue_polls = 10**6
    command = [sys.executable, "-c", OTHER_PROCESS, f"{server.base_url}/api", KEY, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as other:
        end = time.monotonic() + 60
        while not any(job.poll_count for job in cds.jobs.values()):
            assert time.monotonic() < end
            assert other.poll() is None
            time.sleep(0.02)

        def let_go(_: int, __: int, message: str) -> None:
            if "other builds ask for 1 of these" in message:
                other.kill()
                cds.queue_polls = 0

        found = tile_source(server, tmp_path).fetch(FRAME, HERE, JUNE, let_go)
        assert other.wait() == -9
    assert found.times == tuple(JUNE)
    assert len(cds.jobs) == 1


def test_another_process_finds_what_this_one_has_asked_for(
    cds: CdsApp, server: LoopbackServer, tmp_path: Path
) -> None:
    cds.queue_polls = 3
    command = [sys.executable, "-c", OTHER_PROCESS, f"{server.base_url}/api", KEY, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as other:
        assert not tile_source(server, tmp_path).fetch(FRAME, HERE, JUNE).missing_hours
        said, _ = other.communicate(timeout=60)
    assert said.strip() == "1"
    assert len(cds.jobs) == 1
