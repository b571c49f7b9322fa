"""Tests of runs written as submissions: each scores as the run does to the last digit, of any kind of run."""

from __future__ import annotations

import json
import shutil
import zipfile
from pathlib import Path

import numpy as np
import pytest

from hephaestus_baselines.evaluation.pixel_controls import pixel_control_file
from hephaestus_baselines.evaluation.result_schema import RunResult
from hephaestus_baselines.submissions.submission_file import read_submission
from json_page import differences
from toy_benchmark import FRAME, hephaestus, run, tiny_preset, toy_cubes
from toy_predictions import without_names


@pytest.fixture(scope="module")
def bank(home, tmp_path_factory) -> Path:
    """Folder of a run with a memory bank that segments."""
    folder = tmp_path_factory.mktemp("bank")
    tasks = {"segmentation": {"methods": ["memory-bank"], "models": {"test_resnet": {}}}}
    tiny_preset(folder / "tiny.yaml", tasks=tasks)
    assert hephaestus(*run(folder, cubes=home / "cubes")) == 0
    (result,) = (folder / "results" / "tiny" / "runs").glob("*/result.json")
    return result.parent


@pytest.fixture
def submit(home, tmp_path, capsys):
    """Write a run as a submission; return its path and what the command answered."""

    def write(of: Path, name: str = "mine.csv", *options: object) -> tuple[Path, dict]:
        path = tmp_path / name
        capsys.readouterr()
        words = ("--out", path, "--cubes", home / "cubes", "--unchecked", "--device", "cpu", "--json")
        assert hephaestus("benchmark", "submit", of, *words, *options) == 0
        answer = json.loads(capsys.readouterr().out)
        assert differences("benchmark submit", answer) == []
        assert (answer["file"], answer["differing_windows"]) == (str(path), 0)
        return path, answer

    return write


def check_equal_scores(home: Path, submission: Path, of: Path, board: Path) -> None:
    """Check that the command scores a submission as the run is scored, with every digit."""
    command = ["benchmark", "score", submission, of, "--cubes", home / "cubes", "--unchecked", "--to", board]
    assert hephaestus(*command) == 0
    document = json.loads((board / "leaderboard.json").read_text())
    made, ours = sorted(document["entries"], key=lambda entry: entry["kind"], reverse=True)
    assert (made["kind"], ours["kind"]) == ("submission", "run")
    assert made["series"] == ours["series"]
    assert without_names(made["assessment"]) == without_names(ours["assessment"])


@pytest.mark.parametrize("name", ["mine.csv", "mine.jsonl"])
def test_a_classification_scores_as_its_run(home, runs, submit, tmp_path, name):
    path, answer = submit(runs["classification"], name)
    assert (answer["model"], answer["maps"]) == (runs["classification"].name, "")
    check_equal_scores(home, path, runs["classification"], tmp_path / "board")


def test_a_segmentation_scores_as_its_run_with_maps_of_whole_interferograms(home, runs, submit, tmp_path):
    path, answer = submit(runs["segmentation"], "mine.csv", "--model", "my unet")
    assert (answer["model"], answer["maps"]) == ("my unet", "mine-maps.npz")
    check_equal_scores(home, path, runs["segmentation"], tmp_path / "board")
    with np.load(tmp_path / "mine-maps.npz") as maps:
        assert len(maps) == answer["samples"]
        assert all(maps[name].shape == (70, 80) for name in maps)
        steps = np.concatenate([maps[name].ravel() for name in maps]).astype("f4") * 512
    np.testing.assert_array_equal(steps, np.floor(steps))


@pytest.mark.parametrize("task", ["classification", "segmentation"])
def test_a_run_on_series_scores_as_it_does(home, series_runs, submit, tmp_path, task):
    path, answer = submit(series_runs[task])
    assert answer["series"] is True
    names = {key.pair for key, _, _ in read_submission(path).rows}
    assert all(name.count("_") == 3 for name in names)
    check_equal_scores(home, path, series_runs[task], tmp_path / "board")


def test_anomaly_maps_of_a_memory_bank_are_written_and_score_as_the_run(home, bank, submit, tmp_path):
    path, answer = submit(bank)
    check_equal_scores(home, path, bank, tmp_path / "board")
    with zipfile.ZipFile(tmp_path / answer["maps"]) as archive:
        assert {name.split("/")[0] for name in archive.namelist()} == {FRAME}
    with np.load(tmp_path / answer["maps"]) as maps:
        assert max(float(maps[name].max()) for name in maps) > 0.3
    assert not [one for one in tmp_path.iterdir() if one.name.startswith(".")]


def test_maps_that_a_changed_model_makes_are_counted(home, runs, tmp_path, capsys):
    of = Path(shutil.copytree(runs["segmentation"], tmp_path / runs["segmentation"].name))
    for part in ("validation", "test"):  # as if another device had predicted them
        shutil.copy(of / pixel_control_file("persistence", part), of / f"{part}.npz")
    words = ("--out", tmp_path / "mine.csv", "--cubes", home / "cubes", "--unchecked")
    assert hephaestus("benchmark", "submit", of, *words) == 0
    assert "of the maps not as in the run, which was predicted on CPU" in " ".join(
        capsys.readouterr().err.split()
    )


def test_other_cubes_and_unfinished_runs_are_refused(home, runs, tmp_path, capsys):
    other = toy_cubes(tmp_path / "cubes", until=2)
    words = ("--out", tmp_path / "mine.csv", "--unchecked")
    assert hephaestus("benchmark", "submit", runs["classification"], *words, "--cubes", other) == 1
    assert "was scored on other samples than these cubes have" in " ".join(capsys.readouterr().err.split())
    assert not (tmp_path / "mine.csv").exists()
    assert hephaestus("benchmark", "submit", tmp_path, *words, "--cubes", home / "cubes") == 2
    (tmp_path / "mine.csv").write_text("")
    assert hephaestus("benchmark", "submit", runs["classification"], *words, "--cubes", home / "cubes") == 2
    assert "is there already" in capsys.readouterr().err
    assert RunResult.read(runs["classification"] / "result.json").key == runs["classification"].name
