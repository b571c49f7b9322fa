"""Other packages add commands and predictors through entry points; one that is broken is named."""

from __future__ import annotations

import importlib.metadata
import os
import subprocess
import sys
from pathlib import Path

import pytest

from hephaestus_build.cli import COMMAND_GROUP, COMMANDS, run_command_line
from hephaestus_build.core.errors import HephaestusError, UsageError
from hephaestus_build.core.extras import find_plugins
from hephaestus_build.core.frames import Pair
from hephaestus_build.dataset.predictor import PREDICTOR_GROUP, Predictor, find_predictors, open_predictor
from toy_cube import FRAME, PAIRS, grid, toy_cube

COMMAND = """
import typer

def greet(name: str) -> None:
    \"\"\"Say hello.\"\"\"
    typer.echo(f"hello {name}")
"""
PREDICTOR = """
import numpy as np
from hephaestus_build.cube.reading.window_reader import WindowReader

class Constant:
    name, pair_count, trained_on_simulated = "constant", 1, False

    def __init__(self, checkpoint, device):
        self.value = float(checkpoint.read_text())
        self.provenance = {"device": device}

    def predict(self, store, pairs):
        if self.value > 8:
            raise RuntimeError("out of memory")
        return np.full(WindowReader(store).shape, self.value, "f8" if self.value > 4 else "f4")

def open_constant(checkpoint, *, device):
    return Constant(checkpoint, device)

class Nameless:
    pass

def open_nameless(checkpoint, *, device):
    return Nameless()
"""


def install(folder: Path, module: str, code: str, **entry_points: str) -> None:
    """Put a package into `folder` as an installer does: a module, and what it registers."""
    (folder / f"{module}.py").write_text(code)
    about = folder / f"{module}-1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {module}\nVersion: 1.0\n")
    lines = [f"[{group.replace('__', '.')}]\n{text}\n" for group, text in entry_points.items()]
    (about / "entry_points.txt").write_text("\n".join(lines))


@pytest.fixture
def packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path


def hephaestus(monkeypatch: pytest.MonkeyPatch, *words: str) -> int:
    monkeypatch.setattr("sys.argv", ["hephaestus", *words])
    with pytest.raises(SystemExit) as ended:
        run_command_line()
    return int(ended.value.code or 0)


def test_a_command_of_another_package_is_found(packages, monkeypatch, capsys):
    install(packages, "greeting", COMMAND, **{COMMAND_GROUP: "greet = greeting"})
    assert hephaestus(monkeypatch, "greet", "Etna") == 0
    assert capsys.readouterr().out == "hello Etna\n"


def test_a_package_that_cannot_be_imported_is_named(packages, monkeypatch, capsys):
    broken = "raise RuntimeError('no\\x1b[2J such library')"
    install(packages, "shattered", broken, **{COMMAND_GROUP: "shatter = shattered"})
    assert hephaestus(monkeypatch, "shatter") == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert "the command shatter of the package shattered cannot be loaded (RuntimeError: no" in line
    assert line.endswith("`pip uninstall shattered`")
    assert "\x1b" not in line


def test_a_package_that_ends_the_process_is_named(packages, monkeypatch, capsys):
    install(packages, "quitting", "raise SystemExit(0)", **{COMMAND_GROUP: "quit-it = quitting"})
    assert hephaestus(monkeypatch, "quit-it") == 1
    assert "the command quit-it of the package quitting cannot be loaded" in capsys.readouterr().err


def test_what_is_no_command_is_named(packages, monkeypatch, capsys):
    install(packages, "numeric", "count = 3", **{COMMAND_GROUP: "count = numeric\nnone = numeric:count"})
    for name in ("count", "none"):
        assert hephaestus(monkeypatch, name) == 1
        (line,) = capsys.readouterr().err.splitlines()
        assert f"the command {name} of the package numeric is neither a function nor a Typer app" in line


def test_commands_of_other_packages_are_listed_after_ours(packages, monkeypatch, capsys):
    install(packages, "greeting", COMMAND, **{COMMAND_GROUP: "greet = greeting:greet"})
    install(packages, "shattered", "raise RuntimeError", **{COMMAND_GROUP: "shatter = shattered"})
    assert hephaestus(monkeypatch, "--help") == 0
    listed = capsys.readouterr().out.partition("Commands:")[2].splitlines()
    assert [line.split()[0] for line in listed if line] == [*COMMANDS, "greet", "shatter"]
    assert "  greet        A command of the package greeting." in listed
    assert "  benchmark    Train and score models on the cubes, and predict." in listed
    assert hephaestus(monkeypatch, "greet", "--help") == 0
    assert "Say hello." in capsys.readouterr().out


def test_commands_of_other_packages_are_suggested_and_completed(packages, monkeypatch, capsys):
    install(packages, "greeting", COMMAND, **{COMMAND_GROUP: "greet = greeting"})
    assert hephaestus(monkeypatch, "gret") == 2
    assert "No such command 'gret'. Did you mean 'greet'" in capsys.readouterr().err
    asked = {"_HEPHAESTUS_COMPLETE": "complete_bash", "COMP_WORDS": "hephaestus gre", "COMP_CWORD": "1"}
    done = subprocess.run(
        [sys.executable, "-c", "from hephaestus_build.cli import app; app(prog_name='hephaestus')"],
        env={**os.environ, **asked, "PYTHONPATH": str(packages)}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.stdout.split() == ["greet"]


def test_installed_entry_points_are_those_that_the_standard_library_finds(packages):
    install(packages, "greeting", COMMAND, **{COMMAND_GROUP: "greet = greeting"})
    for group in (COMMAND_GROUP, PREDICTOR_GROUP, "console_scripts", "prefect.plugins", "pytest11"):
        expected = {entry.name: entry.value for entry in importlib.metadata.entry_points(group=group)}
        assert {name: plugin.value for name, plugin in find_plugins(group).items()} == expected
        assert expected


def test_the_first_of_two_installed_versions_counts(tmp_path, monkeypatch):
    for version in ("old", "new"):
        (tmp_path / version).mkdir()
        install(tmp_path / version, "greeting", COMMAND, **{COMMAND_GROUP: f"{version} = greeting"})
        monkeypatch.syspath_prepend(tmp_path / version)
    assert find_plugins(COMMAND_GROUP).keys() == {"benchmark", "new"}


def test_a_built_in_command_cannot_be_replaced(packages, monkeypatch, capsys):
    install(
        packages, "impostor", COMMAND.replace("greet", "settings"), **{COMMAND_GROUP: "settings = impostor"}
    )
    assert hephaestus(monkeypatch, "settings") == 0
    assert "hello" not in capsys.readouterr().out


def test_a_benchmark_that_cannot_be_imported_names_the_extra(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "hephaestus_baselines.cli", None)
    assert hephaestus(monkeypatch, "benchmark", "run") == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert "the command benchmark cannot be loaded (ModuleNotFoundError" in line
    assert "`pip install 'hephaestus-build[baselines]'` installs it" in line


def test_a_command_whose_package_is_not_installed_is_named(monkeypatch, capsys):
    monkeypatch.setattr("hephaestus_build.cli.find_plugins", lambda _: {})
    assert hephaestus(monkeypatch, "benchmark", "run") == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert "pip install 'hephaestus-build[baselines]'" in line


def constant(packages: Path, value: float) -> Predictor:
    install(packages, "steady", PREDICTOR, **{PREDICTOR_GROUP: "steady = steady:open_constant"})
    (packages / "weights").write_text(str(value))
    return open_predictor(packages / "weights", implementation="steady", device="cpu")


def test_a_predictor_of_another_package_predicts_a_cube(packages):
    predictor = constant(packages, 0.25)
    assert "steady" in find_predictors()
    assert (predictor.name, predictor.pair_count, predictor.trained_on_simulated) == ("constant", 1, False)
    assert predictor.provenance == {"device": "cpu"}
    cube = toy_cube(packages / "cubes", grid(20, 30))
    probability = predictor.predict(cube, [Pair.parse(PAIRS[0])])
    assert (probability.dtype, probability.shape) == ("f4", (20, 30))
    assert (probability == 0.25).all()


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (2, "returned probabilities below 0 or above 1"),
        (5, "returned no float32 array of 20 x 30 pixels"),
        (9, f"failed with {PAIRS[0]} of {FRAME} (RuntimeError: out of memory)"),
    ],
)
def test_a_predictor_that_fails_is_one_line_that_names_it(packages, value, said):
    predictor = constant(packages, value)
    cube = toy_cube(packages / "cubes", grid(20, 30))
    with pytest.raises(HephaestusError) as seen:
        predictor.predict(cube, [Pair.parse(PAIRS[0])])
    assert str(seen.value).startswith(f"the predictor steady of the package steady {said}; update")


def test_a_predictor_that_cannot_be_opened_is_one_line_that_names_it(packages):
    code, weights = (
        {PREDICTOR_GROUP: "steady = steady:open_constant\nbare = steady:open_nameless"},
        packages / "w",
    )
    install(packages, "steady", PREDICTOR, **code)
    weights.write_text("none")
    for name, error in (("steady", "ValueError: could not convert"), ("bare", "AttributeError: 'Nameless'")):
        with pytest.raises(HephaestusError) as seen:
            open_predictor(weights, implementation=name)
        assert f"the predictor {name} of the package steady cannot open {weights} ({error}" in str(seen.value)


def test_of_several_predictors_one_must_be_named(packages):
    install(packages, "steady", PREDICTOR, **{PREDICTOR_GROUP: "one = steady:a\ntwo = steady:b"})
    with pytest.raises(UsageError, match=r"name one of .*one, two"):
        open_predictor(packages / "weights")
    with pytest.raises(UsageError, match=r"'three' predicts nothing here: choose .*one, two"):
        open_predictor(packages / "weights", implementation="three")


def test_a_predictor_that_cannot_be_loaded_is_named(packages):
    install(packages, "rotten", "x = 1 / 0", **{PREDICTOR_GROUP: "rotten = rotten:open_it"})
    with pytest.raises(HephaestusError, match="predictor rotten of the package rotten cannot be loaded"):
        open_predictor(packages / "weights", implementation="rotten")


def test_without_any_predictor_the_extra_is_named(monkeypatch):
    monkeypatch.setattr("hephaestus_build.dataset.predictor.find_plugins", lambda _: {})
    with pytest.raises(HephaestusError, match=r"pip install 'hephaestus-build\[baselines\]'"):
        open_predictor(Path("weights"))
