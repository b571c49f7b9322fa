"""Tests of `hephaestus benchmark`: train, stop, resume, predict, and the messages on the way."""

from __future__ import annotations

import csv
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import jsonschema
import numpy as np
import pytest
import rasterio
import xarray as xr

import hephaestus_baselines.experiments.experiment_grid
import hephaestus_baselines.mapping.predict_frame as predict_frame
import hephaestus_baselines.reporting.run_figures
import hephaestus_baselines.training.trainer
from checkout import ROOT
from hephaestus_baselines.cli.options import format_command, parse_fields
from hephaestus_baselines.config.run_config import read_preset
from hephaestus_baselines.detectability.detectability_report import detectability_json_schema
from hephaestus_baselines.evaluation.result_schema import RunResult
from hephaestus_baselines.experiments.experiment_grid import RunOutcome, open_experiment_grid
from hephaestus_build.cli.options import parse_part
from hephaestus_build.core.errors import UsageError
from hephaestus_build.core.frames import Pair
from toy_benchmark import FRAME, TINY, hephaestus, run, tiny_preset, toy_cubes

RESULT = "result.json"


@pytest.fixture
def undrawn(monkeypatch):
    """Skip the pictures, which take longest and are the same in every grid."""
    monkeypatch.setattr(hephaestus_baselines.reporting.run_figures, "write_run_figures", lambda *_: [])


def results(home: Path) -> dict[Path, dict]:
    found = sorted((home / "results" / "tiny" / "runs").glob(f"*/{RESULT}"))
    return {path.parent: json.loads(path.read_text()) for path in found}


def checkpoint(home: Path, task: str) -> Path:
    (folder,) = (folder for folder, result in results(home).items() if result["task"] == task)
    return folder / "best.ckpt"


def test_a_grid_leaves_results_tables_and_pictures_marked_simulated(home):
    found = results(home)
    assert {result["task"] for result in found.values()} == {"classification", "segmentation"}
    for folder, result in found.items():
        assert folder.name == result["key"]
        assert result["simulated"] is True
        assert result["command"].startswith("hephaestus benchmark run tiny.yaml --cubes cubes")
        assert result["generations"][FRAME].startswith("1:")
        assert result["seconds"]["training"] > 0
        assert result["samples_per_second"] > 0
        assert result["parameters"] > 0
        assert not (folder / "last.ckpt").exists()  # only needed until a run is finished
    top = home / "results" / "tiny"
    assert "simulated" in (top / "tables.md").read_text()
    assert json.loads((top / "tables.json").read_text())["simulated"] is True
    pictures = {path.name for path in top.glob("*.png")}
    assert pictures == {
        "alarm-curves-classification.png",
        "alarm-curves-segmentation.png",
        "detection-classification.png",
        "detection-segmentation.png",
        "learning-curves-classification.png",
        "learning-curves-segmentation.png",
        "reliability-classification.png",
        "reliability-segmentation.png",
        "predictions.png",
    }


def test_two_runs_are_compared_on_the_same_windows_beside_the_vapour_of_their_frame(home):
    pytest.importorskip("torch")
    bench = open_experiment_grid(read_preset(str(home / "tiny.yaml")), home / "cubes", home / "results")
    [run] = [
        RunResult.read(path / RESULT) for path, one in results(home).items() if one["task"] == "segmentation"
    ]
    homes = {run.key: home / "results" / "tiny" / "runs" / run.key}
    rows = hephaestus_baselines.reporting.run_figures.compare_atmosphere(
        run, run, homes, bench.prepare_run_data
    )
    assert rows
    for without, informed, gradients in rows:
        assert (without.frame, without.pairs) == (informed.frame, informed.pairs)
        np.testing.assert_array_equal(without.probability, informed.probability)
        assert Pair.parse(without.pairs[-1]) in gradients.of_dates
    # quiet windows come first
    assert [one.true_mask.any() for one, *_ in rows] == sorted(one.true_mask.any() for one, *_ in rows)


def test_a_finished_grid_is_not_repeated(home, undrawn, capsys, monkeypatch):
    monkeypatch.setattr(hephaestus_baselines.training.trainer, "train_model", None)  # any call would fail
    before = {folder: (folder / RESULT).stat().st_mtime_ns for folder in results(home)}
    assert hephaestus(*run(home, "--json")) == 0
    said = capsys.readouterr()
    assert {row["state"] for row in json.loads(said.out)["runs"]} == {"kept"}
    assert said.err.count("was finished") == 2
    assert {folder: (folder / RESULT).stat().st_mtime_ns for folder in results(home)} == before


def test_tables_are_made_of_results_alone_where_the_cubes_are_gone(home, tmp_path, undrawn, capsys):
    shutil.copytree(home / "results" / "tiny" / "runs", tmp_path / "results" / "tiny" / "runs")
    where = ["--cubes", tmp_path / "gone", "--results", tmp_path / "results"]
    assert hephaestus("benchmark", "tables", home / "tiny.yaml", *where) == 0
    said = capsys.readouterr()
    (line,) = (line for line in said.err.splitlines() if line.startswith("hephaestus:"))
    assert "there are no cubes" in line
    assert "pictures of predictions left out" in line
    assert said.out.startswith("# Benchmark (simulated data)")  # Markdown, in a pipe
    ours, first = (folder / "results" / "tiny" / "tables.md" for folder in (tmp_path, home))
    assert ours.read_text() == first.read_text()
    shutil.rmtree(tmp_path / "results")
    assert hephaestus("benchmark", "tables", home / "tiny.yaml", *where) == 1
    assert "there are no cubes" in capsys.readouterr().err


def test_tables_are_set_for_a_terminal_unless_markdown_is_asked_for(home, undrawn, capsys, monkeypatch):
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    command = ["benchmark", "tables", *run(home)[2:]]
    assert hephaestus(*command) == 0
    shown = capsys.readouterr().out
    assert "| " not in shown
    assert "control: frame prior" in shown
    assert hephaestus(*command, "--markdown") == 0
    assert "| *frame prior* |" in capsys.readouterr().out


def test_a_run_that_fails_stops_no_other_and_is_said_once(home, tmp_path, undrawn, capsys, monkeypatch):
    shutil.copytree(home / "cubes", tmp_path / "cubes", symlinks=True)
    tiny_preset(tmp_path / "tiny.yaml")
    real = hephaestus_baselines.training.trainer.train_model

    def failing(recipe, *arguments, **options):
        if recipe.task == "classification":
            raise RuntimeError("CUDA out of memory")
        return real(recipe, *arguments, **options)

    monkeypatch.setattr(hephaestus_baselines.training.trainer, "train_model", failing)
    assert hephaestus(*run(tmp_path, "--set", "epochs=1")) == 1
    (line,) = (line for line in capsys.readouterr().err.splitlines() if line.startswith("hephaestus:"))
    assert "RuntimeError: CUDA out of memory; `hephaestus -v benchmark run` shows details" in line
    assert [result["task"] for result in results(tmp_path).values()] == ["segmentation"]


def test_runs_of_another_process_are_owed(home, undrawn, capsys, monkeypatch):
    real = hephaestus_baselines.experiments.experiment_grid.run_experiment

    def elsewhere(bench, recipe, **options):
        return RunOutcome(recipe) if recipe.task == "classification" else real(bench, recipe, **options)

    monkeypatch.setattr(hephaestus_baselines.experiments.experiment_grid, "run_experiment", elsewhere)
    assert hephaestus(*run(home)) == 3
    assert "hephaestus: 1 run still going on in another process" in capsys.readouterr().err


def test_a_run_reads_its_own_generation_while_the_cubes_grow(home, tmp_path, undrawn, monkeypatch):
    shutil.copytree(home / "cubes", tmp_path / "cubes", symlinks=True)
    tiny_preset(tmp_path / "tiny.yaml")
    real = hephaestus_baselines.training.trainer.train_model
    grown = []

    def growing(*arguments, **options):
        if not grown:
            grown.append(toy_cubes(tmp_path / "cubes", until=4))
        return real(*arguments, **options)

    monkeypatch.setattr(hephaestus_baselines.training.trainer, "train_model", growing)
    assert hephaestus(*run(tmp_path)) == 0
    assert (tmp_path / "cubes" / f"{FRAME}.zarr").resolve().parent.name == "000002"
    ours = {result["task"]: result for result in results(tmp_path).values()}
    undisturbed = {result["task"]: result for result in results(home).values()}
    for task, result in ours.items():
        assert result["generations"][FRAME].startswith("1:")
        assert result["split"] == undisturbed[task]["split"]
        assert result["assessment"] == undisturbed[task]["assessment"]


def files(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def test_maps_lie_beside_the_cube_and_say_where_they_come_from(home, tmp_path, capsys):
    best, cube = checkpoint(home, "segmentation"), home / "cubes" / f"{FRAME}.zarr"
    before = files(home / "cubes")
    where = ["--checkpoint", best, "--to", tmp_path / "maps", "--json"]
    assert hephaestus("benchmark", "predict", cube, *where, "--since", "2020-02-13") == 0
    written = json.loads(capsys.readouterr().out)["maps"]
    assert len(written) == 4
    assert files(home / "cubes") == before
    with xr.open_zarr(tmp_path / "maps" / f"{FRAME}.zarr") as maps:
        assert maps.attrs["simulated"] is True
        assert maps.attrs["checkpoint"] == hashlib.sha256(best.read_bytes()).hexdigest()
        assert maps.cube_generation.values.tolist() == [1] * 4
        values = maps.deformation_probability.values
        assert maps.sizes["map"] == 4
    with xr.open_zarr(cube, chunks=None) as source:
        first = written[0]["pair"]
        days = {f"{axis}_date": np.datetime64(f"{text[:4]}-{text[4:6]}-{text[6:]}")
                for axis, text in zip(("primary", "secondary"), first.split("_"), strict=True)}  # fmt: skip
        seen = source.insar_difference.sel(days).values != 0
    assert (np.isfinite(values[0]) == seen).all()
    assert ((values[0][seen] >= 0) & (values[0][seen] <= 1)).all()
    with rasterio.open(written[0]["geotiff"]) as dataset:
        np.testing.assert_array_equal(dataset.read(1), values[0])
        assert dataset.tags()["SIMULATED"] == "True"
    assert Path(written[0]["picture"]).read_bytes().startswith(b"\x89PNG")

    assert hephaestus("benchmark", "predict", cube, *where, "--since", "2020-02-01", "--new") == 0
    again = json.loads(capsys.readouterr().out)["maps"]
    assert len(again) == 6
    assert sum(row["geotiff"] is not None for row in again) == 2


def test_a_classifier_gives_each_tile_one_probability(home, tmp_path, capsys):
    best, cube = checkpoint(home, "classification"), home / "cubes" / f"{FRAME}.zarr"
    where = ["--checkpoint", best, "--to", tmp_path / "maps", "--json"]
    assert hephaestus("benchmark", "predict", cube, *where, "--pairs", "20200213_20200225") == 0
    (written,) = json.loads(capsys.readouterr().out)["maps"]
    with rasterio.open(written["geotiff"]) as dataset:
        values = dataset.read(1)
    assert 1 <= len(np.unique(values[np.isfinite(values)])) <= 4  # 70 x 80 pixels are four tiles of 64


@pytest.mark.parametrize("task", ["segmentation", "classification"])
def test_alarms_are_the_maps_that_reach_the_threshold_of_the_run(home, tmp_path, capsys, monkeypatch, task):
    best, cube = checkpoint(home, task), home / "cubes" / f"{FRAME}.zarr"
    table, stored = tmp_path / "alarms.csv", predict_frame.read_threshold
    where = ["--to", tmp_path / "maps", "--json", "--alarms", table, "--since", "2020-02-13"]

    def alarms_from(value: float) -> dict[str, dict]:
        def threshold(*of):
            return stored(*of).model_copy(update={"value": value})

        monkeypatch.setattr(predict_frame, "read_threshold", threshold)
        assert hephaestus("benchmark", "predict", cube, "--checkpoint", best, *where) == 0
        maps = json.loads(capsys.readouterr().out)["maps"]
        alarms = {item["pair"]: item["alarm"] for item in maps if item["alarm"]}
        rows = list(csv.DictReader(table.read_text().splitlines()))
        assert [row["pair"] for row in rows] == sorted(alarms)
        assert all(row["simulated"] == "true" and row["frame"] == FRAME for row in rows)
        return alarms

    scores = {pair: alarm["probability"] for pair, alarm in alarms_from(0.0).items()}
    assert len(scores) == 4
    middle = sorted(scores.values())[2]
    assert alarms_from(middle).keys() == {pair for pair, score in scores.items() if score >= middle}
    assert alarms_from(1.0) == {}
    monkeypatch.undo()
    shutil.copy(best, tmp_path / "best.ckpt")  # without its result
    assert hephaestus("benchmark", "predict", cube, "--checkpoint", tmp_path / "best.ckpt", *where) == 2
    assert "no threshold of alarms is known" in capsys.readouterr().err


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def test_damaged_results_are_named_and_in_no_table(home, tmp_path, undrawn, capsys):
    copy = shutil.copytree(home, tmp_path / "copy", symlinks=True)
    (broken,) = (folder for folder, result in results(copy).items() if result["task"] == "segmentation")
    flip(broken / RESULT)
    for command in ("tables", "run"):
        arguments = run(copy)
        arguments[1] = command
        assert hephaestus(*arguments) == 1
        said = capsys.readouterr()
        (line,) = (line for line in said.err.splitlines() if line.startswith("hephaestus:"))
        assert f"{broken / RESULT} is no result that can be read (it is damaged" in line
        assert "remove it" in line
        assert "classification" in said.out
        assert "Deformation segmentation" not in said.out
    # if it is removed, the trained model is scored again
    (broken / RESULT).unlink()
    before = (broken / "best.ckpt").stat().st_mtime_ns
    assert hephaestus(*run(copy)) == 0
    assert (broken / "best.ckpt").stat().st_mtime_ns == before
    ours, first = (json.loads((folder / "results/tiny/runs" / broken.name / RESULT).read_text())
                   for folder in (copy, home))  # fmt: skip
    assert ours["assessment"] == first["assessment"]


def test_pictures_leave_out_what_is_damaged(home, tmp_path, capsys):
    copy = shutil.copytree(home, tmp_path / "copy", symlinks=True)
    folder = checkpoint(copy, "segmentation").parent
    for name in ("best.ckpt", "metrics.csv"):
        flip(folder / name)
    flip(checkpoint(copy, "classification").parent / "test.npz")
    arguments = run(copy)
    arguments[1] = "tables"
    assert hephaestus(*arguments) == 1
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("hephaestus:")]
    assert len(lines) == 3
    for name in ("best.ckpt", "metrics.csv", "test.npz"):
        assert sum(name in line.partition(";")[0] for line in lines) == 1


def test_no_map_is_made_with_a_damaged_checkpoint_or_of_a_damaged_cube(home, tmp_path, capsys):
    best = tmp_path / "alone.ckpt"
    best.write_bytes(checkpoint(home, "classification").read_bytes())
    cubes = shutil.copytree(home / "cubes", tmp_path / "cubes", symlinks=True)
    cube = cubes / f"{FRAME}.zarr"
    where = ["--checkpoint", best, "--to", tmp_path / "maps", "--pairs", "20200213_20200225"]
    assert hephaestus("benchmark", "predict", cube, *where) == 0
    capsys.readouterr()
    images = sorted((cube.resolve() / "insar_difference").glob("c.*"))
    for image in images:
        flip(image)
    assert hephaestus("benchmark", "predict", cube, *where) == 1
    assert f"`hephaestus repair {FRAME}` rebuilds what is damaged" in capsys.readouterr().err
    flip(best)
    assert hephaestus("benchmark", "predict", cube, *where) == 1
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert f"the checkpoint {best} cannot be read (it is damaged" in line


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["run", "--part", "5/4"], 2, "--part '5/4' is not a valid part: give i/n"),
        (["run", "none-such"], 2, "there is no preset none-such; known are"),
        (["run", "--set", "epoch=3"], 2, "there is no field epoch"),
        (["run", "--set", "self=3"], 2, "there is no field self"),
        (["run", "--set", "command=3"], 2, "there is no field command"),
        (["run", "--set", f"epochs={'[' * 5000}"], 2, "its value is not YAML"),
        (["run", "--set", "epochs=1000000000000000000"], 2, "epochs: it must be less than"),
        (["run", "--simulated", "--cubes", "x"], 2, "leave out --cubes"),
        (["run", "--world", "3"], 2, "--world chooses a world of the embedded archive: give --simulated too"),
        (["run", "--set", "model=resnet"], 2, "there is no model 'resnet'; known are resnet-50, "),
        (["plan", "--set", "model=resnet"], 2, "there is no model 'resnet'; known are resnet-50, "),
        (["plan", "--set", "model=unet-tiny"], 2, "unet-tiny is for segmentation, not classification"),
        (["plan", "probes", "--set", "model=unet"], 2, "timm has no network 'unet'; `timm.list_models()`"),
        (["run", "--cubes", "nowhere"], 1, "there are no cubes in nowhere; `hephaestus build FRAME`"),
        (["tables", "paper", "--cubes", "nowhere"], 1, "there are no cubes in nowhere"),
        (
            ["run", "--results", "/dev/null/x"],
            1,
            "a part of the path is a file, not a folder: set --results to",
        ),
        (["score", "x.csv", "--to", "/dev/null/x"], 1, "not a folder: set --to to a folder"),
        (["template", "/dev/null/x.csv"], 1, "set the folder of FILE to a folder"),
        (["predict", FRAME, "--model", ".", "--alarms", "/dev/null/x.csv"], 1, "set --alarms to a folder"),
        (["predict", FRAME, "--model", ".", "--pairs", "2020"], 2, "'2020' is not a pair: expected"),
        (["predict", FRAME, "--checkpoint", "none.ckpt"], 1, "there is no cube at"),
    ],
)
def test_what_is_wrong_is_said_in_one_line_with_what_to_do(
    arguments, code, said, capsys, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    assert hephaestus("benchmark", *arguments) == code
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert said in line


def test_without_torch_the_extra_is_named(capsys, monkeypatch):
    monkeypatch.setattr("hephaestus_build.core.extras.find_spec", lambda name: None)
    assert hephaestus("benchmark", "run") == 1
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert "needs torch, which is not installed; `pip install 'hephaestus-build[baselines]'`" in line


def test_the_other_commands_and_flows_do_without_torch():
    code = (
        "import sys\n"
        "for name in ('torch', 'lightning', 'timm'): sys.modules[name] = None\n"
        "import hephaestus_build.cli, hephaestus_build.cli.build, hephaestus_baselines.cli\n"
        # all imports of the flow except Prefect
        "import hephaestus_baselines.experiments.experiment_grid, hephaestus_baselines.data.simulated_cubes\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)


def test_paths_of_the_machine_stay_out_of_results():
    home = "/home/somebody"
    arguments = ["benchmark", "run", f"{home}/mine.yaml", "--cubes", f"{home}/cubes", f"--results={home}/r"]
    assert format_command(arguments) == "hephaestus benchmark run mine.yaml --cubes cubes --results=r"
    assert format_command(["run", "small", "--part", "2/4"]) == "hephaestus run small --part 2/4"


def test_fields_and_parts_are_read_as_they_are_written():
    assert parse_fields(["epochs=3", "augment=[flip]", "weights=none", "nodata=true"]) == {
        "epochs": 3,
        "augment": ["flip"],
        "weights": "none",
        "nodata": True,
    }
    assert parse_part("3/7") == (3, 7)
    for wrong in ("", "3", "0/2", "a/b", "-1/2", "1/0"):
        with pytest.raises(UsageError):
            parse_part(wrong)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_killed_grid_repeats_no_finished_run_and_goes_on_with_the_one_in_hand(home, tmp_path):
    toy_cubes(tmp_path / "cubes")
    tiny_preset(tmp_path / "tiny.yaml", fields={**_TINY_FIELDS, "epochs": 40})
    command = [Path(sys.executable).with_name("hephaestus"), *map(str, run(tmp_path))]
    runs = tmp_path / "results" / "tiny" / "runs"
    with subprocess.Popen(command, start_new_session=True) as process:
        # the first run is finished, the second has some epochs
        _wait(lambda: len(list(runs.glob(f"*/{RESULT}"))) == 1 and _epochs(runs / "unet*") >= 3)
        os.killpg(process.pid, signal.SIGKILL)
    (first,) = runs.glob(f"*/{RESULT}")
    (second,) = runs.glob("unet*")
    assert (second / "last.ckpt").exists()
    before, rows = first.stat().st_mtime_ns, (second / "metrics.csv").read_text().splitlines()
    assert 3 < len(rows) < 41
    elsewhere = shutil.copytree(tmp_path, tmp_path.parent / f"{tmp_path.name}-elsewhere", symlinks=True)
    subprocess.run(command, check=True)
    assert first.stat().st_mtime_ns == before
    # everything written for an epoch before the kill, including its time, is kept
    known = (second / "metrics.csv").read_text().splitlines()
    assert known[: len(rows) - 1] == rows[:-1]
    assert len(known) == 41

    # and the numbers equal those of an uninterrupted grid
    whole = tmp_path / "whole"
    toy_cubes(whole / "cubes")
    shutil.copy(tmp_path / "tiny.yaml", whole / "tiny.yaml")
    assert hephaestus(*run(whole)) == 0
    ours = {folder.name: result["assessment"] for folder, result in results(tmp_path).items()}
    assert ours == {folder.name: result["assessment"] for folder, result in results(whole).items()}

    # and those of another machine, which has a copy and takes the second half of the grid with other readers
    assert hephaestus(*run(elsewhere, "--part", "2/2", "--set", "workers=1")) == 0
    moved = elsewhere / "results" / "tiny" / "runs" / second.name
    assert (moved / "metrics.csv").read_text().splitlines()[: len(rows) - 1] == rows[:-1]
    theirs = {folder.name: result["assessment"] for folder, result in results(elsewhere).items()}
    shutil.rmtree(elsewhere)
    assert theirs == ours


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_two_processes_share_a_grid_and_never_a_run(tmp_path):
    toy_cubes(tmp_path / "cubes")
    tiny_preset(tmp_path / "tiny.yaml", seeds=[0, 1, 2])
    command = [Path(sys.executable).with_name("hephaestus"), *map(str, run(tmp_path, "--json"))]
    both = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    states = [json.loads(process.communicate()[0])["runs"] for process in both]
    done = [row["key"] for rows in states for row in rows if row["state"] == "done"]
    assert len(done) == len(set(done)) == 6


_TINY_FIELDS = {
    "size": 64, "phase": "sin-cos", "weights": "none", "batch_size": 4, "learning_rate": 0.002,
    "augment": ["flip"],
}  # fmt: skip


def _wait(until, seconds: float = 300.0) -> None:
    deadline = time.monotonic() + seconds
    while not until():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def _epochs(folder: Path) -> int:
    found = list(folder.parent.glob(f"{folder.name}/metrics.csv"))
    return len(found[0].read_text().splitlines()) - 1 if found else 0


#: One frame for each role: test of two folds, validation of both, train of both.
FOLD_FRAMES = {
    "galapagos": "128D_09016_110500",
    "hawaii": "087D_07004_060904",
    "iceland-southwest": "155D_02484_191814",
    "campania": "124D_04854_171313",
}


def test_folds_are_trained_each_and_scored_together(tmp_path, undrawn, capsys):
    for frame in FOLD_FRAMES.values():
        toy_cubes(tmp_path / "cubes", frame=frame)
    names = ["volcano-group-galapagos", "volcano-group-pacific"]
    tasks = {"segmentation": TINY["tasks"]["segmentation"]}  # windows are pooled in tests/unit
    tiny_preset(tmp_path / "tiny.yaml", splits=names, controls=["terrain only"], tasks=tasks)
    assert hephaestus(*run(tmp_path)) == 0, capsys.readouterr().err
    found = list(results(tmp_path).values())
    assert len(found) == 2 * 2  # folds, the model and its control
    tests = {
        fold: {one["coverage"]["test"]["positives"] for one in found if one["split"]["name"] == fold}
        for fold in names
    }
    top = tmp_path / "results" / "tiny"
    tables = json.loads((top / "tables.json").read_text())
    assert tables["split"] == "volcano-group"
    assert tables["coverage"]["test"]["positives"] == sum(min(counts) for counts in tests.values())
    assert set(tables["generations"]) == set(FOLD_FRAMES.values())
    for table in tables["tables"]:
        rows = {row["model"]: row for row in table["rows"]}
        assert {"frame prior", "persistence", "terrain only"} <= set(rows), table["title"]
        [model] = [row for row in table["rows"] if row["kind"] == "model"]
        assert (model["gap"] is None) == table["title"].startswith("What an observatory asks")
    # without the cubes the tables are the same
    places = ["--cubes", tmp_path / "cubes", "--results", tmp_path / "results"]
    (tmp_path / "cubes").rename(tmp_path / "away")
    assert hephaestus("benchmark", "tables", tmp_path / "tiny.yaml", *places) == 0
    again = json.loads((top / "tables.json").read_text())
    assert again["tables"] == tables["tables"]
    assert "tables are made of the results alone" in capsys.readouterr().err
    for kept in top.glob("runs/*/item-controls.json"):  # as an earlier version left the runs
        kept.rename(kept.with_suffix(".away"))
    assert hephaestus("benchmark", "tables", tmp_path / "tiny.yaml", *places) == 1
    said = capsys.readouterr().err
    assert "an earlier version scored it and kept no scores of its controls" in said
    (tmp_path / "away").rename(tmp_path / "cubes")
    # a machine that has trained one fold has no tables yet, which is no failure
    for folder, one in results(tmp_path).items():
        if one["split"]["name"] == names[1]:
            shutil.rmtree(folder)
    (top / "tables.md").unlink()
    capsys.readouterr()
    assert hephaestus(*run(tmp_path, "--part", "1/2")) == 0
    assert "no tables yet: no run has finished all 2 folds" in capsys.readouterr().err
    assert not (top / "tables.md").exists()
    assert hephaestus("benchmark", "tables", tmp_path / "tiny.yaml", *places) == 1
    said = capsys.readouterr().err
    assert "no run has all of its 2 folds finished; go on with `hephaestus benchmark run`" in said


def test_splits_that_are_no_folds_are_refused_before_training(tmp_path, capsys):
    tiny_preset(tmp_path / "tiny.yaml", splits=["strict-temporal", "unseen-event"])
    assert hephaestus(*run(tmp_path)) == 2
    assert "its splits are not folds of one split" in capsys.readouterr().err


def test_detectability_of_a_trained_model_is_measured_written_and_marked_simulated(home, tmp_path, capfd):
    options = ["--checkpoint", checkpoint(home, "segmentation"), "--cubes", home / "cubes", "--places", "5"]
    options += ["--false-alarms", "0.2", "--to", tmp_path / "report"]
    assert hephaestus("benchmark", "detectability", *options) == 0
    shown = capfd.readouterr().out
    assert "(simulated)" in shown
    assert "half found from" in shown
    assert hephaestus("benchmark", "detectability", *options, "--json") == 0
    printed = json.loads(capfd.readouterr().out)
    files = [Path(path) for path in printed["files"]]
    assert [path.suffix for path in files] == [".json", ".csv", ".png"]
    report = json.loads(files[0].read_text())
    assert report["simulated"]
    assert printed["same_split"]
    half = next(limit for limit in printed["limits"] if (limit["by"], limit["share"]) == ("frame", 0.5))
    assert half["frame"] == FRAME
    assert half["places"] == report["by_frame"][FRAME]["places"] == 5
    with (ROOT / "schemas" / "detectability.json").open() as schema:
        jsonschema.validate(report, json.load(schema))


def test_the_schema_of_detectability_is_that_of_the_code():
    stored = json.loads((ROOT / "schemas" / "detectability.json").read_text())
    assert stored == detectability_json_schema()


@pytest.mark.parametrize(
    "words",
    [
        ("submit", "run", "--out", "other.csv"),
        ("detectability", "--checkpoint", "best.ckpt"),
        ("score", "mine.csv"),
        ("submit", "run", "--out", "other.csv", "--cubes", "none"),
    ],
)
def test_a_command_without_any_cube_says_where_there_is_none(home, tmp_path, monkeypatch, capsys, words):
    (tmp_path / "none").mkdir()
    source = checkpoint(home, "classification")
    shutil.copytree(source.parent, tmp_path / "run")
    shutil.copy(source, tmp_path / "best.ckpt")
    if "mine.csv" in words:
        command = ("--cubes", home / "cubes", "--unchecked", "--device", "cpu")
        assert hephaestus("benchmark", "submit", source.parent, "--out", tmp_path / "mine.csv", *command) == 0
    monkeypatch.chdir(tmp_path)
    capsys.readouterr()
    assert hephaestus("benchmark", *words, "--data-dir", tmp_path / "empty") == 1
    said = capsys.readouterr().err
    where = "none" if "none" in words else tmp_path / "empty" / "cubes"
    assert f"there are no cubes in {where}; `hephaestus build FRAME" in said
    assert ("--simulated makes some" in said) == ("none" not in words)
