"""Tests of controls: recomputed by hand, and models compared with them."""

from __future__ import annotations

from datetime import date, timedelta

import numpy as np
import pytest

from hephaestus_baselines.data.dataset_items import KnownInterferogram
from hephaestus_baselines.evaluation.bootstrap import bootstrap_gaps
from hephaestus_baselines.evaluation.controls import (
    REMEMBERED,
    frame_prior,
    persistence,
    place_of_crop,
    predict_control,
)
from hephaestus_baselines.evaluation.evaluate import evaluate_predictions
from hephaestus_baselines.evaluation.metrics import fixed_threshold
from hephaestus_baselines.evaluation.same_places import score_same_places, weigh_same_places
from hephaestus_build.core.errors import UsageError
from hephaestus_build.core.frames import Pair
from toy_predictions import classified, row

WINDOW, OTHER = (0, 0, 32), (0, 32, 32)


def pair_after(days: int) -> Pair:
    first = date(2020, 1, 1) + timedelta(days)
    return Pair(first, first + timedelta(12))


def known(frame: str, days: int, *, train: bool = False, windows: tuple = ()) -> KnownInterferogram:
    return KnownInterferogram(frame, pair_after(days), train, bool(windows), frozenset(windows))


def test_the_frame_prior_is_the_share_of_training_interferograms_that_deform_in_the_window():
    history = [
        known("001A", 0, train=True, windows=(WINDOW,)),
        known("001A", 12, train=True, windows=(WINDOW, OTHER)),
        known("001A", 24, train=True),
        known("001A", 36, train=True),
        known("001A", 48, windows=(WINDOW,)),  # not in train
        known("002A", 0, train=True),
    ]
    score = frame_prior(history)
    assert score(row("001A", tile=WINDOW)) == 2 / 4
    assert score(row("001A", tile=OTHER)) == 1 / 4
    assert score(row("001A")) == 2 / 4
    assert score(row("002A")) == 0
    assert score(row("003A")) == 2 / 5  # never in train: all frames together


def test_persistence_looks_at_the_last_ones_that_were_finished_before():
    history = [known("001A", 12 * step, windows=(WINDOW,) if step % 2 else ()) for step in range(30)]
    score = persistence(history)
    first, second = (row("001A", (pair_after(12 * step).name,), tile=WINDOW) for step in (0, 1))
    assert score(first) == 0  # nothing was finished
    assert score(second) == 0  # one, without deformation
    later = row("001A", (pair_after(12 * 25).name,), tile=WINDOW)
    last = history[25 - REMEMBERED : 25]
    assert score(later) == sum(item.positive for item in last) / REMEMBERED
    assert score(row("001A", (pair_after(12 * 25).name,), tile=OTHER)) == 0
    assert score(row("009A")) == 0


def test_persistence_is_not_told_the_labels_of_a_series_own_interferograms():
    first = date(2020, 1, 1)
    members = [Pair(first, first + timedelta(12 * step)) for step in (1, 2, 3)]
    earlier = [Pair(first - timedelta(12 * step), first) for step in range(1, 13)]
    history = [KnownInterferogram("001A", pair, False, False) for pair in earlier]
    history += [KnownInterferogram("001A", pair, False, True, frozenset([WINDOW])) for pair in members]
    score = persistence(history)
    assert score(row("001A", tuple(pair.name for pair in members), tile=WINDOW)) == 0
    # a later one is told all of them
    later = row("001A", (Pair(first, first + timedelta(48)).name,), tile=WINDOW)
    assert score(later) == len(members) / REMEMBERED


def test_the_place_of_a_crop_gives_the_label_away_where_the_label_placed_it():
    score = place_of_crop({"001A": (1000, 1000)})
    centred, off = row("001A", tile=(484, 484, 32)), row("001A", tile=(0, 484, 32))
    assert score(centred) == 0
    assert score(off) == pytest.approx(0.484)


def test_what_depends_on_the_place_alone_has_an_auroc_of_one_half():
    """Among windows matched by place, and far more among all of them."""
    chance = np.random.default_rng(3)
    places = [(f"{number:03d}A", (0, 32 * number, 32)) for number in range(12)]
    rows, labels, scores = [], [], []
    for number, (frame, tile) in enumerate(places):
        for step in range(40):
            deforms = chance.random() < number / 14
            rows.append(row(frame, (pair_after(12 * step).name,), positive=deforms, tile=tile))
            labels.append(deforms)
            scores.append(number / 14)  # the place, as terrain would tell it
    said = classified(labels, scores, rows)
    assert score_same_places(said).auroc == pytest.approx(0.5)
    assert score_same_places(said).average_precision == pytest.approx(0.5, abs=1e-6)
    whole = evaluate_predictions(classified(labels, scores, rows, "validation"), said, resamples=20)
    assert whole.units["items"].test.values["auroc"] > 0.75
    # one that sees the image too keeps what it finds beyond the place
    seen = classified(labels, np.clip(np.array(scores) * 0.1 + 0.8 * np.array(labels), 0, 1), rows)
    assert score_same_places(seen).auroc == pytest.approx(1)


def test_windows_without_both_kinds_or_without_data_are_not_matched():
    rows = [row("001A", positive=True, tile=WINDOW), row("001A", tile=WINDOW), row("001A", tile=OTHER)]
    said = classified([1, 0, 0], [0.9, 0.2, 0.1], rows)
    np.testing.assert_array_equal(weigh_same_places(said), [1, 1, 0])
    nothing = score_same_places(classified([1, 0], [0.9, 0.1], [rows[0], rows[2]]))
    assert np.isnan(nothing.auroc)
    assert nothing.undefined


def test_the_gap_of_a_model_to_itself_is_nothing_and_to_another_is_the_difference():
    chance = np.random.default_rng(0)
    label = chance.random(80) < 0.4
    model = classified(label, np.clip(0.6 * label + chance.random(80) * 0.5, 0, 1))
    control = predict_control("random", lambda item: float(hash(item.frame) % 97) / 97, model)
    threshold = fixed_threshold(model, "items")
    same = bootstrap_gaps((model, threshold), (model, threshold), resamples=50)
    assert all(gap.value == gap.low == gap.high == 0 for gap in same.values())
    other = fixed_threshold(control, "items")
    gaps = bootstrap_gaps((model, threshold), (control, other), resamples=200)
    assert 0 < gaps["auroc"].low < gaps["auroc"].value < gaps["auroc"].high
    with pytest.raises(UsageError, match="not scored on the same items"):
        bootstrap_gaps((model, threshold), (control.select(np.arange(40)), other))


def test_a_model_that_repeats_the_control_is_not_above_it():
    history = [
        known("001A", 12 * step, train=step < 20, windows=(WINDOW,) if step % 3 else ()) for step in range(60)
    ]
    rows = [
        row("001A", (item.pair.name,), positive=item.positive, tile=WINDOW, events=("e",) * item.positive)
        for item in history[20:]
    ]
    labels = [item.positive for item in rows]
    score = persistence(history)
    copied = [score(item) for item in rows]
    parts = [classified(labels, copied, rows, part) for part in ("validation", "test")]
    found = evaluate_predictions(*parts, controls={"persistence": score}, resamples=30)
    gap = found.units["items"].controls["persistence"].gaps["average_precision"]
    assert gap.value == pytest.approx(0)
