"""Tests of alarms of probability maps: the score of a run's scoring, area and place, and the table."""

from __future__ import annotations

import csv

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hephaestus_baselines.evaluation.predictions import PROBABILITY_BINS, item_probability
from hephaestus_baselines.mapping.map_alarms import check_alarm_table, find_alarm, write_alarm_table
from hephaestus_build.core.errors import UsageError
from hephaestus_build.core.frames import Frame
from hephaestus_build.core.grid import Grid

FRAME, PAIR = Frame("198A_00210_131313"), "20200101_20200113"
GRID = Grid(30, 20, -25.0, 37.9, 0.001, 0.001)


def alarm_of(values, threshold=0.5, per_pixel=True):
    return find_alarm(FRAME, PAIR, values, GRID, threshold=threshold, per_pixel=per_pixel, simulated=True)


@given(st.integers(0, 2**32 - 1), st.integers(0, 600))
def test_a_segmentation_has_the_score_of_its_run(seed, holes):
    chance = np.random.default_rng(seed)
    values = chance.random(GRID.shape).astype("f4") ** 3
    values.flat[chance.permutation(values.size)[:holes]] = np.nan
    seen = values[np.isfinite(values)]
    counted = np.zeros((1, 2, PROBABILITY_BINS), np.uint32)
    bins = np.minimum((seen * PROBABILITY_BINS).astype(int), PROBABILITY_BINS - 1)
    counted[0, 0] = np.bincount(bins, minlength=PROBABILITY_BINS)
    expected = float(item_probability(counted)[0])
    found = alarm_of(values, threshold=0.0)
    if not seen.size:
        assert found is None
    else:
        assert found.probability == expected
        hundredth = np.sort(seen)[-min(100, seen.size)]
        assert found.probability <= hundredth < found.probability + 1 / PROBABILITY_BINS
        assert alarm_of(values, threshold=np.nextafter(expected, 1)) is None


def test_area_place_and_nearest_volcano_are_those_of_the_pixels():
    values = np.full(GRID.shape, 0.1, "f4")
    values[4:16, 10:20] = 0.7
    values[5, 12] = 0.9
    values[0] = np.nan
    found = alarm_of(values)
    assert found.probability == pytest.approx(0.7, abs=1 / PROBABILITY_BINS)
    # 120 pixels of 111.2 m by 111.2 m times the cosine of 37.89 degrees
    assert found.area_km2 == pytest.approx(120 * 0.1112**2 * np.cos(np.radians(37.89)), rel=1e-3)
    assert (found.latitude, found.longitude) == (round(GRID.latitudes[5], 6), round(GRID.longitudes[12], 6))
    assert found.to_json()["simulated"] is True


def test_a_few_high_pixels_raise_no_alarm_of_a_segmentation_but_a_window_does():
    values = np.full(GRID.shape, 0.1, "f4")
    values.flat[:99] = 0.9
    assert alarm_of(values) is None
    assert alarm_of(values, per_pixel=False).probability == np.float32(0.9)
    assert alarm_of(np.full(GRID.shape, np.nan, "f4")) is None


def test_an_earlier_table_is_replaced_and_another_file_is_not(tmp_path):
    table, other = tmp_path / "alarms.csv", tmp_path / "notes.txt"
    found = alarm_of(np.full(GRID.shape, 0.75, "f4"))
    check_alarm_table(table)
    write_alarm_table(table, [found, found])
    check_alarm_table(table)
    write_alarm_table(table, [found])
    (row,) = csv.DictReader(table.read_text().splitlines())
    assert (row["frame"], row["pair"], row["probability"], row["simulated"]) == (
        FRAME.id,
        PAIR,
        "0.75",
        "true",
    )
    other.write_text("mine")
    for path in (other, tmp_path):
        with pytest.raises(UsageError, match="no table of alarms"):
            check_alarm_table(path)
    assert other.read_text() == "mine"
