"""Tests of heads that tell the kind of deformation, of their scores, and of the controls beside them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from hephaestus_baselines.evaluation.predictions import PredictedItem
from hephaestus_baselines.probes.deformation_kinds import WindowKinds, activity_types
from hephaestus_baselines.probes.kind_heads import (
    fit_activity_head,
    fit_intensity_head,
    median_levels,
    predict_levels,
    shares_by_frame,
)
from hephaestus_baselines.probes.kind_report import _measure_activity, _measure_intensity, _Part
from hephaestus_baselines.probes.kind_scores import (
    best_f1_threshold,
    gaps,
    interval,
    macro,
    score_classes,
    score_levels,
)


def test_levels_are_scored_as_scikit_learn_scores_them() -> None:
    metrics = pytest.importorskip("sklearn.metrics")
    rng = np.random.default_rng(0)
    truth, said = rng.integers(0, 3, 50), rng.integers(0, 3, 50)
    weight = rng.integers(0, 3, (2, 50)).astype("f8")
    found = score_levels(truth, said, 3, weight)
    for place in range(2):
        kappa = metrics.cohen_kappa_score(truth, said, weights="quadratic", sample_weight=weight[place])
        error = metrics.mean_absolute_error(truth, said, sample_weight=weight[place])
        assert found["quadratic_kappa"][place] == pytest.approx(kappa)
        assert found["mae"][place] == pytest.approx(error)
    same = score_levels(truth, truth, 3, np.ones(50))
    assert (same["mae"], same["quadratic_kappa"], same["accuracy"]) == (0, 1, 1)
    assert np.isnan(score_levels(np.ones(4, int), np.ones(4, int), 3, np.ones(4))["quadratic_kappa"])


def test_classes_are_scored_as_scikit_learn_scores_them() -> None:
    metrics = pytest.importorskip("sklearn.metrics")
    rng = np.random.default_rng(1)
    truth, said = rng.random((60, 2)) < 0.3, rng.random((60, 2))
    limits = np.array([best_f1_threshold(truth[:, at], said[:, at]) for at in range(2)])
    found = score_classes(truth, said, limits, np.ones((1, 60)))
    for at in range(2):
        expected = metrics.average_precision_score(truth[:, at], said[:, at])
        assert found["average_precision"][at, 0] == pytest.approx(expected)
        f1 = metrics.f1_score(truth[:, at], said[:, at] >= limits[at])
        assert found["f1"][at, 0] == pytest.approx(f1)
        tried = [metrics.f1_score(truth[:, at], said[:, at] >= limit) for limit in said[:, at]]
        assert f1 == pytest.approx(max(tried))
    assert best_f1_threshold(np.zeros(3, bool), np.ones(3)) == 0.5


def test_means_leave_out_classes_and_undefined_scores() -> None:
    scores = np.array([[0.2, np.nan], [0.4, 0.5], [0.9, 0.9]])
    np.testing.assert_allclose(macro(scores, np.array([True, True, False])), [0.3, 0.5])
    assert np.isnan(macro(scores, np.zeros(3, bool))).all()
    assert np.isnan(interval(np.full(3, np.nan), 0.95)).all()
    better = gaps(
        {"mae": np.array(1.0), "accuracy": np.array(0.9)}, {"mae": np.array(3.0), "accuracy": np.array(0.5)}
    )
    assert float(better["mae"]) == 2
    assert float(better["accuracy"]) == pytest.approx(0.4)


def test_probabilities_of_levels_never_rise() -> None:
    above = np.array([[0.9, 0.8], [0.9, 0.2], [0.1, 0.9], [0.5, 0.5]], "f4")
    assert predict_levels(above).tolist() == [2, 1, 0, 0]


def test_controls_know_frames_alone() -> None:
    frames = ["a", "a", "b", "b"]
    truth = np.array([[True, False], [True, True], [False, True], [False, True]])
    np.testing.assert_allclose(
        shares_by_frame(frames, truth, ["a", "b", "c"]), [[1, 0.5], [0, 1], [0.5, 0.75]]
    )
    assert median_levels(frames, np.array([0, 0, 2, 2]), ["a", "b", "c"]).tolist() == [0, 2, 0]


def part(count: int, seed: int, frames: tuple[str, ...] = ("a", "b")) -> _Part:
    """Windows whose first two features tell type and intensity, each an event of its own."""
    rng = np.random.default_rng(seed)
    level = rng.integers(0, 3, count)
    kind = rng.integers(0, 2, count)
    features = rng.normal(0, 1, (count, 5)).astype("f4")
    features[:, 0] += 6 * kind
    features[:, 1] += 6 * level
    activities = np.zeros((count, len(activity_types())), bool)
    activities[np.arange(count), kind] = True
    activities[0, 4] = True  # of which there is a single window
    rows = tuple(
        PredictedItem(frames[at % len(frames)], ("20190101_20190113",), True, events=(f"event {at}",))
        for at in range(count)
    )
    return _Part(features, WindowKinds(activities, level), rows)


@pytest.fixture
def parts() -> Any:
    return {"train": part(120, 1), "validation": part(60, 2), "test": part(60, 3)}


def test_types_of_activity_are_told_with_support_and_intervals(parts: Any) -> None:
    _, classes, scores, controls = _measure_activity(parts, 0)
    assert [one.name for one in classes] == ["Mogi", "Dyke", "Earthquake"]
    assert [bool(one.too_few) for one in classes] == [False, False, True]
    assert "1 window in test" in classes[2].too_few
    assert classes[0].windows["train"] + classes[1].windows["train"] == 120
    assert scores["macro_average_precision"].value > 0.95
    for one in controls.values():
        assert one.gaps["macro_average_precision"].low > 0.2
        assert one.scores["macro_average_precision"].value < 0.7
    assert scores["macro_f1"].low <= scores["macro_f1"].value <= scores["macro_f1"].high


def test_levels_of_intensity_are_told(parts: Any) -> None:
    _, classes, scores, controls = _measure_intensity(parts, 0)
    assert [one.name for one in classes] == ["Low", "Medium", "High"]
    assert scores["mae"].value < 0.2
    assert scores["quadratic_kappa"].value > 0.8
    for one in controls.values():
        assert one.gaps["mae"].low > 0.2


def test_test_windows_choose_nothing(parts: Any) -> None:
    """Neither penalty nor threshold depends on the test part."""
    other = {**parts, "test": part(40, 9)}
    first, second = (_measure_activity(found, 0) for found in (parts, other))
    assert first[0] == second[0]
    assert [one.threshold for one in first[1]] == [one.threshold for one in second[1]]


def test_one_class_alone_gives_heads_that_say_so() -> None:
    features = np.random.default_rng(0).normal(0, 1, (20, 3)).astype("f4")
    alone = np.ones((20, 1), bool)
    head = fit_activity_head(features, alone, features, alone)
    assert (head.predict(features) > 0.9).all()
    lowest = np.zeros(20, int)
    found = fit_intensity_head(features, lowest, features, lowest)
    assert predict_levels(found.predict(features)).tolist() == [0] * 20
