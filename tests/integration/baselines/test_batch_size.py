"""Tests of the choice of a batch size: the largest that fits, once for a run, wherever it goes on."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
import torch

from hephaestus_baselines.config.run_config import Recipe, read_recipe
from hephaestus_baselines.training import batch_size
from hephaestus_baselines.training.batch_size import (
    largest_fitting_batch,
    make_step_trial,
    resolve_precision,
    settle_batch_size,
)
from hephaestus_build.core.errors import HephaestusError
from hephaestus_build.core.machine.limits import MachineLimits
from toy_training import toy_recipe

CPU = torch.device("cpu")


class Device:
    """Stands for a card on which at most `limit` samples fit; it counts the steps that are tried."""

    def __init__(self, limit: int) -> None:
        self.limit, self.tried = limit, list[int]()

    def __call__(self, count: int) -> None:
        self.tried.append(count)
        if count > self.limit:
            raise torch.OutOfMemoryError("CUDA out of memory")


@pytest.mark.parametrize(
    ("limit", "most", "found"), [(100, 1000, 64), (64, 1000, 64), (1000, 48, 32), (1, 1000, 0)]
)
def test_the_largest_power_of_two_that_fits_is_found(limit: int, most: int, found: int) -> None:
    device = Device(limit)
    assert largest_fitting_batch(device, most) == found
    assert max(device.tried) <= max(2, 2 * found)  # nothing far beyond what fits is tried


def test_the_choice_is_written_into_the_run_which_keeps_it(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    asked = toy_recipe(batch_size="auto")
    chosen = settle_batch_size(asked, tmp_path, 10_000, CPU, try_step=Device(20))
    assert chosen.samples_per_step == 16
    assert read_recipe(tmp_path / "recipe.yaml") == chosen
    other = Device(4096)  # a larger machine
    with caplog.at_level(logging.WARNING):
        again = settle_batch_size(asked, tmp_path, 10_000, CPU, try_step=other)
    assert again == chosen
    assert not other.tried
    assert "keeps the batch size 16" in caplog.text
    # another run in the same folder does not take it
    third = settle_batch_size(toy_recipe(batch_size="auto", seed=1), tmp_path, 10_000, CPU, try_step=other)
    assert third.samples_per_step > 16


def test_a_number_is_taken_as_it_is_and_few_samples_still_make_an_epoch(tmp_path: Path) -> None:
    device = Device(4096)
    assert settle_batch_size(toy_recipe(batch_size=6), tmp_path, 50, CPU, try_step=device).batch_size == 6
    assert not device.tried
    few = settle_batch_size(toy_recipe(batch_size="auto"), tmp_path, 100, CPU, try_step=device)
    assert few.samples_per_step == 4  # 25 steps


def test_a_window_that_does_not_fit_is_refused_with_advice(tmp_path: Path) -> None:
    with pytest.raises(HephaestusError, match=r"not even 2 samples of 32 pixels .* smaller window"):
        settle_batch_size(toy_recipe(batch_size="auto"), tmp_path, 100, CPU, try_step=Device(0))
    assert not (tmp_path / "recipe.yaml").exists()


def test_on_a_cpu_the_memory_of_the_control_group_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    def most(memory: int) -> int:
        limits = MachineLimits(2, 2, None, 1 << 40, memory)
        monkeypatch.setattr(batch_size, "read_machine_limits", lambda: limits)
        return largest_fitting_batch(make_step_trial(toy_recipe(size=64), CPU), 4096)

    little, more = most(32 << 20), most(256 << 20)
    assert 2 <= little < more <= 4096
    assert most(1 << 16) == 0


def test_the_precision_is_that_of_the_device(monkeypatch: pytest.MonkeyPatch) -> None:
    recipe: Recipe = toy_recipe(precision="auto")
    assert resolve_precision(recipe, CPU) == "32-true"
    for capability, expected in (((9, 0), "bf16-mixed"), ((7, 0), "32-true")):
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _, known=capability: known)
        assert resolve_precision(recipe, torch.device("cuda")) == expected
    assert resolve_precision(toy_recipe(precision="16-mixed"), CPU) == "16-mixed"


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_on_a_gpu_a_step_of_the_model_is_tried() -> None:
    assert largest_fitting_batch(make_step_trial(toy_recipe(size=64), torch.device("cuda")), 64) == 64
