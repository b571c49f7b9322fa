"""Tests of runs with a frozen encoder: probes and memory banks in the grid, its cache and its tables."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from hephaestus_baselines.config.channels import channel_moments
from hephaestus_baselines.config.run_config import Recipe, read_preset
from hephaestus_baselines.data.preparation import PreparedData
from hephaestus_baselines.experiments.experiment_grid import (
    ExperimentGrid,
    open_experiment_grid,
    run_experiments,
)
from hephaestus_baselines.experiments.experiment_report import write_experiment_report
from hephaestus_baselines.models.architectures import build_encoder, build_model
from hephaestus_baselines.probes.anomaly_scores import score_anomalies
from hephaestus_baselines.probes.frozen_encoder import (
    FrozenEncoder,
    encoder_of_trained,
    open_encoder,
)
from hephaestus_baselines.training.inference import TrainedModel
from hephaestus_build.core.errors import HephaestusError, UsageError
from hephaestus_build.core.frames import Frame
from hephaestus_build.core.progress import NullListener
from toy_benchmark import tiny_preset, toy_cubes
from toy_training import ToyWindows, toy_prepared

#: The smallest networks of timm: one of convolutions, one of attention.
ENCODER, TRANSFORMER = "test_resnet", "test_vit"
CHANGES: dict[str, Any] = {
    "tasks": {
        "classification": {
            "methods": ["linear-probe", "knn-probe", "memory-bank"],
            "models": {ENCODER: {}},
        },
        "segmentation": {"methods": ["memory-bank", "memory-bank-knn"], "models": {ENCODER: {}}},
    },
}


@pytest.fixture(scope="module")
def cubes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return toy_cubes(tmp_path_factory.mktemp("frozen"))


@pytest.fixture(scope="module")
def grid(cubes: Path, tmp_path_factory: pytest.TempPathFactory) -> ExperimentGrid:
    folder = tmp_path_factory.mktemp("grid")
    preset = read_preset(tiny_preset(folder / "tiny.yaml", **CHANGES))
    bench = open_experiment_grid(preset, cubes, folder / "results", command="hephaestus benchmark run")
    ended = list(run_experiments(bench, device="cpu"))
    assert [end.error for end in ended] == [""] * 5
    return bench


@pytest.fixture(scope="module")
def prepared() -> PreparedData:
    return toy_prepared(train=12, held=6)


def toy_windows() -> Any:
    """Read windows that are made in memory, instead of those of cubes."""
    return patch("hephaestus_baselines.training.inference.WindowDataset", ToyWindows)


def recipe(**fields: Any) -> Recipe:
    known = {
        "task": "classification", "method": "memory-bank", "model": ENCODER, "size": 32, "weights": "none",
        "phase": "sin-cos", "epochs": 1,
    }  # fmt: skip
    return Recipe(**{**known, **fields})


def encoder(chosen: Recipe, data: PreparedData) -> FrozenEncoder:
    return open_encoder(chosen, data, torch.device("cpu"))


def test_results_are_those_of_any_run(grid: ExperimentGrid) -> None:
    results = grid.read_results()
    assert {(result.task, result.model) for result in results} == {
        ("classification", "test_resnet, linear probe"),
        ("classification", "test_resnet, knn probe"),
        ("classification", "test_resnet, memory bank"),
        ("segmentation", "test_resnet, memory bank"),
        ("segmentation", "test_resnet, memory bank knn"),
    }
    for result in results:
        assert (result.epochs, result.weights, result.simulated) == (0, "none", True)
        unit = result.assessment.units["interferograms"]
        assert unit.threshold.chosen_on == "validation"
        assert {"frame prior", "persistence"} <= set(unit.controls)
        assert result.assessment.units["pixels" if result.task == "segmentation" else "items"].intervals
    linear = next(one for one in results if one.model.endswith("linear probe"))
    assert linear.parameters == 96 + 1


@pytest.mark.parametrize("method", ["memory-bank", "memory-bank-knn"])
def test_memory_banks_find_deformation_without_labels(method: str) -> None:
    """Toy windows have noise alone where they are quiet, and a bright blob where they deform."""
    data, phase_alone = toy_prepared(train=48, held=16), ("insar_coherence", "dem")
    with toy_windows():
        found = {
            task: score_anomalies(one, data, encoder(one, data), NullListener())["test"]
            for task in ("classification", "segmentation")
            for one in [recipe(task=task, method=method, blind=phase_alone)]
        }
    for said in found.values():
        assert said.probability[said.label].min() > said.probability[~said.label].max()
        assert said.probability[~said.label].max() < 0.6  # about the 99th percentile of quiet patches
    pixels = found["segmentation"].pixels
    assert pixels is not None
    quiet, deforming = (count @ np.arange(512) / count.sum() for count in pixels["data"].sum(0))
    assert deforming > 1.4 * quiet


def test_tables_show_them_beside_controls(grid: ExperimentGrid, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hephaestus_baselines.reporting.run_figures.write_run_figures", lambda *_: [])
    problems: list[str] = []
    paths = write_experiment_report(grid, problems)
    assert problems == []
    text = next(path for path in paths if path.suffix == ".md").read_text()
    for name in ("linear probe", "knn probe", "memory bank", "frame prior"):
        assert name in text
    document = json.loads((grid.folder / "tables.json").read_text())
    rows = [row for table in document["tables"] for row in table["rows"] if row["kind"] == "model"]
    assert all(row["gap"]["control"] for row in rows if row["gap"])


def test_both_probes_share_their_features(grid: ExperimentGrid, monkeypatch: pytest.MonkeyPatch) -> None:
    assert len(list((grid.folder / "features").iterdir())) == 3  # one for each part
    monkeypatch.setattr(FrozenEncoder, "pool", None)  # any call would fail
    (probe,) = (one for one in grid.recipes if one.method == "knn-probe")
    home = grid.run_folder(probe)
    before = (home / "test.npz").read_bytes()
    (home / "result.json").unlink()
    assert [end.error for end in run_experiments(replace(grid, recipes=(probe,)), device="cpu")] == [""]
    assert (home / "test.npz").read_bytes() == before


class TruthfulWindows(ToyWindows):
    """Windows that deform where the experts' sample says so, whatever the item says."""

    def __init__(self, items: Any, stores: Any, **options: Any) -> None:
        told = [replace(item, positive=item.members[0].positive) for item in items]
        super().__init__(told, stores, **options)


def test_a_bank_knows_no_label(prepared: PreparedData, monkeypatch: pytest.MonkeyPatch) -> None:
    """Labels of what is scored may be anything: the scores are the same."""
    monkeypatch.setattr("hephaestus_baselines.training.inference.WindowDataset", TruthfulWindows)
    chosen, wrong = recipe(), dict(prepared.items)
    for part in ("validation", "test"):
        wrong[part] = tuple(replace(item, positive=not item.positive) for item in wrong[part])
    first, second = (
        score_anomalies(chosen, data, encoder(chosen, data), NullListener())
        for data in (prepared, replace(prepared, items=wrong))
    )
    for part in ("validation", "test"):
        np.testing.assert_array_equal(first[part].probability, second[part].probability)


def test_a_frame_without_quiet_training_takes_those_of_others(prepared: PreparedData) -> None:
    other = Frame("201D_02400_131313")
    moved = tuple(
        replace(item, members=tuple(replace(sample, frame=other) for sample in item.members))
        for item in prepared.items["train"]
    )
    data = replace(prepared, items={**prepared.items, "train": moved})
    chosen = recipe(model=TRANSFORMER)
    with toy_windows():
        found = score_anomalies(chosen, data, encoder(chosen, data), NullListener())["test"]
    assert len(found) == len(prepared.items["test"])
    assert 0 < found.probability.min() < found.probability.max() < 1
    nothing = replace(prepared, items={**prepared.items, "train": ()})
    with pytest.raises(HephaestusError, match="two interferograms without deformation"):
        score_anomalies(chosen, nothing, encoder(chosen, nothing), NullListener())


def test_weights_come_from_a_file_and_are_told_apart(prepared: PreparedData, tmp_path: Path) -> None:
    torch.manual_seed(5)
    made = build_encoder(ENCODER, 4, size=32)
    path = tmp_path / "own.safetensors"
    save_file(made.state_dict(), path)
    random, own = recipe(), recipe(weights=str(path))
    hashes = {encoder(one, prepared).hash_weights() for one in (random, random, own, recipe(seed=1))}
    assert len(hashes) == 3
    assert (
        encoder(own, prepared).hash_weights()
        == FrozenEncoder(made, encoder(own, prepared).stack).hash_weights()
    )
    assert random.key != own.key
    # checkpoints and results have the name alone, and the same key
    assert own.portable_weights == "own.safetensors"
    assert own.key == recipe(weights=own.portable_weights).key
    del made
    save_file({"conv1.weight": torch.zeros(2)}, path)
    with pytest.raises(HephaestusError, match="do not fit"):
        encoder(own, prepared)
    with pytest.raises(HephaestusError, match="there is no file"):
        encoder(recipe(weights=str(tmp_path / "none.safetensors")), prepared)


def test_what_is_no_encoder_is_said() -> None:
    with pytest.raises(UsageError, match="timm has no network 'nonsense'"):
        build_encoder("nonsense", 4)
    with pytest.raises(UsageError, match="timm has no network 'unet'"):
        build_encoder("unet", 4)
    with pytest.raises(ValueError, match="its task is classification"):
        recipe(task="segmentation", method="linear-probe")


def test_keys_of_trained_runs_are_what_they_were() -> None:
    assert Recipe(task="classification", model="resnet-50").key == (
        "resnet-50-single-atmosphere-none-seed-0-0c8fabd1"
    )


@pytest.mark.parametrize(
    ("task", "model", "looks", "width"),
    [("classification", "resnet-tiny", 2, 96), ("segmentation", "unet-tiny", 1, 96)],
)
def test_a_trained_model_is_an_encoder_without_its_last_layer(
    task: Any, model: str, looks: int, width: int, prepared: PreparedData
) -> None:
    chosen = recipe(task=task, method="trained", model=model, size=64, looks=looks)
    network = build_model(model, task, len(chosen.inputs.channels), size=64, looks=looks).eval()
    moments = channel_moments(prepared.statistics, chosen.inputs)
    found = encoder_of_trained(TrainedModel(chosen, network, moments, True, "", 1, 0.5, "F1", 1.0))
    chance = torch.Generator().manual_seed(0)
    phase = torch.rand(2, 1, 64, 64, generator=chance)
    fields = {"insar_difference": phase, "insar_coherence": phase, "dem": phase, "valid": phase > 0}
    features = found.pool(fields)
    assert features.shape == (2, width)
    assert found.hash_weights() == found.hash_weights()
    if task == "classification":  # its last layer on these features gives what the model gives
        with torch.no_grad():
            said = network(found.stack(fields))
            again = network.network.get_classifier()(features)
        torch.testing.assert_close(again, said)
