"""Tests of checking the registry of published frames against the metadata of each frame."""

from datetime import timedelta

from hypothesis import given
from hypothesis import strategies as st

from hephaestus_build.core.era5_grid import parse_center_time
from hephaestus_build.core.grid import Grid
from hephaestus_build.core.registry import published_frames
from hephaestus_build.pipeline.registry_check import CENTER_TIME_TOLERANCE, find_registry_mismatches

FRAMES = published_frames()


def grid_around(longitude: float, latitude: float) -> Grid:
    return Grid(2000, 1500, longitude - 1, latitude + 0.75, 0.001, 0.001)


@given(st.sampled_from(sorted(FRAMES)), st.floats(-50, 50))
def test_seconds_of_orbital_jitter_are_no_disagreement(name, seconds):
    known = FRAMES[name]
    time = parse_center_time(known.center_time) + timedelta(seconds=seconds)
    assert find_registry_mismatches(known, time, grid_around(known.longitude, known.latitude)) == ()
    assert find_registry_mismatches(known, time + timedelta(days=1), None) == ()


def test_another_orbit_or_place_is_said_with_both_numbers():
    known = FRAMES["124D_04854_171313"]
    time = parse_center_time(known.center_time) + 2 * CENTER_TIME_TOLERANCE
    said = find_registry_mismatches(known, time, grid_around(known.longitude + 2, known.latitude))
    assert len(said) == 2
    assert known.center_time in said[0]
    assert "17.617 E" in said[1]


def test_midnight_is_no_disagreement():
    known = FRAMES["164A_13146_131313"]  # 23:42:23
    assert (
        find_registry_mismatches(known, parse_center_time(known.center_time) - timedelta(days=1), None) == ()
    )
