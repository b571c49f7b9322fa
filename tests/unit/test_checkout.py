"""Tests that what tests leave in the checkout is found."""

from __future__ import annotations

from pathlib import Path

from checkout import entries_of


def test_files_that_a_test_leaves_are_told_from_those_of_tools(tmp_path: Path) -> None:
    for name in ("README.md", ".hypothesis", "__pycache__", "hephaestus_build.egg-info", "uv.lock"):
        (tmp_path / name).touch()
    before = entries_of(tmp_path)
    assert before == {"README.md"}
    (tmp_path / "032d2591-1c9c-45fa-9fd1-dfc7faf41953.nc").touch()
    (tmp_path / "data").mkdir()
    assert entries_of(tmp_path) - before == {"032d2591-1c9c-45fa-9fd1-dfc7faf41953.nc", "data"}
