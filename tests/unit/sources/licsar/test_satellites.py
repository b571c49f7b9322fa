"""Tests of which satellite made an acquisition: launch dates, the repeat cycle, and all published dates."""

from datetime import date, timedelta

import pytest

from hephaestus_build.core.era5_grid import parse_center_time
from hephaestus_build.core.registry import published_frames
from hephaestus_build.sources.licsar.satellites import repeat_cycle_satellite, sentinel1_satellite

TRACK, TIME = 124, timedelta(hours=5, minutes=3, seconds=37)


@pytest.mark.parametrize(
    ("day", "satellite"),
    [
        (date(2014, 4, 2), ""),  # before the launch
        (date(2015, 9, 15), "S1A"),
        (date(2016, 4, 24), "S1A"),
        (date(2016, 4, 30), ""),  # 1B flies, and is not yet in its place
        (date(2016, 9, 9), ""),
        (date(2016, 10, 3), "S1A"),
        (date(2016, 10, 9), "S1B"),
        (date(2016, 10, 10), ""),  # neither passes this track
        (date(2021, 12, 24), "S1A"),  # 1B has failed
        (date(2024, 12, 4), "S1A"),
        (date(2024, 12, 5), ""),  # 1C flies
    ],
)
def test_a_satellite_is_named_where_it_is_certain(day, satellite):
    assert sentinel1_satellite(TRACK, TIME, day) == satellite


def test_a_track_that_nobody_flies_has_no_satellite():
    assert sentinel1_satellite(198, TIME, date(2019, 1, 1)) == ""


def test_absolute_orbits_agree():
    # S1A_IW_SLC__1SDV_20190704T135158_..._027968: relative orbit (27968 - 73) % 175 + 1
    assert repeat_cycle_satellite(71, timedelta(hours=13, minutes=52), date(2019, 7, 4)) == "S1A"


def test_every_published_date_is_one_on_which_a_satellite_passed(published):
    count = 0
    for frame in published.frames:
        time = parse_center_time(published_frames()[frame.id].center_time)
        for day in {day for pair in published.for_frame(frame) for day in pair.dates}:
            passed = repeat_cycle_satellite(frame.track, time, day)
            assert passed == "S1A" if day < date(2016, 4, 25) else passed, (frame, day)
            count += 1
    assert count == 5743
