"""Tests of scores of the kind of deformation, of means and intervals, and of the controls beside them."""

from __future__ import annotations

from dataclasses import replace
from datetime import date, timedelta
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest

from hephaestus_baselines.config.run_config import Recipe, read_preset
from hephaestus_baselines.config.tasks import TASK_SPECS, require_detection
from hephaestus_baselines.data.dataset_items import KnownInterferogram
from hephaestus_baselines.data.preparation import PreparedData
from hephaestus_baselines.data.sample_attributes import SampleAttributes
from hephaestus_baselines.data.samplers import draw_epoch_by_class
from hephaestus_baselines.evaluation.assess_kinds import assess_kinds, compare_kinds
from hephaestus_baselines.evaluation.kind_controls import make_kind_controls
from hephaestus_baselines.evaluation.kind_metrics import (
    count_confusion_by_cluster,
    predict_classes,
    rate_kinds,
    score_classes,
    score_confusion,
)
from hephaestus_baselines.evaluation.predictions import PredictedItem, Predictions, PredictionSource
from hephaestus_build.core.errors import HephaestusError, UsageError
from hephaestus_build.core.frames import Pair

ACTIVITY, INTENSITY = TASK_SPECS["activity"], TASK_SPECS["intensity"]


def test_classes_and_levels_are_scored_as_scikit_learn_scores_them() -> None:
    metrics = pytest.importorskip("sklearn.metrics")
    rng = np.random.default_rng(0)
    truth, said = rng.integers(0, 3, 80), rng.integers(0, 3, 80)
    clusters = np.arange(80)
    weight = rng.integers(0, 3, (2, 80)).astype("f8")
    confusion = np.tensordot(weight, count_confusion_by_cluster(truth, said, 3, clusters), 1)
    found = score_confusion(confusion, np.ones(3, bool), ordered=True)
    each = score_classes(confusion)
    for place in range(2):
        sample = {"sample_weight": weight[place]}
        assert found["macro_f1"][place] == pytest.approx(
            metrics.f1_score(truth, said, average="macro", **sample)
        )
        balanced = metrics.balanced_accuracy_score(truth, said, **sample)
        assert found["balanced_accuracy"][place] == pytest.approx(balanced)
        assert found["accuracy"][place] == pytest.approx(metrics.accuracy_score(truth, said, **sample))
        assert found["mae"][place] == pytest.approx(metrics.mean_absolute_error(truth, said, **sample))
        kappa = metrics.cohen_kappa_score(truth, said, weights="quadratic", **sample)
        assert found["quadratic_kappa"][place] == pytest.approx(kappa)
        for name, function in (("recall", metrics.recall_score), ("precision", metrics.precision_score)):
            np.testing.assert_allclose(each[name][place], function(truth, said, average=None, **sample))
    errors = [
        np.average(np.abs(truth - said)[truth == level], weights=weight[0][truth == level])
        for level in range(3)
    ]
    assert found["macro_mae"][0] == pytest.approx(np.mean(errors))


def test_a_mean_over_one_class_says_nothing_and_is_not_given() -> None:
    confusion = np.diag([5.0, 3.0, 0.0])
    alone = score_confusion(confusion, np.array([True, False, False]), ordered=False)
    assert np.isnan(alone["macro_f1"])
    assert alone["accuracy"] == 1
    assert (
        score_confusion(confusion, np.ones(3, bool), ordered=False)["macro_f1"] == 1
    )  # the third is not shown
    assert np.isnan(score_confusion(np.diag([4.0, 0, 0]), np.ones(3, bool), ordered=True)["quadratic_kappa"])


def test_answers_are_the_most_probable_class_or_the_median_level() -> None:
    said = np.array([[0.4, 0.25, 0.35], [0.1, 0.3, 0.6]])
    assert predict_classes(said, ordered=False).tolist() == [0, 2]
    assert predict_classes(said, ordered=True).tolist() == [1, 2]


def test_labels_of_windows_are_the_type_of_most_pixels_and_the_highest_level() -> None:
    # codes of the cube: Mogi 1, Sill 3; Low 1, Medium 2, and 4 for what has no level
    assert ACTIVITY.classes[ACTIVITY.class_of_codes({1: 10, 3: 11})] == "Sill"
    assert INTENSITY.classes[INTENSITY.class_of_codes({1: 90, 2: 1, 4: 500})] == "Medium"
    assert INTENSITY.class_of_codes({4: 7}) == ACTIVITY.class_of_codes({}) == -1
    assert ACTIVITY.classes_of_names(["Sill", "Mogi"]) == {0, 2}
    assert INTENSITY.classes_of_names(["Low", "Medium", "None"]) == {1}


def test_epochs_draw_each_class_equally_often_and_nothing_without_one() -> None:
    classes = [frozenset({0})] * 8 + [frozenset({2})] * 2 + [frozenset()] * 5
    drawn = draw_epoch_by_class(classes, 0, 3)
    assert len(drawn) == 10
    assert sum(draw.item < 8 for draw in drawn) == 5
    assert {draw.item for draw in drawn} >= {8, 9}
    assert len({draw.seed for draw in drawn if draw.item == 8}) == sum(draw.item == 8 for draw in drawn) > 1
    assert draw_epoch_by_class(classes, 0, 3) == drawn != draw_epoch_by_class(classes, 0, 4)
    plain = draw_epoch_by_class(classes, 0, 3, balance=False)
    assert sorted(draw.item for draw in plain) == list(range(10))


def predictions(
    part: str, task: str = "activity", *, skill: float = 4.0, seed: int = 0, count: int = 60
) -> Predictions:
    """Windows of two classes, four of each event, of a model that knows them as well as `skill` says."""
    rng = np.random.default_rng((seed, len(part)))
    classes = len(TASK_SPECS[task].classes)  # type: ignore[index]
    label = (np.arange(count) // 4 % 2).astype(np.int8)
    scores = rng.normal(0, 1, (count, classes))
    scores[np.arange(count), label] += skill
    probability = np.exp(scores) / np.exp(scores).sum(1, keepdims=True)
    rows = tuple(
        PredictedItem(f"{at % 3}", ("20190101_20190113",), True, (0, 0, 64), events=(f"event {at // 4}",))
        for at in range(count)
    )
    source = PredictionSource(task, "toy", "strict-temporal", "0" * 64, True)  # type: ignore[arg-type]
    return Predictions(source, part, rows, label, probability.astype("f4"), np.ones(count, bool))  # type: ignore[arg-type]


def test_models_are_scored_with_support_controls_and_intervals_over_events() -> None:
    seen, unseen = predictions("validation"), predictions("test")
    shares = {"majority": lambda row: np.array([0.5, 0.3, 0.2, 0, 0, 0])}
    found = assess_kinds(seen, unseen, [20, 20, 3, 0, 0, 0], shares, resamples=200)
    assert found.windows == {"validation": 60, "test": 60}
    assert found.events == 15
    mogi, dyke, sill, *_ = found.classes
    assert (mogi.windows, mogi.events, mogi.too_few) == ({"train": 20, "validation": 32, "test": 32}, 8, "")
    assert sill.too_few == "0 windows in test, 0 events in test"
    assert found.classes[5].too_few == "no interferogram in train, 0 windows in test, 0 events in test"
    assert sum(mogi.answers) == 32
    score = found.scores["macro_f1"]
    assert 0.8 < score.low <= score.value <= score.high
    control = found.controls["majority"]
    assert control.scores["balanced_accuracy"].value == 0.5  # the means are of the two that are known
    assert control.gaps["macro_f1"].low > 0.2
    assert found.classes[0].controls["majority"]["recall"].value == 1
    assert dyke.controls["majority"]["recall"].value == 0
    # windows without a known class are not scored
    other = replace(unseen, scored=np.arange(60) < 30)
    assert assess_kinds(seen, other, [20] * 6, shares, resamples=20).windows["test"] == 30
    with pytest.raises(HephaestusError, match="no window of test"):
        assess_kinds(seen, replace(unseen, scored=np.zeros(60, bool)), [20] * 6, shares, resamples=20)


def test_errors_of_levels_are_smaller_where_a_model_is_better() -> None:
    seen, good, bad = (
        predictions("validation", "intensity"),
        predictions("test", "intensity"),
        predictions("test", "intensity", skill=0),
    )
    middle = {"majority": lambda row: np.array([0.2, 0.6, 0.2])}
    found = assess_kinds(seen, good, [20] * 3, middle, resamples=100)
    assert found.scores["mae"].value < 0.2
    assert found.controls["majority"].gaps["mae"].value > 0.2
    gaps = compare_kinds([(good, bad), (good, bad)], np.array([True, True, False]), resamples=100)
    assert gaps["macro_mae"].low > 0
    assert gaps["macro_f1"].low > 0
    with pytest.raises(UsageError, match="same windows"):
        compare_kinds([(good, bad.select(np.arange(10)))], np.ones(3, bool))


def test_epochs_are_chosen_by_classes_that_validation_shows() -> None:
    good, bad = (predictions("validation", skill=skill) for skill in (5, 0))
    assert rate_kinds(good) > 0.9 > 0.6 > rate_kinds(bad)
    single = good.select(good.label == 0)
    assert rate_kinds(single) > 0.9  # of one class alone it is the accuracy


def test_predictions_of_classes_are_stored_and_read_back(tmp_path: Any) -> None:
    found = predictions("test")
    found.write(tmp_path / "test.npz")
    again = Predictions.read(tmp_path / "test.npz")
    assert again.source == found.source
    np.testing.assert_array_equal(again.probability, found.probability)
    np.testing.assert_array_equal(again.label, found.label)


def known(frame: str, day: int, activity: str = "", *, train: bool = True) -> KnownInterferogram:
    first = date(2019, 1, 1) + timedelta(days=day)
    return KnownInterferogram(frame, Pair(first, first + timedelta(days=12)), train, bool(activity))


def test_controls_know_places_and_times_but_no_image() -> None:
    seen = {
        known("a", 0, "Mogi"): "Mogi",
        known("a", 12, "Mogi"): "Mogi",
        known("b", 0, "Sill"): "Sill",
        known("b", 24): "",
        known("a", 100, "Dyke", train=False): "Dyke",
    }
    keys = {one: (one.frame, one.pair.name) for one in seen}
    prepared = cast(
        PreparedData,
        SimpleNamespace(
            known=tuple(seen),
            attributes={
                keys[one]: SampleAttributes("", (name,) if name else ()) for one, name in seen.items()
            },
            events={keys[one]: ("summit",) for one, name in seen.items() if name == "Sill"},
            event_volcanoes={"summit": "Hill"},
        ),
    )
    controls = make_kind_controls("activity", prepared)

    def say(name: str, frame: str, pair: str, **fields: Any) -> list[float]:
        return controls[name](PredictedItem(frame, (pair,), True, **fields)).round(3).tolist()[:3]

    late = "20190601_20190613"
    assert say("majority", "c", late) == [0.667, 0, 0.333]
    assert say("frame prior", "b", late) == [0, 0, 1]
    assert say("frame prior", "c", late) == [0.667, 0, 0.333]
    assert say("volcano prior", "a", late, volcanoes=("Hill",)) == [0, 0, 1]
    assert say("volcano prior", "a", late) == [0.667, 0, 0.333]
    assert say("persistence", "a", late) == [0.667, 0.333, 0]
    assert say("persistence", "a", "20190110_20190122") == [1, 0, 0]  # what ends later is not known yet
    assert say("persistence", "c", late) == [0.667, 0, 0.333]


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"method": "linear-probe"}, "benchmark probe"),
        ({"weights": "simulated"}, "no labels of activity"),
        ({"calibrated": True}, "calibrated must be false"),
        ({"focal_alpha": 0.25}, "focal_alpha"),
    ],
)
def test_settings_that_are_for_deformation_alone_are_refused(fields: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        Recipe(task="activity", model="resnet-tiny", **fields)


def test_what_is_of_deformation_alone_says_so() -> None:
    require_detection("segmentation", "a map")
    with pytest.raises(UsageError, match=r"a map is of deformation.*tells the intensity.*classification"):
        require_detection("intensity", "a map")
    preset = read_preset("kinds-small")
    with pytest.raises(UsageError, match="folds are not scored together for activity"):
        preset.model_copy(update={"splits": ("volcano-group-rifts", "volcano-group-others")}).make_recipes()


def test_runs_of_both_tasks_have_names_of_their_own() -> None:
    runs = read_preset("kinds-small").make_recipes()
    assert {run.task for run in runs} == {"activity", "intensity"}
    assert len({run.key for run in runs}) == len(runs) == 6
    assert all(run.key.startswith(f"{run.task}-resnet-tiny-single") for run in runs)
    assert [run.control for run in runs].count("terrain only") == 2
