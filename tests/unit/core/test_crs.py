"""Tests that WGS 84 is recognized in every form of WKT, and that nothing else is."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rasterio.crs import CRS

from hephaestus_build.core.crs import WGS84_WKT, is_wgs84


@pytest.mark.parametrize("version", ["WKT1_GDAL", "WKT1_ESRI", "WKT2_2015", "WKT2_2019"])
def test_wgs_84_is_known_in_every_version_of_wkt(version):
    for crs in ("EPSG:4326", "+proj=longlat +datum=WGS84"):
        text = CRS.from_string(crs).to_wkt(version=version)
        assert is_wgs84(text)
        assert is_wgs84(text.replace(",", " ,\n  "))


@pytest.mark.parametrize("version", ["WKT1_GDAL", "WKT1_ESRI", "WKT2_2019"])
@pytest.mark.parametrize(
    "crs", ["EPSG:4258", "EPSG:4269", "EPSG:4807", "EPSG:3857", "EPSG:32633", "EPSG:4979"]
)
def test_no_other_is_taken_for_it(crs, version):
    try:
        text = CRS.from_string(crs).to_wkt(version=version)
    except Exception:
        pytest.skip("has no such form")
    assert not is_wgs84(text)


@pytest.mark.parametrize(
    "change",
    [
        ('"Greenwich",0', '"Greenwich",2.33'),
        ("0.0174532925199433", "0.0157079632679"),
        ("298.257223563", "298.257222101"),
        ("6378137", "6378388"),
        ("WGS_1984", "European_1950"),
        ('"4326"', '"4258"'),
        ('"EPSG","7030"]]', '"EPSG","7030"]],TOWGS84[100,0,0]'),
        ("GEOGCS", "GEOCCS"),
    ],
)
def test_each_part_counts(change):
    assert change[0] in WGS84_WKT
    assert not is_wgs84(WGS84_WKT.replace(*change))


@given(st.one_of(st.text(), st.none(), st.integers(), st.text(alphabet='AB[](),"1.-e ', max_size=40)))
def test_anything_else_is_not_wgs_84(text):
    assert not is_wgs84(text)


def test_depth_and_length_are_bounded():
    assert not is_wgs84("A[" * 9_000)
    assert not is_wgs84("A[" * 100_000)
    assert not is_wgs84('GEOGCS["' + "a" * 100_000)
