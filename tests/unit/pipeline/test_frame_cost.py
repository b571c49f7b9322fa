"""Tests of the expected cost of frames, and of parts of equal cost."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hephaestus_build.core.errors import UsageError
from hephaestus_build.core.frames import Frame
from hephaestus_build.core.registry import published_frames
from hephaestus_build.pipeline.frame_cost import (
    TYPICAL_PAIRS,
    expected_cost,
    expected_pixels,
    select_frame_part,
    split_by_cost,
)
from hephaestus_build.pipeline.plan import TYPICAL_PIXELS, BuildRequest

COSTS = st.dictionaries(st.text("abcdef", min_size=1, max_size=4), st.integers(0, 10**9), max_size=60)
COUNTS = st.integers(1, 40)
PUBLISHED = [BuildRequest(Frame(name)) for name in published_frames()]


@given(COSTS, COUNTS)
def test_every_name_is_in_exactly_one_part(costs: dict[str, int], count: int) -> None:
    parts = split_by_cost(costs, count)
    assert len(parts) == count
    assert sorted(name for part in parts for name in part) == sorted(costs)


@given(COSTS, COUNTS, st.randoms(use_true_random=False))
def test_parts_do_not_depend_on_the_order_of_names(
    costs: dict[str, int], count: int, order: random.Random
) -> None:
    shuffled = list(costs.items())
    order.shuffle(shuffled)
    assert split_by_cost(dict(shuffled), count) == split_by_cost(costs, count)


@given(COSTS, COUNTS)
def test_no_part_costs_more_than_an_equal_share_and_one_name(costs: dict[str, int], count: int) -> None:
    loads = [sum(costs[name] for name in part) for part in split_by_cost(costs, count)]
    assert max(loads) * count <= sum(costs.values()) + count * max(costs.values(), default=0)


@given(COSTS, COUNTS)
def test_parts_begin_with_what_costs_most_and_empty_ones_are_last(costs: dict[str, int], count: int) -> None:
    parts = split_by_cost(costs, count)
    for part in parts:
        assert [costs[name] for name in part] == sorted((costs[name] for name in part), reverse=True)
    assert [bool(part) for part in parts] == [number < len(costs) for number in range(count)]


def test_the_parts_of_the_published_frames_are_even_and_whole() -> None:
    parts = [select_frame_part(PUBLISHED, (number, 4)) for number in range(1, 5)]
    assert sorted(request.frame.id for part in parts for request in part) == sorted(published_frames())
    loads = [sum(expected_cost(request).download_bytes for request in part) for part in parts]
    assert max(loads) < 1.05 * min(loads)


def test_a_part_stays_the_same_with_other_days_and_another_order() -> None:
    turned = [BuildRequest(item.frame, limit=None) for item in reversed(PUBLISHED)]
    assert [item.frame for item in select_frame_part(turned, (2, 5))] == [
        item.frame for item in select_frame_part(PUBLISHED, (2, 5))
    ]


def test_a_part_of_far_more_parts_than_frames_takes_no_time() -> None:
    count = 10**18
    assert len(select_frame_part(PUBLISHED, (1, count))) == 1
    assert select_frame_part(PUBLISHED, (count, count)) == ()
    assert select_frame_part([], (1, 3)) == ()


def test_there_is_no_part_beyond_the_last() -> None:
    with pytest.raises(UsageError, match=r"no part 5 of 4: parts go from 1/4 to 4/4"):
        select_frame_part(PUBLISHED, (5, 4))


def test_the_cost_of_a_frame_follows_from_registry_and_id() -> None:
    etna, iceland = Frame("124D_05291_081406"), Frame("155D_02484_191814")
    assert expected_cost(BuildRequest(etna)).pairs == published_frames()[etna.id].annotations
    assert expected_cost(BuildRequest(etna, "all")).pairs == published_frames()[etna.id].annotations
    assert expected_cost(BuildRequest(iceland, "all")).pairs == TYPICAL_PAIRS
    assert expected_cost(BuildRequest(etna, limit=5)).pairs == 5
    unpublished = Frame("106A_09048_000909")
    assert expected_cost(BuildRequest(unpublished)).pairs == TYPICAL_PAIRS
    assert expected_cost(BuildRequest(unpublished, "annotated")).pairs == 0


def test_pixels_of_a_frame_that_is_in_no_registry_follow_from_its_id() -> None:
    # the same bursts as 021D_09150_131313, whose annotations imply 2786 x 2714 pixels
    assert expected_pixels(Frame("119D_09150_131313")) == pytest.approx(2786 * 2714, rel=0.1)
    # a degree of longitude is short in the north
    assert expected_pixels(Frame("119D_02579_131313")) > 2 * expected_pixels(Frame("119D_09150_131313"))
    for unknown in ("144A_SM_SIMU_S6", "119D_00001_131313", "119D_09150_000000", "198A_00210_131313"):
        assert expected_pixels(Frame(unknown)) == TYPICAL_PIXELS
