"""Tests of training: gradients, seeds, resuming, and learning from the signal only."""

from __future__ import annotations

import csv
import dataclasses
import logging
import os
import signal
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from hephaestus_baselines.config.channels import channel_moments
from hephaestus_baselines.config.run_config import Recipe
from hephaestus_baselines.config.tasks import TASK_SPECS
from hephaestus_baselines.data.batch_expansion import ChannelStack
from hephaestus_baselines.data.packed_batches import pack_samples
from hephaestus_baselines.data.preparation import PreparedData
from hephaestus_baselines.data.samplers import EpochBatchSampler, derive_seed
from hephaestus_baselines.data.task_items import select_task_items
from hephaestus_baselines.evaluation.kind_metrics import rate_kinds
from hephaestus_baselines.evaluation.metrics import choose_threshold, score_predictions
from hephaestus_baselines.evaluation.predictions import count_pixel_histograms
from hephaestus_baselines.models.architectures import build_model
from hephaestus_baselines.models.losses import focal_loss
from hephaestus_baselines.training.batch_collector import (
    BatchCollector,
    _are_probabilities,
    _histograms,
    count_histograms_on_device,
    data_shares,
)
from hephaestus_baselines.training.batch_preparation import BatchPreparation
from hephaestus_baselines.training.inference import (
    expand_on_device,
    load_trained_model,
    make_collector,
    make_window_dataset,
    resolve_device,
    to_channels_last,
    translate_reader_errors,
)
from hephaestus_baselines.training.prediction import predict_items
from hephaestus_baselines.training.schedule import cosine_schedule
from hephaestus_baselines.training.trainer import train_model
from hephaestus_build.core.errors import HephaestusError, UsageError
from hephaestus_build.core.progress import NullListener
from hephaestus_build.dataset.splits import SplitPart
from toy_training import ToyWindows, kind_of, toy_items, toy_prepared, toy_recipe

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def no_cubes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hephaestus_baselines.training.inference.WindowDataset", ToyWindows)


def weights(checkpoint: Path) -> dict[str, torch.Tensor]:
    content = torch.load(checkpoint, weights_only=True)
    return {name.removeprefix("model."): values for name, values in content["state_dict"].items()}


def history(folder: Path) -> list[dict[str, str]]:
    with (folder / "metrics.csv").open() as lines:
        rows = list(csv.DictReader(lines))
    clocks = ("seconds", "samples_per_second")
    return [{name: value for name, value in row.items() if name not in clocks} for row in rows]


@pytest.mark.parametrize(
    "job", [{}, {"SLURM_JOB_ID": "7", "SLURM_JOB_NAME": "grid", "SLURM_NTASKS": "20", "SLURM_NNODES": "4"}]
)
def test_a_run_is_one_process_on_machines_of_slurm(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, job: dict[str, str]
) -> None:
    command = tmp_path / "bin" / "srun"
    command.parent.mkdir()
    command.write_text("#!/bin/sh\nexit 1\n")
    command.chmod(0o755)
    monkeypatch.setenv("PATH", f"{command.parent}{os.pathsep}{os.environ['PATH']}")
    for name, value in job.items():
        monkeypatch.setenv(name, value)
    before = signal.getsignal(signal.SIGUSR1)
    best = train_model(toy_recipe(epochs=1), toy_prepared(), tmp_path / "run", device="cpu")
    assert best.exists()
    assert len(history(tmp_path / "run")) == 1
    assert signal.getsignal(signal.SIGUSR1) is before


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


class StoppedError(RuntimeError):
    """Raised to stop a run in these tests."""


class StopAt(NullListener):
    """Listener that stops a run at the start of an epoch."""

    def __init__(self, epoch: int, error: BaseException) -> None:
        self.epoch, self.error = epoch, error

    def stage(self, name: str, total: int) -> None:
        if f"epoch {self.epoch}/" in name:
            raise self.error


@pytest.mark.parametrize("task", ["classification", "segmentation"])
def test_steps_are_those_of_a_loop_that_clears_gradients(task: str, tmp_path: Path) -> None:
    loss = "cross-entropy" if task == "classification" else "focal"
    recipe = toy_recipe(task=task, epochs=1, augment=False, loss=loss)
    prepared = toy_prepared(train=12)
    train_model(recipe, prepared, tmp_path, device="cpu")

    torch.manual_seed(derive_seed(recipe.seed))
    model = build_model(recipe.model, recipe.task, 3, size=32).to(memory_format=torch.channels_last)
    stack = ChannelStack(recipe.inputs, 1, channel_moments(prepared.statistics, recipe.inputs))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=1e-2, fused=True)
    items = prepared.items["train"]
    windows = make_window_dataset(recipe, items, prepared)
    batches = list(
        EpochBatchSampler(
            [item.positive for item in items], recipe.seed, 4, frames=[item.frame for item in items]
        )
    )
    assert len(batches) == 3
    for draws in batches:
        batch = torch.utils.data.default_collate([windows[draw] for draw in draws])
        fields = expand_on_device(batch, CPU)
        logits = model(to_channels_last(stack(fields)))
        if task == "classification":
            value = focal_loss(logits, batch["label"], 0).mean()
        else:
            truth = (fields["mask"] > 0).any(1).long()
            value = focal_loss(logits, truth, 2)[batch["inside"]].mean()
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
    ours = weights(tmp_path / "last.ckpt")
    for name, values in model.state_dict().items():
        torch.testing.assert_close(ours[name], values, rtol=1e-4, atol=1e-6, msg=name)


def test_one_seed_gives_the_same_numbers_twice_whatever_ran_before(tmp_path: Path) -> None:
    recipe = toy_recipe(epochs=2)
    for place in ("one", "two"):
        torch.manual_seed(len(place) * 7)
        torch.rand(5)
        train_model(recipe, toy_prepared(), tmp_path / place, device="cpu")
    other = toy_recipe(epochs=2, seed=1)
    train_model(other, toy_prepared(), tmp_path / "other", device="cpu")
    first, second, third = (weights(tmp_path / place / "last.ckpt") for place in ("one", "two", "other"))
    assert same(first, second)
    assert history(tmp_path / "one") == history(tmp_path / "two")
    assert not same(first, third)


@pytest.mark.parametrize(
    ("task", "series"),
    [pytest.param("classification", False, marks=pytest.mark.slow), ("segmentation", True)],
)
def test_a_run_that_was_stopped_ends_as_if_it_had_not_been(
    task: str, series: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # a model that uses random numbers
    monkeypatch.setattr(
        "hephaestus_baselines.training.trainer.build_model",
        lambda *args, **options: nn.Sequential(nn.Dropout2d(0.2), build_model(*args, **options)),
    )
    recipe = toy_recipe(task=task, series=series, atmosphere="both", epochs=4, schedule="cosine")
    prepared = toy_prepared(series=series)
    train_model(recipe, prepared, tmp_path / "whole", device="cpu")
    for epoch in (2, 4):
        with pytest.raises(StoppedError):
            train_model(
                recipe, prepared, tmp_path / "cut", device="cpu", listener=StopAt(epoch, StoppedError())
            )
        assert len(history(tmp_path / "cut")) == epoch - 1
        torch.rand(3)
    train_model(recipe, prepared, tmp_path / "cut", device="cpu")
    assert history(tmp_path / "cut") == history(tmp_path / "whole")
    assert len(history(tmp_path / "cut")) == 4
    for name in ("last.ckpt", "best.ckpt"):
        assert same(weights(tmp_path / "cut" / name), weights(tmp_path / "whole" / name))


def stop_and_resume(folder: Path, workers: int, device: str) -> None:
    """Train three epochs that are stopped twice, and resumed with other numbers of readers."""
    for epoch, number in ((2, 0), (3, workers)):
        recipe, listener = toy_recipe(epochs=3, workers=number), StopAt(epoch, StoppedError())
        with pytest.raises(StoppedError):
            train_model(recipe, toy_prepared(), folder, device=device, listener=listener)
    train_model(toy_recipe(epochs=3, workers=workers), toy_prepared(), folder, device=device)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:This DataLoader will create 4 worker processes")
@pytest.mark.parametrize("workers", [1, 2, 4])
@pytest.mark.parametrize(
    "device",
    [
        "cpu",
        pytest.param(
            "cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU here")
        ),
    ],
)
def test_a_run_that_was_stopped_goes_on_with_any_number_of_readers(
    device: str, workers: int, tmp_path: Path
) -> None:
    """Readers draw ahead: the first batches of a resumed epoch must be those of the unbroken run."""
    train_model(toy_recipe(epochs=3), toy_prepared(), tmp_path / "whole", device=device)
    stop_and_resume(tmp_path / "cut", workers, device)
    assert history(tmp_path / "cut") == history(tmp_path / "whole")
    for name in ("last.ckpt", "best.ckpt"):
        assert same(weights(tmp_path / "cut" / name), weights(tmp_path / "whole" / name))


class Killed(ToyWindows):
    """Windows whose reader process is killed, as by the kernel when memory is short."""

    def __getitem__(self, draw: Any) -> dict[str, torch.Tensor]:
        if torch.utils.data.get_worker_info() is not None:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().__getitem__(draw)


@pytest.mark.slow
def test_a_killed_reader_is_said_with_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hephaestus_baselines.training.inference.WindowDataset", Killed)
    with pytest.raises(HephaestusError, match=r"fewer workers \(--set workers=0\).* shared memory") as caught:
        train_model(toy_recipe(epochs=1, workers=1), toy_prepared(), tmp_path, device="cpu")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "text",
    [
        "unable to open shared memory object </torch_1> in read-write mode: No space left on device (28)",
        "DataLoader worker (pid(s) 12) exited unexpectedly",
    ],
)
def test_torchs_words_on_readers_are_translated_and_other_errors_are_left(text: str) -> None:
    with pytest.raises(HephaestusError, match="smaller batch_size"), translate_reader_errors("a run", 2):
        raise RuntimeError(text)
    with pytest.raises(RuntimeError, match="shapes"), translate_reader_errors("a run", 2):
        raise RuntimeError("shapes cannot be multiplied")
    with pytest.raises(RuntimeError, match="memory"), translate_reader_errors("a run", 0):
        raise RuntimeError(text + " memory")


def test_a_finished_run_is_not_trained_again(tmp_path: Path) -> None:
    recipe = toy_recipe(epochs=1)
    best = train_model(recipe, toy_prepared(), tmp_path, device="cpu")
    assert (
        train_model(recipe, toy_prepared(), tmp_path, device="cpu", listener=StopAt(1, StoppedError()))
        == best
    )


def test_a_folder_of_another_run_is_left_alone(tmp_path: Path) -> None:
    train_model(toy_recipe(epochs=1), toy_prepared(), tmp_path, device="cpu")
    with pytest.raises(HephaestusError, match=r"holds the run .*seed-0"):
        train_model(toy_recipe(epochs=1, seed=3), toy_prepared(), tmp_path, device="cpu")


def test_ctrl_c_reaches_whoever_called(tmp_path: Path) -> None:
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        train_model(
            toy_recipe(), toy_prepared(), tmp_path, device="cpu", listener=StopAt(2, KeyboardInterrupt())
        )
    assert signal.getsignal(signal.SIGINT) is before
    assert len(history(tmp_path)) == 1


def scores_of(
    recipe: Recipe, prepared: PreparedData, folder: Path, part: SplitPart = "test"
) -> Mapping[str, float]:
    trained = load_trained_model(train_model(recipe, prepared, folder, device="cpu"), "cpu")
    said = {
        name: predict_items(trained, prepared.items[name], prepared, part=name)
        for name in {"validation", part}
    }
    unit = TASK_SPECS[recipe.task].units[0]
    return score_predictions(said[part], choose_threshold(said["validation"], unit)).values


@pytest.mark.parametrize("task", ["classification", "segmentation"])
def test_eight_samples_can_be_learnt_by_heart(task: str, tmp_path: Path) -> None:
    epochs = 12 if task == "classification" else 30
    fields = {
        "epochs": epochs,
        "batch_size": 4,
        "learning_rate": 1e-2,
        "schedule": "cosine",
        "augment": False,
    }
    prepared = toy_prepared(train=8, same=True)
    assert scores_of(toy_recipe(task=task, **fields), prepared, tmp_path, "validation")["f1"] > 0.95


@pytest.mark.slow
@pytest.mark.parametrize("task", ["classification", "segmentation"])
def test_shuffled_labels_teach_nothing(task: str, tmp_path: Path) -> None:
    fields = {"epochs": 12, "batch_size": 16, "learning_rate": 2e-3, "schedule": "cosine"}
    prepared = toy_prepared(train=96, held=200)
    learnt = scores_of(toy_recipe(task=task, **fields), prepared, tmp_path / "true")
    control = scores_of(toy_recipe(task=task, shuffle_labels=True, **fields), prepared, tmp_path / "shuffled")
    if task == "classification":
        assert learnt["auroc"] > 0.9
        assert abs(control["auroc"] - 0.5) < 0.25
    else:
        assert learnt["f1"] > 0.6
        # as good as the constant predictor
        constant = 2 * 0.055 / (1 + 0.055)
        assert control["f1"] < 3 * constant


def test_predictions_know_their_rows_and_come_in_order(tmp_path: Path) -> None:
    recipe = toy_recipe(task="segmentation", epochs=1)
    prepared = toy_prepared()
    trained = load_trained_model(train_model(recipe, prepared, tmp_path, device="cpu"), "cpu")
    assert trained.recipe == recipe
    assert trained.trained_on_simulated
    assert trained.epoch == 1
    said = predict_items(trained, prepared.items["test"], prepared, batch_size=3)
    assert said.part == "test"
    assert [row.pairs for row in said.rows] == [item.pairs for item in prepared.items["test"]]
    assert said.label.tolist() == [item.positive for item in prepared.items["test"]]
    alone = predict_items(trained, prepared.items["test"][2:3], prepared)
    assert abs(alone.probability[0] - said.probability[2]) < 0.01
    # 32 x 31 pixels are inside, two rows of them without data
    assert said.pixels is not None
    assert said.pixels["all"][0].sum() == 32 * 31
    assert said.pixels["data"][0].sum() == 32 * 29


def test_pixels_are_counted_on_the_device_as_without_torch() -> None:
    chance = np.random.default_rng(1)
    probability = chance.random((3, 8, 8)).astype("f4")
    probability[0, 0, :3] = 0, 1, 0.5
    mask, valid, inside = (chance.random((3, 2, 8, 8)) < share for share in (0.3, 0.6, 0.8))
    fields = {
        "mask": torch.from_numpy(mask.astype("u1")),
        "valid": torch.from_numpy(valid),
        "inside": torch.from_numpy(inside[:, :1]).expand(3, 2, 8, 8),
    }
    ours = count_histograms_on_device(torch.from_numpy(probability), fields)
    reference = count_pixel_histograms(probability, mask.any(1), inside[:, 0], valid.any(1))
    for name, counts in reference.items():
        np.testing.assert_array_equal(ours[name], counts)  # type: ignore[index]


def test_counting_never_waits_for_a_value_of_the_device() -> None:
    """Tensors without values: whatever would read one, or select by one, fails."""
    fields = {
        name: torch.ones(2, 3, 8, 8, dtype=torch.bool, device="meta") for name in ("mask", "valid", "inside")
    }
    probability = torch.rand(2, 8, 8, device="meta")
    counts = _histograms(probability, fields)
    assert {name: (values.shape, values.dtype) for name, values in counts.items()} == dict.fromkeys(
        ("data", "all"), ((2, 2, 512), torch.int32)
    )
    assert data_shares(fields).shape == (2,)
    assert _are_probabilities(probability).shape == ()
    with pytest.raises((NotImplementedError, RuntimeError)):
        probability[probability > 0.5]


def test_what_is_no_probability_ends_the_collection(tmp_path: Path) -> None:
    prepared = toy_prepared()
    recipe = toy_recipe(task="segmentation")
    items = prepared.items["test"][:2]
    collector = BatchCollector(make_collector(recipe, "test", items, prepared))
    fields = {name: torch.ones(2, 1, 8, 8, dtype=torch.bool) for name in ("mask", "valid", "inside")}
    places = torch.arange(2)
    with pytest.raises(HephaestusError, match="diverged"):
        collector.add(places, places, fields, torch.full((2, 8, 8), 1.5))
        collector.finish()


def test_what_is_no_probability_is_not_counted() -> None:
    fields = {name: torch.ones(1, 1, 2, 2, dtype=torch.bool) for name in ("mask", "valid", "inside")}
    with pytest.raises(HephaestusError, match="diverged"):
        count_histograms_on_device(torch.full((1, 2, 2), float("nan")), fields)


def test_a_damaged_or_missing_checkpoint_is_said_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(HephaestusError, match="there is no checkpoint"):
        load_trained_model(tmp_path / "best.ckpt")
    (tmp_path / "best.ckpt").write_bytes(b"PK\x03\x04 torn")
    with pytest.raises(HephaestusError, match="remove it and run the same command again") as caught:
        load_trained_model(tmp_path / "best.ckpt")
    assert "\n" not in str(caught.value)
    torch.save({"state_dict": {}}, tmp_path / "best.ckpt")
    with pytest.raises(HephaestusError, match="not of this project"):
        load_trained_model(tmp_path / "best.ckpt")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
def test_a_device_that_is_not_here_is_said(tmp_path: Path) -> None:
    for name in ("cuda", "cuda:3", "abacus"):
        with pytest.raises(UsageError, match="choose auto"):
            train_model(toy_recipe(), toy_prepared(), tmp_path, device=name)


def test_products_on_a_gpu_are_reproducible_whatever_a_process_does_first(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 1)
    assert resolve_device("cpu").type == "cpu"
    assert "CUBLAS_WORKSPACE_CONFIG" not in os.environ
    assert resolve_device("auto").type == "cuda"
    assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":4096:8"


def test_a_killed_reader_of_simulated_windows_is_said_with_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(*_: object) -> None:
        raise RuntimeError("DataLoader worker (pid(s) 12) exited unexpectedly")

    monkeypatch.setattr("hephaestus_baselines.training.trainer.ensure_pretrained", killed)
    recipe = toy_recipe(weights="simulated", workers=2)
    with pytest.raises(HephaestusError, match=r"fewer workers \(--set workers=1\)"):
        train_model(recipe, toy_prepared(), tmp_path, device="cpu")


def test_what_comes_before_training_is_deterministic_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def pretrain(*_: object) -> None:
        assert torch.are_deterministic_algorithms_enabled()
        raise StoppedError

    monkeypatch.setattr("hephaestus_baselines.training.trainer.ensure_pretrained", pretrain)
    with pytest.raises(StoppedError):
        train_model(toy_recipe(weights="simulated"), toy_prepared(), tmp_path, device="cpu")
    assert not torch.are_deterministic_algorithms_enabled()


def test_training_leaves_the_process_as_it_was(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    torch.manual_seed(5)
    state = torch.get_rng_state()
    train_model(toy_recipe(epochs=1), toy_prepared(), tmp_path, device="cpu")
    assert torch.equal(state, torch.get_rng_state())
    assert not torch.are_deterministic_algorithms_enabled()
    assert logging.getLogger("lightning.pytorch").level != logging.ERROR
    assert capfd.readouterr() == ("", "")
    assert any((tmp_path / "tensorboard").iterdir())


def test_confidence_weighs_the_loss(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Doubtful(ToyWindows):
        def __getitem__(self, draw: Any) -> dict[str, torch.Tensor]:
            sample = super().__getitem__(draw)
            return {**sample, "weight": 0.2 + 0.6 * sample["label"]}

    monkeypatch.setattr("hephaestus_baselines.training.inference.WindowDataset", Doubtful)
    for name, chosen in {"off": False, "on": True}.items():
        train_model(
            toy_recipe(epochs=1, confidence_weights=chosen), toy_prepared(), tmp_path / name, device="cpu"
        )
    assert not same(weights(tmp_path / "off" / "last.ckpt"), weights(tmp_path / "on" / "last.ckpt"))
    monkeypatch.setattr("hephaestus_baselines.training.inference.WindowDataset", ToyWindows)
    train_model(toy_recipe(epochs=1), toy_prepared(), tmp_path / "sure", device="cpu")
    assert same(weights(tmp_path / "off" / "last.ckpt"), weights(tmp_path / "sure" / "last.ckpt"))


def test_the_rotation_of_the_recipe_is_the_one_of_training(tmp_path: Path) -> None:
    for mode in ("full", "published"):
        recipe = toy_recipe(epochs=1, augment=("rotation",), rotation=mode)
        train_model(recipe, toy_prepared(), tmp_path / mode, device="cpu")
    assert not same(*(weights(tmp_path / mode / "last.ckpt") for mode in ("full", "published")))


def test_the_loss_of_validation_chooses_the_epoch_where_the_recipe_says_so(tmp_path: Path) -> None:
    # a large rate: the loss falls and rises
    recipe = toy_recipe(epochs=6, choice="loss", augment=False, learning_rate=0.1)
    best = train_model(recipe, toy_prepared(held=4), tmp_path, device="cpu")
    losses = [float(row["validation_loss"]) for row in history(tmp_path)]
    assert len(set(losses)) > 1
    assert load_trained_model(best, device="cpu").epoch - 1 == int(np.argmin(losses))


class WithoutData(ToyWindows):
    """Windows that have no data where they choose the epoch."""

    def __getitem__(self, draw: Any) -> dict[str, torch.Tensor]:
        sample = super().__getitem__(draw)
        if self.items[int(sample["index"])].tile is not None:
            sample["phase"] = torch.zeros_like(sample["phase"])
        return sample


@pytest.mark.parametrize("task", ["classification", "segmentation"])
def test_windows_that_choose_nothing_keep_the_last_epoch_and_are_said(
    task: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The first epoch would be kept without a word if an undefined score were 0."""
    monkeypatch.setattr("hephaestus_baselines.training.inference.WindowDataset", WithoutData)
    recipe = toy_recipe(task=task, epochs=3)
    with pytest.raises(StoppedError):
        train_model(recipe, toy_prepared(), tmp_path, device="cpu", listener=StopAt(3, StoppedError()))
    best = train_model(recipe, toy_prepared(), tmp_path, device="cpu")
    assert load_trained_model(best, device="cpu").epoch == 3
    assert [row["validation_score"] for row in history(tmp_path)] == ["0.0"] * 3
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "the last epoch is kept; choose more of them" in caplog.text


@pytest.mark.parametrize(("positive", "what"), [(False, "shows"), (True, "is without")])
def test_a_training_part_of_one_kind_teaches_nothing(tmp_path: Path, positive: bool, what: str) -> None:
    prepared = toy_prepared()
    alike = tuple(item for item in prepared.items["train"] if item.positive == positive)
    with pytest.raises(HephaestusError, match=f"no interferogram of the train part .* {what} deformation"):
        train_model(
            toy_recipe(),
            dataclasses.replace(prepared, items={**prepared.items, "train": alike}),
            tmp_path,
            device="cpu",
        )
    assert not list(tmp_path.iterdir())


def test_the_cosine_rises_then_falls_to_nothing() -> None:
    course = [cosine_schedule(step, 100) for step in range(101)]
    assert np.argmax(course) == 5
    assert course[5] == 1
    assert course[0] > 0
    assert all(later <= earlier for earlier, later in pairwise(course[5:]))
    assert course[100] == pytest.approx(0, abs=1e-12)


def test_only_some_windows_choose_the_best_epoch(tmp_path: Path) -> None:
    prepared = toy_prepared()
    many = dataclasses.replace(
        prepared, items={**prepared.items, "validation": toy_items(40, fixed=True, start=100)}
    )
    asked = []

    class Counting(ToyWindows):
        def __getitem__(self, draw: Any) -> dict[str, torch.Tensor]:
            if not isinstance(draw, tuple):
                asked.append(self.items[draw].positive)
            return super().__getitem__(draw)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("hephaestus_baselines.training.inference.WindowDataset", Counting)
        train_model(toy_recipe(epochs=1, validation_windows=10), many, tmp_path, device="cpu")
    assert sorted(asked) == [False] * 5 + [True] * 5


def test_kinds_of_deformation_are_learnt_from_windows_that_show_some(tmp_path: Path) -> None:
    fields = {"epochs": 12, "batch_size": 4, "learning_rate": 1e-2, "schedule": "cosine"}
    recipe = toy_recipe(task="activity", augment=False, **fields)
    prepared = toy_prepared(train=16, same=True)
    trained = load_trained_model(train_model(recipe, prepared, tmp_path, device="cpu"), "cpu")
    assert trained.metric_name == "macro F1"
    # of 16 windows the 8 with deformation are drawn: two steps an epoch
    assert history(tmp_path)[-1]["step"] == str(12 * 2)
    items = select_task_items("activity", prepared, "validation")
    assert len(items) == 8
    said = predict_items(trained, items, prepared, part="validation")
    assert said.probability.shape == (8, len(TASK_SPECS["activity"].classes))
    assert said.label.tolist() == [kind_of(item) for item in items]
    assert rate_kinds(said) > 0.95


def test_a_crop_without_deformation_teaches_no_kind() -> None:
    recipe = toy_recipe(task="activity", augment=False)
    prepared = toy_prepared()
    moments = channel_moments(prepared.statistics, recipe.inputs)
    preparation = BatchPreparation(recipe, moments, (), device=CPU)
    windows = make_window_dataset(recipe, prepared.items["train"], prepared)
    samples = [windows[place] for place in (0, 1, 3)]  # without deformation, and with both kinds
    samples[2]["mask"].zero_()  # as if it had been cut off
    prepared_batch = preparation.prepare_training(pack_samples("train", samples), 0)
    assert prepared_batch["weight"].tolist() == [0, 1, 0]
    assert prepared_batch["label"].tolist() == [0, kind_of(prepared.items["train"][1]), 0]
