"""Other packages add commands and predictors through entry points; one that is broken is named."""

from __future__ import annotations

from pathlib import Path

import pytest

from hephaestus_build.cli import COMMAND_GROUP, run_command_line
from hephaestus_build.core.errors import HephaestusError, UsageError
from hephaestus_build.dataset import predictor
from hephaestus_build.dataset.predictor import PREDICTOR_GROUP, find_predictors, open_predictor

COMMAND = """
import typer

def greet(name: str) -> None:
    \"\"\"Say hello.\"\"\"
    typer.echo(f"hello {name}")
"""
PREDICTOR = """
class Constant:
    name, pair_count, trained_on_simulated = "constant", 1, False

    def predict(self, store, pairs):
        return (store, pairs)

def open_constant(checkpoint, *, device):
    made = Constant()
    made.opened = (checkpoint, device)
    return made
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
    assert "the command shatter (shattered) cannot be loaded: no" in line
    assert "\x1b" not in line


def test_a_built_in_command_cannot_be_replaced(packages, monkeypatch, capsys):
    install(
        packages, "impostor", COMMAND.replace("greet", "settings"), **{COMMAND_GROUP: "settings = impostor"}
    )
    assert hephaestus(monkeypatch, "settings") == 0
    assert "hello" not in capsys.readouterr().out


def test_a_command_whose_package_is_not_installed_is_named(monkeypatch, capsys):
    monkeypatch.setattr("importlib.metadata.entry_points", lambda **_: ())
    assert hephaestus(monkeypatch, "benchmark", "run") == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert "pip install 'hephaestus-build[baselines]'" in line


def test_a_predictor_of_another_package_is_opened_by_name(packages):
    install(packages, "steady", PREDICTOR, **{PREDICTOR_GROUP: "steady = steady:open_constant"})
    assert "steady" in find_predictors()
    made = open_predictor(packages / "weights", implementation="steady", device="cpu")
    assert made.opened == (packages / "weights", "cpu")
    assert made.predict(packages, []) == (packages, [])


def test_of_several_predictors_one_must_be_named(packages):
    install(packages, "steady", PREDICTOR, **{PREDICTOR_GROUP: "one = steady:a\ntwo = steady:b"})
    with pytest.raises(UsageError, match=r"name one of .*one, two"):
        open_predictor(packages / "weights")
    with pytest.raises(UsageError, match=r"'three' predicts nothing here: choose .*one, two"):
        open_predictor(packages / "weights", implementation="three")


def test_a_predictor_that_cannot_be_loaded_is_named(packages):
    install(packages, "rotten", "x = 1 / 0", **{PREDICTOR_GROUP: "rotten = rotten:open_it"})
    with pytest.raises(HephaestusError, match=r"the predictor rotten \(rotten:open_it\) cannot be loaded"):
        open_predictor(packages / "weights", implementation="rotten")


def test_without_any_predictor_the_extra_is_named(monkeypatch):
    monkeypatch.setattr(predictor, "entry_points", lambda **_: ())
    with pytest.raises(HephaestusError, match=r"pip install 'hephaestus-build\[baselines\]'"):
        open_predictor(Path("weights"))
