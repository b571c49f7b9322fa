"""Tests that no table loses data: on narrow and wide terminals, and where the output is no terminal."""

from __future__ import annotations

import ast
import contextlib
import json
import os
import pty
import re
import subprocess
import sys
import threading
from collections import Counter
from pathlib import Path

import pytest
from typer.testing import CliRunner

import hephaestus_build.cli
from annotation_files import good_file, quiet_file, tar_of
from checkout import PACKAGES, ROOT
from toy_cube import toy_cube

#: Commands that print tables, each with whether JSON has an item for every row.
TABLES = {
    "frames": True,
    "pairs 198A_00210_131313": True,
    "status": True,
    f"apply {ROOT}/docs/examples/jobs.yaml --dry-run": False,
    "compare 198A_00210_131313 198A_00210_131313": True,
    "timeseries 198A_00210_131313 --at 19.97,10.03 --all": True,
    "compare 198A_00210_131313 --samples shards": False,
    "archive list": True,
    "annotations summary": False,
    "annotations defects": False,
    "annotations masks": True,
    "splits list": True,
    "splits summary strict-temporal": False,
    "splits coverage strict-temporal": False,
    "statistics show strict-temporal": False,
}
WIDTHS = (40, 80, 200)
SEPARATOR = "=== "
BOLD = re.compile(r"\x1b\[[0-9]*m")  # of a heading
#: Runs commands one after the other, since starting Python takes longer than they do. Before each stands the
#: width of the terminal, or nothing where standard output is none.
SCRIPT = f"""
import sys
from termios import tcsetwinsize
from hephaestus_build.cli import app
for line in sys.argv[1:]:
    width, _, command = line.partition(" ")
    print("{SEPARATOR}" + line, flush=True)
    if width:
        tcsetwinsize(1, (50, int(width)))
    app(command.split(), standalone_mode=False)
    sys.stdout.flush()
"""


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder with a cube, annotations with a defect, a split and its statistics."""
    folder = tmp_path_factory.mktemp("tables")
    toy_cube(folder / "simulated" / "cubes")
    files = {f"{n}.json": quiet_file(n, primary_date=f"2017{n:02}01", secondary_date=f"2017{n:02}13")
             for n in range(1, 7)}  # fmt: skip
    files["7.json"] = good_file(7, glacier_fringes=2)
    tar_of(folder / "annotations.tar.gz", files)
    return folder


@pytest.fixture(scope="module")
def in_a_pipe(data: Path) -> dict[str, str]:
    """What each command prints in a pipe, with --json too."""
    before = [
        "export 198A_00210_131313 --to webdataset --size 16 --out shards",
        "splits write strict-temporal --simulated",
        "statistics update strict-temporal --simulated",
    ]
    with_json = [f"{command} --json" for command, has_items in TABLES.items() if has_items]
    # as notebooks and CI set them: it is no terminal all the same
    environment = {**_environment(data), "COLUMNS": "40", "FORCE_COLOR": "1"}
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, *(f" {line}" for line in (*before, *TABLES, *with_json))],
        env=environment, cwd=data, capture_output=True, check=True,
    )  # fmt: skip
    return {name.strip(): text for name, text in _split(done.stdout).items()}


@pytest.fixture(scope="module")
def on_terminals(data: Path, in_a_pipe: dict[str, str]) -> dict[str, str]:
    """What each command prints on terminals, by width and command."""
    commands = [f"{width} {command}" for width in WIDTHS for command in TABLES]
    environment = {**_environment(data), "TERM": "xterm-256color"}
    shown = _run_on_terminal([sys.executable, "-c", SCRIPT, *commands], environment, data)
    assert b"\x1b[" in shown  # the heads are bold
    return _split(re.sub(rb"\x1b\[[0-9;]*m", b"", shown))


def _environment(data: Path) -> dict[str, str]:
    left_out = ("COLUMNS", "LINES", "NO_COLOR", "TTY_COMPATIBLE")
    kept = {
        name: value
        for name, value in os.environ.items()
        # settings of a test that shares this process are none of these commands
        if name not in left_out and not name.startswith("HEPHAESTUS_")
    }
    return {**kept, "HEPHAESTUS_DATA_DIR": str(data)}


def _split(output: bytes) -> dict[str, str]:
    text = output.decode().replace("\r\n", "\n")
    parts = [part.partition("\n") for part in text.split(SEPARATOR)[1:]]
    return {name: shown for name, _, shown in parts}


def _run_on_terminal(command: list[str], environment: dict[str, str], folder: Path) -> bytes:
    """Return what a command prints on a terminal, its standard error left out."""
    ours, theirs = pty.openpty()
    pieces: list[bytes] = []

    def read() -> None:
        with contextlib.suppress(OSError):  # EIO: nobody writes any more
            while piece := os.read(ours, 1 << 16):
                pieces.append(piece)

    reader = threading.Thread(target=read)
    reader.start()
    done = subprocess.run(
        command, env=environment, cwd=folder, stdout=theirs, stderr=subprocess.PIPE, check=False
    )
    os.close(theirs)
    reader.join(60)
    os.close(ours)
    assert done.returncode == 0, done.stderr
    return b"".join(pieces)


@pytest.mark.parametrize("command", [command for command, has_items in TABLES.items() if has_items])
def test_one_line_a_row_in_a_pipe(in_a_pipe: dict[str, str], command: str) -> None:
    found = json.loads(in_a_pipe[f"{command} --json"])
    rows = next(value for name, value in found.items() if name in ("pairs", "frames", "splits"))
    key = next(name for name in ("pair", "frame", "split") if name in rows[0])
    lines = in_a_pipe[command].splitlines()[1 : len(rows) + 1]
    assert [line.split()[0] for line in lines] == [row[key] for row in rows]


def test_a_text_is_whole_in_a_pipe(in_a_pipe: dict[str, str]) -> None:
    assert "  glacier_fringes is 2, documented are 0, 1  kept" in in_a_pipe["annotations defects"]
    assert "  By both dates, with the paper's boundaries; a pair" in in_a_pipe["splits list"]


@pytest.mark.parametrize("command", TABLES)
@pytest.mark.parametrize("width", WIDTHS)
def test_a_terminal_of_any_width_shows_every_word_whole(
    in_a_pipe: dict[str, str], on_terminals: dict[str, str], width: int, command: str
) -> None:
    text = BOLD.sub("", on_terminals[f"{width} {command}"])
    words = Counter(BOLD.sub("", in_a_pipe[command]).split())
    shown = Counter(text.split())
    assert shown.keys() == words.keys()  # none is broken, cut or left out
    assert shown >= words  # heads and first columns are there again in each part of a table
    table = [line for line in text.splitlines() if "  " in line.strip() and " windows of " not in line]
    first = max(len(line.split()[0]) for line in table)
    assert max(map(len, table)) <= max(width, first + 2 + max(map(len, words)))


def test_every_table_of_every_command_is_printed_by_one_function() -> None:
    printing = set()
    for package in PACKAGES:
        for path in package.rglob("*.py"):
            tree = ast.parse(path.read_text(encoding="utf-8"))
            for node in ast.walk(tree):
                module = getattr(node, "module", None)
                assert module != "rich.table" or path.stem == "console", path
                if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "print_table":
                    command = path.stem.partition("_")[0]  # splits_tables is of splits
                    printing.add(command if package.name == "hephaestus_build" else "benchmark")
    # the benchmark's need trained models: test_benchmark_command.py; `plan` says how much disk is free at the
    # moment: test_plan_groups.py
    assert printing == {*(command.split()[0] for command in TABLES), "benchmark", "plan"}
    assert printing <= hephaestus_build.cli.COMMANDS.keys()


@pytest.mark.parametrize("group", ["annotations", "archive", "benchmark", "splits", "statistics"])
def test_the_help_of_a_group_cuts_no_description_off(group: str) -> None:
    said = CliRunner().invoke(hephaestus_build.cli.app, [group, "--help"], env={"COLUMNS": "80"}).stdout
    _, _, commands = said.partition("Commands:")
    assert commands.strip().endswith(".")
    assert "..." not in commands
