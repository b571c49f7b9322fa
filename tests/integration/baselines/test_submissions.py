"""Tests of submissions: predictions made elsewhere score like our own, and what is wrong with a file is "
"named."""

from __future__ import annotations

import csv
import json
import os
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from jsonschema import Draft202012Validator, ValidationError
from torch.utils.data import DataLoader

from hephaestus_baselines.data.preparation import PreparedData
from hephaestus_baselines.data.window_dataset import WindowDataset
from hephaestus_baselines.evaluation.predictions import Predictions
from hephaestus_baselines.evaluation.result_schema import RunResult
from hephaestus_baselines.submissions import submission_file
from hephaestus_baselines.submissions.leaderboard import (
    entry_of_run,
    entry_of_submission,
    leaderboard_json_schema,
    rank_entries,
    write_leaderboard,
)
from hephaestus_baselines.submissions.probability_maps import ProbabilityMaps
from hephaestus_baselines.submissions.scored_samples import (
    describe_samples,
    list_samples,
    prepare_scored_data,
    sample_name,
    score_submission,
)
from hephaestus_baselines.submissions.submission_file import (
    SampleKey,
    protocol_recipe,
    read_submission,
    write_submission,
)
from hephaestus_baselines.training.inference import load_trained_model
from hephaestus_build.core.errors import HephaestusError, UsageError
from hephaestus_build.core.registry import load_schema
from json_page import differences
from toy_benchmark import FRAME, hephaestus
from toy_predictions import without_names

#: Settings of the data of the tiny grid of runs.
RECIPES = {task: protocol_recipe(task, size=64) for task in ("classification", "segmentation")}


@pytest.fixture(scope="module")
def prepared(home) -> PreparedData:
    return prepare_scored_data(RECIPES["classification"], home / "cubes", unchecked=True)


@pytest.fixture
def template(home, tmp_path) -> Path:
    """Return a submission of windows without probabilities."""
    path = tmp_path / "mine.csv"
    assert hephaestus("benchmark", "template", path, "--size", 64, "--cubes", home / "cubes") == 0
    return path


def known_predictions(run: Path) -> list[Predictions]:
    return [Predictions.read(run / f"{part}.npz") for part in ("validation", "test")]


def fill_in(template: Path, model: str, known: Sequence[Predictions]) -> None:
    """Fill a template in as a stranger would, with pandas alone."""
    answers = {
        (row.frame, row.pairs[0], row.tile[0], row.tile[1]): value
        for found in known
        for row, value in zip(found.rows, found.probability.tolist(), strict=True)
    }
    header = [line for line in template.read_text().splitlines(keepends=True) if line.startswith("#")]
    table = pd.read_csv(template, comment="#")
    table["probability"] = [answers[row.frame, row.pair, row.row, row.column] for row in table.itertuples()]
    text = "".join(header).replace("my model", model) + table.sample(frac=1, random_state=1).to_csv(
        index=False
    )
    template.write_text(text)


def test_predictions_of_a_run_score_as_the_run_does_to_the_last_digit(runs, template, prepared):
    run = runs["classification"]
    fill_in(template, run.name, known_predictions(run))
    found = score_submission(read_submission(template), prepared)
    ours = RunResult.read(run / "result.json").assessment
    assert without_names(found) == without_names(ours)


def test_one_probability_for_each_interferogram_scores_as_its_highest_window(runs, tmp_path, prepared):
    run = runs["classification"]
    header = describe_samples(RECIPES["classification"], prepared, "interferogram", model="whole")
    answers = {
        SampleKey(row.frame, row.pairs[0]): float(value)
        for found in known_predictions(run)
        for row, value in zip(
            found.by_interferogram().rows, found.by_interferogram().probability, strict=True
        )
    }
    samples = list_samples(prepared, "interferogram")
    path = tmp_path / "whole.jsonl"
    write_submission(path, header, [(key, part, answers[key]) for key, part in samples.items()])
    found = json.loads(without_names(score_submission(read_submission(path), prepared)))
    ours = json.loads(without_names(RunResult.read(run / "result.json").assessment))
    assert found["units"].keys() == {"interferograms"}
    for name in ("threshold", "validation", "test", "intervals", "groups"):
        assert found["units"]["interferograms"][name] == ours["units"]["interferograms"][name]
    for name in ("false_alarms", "events", "alarm_curve", "calibration"):
        assert found[name] == ours[name]


@pytest.fixture(scope="module")
def maps(runs, prepared) -> dict[str, np.ndarray]:
    """Return what the run's segmentation says of each whole interferogram, put together of its windows."""
    trained = load_trained_model(runs["segmentation"] / "best.ckpt", "cpu")
    made: dict[str, np.ndarray] = {}
    for part in ("validation", "test"):
        items = prepared.items[part]
        for batch in DataLoader(
            WindowDataset(items, prepared.stores, size=64, atmosphere=False), batch_size=16
        ):
            for index, answer in zip(batch["index"], trained.predict_probabilities(batch), strict=True):
                item = items[int(index)]
                name = f"{item.frame}/{sample_name(item)}"
                target = made.setdefault(name, np.zeros(prepared.shapes[item.frame], np.float32))
                item.tile.write(answer.numpy(), target)
    return made


def write_segmentation(folder: Path, prepared: PreparedData, name: str = "maps.npz") -> Path:
    header = describe_samples(RECIPES["segmentation"], prepared, "window", model="maps", maps=name)
    rows = [(key, part, None) for key, part in list_samples(prepared, "interferogram").items()]
    write_submission(folder / "maps.csv", header, rows)
    return folder / "maps.csv"


@pytest.mark.parametrize("form", ["archive", "folder"])
def test_maps_of_a_run_score_as_the_run_does_to_the_last_digit(runs, maps, prepared, tmp_path, form):
    if form == "archive":
        np.savez_compressed(tmp_path / "maps.npz", **maps)
    else:
        for name, values in maps.items():
            path = tmp_path / "maps.npz" / f"{name}.npy"
            path.parent.mkdir(parents=True, exist_ok=True)
            np.save(path, np.asfortranarray(values))
    found = score_submission(read_submission(write_segmentation(tmp_path, prepared)), prepared)
    ours = RunResult.read(runs["segmentation"] / "result.json").assessment
    assert without_names(found) == without_names(ours)


def drop(lines: list[str]) -> list[str]:
    return [*lines[:-2]]


def repeat(lines: list[str]) -> list[str]:
    return [*lines, lines[-1], lines[-1]]


def invent(lines: list[str]) -> list[str]:
    return [*lines, "999X_00000_000000,20200101_20200113,0,0,test,0.5"]


def last(value: str) -> Callable[[list[str]], list[str]]:
    return lambda lines: [*lines[:-1], f"{lines[-1].rpartition(',')[0]},{value}"]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (drop, r"of \d+ samples, 2 missing \(first: 198A_00210_131313 \d{8}_\d{8} row \d+ column \d+\)"),
        (repeat, "2 there more than once"),
        (invent, r"1 unknown \(first: 999X_00000_000000 20200101_20200113 row 0 column 0\)"),
        (last("nan"), "1 without a number"),
        (last(""), "1 without a number"),
        (last("0x1p-1"), "1 without a number"),
        (last("٠.٥"), "1 without a number"),
        (last("=1+1"), "1 without a number"),
        (last("1e999"), "1 outside 0 to 1"),
        (last("-0.001"), "1 outside 0 to 1"),
        (lambda lines: [line.replace(",test,", ",train,") for line in lines], "said to be of another part"),
    ],
    ids=range(11),
)
def test_rows_that_are_wrong_are_counted_and_the_first_is_named(template, prepared, change, said):
    text = template.read_text().replace("test,\n", "test,0.25\n").replace("validation,\n", "validation,0.5\n")
    template.write_text("\n".join(change(text.splitlines())) + "\n")
    with pytest.raises(HephaestusError, match=said) as raised:
        score_submission(read_submission(template), prepared)
    assert "`hephaestus benchmark template`" in str(raised.value)
    assert "\n" not in str(raised.value)


def set_header(name: str, value: str) -> Callable[[str], str]:
    return lambda text: "".join(
        f"# {name}: {value}\n" if line.startswith(f"# {name}:") else line
        for line in text.splitlines(keepends=True)
    )


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda text: text[text.index("frame,pair") :], "it has no header"),
        (lambda text: "", "it has no header"),
        (lambda text: text.replace("# format", "# model: a\n# model: b\n# format", 1), "model twice"),
        (lambda text: "# evil\n" + text, "its header has the line '# evil'"),
        (lambda text: "# x: y\n" + text, "x: Extra inputs are not permitted"),
        (set_header("format", "pickle"), "format"),
        (set_header("size", "1000000000000"), "size"),
        (set_header("tiling", "everywhere"), "tiling"),
        (set_header("model", ""), "model"),
        (set_header("split", "../../etc/passwd"), "split"),
        (lambda text: text.replace("frame,pair,row", "frame,pair,raw"), "a column 'raw'"),
        (lambda text: text.replace("frame,pair,row", "pair,pair,row"), "a column stands twice"),
        (set_header("unit", "interferogram"), "it has the column row"),
        (lambda text: text.replace(",0,0,", ",zero,0,", 1), "'zero' is no row or column"),
        (lambda text: f"{text}frame,pair\n", r"a row has no row; the columns are frame, pair, row"),
        (lambda text: f"{text}frame,pair,0,0,test,0.5,7\n", "a row has more values than there are columns"),
        (lambda text: text + '"' + "x" * 300_000, "field larger than field limit"),
        (lambda text: "# model: " + "x" * 3000 + "\n" + text, "its header has the line"),
    ],
    ids=range(18),
)
def test_a_header_that_is_wrong_is_named(template, change, said):
    template.write_text(change(template.read_text()))
    with pytest.raises(HephaestusError, match=said) as raised:
        read_submission(template)
    assert "\n" not in str(raised.value)


def test_what_is_no_file_of_text_is_refused(tmp_path):
    np.savez(tmp_path / "evil.csv.npz", a=np.array([{"a": 1}], object))
    (tmp_path / "evil.csv.npz").rename(tmp_path / "evil.csv")
    os.mkfifo(tmp_path / "pipe.csv")
    with (tmp_path / "large.csv").open("wb") as stream:
        stream.truncate(1 << 40)
    (tmp_path / "deep.jsonl").write_text("[" * 100_000)
    (tmp_path / "list.jsonl").write_text("[1]\n")
    for name in ("evil.csv", "pipe.csv", "large.csv", "deep.jsonl", "list.jsonl"):
        with pytest.raises(HephaestusError, match="is no submission that can be read"):
            read_submission(tmp_path / name)


@pytest.mark.parametrize("suffix", ["csv", "jsonl"])
def test_a_file_of_more_rows_than_there_can_be_is_not_read_into_memory(
    template, tmp_path, monkeypatch, suffix
):
    read = read_submission(template)
    path = tmp_path / f"all.{suffix}"
    write_submission(path, read.header, [(key, part or "test", 0.5) for key, part, _ in read.rows])
    most = path.read_text().count("\n") - submission_file._MAX_HEADER_LINES
    monkeypatch.setattr(submission_file, "_MAX_ROWS", most)
    assert read_submission(path).rows
    monkeypatch.setattr(submission_file, "_MAX_ROWS", most - 1)
    for parsed in ("csv.DictReader", "parse_json"):  # none is called before the rows are counted
        monkeypatch.setattr(f"{submission_file.__name__}.{parsed}", None)
    with pytest.raises(HephaestusError, match=f"more than {most - 1} rows"):
        read_submission(path)


def test_another_split_and_other_labels_are_refused_with_both_hashes(template, prepared):
    text = template.read_text()
    for name, here in (
        ("split_sha256", prepared.split.sha256),
        ("samples_sha256", read_submission(template).header.samples_sha256),
    ):
        template.write_text(set_header(name, "0" * 64)(text))
        with pytest.raises(HephaestusError, match=f"{'0' * 64} in the file and {here} here") as raised:
            score_submission(read_submission(template), prepared)
        assert "`hephaestus benchmark template`" in str(raised.value)
    template.write_text(set_header("simulated", "false")(text))
    with pytest.raises(HephaestusError, match="says that its data are real"):
        score_submission(read_submission(template), prepared)


@pytest.mark.parametrize(
    ("values", "said"),
    [
        (np.full((3, 3), 0.5, "f4"), r"it has the shape \(3, 3\)"),
        (np.full((70, 80), np.nan, "f4"), "5600 values of it NaN or outside 0 to 1"),
        (np.full((70, 80), 1.5, "f4"), "outside 0 to 1"),
        (np.full((70, 80), 1, "i8"), "it has the type int64"),
        (np.full((70, 80), None, object), "it has the type object"),
        (np.full((70, 80), "x"), "it has the type"),
        (np.zeros((70, 80, 1), "f4"), "it has the shape"),
        (np.zeros((700, 800), "f8"), "larger than 70 x 80 pixels need"),
    ],
    ids=range(8),
)
def test_a_map_that_is_no_map_is_named_and_nothing_is_unpickled(tmp_path, values, said):
    np.savez(tmp_path / "maps.npz", **{"F/P": values})
    with pytest.raises(HephaestusError, match=said) as raised:
        ProbabilityMaps(tmp_path / "maps.npz", ["F/P"]).read("F/P", (70, 80))
    assert "\n" not in str(raised.value)


def test_small_types_are_read_as_probabilities(tmp_path):
    shape = (70, 80)
    for dtype, value, read in (("u1", 51, 0.2), ("?", 1, 1.0), ("f2", 0.25, 0.25), ("f8", 0.5, 0.5)):
        np.savez_compressed(tmp_path / "maps.npz", **{"F/P": np.full(shape, value, dtype)})
        found = ProbabilityMaps(tmp_path / "maps.npz", ["F/P"]).read("F/P", shape)
        assert found.dtype == np.float32
        np.testing.assert_allclose(found, np.full(shape, read, "f4"))


def test_maps_that_are_missing_unknown_led_away_or_packed_otherwise_are_refused(tmp_path):
    good = np.zeros((70, 80), "f4")
    np.savez(tmp_path / "maps.npz", **{"F/P": good, "F/Q": good, "../../evil": good})
    with pytest.raises(HephaestusError, match=r"1 missing \(first: F/R\), 2 unknown"):
        ProbabilityMaps(tmp_path / "maps.npz", ["F/P", "F/R"])
    (tmp_path / "link.npz").symlink_to(tmp_path / "maps.npz")
    os.mkfifo(tmp_path / "pipe.npz")
    (tmp_path / "text.npz").write_text("no archive")
    for name in ("link.npz", "pipe.npz", "text.npz", "none.npz"):
        with pytest.raises(HephaestusError, match="cannot be read"):
            ProbabilityMaps(tmp_path / name, ["F/P"])
    folder = tmp_path / "folder" / "F"
    folder.mkdir(parents=True)
    (folder / "P.npy").symlink_to("/etc/passwd")
    with pytest.raises(HephaestusError, match="it is a link"):
        ProbabilityMaps(folder.parent, ["F/P"]).read("F/P", (70, 80))
    with zipfile.ZipFile(tmp_path / "lzma.npz", "w", zipfile.ZIP_LZMA) as archive:
        archive.writestr("F/P.npy", b"x")
    with pytest.raises(HephaestusError, match="compressed in an unknown way"):
        ProbabilityMaps(tmp_path / "lzma.npz", ["F/P"]).read("F/P", (70, 80))
    with zipfile.ZipFile(tmp_path / "twice.npz", "w") as archive:
        archive.writestr("F/P.npy", b"x")
        with pytest.warns(UserWarning, match="Duplicate"):
            archive.writestr("F/P.npy", b"y")
    with pytest.raises(HephaestusError, match="1 unknown"):
        ProbabilityMaps(tmp_path / "twice.npz", ["F/P"])


def test_a_segmentation_without_maps_and_a_model_name_that_is_markup(
    tmp_path, prepared, template, runs, capsys
):
    path = write_segmentation(tmp_path, prepared, "")
    with pytest.raises(UsageError, match="write '# maps: NAME' into its header"):
        score_submission(read_submission(path), prepared)
    path.write_text(path.read_text().replace("# unit", "# maps: ../../etc/passwd\n# unit"))
    with pytest.raises(HephaestusError, match="maps: String should match pattern"):
        read_submission(path)
    evil = '=HYPERLINK("http://x.org") [red]*<img src=x>'
    fill_in(template, evil, known_predictions(runs["classification"]))
    submission = read_submission(template)
    entry = entry_of_submission(submission, score_submission(submission, prepared, resamples=10))
    result = RunResult.read(runs["classification"] / "result.json")
    tables = rank_entries([entry, entry_of_run(result, runs["classification"] / "result.json")])
    page, table, _ = write_leaderboard(tmp_path / "board", tables)
    assert r"\*\<img" in page.read_text()
    assert "<img" not in page.read_text().replace(r"\<", "")
    (line, *_) = [
        row for row in csv.DictReader(table.read_text().splitlines()) if row["kind"] == "submission"
    ]
    assert line["model"].startswith("'=HYPERLINK")
    assert float(line["value"]) == result.assessment.units["items"].test.values["average_precision"]


def test_the_command_ranks_files_and_runs_and_names_what_cannot_be_scored(
    home, runs, template, tmp_path, capsys
):
    fill_in(template, "perfect", [found_truth(found) for found in known_predictions(runs["classification"])])
    broken = tmp_path / "broken.csv"
    broken.write_text("nothing")
    command = [
        "benchmark",
        "score",
        runs["classification"],
        template,
        "--cubes",
        home / "cubes",
        "--unchecked",
    ]
    capsys.readouterr()
    assert hephaestus(*command, broken, "--to", tmp_path / "board", "--json") == 1
    said = capsys.readouterr()
    answer = json.loads(said.out)
    assert differences("benchmark score", answer) == []
    assert [entry["model"] for entry in answer["entries"]] == ["perfect", runs["classification"].name]
    assert [entry["kind"] for entry in answer["entries"]] == ["submission", "run"]
    assert answer["entries"][0]["scores"][0]["value"] == 1.0
    (problem,) = answer["problems"]
    assert "broken.csv is no submission" in problem
    assert [line for line in said.err.splitlines() if "broken.csv" in line]
    board = (tmp_path / "board" / "leaderboard.md").read_text()
    assert "(simulated data)" in board
    assert board.index("perfect") < board.index("resnet") < board.index("persistence")
    document = json.loads((tmp_path / "board" / "leaderboard.json").read_text())
    schema = load_schema("leaderboard.json")
    assert schema == leaderboard_json_schema(), (
        "write it again: json.dumps(leaderboard_json_schema(), indent=2)"
    )
    Draft202012Validator(schema).validate(document)
    with pytest.raises(ValidationError, match="'kind' is a required property"):
        del document["entries"][0]["kind"]
        Draft202012Validator(schema).validate(document)
    assert (
        document["entries"][1]["assessment"]
        == json.loads((runs["classification"] / "result.json").read_text())["assessment"]
    )
    assert hephaestus(*command) == 0
    printed = capsys.readouterr().out
    assert "perfect" in printed
    assert FRAME not in printed
    assert hephaestus("benchmark", "score", tmp_path / "none.csv") == 2
    assert hephaestus("benchmark", "template", template, "--cubes", home / "cubes") == 2
    assert "is there already" in capsys.readouterr().err


def found_truth(found: Predictions) -> Predictions:
    return Predictions(
        found.source, found.part, found.rows, found.label, found.label.astype("f4"), found.scored, None
    )
