"""Tests that `status` tells at a glance how many frames stand how, and shows their lines so on a terminal."""

from __future__ import annotations

from pathlib import Path

import pytest
from rich.text import Text
from typer.testing import CliRunner

from hephaestus_build.cli import app, console
from toy_cube import toy_cube


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Two simulated frames: one that owes something, one whose folder holds no cube."""
    toy_cube(tmp_path / "simulated" / "cubes")
    (tmp_path / "simulated" / "cubes" / ".generations" / "201D_02400_131313").mkdir(parents=True)
    return tmp_path


def test_frames_are_counted_by_how_they_stand(data: Path) -> None:
    done = CliRunner().invoke(app, ["status", "--data-dir", str(data)])
    lines = done.stdout.splitlines()
    assert any(line.startswith("2 frames: ") and "1 owed or stale" in line for line in lines), lines


def test_what_needs_attention_is_coloured_on_a_terminal(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    printed: list[Text] = []
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    monkeypatch.setattr(console.out, "print", lambda *texts, **_: printed.extend(texts))
    console.print_table(["frame", "owed"], [["a", 1], ["b", 0]], styles={0: "yellow"})
    styles = {text.plain.split()[0]: {str(span.style) for span in text.spans} for text in printed}
    assert "yellow" in styles["a"]
    assert "yellow" not in styles["b"]
