"""A trained grid of two tiny models, shared by the tests of what is done with results and models."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from toy_benchmark import hephaestus, run, tiny_preset, toy_cubes


@pytest.fixture(scope="session")
def home(tmp_path_factory) -> Path:
    """Folder with cubes, the tiny grid of runs, and its results; tests change copies of it alone."""
    folder = tmp_path_factory.mktemp("home")
    toy_cubes(folder / "cubes")
    tiny_preset(folder / "tiny.yaml")
    assert hephaestus(*run(folder)) == 0
    return folder


@pytest.fixture(scope="session")
def runs(home) -> dict[str, Path]:
    """Folder of the run of each task."""
    return runs_of(home / "results" / "tiny")


@pytest.fixture(scope="session")
def series_runs(home, tmp_path_factory) -> dict[str, Path]:
    """Folder of the run of each task on series."""
    folder = tmp_path_factory.mktemp("series")
    tiny_preset(folder / "tiny.yaml", series=[True])
    assert hephaestus(*run(folder, cubes=home / "cubes")) == 0
    return runs_of(folder / "results" / "tiny")


def runs_of(grid: Path) -> dict[str, Path]:
    results = (grid / "runs").glob("*/result.json")
    return {json.loads(path.read_text())["task"]: path.parent for path in results}
