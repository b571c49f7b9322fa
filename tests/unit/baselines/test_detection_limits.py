"""Tests of thresholds at a false-alarm rate, and of the smallest displacement that is found."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hephaestus_baselines.detectability.detection_limits import (
    beyond_false_alarms,
    crossing_displacement,
    threshold_of_false_alarms,
    trace_detection_curve,
)
from hephaestus_build.core.errors import HephaestusError

TRIED = (0.0025, 0.005, 0.01, 0.02, 0.04, 0.08, 0.16, 0.32)
FRINGE = 0.0277


@given(
    scores=st.lists(st.sampled_from([0.0, 0.1, 0.25, 0.5, 0.5, 0.9, 1.0]), min_size=20, max_size=200),
    rate=st.sampled_from([0.05, 0.1, 0.2, 0.5]),
)
def test_no_more_than_the_wanted_share_of_quiet_windows_is_above_the_threshold(scores, rate):
    values = np.array(scores)
    threshold = threshold_of_false_alarms(values, rate)
    assert (values > threshold).mean() <= rate
    lower = values[values < threshold]
    if lower.size:  # the next lower score would let too many pass
        assert (values > lower.max()).mean() > rate


def test_a_rate_that_cannot_be_measured_is_refused():
    with pytest.raises(HephaestusError, match="needs at least 100 windows"):
        threshold_of_false_alarms(np.zeros(99), 0.01)


def test_the_example_of_the_documentation():
    shares = np.array([0, 0, 0.2, 0.8, 1, 1, 1, 1])
    assert crossing_displacement(TRIED, shares, 0.5) == pytest.approx(0.01 * math.sqrt(2))


def test_a_curve_that_never_or_always_crosses_says_so():
    assert crossing_displacement(TRIED, np.full(8, 0.4), 0.5) == math.inf
    assert crossing_displacement(TRIED, np.full(8, 0.6), 0.5) == 0
    never = trace_detection_curve(TRIED, np.zeros((20, 8), bool), np.zeros(20, bool), np.arange(20), FRINGE)
    assert all(math.isnan(limit.displacement_cm) for limit in never.limits)
    assert never.limits[0].note == "not found up to 32 cm, the largest tried"
    always = trace_detection_curve(TRIED, np.ones((20, 8), bool), np.zeros(20, bool), np.arange(20), FRINGE)
    assert always.limits[1].note == "already found at 0.25 cm, the smallest tried"
    single = trace_detection_curve(TRIED, np.eye(8, dtype=bool), np.zeros(8, bool), np.zeros(8, int), FRINGE)
    assert "one acquisition" in single.limits[0].note
    assert math.isnan(single.points[0].low)


@given(shares=st.lists(st.floats(0, 1), min_size=8, max_size=8))
def test_nine_tenths_are_never_found_before_half(shares):
    values = np.array(shares)
    assert crossing_displacement(TRIED, values, 0.5) <= crossing_displacement(TRIED, values, 0.9)


def test_limits_and_intervals_of_a_known_curve():
    """Detection that follows a known curve: half at 2 cm; the limits and most intervals recover it."""
    rng = np.random.default_rng(0)
    inside = 0
    for trial in range(20):
        chance = 1 / (1 + np.exp(-2.5 * np.log(np.array(TRIED) / 0.02)))
        detected = rng.random((200, 8)) < chance
        found = trace_detection_curve(
            TRIED, detected, np.zeros(200, bool), np.arange(200) // 4, FRINGE, seed=trial, resamples=200
        ).limits[0]
        assert found.displacement_cm == pytest.approx(2, rel=0.25)
        assert found.fringes == pytest.approx(found.displacement_cm / 2.77)
        inside += found.low_cm <= 2 <= found.high_cm
    assert inside >= 15


def test_places_of_one_acquisition_count_as_one_for_the_interval():
    rng = np.random.default_rng(1)
    groups = rng.random((12, 8)) < np.linspace(0.1, 0.95, 8)
    repeated = np.repeat(groups, 25, axis=0)
    together = trace_detection_curve(
        TRIED, repeated, np.zeros(300, bool), np.repeat(np.arange(12), 25), FRINGE
    )
    apart = trace_detection_curve(TRIED, repeated, np.zeros(300, bool), np.arange(300), FRINGE)
    assert together.places == apart.places == 300
    assert together.acquisitions == 12

    def width(curve):
        return sum(point.high - point.low for point in curve.points)

    assert width(together) > 3 * width(apart)


def test_alarms_that_are_raised_without_a_source_find_nothing():
    """A model that raises an alarm at four of ten places whatever they show has no limit, however many."""
    quiet = np.arange(200) % 10 < 4
    blind = trace_detection_curve(TRIED, np.repeat(quiet[:, None], 8, 1), quiet, np.arange(200), FRINGE)
    assert blind.false_alarms == 80
    assert [point.detected for point in blind.points] == [80] * 8
    assert [point.beyond_false_alarms for point in blind.points] == [0.0] * 8
    assert math.isnan(blind.limits[0].displacement_cm)
    # even where nearly all windows raise one
    loud = np.arange(200) % 10 < 9
    always = trace_detection_curve(TRIED, np.repeat(loud[:, None], 8, 1), loud, np.arange(200), FRINGE)
    assert all(limit.note == "not found up to 32 cm, the largest tried" for limit in always.limits)


def test_the_limit_does_not_depend_on_how_many_false_alarms_there_are():
    """The same model beside random false alarms: raw shares rise, the limit stays."""
    rng = np.random.default_rng(3)
    chance = 1 / (1 + np.exp(-2.5 * np.log(np.array(TRIED) / 0.02)))
    seen = rng.random((4000, 8)) < chance
    limits, raw = [], []
    for share in (0.0, 0.1, 0.3):
        false = rng.random(4000) < share
        curve = trace_detection_curve(
            TRIED, seen | false[:, None], false, np.arange(4000), FRINGE, resamples=50
        )
        limits.append(curve.limits[0].displacement_cm)
        raw.append(crossing_displacement(TRIED, np.array([one.detected / 4000 for one in curve.points]), 0.5))
        assert all(one.beyond_low <= one.beyond_false_alarms <= one.beyond_high for one in curve.points)
    assert limits == pytest.approx([2, 2, 2], rel=0.1)
    assert raw[2] < 0.75 * raw[0]  # counted as before, false alarms would make it seem more sensitive


@given(quiet=st.floats(0, 1), found=st.floats(0, 1))
def test_shares_beyond_false_alarms_stay_shares(quiet, found):
    value = float(beyond_false_alarms(np.array([[quiet, found]]))[0, 0])
    assert 0 <= value <= 1
    assert value <= found + 1e-9
    assert (value > 0) == (found > quiet) or math.isclose(found, quiet, abs_tol=1e-9)
