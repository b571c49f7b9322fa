"""Tests that damage in cubes and results is found once before training, and never reaches a table."""

from __future__ import annotations

import random
import shutil
from pathlib import Path

import pytest

from bit_flips import flip_bit
from hephaestus_baselines.config.run_config import read_preset
from hephaestus_baselines.data import cube_integrity
from hephaestus_baselines.data.cube_integrity import CubeIntegrityChecker
from hephaestus_baselines.data.pinned_cubes import pin_cubes
from hephaestus_baselines.data.preparation import prepare_data
from hephaestus_baselines.evaluation.predictions import Predictions
from hephaestus_baselines.evaluation.result_schema import RunResult
from hephaestus_baselines.experiments.experiment_grid import open_experiment_grid
from hephaestus_build.core.errors import HephaestusError
from hephaestus_build.cube.storage.generations import Generation
from toy_benchmark import FRAME, tiny_preset, toy_cubes
from toy_results import result


@pytest.fixture(scope="module")
def published(tmp_path_factory) -> Path:
    return toy_cubes(tmp_path_factory.mktemp("published"))


@pytest.fixture
def cubes(published, tmp_path) -> Path:
    shutil.copytree(published, tmp_path / "cubes", symlinks=True)
    return tmp_path / "cubes"


def objects(cubes: Path, variable: str) -> list[Path]:
    store = (cubes / f"{FRAME}.zarr").resolve()
    return sorted(
        path for path in (store / variable).rglob("*") if path.is_file() and path.name != "zarr.json"
    )


@pytest.mark.parametrize("variable", ["insar_difference", "insar_coherence", "dem", "valid_date_pair"])
def test_a_flipped_bit_is_found_before_anything_is_learnt(variable, cubes, tmp_path):
    source = random.Random(variable)
    flip_bit(source.choice(objects(cubes, variable)), source)
    results = tmp_path / "results"
    with pytest.raises(HephaestusError, match=rf"{FRAME}: {variable}.*`hephaestus repair {FRAME}`") as said:
        prepare_data(cubes, size=64, results=results, whole=CubeIntegrityChecker(results))
    assert "\n" not in str(said.value)
    assert not (results / "statistics").exists()


def test_what_was_compared_is_not_compared_again(cubes, tmp_path, monkeypatch):
    seen: list[int] = []
    real = cube_integrity.verify_objects

    def counting(generation, wanted, listener):
        seen.append(len(wanted))
        return real(generation, wanted, listener)

    monkeypatch.setattr(cube_integrity, "verify_objects", counting)
    results = tmp_path / "results"
    first = prepare_data(cubes, size=64, results=results, whole=CubeIntegrityChecker(results))
    assert len(seen) == 2  # the tables, then the objects that the samples read
    again = prepare_data(cubes, size=64, results=results, whole=CubeIntegrityChecker(results))
    assert len(seen) == 2
    assert first.statistics == again.statistics
    flip_bit(results / "checked" / f"{FRAME}.json", random.Random(1))
    prepare_data(cubes, size=64, results=results, whole=CubeIntegrityChecker(results))
    assert len(seen) == 4


def test_without_the_comparison_nothing_is_compared(cubes, tmp_path, monkeypatch):
    monkeypatch.setattr(cube_integrity, "verify_objects", None)
    preset = read_preset(tiny_preset(tmp_path / "tiny.yaml"))
    bench = open_experiment_grid(preset, cubes, tmp_path / "results", unchecked=True)
    assert bench.prepare_run_data(bench.recipes[0]).items["train"]


def test_damaged_statistics_are_said_and_measured_again(cubes, tmp_path, caplog):
    results = tmp_path / "results"
    first = prepare_data(cubes, size=64, results=results)
    (path,) = (results / "statistics").iterdir()
    flip_bit(path, random.Random(2))
    assert prepare_data(cubes, size=64, results=results).statistics == first.statistics
    (line,) = caplog.messages
    assert f"{path} cannot be read" in line
    assert "the statistics are measured again" in line


def test_pins_find_their_cubes_where_only_the_results_were_moved(cubes, tmp_path):
    pin_cubes(cubes, tmp_path / "results" / "tiny")
    toy_cubes(cubes, until=4)  # publishes another generation
    (tmp_path / "far" / "away").mkdir(parents=True)
    (tmp_path / "results").rename(tmp_path / "far" / "away" / "results")
    pinned, changed = pin_cubes(cubes, tmp_path / "far" / "away" / "results" / "tiny")
    assert Generation.from_path(pinned / f"{FRAME}.zarr").number == 1
    assert changed == [FRAME]


def test_pins_take_no_other_cubes_for_theirs(cubes, tmp_path):
    pin_cubes(cubes, tmp_path / "results" / "tiny")
    shutil.rmtree(cubes)
    toy_cubes(cubes, until=4)
    with pytest.raises(HephaestusError, match=r"is gone, .* or has other content now"):
        pin_cubes(cubes, tmp_path / "results" / "tiny")


def test_pins_go_on_with_a_repaired_generation(cubes, tmp_path):
    pinned, _ = pin_cubes(cubes, tmp_path / "results" / "tiny")
    frame_store = cubes / ".generations" / FRAME
    shutil.copytree(frame_store / "000001", frame_store / "000002")  # repair publishes the same content
    link = cubes / f"{FRAME}.zarr"
    link.unlink()
    link.symlink_to(f".generations/{FRAME}/000002/{FRAME}.zarr")
    pinned, changed = pin_cubes(cubes, tmp_path / "results" / "tiny")
    assert Generation.from_path(pinned / f"{FRAME}.zarr").number == 2
    assert changed == []


def test_damaged_pins_are_said(cubes, tmp_path):
    pinned, _ = pin_cubes(cubes, tmp_path / "results" / "tiny")
    flip_bit(pinned / "pins.json", random.Random(3))
    with pytest.raises(HephaestusError, match=r"pins.json, the list of cubes"):
        pin_cubes(cubes, tmp_path / "results" / "tiny")


@pytest.mark.parametrize("kind", ["result.json", "test.npz"])
def test_every_flipped_bit_of_results_is_found(kind, tmp_path):
    path = tmp_path / kind
    if kind == "result.json":
        result().write(path)
    else:
        from toy_predictions import classified

        classified([1, 0], [0.5, 0.1]).write(path)
    content = path.read_bytes()
    source = random.Random(4)
    for _ in range(200):
        flip_bit(path, source)
        with pytest.raises(HephaestusError, match="remove it"):
            (RunResult if kind == "result.json" else Predictions).read(path)
        path.write_bytes(content)
    (RunResult if kind == "result.json" else Predictions).read(path)
