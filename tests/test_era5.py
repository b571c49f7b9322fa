"""ERA5 for a frame: the right hours and area, answers checked, and both sources over real HTTP."""

from __future__ import annotations

import logging
import time
import zipfile
from collections.abc import Callable, Iterator, Mapping
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any, Literal

import netCDF4
import numpy as np
import pytest
import zarr
from hypothesis import assume, given
from hypothesis import strategies as st

from hephaestus_build.archive import faults
from hephaestus_build.archive.arco import PREFIX, ArcoApp
from hephaestus_build.archive.cds import CdsApp
from hephaestus_build.archive.netcdf import write_netcdf
from hephaestus_build.archive.server import LoopbackServer, Request, Response
from hephaestus_build.atmosphere import bilinear
from hephaestus_build.errors import HephaestusError, UsageError
from hephaestus_build.frames import Frame
from hephaestus_build.grid import Grid
from hephaestus_build.registry import published_frames
from hephaestus_build.settings import Settings, load_settings
from hephaestus_build.sources.answers import NETCDF_LOCK, WrongAnswerError, read_answer
from hephaestus_build.sources.arco import Arco
from hephaestus_build.sources.cds import Cds
from hephaestus_build.sources.credentials import Credentials, find_credentials
from hephaestus_build.sources.era5 import (
    VARIABLES,
    Area,
    area_of,
    choose_source,
    nearest_hour,
    parse_center_time,
)
from hephaestus_build.sources.fields import batches
from hephaestus_build.sources.months import Months
from hephaestus_build.sources.receipt import Outcome

FRAME = Frame("198A_00210_131313")
AREA = Area(44.0, -1.0, 43.0, 0.5)
ELSEWHERE = Area(-37.0, 174.0, -38.0, 180.0)
KEY = "0c9d-secret-key"
JUNE = [datetime(2018, 6, day, 12) for day in (1, 13)]
JULY = [datetime(2018, 7, day, 12) for day in (7, 19)]


def fields(moment: datetime, latitudes: np.ndarray, longitudes: np.ndarray) -> np.ndarray:
    """Smooth, different everywhere and at every hour; the same for 350 and -10 degrees."""
    turn = np.radians(longitudes % 360)
    wave = np.sin(np.radians(9 * latitudes))[:, None] + np.cos(7 * turn + moment.day + moment.hour)
    levels = np.array([30.0, 95_000.0, 2.3e6]).reshape(3, 1, 1)
    return (levels * (1 + 0.04 * wave)).astype(np.float32)


def truth(times: list[datetime], area: Area = AREA) -> np.ndarray:
    return np.stack([fields(hour, area.latitudes, area.longitudes) for hour in times])


# --- hours and areas ---------------------------------------------------------------------------------------


def test_every_published_frame_has_a_time_that_is_understood() -> None:
    rolled = [
        frame.id
        for frame in published_frames().values()
        if nearest_hour(date(2019, 3, 18), parse_center_time(frame.center_time)).day != 18
    ]
    assert rolled == ["164A_13146_131313"]


@given(st.timedeltas(min_value=timedelta(0), max_value=timedelta(days=2) - timedelta(microseconds=1)))
def test_times_are_read_as_python_writes_them(center_time: timedelta) -> None:
    assert parse_center_time(str(center_time)) == center_time


@pytest.mark.parametrize("text", ["", "12:30", "24:00:00", "1:60:00", "05:03:37,6", "noon", "1 day 0:00:12"])
def test_what_is_no_time_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is no time of day"):
        parse_center_time(text)


@pytest.mark.parametrize(
    ("day", "center_time", "hour"),
    [
        (date(2018, 6, 1), "5:03:37.608476", datetime(2018, 6, 1, 5)),
        (date(2018, 6, 1), "0:29:59.999999", datetime(2018, 6, 1, 0)),
        (date(2018, 6, 1), "0:30:00", datetime(2018, 6, 1, 1)),
        (date(2019, 3, 24), "23:42:23.162333", datetime(2019, 3, 25, 0)),
        (date(2019, 12, 31), "23:30:00", datetime(2020, 1, 1, 0)),
        (date(2020, 2, 28), "1 day, 0:00:12", datetime(2020, 2, 29, 0)),
        (date(2020, 2, 28), "1 day, 23:42:00", datetime(2020, 3, 1, 0)),
    ],
)
def test_the_nearest_hour(day: date, center_time: str, hour: datetime) -> None:
    assert nearest_hour(day, parse_center_time(center_time)) == hour


@given(st.dates(date(2014, 1, 1), date(2040, 1, 1)), st.timedeltas(timedelta(0), timedelta(days=2)))
def test_the_nearest_hour_is_whole_and_near(day: date, center_time: timedelta) -> None:
    hour = nearest_hour(day, center_time)
    moment = datetime(day.year, day.month, day.day) + center_time
    assert hour == hour.replace(minute=0, second=0, microsecond=0)
    assert timedelta(minutes=-30) < hour - moment <= timedelta(minutes=30)


@st.composite
def grids(draw: st.DrawFn) -> Grid:
    grid = Grid(
        draw(st.integers(1, 3000)),
        draw(st.integers(1, 3000)),
        draw(st.floats(-179, 179)),
        draw(st.floats(-85, 85)),
        draw(st.sampled_from([0.001, 0.0005, 0.0002777])),
        draw(st.sampled_from([0.001, 0.0005])),
    )
    assume(grid.bounds[2] <= 180)
    return grid


@given(grids())
def test_an_area_has_a_cell_of_margin_and_no_more_than_two(grid: Grid) -> None:
    area = area_of(grid)
    west, south = grid.longitudes[0], grid.latitudes[-1]
    east, north = grid.longitudes[-1], grid.latitudes[0]
    for beyond, clipped in (
        (area.north - north, area.north == 90),
        (south - area.south, area.south == -90),
        (west - area.west, area.west == -180),
        (area.east - east, area.east == 180),
    ):
        assert 0 <= beyond < 0.5
        assert beyond >= 0.25 or clipped
    assert all(edge * 4 == round(edge * 4) for edge in area.bounds)


@given(grids())
def test_an_area_is_enough_to_interpolate(grid: Grid) -> None:
    area = area_of(grid)
    corners = slice(0, 1), slice(grid.width - 1, grid.width)
    assert bilinear(np.ones(area.shape), area.latitudes, area.longitudes, grid, *corners).tolist() == [[1.0]]


def test_areas_end_at_the_antimeridian() -> None:
    assert area_of(Grid(900, 900, 179.0, -38.0, 0.001, 0.001)).east == 180
    assert area_of(Grid(900, 900, -179.99, -38.0, 0.001, 0.001)).west == -180
    with pytest.raises(ValueError, match="beyond 180 degrees"):
        area_of(Grid(2000, 900, 179.0, -38.0, 0.001, 0.001))


@pytest.mark.parametrize("edges", [(44.1, 0, 43, 1), (43, 0, 44, 1), (44, 1, 43, 0), (44, 179, 43, 181)])
def test_what_is_no_area_is_refused(edges: tuple[float, float, float, float]) -> None:
    with pytest.raises(ValueError, match=r"multiples of 0.25|not north, west"):
        Area(*edges)


@given(st.lists(st.datetimes(datetime(2014, 1, 1), datetime(2022, 1, 1)), max_size=40))
def test_batches_hold_exactly_the_hours(moments: list[datetime]) -> None:
    hours = {moment.replace(minute=0, second=0, microsecond=0) for moment in moments}
    made = batches(hours)
    assert sorted(hour for batch in made for hour in batch.times) == sorted(hours)
    assert len({(batch.year, batch.month, batch.hour) for batch in made}) == len(made)


def test_a_time_between_hours_is_refused() -> None:
    with pytest.raises(ValueError, match="whole hours"):
        batches([datetime(2018, 6, 1, 12, 30)])


# --- answers -----------------------------------------------------------------------------------------------

NAMES = {"tcwv": 0, "sp": 1, "vit": 2}


def answer(path: Path, **changes: Any) -> Path:
    """Write an answer of the present layout, as asked for but for `changes`."""
    given = {
        "times": JUNE,
        "latitudes": AREA.latitudes,
        "longitudes": AREA.longitudes,
        "versions": ["0001"] * len(JUNE),
        "names": NAMES,
        **changes,
    }
    values = changes.get("values")
    if values is None:
        values = np.stack([fields(hour, given["latitudes"], given["longitudes"]) for hour in given["times"]])
    path.write_bytes(write_netcdf(**{**given, "values": values}))
    return path


def amend(path: Path, change: Callable[[netCDF4.Dataset], None]) -> Path:
    with NETCDF_LOCK, netCDF4.Dataset(path, "a") as dataset:
        change(dataset)
    return path


def old_answer(path: Path, *, split: bool) -> Path:
    """Write what the CDS answered until 2024: packed integers over `time`, and halves by version."""
    with NETCDF_LOCK, netCDF4.Dataset(path, "w", format="NETCDF3_64BIT_OFFSET") as dataset:
        halves = ("expver",) if split else ()
        for name, size in (("longitude", 7), ("latitude", 5), ("time", 2), *((half, 2) for half in halves)):
            dataset.createDimension(name, size)
        for name, axis in (("longitude", AREA.longitudes % 360), ("latitude", AREA.latitudes)):
            dataset.createVariable(name, "f4", (name,))[:] = axis
        moment = dataset.createVariable("time", "i4", ("time",))
        moment.setncatts({"units": "hours since 1900-01-01 00:00:00.0", "calendar": "gregorian"})
        moment[:] = [int((hour - datetime(1900, 1, 1)) / timedelta(hours=1)) for hour in JUNE]
        if split:
            dataset.createVariable("expver", "i4", ("expver",))[:] = [1, 5]
        for position, name in enumerate(("tcwv", "sp", "p54.162")):
            field = truth(JUNE)[:, position].astype(np.float64)
            variable = dataset.createVariable(
                name, "i2", ("time", *halves, "latitude", "longitude"), fill_value=-32767
            )
            units = ("kg m**-2", "Pa", "K kg m**-2")[position]
            variable.setncatts(
                {
                    "scale_factor": np.ptp(field) / 65_000,
                    "add_offset": (field.min() + field.max()) / 2,
                    "units": units,
                }
            )
            if split:
                halved = np.ma.array(np.zeros((2, 2, 5, 7)), mask=True)
                halved[0, 0], halved[1, 1] = field
                field = halved
            variable[:] = field
    return path


def test_an_answer_is_read(tmp_path: Path) -> None:
    found = read_answer(answer(tmp_path / "a.nc", versions=["0001", "0005"]), AREA, JUNE)
    np.testing.assert_array_equal(np.stack([found.values[hour] for hour in JUNE]), truth(JUNE))
    assert [found.expver[hour] for hour in JUNE] == ["0001", "0005"]
    assert "simulated" in found.notes


@pytest.mark.parametrize(
    ("names", "change"),
    [
        ({"tcwv": 0, "sp": 1, "p54.162": 2}, None),
        ({"a": 0, "b": 1, "c": 2}, None),  # by GRIB parameter alone
        ({"a": 0, "b": 1, "c": 2}, "GRIB_paramId"),  # by long name alone
        ({"tcwv": 0, "sp": 1, "p162054": 2}, "long_name"),  # by short name alone
    ],
)
def test_variables_are_found_under_all_their_names(
    tmp_path: Path, names: dict[str, int], change: str | None
) -> None:
    def strip(dataset: netCDF4.Dataset) -> None:
        for name in names:
            dataset[name].delncattr("GRIB_paramId")
            if change == "long_name":
                dataset[name].delncattr("long_name")

    path = answer(tmp_path / "a.nc", names=names)
    found = read_answer(amend(path, strip) if change else path, AREA, JUNE)
    np.testing.assert_array_equal(found.values[JUNE[1]], truth(JUNE)[1])


def test_a_zip_of_several_files_is_read(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.nc", "w") as archive:
        for name, position in NAMES.items():
            part = answer(tmp_path / f"{name}.nc", names={name: position})
            archive.write(part, f"data_stream-oper_stepType-{name}.nc")
    found = read_answer(tmp_path / "a.nc", AREA, JUNE)
    np.testing.assert_array_equal(found.values[JUNE[0]], truth(JUNE)[0])


@pytest.mark.parametrize("split", [False, True])
def test_the_old_layout_is_read(tmp_path: Path, split: bool) -> None:
    found = read_answer(old_answer(tmp_path / "a.nc", split=split), AREA, JUNE)
    assert [found.expver[hour] for hour in JUNE] == ["0001", "0005" if split else "0001"]
    for hour, wanted in zip(JUNE, truth(JUNE), strict=True):
        assert np.all(
            np.abs(found.values[hour] - wanted) <= np.ptp(truth(JUNE), axis=(0, 2, 3))[:, None, None] / 65_000
        )


@pytest.mark.parametrize("members", [1, 10])
def test_a_single_hour_may_come_without_a_time_dimension(tmp_path: Path, members: int) -> None:
    path = tmp_path / "a.nc"
    with NETCDF_LOCK, netCDF4.Dataset(path, "w") as dataset:
        for name, size in (("number", members), ("latitude", 5), ("longitude", 7)):
            dataset.createDimension(name, size)
        moment = dataset.createVariable("valid_time", "f8", ())
        moment.units = "days since 2018-06-01"
        moment[...] = 0.5
        dataset.createVariable("expver", str, ())[...] = "0005"
        for name, axis in (("latitude", AREA.latitudes), ("longitude", AREA.longitudes)):
            dataset.createVariable(name, "f8", (name,))[:] = axis
        for position, (name, units) in enumerate((("tcwv", "kg m-2"), ("sp", "Pa"), ("vit", "K kg m-2"))):
            variable = dataset.createVariable(name, "f4", ("number", "latitude", "longitude"))
            variable.units = units
            variable[:] = truth(JUNE[:1])[:, position]
    if members > 1:
        with pytest.raises(WrongAnswerError, match="total_column_water_vapour varies along number"):
            read_answer(path, AREA, JUNE)
        return
    found = read_answer(path, AREA, JUNE)
    np.testing.assert_array_equal(found.values[JUNE[0]], truth(JUNE)[0])
    assert found.expver == {JUNE[0]: "0005"}


def test_more_than_asked_for_is_cropped_whatever_its_order(tmp_path: Path) -> None:
    wide = Area(45.0, -2.0, 42.0, 1.0)
    longitudes = np.sort(wide.longitudes % 360)
    path = answer(
        tmp_path / "a.nc",
        times=[*JUNE, JUNE[1] + timedelta(days=3)],
        versions=["0001"] * 3,
        latitudes=wide.latitudes[::-1],
        longitudes=longitudes,
    )
    found = read_answer(path, AREA, JUNE)
    assert sorted(found.values) == JUNE
    np.testing.assert_array_equal(found.values[JUNE[1]], truth(JUNE)[1])


def edited(edit: Callable[[np.ndarray], object]) -> np.ndarray:
    values = truth(JUNE)
    edit(values)
    return values


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"names": {"tcwv": 0, "sp": 1}}, "holds no vertical_integral_of_temperature, only tcwv, sp"),
        ({"latitudes": AREA.latitudes + 0.25}, "covers latitudes 43.25 to 44.25, asked for were 43 to 44"),
        ({"longitudes": AREA.longitudes - 0.5}, "covers longitudes -1.5 to 0, asked for were -1 to 0.5"),
        ({"times": [hour + timedelta(hours=1) for hour in JUNE]}, "none of the hours asked for"),
        ({"versions": ["0001", "0002"]}, "version 0002, neither final nor preliminary"),
        (
            {"values": edited(lambda v: v.fill(np.nan))},
            "2018-06-01 12:00: total_column_water_vapour has missing",
        ),
        ({"values": edited(lambda v: np.multiply(v, 0.01, out=v))}, "surface_pressure of .* Pa cannot be"),
    ],
)
def test_a_wrong_answer_is_refused_with_the_reason(
    tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(WrongAnswerError, match=message):
        read_answer(answer(tmp_path / "a.nc", **changes), AREA, JUNE)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: d["sp"].setncattr("units", "hPa"), "surface_pressure is in 'hPa', not in 'Pa'"),
        (lambda d: d["sp"].delncattr("units"), "in 'no units'"),
        (lambda d: d["tcwv"].setncattr("GRIB_paramId", np.int64(136)), "holds no total_column_water_vapour"),
        (lambda d: d["valid_time"].setncattr("units", "fortnights"), "times cannot be read"),
        (lambda d: d.renameVariable("latitude", "phi"), "has no latitude axis"),
    ],
)
def test_wrong_metadata_are_refused(
    tmp_path: Path, change: Callable[[netCDF4.Dataset], None], message: str
) -> None:
    with pytest.raises(WrongAnswerError, match=message):
        read_answer(amend(answer(tmp_path / "a.nc"), change), AREA, JUNE)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "it is empty"),
        (b"<html><title>Maintenance</title></html>", "it is no netCDF: it starts with '<html>"),
        (b"\x89HDF\r\n\x1a\n" + bytes(50), "cannot be read"),
        (b"PK\x03\x04" + bytes(50), "a zip that cannot be read"),
    ],
)
def test_what_is_no_netcdf_is_refused(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "a.nc").write_bytes(content)
    with pytest.raises(WrongAnswerError, match=message):
        read_answer(tmp_path / "a.nc", AREA, JUNE)


def test_a_cut_answer_is_refused(tmp_path: Path) -> None:
    path = answer(tmp_path / "a.nc")
    path.write_bytes(path.read_bytes()[:9000])
    with pytest.raises(WrongAnswerError):
        read_answer(path, AREA, JUNE)


def test_one_bad_hour_does_not_spoil_the_others(tmp_path: Path) -> None:
    values = edited(lambda v: v[1, 1].fill(np.nan))
    found = read_answer(answer(tmp_path / "a.nc", values=values), AREA, JUNE)
    assert sorted(found.values) == JUNE[:1]
    assert found.troubles == {JUNE[1]: "surface_pressure has missing values"}


# --- the CDS -----------------------------------------------------------------------------------------------


@pytest.fixture
def cds() -> CdsApp:
    return CdsApp(fields, key=KEY, packed=False)


@pytest.fixture
def arco() -> ArcoApp:
    return ArcoApp(fields, areas=(AREA, ELSEWHERE))


@pytest.fixture
def server(cds: CdsApp, arco: ArcoApp) -> Iterator[LoopbackServer]:
    with LoopbackServer([cds, arco]) as running:
        yield running


def settings(server: LoopbackServer, folder: Path, **changes: Any) -> Settings:
    return load_settings(
        data_dir=folder,
        arco_url=f"{server.base}{PREFIX}",
        **{"timeout": 3, "retries": 2, "era5_deadline": 20, **changes},
    )


@pytest.fixture
def source(server: LoopbackServer, tmp_path: Path) -> Cds:
    return cds_source(server, tmp_path)


def cds_source(server: LoopbackServer, folder: Path, key: str = KEY, **changes: Any) -> Cds:
    credentials = Credentials(f"{server.base}/api", key, "CDSAPI_KEY")
    return Cds(settings(server, folder, **changes), credentials, longest_pause=0.02)


def test_the_requests_that_a_plan_names_are_those_that_are_made(source: Cds, server: LoopbackServer) -> None:
    hours = [*JUNE, *JULY]
    source.fetch(FRAME, AREA, hours)
    assert submissions(server) == source.requests(hours) == 2


def submissions(server: LoopbackServer) -> int:
    time.sleep(0.05)  # the log is written after the answer
    return sum(entry.method == "POST" for entry in server.log)


def test_the_cds_is_asked_for_exact_days_by_month_and_hour(
    source: Cds, cds: CdsApp, server: LoopbackServer
) -> None:
    told: list[tuple[int, int, str]] = []
    found = source.fetch(FRAME, AREA, [*JULY, *JUNE], lambda *step: told.append(step))
    assert found.times == (*JUNE, *JULY)
    np.testing.assert_array_equal(found.values, truth([*JUNE, *JULY]))
    np.testing.assert_array_equal(found.latitude, AREA.latitudes)
    np.testing.assert_array_equal(found.longitude, AREA.longitudes)
    assert found.expver == ("0001",) * 4
    assert not found.owed
    assert sorted(found.proofs) == [*JUNE, *JULY]
    asked = [(job.inputs["month"], job.inputs["day"], job.inputs["time"]) for job in cds.jobs.values()]
    assert asked == [(["06"], ["01", "13"], ["12:00"]), (["07"], ["07", "19"], ["12:00"])]
    assert all(job.inputs["area"] == [44.0, -1.0, 43.0, 0.5] for job in cds.jobs.values())
    assert [receipt.product for receipt in found.receipts] == [
        f"{FRAME}.era5.201806T12",
        f"{FRAME}.era5.201807T12",
    ]
    assert all(
        r.outcome is Outcome.DOWNLOADED and r.sha256 and "simulated" in r.notes for r in found.receipts
    )
    assert told[-1][:2] == (4, 4)


def test_what_is_kept_is_not_asked_for_again(source: Cds, cds: CdsApp, server: LoopbackServer) -> None:
    first = source.fetch(FRAME, AREA, JUNE)
    server.clear_log()
    again = source.fetch(FRAME, AREA, JUNE)
    assert not server.log
    np.testing.assert_array_equal(again.values, first.values)
    assert again.receipts[0].outcome is Outcome.UNCHANGED
    assert again.receipts[0].sha256 == first.receipts[0].sha256
    later = datetime(2018, 6, 25, 12)
    more = source.fetch(FRAME, AREA, [*JUNE, later])
    assert [job.inputs["day"] for job in cds.jobs.values()] == [["01", "13"], ["25"]]
    np.testing.assert_array_equal(more.values, truth([*JUNE, later]))
    source.fetch(FRAME, Area(44.0, -1.0, 43.25, 0.5), JUNE)  # another area is another matter
    assert len(cds.jobs) == 3
    assert source.fetch(FRAME, AREA, []).values.shape == (0, 3, 5, 7)


def test_a_damaged_or_emptied_cache_is_only_asked_for_again(source: Cds, cds: CdsApp, tmp_path: Path) -> None:
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


def test_nothing_else_stays_in_the_cache(source: Cds, tmp_path: Path) -> None:
    source.fetch(FRAME, AREA, JUNE)
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == ["201806T12.npz"]


def test_a_cache_that_cannot_be_written_is_a_clear_error(server: LoopbackServer, tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file, not a folder")
    with pytest.raises(HephaestusError, match="HEPHAESTUS_CACHE_DIR"):
        cds_source(server, tmp_path).fetch(FRAME, AREA, JUNE)


def test_a_slow_queue_is_waited_for(source: Cds, cds: CdsApp) -> None:
    cds.queue_polls = 4
    assert not source.fetch(FRAME, AREA, [*JUNE, *JULY]).owed


def test_few_requests_wait_at_once(cds: CdsApp, server: LoopbackServer, tmp_path: Path) -> None:
    cds.queue_polls = 3
    most = 0

    def watch(done: int, total: int, message: str) -> None:
        nonlocal most
        most = max(most, sum(job.polls <= cds.queue_polls for job in cds.jobs.values()))

    hours = [datetime(2018, month, 1, 12) for month in range(1, 7)]
    assert not cds_source(server, tmp_path, connections=2).fetch(FRAME, AREA, hours, watch).owed
    assert most == 2


def test_a_queue_without_end_is_owed_and_resumed_by_the_next_build(
    cds: CdsApp, server: LoopbackServer, tmp_path: Path
) -> None:
    cds.queue_polls = 10**6
    found = cds_source(server, tmp_path, era5_deadline=0.2).fetch(FRAME, AREA, [*JUNE, *JULY])
    assert list(found.owed) == [*JUNE, *JULY]
    assert {receipt.outcome for receipt in found.owed.values()} == {Outcome.UNREACHABLE}
    assert "still in the queue of the CDS after 0.2 s" in found.owed[JUNE[0]].detail
    assert submissions(server) == 2
    cds.queue_polls = 0
    found = cds_source(server, tmp_path).fetch(FRAME, AREA, [*JUNE, *JULY])
    np.testing.assert_array_equal(found.values, truth([*JUNE, *JULY]))
    assert submissions(server) == 2


def test_an_answer_that_came_before_a_kill_is_not_fetched_again(
    source: Cds, server: LoopbackServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as kill:
        kill.setattr(Months, "add", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
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
        job.end = fate
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
        ({"job_end": "dismissed"}, Outcome.UNREACHABLE, "gave the request up: API state 'dismissed'", 2),
        ({"available_until": date(2018, 5, 1)}, Outcome.ABSENT, "not there yet: .* available yet", 2),
        ({"missing": frozenset({VARIABLES[2]})}, Outcome.CORRUPT, f"holds no {VARIABLES[2]}", 2),
    ],
)
def test_what_the_cds_refuses_or_spoils_is_named(
    source: Cds,
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
    assert list(found.owed) == [*JUNE, *JULY]
    for receipt in found.owed.values():
        assert receipt.outcome is outcome
        assert "\n" not in receipt.detail
    with pytest.raises(AssertionError, match=detail):
        raise AssertionError(found.owed[JUNE[0]].detail)
    assert submissions(server) == asked
    for name, value in normal.items():
        setattr(cds, name, value)
    # what was wrong is asked for anew once it can be right
    np.testing.assert_array_equal(source.fetch(FRAME, AREA, JUNE).values, truth(JUNE))


def test_a_full_queue_stops_further_requests(source: Cds, cds: CdsApp, server: LoopbackServer) -> None:
    cds.job_end, cds.job_reason = (
        "rejected",
        "Number queued requests for this dataset is temporarily limited.",
    )
    months = [datetime(2018, month, 1, 12) for month in range(1, 12)]
    found = source.fetch(FRAME, AREA, months)
    assert len(found.owed) == 11
    assert "temporarily limited" in found.owed[months[-1]].detail
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
    source: Cds, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    caplog.set_level(logging.DEBUG)
    found = source.fetch(FRAME, AREA, JUNE)
    assert capfd.readouterr() == ("", "")
    files = b"".join(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())
    assert KEY not in caplog.text + repr(found) + repr(source.__dict__)
    assert KEY.encode() not in files


def test_nobody_at_the_address_ends_soon(tmp_path: Path, server: LoopbackServer) -> None:
    credentials = Credentials("http://127.0.0.1:9/api", KEY, "CDSAPI_KEY")
    found = Cds(settings(server, tmp_path), credentials).fetch(FRAME, AREA, [*JUNE, *JULY])
    assert {receipt.outcome for receipt in found.receipts} == {Outcome.UNREACHABLE}
    assert "127.0.0.1:9 cannot be reached (its host refuses connections)" in found.owed[JUNE[0]].detail


@pytest.mark.parametrize(
    ("pattern", "fault", "times"),
    [
        ("/api/retrieve", faults.status(503), 3),
        ("/api/retrieve", faults.status(429, retry_after=1), 2),
        ("/jobs/", faults.reset(), 1),
        ("/jobs/[^/]*$", faults.html(), 2),
        ("object-store", faults.cut(3000), 1),
        ("object-store", faults.html(), 1),
        ("object-store", faults.empty(), 1),
        ("object-store", faults.status(500), 2),
        ("object-store", faults.truncated(), 1),
        ("object-store", faults.no_ranges(), 3),
    ],
)
def test_what_passes_is_survived(
    source: Cds, server: LoopbackServer, pattern: str, fault: faults.Fault, times: int
) -> None:
    server.faults.add(pattern, fault, times=times)
    found = source.fetch(FRAME, AREA, JUNE)
    assert not found.owed
    np.testing.assert_array_equal(found.values, truth(JUNE))


@pytest.mark.parametrize(
    ("pattern", "fault", "outcome", "detail"),
    [
        ("object-store", faults.html(), Outcome.CORRUPT, "a web page came in its place"),
        ("object-store", faults.truncated(), Outcome.CORRUPT, "bytes came, the CDS announced"),
        (
            "object-store",
            faults.replaced(lambda body: body[:-1] + bytes([body[-1] ^ 1])),
            Outcome.CORRUPT,
            "its checksum is not",
        ),
        ("object-store", faults.status(404), Outcome.ABSENT, "404"),
        ("object-store", faults.status(503), Outcome.UNREACHABLE, "503"),
        ("execution", faults.status(500), Outcome.UNREACHABLE, "HTTP 500"),
        ("execution", faults.html(), Outcome.CORRUPT, "makes no sense"),
        ("/jobs/", faults.html(), Outcome.CORRUPT, "makes no sense"),
        ("/jobs/", faults.replaced(b'{"status": "pondering"}'), Outcome.UNREACHABLE, "pondering"),
        ("/results$", faults.replaced(b"{}"), Outcome.CORRUPT, "makes no sense"),
    ],
)
def test_what_does_not_pass_is_owed_and_paid_later(
    source: Cds, server: LoopbackServer, pattern: str, fault: faults.Fault, outcome: Outcome, detail: str
) -> None:
    rule = server.faults.add(pattern, fault)
    found = source.fetch(FRAME, AREA, JUNE)
    assert {receipt.outcome for receipt in found.owed.values()} == {outcome}
    assert detail in found.owed[JUNE[0]].detail
    server.faults.remove(rule)
    np.testing.assert_array_equal(source.fetch(FRAME, AREA, JUNE).values, truth(JUNE))


def test_days_that_are_not_released_are_owed_and_the_others_here(source: Cds, cds: CdsApp) -> None:
    cds.available_until = date(2018, 6, 5)
    found = source.fetch(FRAME, AREA, JUNE)
    assert found.times == (JUNE[0],)
    assert found.owed[JUNE[1]].outcome is Outcome.ABSENT
    assert "does not hold 2018-06-13 12:00:00" in found.owed[JUNE[1]].detail
    cds.available_until = None
    found = source.fetch(FRAME, AREA, JUNE)
    assert not found.owed
    np.testing.assert_array_equal(found.values, truth(JUNE))


def test_preliminary_fields_are_replaced_when_asked_to(source: Cds, cds: CdsApp, tmp_path: Path) -> None:
    cds.final_until = date(2018, 6, 5)
    assert source.fetch(FRAME, AREA, JUNE).expver == ("0001", "0005")
    assert source.fetch(FRAME, AREA, JUNE).expver == ("0001", "0005")
    assert len(cds.jobs) == 1
    cds.final_until = None
    cds.fields = lambda *where: fields(*where) * np.float32(1.01)
    found = source.fetch(FRAME, AREA, JUNE, refresh_preliminary=True)
    assert [job.inputs["day"] for job in cds.jobs.values()] == [["01", "13"], ["13"]]
    assert found.expver == ("0001", "0001")
    np.testing.assert_array_equal(found.at(JUNE[0]), truth(JUNE)[0])
    np.testing.assert_array_equal(found.at(JUNE[1]), truth(JUNE)[1] * np.float32(1.01))
    np.testing.assert_array_equal(source.fetch(FRAME, AREA, JUNE).values, found.values)


def test_preliminary_fields_stay_where_nothing_newer_can_be_had(source: Cds, cds: CdsApp) -> None:
    cds.final_until = date(2018, 6, 5)
    source.fetch(FRAME, AREA, JUNE)
    cds.job_end = "failed"
    found = source.fetch(FRAME, AREA, JUNE, refresh_preliminary=True)
    assert found.expver == ("0001", "0005")
    assert not found.owed


@pytest.mark.parametrize("option", [{"short_names": ("tcwv", "sp", "p54.162")}, {"zipped": True}])
def test_answers_of_other_makes_are_read(source: Cds, cds: CdsApp, option: dict[str, Any]) -> None:
    for name, value in option.items():
        setattr(cds, name, value)
    np.testing.assert_array_equal(source.fetch(FRAME, AREA, JUNE).values, truth(JUNE))


# --- ARCO-ERA5 ---------------------------------------------------------------------------------------------


def arco_source(server: LoopbackServer, folder: Path, **changes: Any) -> Arco:
    return Arco(settings(server, folder, **changes))


def chunks(server: LoopbackServer) -> list[str]:
    return [entry.path for entry in server.log if entry.path.endswith(".0.0")]


def test_arco_gives_the_same_fields(server: LoopbackServer, tmp_path: Path) -> None:
    source = arco_source(server, tmp_path)
    found = source.fetch(FRAME, AREA, [*JULY, *JUNE])  # across Greenwich
    assert found.times == (*JUNE, *JULY)
    assert found.source == "arco"
    np.testing.assert_array_equal(found.values, truth([*JUNE, *JULY]))
    assert found.expver == ("0001",) * 4
    assert not found.owed
    assert (
        len(found.receipts)
        == len(chunks(server))
        == arco_source(server, tmp_path).requests([*JULY, *JUNE])
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
    assert list(found.owed) == [JUNE[0], JULY[1]]
    assert sorted(found.proofs) == [*JUNE, *JULY]
    assert found.owed[JULY[1]].outcome is Outcome.ABSENT
    assert "holds hours from 2018-06-02 00:00:00 to 2018-07-07 23:00:00" in found.owed[JULY[1]].detail
    assert len(chunks(server)) == 6


def test_preliminary_hours_of_arco_are_replaced(
    arco: ArcoApp, server: LoopbackServer, tmp_path: Path
) -> None:
    arco.valid_stop = date(2018, 6, 5)
    source = arco_source(server, tmp_path)
    assert source.fetch(FRAME, AREA, JUNE).expver == ("0001", "0005")
    arco.valid_stop = date(2018, 6, 30)
    arco.fields = lambda *where: fields(*where) * np.float32(1.01)
    arco._ready.clear()
    assert source.fetch(FRAME, AREA, JUNE).expver == ("0001", "0005")
    found = source.fetch(FRAME, AREA, JUNE, refresh_preliminary=True)
    assert found.expver == ("0001", "0001")
    np.testing.assert_array_equal(found.at(JUNE[0]), truth(JUNE)[0])
    np.testing.assert_array_equal(found.at(JUNE[1]), truth(JUNE)[1] * np.float32(1.01))


@pytest.mark.parametrize(
    ("pattern", "fault", "outcome", "detail"),
    [
        (f"{VARIABLES[1]}/", faults.status(404), Outcome.ABSENT, "404"),
        (f"{VARIABLES[1]}/", faults.html(), Outcome.CORRUPT, "a web page came"),
        (f"{VARIABLES[1]}/", faults.truncated(), Outcome.CORRUPT, "cannot be decoded"),
        (f"{VARIABLES[1]}/", faults.status(503), Outcome.UNREACHABLE, "503"),
        (".zmetadata", faults.status(403), Outcome.REFUSED, "403"),
        (".zmetadata", faults.replaced(b"[]"), Outcome.CORRUPT, "has no metadata"),
        (".zmetadata", faults.html(), Outcome.CORRUPT, "is no JSON"),
        (".zmetadata", faults.status(404), Outcome.ABSENT, "there is no Zarr store at"),
        ("time/0", faults.status(500), Outcome.UNREACHABLE, "the time axis"),
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
    assert {receipt.outcome for receipt in found.owed.values()} == {outcome}
    assert detail in found.owed[JUNE[0]].detail
    server.faults.remove(rule)
    np.testing.assert_array_equal(source.fetch(FRAME, AREA, JUNE).values, truth(JUNE))


def test_a_broken_connection_to_arco_is_resumed(server: LoopbackServer, tmp_path: Path) -> None:
    server.faults.add(f"{VARIABLES[0]}/", faults.cut(9_000), times=1)
    found = arco_source(server, tmp_path).fetch(FRAME, AREA, JUNE)
    np.testing.assert_array_equal(found.values, truth(JUNE))
    assert any(entry.status == 206 for entry in server.log)


def test_a_dead_arco_is_given_up(server: LoopbackServer, tmp_path: Path) -> None:
    rule = server.faults.add(r"\.0\.0$", faults.status(503))
    days = [datetime(2018, 6, day, 12) for day in range(1, 29)]
    found = arco_source(server, tmp_path, connections=1, retries=1).fetch(FRAME, AREA, days)
    assert len(found.owed) == 28
    assert "not asked for" in found.owed[days[-1]].detail
    assert rule.hits <= 6


def test_missing_values_are_not_taken_for_data(arco: ArcoApp, server: LoopbackServer, tmp_path: Path) -> None:
    arco.areas = (Area(44.0, -1.0, 43.25, 0.5),)
    found = arco_source(server, tmp_path).fetch(FRAME, AREA, JUNE)
    assert {receipt.outcome for receipt in found.owed.values()} == {Outcome.CORRUPT}
    assert "total_column_water_vapour has missing values" in found.owed[JUNE[0]].detail


def test_a_store_of_another_make_is_refused(arco: ArcoApp, server: LoopbackServer, tmp_path: Path) -> None:
    arco.missing = frozenset({VARIABLES[0]})
    found = arco_source(server, tmp_path).fetch(FRAME, AREA, JUNE)
    assert f"has no {VARIABLES[0]}" in found.owed[JUNE[0]].detail


def folder_app(folder: Path) -> Callable[[Request], Response | None]:
    return lambda request: Response(200, folder / request.path.lstrip("/"))


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
    for name, field in zip(VARIABLES, globe, strict=True):
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
        source = Arco(load_settings(data_dir=tmp_path / "data", arco_url=f"{server.base}/store/", timeout=3))
        found = source.fetch(FRAME, AREA, [hour])
    np.testing.assert_array_equal(found.values, truth([hour]))
    assert found.expver == ("0001",)


def test_a_time_axis_with_gaps_is_not_reckoned_with(server: LoopbackServer, tmp_path: Path) -> None:
    from numcodecs import Blosc

    numbers = np.arange(1 << 16, dtype="<i8")
    numbers[1000:] += 1
    server.faults.add("/time/", faults.replaced(bytes(Blosc().encode(numbers))))
    found = arco_source(server, tmp_path).fetch(FRAME, AREA, JUNE)
    assert "has gaps" in found.owed[JUNE[0]].detail


# --- which of the two --------------------------------------------------------------------------------------


def test_auto_takes_the_cds_where_there_is_a_key_and_arco_elsewhere(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    assert choose_source(load_settings()).name == "arco"
    assert "ERA5 comes from ARCO-ERA5 (storage.googleapis.com), because no CDS key" in caplog.text
    monkeypatch.setenv("CDSAPI_KEY", KEY)
    source = choose_source(load_settings())
    assert (source.name, source.url) == ("cds", "https://cds.climate.copernicus.eu/api")
    assert "ERA5 comes from the Climate Data Store (cds.climate.copernicus.eu), with the key" in caplog.text
    monkeypatch.setenv("CDSAPI_URL", "http://127.0.0.1:1/api/")
    assert choose_source(load_settings()).url == "http://127.0.0.1:1/api"
    assert choose_source(load_settings(era5="arco")).name == "arco"
    monkeypatch.delenv("CDSAPI_KEY")
    assert choose_source(load_settings()).name == "arco"
    rc = tmp_path / "rc"
    rc.write_text(f"url: http://127.0.0.1:2/api\nkey: {KEY}\nverify: 0\n")
    monkeypatch.setenv("CDSAPI_RC", str(rc))
    monkeypatch.delenv("CDSAPI_URL")
    source = choose_source(load_settings())
    assert (source.name, source.url) == ("cds", "http://127.0.0.1:2/api")
    assert find_credentials() == Credentials("http://127.0.0.1:2/api", KEY, str(rc), verify=False)
    assert KEY not in caplog.text + repr(find_credentials())


def test_the_cds_without_a_key_is_a_usage_error() -> None:
    with pytest.raises(UsageError, match=r"needs a key in CDSAPI_KEY or ~/\.cdsapirc.*--era5 arco"):
        choose_source(load_settings(era5="cds"))


@pytest.mark.parametrize(("key", "url"), [("1234:abcd", None), ("abcd", "https://cds.example.org/api/v2")])
def test_a_key_of_the_old_service_is_told_apart(
    monkeypatch: pytest.MonkeyPatch, key: str, url: str | None
) -> None:
    monkeypatch.setenv("CDSAPI_KEY", key)
    if url:
        monkeypatch.setenv("CDSAPI_URL", url)
    assert "of the old service" in choose_source(load_settings()).description
    with pytest.raises(UsageError, match="switched off in 2024"):
        choose_source(load_settings(era5="cds"))


def test_both_sources_agree_within_the_packing(
    cds: CdsApp, server: LoopbackServer, source: Cds, tmp_path: Path
) -> None:
    cds.packed = True
    ours = source.fetch(FRAME, AREA, JUNE).values
    theirs = arco_source(server, tmp_path).fetch(FRAME, AREA, JUNE).values
    assert not np.array_equal(ours, theirs)
    for one, other in zip(ours.reshape(-1, 5, 7), theirs.reshape(-1, 5, 7), strict=True):
        assert np.abs(one - other).max() <= np.ptp(other) / 2**15
