"""Tests of the torchgeo-style data set and the Lightning data module."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import lightning
import numpy as np
import pytest
import torch
from torch.utils.data import default_collate

from hephaestus_baselines import HephaestusDataModule, HephaestusDataset, InputChannels, prepare_data
from hephaestus_baselines.data.dataset_items import SampleDraw
from hephaestus_build.core.errors import UsageError
from toy_benchmark import FRAME, toy_cubes

SIZE = 64


@pytest.fixture(scope="module")
def cubes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return toy_cubes(tmp_path_factory.mktemp("interop"))


@pytest.fixture(scope="module")
def prepared(cubes: Path) -> Any:
    return prepare_data(cubes, size=SIZE)


@pytest.fixture(scope="module")
def module(prepared: Any) -> HephaestusDataModule:
    made = HephaestusDataModule(batch_size=4, prepared=prepared)
    made.setup()
    return made


def test_a_sample_has_what_torchgeo_names(cubes: Path) -> None:
    data = HephaestusDataset(cubes, "val", size=SIZE, series=False)
    sample = data[0]
    assert data.bands == tuple(
        f"0/{name}"
        for name in ("insar_difference_sin", "insar_difference_cos", "insar_coherence", "dem", "valid")
    )
    assert (sample["image"].dtype, sample["image"].shape) == (torch.float32, (5, SIZE, SIZE))
    assert (sample["mask"].dtype, sample["mask"].shape) == (torch.int64, (SIZE, SIZE))
    assert sample["frame"] == FRAME
    for one in data:
        assert int(one["label"]) == int(one["mask"].max())
        assert bool(one["image"].isfinite().all())
        assert torch.equal(one["image"][-1] > 0, one["valid"])
    assert {int(one["label"]) for one in data} == {0, 1}


def test_values_are_those_of_the_loader(prepared: Any) -> None:
    inputs = InputChannels(atmosphere="difference")
    data = HephaestusDataset(prepared=prepared, split="test", inputs=inputs)
    sample, window = data[3], data.windows[3]
    mean, deviation = data.moments["insar_difference"]
    angle = sample["image"][0] * deviation + mean
    assert torch.allclose(angle, window["phase"][0], atol=1e-5)
    assert torch.equal(sample["mask"], (window["mask"][0] > 0).long())
    assert len(data.bands) == len(sample["image"]) == 6


def test_training_windows_change_and_follow_the_seed(prepared: Any) -> None:
    data = HephaestusDataset(prepared=prepared, split="train")
    quiet = next(place for place, item in enumerate(data.windows.items) if not item.positive)
    torch.manual_seed(1)
    first = [data[quiet]["image"] for _ in range(4)]
    assert any(not torch.equal(first[0], other) for other in first[1:])
    torch.manual_seed(1)
    assert torch.equal(data[quiet]["image"], first[0])
    draw = SampleDraw(quiet, 7)
    assert torch.equal(data[draw]["image"], data[draw]["image"])
    fixed = HephaestusDataset(prepared=prepared, split="test")
    assert torch.equal(fixed[0]["image"], fixed[0]["image"])
    with pytest.raises(IndexError):
        fixed[len(fixed)]


def test_transforms_and_unknown_parts(prepared: Any) -> None:
    def darken(sample: dict[str, Any]) -> dict[str, Any]:
        return {**sample, "image": sample["image"] * 0}

    data = HephaestusDataset(prepared=prepared, split="val", transforms=darken)
    assert not data[0]["image"].any()
    with pytest.raises(UsageError, match="choose train, val, test"):
        HephaestusDataset(prepared=prepared, split="validation")  # type: ignore[arg-type]


def test_plots_show_mask_and_prediction_and_mark_simulated_frames(module: HephaestusDataModule) -> None:
    data = module.val_dataset
    place = next(place for place in range(len(data)) if data[place]["label"])
    sample = data[place]
    plain = data.plot(sample)
    titles = [axes.get_title(loc="left") for axes in plain.axes]
    assert any("deformation" in title for title in titles)
    assert any("simulated" in text.get_text().lower() for text in plain.texts)
    mapped = module.plot({**sample, "prediction": torch.zeros(SIZE, SIZE)}, suptitle="mine")
    assert mapped is not None
    assert len(mapped.axes) == len(plain.axes) + 1
    assert any("mine" in text.get_text() for text in mapped.texts)
    drawn = data.plot({**sample, "prediction": torch.tensor(1)}, show_titles=False)
    assert len(drawn.axes) == len(plain.axes)


def test_loaders_have_balanced_training_batches_and_all_of_the_rest(module: HephaestusDataModule) -> None:
    labels = torch.cat([batch["label"] for batch in module.train_dataloader()])
    assert 0 < int(labels.sum()) < len(labels)
    found = [str(pair) for batch in module.test_dataloader() for pair in batch["pairs"]]
    assert found == [" ".join(item.pairs) for item in module.test_dataset.windows.items]


class ThirdPartyModule(lightning.LightningModule):
    """A loop that knows nothing of this project."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.net = torch.nn.Sequential(
            torch.nn.Conv2d(channels, 4, 3, 2), torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(),
            torch.nn.Linear(4, 2),
        )  # fmt: skip
        self.epochs: list[list[str]] = []

    def on_train_epoch_start(self) -> None:
        self.epochs.append([])

    def training_step(self, batch: Any, index: int) -> Any:
        self.epochs[-1] += [f"{pair} {image.sum():.3f}" for pair, image in zip(
            batch["pairs"], batch["image"], strict=True)]  # fmt: skip
        return torch.nn.functional.cross_entropy(self.net(batch["image"]), batch["label"])

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), 0.01)


def quiet_trainer(folder: Path, **options: Any) -> lightning.Trainer:
    return lightning.Trainer(
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=folder,
        **options,
    )


def test_the_loop_of_a_third_party_trains_on_it(prepared: Any, tmp_path: Path) -> None:
    data = HephaestusDataModule(batch_size=4, prepared=prepared)
    model = ThirdPartyModule(5)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        quiet_trainer(tmp_path, max_epochs=2).fit(model, datamodule=data)
    first, second = model.epochs
    assert len(first) == len(second) > 0
    assert sorted(first) != sorted(second)  # other windows in each epoch


@pytest.mark.parametrize("task", ["classification", "segmentation"])
def test_trainers_of_torchgeo_take_it(task: str, module: HephaestusDataModule, tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trainers = pytest.importorskip("torchgeo.trainers", reason="torchgeo is not installed")
        options = {"in_channels": 5, "task": "multiclass", "num_classes": 2, "loss": "ce"}
        if task == "classification":
            model = trainers.ClassificationTask(model="test_resnet", **options)
        else:
            model = trainers.SemanticSegmentationTask(model="unet", backbone="resnet18", **options)
        trainer = quiet_trainer(tmp_path, max_epochs=1, limit_train_batches=2, limit_val_batches=1)
        trainer.fit(model, datamodule=module)
        (scores,) = trainer.test(model, datamodule=module, verbose=False)
    assert all(np.isfinite(value) for value in scores.values())


def test_batches_collate_with_default_collate(module: HephaestusDataModule) -> None:
    batch = default_collate([module.val_dataset[0], module.val_dataset[1]])
    assert batch["image"].shape == (2, 5, SIZE, SIZE)
    assert len(batch["frame"]) == 2
