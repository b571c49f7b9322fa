"""Tests of ERA5 from ARCO-ERA5 over HTTP."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import zarr
from numcodecs import Blosc

from era5_servers import AREA, ELSEWHERE, FRAME, JULY, JUNE, arco_source, fields, truth
from hephaestus_build.core.era5_grid import ERA5_VARIABLE_NAMES, Era5Area
from hephaestus_build.core.frames import Frame
from hephaestus_build.core.provenance import Outcome
from hephaestus_build.core.settings import load_settings
from hephaestus_build.simulation.server import faults
from hephaestus_build.simulation.server.arco_app import ArcoApp
from hephaestus_build.simulation.server.http_server import HttpRequest, HttpResponse, LoopbackServer
from hephaestus_build.sources.era5.arco import ArcoEra5Source


@pytest.fixture
def arco() -> ArcoApp:
    return ArcoApp(fields, areas=(AREA, ELSEWHERE))


@pytest.fixture
def server(arco: ArcoApp) -> Iterator[LoopbackServer]:
    with LoopbackServer([arco]) as running:
        yield running


def chunks(server: LoopbackServer) -> list[str]:
    return [entry.path for entry in server.log if entry.path.endswith(".0.0")]


def test_arco_gives_the_same_fields(server: LoopbackServer, tmp_path: Path) -> None:
    source = arco_source(server, tmp_path)
    found = source.fetch(FRAME, AREA, [*JULY, *JUNE])  # across Greenwich
    assert found.times == (*JUNE, *JULY)
    assert found.source == "arco"
    np.testing.assert_array_equal(found.values, truth([*JUNE, *JULY]))
    assert found.expver == ("0001",) * 4
    assert not found.missing_hours
    assert (
        len(found.receipts)
        == len(chunks(server))
        == arco_source(server, tmp_path).estimate(AREA, [*JULY, *JUNE]).requests
        == 12
    )
    assert found.receipts[0].product == "era5.20180601T12.total_column_water_vapour"
    assert "simulated" in found.receipts[0].notes


def test_frames_share_the_hours_of_arco(server: LoopbackServer, tmp_path: Path) -> None:
    source = arco_source(server, tmp_path)
    source.fetch(FRAME, AREA, JUNE)
    server.clear_log()
    found = source.fetch(Frame("201D_02400_131313"), ELSEWHERE, JUNE)
    assert not chunks(server)
    np.testing.assert_array_equal(found.values, truth(JUNE, ELSEWHERE))
    server.clear_log()
    source.fetch(FRAME, AREA, JUNE)
    assert not server.log


def test_arco_is_only_asked_for_what_it_says_it_has(
    arco: ArcoApp, server: LoopbackServer, tmp_path: Path
) -> None:
    arco.valid_start, arco.valid_stop = date(2018, 6, 2), date(2018, 6, 13)
    arco.valid_stop_era5t = date(2018, 7, 7)
    found = arco_source(server, tmp_path).fetch(FRAME, AREA, [*JUNE, *JULY])
    assert found.times == (JUNE[1], JULY[0])
    assert found.expver == ("0001", "0005")
    assert list(found.missing_hours) == [JUNE[0], JULY[1]]
    assert sorted(found.receipts_by_hour) == [*JUNE, *JULY]
    assert found.missing_hours[JULY[1]].outcome is Outcome.ABSENT
    assert (
        "holds hours from 2018-06-02 00:00:00 to 2018-07-07 23:00:00" in found.missing_hours[JULY[1]].detail
    )
    assert len(chunks(server)) == 6


def test_preliminary_hours_of_arco_are_replaced(
    arco: ArcoApp, server: LoopbackServer, tmp_path: Path
) -> None:
    arco.valid_stop = date(2018, 6, 5)
    source = arco_source(server, tmp_path)
    assert source.fetch(FRAME, AREA, JUNE).expver == ("0001", "0005")
    arco.valid_stop = date(2018, 6, 30)
    arco.fields = lambda *where: fields(*where) * np.float32(1.01)
    arco.encoded_hours.clear()
    assert source.fetch(FRAME, AREA, JUNE).expver == ("0001", "0005")
    found = source.fetch(FRAME, AREA, JUNE, refresh_preliminary=True)
    assert found.expver == ("0001", "0001")
    np.testing.assert_array_equal(found.fields_at(JUNE[0]), truth(JUNE)[0])
    np.testing.assert_array_equal(found.fields_at(JUNE[1]), truth(JUNE)[1] * np.float32(1.01))


@pytest.mark.parametrize(
    ("pattern", "fault", "outcome", "detail"),
    [
        (f"{ERA5_VARIABLE_NAMES[1]}/", faults.error_status(404), Outcome.ABSENT, "404"),
        (f"{ERA5_VARIABLE_NAMES[1]}/", faults.serve_html(), Outcome.CORRUPT, "a web page came"),
        (f"{ERA5_VARIABLE_NAMES[1]}/", faults.truncate_body(), Outcome.CORRUPT, "cannot be decoded"),
        (f"{ERA5_VARIABLE_NAMES[1]}/", faults.error_status(503), Outcome.UNREACHABLE, "503"),
        (".zmetadata", faults.error_status(403), Outcome.REFUSED, "403"),
        (".zmetadata", faults.replace_body(b"[]"), Outcome.CORRUPT, "has no metadata"),
        (".zmetadata", faults.serve_html(), Outcome.CORRUPT, "is not valid JSON"),
        (".zmetadata", faults.error_status(404), Outcome.ABSENT, "there is no Zarr store at"),
        ("time/0", faults.error_status(500), Outcome.UNREACHABLE, "the time axis"),
    ],
)
def test_what_arco_spoils_is_owed_and_paid_later(
    server: LoopbackServer,
    tmp_path: Path,
    pattern: str,
    fault: faults.Fault,
    outcome: Outcome,
    detail: str,
) -> None:
    rule = server.faults.add(pattern, fault)
    source = arco_source(server, tmp_path)
    found = source.fetch(FRAME, AREA, JUNE)
    assert not found.times
    assert {receipt.outcome for receipt in found.missing_hours.values()} == {outcome}
    assert detail in found.missing_hours[JUNE[0]].detail
    server.faults.remove(rule)
    np.testing.assert_array_equal(source.fetch(FRAME, AREA, JUNE).values, truth(JUNE))


def test_a_broken_connection_to_arco_is_resumed(server: LoopbackServer, tmp_path: Path) -> None:
    server.faults.add(f"{ERA5_VARIABLE_NAMES[0]}/", faults.cut_connection(9_000), times=1)
    found = arco_source(server, tmp_path).fetch(FRAME, AREA, JUNE)
    np.testing.assert_array_equal(found.values, truth(JUNE))
    assert any(entry.status == 206 for entry in server.log)


def test_a_dead_arco_is_given_up(server: LoopbackServer, tmp_path: Path) -> None:
    rule = server.faults.add(r"\.0\.0$", faults.error_status(503))
    days = [datetime(2018, 6, day, 12) for day in range(1, 29)]
    found = arco_source(server, tmp_path, connections=1, retries=1).fetch(FRAME, AREA, days)
    assert len(found.missing_hours) == 28
    assert "not requested" in found.missing_hours[days[-1]].detail
    assert rule.hits <= 6


def test_missing_values_are_not_taken_for_data(arco: ArcoApp, server: LoopbackServer, tmp_path: Path) -> None:
    arco.areas = (Era5Area(44.0, -1.0, 43.25, 0.5),)
    found = arco_source(server, tmp_path).fetch(FRAME, AREA, JUNE)
    assert {receipt.outcome for receipt in found.missing_hours.values()} == {Outcome.CORRUPT}
    assert "total_column_water_vapour has missing values" in found.missing_hours[JUNE[0]].detail


def test_a_store_of_another_make_is_refused(arco: ArcoApp, server: LoopbackServer, tmp_path: Path) -> None:
    arco.missing_variables = frozenset({ERA5_VARIABLE_NAMES[0]})
    found = arco_source(server, tmp_path).fetch(FRAME, AREA, JUNE)
    assert f"has no {ERA5_VARIABLE_NAMES[0]}" in found.missing_hours[JUNE[0]].detail


def spoilt(name: str, **changes: Any) -> faults.Fault:
    """Return a fault that serves other metadata of one array."""

    def change(body: bytes) -> bytes:
        metadata = json.loads(body)
        metadata["metadata"][name].update(changes)
        return json.dumps(metadata).encode()

    return faults.replace_body(change)


def encoded(numbers: np.ndarray) -> faults.Fault:
    return faults.replace_body(bytes(Blosc().encode(numbers)))


@pytest.mark.parametrize(
    ("pattern", "fault", "detail"),
    [
        (
            ".zmetadata",
            spoilt(f"{ERA5_VARIABLE_NAMES[0]}/.zarray", dtype="|O", filters=[{"id": "pickle"}]),
            "another type",
        ),
        (
            ".zmetadata",
            spoilt(f"{ERA5_VARIABLE_NAMES[0]}/.zarray", compressor={"id": "pickle"}),
            "packed by pickle",
        ),
        (".zmetadata", spoilt("time/.zarray", compressor={"id": "pickle"}), "packed by pickle"),
        (
            ".zmetadata",
            spoilt(f"{ERA5_VARIABLE_NAMES[0]}/.zarray", chunks=[1000, 721, 1440]),
            "more than 64 MB",
        ),
        (".zmetadata", spoilt(f"{ERA5_VARIABLE_NAMES[0]}/.zarray", shape=[9, 721, 1440]), "its axes of"),
        (".zmetadata", spoilt(f"{ERA5_VARIABLE_NAMES[0]}/.zattrs", units="mm"), "is in 'mm', not in "),
        (".zmetadata", spoilt(f"{ERA5_VARIABLE_NAMES[0]}/.zattrs", scale_factor=0.1), "holds packed numbers"),
        (".zmetadata", spoilt("time/.zarray", chunks=[1]), "no time axis in chunks of several hours"),
        (".zmetadata", spoilt("time/.zattrs", units=7), "it has no units"),
        (".zmetadata", spoilt("time/.zattrs", units="days since 9999-12-31"), "times cannot be read"),
        (".zmetadata", spoilt("time/.zattrs", calendar="\x1b[2J" * 1000), "the units are too long"),
        (".zmetadata", spoilt("latitude/.zarray", shape=[721, 1], chunks=[721, 1]), "not an axis of a globe"),
        (".zmetadata", spoilt("latitude/.zarray", chunks=[1 << 20]), "is not an axis of a globe"),
        (".zmetadata", faults.replace_body(b'{"metadata": ' + b"[" * 100_000), "is not valid JSON"),
        (".zmetadata", faults.replace_body(b'{"metadata": ' + b"9" * 5000 + b"}"), "integer of 5000 digits"),
        (".zmetadata", faults.replace_body(b'{"metadata": {"time/.zarray": 1}}'), "has no total_column"),
        (
            ".zmetadata",
            faults.replace_body(b'{"metadata": [["time/.zarray", 1]]}'),
            "not those of a Zarr store",
        ),
        ("/time/", encoded(np.full(1 << 16, np.iinfo("i8").max)), "times cannot be read|does not ascend"),
        ("/time/", encoded(np.zeros(1 << 16, "i8")), "does not ascend"),
        ("/latitude/", encoded(np.full(721, np.nan, "f4")), "has missing values"),
        ("/longitude/", encoded(np.full(1440, np.inf, "f4")), "has missing values"),
        (f"{ERA5_VARIABLE_NAMES[0]}/", encoded(np.zeros(16 << 20, "u1")), "cannot be decoded"),
        (f"{ERA5_VARIABLE_NAMES[0]}/", faults.replace_body(bytes(9 << 20)), "are too many for this product"),
    ],
)
def test_a_hostile_store_is_corrupt_and_nothing_else(
    server: LoopbackServer, tmp_path: Path, pattern: str, fault: faults.Fault, detail: str
) -> None:
    server.faults.add(pattern, fault)
    found = arco_source(server, tmp_path).fetch(FRAME, AREA, JUNE)
    assert {receipt.outcome for receipt in found.missing_hours.values()} == {Outcome.CORRUPT}
    assert re.search(detail, found.missing_hours[JUNE[0]].detail)
    assert found.missing_hours[JUNE[0]].detail.isprintable()


def folder_app(folder: Path) -> Callable[[HttpRequest], HttpResponse | None]:
    return lambda request: HttpResponse(200, folder / request.path.lstrip("/"))


@pytest.mark.parametrize(("zarr_format", "consolidated"), [(2, True), (3, True), (3, False)])
def test_stores_that_zarr_wrote_are_read(
    tmp_path: Path, zarr_format: Literal[2, 3], consolidated: bool
) -> None:
    start = datetime(2018, 5, 31, 23)
    group = zarr.create_group(tmp_path / "store", zarr_format=zarr_format)
    group.attrs.update(valid_time_start="2018-05-31", valid_time_stop="2018-06-01")
    shape = {"time": 20, "latitude": 721, "longitude": 1440}
    latitudes, longitudes = 90 - 0.25 * np.arange(721), 0.25 * np.arange(1440)
    for name, values in (("time", np.arange(20)), ("latitude", latitudes), ("longitude", longitudes)):
        axis = group.create_array(name, shape=values.shape, dtype=values.dtype, chunks=values.shape)
        axis[:] = values
    group["time"].attrs.update(units="hours since 2018-05-31T23:00:00", calendar="proleptic_gregorian")
    hour = datetime(2018, 6, 1, 12)
    globe = fields(hour, latitudes, longitudes)
    for name, field in zip(ERA5_VARIABLE_NAMES, globe, strict=True):
        array = group.create_array(
            name, shape=tuple(shape.values()), dtype="f4", chunks=(1, 721, 1440), fill_value=np.nan
        )
        array[int((hour - start) / timedelta(hours=1))] = field
    if consolidated:
        with pytest.MonkeyPatch.context() as patch:
            import warnings

            patch.setattr(warnings, "warn", lambda *_, **__: None)  # of format 3: not in the specification
            zarr.consolidate_metadata(tmp_path / "store")
    with LoopbackServer([folder_app(tmp_path)]) as server:
        source = ArcoEra5Source(
            load_settings(data_dir=tmp_path / "data", arco_url=f"{server.base_url}/store/", timeout=10)
        )
        found = source.fetch(FRAME, AREA, [hour])
    np.testing.assert_array_equal(found.values, truth([hour]))
    assert found.expver == ("0001",)


def test_a_time_axis_with_gaps_is_not_reckoned_with(server: LoopbackServer, tmp_path: Path) -> None:
    numbers = np.arange(1 << 16, dtype="<i8")
    numbers[1000:] += 1
    server.faults.add("/time/", faults.replace_body(bytes(Blosc().encode(numbers))))
    found = arco_source(server, tmp_path).fetch(FRAME, AREA, JUNE)
    assert "has gaps" in found.missing_hours[JUNE[0]].detail
