"""Tests that figures show the data, and mark simulated data."""

import io
from dataclasses import replace

import numpy as np
import pytest
from matplotlib import text
from PIL import Image

from color_vision import nearest
from hephaestus_baselines.evaluation.predictions import PROBABILITY_BINS
from hephaestus_baselines.reporting.prediction_figures import (
    BOTH_COLOR,
    PREDICTION_COLOR,
    TRUTH_COLOR,
    PredictionExample,
    draw_atmosphere_comparison,
    draw_predictions,
    draw_series_predictions,
    write_figure,
)
from hephaestus_baselines.reporting.training_plots import (
    LINE_COLORS,
    compute_calibration,
    draw_alarm_curves,
    draw_detection,
    draw_learning_curves,
    draw_reliability_diagram,
    read_learning_curves,
)
from hephaestus_build.core.frames import Pair
from hephaestus_build.report.vapour_gradients import VapourGradients
from toy_predictions import CLASSIFIER, classified, segmented
from toy_results import result

PAIRS = ("20200101_20200113", "20200101_20200125", "20200101_20210113")


def example(steps=1, simulated=True, truth=True, found=True):
    chance = np.random.default_rng(0)
    phase = chance.uniform(-3, 3, (steps, 40, 40)).astype("f4")
    phase[:, :5] = 0
    mask = np.zeros(phase.shape, np.uint8)
    mask[-1, 10:30, 10:30] = truth
    probability = np.zeros((40, 40), "f4")
    probability[10:30, 20:40] = 0.8 * found
    return PredictionExample("200A_00001_000001", PAIRS[:steps], phase, mask, probability, 0.5, simulated)


def words(figure):
    return [found.get_text() for found in figure.findobj(text.Text) if found.get_text()]


def pictures(tmp_path, simulated):
    log = tmp_path / "metrics.csv"
    log.write_text("epoch,step,train_loss,validation_score\n1,10,0.9,0.1\n2,20,0.5,0.6\n")
    said = classified([1, 0, 0], [0.9, 0.4, 0.1])
    said = type(said)(
        type(CLASSIFIER)("classification", "toy", "paper", "0" * 64, simulated),
        "test", said.rows, said.label, said.probability, said.scored,
    )  # fmt: skip
    return {
        "over phase": draw_predictions([example(simulated=simulated)] * 3),
        "series": draw_series_predictions([example(3, simulated)]),
        "curves": draw_learning_curves({"a": [log, log]}, "Learning curves", simulated=simulated),
        "reliability": draw_reliability_diagram({"a": [said]}, "Reliability"),
        "alarms": draw_alarm_curves([result(simulated=simulated)], "Alarms"),
        "detection": draw_detection([result(simulated=simulated)], "Detection"),
    }


def test_every_picture_says_in_itself_whether_it_is_simulated(tmp_path):
    for name, figure in pictures(tmp_path, True).items():
        assert "SIMULATED DATA" in words(figure), name
    for name, figure in pictures(tmp_path, False).items():
        assert not any("simulated" in word.lower() for word in words(figure)), name


def test_windows_have_a_scale_where_the_size_of_a_pixel_is_known():
    known = replace(example(), pixel_km=0.1)
    assert "1 km" in words(draw_predictions([known]))
    assert "1 km" in words(draw_series_predictions([replace(example(3), pixel_km=0.1)]))
    figure = draw_predictions([example()])
    assert not any(word.endswith(" km") for word in words(figure))
    assert "wrapped phase (rad)" in words(figure)


def test_classes_can_be_told_apart_by_colour_blind_readers():
    assert nearest([TRUTH_COLOR, PREDICTION_COLOR, BOTH_COLOR])[0] > 25
    assert nearest([*LINE_COLORS, "white"])[0] > 25


@pytest.mark.parametrize("count", [1, 6, 9, 24])
def test_the_names_of_all_settings_lie_in_the_picture(count):
    named = [f"{place:02d}: MobileNetV3-Large, series, atmosphere" for place in range(count)]
    runs = [result(f"{place:02d}: EfficientNetV2-S, series, atmo") for place in range(count)]  # + ", single"
    said = classified([1, 0, 0], [0.9, 0.4, 0.1])
    for figure in (
        draw_reliability_diagram({name: [said] for name in named}, "Reliability"),
        draw_alarm_curves(runs, "Alarms"),
        draw_detection(runs, "Detection"),
    ):
        figure.canvas.draw()
        [legend] = figure.legends
        box, page = legend.get_window_extent(), figure.bbox
        assert (box.x0 >= 0, box.x1 <= page.x1, box.y0 >= 0, box.y1 <= page.y1) == (True,) * 4
        assert box.x0 >= max(axes.get_window_extent().x1 for axes in figure.axes)


def test_a_picture_is_written_whole(tmp_path):
    path = tmp_path / "pictures" / "phase.png"
    write_figure(draw_predictions([example()]), path)
    assert Image.open(io.BytesIO(path.read_bytes())).size[0] > 500
    assert [found.name for found in path.parent.iterdir()] == ["phase.png"]


def test_truth_is_red_prediction_blue_and_both_yellow_where_they_are():
    figure = draw_predictions([example()])
    right = figure.axes[1]
    inside = {}
    for image in right.images[1:]:
        layer = image.get_array()
        red, green, blue, _ = layer[layer[..., 3] > 0][0]
        kind = "both" if min(red, green) > 0.6 else "truth" if red > blue else "found"
        rows, columns = np.nonzero(layer[..., 3])
        inside[kind] = (rows.min(), rows.max(), columns.min(), columns.max())
    assert inside == {"truth": (10, 29, 10, 19), "found": (10, 29, 30, 39), "both": (10, 29, 20, 29)}


@pytest.mark.parametrize(
    ("truth", "found", "word"),
    [(True, True, "IoU 0.33"), (True, False, "missed"), (False, True, "false alarm"),
     (False, False, "no deformation, none predicted")],
)  # fmt: skip
def test_each_window_says_how_well_it_was_predicted(truth, found, word):
    assert word in words(draw_predictions([example(truth=truth, found=found)]))


def test_a_series_shows_each_step_and_the_union_of_their_outlines():
    figure = draw_series_predictions([example(3)])
    seen = words(figure)
    assert "200A_00001_000001  2020-01-01 to 01-13" in seen
    assert "2020-01-01 to 2021-01-13" in seen
    assert seen.count("no deformation") == 2
    assert "deformation in 25%" in seen
    assert "IoU 0.33" in seen


def test_a_window_is_shown_without_and_with_atmosphere_and_among_the_gradients_of_its_frame():
    values = {Pair.parse(name): float(place) for place, name in enumerate(PAIRS)}
    gradients = VapourGradients(values, values)
    rows = [(example(truth=False), example(truth=False, found=False), gradients)]
    figure = draw_atmosphere_comparison(rows, "Atmosphere")
    seen = words(figure)
    assert "without: false alarm" in seen
    assert "with atmosphere: no deformation, none predicted" in seen
    assert "this pair 0: above 0 of 3" in seen
    assert "SIMULATED DATA" in seen
    real = [(example(simulated=False), example(simulated=False), gradients)]
    assert "SIMULATED DATA" not in words(draw_atmosphere_comparison(real, "Atmosphere"))


def test_curves_take_the_last_value_of_an_epoch_from_sparse_logs(tmp_path):
    path = tmp_path / "metrics.csv"
    path.write_text(
        "epoch,step,learning_rate,train_loss,validation_f1,seconds\n"
        "0,5,0.1,0.9,,\n0,10,0.1,0.8,,\n0,10,,,0.25,3\n1,20,0.1,0.5,,\n1,20,,,0.5,6\n"
    )
    curves = read_learning_curves(path)
    assert {name: values.tolist() for name, (_, values) in curves.items()} == {
        "train_loss": [0.8, 0.5],
        "validation_f1": [0.25, 0.5],
    }
    assert curves["train_loss"][0].tolist() == [0, 1]


def test_seeds_that_were_stopped_at_different_epochs_are_averaged_as_far_as_all_go(tmp_path):
    for seed, epochs in enumerate((2, 4)):
        lines = [f"{epoch},{epoch + seed}" for epoch in range(epochs)]
        (tmp_path / f"{seed}.csv").write_text("\n".join(["epoch,train_loss", *lines]))
    figure = draw_learning_curves({"a": [tmp_path / "0.csv", tmp_path / "1.csv"]}, "Curves", simulated=False)
    *_, mean = figure.axes[0].lines
    assert mean.get_ydata().tolist() == [0.5, 1.5]


def test_calibration_is_that_of_the_items_in_each_bin():
    chance = np.random.default_rng(2)
    probability = chance.random(500, "f4") * 0.8  # the last bin stays empty
    label = chance.random(500) < probability**2
    found = compute_calibration(classified(label, probability), 8)
    distance = 0.0
    for place in range(8):
        inside = (probability >= place / 8) & (probability < (place + 1) / 8)
        assert found.count[place] == inside.sum()
        if inside.any():
            assert found.observed_frequency[place] == pytest.approx(label[inside].mean())
            assert found.mean_probability[place] == pytest.approx(probability[inside].mean())
            distance += abs(probability[inside].sum() - label[inside].sum())
    assert found.count[7] == 0
    assert np.isnan(found.observed_frequency[7])
    assert found.expected_error == pytest.approx(distance / 500, rel=1e-5)


def test_calibration_of_pixels_counts_their_histograms():
    quarter = PROBABILITY_BINS // 4
    said = segmented([{0: 30, quarter: 6}, {}], [{0: 10}, {quarter: 2, PROBABILITY_BINS - 1: 5}])
    found = compute_calibration(said, 4)
    assert found.count.tolist() == [40, 8, 0, 5]
    assert found.observed_frequency[[0, 1, 3]] == pytest.approx([0.25, 0.25, 1])
    assert found.mean_probability[3] == pytest.approx(1, abs=1 / PROBABILITY_BINS)


def test_detection_has_a_point_for_each_kind_and_run():
    runs = [result(seed=seed, skill=0.4) for seed in (0, 1)]
    figure = draw_detection([*runs, result(control="terrain only")], "Detection")
    [axes] = figure.axes
    groups = runs[0].assessment.units["interferograms"].groups["activity_type"]
    assert set(groups) == {"Mogi"}
    assert f"Mogi ({groups['Mogi'].positives})" in words(figure)
    points = [line for line in axes.lines if line.get_marker() == "o"]
    assert sorted(line.get_xdata()[0] for line in points) == sorted(
        run.assessment.units["interferograms"].groups["activity_type"]["Mogi"].values["auroc"] for run in runs
    )


def test_detection_stays_readable_with_many_volcanoes():
    run = result()
    unit = run.assessment.units["interferograms"]
    [scores] = unit.groups["activity_type"].values()
    volcanoes = {
        f"volcano {place}": scores.model_copy(update={"positives": place}) for place in range(1, 200)
    }
    crowded = unit.model_copy(update={"groups": {"volcano": volcanoes}})
    units = {**run.assessment.units, "interferograms": crowded}
    run = run.model_copy(update={"assessment": run.assessment.model_copy(update={"units": units})})
    figure = draw_detection([run], "Detection")
    assert figure.get_figheight() < 25
    assert "volcano 199 (199)" in words(figure)
    assert "volcano 100 (100)" not in words(figure)
