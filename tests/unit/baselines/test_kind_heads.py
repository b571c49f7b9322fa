"""Tests of heads that tell the kind of deformation from frozen features."""

from __future__ import annotations

import numpy as np
import pytest

from hephaestus_baselines.evaluation.kind_metrics import predict_classes
from hephaestus_baselines.probes.kind_heads import KindHead, fit_kind_head


def windows(count: int, seed: int, classes: int) -> tuple[np.ndarray, np.ndarray]:
    """Return features whose first tells the class, and the classes."""
    rng = np.random.default_rng(seed)
    label = rng.integers(0, classes, count)
    features = rng.normal(0, 1, (count, 5)).astype("f4")
    features[np.arange(count), label] += 6
    features[:, 4] += 6 * label
    return features, label


@pytest.mark.parametrize("ordered", [False, True])
def test_heads_tell_classes_and_levels(ordered: bool) -> None:
    features, label = windows(120, 1, 3)
    seen, known = windows(60, 2, 3)
    scores = []

    def score(head: KindHead) -> float:
        answers = predict_classes(head.predict(seen), ordered=ordered)
        scores.append((float((answers == known).mean()), head.penalty))
        return scores[-1][0]

    head = fit_kind_head(features, label, 3, score, ordered=ordered)
    assert len(head.regressions) == (2 if ordered else 3)
    assert (max(scores)[0], head.penalty) in scores  # of the penalty that is best on validation
    new, truth = windows(200, 3, 3)
    said = head.predict(new)
    np.testing.assert_allclose(said.sum(1), 1, rtol=1e-5)
    assert said.min() >= 0
    assert (predict_classes(said, ordered=ordered) == truth).mean() > 0.9


def test_one_class_alone_gives_heads_that_say_so() -> None:
    features = np.random.default_rng(0).normal(0, 1, (20, 3)).astype("f4")
    for ordered in (False, True):
        for label in (np.zeros(20, int), np.full(20, 2)):
            head = fit_kind_head(features, label, 3, lambda _: 0.0, ordered=ordered)
            said = predict_classes(head.predict(features), ordered=ordered)
            assert said.tolist() == label.tolist()
