"""Tests of what the atmosphere of many frames costs at the CDS, by arithmetic alone."""

from __future__ import annotations

from datetime import date

import pytest

from hephaestus_build.core.frames import Frame, Pair
from hephaestus_build.core.registry import published_frames
from hephaestus_build.operations.era5_outlook import FrameMonths, expect_months, outlook_of_cds
from hephaestus_build.pipeline.plan import BuildRequest

TEN_YEARS = tuple((year, month) for year in range(2015, 2025) for month in range(1, 13))
TODAY = date(2026, 1, 1)


@pytest.mark.parametrize(
    ("form", "limit", "requests", "gigabytes"),
    [("frame", 1000, 4560, 0.03), ("tile", 1000, 3000, 16), ("tile", 300, 3960, 10.6)],
)
def test_ten_years_of_the_published_frames_cost_what_the_page_says(form, limit, requests, gigabytes):
    # docs/era5.md
    frames = [FrameMonths(Frame(name), TEN_YEARS, 600) for name in published_frames()]
    found = outlook_of_cds(frames, form, limit, TODAY)
    assert found.cost.requests == requests
    assert found.cost.bytes / 1e9 == pytest.approx(gigabytes, rel=0.1)


def test_frames_whose_place_is_not_known_share_nothing():
    frames = [FrameMonths(Frame(f"198A_0021{number}_131313"), TEN_YEARS, 600) for number in range(3)]
    assert outlook_of_cds(frames, "tile", 1000, TODAY).cost.requests == 3 * 120


def test_months_are_those_of_the_pairs_or_as_many_as_there_can_be():
    frame = Frame("124D_05291_081406")
    pairs = [Pair.parse("20190305_20190317"), Pair.parse("20190317_20190410")]
    assert expect_months(BuildRequest(frame), 2, pairs) == FrameMonths(frame, ((2019, 3), (2019, 4)), 3)
    known = expect_months(BuildRequest(frame), 928, None)
    assert (known.months[0], known.months[-1], known.dates) == ((2014, 10), (2021, 11), 310)
    assert len(expect_months(BuildRequest(frame), 30, None).months) == 11
    since = BuildRequest(frame, since=date(2021, 1, 5), until=date(2021, 3, 1))
    assert expect_months(since, 928, None).months == ((2021, 1), (2021, 2), (2021, 3))
