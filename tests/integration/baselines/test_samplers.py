"""Tests of samplers: the draws of an epoch, their batches, and their distribution over processes."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hephaestus_baselines.data.dataset_items import count_draws
from hephaestus_baselines.data.samplers import (
    EpochBatchSampler,
    count_batches,
    derive_seed,
    draw_epoch,
    permute_labels,
    split_evenly,
    stratified_subset,
)

FLAGS = st.lists(st.booleans(), min_size=2, max_size=60)


@given(FLAGS, st.integers(0, 2**32 - 1), st.integers(0, 100))
def test_an_epoch_has_all_positives_and_as_many_negatives(flags: list[bool], seed: int, epoch: int) -> None:
    drawn = Counter(draw.item for draw in draw_epoch(flags, seed, epoch))
    assert drawn.total() == count_draws(sum(flags), len(flags), balance=True)
    if len(set(flags)) < 2:
        assert drawn == Counter(range(len(flags)))
        return
    positives = {index for index, flag in enumerate(flags) if flag}
    assert {index: count for index, count in drawn.items() if index in positives} == dict.fromkeys(
        positives, 1
    )
    negatives = {index: count for index, count in drawn.items() if index not in positives}
    assert sum(negatives.values()) == len(positives)
    if len(positives) <= len(flags) - len(positives):
        assert set(negatives.values()) == {1}
    else:  # there are too few: each about as often
        assert max(negatives.values()) - min(negatives.values()) <= 1


def test_negatives_and_seeds_are_drawn_anew_each_epoch_and_replay() -> None:
    flags = [index < 10 for index in range(200)]
    first, again, second = (draw_epoch(flags, 4, epoch) for epoch in (0, 0, 1))
    assert first == again
    assert {draw.item for draw in first} != {draw.item for draw in second}
    assert len({draw.seed for draw in first + second}) == 40
    assert draw_epoch(flags, 5, 0) != first
    seen = {draw.item for epoch in range(300) for draw in draw_epoch(flags, 4, epoch)}
    assert seen == set(range(200))


@given(FLAGS, st.integers(0, 9))
def test_negatives_take_the_windows_of_positives_in_their_frame(flags: list[bool], seed: int) -> None:
    frames = [f"{index % 3}" for index in range(len(flags))]
    draws = draw_epoch(flags, seed, 0, frames=frames)
    if all(flags) or not any(flags):
        assert sorted(draw.item for draw in draws) == list(range(len(flags)))
        return
    by_item = {draw.item: draw for draw in draws if flags[draw.item]}
    assert sorted(by_item) == [index for index, flag in enumerate(flags) if flag]
    negatives = [draw for draw in draws if not flags[draw.item]]
    assert len(negatives) == len(by_item)
    quiet = {frame for frame, flag in zip(frames, flags, strict=True) if not flag}
    matched = [draw.like for draw in negatives if draw.like >= 0]
    assert len(set(matched)) == len(matched)
    assert sorted(matched) == sorted(index for index in by_item if frames[index] in quiet)
    for draw in negatives:
        if draw.like >= 0:
            assert frames[draw.item] == frames[draw.like]
            assert draw.seed == by_item[draw.like].seed  # so the window is the same


def test_without_balance_every_item_comes_once() -> None:
    drawn = [draw.item for draw in draw_epoch([True] + [False] * 29, 0, 0, balance=False)]
    assert sorted(drawn) == list(range(30))
    assert drawn != sorted(drawn)


@given(st.integers(1, 200), st.integers(1, 20))
def test_batches_drop_nothing_and_differ_by_one(count: int, batches: int) -> None:
    draws = draw_epoch([False] * count, 0, 0)
    cut = split_evenly(draws, batches)
    assert [draw for batch in cut for draw in batch] == draws
    sizes = [len(batch) for batch in cut]
    assert len(sizes) == batches
    assert max(sizes) - min(sizes) <= 1


@given(FLAGS, st.integers(1, 8), st.integers(1, 3))
def test_devices_share_an_epoch(flags: list[bool], size: int, devices: int) -> None:
    shares = [
        EpochBatchSampler(flags, 7, size, rank=rank, devices=devices, epoch=lambda: 3)
        for rank in range(devices)
    ]
    seen = [draw for share in shares for batch in share for draw in batch]
    assert sorted(seen) == sorted(draw_epoch(flags, 7, 3))
    # a device with fewer steps would leave the others waiting
    assert len({len(list(share)) for share in shares} | {len(share) for share in shares}) == 1
    sizes = [len(batch) for share in shares for batch in share]
    # batch normalisation cannot process a batch of one
    assert size == 1 or len(seen) < 2 * devices or min(sizes) > 1
    assert len(seen) < devices or min(sizes) > 0  # nothing at all even less
    assert max(sizes) <= size or max(sizes) <= size + min(size, 2)


@pytest.mark.parametrize(
    ("draws", "size", "devices", "expected"),
    [
        (2182, 2, 2, 545),
        (620, 2, 2, 155),
        (5, 2, 1, 2),
        (8, 4, 1, 2),
        (9, 4, 1, 3),
        (3, 1, 1, 3),
        (5, 1, 2, 2),
    ],
)
def test_the_last_batch_is_never_a_single_sample(draws: int, size: int, devices: int, expected: int) -> None:
    assert count_batches(draws, size, devices) == expected


def test_the_epoch_is_asked_when_batches_are_first_drawn():
    now = 0
    batches = EpochBatchSampler([True, False] * 8, 7, 4, epoch=lambda: now)
    first = list(batches)
    now = 1
    reading = iter(batches)
    second = [next(reading)]
    now = 2  # announced while readers are drawing ahead
    second += list(reading)
    assert sorted(draw for batch in second for draw in batch) == sorted(draw_epoch([True, False] * 8, 7, 1))
    assert second != first


@given(FLAGS, st.integers(2, 80))
def test_the_validation_windows_are_spread_over_both_kinds(flags: list[bool], limit: int) -> None:
    chosen = stratified_subset(flags, limit)
    assert chosen == sorted(set(chosen))
    assert len(chosen) == min(limit, len(flags))
    positive = sum(flags[index] for index in chosen)
    wanted = limit // 2
    assert positive >= min(sum(flags), wanted)
    assert len(chosen) - positive >= min(len(flags) - sum(flags), wanted)


def test_spread_reaches_from_end_to_end() -> None:
    chosen = stratified_subset([False] * 1000, 10)
    assert chosen == list(range(0, 1000, 100))


def test_dealt_labels_are_the_same_in_another_order() -> None:
    flags = [index < 30 for index in range(100)]
    shuffled = permute_labels(flags, 1)
    assert sum(shuffled) == 30
    assert shuffled != flags
    assert shuffled == permute_labels(flags, 1)
    assert shuffled != permute_labels(flags, 2)


@given(FLAGS, st.integers(0, 99))
def test_dealt_labels_say_nothing_about_the_true_ones(flags: list[bool], seed: int) -> None:
    shuffled = permute_labels(flags, seed)
    assert sum(shuffled) == sum(flags)
    share = sum(flags) / len(flags)
    both = sum(one and other for one, other in zip(flags, shuffled, strict=True))
    assert abs(both - share * sum(flags)) <= 1


def test_derived_seeds_differ() -> None:
    seeds = {derive_seed(*numbers) for numbers in [(0,), (1,), (0, 1), (1, 0), (0, 0), (0, 0, 1)]}
    # trailing zeros are numbers too
    assert len(seeds) == 6
    assert all(0 <= seed < 2**63 for seed in seeds)
