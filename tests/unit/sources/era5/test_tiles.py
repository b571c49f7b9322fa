"""Tests of the tiles of ERA5's grid that frames share."""

from __future__ import annotations

from datetime import date

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hephaestus_build.core.era5_grid import Era5Area, nearest_era5_hour, parse_center_time
from hephaestus_build.core.frames import Frame
from hephaestus_build.core.registry import published_frames
from hephaestus_build.pipeline.frame_cost import expected_era5_area
from hephaestus_build.sources.era5.tiles import era5_tile_around, era5_tile_hours


def area_at(latitude: float, longitude: float, height: float = 4.0, width: float = 8.0) -> Era5Area:
    return Era5Area(
        min(90.0, latitude + height / 2),
        longitude - width / 2,
        max(-90.0, latitude - height / 2),
        longitude + width / 2,
    )


quarters = st.integers(-4 * 88, 4 * 88).map(lambda number: number / 4)


@given(quarters, st.integers(-4 * 180, 4 * 180).map(lambda number: number / 4))
def test_a_tile_holds_the_frame_and_depends_on_the_middle_of_its_area_alone(latitude, longitude):
    area = area_at(latitude, longitude)
    tile = era5_tile_around(area)
    assert tile.contains(area)
    crosses = area.west < -180 or area.east > 180
    assert tile.north - tile.south == 15 or 90 in (tile.north, -tile.south)
    assert tile.east - tile.west == 20 or (not crosses and 180 in (tile.east, -tile.west))
    smaller = area_at((area.north + area.south) / 2, longitude, 1.0, 1.0)
    if (smaller.west < -180 or smaller.east > 180) == crosses:
        assert era5_tile_around(smaller) == tile


def test_an_area_that_no_tile_holds_is_asked_for_itself():
    area = area_at(35.0, 9.0, 4.0, 13.0)
    assert era5_tile_around(area) is area


def test_tiles_across_180_degrees_go_on_as_areas_do():
    assert str(era5_tile_around(Era5Area(-16.0, 178.0, -18.0, 181.0))) == "N-7.5_W165_S-22.5_E185"
    assert str(era5_tile_around(Era5Area(-16.0, -181.0, -18.0, -178.0))) == "N-7.5_W-185_S-22.5_E-165"
    assert str(era5_tile_around(Era5Area(-16.0, 177.0, -18.0, 180.0))) == "N-7.5_W165_S-22.5_E180"


@pytest.mark.parametrize("name", sorted(published_frames()))
def test_every_published_frame_has_a_tile_that_is_asked_at_its_hour(name):
    known, area = published_frames()[name], expected_era5_area(Frame(name))
    assert area is not None
    tile = era5_tile_around(area)
    assert tile.contains(area)
    assert tile != area
    hour = nearest_era5_hour(date(2019, 3, 5), parse_center_time(known.center_time)).hour
    hours = era5_tile_hours(tile)
    assert hour in hours
    assert len(hours) == 6
