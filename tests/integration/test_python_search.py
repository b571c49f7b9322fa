"""`.ci/python` finds the Pythons that run, wherever a version manager keeps them, and no other."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from checkout import ROOT


def put(path: Path, answer: str) -> Path:
    """Write a program in the place of an interpreter; it prints the version, if it has all that is needed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{answer}\n")
    path.chmod(0o755)
    return path


def search(home: Path, which: str) -> subprocess.CompletedProcess[str]:
    """Search with the programs of `home`/bin and no others on PATH."""
    (home / "bin").mkdir(exist_ok=True)
    return subprocess.run(
        [str(shutil.which("sh")), str(ROOT / ".ci" / "python"), which],
        env={"HOME": str(home), "PATH": str(home / "bin")},
        capture_output=True,
        text=True,
    )


@pytest.mark.parametrize(
    "place",
    [
        "bin/python{}",
        ".pyenv/versions/{}.4/bin/python3",
        ".local/share/uv/python/cpython-{}.4-linux-x86_64-gnu/bin/python3",
        ".asdf/installs/python/{}.4/bin/python3",
        ".local/share/mise/installs/python/{}.4/bin/python3",
    ],
)
def test_the_newest_and_the_oldest_are_found_beside_the_default_one(tmp_path: Path, place: str) -> None:
    put(tmp_path / "bin" / "python3", "echo 3.12")
    newest = put(tmp_path / place.format("3.13"), "echo 3.13")
    oldest = put(tmp_path / place.format("3.11"), "echo 3.11")
    put(tmp_path / place.format("3.14"), "echo 3.14")
    put(tmp_path / place.format("3.10"), "echo 3.10")
    assert search(tmp_path, "newest").stdout == f"{newest}\n"
    assert search(tmp_path, "oldest").stdout == f"{oldest}\n"


def test_one_that_does_not_run_or_is_another_is_passed_over(tmp_path: Path) -> None:
    put(tmp_path / "bin" / "python3.13", "echo 'not installed here' >&2; exit 127")
    put(tmp_path / ".pyenv/versions/3.13.0/bin/python3", "exit 1")  # lacks a module of the standard library
    put(tmp_path / ".pyenv/versions/3.13.1/bin/python3", "true")  # a preview
    put(tmp_path / "bin" / "python3.12", "echo 3.11")
    only = put(tmp_path / "bin" / "python3", "echo 3.12")
    for which in ("newest", "oldest"):
        assert search(tmp_path, which).stdout == f"{only}\n"


def test_a_newer_python_than_any_that_was_tried_is_better_than_none(tmp_path: Path) -> None:
    only = put(tmp_path / "bin" / "python3", "echo 3.14")
    assert search(tmp_path, "newest").stdout == f"{only}\n"
    assert search(tmp_path, "oldest").returncode == 1
    put(tmp_path / "bin" / "python3", "echo 3.9")
    found = search(tmp_path, "newest")
    assert (found.returncode, found.stdout, found.stderr) == (1, "", "")


def test_a_wrong_word_is_said(tmp_path: Path) -> None:
    found = search(tmp_path, "latest")
    assert (found.returncode, found.stderr) == (2, "usage: .ci/python newest|oldest\n")


@pytest.mark.skipif(shutil.which("make") is None, reason="needs make")
def test_make_refuses_an_environment_of_another_python(tmp_path: Path) -> None:
    shutil.copy(ROOT / "Makefile", tmp_path)
    put(tmp_path / ".venv/bin/python", "echo 3.13")
    (tmp_path / "pyproject.toml").touch()
    (tmp_path / ".venv" / ".ready").touch()

    def make(python: str) -> subprocess.CompletedProcess[str]:
        words = ["make", ".venv/.ready", f"PYTHON={python}"]
        # as typed: `make test` runs this test too, and a make within a make says where it is
        typed = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}
        return subprocess.run(words, cwd=tmp_path, env=typed, capture_output=True, text=True, check=False)

    assert make(str(put(tmp_path / "same", "echo 3.13"))).returncode == 0
    assert make("").returncode == 0
    other = put(tmp_path / "other", "echo 3.12")
    refused = make(str(other))
    assert refused.returncode == 2
    assert refused.stdout.splitlines() == [
        f".venv has Python 3.13, PYTHON={other} is another: run `make clean`, then the same command"
    ]
