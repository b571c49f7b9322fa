"""Tests of reading CDS files in all layouts, and of the checks on their content."""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Iterator
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import netCDF4
import numpy as np
import pytest

from cds_answers import NAMES, answer, old_answer
from era5_servers import AREA, JUNE, fields, truth
from hephaestus_build.core.era5_grid import Era5Area
from hephaestus_build.simulation.server.era5_netcdf import NETCDF_LOCK
from hephaestus_build.sources.era5 import cds_netcdf
from hephaestus_build.sources.era5.cds_netcdf import InvalidCdsFileError
from hephaestus_build.sources.era5.netcdf_process import NetcdfProcess

READER = NetcdfProcess()
read_answer = partial(cds_netcdf.read_cds_netcdf, reader=READER)


@pytest.fixture(scope="module", autouse=True)
def one_process_for_all() -> Iterator[None]:
    yield
    READER.close()


def amend(path: Path, change: Callable[[netCDF4.Dataset], None]) -> Path:
    with NETCDF_LOCK, netCDF4.Dataset(path, "a") as dataset:
        change(dataset)
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
        with pytest.raises(InvalidCdsFileError, match="total_column_water_vapour varies along number"):
            read_answer(path, AREA, JUNE)
        return
    found = read_answer(path, AREA, JUNE)
    np.testing.assert_array_equal(found.values[JUNE[0]], truth(JUNE)[0])
    assert found.expver == {JUNE[0]: "0005"}


def test_more_than_asked_for_is_cropped_whatever_its_order(tmp_path: Path) -> None:
    wide = Era5Area(45.0, -2.0, 42.0, 1.0)
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


@pytest.mark.parametrize("start", [-180, 0, 179])
def test_an_area_across_180_is_found_whatever_turn_the_answer_counts_in(tmp_path: Path, start: int) -> None:
    area = Era5Area(-16.5, 179.5, -17.0, 180.75)
    longitudes = np.sort((area.longitudes - start) % 360 + start)
    path = answer(tmp_path / "a.nc", latitudes=area.latitudes, longitudes=longitudes)
    found = read_answer(path, area, JUNE)
    np.testing.assert_array_equal(found.values[JUNE[0]], fields(JUNE[0], area.latitudes, area.longitudes))


def edited(edit: Callable[[np.ndarray], object]) -> np.ndarray:
    values = truth(JUNE)
    edit(values)
    return values


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"names": {"tcwv": 0, "sp": 1}}, "holds no vertical_integral_of_temperature, only tcwv, sp"),
        ({"latitudes": AREA.latitudes + 0.25}, "covers latitudes 43.25 to 44.25, requested were 43 to 44"),
        ({"longitudes": AREA.longitudes - 0.5}, "covers longitudes -1.5 to 0, requested were -1 to 0.5"),
        ({"times": [hour + timedelta(hours=1) for hour in JUNE]}, "none of the requested hours"),
        ({"versions": ["0001", "0002"]}, "version 0002, neither final nor preliminary"),
        (
            {"values": edited(lambda v: v.fill(np.nan))},
            "2018-06-01 12:00: total_column_water_vapour has missing",
        ),
        (
            {"values": edited(lambda v: np.multiply(v, 0.01, out=v))},
            "surface_pressure of .* Pa is implausible",
        ),
    ],
)
def test_a_wrong_answer_is_refused_with_the_reason(
    tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(InvalidCdsFileError, match=message):
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
    with pytest.raises(InvalidCdsFileError, match=message):
        read_answer(amend(answer(tmp_path / "a.nc"), change), AREA, JUNE)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "it is empty"),
        (b"<html><title>Maintenance</title></html>", "it is not netCDF: it starts with '<html>"),
        (b"\x89HDF\r\n\x1a\n" + bytes(50), "cannot be read"),
        (b"PK\x03\x04" + bytes(50), "a zip that cannot be read"),
    ],
)
def test_what_is_no_netcdf_is_refused(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "a.nc").write_bytes(content)
    with pytest.raises(InvalidCdsFileError, match=message):
        read_answer(tmp_path / "a.nc", AREA, JUNE)


def test_a_cut_answer_is_refused(tmp_path: Path) -> None:
    path = answer(tmp_path / "a.nc")
    path.write_bytes(path.read_bytes()[:9000])
    with pytest.raises(InvalidCdsFileError):
        read_answer(path, AREA, JUNE)


def test_one_bad_hour_does_not_spoil_the_others(tmp_path: Path) -> None:
    values = edited(lambda v: v[1, 1].fill(np.nan))
    found = read_answer(answer(tmp_path / "a.nc", values=values), AREA, JUNE)
    assert sorted(found.values) == JUNE[:1]
    assert found.rejected_hours == {JUNE[1]: "surface_pressure has missing values"}
