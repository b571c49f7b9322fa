"""Tests that every answer with --json is as schemas/commands.json and docs/json.md say."""

from __future__ import annotations

import json
import shutil
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator
from typer.main import get_command

from annotation_files import good_file, quiet_file, tar_of
from archives import FRAME
from hephaestus_build.cli import app, run_console_script
from hephaestus_build.core.settings import Settings
from hephaestus_build.simulation.server import faults
from json_page import (
    PAGE,
    command_schema,
    described_commands,
    differences,
    examples,
    keys_in,
    keys_of,
    rewritten,
)
from toy_benchmark import tiny_preset, toy_cubes
from toy_cube import toy_cube

UNKNOWN = "199A_00001_000001"
#: Failing runs and maps of series are tested in test_benchmark_command.py and test_predict_frame.py.
UNSEEN = {"benchmark run": {"runs[].error"}, "benchmark predict": {"maps[].series"}}


def _commands(command: Any, name: str = "", *, every: bool = False) -> Iterator[str]:
    """Yield the commands that take --json, or every one."""
    group = hasattr(command, "list_commands")
    for child in command.list_commands(None) if group else ():
        yield from _commands(command.get_command(None, child), f"{name} {child}".strip(), every=every)
    if (every and not group) or any(
        "--json" in getattr(parameter, "opts", ()) for parameter in command.params
    ):
        yield name


def test_the_schema_has_every_command_with_json_and_no_other() -> None:
    assert sorted(described_commands()) == sorted(_commands(get_command(app)))


def test_every_command_that_prints_a_result_takes_json() -> None:
    silent = {"archive serve"}  # prints settings for a shell, until it is stopped
    assert set(_commands(get_command(app), every=True)) - silent == set(described_commands())


def test_the_page_has_the_tables_of_the_schema() -> None:
    Draft202012Validator.check_schema(command_schema())
    text = PAGE.read_text(encoding="utf-8")
    assert rewritten(text) == text, "python tests/support/json_page.py writes them again"
    assert all(f"\n## hephaestus {name}\n" in text for name in described_commands())


def test_the_examples_of_the_page_are_as_the_schema_says() -> None:
    shown = list(examples())
    assert {command for command, _ in shown} == set(described_commands())
    assert [found for found in (differences(*one, partial=True) for one in shown) if found] == []


def test_things_have_one_name_and_form_in_all_commands() -> None:
    shared = {name: f"#/$defs/{name}" for name in ("frame", "pair", "outcome")}
    for command in described_commands():
        schema = command_schema()["$defs"][f"hephaestus {command}"]
        assert schema.get("type") == "object" or "$ref" in schema, command
        for where, part in described(schema, command):
            name = where.rpartition(".")[2]
            references = [one.get("$ref") for one in (part, *part.get("anyOf", ()))]
            if name in shared:
                assert shared[name] in references, where
            assert name not in ("size", "gigabytes"), where
            assert not name.endswith(("_gb", "_mb")), where


def described(schema: dict[str, Any], where: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield every key of a schema with what is said of it, at any depth."""
    for name, part in schema.get("properties", {}).items():
        yield f"{where}.{name}", part
        yield from described(part, f"{where}.{name}")
    if "items" in schema:
        yield from described(schema["items"], f"{where}[]")


class Session:
    """Runner of commands that validates their output."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self._capsys = capsys
        self.seen: dict[str, set[str]] = {}

    def __call__(self, command: str, *arguments: object, code: int = 0) -> Any:
        words = ["hephaestus", *command.split(), *map(str, arguments), "--json"]
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(sys, "argv", words)
            try:
                run_console_script()
                ended = 0
            except SystemExit as leaving:
                ended = int(leaving.code or 0)
        said = self._capsys.readouterr()
        assert ended == code, (words, said.err)
        lines = said.out.splitlines() if command == "watch" else [said.out]
        answers = [json.loads(line) for line in lines]
        for answer in answers:
            assert isinstance(answer, dict)
            assert differences(command, answer) == [], words
            self.seen.setdefault(command, set()).update(keys_in(command, answer))
        return answers if command == "watch" else answers[0]

    def finish(self) -> None:
        """Check that every key of the schema was printed."""
        unseen = {name: keys_of(name) - seen - UNSEEN.get(name, set()) for name, seen in self.seen.items()}
        assert {name: keys for name, keys in unseen.items() if keys} == {}


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Session:
    return Session(capsys)


@pytest.fixture
def data(upstream: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "data"
    monkeypatch.setenv("HEPHAESTUS_DATA_DIR", str(folder))
    monkeypatch.setenv("HEPHAESTUS_RETRIES", "0")
    return folder


def test_commands_on_cubes(
    archive: Any, data: Path, tmp_path: Path, run: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = archive.archive.pairs(FRAME)[1]
    run("doctor")
    run("frames", "etna")
    run("frames", "--near", "36.8,14.5")
    run("frames", "iceland")
    run("plan", FRAME, "--variables", "look_up")
    run("plan", "--simulated", "--all")
    refused = archive.faults.add(r"\.tif$", faults.error_status(403))
    (nothing,) = run("watch", FRAME, "--once", code=1)
    assert len(nothing["owed"]) == 7
    jobs = tmp_path / "jobs.yaml"
    jobs.write_text(f"jobs: {{one: {{frames: [{FRAME}, {UNKNOWN}], simulated: true, at_a_time: 1}}}}")
    assert run("apply", jobs, code=1)["jobs"][0]["runs"][0]["owed"]
    assert run("build", FRAME, code=1)["frames"][0]["owed"] == nothing["owed"]
    archive.faults.remove(refused)
    archive.faults.add(r"\.geo\.hgt\.tif$", faults.error_status(404))
    archive.faults.add(rf"{first}\.geo\.diff_pha\.tif$", faults.error_status(503))
    monkeypatch.setenv("HEPHAESTUS_ACCEPT", '{"*": ["dem"]}')
    built = run("build", FRAME, UNKNOWN, "--no-quicklook", "--at-a-time", 1, code=1)
    (whole, failed) = built["frames"]
    assert (len(whole["result"]["owed"]), len(whole["result"]["accepted"])) == (1, 1)
    assert failed["exit_code"] == 1
    run("status", code=1)
    run("inspect", FRAME)
    (lines, _) = run("watch", FRAME, UNKNOWN, "--once", "--at-a-time", 1, code=1)
    assert lines["result"]["owed"]
    assert run("apply", jobs, code=1)["jobs"][0]["runs"][0]["result"]["owed"]
    archive.reset()
    run("apply", jobs, code=1)
    run("build", FRAME, "--no-quicklook")

    run("inspect", FRAME)
    run("pairs", FRAME)
    cube = data / "simulated" / "cubes" / f"{FRAME}.zarr"
    copy = shutil.copytree(cube.resolve(), tmp_path / f"{FRAME}.zarr")
    shutil.rmtree(copy / "valid_date_pair")
    metadata = json.loads((copy / "zarr.json").read_text())
    del metadata["consolidated_metadata"]["metadata"]["valid_date_pair"]
    (copy / "zarr.json").write_text(json.dumps(metadata))
    assert run("inspect", copy, code=1)["findings"]

    run("verify", "--upstream")
    shard = next(iter((cube.resolve() / "insar_difference").glob("c.*")))
    content = bytearray(shard.read_bytes())
    content[len(content) // 2] ^= 1
    shard.unlink()  # other generations hold the same file
    shard.write_bytes(content)
    assert run("verify", code=1)["frames"][0]["findings"]
    assert run("repair", FRAME)["frames"][0]["rebuilt"]
    assert run("gc", "--keep", 1, "--older-than", 0)["frames"][0]["removed"]
    run("report", FRAME)
    run("report", FRAME, "--figure", "vapour")
    run("show", FRAME, "--no-browser")
    run("timeseries", FRAME, "--at", "37.75,-24.3")
    run("report", FRAME, "--html")
    run("site", "--out", tmp_path / "site")
    (tmp_path / "mine" / "frames" / f"{FRAME}.html").mkdir(parents=True)
    assert run("site", "--out", tmp_path / "mine", code=1)["failed"][0]["frame"] == FRAME.id
    run("export", FRAME, "--to", "geotiff", "--out", tmp_path / "export")
    run("export", FRAME, "--to", "webdataset", "--size", 32, "--out", tmp_path / "shards")
    run("export", FRAME, "--to", "zarr2", "--out", tmp_path / "export")
    run("export", FRAME, "--to", "licsbas", "--out", tmp_path / "series")
    unwrapped = toy_cube(tmp_path / "unwrapped", optional=("unwrapped_phase",))
    run("export", unwrapped, "--to", "mintpy", "--out", tmp_path / "series")
    run("archive list")
    run("archive write", tmp_path / "archive", "--frame", FRAME, "--epochs", 3)
    assert {row["name"] for row in run("settings")["settings"]} == set(Settings.model_fields)
    run.finish()


def test_migrate(data: Path, run: Session) -> None:
    with tarfile.open(Path(__file__).parents[2] / "data" / "sha256_records.tar.xz") as archive:
        # a cube of an earlier schema; Python 3.11.4 is the first with filters
        filters = {"filter": "data"} if hasattr(tarfile, "data_filter") else {}
        archive.extractall(data.parent, **filters)
    toy_cube(data / "cubes")
    assert [item["frame"] for items in run("migrate").values() for item in items] == [
        FRAME.id,
        "010A_00210_131313",
    ]
    run.finish()


def test_catalog(data: Path, run: Session) -> None:
    cubes = data / "simulated" / "cubes"
    store = toy_cube(cubes).resolve()
    other = toy_cube(cubes, frame="198A_00211_131313").resolve()
    run("splits write", "paper", "--simulated")
    run("catalog", "--out", data / "catalog")
    for place in (other, other.parent):
        (place / "provenance.json").write_bytes(b"damaged")
    assert run("catalog", "--out", data / "catalog", code=1)["failed"][0]["frame"] == other.stem
    assert run("catalog", store.stem, "--out", data / "catalog")["removed"]
    del run.seen["splits write"]
    run.finish()


def test_commands_on_annotations(
    archive: Any, data: Path, tmp_path: Path, run: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    run("annotations fetch", "--url", archive.environment()["HEPHAESTUS_ANNOTATIONS"])
    files: dict[str, Any] = {}
    for number in range(1, 41):
        year, month = 2015 + number % 7, 1 + number % 9
        dates = {
            "frameID": "124D_05291_081406",
            "primary_date": f"{year}{month:02d}01",
            "secondary_date": f"{year}{month:02d}{13 + number % 3}",
        }
        files[f"{number}.json"] = (good_file if number % 3 == 0 else quiet_file)(number, **dates)
    files["41.json"] = good_file(41, frameID="124D_05291_081406", glacier_fringes=2)
    across = {"primary_date": "20190525", "secondary_date": "20190612"}
    files["42.json"] = quiet_file(42, frameID="124D_05291_081406", **across)
    monkeypatch.setenv("HEPHAESTUS_ANNOTATIONS", str(tar_of(tmp_path / "a.tar.gz", files)))
    run("annotations summary")
    assert run("annotations defects")["defects"]
    run("annotations masks")
    run("splits list")
    run("splits summary")
    run("splits summary", "strict-temporal")
    run("splits summary", "strict-temporal", "--cubes", toy_cube(tmp_path / "cubes"))
    run("splits write", "strict-temporal", "unseen-event")
    run("splits list")
    run("splits audit", "paper", "strict-temporal", "unseen-event")
    run("splits coverage")
    run("splits figures", "--to", tmp_path / "figures")
    run.finish()


def test_statistics(data: Path, run: Session) -> None:
    run("build", FRAME, "--no-quicklook")
    run("splits write", "paper")
    assert run("statistics update", "paper", code=3)["missing"]
    run("statistics show", "paper")
    del run.seen["build"], run.seen["splits write"]
    run.finish()


def test_the_benchmark(tmp_path: Path, run: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("torch")
    import hephaestus_baselines.mapping.predict_frame as maps
    import hephaestus_baselines.reporting.run_figures as pictures  # needs torch

    monkeypatch.setattr(pictures, "write_run_figures", lambda *_: [])  # the slowest part
    toy_cubes(tmp_path / "cubes")
    tasks = {"classification": {"models": {"resnet-tiny": {}}}}
    grid = tiny_preset(tmp_path / "tiny.yaml", tasks=tasks)
    where = [grid, "--cubes", tmp_path / "cubes", "--results", tmp_path / "results"]
    run("benchmark plan", *where)
    finished = run("benchmark run", *where)
    run("benchmark plan", "paper", *where[1:])  # a preset whose duration the paper states
    run("benchmark tables", *where)
    grid_folder = tmp_path / "results" / "tiny"
    same = run("benchmark difference", grid_folder, grid_folder)["differences"]
    assert {one["gap"]["value"] for one in same} <= {0, None}
    key = finished["runs"][0]["key"]
    best = tmp_path / "results" / "tiny" / "runs" / key / "best.ckpt"
    cube = next((tmp_path / "cubes").glob("*.zarr"))
    where = ["--checkpoint", best, "--to", tmp_path / "maps", "--since", "2020-02-25"]
    stored = maps.read_threshold
    with monkeypatch.context() as lower:  # so that there is an alarm
        lower.setattr(maps, "read_threshold", lambda *of: stored(*of).model_copy(update={"value": 0.0}))
        assert all(item["geotiff"] for item in run("benchmark predict", cube, *where)["maps"])
    again = run("benchmark predict", cube, *where, "--new")["maps"]
    assert again
    assert not any(item["geotiff"] for item in again)
    cubes = ["--cubes", tmp_path / "cubes", "--places", "4", "--false-alarms", "0.2"]
    run("benchmark detectability", "--checkpoint", best, *cubes)
    where = ["--checkpoint", best, *cubes[:2], "--to", tmp_path / "kinds"]
    for task in ("activity", "intensity"):
        run("benchmark probe", "--task", task, *where)
    run.finish()
