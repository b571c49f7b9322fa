"""Tests of the comparison of two presets: seeds with their like, on the same items, with an interval."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from hephaestus_baselines.evaluation.bootstrap import bootstrap_gaps, bootstrap_mean_gaps
from hephaestus_baselines.evaluation.metrics import choose_threshold
from hephaestus_baselines.experiments.compare_grids import compare_grids
from hephaestus_build.core.errors import UsageError
from toy_predictions import classified
from toy_results import result

LABEL = np.arange(60) % 5 == 0


def predictions(seed: int, skill: float, part: str = "test"):
    chance = np.random.default_rng(seed)
    return classified(LABEL, np.clip(chance.normal(0.3 + skill * LABEL, 0.15), 0, 1), part=part)


def with_threshold(seed: int, skill: float):
    return predictions(seed, skill), choose_threshold(predictions(seed, skill, "validation"), "items")


def write_grid(folder: Path, skill: float, seeds: tuple[int, ...]) -> Path:
    for seed in seeds:
        home = folder / "runs" / f"run-{seed}"
        home.mkdir(parents=True)
        result(seed=seed, skill=skill).write(home / "result.json")
        for part in ("validation", "test"):
            predictions(seed, skill, part).write(home / f"{part}.npz")
    return folder


def test_one_training_gives_the_gap_of_one_and_several_give_their_mean():
    pairs = [(with_threshold(seed, 0.5), with_threshold(10 + seed, 0.2)) for seed in range(3)]
    one = bootstrap_mean_gaps(pairs[:1], resamples=100)
    assert one == bootstrap_gaps(*pairs[0], resamples=100)
    mean = bootstrap_mean_gaps(pairs, resamples=100)
    for name, gap in mean.items():
        single = [bootstrap_gaps(*pair, resamples=2)[name].value for pair in pairs]
        assert gap.value == pytest.approx(np.mean(single))
    assert mean["auroc"].low > 0


def test_trainings_that_disagree_widen_the_interval():
    better, worse = (with_threshold(5, skill) for skill in (0.5, 0.1))
    agree = bootstrap_mean_gaps([(better, worse)] * 4, resamples=200)["average_precision"]
    disagree = bootstrap_mean_gaps([(better, worse)] * 2 + [(worse, better)] * 2, resamples=200)
    assert agree.low > 0
    assert disagree["average_precision"].low < 0 < disagree["average_precision"].high
    # a recipe compared with itself differs by nothing
    same = bootstrap_mean_gaps([(better, better)] * 2, resamples=50)
    assert all((gap.value, gap.low, gap.high) == (0, 0, 0) for gap in same.values())


def test_grids_are_compared_by_the_seeds_that_both_have(tmp_path: Path):
    first = write_grid(tmp_path / "one", 0.1, (0, 1, 2))
    second = write_grid(tmp_path / "two", 0.6, (1, 2, 3))
    found = {(one.unit, one.score): one for one in compare_grids(first, second)}
    compared = found["items", "average_precision"]
    assert compared.seeds == (1, 2)
    assert compared.simulated
    assert compared.gap.low > 0
    swapped = {(one.unit, one.score): one for one in compare_grids(second, first)}
    assert swapped["items", "average_precision"].gap.value == pytest.approx(-compared.gap.value)


def test_grids_without_common_runs_and_double_runs_are_refused(tmp_path: Path):
    first, second = write_grid(tmp_path / "one", 0.1, (0,)), write_grid(tmp_path / "two", 0.1, (1,))
    with pytest.raises(UsageError, match="no finished runs of the same task"):
        list(compare_grids(first, second))
    (first / "runs" / "run-0").rename(first / "runs" / "elsewhere")
    write_grid(first, 0.1, (0,))
    with pytest.raises(UsageError, match="several runs of resnet-10 with seed 0"):
        list(compare_grids(first, first))
