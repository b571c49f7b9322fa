"""Tests of which requests the CDS is sent for the hours that frames need."""

from __future__ import annotations

from calendar import monthrange
from datetime import date, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hephaestus_build.core.era5_grid import Era5Area
from hephaestus_build.sources.era5.fields import group_into_batches
from hephaestus_build.sources.era5.requests import frame_requests, requests_cost, tile_requests
from hephaestus_build.sources.era5.tiles import era5_tile_hours

TILE = Era5Area(42.5, -5.0, 27.5, 15.0)
TODAY = date(2024, 7, 1)
hours = st.datetimes(datetime(2023, 1, 1), datetime(2024, 6, 30)).map(
    lambda moment: moment.replace(minute=0, second=0, microsecond=0)
)


def complete(moment: datetime) -> bool:
    return (moment.year, moment.month) < (2024, 6)  # the end of June is a day ago


@given(st.sets(hours, max_size=12), st.integers(3, 3000))
def test_requests_hold_all_that_is_needed_and_no_more_fields_than_may_be(needed, limit):
    batches = group_into_batches(needed)
    exact, pooled = frame_requests(batches, limit), tile_requests(TILE, batches, TODAY, limit)
    assert sorted(time for request in exact for time in request.times) == sorted(needed)
    asked = [time for request in pooled for time in request.times]
    assert needed <= set(asked)
    assert len(asked) == len(set(asked))
    for request in [*exact, *pooled]:
        assert request.fields == 3 * len(request.times) <= limit
        assert needed & set(request.times)


@given(st.sets(hours.filter(complete), min_size=1, max_size=6), st.sets(hours.filter(complete), max_size=6))
def test_a_tile_is_asked_for_the_same_whoever_needs_it(first, second):
    apart = {*ask(first), *ask(second)}
    assert set(ask(first | second)) == apart
    for request in apart:
        assert request.days == tuple(range(1, monthrange(request.year, request.month)[1] + 1))
        assert request.hours == era5_tile_hours(TILE) or len(request.hours) == 1


def ask(needed: set[datetime], limit: int = 1000) -> list:
    return tile_requests(TILE, group_into_batches(needed), TODAY, limit)


def test_of_a_month_that_is_not_complete_what_is_needed_is_asked_for():
    (request,) = ask({datetime(2024, 6, 3, 6), datetime(2024, 6, 15, 6)})
    assert (request.days, request.hours) == ((3, 15), (6,))


@pytest.mark.parametrize(("limit", "count"), [(1000, 1), (300, 2), (93, 6), (50, 12)])
def test_a_month_of_a_tile_is_asked_for_in_as_many_requests_as_the_limit_makes(limit, count):
    needed = {datetime(2024, 1, day, hour) for day in (1, 31) for hour in era5_tile_hours(TILE)}
    found = ask(needed, limit)
    assert len(found) == count
    cost = requests_cost(found, TILE)
    assert cost.requests == count
    assert cost.bytes == 31 * 6 * 3 * 61 * 81 * 2
