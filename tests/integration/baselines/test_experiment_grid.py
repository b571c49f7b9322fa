"""Tests of grids of runs: run once, distributed, stopped, and resumed on the same generations."""

from __future__ import annotations

import errno
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hephaestus_baselines.config.run_config import read_preset
from hephaestus_baselines.data.pinned_cubes import pin_cubes, resolve_pin, try_lock_folder
from hephaestus_baselines.experiments.cost_estimate import estimate_cost, estimate_runtimes
from hephaestus_baselines.experiments.experiment_grid import RESULT_FILE, open_experiment_grid, select_part
from hephaestus_build.core.errors import HephaestusError, UsageError
from hephaestus_build.cube.reading.dataset import open_pinned_cube
from limited_filesystem import limit_calls
from toy_benchmark import FRAME, tiny_preset, toy_cubes


@given(count=st.integers(0, 200), parts=st.integers(1, 40))
def test_parts_are_disjoint_and_together_all(count, parts):
    items = list(range(count))
    shares = [select_part(items, (number, parts)) for number in range(1, parts + 1)]
    assert sorted(item for part in shares for item in part) == items
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


@pytest.mark.parametrize("part", [(0, 3), (4, 3)])
def test_there_is_no_part_beyond_the_last(part):
    with pytest.raises(UsageError, match="parts go from 1/3 to 3/3"):
        select_part([1, 2, 3], part)


@pytest.fixture(scope="module")
def published(tmp_path_factory) -> Path:
    return toy_cubes(tmp_path_factory.mktemp("published"))


@pytest.fixture
def cubes(published, tmp_path) -> Path:
    shutil.copytree(published, tmp_path / "cubes", symlinks=True)
    return tmp_path / "cubes"


def test_what_is_pinned_stays_while_cubes_grow(cubes, tmp_path):
    grid = tmp_path / "results" / "tiny"
    pinned, changed = pin_cubes(cubes, grid)
    before = (pinned / f"{FRAME}.zarr").resolve()
    assert changed == []
    toy_cubes(cubes, until=4)  # publishes a second generation
    assert (cubes / f"{FRAME}.zarr").resolve() != before
    again, changed = pin_cubes(cubes, grid)
    assert (again / f"{FRAME}.zarr").resolve() == before
    assert changed == [FRAME]


def test_pins_and_locks_without_symbolic_links_and_file_locks(tmp_path, monkeypatch):
    limit_calls(monkeypatch, tmp_path, SYMLINK=errno.EPERM, LINK=errno.EINVAL, FLOCK=errno.ENOLCK)
    toy_cubes(tmp_path / "cubes", until=2)
    grid = tmp_path / "results" / "tiny"
    pinned, changed = pin_cubes(tmp_path / "cubes", grid)
    assert changed == []
    assert not (tmp_path / "cubes" / f"{FRAME}.zarr").is_symlink()
    pin = pinned / f"{FRAME}.zarr"
    before = resolve_pin(pin)
    with open_pinned_cube(before, chunks=None) as cube:
        held = cube.valid_date_pair.values.sum()
    toy_cubes(tmp_path / "cubes", until=4)  # publishes a second generation
    assert resolve_pin(tmp_path / "cubes" / f"{FRAME}.zarr") != before
    assert pin_cubes(tmp_path / "cubes", grid)[1] == [FRAME]
    assert resolve_pin(pin) == before
    with open_pinned_cube(resolve_pin(pin), chunks=None) as cube:
        assert cube.valid_date_pair.values.sum() == held
    with try_lock_folder(grid / "runs") as ours, try_lock_folder(grid / "runs") as theirs:
        assert (ours, theirs) == (True, False)
    shutil.rmtree(before)
    with pytest.raises(HephaestusError, match="is gone, the generation"):
        pin_cubes(tmp_path / "cubes", grid)


def test_pins_move_with_the_data_folder(cubes, tmp_path):
    pin_cubes(cubes, tmp_path / "results" / "tiny")
    (tmp_path / "moved").mkdir()
    for name in ("cubes", "results"):
        (tmp_path / name).rename(tmp_path / "moved" / name)
    link = tmp_path / "moved" / "results" / "tiny" / "cubes" / f"{FRAME}.zarr"
    assert (link / "zarr.json").is_file()


def test_a_pinned_generation_that_is_gone_is_said(cubes, tmp_path):
    grid = tmp_path / "results" / "tiny"
    pinned, _ = pin_cubes(cubes, grid)
    toy_cubes(cubes, until=4)
    shutil.rmtree((pinned / f"{FRAME}.zarr").resolve())
    with pytest.raises(HephaestusError, match=r"is gone, the generation .* move that folder away") as said:
        pin_cubes(cubes, grid)
    assert "\n" not in str(said.value)


def test_without_cubes_the_next_command_is_named(tmp_path):
    with pytest.raises(HephaestusError, match=r"there are no cubes .*`hephaestus build FRAME`"):
        pin_cubes(tmp_path / "none", tmp_path / "grid")
    assert not (tmp_path / "grid").exists()


def test_a_lock_is_held_by_one_process_and_goes_with_it(tmp_path):
    code = (
        "import sys, time; from pathlib import Path\n"
        "from hephaestus_baselines.data.pinned_cubes import try_lock_folder\n"
        "with try_lock_folder(Path(sys.argv[1])) as ours: print(ours, flush=True); time.sleep(60)"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout
        assert holder.stdout.readline() == "True\n"
        with try_lock_folder(tmp_path) as ours:
            assert not ours
        holder.kill()
        holder.wait()
        with try_lock_folder(tmp_path) as ours:
            assert ours


@pytest.fixture
def bench(cubes, tmp_path):
    preset = read_preset(tiny_preset(tmp_path / "tiny.yaml", series=[False, True]))
    return open_experiment_grid(preset, cubes, tmp_path / "results", command="hephaestus benchmark run tiny")


def test_an_outlook_counts_what_an_epoch_trains_on(bench):
    found = estimate_cost(bench)
    assert (found.runs, found.finished) == (4, 0)
    assert found.samples == {
        "single": {"train": 6, "validation": 6, "test": 5, "an epoch": 4},  # the last is not annotated
        "series": {"train": 3, "validation": 3, "test": 3, "an epoch": 2},
    }
    assert found.simulated
    assert found.unknown == 4  # the paper does not cover these models


def test_hours_are_the_papers_until_some_were_measured():
    paper = read_preset("paper")
    runs = [run for run in paper.make_recipes() if not run.control]
    hours, unknown = estimate_runtimes(runs, [])
    assert len(runs) == 96
    assert unknown == 0
    (only,) = hours
    assert only.runs == 96
    # each of the eight models' two forms, with and without atmosphere, by three seeds
    assert only.hours == pytest.approx(2 * 3 * (20.1 + 25.6))
    assert only.source == "on the paper's RTX 3090 Ti"


def test_a_preset_without_tiny_changes_is_another_run(bench):
    keys = {recipe.key for recipe in bench.recipes}
    longer = {recipe.key for recipe in bench.preset.make_recipes(epochs=3)}
    assert not keys & longer
    assert not any((bench.run_folder(recipe) / RESULT_FILE).exists() for recipe in bench.recipes)
