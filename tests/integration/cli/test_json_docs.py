"""Tests that docs/json.md lists every command with --json and every key of its output, and no others."""

from __future__ import annotations

import json
import shutil
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command

from annotation_files import good_file, quiet_file, tar_of
from archives import FRAME
from hephaestus_build.cli import app, run_console_script
from hephaestus_build.simulation.server import faults
from json_page import Answer, documented_answers
from toy_benchmark import tiny_preset, toy_cubes
from toy_cube import toy_cube

UNKNOWN = "199A_00001_000001"
#: Failing runs are tested in test_benchmark.py.
UNSEEN = {"benchmark run": {"runs[].error"}}


@pytest.fixture(scope="module")
def page() -> dict[str, Answer]:
    return documented_answers()


def _commands(command: Any, name: str = "") -> Iterator[str]:
    """Yield the commands that take --json."""
    for child in command.list_commands(None) if hasattr(command, "list_commands") else ():
        yield from _commands(command.get_command(None, child), f"{name} {child}".strip())
    if any("--json" in getattr(parameter, "opts", ()) for parameter in command.params):
        yield name


def test_the_page_has_every_command_with_json_and_no_other(page: dict[str, Answer]) -> None:
    assert sorted(page) == sorted(_commands(get_command(app)))


class Session:
    """Runner of commands that compares their output with the page."""

    def __init__(self, page: dict[str, Answer], capsys: pytest.CaptureFixture[str]) -> None:
        self._page, self._capsys = page, capsys
        self.commands: set[str] = set()

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
            assert self._page[command].compare(answer) == [], words
        self.commands.add(command)
        return answers if command == "watch" else answers[0]

    def finish(self) -> None:
        """Check that every key of the page was printed."""
        unseen = {name: self._page[name].unseen - UNSEEN.get(name, set()) for name in self.commands}
        assert {name: keys for name, keys in unseen.items() if keys} == {}


@pytest.fixture
def run(page: dict[str, Answer], capsys: pytest.CaptureFixture[str]) -> Session:
    return Session(page, capsys)


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
    run("frames", "etna")
    run("frames", "--near", "36.8,14.5")
    run("frames", "iceland")
    run("plan", FRAME, "--variables", "look_up")
    archive.faults.add(r"\.geo\.hgt\.tif$", faults.error_status(404))
    archive.faults.add(rf"{first}\.geo\.diff_pha\.tif$", faults.error_status(503))
    monkeypatch.setenv("HEPHAESTUS_ACCEPT", '{"*": ["dem"]}')
    (whole, failed) = run("build", FRAME, UNKNOWN, "--no-quicklook", "--at-a-time", 1, code=1)
    assert (len(whole["owed"]), len(whole["accepted"])) == (1, 1)
    assert failed["exit_code"] == 1
    run("status", code=1)
    (lines, _) = run("watch", FRAME, UNKNOWN, "--once", "--at-a-time", 1, code=1)
    assert lines["result"]["owed"]
    archive.reset()
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
    assert run("verify", code=1)[FRAME.id]
    assert run("repair", FRAME)[0]["rebuilt"]
    assert run("gc", "--keep", 1, "--older-than", 0)[FRAME.id]
    run("report", FRAME)
    run("export", FRAME, "--to", "geotiff", "--out", tmp_path / "export")
    run("export", FRAME, "--to", "zarr2", "--out", tmp_path / "export")
    run("archive list")
    run.finish()


def test_migrate(data: Path, run: Session) -> None:
    with tarfile.open(Path(__file__).parents[2] / "data" / "sha256_records.tar.xz") as archive:
        # a cube of an earlier schema; Python 3.11.4 is the first with filters
        filters = {"filter": "data"} if hasattr(tarfile, "data_filter") else {}
        archive.extractall(data.parent, **filters)
    toy_cube(data / "cubes")
    assert [item["frame"] for item in run("migrate")] == [FRAME.id, "010A_00210_131313"]
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
    assert run("annotations defects")
    run("annotations masks")
    run("splits list")
    run("splits summary")
    run("splits summary", "strict-temporal")
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
    run.commands -= {"build", "splits write"}
    run.finish()


def test_the_benchmark(tmp_path: Path, run: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("torch")
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
    key = finished["runs"][0]["key"]
    best = tmp_path / "results" / "tiny" / "runs" / key / "best.ckpt"
    cube = next((tmp_path / "cubes").glob("*.zarr"))
    where = ["--checkpoint", best, "--to", tmp_path / "maps", "--since", "2020-02-25"]
    assert all(item["geotiff"] for item in run("benchmark predict", cube, *where))
    assert not any(item["geotiff"] for item in run("benchmark predict", cube, *where, "--new"))
    run.finish()
