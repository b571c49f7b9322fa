"""Tests of shell completion, and of suggestions for mistyped words."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from typer.testing import CliRunner

from hephaestus_build.cli import COMMANDS, app
from hephaestus_build.core.errors import UsageError

RUN = CliRunner()


def complete(words: str, *, shell: str = "bash") -> tuple[list[str], str]:
    """Return the completions of the last word, and the command modules that were loaded."""
    code = (
        "import sys\nfrom hephaestus_build.cli import app\n"
        "try:\n    app(prog_name='hephaestus')\n"
        "finally:\n    loaded = [name for name in sys.modules if 'hephaestus_build.cli.' in name]\n"
        "    print(loaded, file=sys.stderr)"
    )
    asked = {
        "_HEPHAESTUS_COMPLETE": f"complete_{shell}",
        "COMP_WORDS": words,
        "COMP_CWORD": str(words.count(" ")),
    }
    done = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, **asked}, capture_output=True, text=True, check=False
    )
    return done.stdout.split(), done.stderr


def test_commands_are_completed_without_loading_them() -> None:
    found, loaded = complete("hephaestus p")
    assert found == [name for name in COMMANDS if name.startswith("p")]
    assert loaded == "[]\n"
    assert complete("hephaestus --ver")[0] == ["--verbose", "--version"]


def test_options_and_frames_are_completed() -> None:
    assert complete("hephaestus pairs --up")[0] == ["--upstream"]
    assert complete("hephaestus pairs 124D_0")[0] == ["124D_04854_171313", "124D_05291_081406"]


def test_the_script_of_the_completion_is_shown() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "hephaestus_build", "--help"], capture_output=True, text=True, check=True
    )
    assert "--install-completion" in done.stdout
    assert "--show-completion" in done.stdout
    assert done.stdout.startswith("Usage: python -m hephaestus_build ")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["biuld"], "No such command 'biuld'. Did you mean 'build'?"),
        (["pair"], "Did you mean 'pairs', 'repair'?"),
        (["splits", "sumary"], "Did you mean 'summary'?"),
        (["build", "--jsn"], "--json"),
        (["pairs", "--upstraem"], "--upstream"),
        (
            ["export", "198A_00210_131313", "--to", "geotif"],
            "'--to': 'geotif' is not one of 'zarr2', 'geotiff'",
        ),
    ],
)
def test_mistyped_words_are_answered_with_the_nearest(words: list[str], said: str) -> None:
    done = RUN.invoke(app, words)
    assert done.exit_code == 2
    assert said in done.stderr


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["site", "--out", ""], "--out has an empty value"),
        (["export", "198A_00210_131313", "--to", "geotiff", "--out="], "--out has an empty value"),
        (["inspect", ""], "an argument is empty"),
    ],
)
def test_an_empty_word_is_not_the_current_folder(words: list[str], said: str) -> None:
    done = RUN.invoke(app, words)
    assert isinstance(done.exception, UsageError)
    assert said in str(done.exception)


def test_what_is_like_nothing_is_refused_plainly() -> None:
    done = RUN.invoke(app, ["xyzzy"])
    assert done.exit_code == 2
    assert "No such command 'xyzzy'.\n" in done.stderr
