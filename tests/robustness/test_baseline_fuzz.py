"""Fuzz tests of untrusted presets, results, predictions and checkpoints: read or refused, within limits."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from fuzzing import Reader, fuzz
from hephaestus_baselines.cli.options import parse_fields
from hephaestus_baselines.config.run_config import Preset, read_preset
from hephaestus_baselines.evaluation.predictions import Predictions
from hephaestus_baselines.evaluation.result_schema import RunResult
from hephaestus_build.core.atomic_io import hash_bytes
from hephaestus_build.core.embedded_hash import add_json_hash
from hephaestus_build.core.errors import UsageError
from toy_benchmark import TINY, tiny_preset
from toy_predictions import classified
from toy_results import result

ERRORS = ("hephaestus_build.core.errors:HephaestusError",)


def read_runs(path: Path) -> None:
    """Read a preset as the benchmark commands do."""
    read_preset(path).make_recipes(epochs=2)


def read_result(path: Path) -> RunResult:
    """Read a result after recomputing its embedded hash, and render its page."""
    from hephaestus_baselines.reporting.aggregate_tables import make_result_tables

    content = path.read_bytes()
    path.write_bytes(add_json_hash(content))
    found = RunResult.read(path)
    page = make_result_tables([found])
    page.to_markdown()
    page.to_csv()
    return found


def read_predictions(path: Path) -> Predictions:
    """Read predictions after recomputing their embedded hash."""
    content = path.read_bytes()
    head = content[: -64 if len(content) > 64 else None]
    path.write_bytes(head + hash_bytes(head).encode())
    return Predictions.read(path)


def test_mutated_presets(tmp_path):
    sample = tiny_preset(tmp_path / "tiny.yaml").read_bytes()
    with Reader(f"{__file__}:read_runs", errors=ERRORS, memory=2 << 30) as reader:
        fuzz(reader, [sample], tmp_path, suffix=".yaml")


def test_mutated_results(tmp_path):
    sample = result().model_dump_json(exclude={"seal"}).encode()
    with Reader(f"{__file__}:read_result", errors=ERRORS, memory=2 << 30) as reader:
        fuzz(reader, [sample], tmp_path, suffix=".json")


def test_mutated_predictions(tmp_path):
    classified([1, 0, 1], [0.5, 0.1, 0.2]).write(tmp_path / "sample.npz")
    sample = (tmp_path / "sample.npz").read_bytes()
    with Reader(f"{__file__}:read_predictions", errors=ERRORS, memory=2 << 30) as reader:
        fuzz(reader, [sample], tmp_path, suffix=".npz")


@pytest.mark.parametrize(
    "text",
    [
        "tasks: " + "[" * 5000 + "]" * 5000,
        "a: &a [x, x]\nb: &b [*a, *a]\ntasks: [*b, *b]",
        "description: !!python/object/apply:os.mkdir [ran]",
        "seeds: " + "1" * 5000,
        "x: 1\n" * (1 << 19),
        "description: \0",
        "? [a]\n: b",
    ],
    ids=["deep", "aliases", "tag", "digits", "huge", "nul", "key"],
)
def test_a_preset_without_bounds_is_one_line(text, tmp_path):
    (tmp_path / "mine.yaml").write_text(text)
    with pytest.raises(UsageError) as seen:
        read_preset(tmp_path / "mine.yaml")
    assert "\n" not in str(seen.value)
    assert len(str(seen.value)) < 1000


@pytest.mark.parametrize(
    "name", ["../out", "/tmp/out", "a/b", "..", ".hidden", "", "a\0b", "x" * 101, "a\\b"]
)
def test_no_name_leads_out_of_the_results(name):
    for content in (
        {**TINY, "name": name},
        {**TINY, "name": "x", "tasks": {"classification": {"models": {name: {}}}}},
        {**TINY, "name": "x", "fields": {**TINY["fields"], "split": name}},  # type: ignore[dict-item]
    ):
        with pytest.raises((UsageError, ValueError)):
            Preset.model_validate(content).make_recipes()


@pytest.mark.parametrize(
    "field",
    [
        {"epochs": 10**18}, {"size": 10**9}, {"batch_size": 10**6}, {"workers": 10**6}, {"devices": 10**6},
        {"batch_size": 4096, "size": 4096}, {"learning_rate": float("inf")}, {"learning_rate": float("nan")},
        {"validation_windows": 10**12}, {"weights": "a\0b"}, {"focal_gamma": 1e300}, {"self": 1},
        {"command": "x"}, {"epoch": 3}, {"weights": "x" * 5000},
    ],
)  # fmt: skip
def test_numbers_and_fields_are_bounded(field):
    with pytest.raises(UsageError) as seen:
        Preset.model_validate({**TINY, "name": "x"}).make_recipes(**field)
    assert "\n" not in str(seen.value)


def test_a_grid_of_millions_is_refused_before_it_is_made():
    many = {**TINY, "name": "x", "seeds": list(range(9000)), "series": [True, False]}
    with pytest.raises(UsageError, match="36000 runs, more than 10000"):
        Preset.model_validate(many).make_recipes()


@pytest.mark.parametrize("value", ["[" * 5000, "&a [*a]", "!!python/name:os.mkdir", "1" * 5000, "{"])
def test_a_field_that_is_no_plain_value_is_one_line(value):
    with pytest.raises(UsageError, match="its value is not YAML") as seen:
        parse_fields([f"epochs={value}"])
    assert len(str(seen.value)) < 300


def test_texts_of_results_are_shown_as_they_are(tmp_path):
    from hephaestus_baselines.reporting.aggregate_tables import make_result_tables

    text = "![x](http://h/x.png) <img src=x> | `rm` \x1b[2J\n# head"
    document = json.loads(result().model_dump_json(exclude={"seal"}))
    document |= {"model": text, "device": text, "command": text, "training": text, "weights": text}
    path = tmp_path / "result.json"
    path.write_bytes(add_json_hash(json.dumps(document).encode()))
    page = make_result_tables([RunResult.read(path)])
    for shown in (page.to_markdown(), page.to_csv(), page.to_json()):
        assert "\x1b" not in shown
        assert "\n# head" not in shown
    body = re.sub(r"(`+)(?!`).*?(?<!`)\1(?!`)", "", page.to_markdown())  # code spans are never interpreted
    assert not re.search(r"(?<!\\)<img", body)
    assert not re.search(r"(?<!\\)!\[", body)


def test_a_result_that_lacks_scores_is_named(tmp_path):
    document = json.loads(result().model_dump_json(exclude={"seal"}))
    path = tmp_path / "result.json"
    del document["assessment"]["units"]["items"]["test"]["values"]["f1"]
    path.write_bytes(add_json_hash(json.dumps(document).encode()))
    with pytest.raises(Exception, match="it lacks scores of items"):
        RunResult.read(path)
