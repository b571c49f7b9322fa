"""Tests of the console script: fast --help, one-line errors, and documented exit codes."""

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
import typer
from rich.console import Console
from typer.testing import CliRunner

from hephaestus_build.cli import COMMANDS, app, console, load_command, run_console_script

RUN = CliRunner()


@dataclass
class Ended:
    returncode: int
    stdout: str
    stderr: str


@pytest.fixture
def hephaestus(monkeypatch, capsys):
    """Run the console script's entry point in this process, which is faster than starting one."""

    def run(*words: str, **environment: str) -> Ended:
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setattr(sys, "argv", ["hephaestus", *words])
        monkeypatch.setattr(console, "err", type(console.err)(file=sys.stderr, soft_wrap=True))
        monkeypatch.setattr(console, "out", Console(file=sys.stdout, highlight=False, soft_wrap=True))
        try:
            code = run_console_script() or 0
        except SystemExit as stop:
            code = stop.code
        return Ended(int(code or 0), *capsys.readouterr())

    return run


def test_help_names_every_command_without_loading_any_of_them():
    script = "import sys; from hephaestus_build.cli import app\ntry: app(['--help'])\n"
    script += "finally: print(set(sys.modules))"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=240, check=True
    )
    for name in COMMANDS:
        assert f"  {name} " in done.stdout
    assert "'zarr'" not in done.stdout
    assert "'rasterio'" not in done.stdout
    assert "'numpy'" not in done.stdout


def test_the_package_is_run_as_a_module_under_its_name():
    command = [sys.executable, "-m", "hephaestus_build", "--help"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.split("\n", 1)[0] == "Usage: python -m hephaestus_build [OPTIONS] COMMAND [ARGS]..."


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_explains_itself(name):
    done = RUN.invoke(app, [name, "--help"])
    assert done.exit_code == 0, done.output
    assert "Usage" in done.output
    command = load_command(name)
    assert isinstance(command, typer.Typer) or (command.__doc__ or "").strip()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["build", "124D_nonsense"], "not a frame id"),
        (["build"], "name a frame"),
        (["plan", "124D_04854_171313", "--pairs", "some"], "--pairs"),
        (["nonsense"], "nonsense"),
    ],
)
def test_wrong_usage_is_said_in_words_and_exits_with_2(hephaestus, words, said):
    done = hephaestus(*words)
    assert done.returncode == 2
    assert said in done.stderr
    assert "Traceback" not in done.stderr


def test_a_setting_that_does_not_exist_is_refused_with_the_nearest_one(hephaestus):
    done = hephaestus("status", HEPHAESTUS_DATADIR="x")
    assert done.returncode == 2
    assert "HEPHAESTUS_DATADIR" in done.stderr
    assert "HEPHAESTUS_DATA_DIR" in done.stderr


def test_settings_come_from_a_file_too_and_unknown_keys_are_refused(hephaestus, tmp_path):
    file = tmp_path / "settings.yaml"
    file.write_text("connections: 2\ndata_dirr: here\n")
    done = hephaestus("status", HEPHAESTUS_SETTINGS=str(file))
    assert done.returncode == 2
    assert "data_dirr" in done.stderr
    assert "data_dir?" in done.stderr
    printed = hephaestus("settings").stdout
    file.write_text(printed)
    assert (
        hephaestus("status", HEPHAESTUS_SETTINGS=str(file), HEPHAESTUS_DATA_DIR=str(tmp_path)).returncode == 0
    )


def test_no_network_is_one_line_and_exits_with_1(hephaestus, tmp_path):
    done = hephaestus(
        "build", "124D_04854_171313", "--pairs", "all",
        HEPHAESTUS_LICSAR_URL="http://127.0.0.1:9/", HEPHAESTUS_DATA_DIR=str(tmp_path),
        HEPHAESTUS_RETRIES="0", CDSAPI_KEY="k", CDSAPI_URL="http://127.0.0.1:9/api",
    )  # fmt: skip
    assert done.returncode == 1
    assert len(done.stderr.strip().splitlines()) == 1
    assert "124D_04854_171313" in done.stderr
    assert not list((tmp_path / "cubes").glob("*.zarr"))


def test_json_is_json_and_nothing_else(hephaestus, tmp_path):
    done = hephaestus("status", "--json", HEPHAESTUS_DATA_DIR=str(tmp_path))
    assert json.loads(done.stdout) == {"frames": []}
    assert Path(tmp_path).exists()
