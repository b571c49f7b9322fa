"""Tests of recipes and presets: contents and names of runs, and refusal of unknown keys."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from hephaestus_baselines.config.run_config import Preset, Recipe, preset_names, read_preset, read_recipe
from hephaestus_baselines.reporting.published_scores import PUBLISHED_SCORES
from hephaestus_build.core.errors import UsageError

ONE = "description: x\ntasks: {classification: {models: {resnet-50: {}}}}\n"


def recipe(**fields: Any) -> Recipe:
    return Recipe(**{"task": "classification", "model": "resnet-50", **fields})


def test_keys_stay_what_they_are() -> None:
    # finished runs are found by these: a change here repeats all of them
    assert recipe().key == "resnet-50-single-atmosphere-none-seed-0-0c8fabd1"
    assert (
        recipe(series=True, atmosphere="both", seed=2, loss="focal", weights="none").key
        == "resnet-50-series-atmosphere-both-seed-2-b0b56fb4"
    )


def test_equal_runs_have_one_key_and_others_another() -> None:
    key = recipe().key
    for same in ({"workers": 8}, {"weights": "somewhere/weights"}, {"epochs": 90}, {"augment": True}):
        assert recipe(**same).key == key
    assert recipe(augment=["blur", "rotation", "flip", "crop"]).key == key
    assert recipe(augment=[]).key == recipe(augment=False).key
    assert recipe(augment=["flip", "crop"]).key == recipe(augment=["crop", "flip"]).key
    changes: list[dict[str, Any]] = [
        {"weights": "none"}, {"seed": 1}, {"epochs": 3}, {"augment": False}, {"split": "paper"},
        {"size": 256}, {"precision": "bf16-mixed"}, {"devices": 2}, {"shuffle_labels": True},
        {"nodata": True},
    ]  # fmt: skip
    assert len({recipe(**change).key for change in changes} | {key}) == len(changes) + 1


def test_every_field_is_described_and_none_is_unknown() -> None:
    assert all(field.description for field in Recipe.model_fields.values())
    with pytest.raises(ValidationError):
        recipe(learningrate=1)
    with pytest.raises(ValidationError):
        recipe(size=100)  # no multiple of 32: the models could not halve it five times


def test_only_phasors_are_averaged_and_only_whole_blocks() -> None:
    assert recipe(looks=2, phase="sin-cos").looks == 2
    with pytest.raises(ValidationError, match="cannot be averaged as an angle"):
        recipe(looks=2)
    with pytest.raises(ValidationError, match="multiple of 64 pixels"):
        recipe(looks=2, phase="sin-cos", size=96)


@pytest.mark.parametrize(
    ("fields", "refused"),
    [
        ({"task": "segmentation", "model": "deeplabv3"}, True),
        ({"task": "segmentation", "model": "deeplabv3plus-tiny", "size": 128}, True),
        ({"model": "resnet-50", "size": 32}, True),
        ({"model": "resnet-50"}, False),
        ({"task": "segmentation", "model": "unet"}, False),
    ],
)
def test_a_batch_of_one_is_refused_where_training_would_end_in_an_error(
    fields: dict[str, Any], refused: bool
) -> None:
    if refused:
        with pytest.raises(ValidationError, match="batch_size must be at least 2"):
            recipe(**fields, batch_size=1)
    else:
        assert recipe(**fields, batch_size=1).batch_size == 1
    assert recipe(**fields, batch_size=2).batch_size == 2


def test_fields_of_series_alone_leave_single_interferograms_as_they_are() -> None:
    runs = Preset(
        name="two",
        description="",
        fields={"epochs": 8},
        series_fields={"epochs": 12},
        tasks={"classification": {"models": {"resnet-tiny": {}, "resnet-18": {"epochs": 3}}}},  # type: ignore[dict-item]
        atmosphere=("none",),
        seeds=(0,),
    ).make_recipes()
    epochs = {(run.model, run.series): run.epochs for run in runs}
    # what a model says for itself goes before both
    assert epochs == {
        ("resnet-tiny", False): 8,
        ("resnet-tiny", True): 12,
        ("resnet-18", False): 3,
        ("resnet-18", True): 3,
    }


def test_the_defaults_are_the_papers() -> None:
    plain = recipe()
    assert (plain.epochs, plain.learning_rate, plain.weight_decay) == (90, 1e-5, 1e-2)
    assert (plain.schedule, plain.balance, plain.size, plain.statistics) == ("fixed", True, 512, "valid")
    assert plain.inputs.channels == ("insar_difference", "insar_coherence", "dem")
    assert plain.augmentations == ("crop", "flip", "rotation", "blur")
    assert len(recipe(series=True, atmosphere="both").inputs.stacked_channels(3)) == 27


def test_a_recipe_comes_back_from_its_file(tmp_path: Path) -> None:
    one = recipe(series=True, augment=("flip",), learning_rate=3e-4, weights="none")
    one.write(tmp_path / "recipe.yaml")
    assert read_recipe(tmp_path / "recipe.yaml") == one


def test_the_paper_is_the_full_grid() -> None:
    controls = [run for run in read_preset("paper").make_recipes() if run.control]
    assert [(run.task, run.control, run.seed) for run in controls] == [
        ("classification", "terrain only", 0),
        ("segmentation", "terrain only", 0),
    ]
    assert all(run.blind == ("insar_difference", "insar_coherence") for run in controls)
    assert all(run.folder_name == f"{run.key}-control-terrain-only" for run in controls)
    assert read_preset("paper").make_recipes()[:2] == tuple(controls)  # the gaps to them are of use early
    runs = [run for run in read_preset("paper").make_recipes() if not run.control]
    assert len(runs) == 8 * 2 * 2 * 3
    assert len({run.key for run in runs}) == len(runs)
    # a stopped grid has a whole table of the first seed
    assert [run.seed for run in runs] == sorted(run.seed for run in runs)
    focal = {run.model for run in runs if run.loss == "focal"}
    assert focal == {"vit-small", "deeplabv3plus", "unet", "segformer"}
    assert {run.split for run in runs} == {"strict-temporal"}
    assert not any(run.training == "label-centred" or run.tiling == "label-centred" for run in runs)


def test_legacy_is_the_published_data_losses_rotation_and_choice() -> None:
    paper, legacy = read_preset("paper"), read_preset("legacy")
    assert legacy.legacy
    assert not paper.legacy
    published = {
        "split": "paper",
        "training": "label-centred",
        "tiling": "label-centred",
        "statistics": "published",
        "uncertain": "keep",
        "negatives": "random",
        "rotation": "published",
        "choice": "loss",
        "validation_windows": 1_000_000,
        "focal_alpha": 0.25,
        "focal_detached": True,
    }
    changed = [
        run.model_copy(update={"weights": "none"} if run.model.startswith("efficientnet") else {})
        for run in paper.make_recipes(**published)
        if not run.control
    ]
    assert [run for run in legacy.make_recipes() if not run.control] == changed
    # the models whose numbers of parameters are the paper's
    assert {run.model for run in changed} == {model for _, model, *_ in PUBLISHED_SCORES}


@pytest.mark.parametrize("name", preset_names())
def test_every_preset_trains_a_control_of_each_task(name: str) -> None:
    runs = read_preset(name).make_recipes()
    controls = [run for run in runs if run.control]
    assert {run.task for run in controls} == {run.task for run in runs}
    assert all(run.inputs.is_blind("insar_difference") and run.inputs.is_blind("valid") for run in controls)


def test_a_model_that_a_preset_trains_from_scratch_takes_no_weights() -> None:
    runs = read_preset("legacy").make_recipes(weights="/folder")
    assert {run.model for run in runs if run.weights == "none"} == {"efficientnetv2-small"}
    assert {run.weights for run in runs} == {"none", "/folder"}


def test_the_small_grid_has_what_make_benchmark_promises() -> None:
    runs = read_preset("small").make_recipes()
    assert {run.task for run in runs} == {"classification", "segmentation"}
    assert {(run.series, run.atmosphere) for run in runs} == {
        (series, atmosphere) for series in (False, True) for atmosphere in ("none", "both")
    }
    assert len({run.seed for run in runs}) >= 2
    assert {run.weights for run in runs} == {"none"}


def test_no_run_counts_twice_as_two_seeds_would() -> None:
    small = read_preset("small")
    assert small.model_copy(update={"seeds": (0, 0)}).make_recipes() == small.make_recipes(seed=0)
    keys = [run.folder_name for run in small.make_recipes(seed=3)]
    assert len(keys) == len(set(keys))


def test_runs_of_one_group_differ_in_their_seed_alone() -> None:
    groups: dict[str, set[int]] = {}
    for run in read_preset("paper").make_recipes():
        if run.control:
            continue
        groups.setdefault(run.model_copy(update={"seed": 0}).key, set()).add(run.seed)
    assert len(groups) == 32
    assert all(seeds == {0, 1, 2} for seeds in groups.values())


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("description: x\nmodels: {}\n", "no field models; the fields are name"),
        ("description: x\ntasks: {classification: {models: {resnet-50: {epoch: 3}}}}\n", "no field epoch"),
        ("description: x\ntasks: {regression: {models: {}}}\n", "tasks.regression"),
        ("description: x\ntasks: {}\n", "tasks: it is empty"),
        (
            "description: x\ntasks: {classification: {models: {}}}\n",
            "models: it is empty",
        ),
        (
            "description: x\nseeds: []\ntasks: {classification: {models: {resnet-50: {}}}}\n",
            "seeds: it is empty",
        ),
        (f"fields: {{seed: 3}}\n{ONE}", "fields cannot have seed; list its values in seeds"),
        (f"series_fields: {{atmosphere: both}}\n{ONE}", "cannot have atmosphere; list its values in atmo"),
        (f"series: [false]\nseries_fields: {{epoch: 3}}\n{ONE}", "series_fields: there is no field epoch;"),
        (f"fields: {{epochs: yes}}\n{ONE}", "epochs: it takes a number, not true or false"),
        (f"seeds: [yes]\n{ONE}", "seeds.0: it must be a whole number (is True)"),
        (f"fields: {{workers: many}}\n{ONE}", "workers: it must be a whole number or 'auto' (is 'many')"),
        (f"fields: {{augment: [flap]}}\n{ONE}", "augment: it must be true or false or 'blur', 'crop'"),
        (f"fields: {{looks: 2}}\n{ONE}", "model resnet-50: wrapped phase cannot be averaged as an angle"),
        ("- a\n", "has no fields"),
        ("a: [\n", "is not YAML"),
    ],
)
def test_a_wrong_preset_is_said_in_one_line(text: str, said: str, tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text(text)
    with pytest.raises(UsageError) as caught:
        read_preset(tmp_path / "mine.yaml").make_recipes()
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_presets_that_are_not_there_and_wrong_changes_are_said(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="known are kinds, kinds-small, legacy, paper, paper-small, probes"):
        read_preset("tiny")
    with pytest.raises(UsageError, match="there is no recipe"):
        read_recipe(tmp_path / "recipe.yaml")
    with pytest.raises(UsageError, match="seed: it must be"):
        read_preset("small").make_recipes(seed=-1)
    assert {run.epochs for run in read_preset("small").make_recipes(epochs=1)} == {1}
