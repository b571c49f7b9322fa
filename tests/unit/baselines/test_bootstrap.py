"""Tests of bootstrap intervals: events are resampled as units, seeds reproduce, and coverage is as stated."""

import math

import numpy as np
import pytest
from sklearn import metrics

from hephaestus_baselines.evaluation.bootstrap import (
    bootstrap_intervals,
    resample_clusters,
    resample_scores,
)
from hephaestus_baselines.evaluation.interval_ends import interval_tails
from hephaestus_baselines.evaluation.metrics import fixed_threshold, score_predictions
from toy_predictions import classified, row

#: Interferograms of each event of the test part, about as uneven as the real ones.
UNEVEN = (72, 47, 30, 24, 16, 11, 9, 7, 6, 5, 4, 4, 3, 3, 2, 2, 2, 2, *[1] * 12)


def world(seed, events=12, views=10, quiet=40):
    """Return predictions that find or miss whole events, the worst case for counting interferograms.

    `views` is the number of interferograms of each event, or one number for all.
    """
    chance = np.random.default_rng(seed)
    sizes = np.broadcast_to(views, events)
    level = np.repeat(np.where(chance.random(events) < 0.7, 0.9, 0.1), sizes)
    rows = [
        row(f"{event:03d}A", [f"20200101_2020{view // 28 + 2:02d}{view % 28 + 1:02d}"],
            positive=True, events=(f"event {event}",))
        for event, size in enumerate(sizes)
        for view in range(size)
    ]  # fmt: skip
    rows += [
        row("002D", [f"2020{place // 28 + 1:02d}{place % 28 + 1:02d}_20210101"]) for place in range(quiet)
    ]
    label = np.array([item.positive for item in rows])
    probability = np.concatenate([level, chance.random(quiet) * 0.6])
    return classified(label, np.clip(probability + chance.normal(0, 0.02, len(rows)), 0, 1), rows)


def test_one_seed_gives_one_interval():
    said = world(0)
    threshold = fixed_threshold(said, "items")
    one, again, other = (bootstrap_intervals(said, threshold, seed=seed, resamples=200) for seed in (3, 3, 4))
    assert one == again
    assert one != other


def test_resamples_draw_as_many_clusters_of_either_kind():
    events = np.array([True, False, True, False, False, True])
    weight = resample_clusters(events, resamples=400, seed=0)
    assert set(weight[:, events].sum(axis=1)) == {3}
    assert set(weight[:, ~events].sum(axis=1)) == {3}
    assert weight.mean(axis=0) == pytest.approx(np.ones(6), abs=0.15)


def test_the_weighted_scores_are_those_of_the_drawn_items():
    said = world(1, events=5, views=3, quiet=12)
    found = bootstrap_intervals(said, fixed_threshold(said, "items"), seed=9, resamples=60, level=0.9)
    clusters = said.clusters
    events = np.zeros(clusters.max() + 1, bool)
    events[clusters[said.label]] = True
    drawn = {"f1": [], "auroc": [], "average_precision": []}
    for line in resample_clusters(events, resamples=60, seed=9).astype(int):
        chosen = np.repeat(np.arange(len(said)), line[clusters])
        label, probability = said.label[chosen], said.probability[chosen]
        drawn["f1"].append(metrics.f1_score(label, probability >= 0.5))
        drawn["auroc"].append(metrics.roc_auc_score(label, probability))
        drawn["average_precision"].append(metrics.average_precision_score(label, probability))
    for name, values in drawn.items():
        ends = np.quantile(values, interval_tails(0.9, np.full(5, 3.0)))
        assert [found[name].low, found[name].high] == pytest.approx(ends)


def test_intervals_cover_the_truth_about_as_often_as_they_say():
    # recall is 0.7 in the long run: an event is found with this probability
    rounds, covered = 150, {"equal": 0, "uneven": 0, "middle of the resamples": 0}
    for seed in range(1000, 1000 + rounds):
        uneven = np.random.default_rng((seed, 7)).choice(UNEVEN, 30)
        for kind, views in (("equal", 4), ("uneven", uneven)):
            said = world(seed, events=30, views=views, quiet=4)
            threshold = fixed_threshold(said, "items")
            found = bootstrap_intervals(said, threshold, seed=seed, resamples=300)["recall"]
            covered[kind] += found.low <= 0.7 <= found.high
        weight = resample_clusters(np.arange(34) < 30, resamples=300, seed=seed)
        low, high = np.quantile(resample_scores(said, threshold, weight)["recall"], [0.025, 0.975])
        covered["middle of the resamples"] += low <= 0.7 <= high
    share = {kind: count / rounds for kind, count in covered.items()}
    assert 0.92 <= share["equal"] <= 0.99
    assert 0.91 <= share["uneven"] <= 0.99
    assert share["middle of the resamples"] < 0.89  # of the uneven ones: what intervals would be otherwise


def test_intervals_reach_further_out_the_fewer_events_there_are_in_effect():
    ends = [interval_tails(0.95, np.full(number, 3.0)) for number in (2, 7, 30, 10_000)]
    assert [low for low, _ in ends] == sorted(low for low, _ in ends)
    assert all(low + high == pytest.approx(1) for low, high in ends)
    assert ends[-1] == pytest.approx((0.025, 0.975), abs=1e-4)
    # one event that outweighs the others counts as little more than one
    assert interval_tails(0.95, np.array([300.0, 1, 1]))[0] < ends[0][0]
    assert interval_tails(0.95, np.zeros(3)) == pytest.approx((0, 1))  # where nothing can be resampled


def test_many_views_of_an_event_do_not_narrow_the_interval():
    few, many = (world(2, views=views) for views in (2, 20))
    width = []
    for said in (few, many):
        found = bootstrap_intervals(said, fixed_threshold(said, "items"), resamples=300)["recall"]
        width.append(found.high - found.low)
    assert width[0] > 0.2
    assert width[1] == pytest.approx(width[0])


def test_a_single_event_has_no_interval_and_says_so():
    said = world(0, events=1)
    found = bootstrap_intervals(said, fixed_threshold(said, "interferograms"), resamples=50)
    assert math.isnan(found["recall"].low)
    assert found["recall"].undefined == "1 of events: too few to resample"
    assert (found["recall"].events, found["recall"].quiet) == (1, 40)
    # false alarms need no event
    assert found["false_alarms_per_frame_year"].low <= found["false_alarms_per_frame_year"].high


def test_the_score_lies_in_its_interval_at_every_unit():
    said = world(5)
    for unit in ("items", "interferograms"):
        threshold = fixed_threshold(said, unit)
        found = bootstrap_intervals(said, threshold, resamples=300)
        for name, value in score_predictions(said, threshold).values.items():
            assert found[name].low <= value <= found[name].high


def test_resamples_without_a_score_are_left_out_and_counted():
    # a single quiet item raises the only alarm: a third of the resamples predict nothing
    rows = [row(events=("a",), positive=True), row("002A", events=("b",), positive=True)]
    rows += [row(f"{place:03d}D") for place in range(3)]
    said = classified([1, 1, 0, 0, 0], [0.1, 0.1, 0.9, 0.1, 0.1], rows)
    found = bootstrap_intervals(said, fixed_threshold(said, "items"), resamples=300)["precision"]
    assert "resamples, which are left out" in found.undefined
    assert found.high == 0
