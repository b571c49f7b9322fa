"""Tests of simulated windows, of training on them first, and of calibration in the last layer."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from hephaestus_baselines.data.simulated_windows import SimulatedWindows
from hephaestus_baselines.evaluation.calibration import apply_platt, fit_platt
from hephaestus_baselines.models.architectures import build_model
from hephaestus_baselines.training.checkpoints import METADATA_KEY, read_checkpoint
from hephaestus_baselines.training.inference import load_trained_model, logits_to_probability
from hephaestus_baselines.training.output_calibration import (
    calibrate_output,
    find_output_layer,
    sampling_weights,
)
from hephaestus_baselines.training.pretraining import PRETRAINED_CHECKPOINT_FILE, read_pretrained_weights
from hephaestus_baselines.training.trainer import train_model
from hephaestus_build.core.frames import Frame
from toy_training import ToyWindows, toy_prepared, toy_recipe

SMALL = {"size": 64}


@pytest.fixture
def no_cubes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hephaestus_baselines.training.inference.WindowDataset", ToyWindows)


def test_every_second_simulated_window_deforms_and_all_follow_from_the_seed() -> None:
    windows = SimulatedWindows(12, seed=3, **SMALL)
    read = [windows[index] for index in range(12)]
    assert [int(one["label"]) for one in read] == [1, 0] * 6
    for deforming, quiet in zip(read[::2], read[1::2], strict=True):
        assert torch.equal(deforming["dem"], quiet["dem"])  # the same place
        assert not torch.equal(deforming["phase"], quiet["phase"])
        assert not quiet["mask"].any()
        assert deforming["phase"].abs().max() <= np.pi
    again = SimulatedWindows(50, seed=3, **SMALL)[5]
    assert all(torch.equal(again[name], values) for name, values in read[5].items())
    other = SimulatedWindows(12, seed=4, **SMALL)[0]
    assert not torch.equal(other["phase"], read[0]["phase"])
    assert Frame("199A_00000_000000").is_simulated  # no satellite flies this track
    with pytest.raises(IndexError):
        windows[12]


def test_a_simulated_series_shares_its_primary_date() -> None:
    window = SimulatedWindows(2, seed=1, steps=3, **SMALL)[0]
    assert window["phase"].shape == (3, 64, 64)
    first, *others = window["atmosphere"][:, 0]
    assert all(torch.equal(first, other) for other in others)
    assert not torch.equal(window["atmosphere"][0, 1], window["atmosphere"][1, 1])


@pytest.mark.parametrize("task", ["classification", "segmentation"])
def test_a_run_starts_from_what_it_learnt_of_simulated_interferograms(
    task: str, tmp_path: Path, no_cubes: None
) -> None:
    fields = {"task": task, "weights": "simulated", "pretraining_windows": 8, "epochs": 1}
    recipe = toy_recipe(**fields, learning_rate=1e-12)  # training leaves the weights where they are
    train_model(recipe, toy_prepared(), tmp_path / "one", device="cpu")
    kept = tmp_path / "one" / PRETRAINED_CHECKPOINT_FILE
    about = read_checkpoint(kept)[METADATA_KEY]  # checks the hash
    assert about.recipe == recipe
    assert about.simulated
    weights = read_pretrained_weights(kept)
    trained = load_trained_model(tmp_path / "one" / "best.ckpt", device="cpu")
    for name, values in trained.model.named_parameters():
        torch.testing.assert_close(values, weights[name], atol=1e-5, rtol=1e-4)
    # the same again, from the seed alone
    train_model(recipe, toy_prepared(), tmp_path / "two", device="cpu")
    twice = read_pretrained_weights(tmp_path / "two" / PRETRAINED_CHECKPOINT_FILE)
    assert all(torch.equal(twice[name], values) for name, values in weights.items())


def test_probabilities_are_calibrated_by_the_last_layer_alone() -> None:
    torch.manual_seed(0)
    images = torch.randn(3, 4, 64, 64)
    for name, task in (("resnet-tiny", "classification"), ("unet-tiny", "segmentation")):
        model = build_model(name, task, 4, size=64).eval()  # type: ignore[arg-type]
        layer = find_output_layer(model)
        with torch.no_grad():
            before = logits_to_probability(model(images))
            state = calibrate_output(model, model.state_dict(), 0.7, -1.3)
            changed = {
                key for key, values in model.state_dict().items() if not torch.equal(values, state[key])
            }
            assert changed == {f"{layer}.weight", f"{layer}.bias"}
            model.load_state_dict(state)
            after = logits_to_probability(model(images))
        torch.testing.assert_close(
            after.double(), torch.from_numpy(apply_platt(before.numpy(), 0.7, -1.3)), atol=1e-5, rtol=1e-4
        )


def test_windows_that_stand_for_many_weigh_as_many() -> None:
    rng = np.random.default_rng(0)
    logit = rng.normal(-2, 1.5, 4000)
    label = rng.random(4000) < 1 / (1 + np.exp(-logit))
    probability = 1 / (1 + np.exp(-2 * logit))  # overconfident by a factor of two
    chosen = np.sort(np.concatenate([np.flatnonzero(label)[:200], np.flatnonzero(~label)[:200]]))
    weight = sampling_weights(list(label), list(chosen))
    assert weight.sum() == pytest.approx(4000)
    slope, offset = fit_platt(label[chosen], probability[chosen], weight)
    assert slope == pytest.approx(0.5, abs=0.1)
    assert offset == pytest.approx(0, abs=0.3)
    # without weights, half of the windows seem to deform
    assert fit_platt(label[chosen], probability[chosen])[1] > 0.5


def test_a_calibrated_run_keeps_its_scores_and_tells_the_mapping(tmp_path: Path, no_cubes: None) -> None:
    plain, calibrated = (toy_recipe(epochs=2, calibrated=calibrated) for calibrated in (False, True))
    prepared = toy_prepared(held=20)
    for recipe, place in ((plain, "plain"), (calibrated, "calibrated")):
        train_model(recipe, prepared, tmp_path / place, device="cpu")
    known, mapped = (read_checkpoint(tmp_path / place / "best.ckpt") for place in ("plain", "calibrated"))
    assert known[METADATA_KEY].calibration is None
    slope, offset = mapped[METADATA_KEY].calibration
    assert (slope, offset) != (1.0, 0.0)
    model = load_trained_model(tmp_path / "plain" / "best.ckpt", device="cpu").model
    layer = f"model.{find_output_layer(model)}"
    torch.testing.assert_close(
        mapped["state_dict"][f"{layer}.weight"], slope * known["state_dict"][f"{layer}.weight"]
    )
    # a run goes on from weights that are not mapped
    last = [
        read_checkpoint(tmp_path / place / "last.ckpt")["state_dict"] for place in ("plain", "calibrated")
    ]
    assert all(torch.equal(last[0][name], last[1][name]) for name in last[0])
