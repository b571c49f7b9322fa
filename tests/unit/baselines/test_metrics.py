"""Tests of scores against scikit-learn and hand-computed cases, and of the reasons for undefined scores."""

import math
from dataclasses import replace
from datetime import date

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from sklearn import metrics

from hephaestus_baselines.evaluation.evaluate import evaluate_predictions
from hephaestus_baselines.evaluation.metrics import (
    RankedScores,
    baseline_scores,
    choose_threshold,
    compute_rates,
    count_false_alarms,
    count_observed_days,
    fixed_threshold,
    score_by_group,
    score_predictions,
)
from hephaestus_baselines.evaluation.predictions import PROBABILITY_BINS, count_pixel_histograms
from hephaestus_build.core.errors import UsageError
from toy_predictions import classified, row, segmented

# few different probabilities: ties are where rankings go wrong
ITEMS = st.lists(st.tuples(st.booleans(), st.integers(0, 8)), min_size=2, max_size=60)


def arrays(items):
    return np.array([label for label, _ in items]), np.array([value / 8 for _, value in items], "f4")


def as_validation(predictions):
    return replace(predictions, part="validation")


@settings(max_examples=25)
@given(ITEMS, st.integers(0, 7))
def test_item_scores_are_scikit_learns(items, eighths):
    label, probability = arrays(items)
    assume(0 < label.sum() < len(label))
    said = classified(label, probability)
    scores = score_predictions(said, fixed_threshold(said, "items", eighths / 8))
    predicted = probability >= eighths / 8
    expected = {
        "precision": metrics.precision_score(label, predicted, zero_division=np.nan),
        "recall": metrics.recall_score(label, predicted),
        "f1": metrics.f1_score(label, predicted),
        "auroc": metrics.roc_auc_score(label, probability),
        "average_precision": metrics.average_precision_score(label, probability),
    }
    assert scores.values == pytest.approx(expected, nan_ok=True)
    assert scores.items == len(label)
    assert scores.positives == label.sum()


@settings(max_examples=20)
@given(ITEMS, st.integers(0, 2**32 - 1))
def test_weighted_areas_are_scikit_learns(items, seed):
    label, probability = arrays(items)
    weight = np.random.default_rng(seed).integers(0, 4, (3, len(label)))
    areas = RankedScores(label, probability).compute_areas(weight)
    for place, line in enumerate(weight):
        if not (line[label].any() and line[~label].any()):
            continue
        known = {"y_true": label, "y_score": probability, "sample_weight": line}
        assert areas["auroc"][place] == pytest.approx(metrics.roc_auc_score(**known))
        assert areas["average_precision"][place] == pytest.approx(metrics.average_precision_score(**known))


@settings(max_examples=30)
@given(st.integers(0, 2**32 - 1), st.integers(0, PROBABILITY_BINS - 1), st.floats(0, 1))
def test_scores_of_histograms_are_exact_at_every_edge(seed, step, share):
    chance = np.random.default_rng(seed)
    mask = chance.random((3, 8, 8)) < share
    # half of the pixels lie exactly on an edge
    fine = chance.random(mask.shape, "f4")
    probability = np.where(
        chance.random(mask.shape) < 0.5, np.floor(fine * PROBABILITY_BINS) / PROBABILITY_BINS, fine
    ).astype("f4")
    pixels = count_pixel_histograms(probability, mask, np.array(True), np.array(True))
    said = segmented([{}] * 3, [{}] * 3)
    said = replace(said, pixels=pixels, label=mask.any(axis=(1, 2)))
    scores = score_predictions(said, fixed_threshold(said, "pixels", step / PROBABILITY_BINS))
    truth, predicted = mask.ravel(), (probability >= step / PROBABILITY_BINS).ravel()
    assert scores.true_positives == (truth & predicted).sum()
    assert scores.false_positives == (~truth & predicted).sum()
    assert scores.false_negatives == (truth & ~predicted).sum()
    assert scores.true_negatives == (~truth & ~predicted).sum()
    if truth.any():
        assert scores.values["precision"] == pytest.approx(
            metrics.precision_score(truth, predicted, zero_division=np.nan), nan_ok=True
        )
        assert scores.values["f1"] == pytest.approx(metrics.f1_score(truth, predicted))
        assert scores.values["iou"] == pytest.approx(metrics.jaccard_score(truth, predicted))


@settings(max_examples=25)
@given(ITEMS)
def test_no_threshold_beats_the_chosen_one_on_validation(items):
    label, probability = arrays(items)
    assume(label.any())
    said = classified(label, probability, part="validation")
    threshold = choose_threshold(said, "items")
    assert threshold.chosen_on == "validation"
    best = max(metrics.f1_score(label, probability >= cut) for cut in np.unique(probability))
    assert score_predictions(said, threshold).values["f1"] == pytest.approx(best)


def test_the_chosen_threshold_lies_between_what_it_parts():
    said = classified([1, 1, 0, 0], [0.9, 0.7, 0.3, 0.2], part="validation")
    assert choose_threshold(said, "items").value == pytest.approx(0.5)
    pixels = segmented([{40: 10}], [{200: 10}], part="validation")
    assert choose_threshold(pixels, "pixels").value == 121 / PROBABILITY_BINS


@settings(max_examples=40)
@given(
    st.lists(
        st.tuples(st.integers(0, PROBABILITY_BINS - 1), st.integers(0, 9), st.integers(0, 9)),
        min_size=1,
        max_size=9,
    )
)
def test_the_pixels_threshold_is_the_best_of_all_edges(steps):
    negative, positive = {step: count for step, count, _ in steps}, {step: count for step, _, count in steps}
    assume(any(positive.values()))
    said = segmented([negative], [positive], part="validation")
    chosen = score_predictions(said, choose_threshold(said, "pixels")).values["f1"]
    best = max(
        score_predictions(said, fixed_threshold(said, "pixels", step / PROBABILITY_BINS)).values["f1"]
        for step in {0, *negative}
    )
    assert chosen == pytest.approx(best)


@pytest.mark.parametrize("part", ["test", "train"])
def test_a_threshold_cannot_be_chosen_on_another_part(part):
    said = classified([1, 0], [0.6, 0.4], part=part)
    with pytest.raises(UsageError, match=f"chosen on validation, not on {part}"):
        choose_threshold(said, "items")
    with pytest.raises(UsageError, match="do not go together"):
        evaluate_predictions(said, as_validation(said))


def test_a_threshold_serves_its_own_model_and_split_alone():
    said = classified([1, 0], [0.6, 0.4])
    threshold = choose_threshold(as_validation(said), "items")
    for change in ({"model": "another"}, {"sha256": "1" * 64}):
        with pytest.raises(UsageError, match="was chosen for toy"):
            score_predictions(replace(said, source=replace(said.source, **change)), threshold)


def test_without_deformation_in_validation_the_threshold_says_that_nothing_chose_it():
    threshold = choose_threshold(classified([0, 0], [0.6, 0.4], part="validation"), "items")
    assert (threshold.value, threshold.chosen_on) == (0.5, "nothing")
    assert "no deformation" in threshold.reason


def test_undefined_scores_are_nan_and_say_why():
    quiet = classified([0, 0, 0], [0.9, 0.4, 0.1])
    scores = score_predictions(quiet, fixed_threshold(quiet, "items"))
    assert scores.values["precision"] == 0  # something was predicted, and wrong
    assert scores.undefined == dict.fromkeys(
        ("recall", "f1", "auroc", "average_precision"), "no deformation to find"
    )
    assert all(math.isnan(scores.values[name]) for name in scores.undefined)
    assert all(math.isnan(value) for value in scores.chance.values())
    silent = classified([1, 0], [0.4, 0.1])
    scores = score_predictions(silent, fixed_threshold(silent, "items"))
    assert scores.undefined == {"precision": "nothing was predicted"}
    assert (scores.values["recall"], scores.values["f1"]) == (0, 0)  # a defined score, though all is missed
    full = classified([1, 1], [0.9, 0.8])
    assert score_predictions(full, fixed_threshold(full, "items")).undefined == {
        "auroc": "deformation everywhere"
    }
    none = full.select(np.array([], int))
    assert set(score_predictions(none, fixed_threshold(none, "items")).undefined.values()) == {
        "nothing to score"
    }


def test_chance_and_the_constant_predictor_are_what_they_score():
    chance = np.random.default_rng(5)
    label = np.arange(200_000) < 60_000
    guess, always = chance.random(len(label)) < 0.3, np.ones(len(label), bool)
    expected_chance, expected_constant = baseline_scores(60_000, 200_000)
    for predicted, expected in ((guess, expected_chance), (always, expected_constant)):
        found = compute_rates(
            (label & predicted).sum(), (~label & predicted).sum(), (label & ~predicted).sum()
        )
        assert {name: float(value) for name, value in found.items()} == pytest.approx(
            {name: expected[name] for name in found}, abs=0.005
        )
        areas = RankedScores(label, predicted * 0.5).compute_areas()
        assert float(areas["auroc"]) == pytest.approx(expected["auroc"], abs=0.005)
        assert float(areas["average_precision"]) == pytest.approx(expected["average_precision"], abs=0.005)


def test_groups_by_hand():
    rows = [
        row("001A", positive=True, region="etna", activity_types=("Dyke",), intensities=("Low",)),
        row("001A", positive=True, region="etna", activity_types=("Sill", "Dyke"), intensities=("High",)),
        row("002A", region="etna"),
        row("003D", region="afar"),
    ]
    said = classified([1, 1, 0, 0], [0.9, 0.2, 0.6, 0.1], rows)
    threshold = fixed_threshold(said, "items")
    frames = score_by_group(said, threshold, "frame")
    assert list(frames) == ["001A", "002A", "003D"]
    assert frames["001A"].values["recall"] == 0.5
    assert frames["001A"].values["precision"] == 1
    assert frames["002A"].undefined["recall"] == "no deformation to find"
    assert score_by_group(said, threshold, "region")["etna"].values["precision"] == 0.5
    kinds = score_by_group(said, threshold, "activity_type")
    assert kinds["Dyke"].values["recall"] == 0.5
    assert kinds["Sill"].values["recall"] == 0
    assert kinds["Sill"].values["auroc"] == 0.5  # above one quiet item, below the other
    assert kinds["Sill"].undefined["precision"] == "false alarms have no activity type, intensity or volcano"
    assert {
        name: found.positives for name, found in score_by_group(said, threshold, "intensity").items()
    } == {
        "High": 1,
        "Low": 1,
    }


def test_pixels_of_a_kind_are_scored_within_what_shows_it():
    rows = [row(positive=True, activity_types=("Mogi",)), row("002A")]
    said = segmented([{500: 30}, {500: 1000}], [{500: 60, 10: 40}, {}], rows)
    mogi = score_by_group(said, fixed_threshold(said, "pixels"), "activity_type")["Mogi"]
    assert mogi.values["precision"] == pytest.approx(60 / 90)
    assert mogi.values["iou"] == pytest.approx(60 / 130)


def test_pixels_without_data_are_scored_apart():
    everywhere = np.zeros((1, 2, PROBABILITY_BINS), np.uint32)
    everywhere[0, 0, 500], everywhere[0, 1, 500], everywhere[0, 1, 0] = 10, 30, 60
    said = segmented([{500: 10}], [{500: 30}], everywhere=everywhere)
    assert score_predictions(said, fixed_threshold(said, "pixels")).values["recall"] == 1
    assert score_predictions(said, fixed_threshold(said, "all-pixels")).values["recall"] == pytest.approx(
        1 / 3
    )


def test_a_threshold_between_two_steps_of_the_histograms_is_refused():
    said = segmented([{1: 1}], [{2: 1}])
    with pytest.raises(ValueError, match="1/512"):
        score_predictions(said, fixed_threshold(said, "pixels", 0.3))
    with pytest.raises(UsageError, match="not scored by items"):
        score_predictions(said, fixed_threshold(said, "items"))


def test_false_alarms_per_frame_year_by_hand():
    rows = [
        row(pairs=["20200101_20200113"], tile=(0, 0, 8)),
        row(pairs=["20200101_20200113"], tile=(0, 8, 8)),  # the same interferogram: one alarm
        row(pairs=["20200107_20200113"]),  # ends on the same day: one call
        row(pairs=["20200113_20200125"]),  # quiet, no alarm
        row(pairs=["20200125_20200206"], positive=True),  # deformation: no false alarm, but watched
        row(pairs=["20200301_20200313"]),  # after a gap
        row("002A", ["20200101_20200113", "20200101_20200125"]),  # a series
    ]
    said = classified([0, 0, 0, 0, 1, 0, 0], [0.9, 0.8, 0.9, 0.1, 0.9, 0.6, 0.2], rows)
    counted = count_false_alarms(said, fixed_threshold(said, "interferograms"))
    first = counted.frames["001A"]
    assert (first.interferograms, first.false_alarms, first.alarm_days) == (4, 3, 2)
    assert first.years * 365.25 == pytest.approx(36 + 12)
    assert counted.frames["002A"].years * 365.25 == pytest.approx(24)
    assert counted.per_frame_year == pytest.approx(3 / (72 / 365.25))
    assert counted.days_per_frame_year == pytest.approx(2 / (72 / 365.25))


def test_false_alarms_are_undefined_where_all_is_deformation():
    said = classified([1], [0.9])
    counted = count_false_alarms(said, fixed_threshold(said, "interferograms"))
    assert math.isnan(counted.per_frame_year)
    assert counted.undefined == "no interferogram without deformation"


@given(st.lists(st.tuples(st.integers(0, 60), st.integers(1, 20)), max_size=12))
def test_days_watched_counts_every_day_once(spans):
    first = date(2020, 1, 1).toordinal()
    days = {day for start, length in spans for day in range(start, start + length)}
    known = [
        (date.fromordinal(first + start), date.fromordinal(first + start + length)) for start, length in spans
    ]
    assert count_observed_days(known) == len(days)


def test_an_assessment_scores_every_unit_with_validations_threshold():
    chance = np.random.default_rng(1)
    label = chance.random(80) < 0.4
    rows = [
        row(f"{place % 4:03d}A", [f"202001{place // 4 + 1:02d}_20200301"], positive=bool(value))
        for place, value in enumerate(label)
    ]
    validation = classified(label, chance.random(80), rows, part="validation")
    test = classified(label, np.clip(label * 0.4 + chance.random(80) * 0.6, 0, 1), rows)
    found = evaluate_predictions(validation, test, resamples=50)
    assert set(found.units) == {"items", "interferograms"}
    for unit in found.units.values():
        assert unit.threshold.chosen_on == "validation"
        assert unit.validation.threshold == unit.test.threshold == unit.threshold.value
        assert unit.test_at_half.threshold == 0.5
    # the interferogram's threshold, not the items'
    assert found.false_alarms.threshold == found.units["interferograms"].threshold.value
