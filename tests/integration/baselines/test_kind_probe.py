"""Tests of heads that tell type of activity and intensity, fitted on cubes, and their place in the tables."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from hephaestus_build.core.registry import load_schema
from hephaestus_build.report.markdown import escape_markdown
from json_page import differences
from toy_benchmark import hephaestus, run, tiny_preset, toy_cubes

TASKS = ("activity", "intensity")


@pytest.fixture(scope="module")
def places(tmp_path_factory) -> Path:
    """Folder with cubes of two simulated frames that show two kinds of deformation."""
    folder = tmp_path_factory.mktemp("kinds")
    for frame in ("198A_00210_131313", "201D_02400_131313"):
        toy_cubes(folder / "cubes", until=7, frame=frame, kinds=True)
    tiny_preset(folder / "tiny.yaml", tasks={"classification": {"models": {"resnet-tiny": {}}}})
    return folder


def probe(places: Path, task: str, capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    capsys.readouterr()
    options = ("--encoder", "test_resnet", "--weights", "none", "--set", "size=64", "--device", "cpu")
    where = ("--cubes", places / "cubes", "--to", places / "results" / "kinds", "--unchecked", "--json")
    assert hephaestus("benchmark", "probe", "--task", task, *options, *where) == 0
    answer = json.loads(capsys.readouterr().out)
    assert differences("benchmark probe", answer) == []
    return answer


def test_heads_tell_kinds_of_deformation_and_tables_show_them(places, capsys, monkeypatch):
    monkeypatch.setattr("hephaestus_baselines.reporting.run_figures.write_run_figures", lambda *_: [])
    found = {task: probe(places, task, capsys) for task in TASKS}
    for answer in found.values():
        assert answer["simulated"] is True
    activity, intensity = found["activity"], found["intensity"]
    # two types that differ by the number of fringes: their images tell them, frame and share do not
    assert {one["name"] for one in activity["classes"]} == {"Mogi", "Sill", "Earthquake"}
    assert activity["scores"]["macro_average_precision"]["value"] > 0.75
    assert activity["controls"]["majority"]["gaps"]["macro_average_precision"]["value"] > 0.2
    assert intensity["scores"]["mae"]["value"] < intensity["controls"]["majority"]["scores"]["mae"]["value"]
    assert hephaestus(*run(places)) == 0
    page = (places / "results" / "tiny" / "tables.md").read_text()
    document = json.loads((places / "results" / "tiny" / "tables.json").read_text())
    jsonschema.Draft202012Validator(load_schema("results.json")).validate(document)
    assert [one["task"] for one in document["kinds"]] == list(TASKS)
    for title in ("Type of activity", "Intensity"):
        assert f"## {title} of deforming windows, told by heads on frozen networks, simulated data" in page
    value = activity["scores"]["macro_average_precision"]["value"]
    row = ("test_resnet", "none", str(activity["windows"]["test"]), str(activity["events"]))
    assert f"| {' | '.join(map(escape_markdown, row))} |" in page
    assert f"{value:.3f}" in page
    assert "better than majority by" in page
    # a report of another split stands in no table, and a damaged one is named
    report = next((places / "results" / "kinds").glob("*-activity.json"))
    whole = report.read_text()
    report.write_text(whole.replace(activity_split(whole), "0" * 64))
    tables = ["benchmark", "tables", *run(places)[2:]]
    assert hephaestus(*tables) == 0
    document = json.loads((places / "results" / "tiny" / "tables.json").read_text())
    assert [one["task"] for one in document["kinds"]] == ["intensity"]
    report.write_text(whole[:-100])
    capsys.readouterr()
    assert hephaestus(*tables) == 1
    assert "is no report that can be read" in " ".join(capsys.readouterr().err.split())


def activity_split(text: str) -> str:
    return str(json.loads(text)["split_sha256"])
