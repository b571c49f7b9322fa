"""Tests of pooling folds: each model on what it has not seen, scored together."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from hephaestus_baselines.config.run_config import Preset, fold_family, read_preset
from hephaestus_baselines.evaluation.evaluate import evaluate_predictions
from hephaestus_baselines.evaluation.item_controls import ITEM_CONTROLS_FILE, ItemControls
from hephaestus_baselines.evaluation.pixel_controls import PIXEL_CONTROLS, pixel_control_file
from hephaestus_baselines.evaluation.predictions import Predictions
from hephaestus_baselines.evaluation.result_schema import RunResult
from hephaestus_baselines.experiments import pooled_folds
from hephaestus_baselines.experiments.pooled_folds import group_folds
from hephaestus_baselines.reporting.aggregate_tables import make_result_tables
from hephaestus_build.core.errors import HephaestusError
from hephaestus_build.dataset.splits import SplitPart
from toy_predictions import classified, row, segmented
from toy_results import result

FOLDS = ("volcano-group-galapagos", "volcano-group-pacific")


def fold(name: str, folder: Path, seed: int, validated: str = "") -> RunResult:
    """Write the predictions of one fold, and return its result; `validated` is its frame of validation."""
    chance = np.random.default_rng(seed)
    made: list[Predictions] = []
    for part in ("validation", "test"):
        rows = [
            row(
                validated if validated and part == "validation" else f"{seed:03d}A",
                (f"2020{1 + place // 28:02d}{1 + place % 28:02d}_20210101",),
                positive=place % 3 == 0,
                events=(f"{name} {part} {place % 5}",) if place % 3 == 0 else (),
                tile=(0, 0, 512),
            )
            for place in range(60)
        ]
        label = np.array([item.positive for item in rows])
        # each fold has a scale of its own
        raised = 1 / (1 + np.exp(-(4 * label - 2 + chance.normal(0, 1.5, 60) + 3 * seed)))
        made.append(classified(label, raised, rows, part))
        made[-1].write(folder / f"{part}.npz")
    found = result(split=name, assessment=evaluate_predictions(*made, resamples=20))
    split = found.split.model_copy(update={"sha256": f"{seed}" * 64})
    return found.model_copy(update={"key": name, "split": split, "recipe": {**found.recipe, "split": name}})


def test_folds_are_scored_together_on_one_scale(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    homes = {name: tmp_path / name for name in FOLDS}
    for home in homes.values():
        home.mkdir()
    results = [fold(name, homes[name], seed) for seed, name in enumerate(FOLDS)]
    [members] = group_folds([*results])

    def controls(recipe: object) -> dict:
        return {"persistence": lambda item: 0.9 if item.positive else 0.1}

    monkeypatch.setattr(pooled_folds.Recipe, "model_validate", lambda fields: fields["split"])
    pooled, predictions = pooled_folds.pool_folds(members, homes, controls, resamples=20)
    assert pooled.split.name == "volcano-group"
    assert pooled.split.counts["test"]["positive"] == sum(
        one.split.counts["test"]["positive"] for one in results
    )
    assert len(predictions) == 120
    items = pooled.assessment.units["items"]
    assert items.test.items == 120
    # without one scale, the second fold's quiet items would stand above the first one's deformation
    raw = np.concatenate([Predictions.read(homes[name] / "test.npz").probability for name in FOLDS])
    parts = [classified(predictions.label, raw, predictions.rows, part) for part in ("validation", "test")]
    unscaled = evaluate_predictions(*parts, resamples=20)
    assert items.test.values["auroc"] > unscaled.units["items"].test.values["auroc"] + 0.05
    assert items.controls["persistence"].test.values["auroc"] == 1  # it was given the labels
    assert pooled.coverage["test"].positives == 80
    table = make_result_tables([pooled]).document
    assert table.split == "volcano-group"


def test_folds_that_share_a_region_of_validation_keep_their_own_word_on_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The highest of all models would raise thresholds that each model is then held to alone."""
    monkeypatch.setattr(pooled_folds.Recipe, "model_validate", lambda fields: fields["split"])
    pooled = []
    for shared in ("", "124D_04854_171313"):
        homes = {name: tmp_path / shared / name for name in FOLDS}
        for home in homes.values():
            home.mkdir(parents=True)
        results = [fold(name, homes[name], seed, shared) for seed, name in enumerate(FOLDS)]
        found, _ = pooled_folds.pool_folds(
            results, homes, lambda recipe: {"persistence": lambda item: 0.5}, resamples=20
        )
        pooled.append(found.assessment)
    apart, together = pooled
    assert together.units["interferograms"].validation.items == 120
    assert together == apart


def test_kept_scores_of_controls_stand_for_the_cubes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def controls(recipe: object) -> dict:
        return {"persistence": lambda item: 0.9 if item.positive == (item.tile is None) else 0.3}

    def no_cubes(recipe: object) -> dict:
        raise AssertionError

    homes = {name: tmp_path / name for name in FOLDS}
    for home in homes.values():
        home.mkdir()
    results = [fold(name, homes[name], seed) for seed, name in enumerate(FOLDS)]
    monkeypatch.setattr(pooled_folds.Recipe, "model_validate", lambda fields: fields["split"])
    computed, _ = pooled_folds.pool_folds(results, homes, controls, resamples=20)
    for home in homes.values():
        said = [Predictions.read(home / f"{part}.npz") for part in ("validation", "test")]
        ItemControls.compute(controls(None), *said).write(home / ITEM_CONTROLS_FILE)
    kept, _ = pooled_folds.pool_folds(results, homes, no_cubes, resamples=20)
    assert kept == computed
    # windows and interferograms have scores of their own
    assert kept.assessment.units["items"].controls["persistence"].test.values["auroc"] == 0
    assert kept.assessment.units["interferograms"].controls["persistence"].test.values["auroc"] == 1

    file = homes[FOLDS[1]] / ITEM_CONTROLS_FILE
    right = file.read_bytes()
    file.write_bytes(right.replace(b"0.3", b"0.4", 1))
    with pytest.raises(HephaestusError, match=r"item-controls\.json.* damaged.*--cubes"):
        pooled_folds.pool_folds(results, homes, no_cubes, resamples=20)
    few = [one.select(np.arange(30)) for one in said]
    ItemControls.compute(controls(None), *few).write(file)
    with pytest.raises(
        HephaestusError, match=r"30 scores of persistence for 60 items of validation.*--cubes"
    ):
        pooled_folds.pool_folds(results, homes, no_cubes, resamples=20)


def segmented_fold(name: str, folder: Path, seed: int, places: int) -> RunResult:
    """Write the predictions of one fold of a segmentation and of its controls, and return its result."""
    made: dict[str, dict[SplitPart, Predictions]] = {name: {} for name in ("model", *PIXEL_CONTROLS)}
    parts: tuple[SplitPart, ...] = ("validation", "test")
    for part in parts:
        rows = [
            row(f"{seed:03d}A", (f"2020{1 + place:02d}01_20210101",), positive=True, events=(f"{place}",))
            for place in range(places)
        ]
        for who, found in made.items():
            # windows in which deforming pixels rank below quiet ones
            wrong = {"model": 0, "frame prior": 1, "persistence": places}[who]
            steps = [100 if place < wrong else 400 for place in range(places)]
            quiet = [{50: 300, 500 - step: 100} for step in steps]
            found[part] = segmented(quiet, [{step: 100} for step in steps], rows, part)
    for part in parts:
        made["model"][part].write(folder / f"{part}.npz")
        for control in PIXEL_CONTROLS:
            made[control][part].write(folder / pixel_control_file(control, part))
    assessment = evaluate_predictions(
        made["model"]["validation"],
        made["model"]["test"],
        pixel_controls={name: (made[name]["validation"], made[name]["test"]) for name in PIXEL_CONTROLS},
        resamples=20,
    )
    found = result(task="segmentation", split=name, assessment=assessment)
    split = found.split.model_copy(update={"sha256": f"{seed}" * 64})
    return found.model_copy(update={"key": name, "split": split, "recipe": {**found.recipe, "split": name}})


def test_pixels_of_all_folds_stand_beside_their_controls(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    homes = {name: tmp_path / name for name in FOLDS}
    for home in homes.values():
        home.mkdir()
    results = [segmented_fold(name, homes[name], seed, 6 + 2 * seed) for seed, name in enumerate(FOLDS)]
    monkeypatch.setattr(pooled_folds.Recipe, "model_validate", lambda fields: fields["split"])
    pooled, _ = pooled_folds.pool_folds(results, homes, lambda recipe: {}, resamples=20)
    pixels = pooled.assessment.units["pixels"]
    assert set(pixels.controls) == set(PIXEL_CONTROLS)
    assert pixels.test.values["f1"] == 1
    # of 100 deforming pixels in each of 6 + 8 windows, one window of each fold is wrong: 1,200 found,
    # 200 missed, 200 false
    assert pixels.controls["frame prior"].test.values["f1"] == pytest.approx(6 / 7)
    assert pixels.controls["frame prior"].gaps["f1"].value == pytest.approx(1 / 7)
    # all 1,400 deforming pixels rank below 1,400 quiet ones, so the best threshold takes both
    assert pixels.controls["persistence"].test.values["f1"] == pytest.approx(2 / 3)

    (homes[FOLDS[1]] / pixel_control_file("persistence", "test")).unlink()
    with pytest.raises(HephaestusError, match=r"persistence-test\.npz"):
        pooled_folds.pool_folds(results, homes, lambda recipe: {}, resamples=20)


def test_only_folds_of_one_family_are_pooled() -> None:
    assert fold_family(FOLDS) == "volcano-group"
    assert fold_family(["volcano-group-rifts", "strict-temporal"]) == ""
    assert fold_family(["volcano-group-rifts"]) == ""


def test_the_preset_runs_every_fold_of_a_run_before_the_next() -> None:
    preset = read_preset("volcano-group")
    runs = preset.make_recipes()
    assert len(preset.splits) == 5
    for start in range(0, len(runs), 5):
        assert [run.split for run in runs[start : start + 5]] == list(preset.splits)
        assert len({run.model_copy(update={"split": ""}).key for run in runs[start : start + 5]}) == 1
    assert sum(bool(run.control) for run in runs) == 2 * 5
    plain = Preset.model_validate({**preset.model_dump(), "splits": ()})
    assert {run.split for run in plain.make_recipes()} == {"strict-temporal"}
    assert {run.split for run in preset.make_recipes(split="unseen-event")} == {"unseen-event"}
