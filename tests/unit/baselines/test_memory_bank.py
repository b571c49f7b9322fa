"""Tests of Gaussians of patch features and of distances from them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hephaestus_baselines.probes.anomaly_scores import distance_scale, reduce_patches
from hephaestus_baselines.probes.memory_bank import (
    NearestPatches,
    PatchGaussians,
    PatchSample,
    PositionMoments,
    choose_features,
    shrink_covariance,
)


def patches(samples: int, positions: int, width: int, seed: int = 0) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(seed).normal(3, 2, (samples, positions, width)))


def moments_of(features: torch.Tensor, known: torch.Tensor, cuts: list[int]) -> PositionMoments:
    made = PositionMoments(features.shape[1], features.shape[2])
    for part, seen in zip(torch.split(features, cuts), torch.split(known, cuts), strict=True):
        made.update(part, seen)
    return made


@settings(max_examples=30, deadline=None)
@given(cuts=st.lists(st.integers(1, 5), min_size=1, max_size=6), offset=st.sampled_from([0.0, 1e6]))
def test_moments_do_not_depend_on_the_batches(cuts: list[int], offset: float) -> None:
    count = sum(cuts)
    features = patches(count, 3, 4) + offset
    known = torch.from_numpy(np.random.default_rng(count).random((count, 3)) > 0.3)
    found = moments_of(features, known, cuts)
    for place in range(3):
        chosen = features[known[:, place], place].numpy()
        assert found.count[place] == len(chosen)
        if len(chosen):
            np.testing.assert_allclose(found.mean[place], chosen.mean(0), rtol=1e-12)
            around = chosen - chosen.mean(0)
            np.testing.assert_allclose(found.scatter[place], around.T @ around, atol=1e-6)
    every = np.concatenate([features[known[:, place], place].numpy() for place in range(3)])
    if len(every):
        pooled = found.pooled()
        np.testing.assert_allclose(pooled.mean[0], every.mean(0), rtol=1e-12)
        around = every - every.mean(0)
        np.testing.assert_allclose(pooled.scatter[0], around.T @ around, atol=1e-5)


@pytest.mark.parametrize("count", [2, 5, 40, 400])
def test_shrinkage_is_that_of_scikit_learn(count: int) -> None:
    oas = pytest.importorskip("sklearn.covariance").oas
    mixed = patches(count, 2, 6, seed=count) @ patches(6, 1, 6, seed=9)[:, 0]
    for place in range(2):
        samples = mixed[:, place].numpy()
        expected, _ = oas(samples)
        around = samples - samples.mean(0)
        found = shrink_covariance(
            torch.from_numpy(around.T @ around / count)[None], torch.tensor([float(count)]).double()
        )
        np.testing.assert_allclose(found[0], expected, rtol=1e-9)


def test_distances_are_those_of_mahalanobis() -> None:
    features = patches(300, 2, 5, seed=3) @ patches(5, 1, 5, seed=4)[:, 0]
    gaussians = PatchGaussians.fit(moments_of(features, torch.ones(300, 2, dtype=torch.bool), [300]))
    asked = patches(7, 2, 5, seed=5)
    found = gaussians.distances(asked)
    for place in range(2):
        covariance = (gaussians.factor[place] @ gaussians.factor[place].T).numpy()
        around = (asked[:, place] - gaussians.mean[place]).numpy()
        expected = np.sqrt(np.einsum("bi,ij,bj->b", around, np.linalg.inv(covariance), around))
        np.testing.assert_allclose(found[:, place], expected, rtol=1e-8)


@pytest.mark.parametrize("count", [2, 3])
def test_fewer_samples_than_features_give_finite_distances(count: int) -> None:
    features = patches(count, 4, 64)
    known = torch.ones(count, 4, dtype=torch.bool)
    known[:, 1] = False  # a place without data takes what is known of the others
    gaussians = PatchGaussians.fit(moments_of(features, known, [count]))
    near, far = gaussians.distances(features), gaussians.distances(features + 50)
    assert bool(near.isfinite().all())
    assert bool((far > near).all())


def test_what_never_changes_gives_no_anomaly_of_rounding() -> None:
    features = torch.ones(5, 2, 3, dtype=torch.float64)
    features[:, 1] = patches(5, 1, 3)[:, 0]
    gaussians = PatchGaussians.fit(moments_of(features, torch.ones(5, 2, dtype=torch.bool), [5]))
    same = gaussians.distances(features + 1e-7)
    assert float(same[:, 0].max()) < 1e-3
    still = PatchGaussians.fit(
        moments_of(torch.ones(5, 2, 3, dtype=torch.float64), torch.ones(5, 2, dtype=torch.bool), [5])
    )
    assert float(still.distances(torch.ones(1, 2, 3)).max()) == 0


def test_one_sample_is_too_few() -> None:
    moments = moments_of(patches(1, 1, 3), torch.ones(1, 1, dtype=torch.bool), [1])
    with pytest.raises(ValueError, match="two samples"):
        PatchGaussians.fit(moments)


def test_features_are_kept_at_random_by_the_seed() -> None:
    first = choose_features(400, 64, 0)
    assert first.tolist() == sorted(set(first.tolist()))
    assert len(first) == 64
    assert torch.equal(first, choose_features(400, 64, 0))
    assert not torch.equal(first, choose_features(400, 64, 1))
    assert choose_features(5, 64, 0).tolist() == [0, 1, 2, 3, 4]
    assert reduce_patches(torch.zeros(2, 3, 3, 400), 0).shape == (2, 9, 64)


def test_the_scale_is_a_high_distance_of_quiet_patches() -> None:
    distances = torch.arange(1, 101, dtype=torch.float64)
    assert distance_scale([distances[:50], distances[50:]], 4) == pytest.approx(99.01)
    assert distance_scale([], 4) == 2
    assert distance_scale([torch.zeros(3, dtype=torch.float64)], 4) > 0


def test_a_sample_of_patches_has_those_of_all_batches_and_no_more_than_it_may() -> None:
    sample, every = PatchSample(3, 50, 0), []
    for number in range(20):
        features = patches(4, 5, 3, number).float()
        known = torch.from_numpy(np.random.default_rng(number).random((4, 5)) > 0.2)
        sample.update(features, known)
        every.append(features[known].double())
    assert sample.patches.shape == (50, 3)
    batches = [
        {tuple(row) for row in batch.tolist()} & {tuple(row) for row in sample.patches.tolist()}
        for batch in every
    ]
    assert sum(map(len, batches)) == 50
    assert sum(bool(found) for found in batches) > 12  # early ones stay as likely as late ones


def test_distances_are_those_from_the_nearest_patch_in_deviations() -> None:
    quiet = patches(40, 6, 4) * torch.tensor([1.0, 10.0, 100.0, 0.0]).double()
    sample = PatchSample(4, 10_000, 0)
    sample.update(quiet, torch.ones(40, 6, dtype=torch.bool))
    bank = NearestPatches.fit(sample)
    known = quiet.flatten(0, 1).numpy()
    new = patches(3, 6, 4, 9)
    new[..., 3] = 0
    deviation = known.std(0)[:3]
    around = (new.numpy()[:, :, None, :3] - known[None, None, :, :3]) / deviation
    expected = np.sqrt((around**2).sum(-1)).min(-1)
    np.testing.assert_allclose(bank.distances(new).numpy(), expected, rtol=1e-6)
    assert float(bank.distances(quiet).max()) < 1e-4
    with pytest.raises(ValueError, match="two patches"):
        NearestPatches.fit(PatchSample(4, 10, 0))
