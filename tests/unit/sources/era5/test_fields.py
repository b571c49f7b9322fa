"""Tests of the hours and the area of ERA5 that a frame needs."""

from __future__ import annotations

from datetime import date, datetime, timedelta

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from hephaestus_build.core.era5_grid import Era5Area, era5_area_around, nearest_era5_hour, parse_center_time
from hephaestus_build.core.grid import Grid
from hephaestus_build.core.registry import published_frames
from hephaestus_build.processing.interpolation import interpolate_bilinear
from hephaestus_build.sources.era5.fields import group_into_batches


def test_every_published_frame_has_a_time_that_is_understood() -> None:
    rolled = [
        frame.id
        for frame in published_frames().values()
        if nearest_era5_hour(date(2019, 3, 18), parse_center_time(frame.center_time)).day != 18
    ]
    assert rolled == ["164A_13146_131313"]


@given(st.timedeltas(min_value=timedelta(0), max_value=timedelta(days=2) - timedelta(microseconds=1)))
def test_times_are_read_as_python_writes_them(center_time: timedelta) -> None:
    assert parse_center_time(str(center_time)) == center_time


@pytest.mark.parametrize(
    ("text", "center_time"),
    [
        ("24:00:01", timedelta(days=1, seconds=1)),
        ("24:00:00", timedelta(days=1)),
        ("12:30", timedelta(hours=12, minutes=30)),
        ("05:03:37,6", timedelta(hours=5, minutes=3, seconds=37.6)),
        ("1 day 0:00:12", timedelta(days=1, seconds=12)),
        ("\t5 : 03 : 37.608476123 UTC ", timedelta(hours=5, minutes=3, seconds=37.608476)),
        ("05:03:37Z", timedelta(hours=5, minutes=3, seconds=37)),
        ("18217.608476", timedelta(seconds=18217.608476)),
        ("18217 s", timedelta(seconds=18217)),
        ("-1 day, 23:59:58", timedelta(seconds=-2)),
    ],
)
def test_odd_forms_with_a_single_meaning_are_read(text: str, center_time: timedelta) -> None:
    assert parse_center_time(text) == center_time


# 51230 may be 05:12:30 or 14:13:50, and 1841 both 18:41 and 00:30:41
@pytest.mark.parametrize(
    "text",
    [
        "",
        "25:00:00",
        "1 day, 24:00:00",
        "1:60:00",
        "1:00:60",
        "noon",
        "9 days, 0:00:12",
        "51230",
        "1841.5",
        "184107",
        "999999",
        "-5",
        "1e4",
        "5:03 PM",
        "٥:٠٣:٣٧",
    ],
)
def test_what_is_no_time_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is not a time of day"):
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
    assert nearest_era5_hour(day, parse_center_time(center_time)) == hour


@given(st.dates(date(2014, 1, 1), date(2040, 1, 1)), st.timedeltas(timedelta(0), timedelta(days=2)))
def test_the_nearest_hour_is_whole_and_near(day: date, center_time: timedelta) -> None:
    hour = nearest_era5_hour(day, center_time)
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
    area = era5_area_around(grid)
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
    assert all(edge * 4 == round(edge * 4) for edge in area.cds_bounds)


@given(grids())
def test_an_area_is_enough_to_interpolate(grid: Grid) -> None:
    area = era5_area_around(grid)
    corners = slice(0, 1), slice(grid.width - 1, grid.width)
    assert interpolate_bilinear(
        np.ones(area.shape), area.latitudes, area.longitudes, grid, *corners
    ).tolist() == [[1.0]]


def test_areas_end_at_the_antimeridian_unless_the_grid_crosses_it() -> None:
    # cubes of earlier versions have these areas, and keep them
    assert era5_area_around(Grid(900, 900, 179.0, -38.0, 0.001, 0.001)).east == 180
    assert era5_area_around(Grid(900, 900, -179.99, -38.0, 0.001, 0.001)).west == -180
    east, west = (era5_area_around(Grid(1500, 900, edge, -38.0, 0.001, 0.001)) for edge in (179.0, -180.6))
    assert (east.west, east.east) == (178.75, 180.75)
    assert east.cds_bounds == (-37.75, 178.75, -39.25, -179.25)
    assert (west.west, west.east) == (-181.0, -178.75)
    assert west.cds_bounds == (-37.75, 179.0, -39.25, -178.75)


def test_areas_end_at_the_poles_and_not_beyond() -> None:
    assert era5_area_around(Grid(900, 900, 10.0, 90.0, 0.001, 0.001)).north == 90
    assert era5_area_around(Grid(900, 900, 10.0, -89.1, 0.001, 0.001)).south == -90
    with pytest.raises(ValueError, match="beyond a pole"):
        era5_area_around(Grid(900, 900, 10.0, 90.1, 0.001, 0.001))


@pytest.mark.parametrize("edges", [(44.1, 0, 43, 1), (43, 0, 44, 1), (44, 1, 43, 0), (44, 10, 43, 371)])
def test_what_is_no_area_is_refused(edges: tuple[float, float, float, float]) -> None:
    with pytest.raises(ValueError, match=r"multiples of 0.25|not north, west"):
        Era5Area(*edges)


@given(st.lists(st.datetimes(datetime(2014, 1, 1), datetime(2022, 1, 1)), max_size=40))
def test_batches_hold_exactly_the_hours(moments: list[datetime]) -> None:
    hours = {moment.replace(minute=0, second=0, microsecond=0) for moment in moments}
    made = group_into_batches(hours)
    assert sorted(hour for batch in made for hour in batch.times) == sorted(hours)
    assert len({(batch.year, batch.month, batch.hour) for batch in made}) == len(made)


def test_a_time_between_hours_is_refused() -> None:
    with pytest.raises(ValueError, match="whole hours"):
        group_into_batches([datetime(2018, 6, 1, 12, 30)])
