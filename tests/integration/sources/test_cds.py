"""Tests of ERA5 from the CDS over HTTP, through the unmodified cdsapi."""

from __future__ import annotations

import logging
import re
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import date, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from era5_servers import AREA, FRAME, JULY, JUNE, KEY, cds_source, fields, settings, truth
from hephaestus_build.core.era5_grid import ERA5_VARIABLE_NAMES, Era5Area
from hephaestus_build.core.errors import HephaestusError
from hephaestus_build.core.provenance import Outcome
from hephaestus_build.download.credentials import CdsCredentials
from hephaestus_build.simulation.server import faults
from hephaestus_build.simulation.server.cds_app import CdsApp
from hephaestus_build.simulation.server.http_server import LoopbackServer
from hephaestus_build.sources.era5.cds import CdsEra5Source
from hephaestus_build.sources.era5.month_cache import MonthCache
from netcdf_pool import keep_netcdf_processes


@pytest.fixture(autouse=True)
def reading_processes_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    keep_netcdf_processes(monkeypatch)


@pytest.fixture
def cds() -> CdsApp:
    return CdsApp(fields, key=KEY, grib_packing=False)


@pytest.fixture
def server(cds: CdsApp) -> Iterator[LoopbackServer]:
    with LoopbackServer([cds]) as running:
        yield running


@pytest.fixture
def source(server: LoopbackServer, tmp_path: Path) -> CdsEra5Source:
    return cds_source(server, tmp_path)


def test_the_requests_that_a_plan_names_are_those_that_are_made(
    source: CdsEra5Source, server: LoopbackServer
) -> None:
    hours = [*JUNE, *JULY]
    source.fetch(FRAME, AREA, hours)
    assert submissions(server) == source.estimate(AREA, hours).requests == 2


def submissions(server: LoopbackServer) -> int:
    return sum(entry.method == "POST" for entry in server.log)


def test_the_cds_is_asked_for_exact_days_by_month_and_hour(
    source: CdsEra5Source, cds: CdsApp, server: LoopbackServer
) -> None:
    told: list[tuple[int, int, str]] = []
    found = source.fetch(FRAME, AREA, [*JULY, *JUNE], lambda *step: told.append(step))
    assert found.times == (*JUNE, *JULY)
    np.testing.assert_array_equal(found.values, truth([*JUNE, *JULY]))
    np.testing.assert_array_equal(found.latitude, AREA.latitudes)
    np.testing.assert_array_equal(found.longitude, AREA.longitudes)
    assert found.expver == ("0001",) * 4
    assert not found.missing_hours
    assert sorted(found.receipts_by_hour) == [*JUNE, *JULY]
    asked = [(job.inputs["month"], job.inputs["day"], job.inputs["time"]) for job in cds.jobs.values()]
    assert asked == [(["06"], ["01", "13"], ["12:00"]), (["07"], ["07", "19"], ["12:00"])]
    assert all(job.inputs["area"] == [44.0, -1.0, 43.0, 0.5] for job in cds.jobs.values())
    assert [receipt.product for receipt in found.receipts] == [
        f"{FRAME}.era5.201806T12",
        f"{FRAME}.era5.201807T12",
    ]
    assert all(
        r.outcome is Outcome.DOWNLOADED and r.blake3 and "simulated" in r.notes for r in found.receipts
    )
    assert told[-1][:2] == (4, 4)


def test_what_is_kept_is_not_asked_for_again(
    source: CdsEra5Source, cds: CdsApp, server: LoopbackServer
) -> None:
    first = source.fetch(FRAME, AREA, JUNE)
    server.clear_log()
    again = source.fetch(FRAME, AREA, JUNE)
    assert not server.log
    np.testing.assert_array_equal(again.values, first.values)
    assert again.receipts[0].outcome is Outcome.UNCHANGED
    assert again.receipts[0].digest == first.receipts[0].digest
    later = datetime(2018, 6, 25, 12)
    more = source.fetch(FRAME, AREA, [*JUNE, later])
    assert [job.inputs["day"] for job in cds.jobs.values()] == [["01", "13"], ["25"]]
    np.testing.assert_array_equal(more.values, truth([*JUNE, later]))
    source.fetch(FRAME, Era5Area(44.0, -1.0, 43.25, 0.5), JUNE)  # another area needs another request
    assert len(cds.jobs) == 3
    assert source.fetch(FRAME, AREA, []).values.shape == (0, 3, 5, 7)


def test_a_damaged_or_emptied_cache_is_only_asked_for_again(
    source: CdsEra5Source, cds: CdsApp, tmp_path: Path
) -> None:
    source.fetch(FRAME, AREA, JUNE)
    (kept,) = tmp_path.rglob("*.npz")
    content = bytearray(kept.read_bytes())
    content[len(content) // 2] ^= 1
    kept.write_bytes(content)
    np.testing.assert_array_equal(source.fetch(FRAME, AREA, JUNE).values, truth(JUNE))
    kept.write_bytes(b"")
    np.testing.assert_array_equal(source.fetch(FRAME, AREA, JUNE).values, truth(JUNE))
    kept.unlink()
    np.testing.assert_array_equal(source.fetch(FRAME, AREA, JUNE).values, truth(JUNE))
    assert len(cds.jobs) == 4


def test_nothing_else_stays_in_the_cache(source: CdsEra5Source, tmp_path: Path) -> None:
    source.fetch(FRAME, AREA, JUNE)
    files = [path.name for path in tmp_path.rglob("*") if path.is_file()]
    *kept, lock = sorted(files)
    assert kept == [".hephaestus-growth.json", "201806T12.npz", "place-0.lock"]
    assert re.fullmatch("request-[0-9a-f]{2}.lock", lock)  # one of 256, whichever requests there are


def test_a_cache_that_cannot_be_written_is_a_clear_error(server: LoopbackServer, tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file, not a folder")
    with pytest.raises(HephaestusError, match="HEPHAESTUS_CACHE_DIR"):
        cds_source(server, tmp_path).fetch(FRAME, AREA, JUNE)


def test_a_slow_queue_is_waited_for(source: CdsEra5Source, cds: CdsApp) -> None:
    cds.queue_polls = 4
    assert not source.fetch(FRAME, AREA, [*JUNE, *JULY]).missing_hours


def test_few_requests_wait_at_once(cds: CdsApp, server: LoopbackServer, tmp_path: Path) -> None:
    cds.queue_polls = 3
    most = 0

    def watch(done: int, total: int, message: str) -> None:
        nonlocal most
        most = max(most, sum(job.poll_count <= cds.queue_polls for job in cds.jobs.values()))

    hours = [datetime(2018, month, 1, 12) for month in range(1, 7)]
    assert not cds_source(server, tmp_path, connections=2).fetch(FRAME, AREA, hours, watch).missing_hours
    assert most == 2


def test_builds_that_share_a_cache_share_the_places_in_the_queue(
    cds: CdsApp, server: LoopbackServer, tmp_path: Path
) -> None:
    cds.queue_polls = 6
    most, said = 0, set()

    def watch(done: int, total: int, message: str) -> None:
        nonlocal most
        said.add(message)
        most = max(most, sum(job.poll_count <= cds.queue_polls for job in cds.jobs.values()))

    def fetch(area: Era5Area) -> bool:
        hours = [datetime(2018, month, 1, 12) for month in range(1, 7)]
        source = cds_source(server, tmp_path, era5_requests=2)
        return not source.fetch(FRAME, area, hours, watch).missing_hours

    with ThreadPoolExecutor(3) as pool:
        assert all(
            pool.map(fetch, [AREA, Era5Area(-37.0, 174.0, -38.0, 180.0), Era5Area(40.0, 1.0, 39.0, 2.0)])
        )
    assert submissions(server) == 18
    assert 1 <= most <= 2
    assert any("other builds hold 2 places" in message for message in said)


def test_places_of_another_process_are_free_again_when_it_is_killed(
    cds: CdsApp, server: LoopbackServer, tmp_path: Path
) -> None:
    source = cds_source(server, tmp_path, era5_requests=1, era5_deadline=0.3)
    place = source.folder / "queue" / "place-0.lock"
    code = f"""
import sys, time
from pathlib import Path
from hephaestus_build.core.filesystem.locks import try_lock_file
with try_lock_file(Path({str(place)!r})) as held:
    print(held, flush=True)
    time.sleep(600)
"""
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "True\n"
        found = source.fetch(FRAME, AREA, JUNE)
        assert "still before the queue of the CDS after 0.3 s" in found.missing_hours[JUNE[0]].detail
        assert submissions(server) == 0
        other.kill()
    assert not source.fetch(FRAME, AREA, JUNE).missing_hours


def test_a_queue_without_end_is_owed_and_resumed_by_the_next_build(
    cds: CdsApp, server: LoopbackServer, tmp_path: Path
) -> None:
    cds.queue_polls = 10**6
    found = cds_source(server, tmp_path, era5_deadline=0.2).fetch(FRAME, AREA, [*JUNE, *JULY])
    assert list(found.missing_hours) == [*JUNE, *JULY]
    assert {receipt.outcome for receipt in found.missing_hours.values()} == {Outcome.UNREACHABLE}
    assert "still in the queue of the CDS after 0.2 s" in found.missing_hours[JUNE[0]].detail
    assert submissions(server) == 2
    cds.queue_polls = 0
    found = cds_source(server, tmp_path).fetch(FRAME, AREA, [*JUNE, *JULY])
    np.testing.assert_array_equal(found.values, truth([*JUNE, *JULY]))
    assert submissions(server) == 2


def test_an_answer_that_came_before_a_kill_is_not_fetched_again(
    source: CdsEra5Source, server: LoopbackServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as kill:
        kill.setattr(MonthCache, "add", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            source.fetch(FRAME, AREA, JUNE)
    found = source.fetch(FRAME, AREA, JUNE)
    np.testing.assert_array_equal(found.values, truth(JUNE))
    assert submissions(server) == 1
    assert sum("object-store" in entry.path for entry in server.log) == 1


@pytest.mark.parametrize("fate", ["vanished", "failed", "dismissed"])
def test_a_request_that_did_not_survive_the_wait_is_handed_in_again(
    cds: CdsApp, server: LoopbackServer, tmp_path: Path, fate: str
) -> None:
    cds.queue_polls = 10**6
    cds_source(server, tmp_path, era5_deadline=0.05).fetch(FRAME, AREA, JUNE)
    cds.queue_polls = 0
    if fate == "vanished":
        cds.jobs.clear()
    for job in cds.jobs.values():
        job.final_status = fate
    np.testing.assert_array_equal(cds_source(server, tmp_path).fetch(FRAME, AREA, JUNE).values, truth(JUNE))
    assert submissions(server) == 2


@pytest.mark.parametrize(
    ("options", "outcome", "detail", "asked"),
    [
        (
            {"licence_accepted": False},
            Outcome.REFUSED,
            r"please visit http\S+/datasets/reanalysis-era5-single-levels\?tab=download#manage-licences",
            1,
        ),
        ({"cost_limit": 1}, Outcome.REFUSED, "Your request is too large", 2),
        ({"job_end": "failed"}, Outcome.UNREACHABLE, "the job has failed at the CDS: mars - ERROR", 2),
        ({"job_end": "dismissed"}, Outcome.UNREACHABLE, "dropped the request: API state 'dismissed'", 2),
        ({"available_until": date(2018, 5, 1)}, Outcome.ABSENT, "not released yet: .* available yet", 2),
        (
            {"missing_variables": frozenset({ERA5_VARIABLE_NAMES[2]})},
            Outcome.CORRUPT,
            f"holds no {ERA5_VARIABLE_NAMES[2]}",
            2,
        ),
    ],
)
def test_what_the_cds_refuses_or_spoils_is_named(
    source: CdsEra5Source,
    cds: CdsApp,
    server: LoopbackServer,
    options: Mapping[str, Any],
    outcome: Outcome,
    detail: str,
    asked: int,
) -> None:
    normal = {name: getattr(cds, name) for name in options}
    for name, value in options.items():
        setattr(cds, name, value)
    found = source.fetch(FRAME, AREA, [*JUNE, *JULY])
    assert not found.times
    assert found.values.shape == (0, 3, *AREA.shape)
    assert list(found.missing_hours) == [*JUNE, *JULY]
    for receipt in found.missing_hours.values():
        assert receipt.outcome is outcome
        assert "\n" not in receipt.detail
    with pytest.raises(AssertionError, match=detail):
        raise AssertionError(found.missing_hours[JUNE[0]].detail)
    assert submissions(server) == asked
    for name, value in normal.items():
        setattr(cds, name, value)
    # a failed request is sent again once it can succeed
    np.testing.assert_array_equal(source.fetch(FRAME, AREA, JUNE).values, truth(JUNE))


def test_a_full_queue_stops_further_requests(
    source: CdsEra5Source, cds: CdsApp, server: LoopbackServer
) -> None:
    cds.job_end, cds.job_reason = (
        "rejected",
        "Number queued requests for this dataset is temporarily limited.",
    )
    months = [datetime(2018, month, 1, 12) for month in range(1, 12)]
    found = source.fetch(FRAME, AREA, months)
    assert len(found.missing_hours) == 11
    assert "temporarily limited" in found.missing_hours[months[-1]].detail
    assert submissions(server) == 4  # the connections that the settings allow


def test_a_wrong_key_is_said_once_and_never_shown(
    server: LoopbackServer,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
) -> None:
    caplog.set_level(logging.DEBUG)
    wrong = "wrong-9f8e7d"
    found = cds_source(server, tmp_path, key=wrong).fetch(FRAME, AREA, [*JUNE, *JULY])
    (receipt,) = set(found.receipts[:1])
    assert receipt.outcome is Outcome.REFUSED
    assert "does not accept the key in CDSAPI_KEY: copy the one on http" in receipt.detail
    assert sum(entry.status == 401 for entry in server.log) == 1
    said = caplog.text + "".join(capfd.readouterr()) + repr(found.receipts)
    assert wrong not in said


def test_the_key_is_not_logged_and_cdsapi_keeps_quiet(
    source: CdsEra5Source, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    caplog.set_level(logging.DEBUG)
    found = source.fetch(FRAME, AREA, JUNE)
    assert capfd.readouterr() == ("", "")
    files = b"".join(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())
    assert KEY not in caplog.text + repr(found) + repr(source.__dict__)
    assert KEY.encode() not in files


def test_nobody_at_the_address_ends_soon(tmp_path: Path, server: LoopbackServer) -> None:
    credentials = CdsCredentials("http://127.0.0.1:9/api", KEY, "CDSAPI_KEY")
    found = CdsEra5Source(settings(server, tmp_path), credentials).fetch(FRAME, AREA, [*JUNE, *JULY])
    assert {receipt.outcome for receipt in found.receipts} == {Outcome.UNREACHABLE}
    assert (
        "127.0.0.1:9 cannot be reached (its host refuses connections)" in found.missing_hours[JUNE[0]].detail
    )


@pytest.mark.parametrize(
    ("pattern", "fault", "times"),
    [
        ("/api/retrieve", faults.error_status(503), 3),
        ("/api/retrieve", faults.error_status(429, retry_after=1), 2),
        ("/jobs/", faults.reset_connection(), 1),
        ("/jobs/[^/]*$", faults.serve_html(), 2),
        ("object-store", faults.cut_connection(3000), 1),
        ("object-store", faults.serve_html(), 1),
        ("object-store", faults.empty_body(), 1),
        ("object-store", faults.error_status(500), 2),
        ("object-store", faults.truncate_body(), 1),
        ("object-store", faults.refuse_ranges(), 3),
    ],
)
def test_what_passes_is_survived(
    source: CdsEra5Source, server: LoopbackServer, pattern: str, fault: faults.Fault, times: int
) -> None:
    server.faults.add(pattern, fault, times=times)
    found = source.fetch(FRAME, AREA, JUNE)
    assert not found.missing_hours
    np.testing.assert_array_equal(found.values, truth(JUNE))


@pytest.mark.parametrize(
    ("pattern", "fault", "outcome", "detail"),
    [
        ("object-store", faults.serve_html(), Outcome.CORRUPT, "a web page came in its place"),
        ("object-store", faults.truncate_body(), Outcome.CORRUPT, "bytes arrived, the CDS announced"),
        (
            "object-store",
            faults.replace_body(lambda body: body[:-1] + bytes([body[-1] ^ 1])),
            Outcome.CORRUPT,
            "its checksum is not",
        ),
        ("object-store", faults.error_status(404), Outcome.ABSENT, "404"),
        ("object-store", faults.error_status(503), Outcome.UNREACHABLE, "503"),
        ("execution", faults.error_status(500), Outcome.UNREACHABLE, "HTTP 500"),
        ("execution", faults.serve_html(), Outcome.CORRUPT, "unexpected response"),
        ("/jobs/", faults.serve_html(), Outcome.CORRUPT, "unexpected response"),
        ("/jobs/", faults.replace_body(b'{"status": "pondering"}'), Outcome.UNREACHABLE, "pondering"),
        ("/results$", faults.replace_body(b"{}"), Outcome.CORRUPT, "unexpected response"),
    ],
)
def test_what_does_not_pass_is_owed_and_paid_later(
    source: CdsEra5Source,
    server: LoopbackServer,
    pattern: str,
    fault: faults.Fault,
    outcome: Outcome,
    detail: str,
) -> None:
    rule = server.faults.add(pattern, fault)
    found = source.fetch(FRAME, AREA, JUNE)
    assert {receipt.outcome for receipt in found.missing_hours.values()} == {outcome}
    assert detail in found.missing_hours[JUNE[0]].detail
    server.faults.remove(rule)
    np.testing.assert_array_equal(source.fetch(FRAME, AREA, JUNE).values, truth(JUNE))


@pytest.mark.parametrize(
    ("pattern", "body"),
    [
        ("/processes/", b"[" * 100_000),
        ("execution", b"[" * 100_000),
        ("/results$", b"[" * 100_000),
        ("/jobs/", b'{"status": "running", "links": ' + b"[" * 100_000 + b"]" * 100_000 + b"}"),
        ("/jobs/", b'{"status": "running", "progress": ' + b"9" * 5000 + b"}"),
        ("/jobs/", b'{"status": "running", "message": "' + b"x" * (9 << 20) + b'"}'),
        ("/jobs/", b"\xff\xfe"),
    ],
    ids=["deep process", "deep job", "deep results", "deep links", "digits", "large", "bytes"],
)
def test_json_without_bounds_is_no_answer(
    source: CdsEra5Source, server: LoopbackServer, pattern: str, body: bytes
) -> None:
    rule = server.faults.add(pattern, faults.replace_body(body))
    found = source.fetch(FRAME, AREA, JUNE)
    assert {receipt.outcome for receipt in found.missing_hours.values()} == {Outcome.CORRUPT}
    assert "unexpected response" in found.missing_hours[JUNE[0]].detail
    server.faults.remove(rule)
    assert not source.fetch(FRAME, AREA, JUNE).missing_hours


@pytest.mark.parametrize("fault", [faults.trickle_body(30), faults.stall_body(10)], ids=["trickle", "stall"])
def test_an_answer_that_never_ends_is_given_up(
    server: LoopbackServer, tmp_path: Path, fault: faults.Fault
) -> None:
    server.faults.add("/jobs/", fault)
    begun = time.monotonic()
    [receipt, _] = cds_source(server, tmp_path, timeout=0.5).fetch(FRAME, AREA, JUNE).missing_hours.values()
    assert receipt.outcome is Outcome.UNREACHABLE
    assert receipt.detail.startswith("no answer from the CDS in 5 tries")
    assert time.monotonic() - begun < 40  # 5 tries of a second and the pauses between them


def test_texts_of_the_cds_are_no_commands(
    source: CdsEra5Source, server: LoopbackServer, caplog: pytest.LogCaptureFixture
) -> None:
    server.faults.add("/jobs/", faults.replace_body(b'{"status": "\\u001b[2Jpondering\\u0007"}'))
    with caplog.at_level("DEBUG"):
        found = source.fetch(FRAME, AREA, JUNE)
    detail = found.missing_hours[JUNE[0]].detail
    assert "pondering" in detail
    assert detail.isprintable()
    said = [record.getMessage() for record in caplog.records if record.name.startswith("hephaestus_build")]
    assert any("pondering" in line for line in said)
    assert all(line.isprintable() for line in said)


def test_days_that_are_not_released_are_owed_and_the_others_here(source: CdsEra5Source, cds: CdsApp) -> None:
    cds.available_until = date(2018, 6, 5)
    found = source.fetch(FRAME, AREA, JUNE)
    assert found.times == (JUNE[0],)
    assert found.missing_hours[JUNE[1]].outcome is Outcome.ABSENT
    assert "lacks 2018-06-13 12:00:00" in found.missing_hours[JUNE[1]].detail
    cds.available_until = None
    found = source.fetch(FRAME, AREA, JUNE)
    assert not found.missing_hours
    np.testing.assert_array_equal(found.values, truth(JUNE))


def test_preliminary_fields_are_replaced_when_asked_to(
    source: CdsEra5Source, cds: CdsApp, tmp_path: Path
) -> None:
    cds.final_until = date(2018, 6, 5)
    assert source.fetch(FRAME, AREA, JUNE).expver == ("0001", "0005")
    assert source.fetch(FRAME, AREA, JUNE).expver == ("0001", "0005")
    assert len(cds.jobs) == 1
    cds.final_until = None
    cds.fields = lambda *where: fields(*where) * np.float32(1.01)
    found = source.fetch(FRAME, AREA, JUNE, refresh_preliminary=True)
    assert [job.inputs["day"] for job in cds.jobs.values()] == [["01", "13"], ["13"]]
    assert found.expver == ("0001", "0001")
    np.testing.assert_array_equal(found.fields_at(JUNE[0]), truth(JUNE)[0])
    np.testing.assert_array_equal(found.fields_at(JUNE[1]), truth(JUNE)[1] * np.float32(1.01))
    np.testing.assert_array_equal(source.fetch(FRAME, AREA, JUNE).values, found.values)


def test_preliminary_fields_stay_where_nothing_newer_can_be_had(source: CdsEra5Source, cds: CdsApp) -> None:
    cds.final_until = date(2018, 6, 5)
    source.fetch(FRAME, AREA, JUNE)
    cds.job_end = "failed"
    found = source.fetch(FRAME, AREA, JUNE, refresh_preliminary=True)
    assert found.expver == ("0001", "0005")
    assert not found.missing_hours


@pytest.mark.parametrize("option", [{"short_names": ("tcwv", "sp", "p54.162")}, {"zipped": True}])
def test_answers_of_other_makes_are_read(source: CdsEra5Source, cds: CdsApp, option: dict[str, Any]) -> None:
    for name, value in option.items():
        setattr(cds, name, value)
    np.testing.assert_array_equal(source.fetch(FRAME, AREA, JUNE).values, truth(JUNE))
