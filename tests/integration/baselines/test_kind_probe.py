"""Tests of type of activity and intensity on cubes: trained models, heads, and their tables."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from hephaestus_baselines.evaluation.kind_schema import KindRunResult, read_run_result
from hephaestus_build.core.registry import load_schema
from json_page import differences
from toy_benchmark import hephaestus, run, tiny_preset, toy_cubes

TASKS = ("activity", "intensity")
FRAMES = ("198A_00210_131313", "201D_02400_131313")


@pytest.fixture(scope="module")
def places(tmp_path_factory) -> Path:
    """Folder with cubes of two simulated frames that show two kinds of deformation."""
    folder = tmp_path_factory.mktemp("kinds")
    for frame in FRAMES:
        toy_cubes(folder / "cubes", until=7, frame=frame, kinds=True)
    grid = {task: {"models": {"resnet-tiny": {}}} for task in TASKS}
    fields = {
        "size": 64,
        "phase": "sin-cos",
        "weights": "none",
        "epochs": 8,
        "batch_size": 8,
        "learning_rate": 0.005,
    }
    tiny_preset(
        folder / "tiny.yaml", fields={**fields, "augment": ["flip"]}, tasks=grid, controls=["terrain only"]
    )
    return folder


def probe(places: Path, task: str, capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    capsys.readouterr()
    options = ("--encoder", "test_resnet", "--weights", "none", "--set", "size=64", "--device", "cpu")
    where = ("--cubes", places / "cubes", "--to", places / "results" / "kinds", "--unchecked", "--json")
    assert hephaestus("benchmark", "probe", "--task", task, *options, *where) == 0
    answer = json.loads(capsys.readouterr().out)
    assert differences("benchmark probe", answer) == []
    return answer


def test_trained_models_and_heads_tell_kinds_of_deformation_and_tables_show_them(
    places, capsys, monkeypatch
) -> None:
    found = {task: probe(places, task, capsys) for task in TASKS}
    for answer in found.values():
        assert answer["simulated"] is True
    # two kinds that differ by the number of fringes: their images tell them, places do not
    activity, intensity = found["activity"], found["intensity"]
    assert [one["name"] for one in activity["classes"] if not one["too_few"]] == ["Mogi", "Sill"]
    assert activity["scores"]["macro_f1"]["value"] > 0.65
    assert activity["controls"]["majority"]["gaps"]["macro_f1"]["value"] > 0.2
    assert intensity["scores"]["mae"]["value"] < intensity["controls"]["majority"]["scores"]["mae"]["value"]
    capsys.readouterr()
    assert hephaestus(*run(places, "--device", "cpu")) == 0
    said = capsys.readouterr()
    assert "macro F1" in said.err
    grid = places / "results" / "tiny"
    results = [read_run_result(path) for path in sorted(grid.glob("runs/*/result.json"))]
    assert sorted((one.task, one.recipe["control"]) for one in results) == [
        (task, control) for task in TASKS for control in ("", "terrain only")
    ]
    for one in results:
        assert isinstance(one, KindRunResult)
        if not one.recipe["control"]:
            controls = [control.scores["macro_f1"].value for control in one.assessment.controls.values()]
            if one.task == "activity":  # its two types are told within these few steps on any machine
                assert one.assessment.scores["macro_f1"].value > max(controls)
            assert (
                sum(sum(shown.answers) for shown in one.assessment.classes) == one.assessment.windows["test"]
            )
            assert set(one.assessment.controls) == {"majority", "frame prior", "volcano prior", "persistence"}
    document = json.loads((grid / "tables.json").read_text())
    for path in (grid / "tables.json", *grid.glob("runs/*/result.json")):
        jsonschema.Draft202012Validator(load_schema("results.json")).validate(json.loads(path.read_text()))
    assert [table["task"] for table in document["tables"]] == list(TASKS)
    for table in document["tables"]:
        names = [(row["kind"], row["model"]) for row in table["rows"]]
        assert names[:2] == [("model", "resnet-tiny"), ("model", "test_resnet, linear probe")]
        assert ("control", "terrain only") in names
        assert table["rows"][0]["gap"]["score"] == "macro_f1"
    page = (grid / "tables.md").read_text()
    for words in ("## Type of activity of deforming windows, simulated data", "MAE, steps", "Rec Sill"):
        assert words in page
    lines = [line for line in (grid / "tables.csv").read_text().splitlines() if not line.startswith("#")]
    rows = [row for row in csv.DictReader(lines) if row["unit"] == "deforming-items"]
    assert {row["task"] for row in rows} == set(TASKS)
    assert {"macro_f1", "balanced_accuracy", "recall_of_Mogi", "mae"} <= {row["score"] for row in rows}
    assert {"learning-curves-activity.png", "learning-curves-intensity.png"} <= {
        one.name for one in grid.iterdir()
    }
    # the same grid twice differs by nothing
    capsys.readouterr()
    assert hephaestus("benchmark", "difference", grid, grid, "--json") == 0
    answer = json.loads(capsys.readouterr().out)
    assert differences("benchmark difference", answer) == []
    assert {(one["task"], one["unit"]) for one in answer["differences"]} == {
        (task, "deforming-items") for task in TASKS
    }
    assert {one["gap"]["value"] for one in answer["differences"]} == {0}
    # a report of another split stands in no table, and a damaged one is named
    monkeypatch.setattr("hephaestus_baselines.reporting.run_figures.write_run_figures", lambda *_: [])
    report = next((places / "results" / "kinds").glob("*-activity.json"))
    whole = report.read_text()
    report.write_text(whole.replace(str(json.loads(whole)["split_sha256"]), "0" * 64))
    tables = ["benchmark", "tables", *run(places)[2:]]
    assert hephaestus(*tables) == 0
    document = json.loads((grid / "tables.json").read_text())
    assert [one["task"] for one in document["kinds"]] == ["intensity"]
    report.write_text(whole[:-100])
    capsys.readouterr()
    assert hephaestus(*tables) == 1
    assert "is no report that can be read" in " ".join(capsys.readouterr().err.split())
    refuse_kinds(places, next(grid.glob("runs/activity-*seed-0*")), capsys)


def refuse_kinds(places: Path, home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Check that what is of deformation says so of a run that tells its kind."""
    cube = next((places / "cubes").glob("*.zarr"))
    best = home / "best.ckpt"
    for command in (
        ("predict", cube, "--checkpoint", best, "--to", places / "maps"),
        ("detectability", "--checkpoint", best, "--cubes", places / "cubes"),
        ("export-model", home, "--out", places / "model"),
        ("submit", home, "--out", places / "mine.csv", "--cubes", places / "cubes"),
        ("score", home, "--cubes", places / "cubes"),
    ):
        capsys.readouterr()
        assert hephaestus("benchmark", *command) != 0, command
        said = capsys.readouterr()
        assert "tells the activity of windows" in " ".join(f"{said.out} {said.err}".split()), command
    assert not any((places / name).exists() for name in ("maps", "model", "mine.csv"))
