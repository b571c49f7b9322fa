"""Tests of the preset `recommended`: what it asks for, and which runs it shares with none."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from hephaestus_baselines.config.run_config import AUGMENTATIONS, Recipe, read_preset


def test_recommended_is_what_a_study_should_start_from() -> None:
    runs = [run for run in read_preset("recommended").make_recipes() if not run.control]
    assert {run.task for run in runs} == {"classification", "segmentation"}
    for run in runs:
        assert run.phase == "sin-cos"
        assert run.looks == 2
        assert run.nodata
        assert run.atmosphere == "both"
        assert (run.negatives, run.tiling, run.split) == ("matched", "whole-frame", "strict-temporal")
        assert set(run.augmentations) == {"flip", "rotation", "phase-offset", "time-reversal"}
        assert run.rotation == "metric"
        assert run.calibrated
        assert run.precision == "auto"
        assert isinstance(run.batch_size, int)  # a number of the preset, whatever the machine
        assert run.workers == Recipe.model_fields["workers"].default  # nothing that belongs to a machine
    # any batch that is asked for takes its place
    assert {run.batch_size for run in read_preset("recommended").make_recipes(batch_size="auto")} == {"auto"}


def test_the_small_ones_differ_in_the_recipe_alone() -> None:
    mine, papers = (read_preset(name).make_recipes() for name in ("recommended-small", "paper-small"))
    assert [(run.task, run.model, run.seed, run.series) for run in mine] == [
        (run.task, run.model, run.seed, run.series) for run in papers
    ]
    large, known = (
        next(run for run in read_preset(name).make_recipes() if not run.control)
        for name in ("recommended", "paper")
    )
    for run, other in zip(mine, papers, strict=True):
        for name in (
            "size",
            "epochs",
            "batch_size",
            "learning_rate",
            "weights",
            "validation_windows",
            "loss",
        ):
            assert getattr(run, name) == getattr(other, name), name
        encoding, training = ("phase", "looks", "nodata"), ("augment", "rotation", "schedule")
        for name in (*encoding, *training, "calibrated", "precision"):
            assert getattr(run, name) == getattr(large, name), name
            assert getattr(other, name) == getattr(known, name), name
        assert run.atmosphere == other.atmosphere


def test_augmentations_beyond_the_papers_are_named_and_do_not_stand_in_all() -> None:
    def recipe(augment: object) -> Recipe:
        return Recipe(task="classification", model="resnet-50", augment=augment)

    assert recipe(True).augmentations == AUGMENTATIONS
    assert recipe(["time-reversal", "flip"]).augmentations == ("flip", "time-reversal")
    assert recipe([*AUGMENTATIONS, "phase-offset"]).augmentations == (*AUGMENTATIONS, "phase-offset")
    assert recipe([*AUGMENTATIONS, "phase-offset"]).key != recipe(True).key


def test_a_chosen_batch_is_no_other_run() -> None:
    asked = Recipe(task="classification", model="resnet-50", batch_size="auto")
    chosen = asked.model_copy(update={"chosen_batch": 64})
    assert chosen.key == asked.key
    assert asked.key != Recipe(task="classification", model="resnet-50", batch_size=64).key
    assert (asked.samples_per_step, chosen.samples_per_step) == (2, 64)
    with pytest.raises(ValidationError, match="batch_size auto alone"):
        Recipe(task="classification", model="resnet-50", batch_size=8, chosen_batch=8)
    with pytest.raises(ValidationError):
        Recipe(task="classification", model="resnet-50", batch_size="largest")
    with pytest.raises(ValidationError, match="at most 512"):
        Recipe(task="classification", model="resnet-50", batch_size="auto", chosen_batch=1024)


def test_simulated_weights_are_another_run_than_none_and_imagenet() -> None:
    runs = {
        Recipe(task="classification", model="resnet-50", weights=weights).key
        for weights in ("imagenet", "none", "simulated")
    }
    assert len(runs) == 3
    assert not Recipe(task="classification", model="resnet-50", weights="simulated").is_pretrained
