"""Tests of results and tables: the information needed to judge them, the simulated mark, and the schema."""

import csv
import io
import json
import math
from statistics import mean, stdev

import jsonschema
import pytest

from hephaestus_baselines.evaluation.metrics import METRICS_BY_UNIT
from hephaestus_baselines.evaluation.result_schema import Gap, RunResult, library_versions, source_code_hash
from hephaestus_baselines.reporting.aggregate_tables import make_result_tables, paper_mismatch_reason
from hephaestus_baselines.reporting.atmosphere_effect import measure_atmosphere_effects
from hephaestus_baselines.reporting.published_scores import (
    MODEL_TITLES,
    PAPER_COLUMNS,
    PUBLISHED_SCORES,
    PublishedSize,
)
from hephaestus_baselines.reporting.table_schema import results_json_schema
from hephaestus_build.core.errors import HephaestusError, UsageError
from hephaestus_build.core.registry import load_schema
from toy_results import grid, result, toy_predictions

PAPER = {
    "simulated": False, "split": "paper", "tiling": "label-centred", "training": "label-centred",
    "epochs": 90, "weights": "imagenet",
}  # fmt: skip


@pytest.fixture(scope="module")
def validator():
    return jsonschema.Draft202012Validator(load_schema("results.json"))


@pytest.fixture(scope="module")
def made():
    return make_result_tables(grid())


def lines_of(text):
    return list(csv.DictReader(line for line in io.StringIO(text) if not line.startswith("#")))


def test_the_schema_is_that_of_the_code():
    assert load_schema("results.json") == results_json_schema(), (
        "a field of a result changed: say so in docs/scoring.md, raise its format where old files no longer "
        "read, and write json.dumps(table_schema.results_json_schema(), indent=2) to schemas/results.json"
    )


def test_results_and_tables_keep_to_the_schema(validator, made, tmp_path):
    result().write(tmp_path / "result.json")
    made.write(tmp_path)
    for name in ("result.json", "tables.json"):
        text = (tmp_path / name).read_text()
        validator.validate(json.loads(text))
        assert "NaN" not in text  # no JSON


def fields_of(document, path=()):
    """Every field of the objects that the schema names, but not of its free maps."""
    for name, value in document.items():
        yield path, name
        if isinstance(value, dict) and name not in (
            "recipe", "seconds", "generations", "versions", "values", "undefined", "chance", "constant",
            "intervals", "groups", "frames", "counts", "cells", "coverage", "controls", "budgets",
        ):  # fmt: skip
            yield from fields_of(value, (*path, name))


def test_a_changed_field_fails_the_schema(validator):
    document = json.loads(result().model_dump_json())
    for unit in document["assessment"]["units"].values():
        unit["groups"] = unit["intervals"] = {}  # these take long to check, and hold what is checked beside
    count = 0
    for path, name in fields_of(document):
        for change in ("renamed", "retyped"):
            copy = json.loads(json.dumps(document))
            place = copy
            for step in path:
                place = place[step]
            value = place.pop(name)
            place[f"{name}_" if change == "renamed" else name] = ["x"] if change == "retyped" else value
            assert not validator.is_valid(copy), f"{change}: {'/'.join((*path, name))}"
            count += 1
    assert count > 120


def test_a_result_is_read_back_as_it_was(tmp_path):
    path = tmp_path / "result.json"
    written = result()
    written.write(path)
    read = RunResult.read(path)
    assert read.model_dump_json() == written.model_dump_json()
    region = read.assessment.units["items"].groups["activity_type"]["Mogi"]
    assert math.isnan(region.values["precision"])  # null there, NaN here


@pytest.mark.parametrize("damage", ["missing", "cut", "field"])
def test_a_result_that_cannot_be_read_says_what_to_do(tmp_path, damage):
    path = tmp_path / "result.json"
    if damage != "missing":
        text = result().model_dump_json()
        path.write_text(text[:100] if damage == "cut" else text.replace('"model"', '"modle"', 1))
    with pytest.raises(
        HephaestusError, match=r"result\.json is no result that can be read .* remove it"
    ) as seen:
        RunResult.read(path)
    assert "\n" not in str(seen.value)


def test_cells_are_mean_and_deviation_over_seeds(made):
    table = made.document.tables[0]
    row = table.rows[0]
    values = [result(seed=seed).assessment.units["items"].test.values["f1"] for seed in (0, 1)]
    assert row.seeds == [0, 1]
    assert row.cells["f1"].mean == pytest.approx(mean(values))
    assert row.cells["f1"].deviation == pytest.approx(stdev(values))
    assert row.cells["f1"].low < mean(values) < row.cells["f1"].high
    assert f"{100 * mean(values):.2f} ± {100 * stdev(values):.2f}" in made.to_markdown()


def test_a_single_seed_has_no_deviation():
    page = make_result_tables([result()])
    assert math.isnan(page.document.tables[0].rows[0].cells["f1"].deviation)
    assert "±" not in page.to_markdown().split("## ")[1]


def test_rows_are_the_papers_and_what_has_to_be_beaten(made):
    table = made.document.tables[0]
    rows = [(row.series, row.kind, row.atmosphere) for row in table.rows]
    block = [("model", False), ("model", True), *[("control", None)] * 4]
    assert rows == [(series, *row) for series in (False, True) for row in block]
    names = ["chance", "constant", "frame prior", "persistence"]
    assert [row.model for row in table.rows[2:6]] == names
    chance, constant = table.rows[2], table.rows[3]
    assert constant.cells["recall"].mean == 1
    assert chance.cells["f1"].mean == pytest.approx(12 / 60)
    assert chance.cells["auroc"].mean == 0.5
    assert table.columns == list(PAPER_COLUMNS["classification"])
    assert table.rows[0].gap is not None
    assert table.rows[0].gap.score == "average_precision"
    assert constant.gap is None


def test_the_headline_is_the_gap_to_the_control_that_comes_closest(made):
    """Recomputed from the results."""
    row = made.document.tables[0].rows[0]
    runs = [result(seed=seed) for seed in (0, 1)]
    units = [run.assessment.units["items"] for run in runs]
    ours = [unit.test.values["average_precision"] for unit in units]
    controls = {
        "chance": [unit.test.chance["average_precision"] for unit in units],
        "constant": [unit.test.constant["average_precision"] for unit in units],
        **{
            name: [unit.controls[name].test.values["average_precision"] for unit in units]
            for name in ("frame prior", "persistence")
        },
    }
    gaps = {name: mean(ours) - mean(theirs) for name, theirs in controls.items()}
    assert gaps[row.gap.control] == pytest.approx(min(gaps.values()))
    assert row.gap.mean == pytest.approx(min(gaps.values()))
    assert row.gap.low < row.gap.mean < row.gap.high
    assert f"{100 * row.gap.mean:+.1f} (" in made.to_markdown()


def test_a_trained_control_has_a_row_and_narrows_the_gap():
    model, control = result(), result("resnet-10", control="terrain only", seed=7)
    gap = Gap(value=0.01, low=-0.02, high=0.03)
    gaps = {unit: dict.fromkeys(METRICS_BY_UNIT[unit], gap) for unit in ("items", "interferograms")}
    tables = make_result_tables([model, control], {model.key: {"terrain only": gaps}})
    rows = tables.document.tables[0].rows
    assert [(row.kind, row.model) for row in rows if row.kind == "model"] == [("model", "resnet-10")]
    assert (rows[-1].kind, rows[-1].model) == ("control", "terrain only")
    assert (rows[0].gap.control, rows[0].gap.mean, rows[0].gap.low) == ("terrain only", 0.01, -0.02)
    assert "- trained controls: terrain only\n" in tables.to_markdown()
    alone = make_result_tables([model]).to_markdown()
    assert "- trained controls: none in this grid\n" in alone


def test_an_observatory_finds_events_delays_budgets_and_calibration_beside_the_controls(made):
    table = made.document.tables[2]
    assert table.title.startswith("What an observatory asks of classification")
    row = table.rows[0]
    runs = [result(seed=seed).assessment for seed in (0, 1)]
    assert row.cells["event_recall"].mean == pytest.approx(mean(run.events.recall for run in runs))
    assert row.cells["recall_at_5"].mean == pytest.approx(
        mean(run.alarm_curve.budgets["5"].recall for run in runs)
    )
    assert row.cells["ece_calibrated"].mean == pytest.approx(
        mean(run.calibration.ece_calibrated for run in runs)
    )
    prior = next(row for row in table.rows if row.model == "frame prior")
    known = result().assessment.units["interferograms"].controls["frame prior"]
    assert prior.cells["recall_at_12"].mean == pytest.approx(known.budgets["12"].recall)
    assert math.isnan(prior.cells["ece"].mean)
    page = made.to_markdown()
    assert "| Events found |" in page
    assert "above the best control" not in page.split("## What an observatory asks")[1].split("## ")[0]


def test_the_head_says_how_many_events_the_numbers_rest_on(made):
    found = result().assessment.events
    assert made.document.events["single"].events == found.events == 4
    assert f"events of test, single: 4, worth {found.effective_events:.1f} of equal size" in (
        made.to_markdown()
    )


def test_windows_that_miss_a_tenth_of_the_positives_make_no_table_unless_asked():
    few = result()
    record = few.coverage["test"].model_copy(update={"seen": 35})
    few = few.model_copy(update={"coverage": {**few.coverage, "test": record}, "tiling": "grid"})
    with pytest.raises(UsageError, match=r"grid show 35 of 40 positives of test.*--allow-unseen"):
        make_result_tables([few])
    page = make_result_tables([few], allow_unseen=True).to_markdown()
    assert "35 of 40 positives seen" in page


def test_the_best_is_bold_and_the_second_underlined():
    runs = [result(name, skill=skill) for name, skill in (("a", 0.1), ("b", 0.6), ("c", 0.3))]
    lines = make_result_tables(runs).to_markdown().split("## ")[1].splitlines()
    auroc = {line.split("|")[2].strip(): line.split("|")[7].strip() for line in lines if "× |" in line}
    assert auroc["b"].startswith("**")
    assert auroc["c"].startswith("<u>")
    assert auroc["a"][0].isdigit()
    best = next(line for line in lines if "always" in line)
    assert "**" not in best  # a recall of 100 without precision is not highlighted


def test_fewer_false_alarms_are_better():
    runs = [result(name, skill=skill) for name, skill in (("a", 0.05), ("b", 0.7))]
    table = make_result_tables(runs).document.tables[1]
    cells = {row.model: row.cells["false_alarms_per_frame_year"].mean for row in table.rows[:2]}
    assert cells["b"] < cells["a"]
    lines = make_result_tables(runs).to_markdown().split("## ")[2].splitlines()
    row = next(line for line in lines if "| b |" in line)
    assert row.split("|")[9].strip().startswith("**")


def test_simulated_data_is_marked_in_every_form(made):
    page = made.to_markdown()
    assert page.startswith("# Benchmark (simulated data)")
    titles = [line for line in page.splitlines() if line.startswith("## ")]
    assert len(titles) == 10
    assert all("simulated" in title for title in titles)
    assert {line["simulated"] for line in lines_of(made.to_csv())} == {"true"}
    assert json.loads(made.to_json())["simulated"] is True
    real = make_result_tables(grid(simulated=False))
    assert "simulated" not in real.to_markdown()
    assert {line["simulated"] for line in lines_of(real.to_csv())} == {"false"}


def test_every_form_says_where_its_numbers_come_from(made):
    for text in (made.to_markdown(), made.to_csv(), made.to_json()):
        for fact in ("hephaestus benchmark run small", "3:abc", "a" * 64, "2.15.0", "cpu", "c" * 12):
            assert fact in text
    assert "seeds 0, 1" in made.to_markdown()


def test_the_csv_holds_the_numbers_of_the_json(made):
    lines = [line for line in lines_of(made.to_csv()) if line["kind"] != "cost"]
    cells = [cell for table in made.document.tables for row in table.rows for cell in row.cells.values()]
    cells += [figure for found in made.document.detection for figure in (found.recall, found.auroc)]
    assert len(lines) == len(cells)
    for line, cell in zip(lines, cells, strict=True):
        assert line["mean"] == ("" if math.isnan(cell.mean) else repr(cell.mean))


def test_the_papers_figures_stand_beside_ours_where_all_is_the_papers():
    runs = grid(("resnet-50",), ("unet",), **PAPER)
    page = make_result_tables(runs)
    first, second = page.document.tables[0], page.document.tables[3]
    assert first.rows[0].cells["f1"].paper.mean == pytest.approx(0.7529)
    assert second.rows[1].cells["iou"].paper.deviation == pytest.approx(0.0162)
    assert second.unit == "all-pixels"
    # its way: at 0.5, not at the threshold of validation
    half = runs[0].assessment.units["items"].test_at_half.values["precision"]
    other = runs[1].assessment.units["items"].test_at_half.values["precision"]
    assert first.rows[0].cells["precision"].mean == pytest.approx((half + other) / 2)
    assert "(83.63 ± 2.94)" in page.to_markdown()
    assert "simulated" not in page.to_markdown()


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"simulated": True}, "simulated"),
        ({"split": "strict-temporal"}, "the split is strict-temporal"),
        ({"tiling": "grid"}, "windows"),
        ({"size": 256}, "windows"),
        ({"epochs": 3}, "epochs of resnet-50 is 3, not 90 as in the preset legacy"),
        ({"weights": "none"}, "weights of resnet-50 is none, not imagenet as in the preset legacy"),
    ],
)
def test_elsewhere_they_are_left_out_and_the_reason_is_said(change, reason):
    page = make_result_tables([result("resnet-50", **{**PAPER, **change})])
    assert reason in page.document.paper
    assert all(cell.paper is None for row in page.document.tables[0].rows for cell in row.cells.values())
    assert "83.63" not in page.to_markdown()
    assert reason in page.to_markdown()


def with_counts(run, **counts):
    split = run.split.model_copy(update={"counts": {**run.split.counts, **counts}})
    return run.model_copy(update={"split": split})


def test_a_few_cubes_of_the_papers_are_not_the_papers_data():
    whole = result("resnet-50", **PAPER)
    assert paper_mismatch_reason(whole) == ""
    some = with_counts(whole, test={"positive": 12, "negative": 80})
    assert paper_mismatch_reason(some) == (
        "the test part has 92 samples, of which 12 positive, less than 99% of the paper's 6,501 and 509"
    )
    more = with_counts(whole, test={"positive": 510, "negative": 5991})
    assert "510 positive, more than the paper's 6,501 and 509" in paper_mismatch_reason(more)
    series = with_counts(result("resnet-50", series=True, **PAPER), train={"positive": 1, "negative": 2})
    assert "the train part has 3 series" in paper_mismatch_reason(series)


def test_a_few_lost_samples_are_tolerated_and_counted_beside_the_papers_figures():
    runs = [
        with_counts(result("resnet-50", **PAPER), train={"positive": 1142, "negative": 8690}),
        result("resnet-50", series=True, **PAPER),
    ]
    page = make_result_tables(runs)
    assert page.document.tables[0].rows[0].cells["f1"].paper.mean == pytest.approx(0.7529)
    train = page.document.paper_samples["single"]["train"]
    assert (train.samples, train.published_samples, train.positives) == (9832, 9840, 1142)
    for text in (page.to_markdown(), page.to_csv()):
        assert "18,903 of 18,911 samples (train 9,832 of 9,840, with 1,142 of 1,143 positives; " in text
        assert "6,131 of 6,131 series (train 3,327 of 3,327, with 701 of 701 positives; " in text
    assert make_result_tables([result()]).document.paper_samples == {}


def test_the_papers_scores_stand_beside_the_networks_that_made_them():
    runs = [
        result(name, task, **PAPER)
        for name, task in (
            ("convnext-base", "classification"), ("convnext-small", "classification"),
            ("deeplabv3plus", "segmentation"), ("deeplabv3", "segmentation"),
        )
    ]  # fmt: skip
    first, _, _, second, *_ = make_result_tables(runs).document.tables
    papers = {row.model: row.cells["f1"].paper for row in (*first.rows, *second.rows) if row.kind == "model"}
    assert papers["convnext-base"].mean == pytest.approx(0.7925)
    assert papers["deeplabv3plus"].mean == pytest.approx(0.7149)
    assert papers["convnext-small"] is None
    assert papers["deeplabv3"] is None


def test_tables_say_how_many_settings_each_model_was_tried_with():
    runs = grid(("a", "b"), ())
    page = make_result_tables(runs)
    assert page.document.trials == {"a": 1, "b": 1}
    assert "trials of settings: 1 for each model, no setting was tuned" in page.to_markdown()
    other = runs[0].model_copy(update={"recipe": {**runs[0].recipe, "learning_rate": 0.1}})
    control = result("a", control="terrain only", epochs=7)
    page = make_result_tables([*runs, other, control])
    assert page.document.trials == {"a": 2, "b": 1}
    assert "not the same number for each model, which favours those with more: a 2, b 1" in page.to_csv()
    page = make_result_tables([runs[0], other])
    assert "2 for each model, each in a row of its own" in page.to_markdown()


def test_runs_of_different_splits_make_no_table():
    with pytest.raises(UsageError, match="different splits or windows"):
        make_result_tables([result(), result(size=256)])
    with pytest.raises(HephaestusError, match="no run is finished"):
        make_result_tables([])


def test_rows_of_one_name_say_what_sets_them_apart():
    one = result()
    other = one.model_copy(update={"recipe": {**one.recipe, "epochs": 9}})
    rows = make_result_tables([one, other]).document.tables[0].rows
    assert [row.variant for row in rows[:2]] == ["", "epochs 9"]
    assert "resnet-10 (epochs 9)" in make_result_tables([one, other]).to_markdown()


def test_an_undefined_score_is_a_dash_with_its_reason():
    silent = result(skill=0.0)
    unit = silent.assessment.units["items"]
    scores = unit.test.model_copy(
        update={"values": {**unit.test.values, "precision": math.nan},
                "undefined": {"precision": "nothing was predicted"}}
    )  # fmt: skip
    units = {**silent.assessment.units, "items": unit.model_copy(update={"test": scores})}
    silent = silent.model_copy(update={"assessment": silent.assessment.model_copy(update={"units": units})})
    page = make_result_tables([silent]).to_markdown()
    assert "| – |" in page
    assert "Prec of resnet-10: nothing was predicted" in page


def test_the_typed_figures_of_the_paper_agree_with_each_other():
    assert len(PUBLISHED_SCORES) == 32
    assert {model for _, model, _, _ in PUBLISHED_SCORES} == set(MODEL_TITLES)
    for (task, *_), figures in PUBLISHED_SCORES.items():
        precision, recall, f1 = (figures[name].mean for name in ("precision", "recall", "f1"))
        # of means, not of runs: near, not equal
        assert f1 == pytest.approx(2 * precision * recall / (precision + recall), abs=0.8)
        if task == "segmentation":
            assert figures["iou"].mean == pytest.approx(100 * f1 / (200 - f1), abs=0.1)


@pytest.mark.torch
def test_a_result_names_code_and_libraries():
    assert {"python", "numpy", "torch", "lightning"} <= library_versions().keys()
    assert len(source_code_hash()) == 64


def test_parameters_and_hours_stand_beside_those_of_the_paper():
    runs = [
        result("resnet-50", atmosphere=True, seed=0, seconds={"training": 7200.0, "prediction": 1800.0}),
        result("resnet-50", atmosphere=True, seed=1, seconds={"training": 5400.0}),
        result("resnet-50", series=True),
        result("mine", "segmentation"),
        result("resnet-50", control="terrain only", seconds={"training": 1e9}),
    ]
    page = make_result_tables(runs, published_sizes={"resnet-50": PublishedSize((23.5, 23.6), "as built")})
    costs = {(one.model, one.series, one.atmosphere): one for one in page.document.costs}
    assert len(costs) == 3
    with_air = costs["resnet-50", False, True]
    assert (with_air.hours, with_air.published_hours, with_air.published_parameters) == (2.0, 2.2, 23.5)
    # without atmosphere the network is smaller, and the paper does not say by how much
    assert costs["resnet-50", True, False].published_parameters is None
    assert costs["resnet-50", True, False].published_hours == 2.7
    assert costs["mine", False, False].published_hours is None
    text = page.to_markdown()
    assert "| Single-timestep | ResNet-50 | ✓ | 5.00 | 23.5 | 2 | 3 | 2.2 | as built |" in text
    assert "the paper's Table 7, simulated data" in text.replace("\\", "")
    [hours] = [
        line
        for line in lines_of(page.to_csv())
        if (line["score"], line["input"], line["model"]) == ("hours", "series", "resnet-50")
    ]
    assert (float(hours["mean"]), float(hours["paper_mean"])) == (pytest.approx(10 / 3600), 2.7)


def test_the_effect_of_the_atmosphere_is_a_paired_difference_over_seeds():
    runs = grid(segmenters=())
    problems = []
    said = {one.key: toy_predictions(one) for one in runs}
    effects = measure_atmosphere_effects(runs, lambda one: said[one.key], problems)
    assert not problems
    shown = {(one.series, one.unit, one.score): one for one in effects}
    assert set(shown) == {
        (series, unit, score)
        for series in (False, True)
        for unit in ("items", "interferograms")
        for score in ("f1", "auroc", "average_precision")
    }
    auroc = shown[False, "items", "auroc"]
    assert auroc.seeds == [0, 1]
    by_hand = mean(
        roc_auc(said[f"resnet-10-single-True-{seed}"]) - roc_auc(said[f"resnet-10-single-False-{seed}"])
        for seed in (0, 1)
    )
    assert auroc.mean == pytest.approx(by_hand, abs=1e-6)
    assert auroc.low <= auroc.mean <= auroc.high
    # a model against itself changes nothing, whatever the resample
    same = measure_atmosphere_effects(runs, lambda one: said["resnet-10-single-False-0"], problems)
    assert {(one.mean, one.low, one.high) for one in same if one.score != "f1"} == {(0, 0, 0)}
    page = make_result_tables(runs, atmosphere_effects=effects)
    assert "## What the atmosphere changes, simulated data" in page.to_markdown()
    lines = [line for line in lines_of(page.to_csv()) if line["kind"] == "effect of the atmosphere"]
    assert len(lines) == len(effects)
    # without a run to compare with there is no effect
    assert not measure_atmosphere_effects(grid(segmenters=())[2:4], lambda one: said[one.key], problems)


def roc_auc(said):
    ours, theirs = said.probability[said.label], said.probability[~said.label]
    return mean(float((one > other) + 0.5 * (one == other)) for one in ours for other in theirs)


def test_runs_whose_predictions_are_gone_are_named():
    def gone(one):
        raise HephaestusError(f"{one.key} is elsewhere")

    problems = []
    assert not measure_atmosphere_effects(grid(segmenters=()), gone, problems)
    assert "no effect of the atmosphere" in problems[0]
