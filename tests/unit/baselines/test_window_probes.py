"""Tests of linear and nearest-neighbour probes, and of the cache of features."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hephaestus_baselines.probes.feature_cache import WindowFeatures, cached_features
from hephaestus_baselines.probes.logistic_regression import FeatureScale, fit_logistic_regression
from hephaestus_baselines.probes.window_probes import choose_by_score, fit_knn_probe, fit_linear_probe


def windows(count: int, *, width: int = 6, seed: int = 0, shift: float = 1.5) -> WindowFeatures:
    rng = np.random.default_rng(seed)
    label = (np.arange(count) % 3 == 0).astype("u1")
    features = rng.normal(5, 3, (count, width)).astype("f4")
    features[:, 0] += shift * 3 * label
    features[:, -1] = 7  # never changes
    return WindowFeatures(features, label, np.ones(count, "f4"))


@pytest.mark.parametrize("penalty", [1.0, 0.01, 0.0001])
def test_the_regression_is_that_of_scikit_learn(penalty: float) -> None:
    linear = pytest.importorskip("sklearn.linear_model")
    data = windows(120)
    inputs = FeatureScale.of(data.features).apply(data.features)
    found = fit_logistic_regression(inputs, data.label, penalty)
    expected = linear.LogisticRegression(C=1 / (penalty * 120), tol=1e-10, max_iter=10_000)
    expected.fit(inputs, data.label)
    np.testing.assert_allclose(found.predict(inputs), expected.predict_proba(inputs)[:, 1], atol=2e-5)


def test_one_class_alone_and_far_values_stay_finite() -> None:
    data = windows(30)
    inputs = FeatureScale.of(data.features).apply(data.features * 1e6)
    for label in (np.zeros(30), np.ones(30), data.label):
        found = fit_logistic_regression(inputs, label, 1e-4).predict(inputs)
        assert np.isfinite(found).all()


@pytest.mark.parametrize("fit", [fit_linear_probe, fit_knn_probe])
def test_probes_find_what_the_features_tell_and_nothing_else(fit: Any) -> None:
    scored = np.ones(90, bool)
    for shift, low, high in ((4.0, 0.9, 1.0), (0.0, 0.3, 0.7)):
        training, known, test = (windows(90, seed=seed, shift=shift) for seed in (1, 2, 3))
        said = fit(training, known, scored).predict(test.features)
        positive, negative = said[test.label > 0], said[test.label == 0]
        area = (positive[:, None] > negative).mean() + 0.5 * (positive[:, None] == negative).mean()
        assert low <= area <= high
        assert said.min() >= 0
        assert said.max() <= 1


def test_the_nearest_neighbour_of_a_training_window_is_itself() -> None:
    data = windows(12)
    probe = fit_knn_probe(data, data, np.ones(12, bool))
    assert probe.choice["neighbours"] in (1, 5, 10)
    alone = WindowFeatures(data.features[:1], data.label[:1], data.data_share[:1])
    assert fit_knn_probe(alone, alone, np.ones(1, bool)).predict(data.features).tolist() == [1.0] * 12


def test_what_is_chosen_depends_on_scored_validation_windows_alone() -> None:
    training, known = windows(60, seed=1), windows(60, seed=2)
    scored = np.arange(60) < 40
    spoiled = WindowFeatures(known.features.copy(), known.label.copy(), known.data_share)
    spoiled.features[40:] *= -100
    spoiled.label[40:] = 1 - spoiled.label[40:]
    first, second = (fit_linear_probe(training, seen, scored).choice for seen in (known, spoiled))
    assert first == second


def test_the_first_of_equal_choices_is_taken() -> None:
    assert choose_by_score([3, 2, 1], lambda choice: 1.0) == 3
    assert choose_by_score([3, 2, 1], lambda choice: float("nan")) == 3
    assert choose_by_score([3, 2, 1], lambda choice: -choice) == 1


class Counted:
    """Computes features and counts how often."""

    def __init__(self) -> None:
        self.times = 0

    def __call__(self) -> WindowFeatures:
        self.times += 1
        return windows(5)


def test_features_are_computed_once_for_each_description(tmp_path: Path) -> None:
    compute = Counted()
    about = {"encoder": "a", "weights": "0"}
    first = cached_features(tmp_path, about, 5, compute)
    again = cached_features(tmp_path, about, 5, compute)
    assert compute.times == 1
    for name in ("features", "label", "data_share"):
        np.testing.assert_array_equal(getattr(first, name), getattr(again, name))
    cached_features(tmp_path, {**about, "weights": "1"}, 5, compute)
    assert compute.times == 2
    assert {path.suffix for path in tmp_path.iterdir()} == {".safetensors"}


@pytest.mark.parametrize("damage", ["bit", "cut", "empty", "header", "foreign", "pickle", "pipe"])
def test_files_of_others_and_damaged_ones_are_not_used(
    damage: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    about, compute = {"encoder": "a"}, Counted()
    expected = cached_features(tmp_path, about, 5, compute)
    (path,) = tmp_path.iterdir()
    content = bytearray(path.read_bytes())
    if damage == "bit":
        content[-1] ^= 1
    elif damage == "cut":
        del content[-3:]
    elif damage == "empty":
        content.clear()
    elif damage == "header":
        content[:8] = (1 << 62).to_bytes(8, "little")
    elif damage == "foreign":
        cached_features(tmp_path / "other", {"encoder": "b"}, 5, compute)
        (other,) = (tmp_path / "other").iterdir()
        content = bytearray(other.read_bytes())
    elif damage == "pickle":
        content = bytearray(b"\x80\x04cos\nsystem\n(S'false'\ntR.")
    path.unlink()
    if damage == "pipe":
        os.mkfifo(path)
    else:
        path.write_bytes(content)
    before = compute.times
    found = cached_features(tmp_path, about, 5, compute)
    np.testing.assert_array_equal(found.features, expected.features)
    assert compute.times == before + 1
    if damage != "pipe":  # which is no file, and is replaced
        assert "computed again" in caplog.text
    assert cached_features(tmp_path, about, 5, compute).label.tolist() == expected.label.tolist()
    assert compute.times == before + 1
