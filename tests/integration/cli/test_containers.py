"""Tests of the command in containers: no home, no user, no locale, closed streams."""

from __future__ import annotations

import shlex
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from checkout import ROOT
from hephaestus_build.core.machine.home import find_home, provide_matplotlib_folder, provide_user

FRAME = "198A_00210_131313"
#: Runs the command as a user without an entry in the list of users.
START = """
import pwd, sys
def missing(uid): raise KeyError(f"getpwuid(): uid not found: {uid}")
pwd.getpwuid = missing
sys.argv[0] = "hephaestus"
from hephaestus_build.__main__ import main
main()
"""
BARE = {"PATH": "/usr/bin:/bin", "PYTHONPATH": str(ROOT), "LANG": "C", "TERM": "dumb"}
POSIX = {"LC_ALL": "POSIX", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}


def hephaestus(
    *words: str, shell: str = "</dev/null", folder: Path, **variables: str
) -> subprocess.CompletedProcess[str]:
    """Run the command in a bare environment; `shell` redirects its streams."""
    command = f"{shlex.join([sys.executable, '-c', START, *words])} {shell}"
    return subprocess.run(
        ["/bin/sh", "-c", command], cwd=folder, env=BARE | variables,
        capture_output=True, text=True, encoding="utf-8", check=False, timeout=240,
    )  # fmt: skip


@pytest.mark.parametrize("variables", [{}, {"HOME": "/dev/null", "COLUMNS": "0"}, {"HOME": "here", **POSIX}])
def test_a_picture_is_drawn_without_a_home_or_a_user(
    whole_cube: Path, tmp_path: Path, variables: dict[str, str]
) -> None:
    words = ("report", FRAME, "--data-dir", str(whole_cube), "--out", "pictures")
    done = hephaestus(*words, folder=tmp_path, **variables)
    assert (done.returncode, done.stderr) == (0, "")
    assert FRAME in done.stdout
    assert [path.name for path in tmp_path.iterdir()] == ["pictures"]  # nothing named ~ or here


def test_what_the_locale_cannot_write_is_written(tmp_path: Path) -> None:
    done = hephaestus("frames", "reunion", "--json", folder=tmp_path, **POSIX)
    assert "Réunion" in done.stdout


@pytest.mark.parametrize(("words", "code"), [("status", 0), ("frames etna", 0), ("plan nonsense", 2)])
@pytest.mark.parametrize("shell", ["<&- >&-", "<&- >&- 2>&-"])
def test_closed_streams_are_no_failure(tmp_path: Path, words: str, code: int, shell: str) -> None:
    done = hephaestus(*words.split(), shell=shell, folder=tmp_path)
    assert done.returncode == code
    assert len(done.stderr.splitlines()) <= ("2>" not in shell)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
def test_an_output_that_is_full_is_one_line(tmp_path: Path) -> None:
    done = hephaestus("--version", shell=">/dev/full", folder=tmp_path)
    assert done.returncode == 1
    assert done.stderr.splitlines() == [
        "hephaestus: No space left on device: check the disk, then run the same command again"
    ]


def test_an_option_takes_the_home_folder_and_names_what_is_not_set(tmp_path: Path) -> None:
    done = hephaestus("status", "--data-dir=$NOWHERE/x", folder=tmp_path)
    assert done.returncode == 2
    assert "--data-dir: the environment does not set $NOWHERE" in done.stderr
    done = hephaestus("status", "--data-dir=~/x", folder=tmp_path)
    assert done.returncode == 2
    assert "--data-dir: the home folder of user" in done.stderr
    done = hephaestus("status", "--data-dir=~/x", folder=tmp_path, HOME="/home/of/mine")
    assert "no cubes in /home/of/mine/x/cubes" in done.stderr


@pytest.fixture
def nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(uid: int) -> None:
        raise KeyError(uid)

    monkeypatch.setattr("pwd.getpwuid", missing)
    for name in ("HOME", "LOGNAME", "USER", "LNAME", "USERNAME", "XDG_CACHE_HOME", "XDG_CONFIG_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.delenv("MPLCONFIGDIR", raising=False)


def test_libraries_find_a_name_and_a_folder_for_caches(
    nobody: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    import getpass
    import os

    monkeypatch.setattr(os, "environ", dict(os.environ))
    assert find_home() is None
    provide_user()
    assert getpass.getuser().startswith("uid-")
    assert Path(os.environ["XDG_CACHE_HOME"]).is_dir()
    provide_matplotlib_folder()
    assert Path(os.environ["MPLCONFIGDIR"]).is_dir()


def test_a_home_that_can_be_written_to_stays_matplotlibs(
    nobody: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    import os

    monkeypatch.setenv("HOME", str(tmp_path))
    provide_user()
    provide_matplotlib_folder()
    assert "MPLCONFIGDIR" not in os.environ
    assert "XDG_CACHE_HOME" not in os.environ


@pytest.mark.skipif(find_spec("prefect") is None, reason="needs the extra flows")
@pytest.mark.parametrize("named", [False, True])
def test_prefect_needs_a_folder_where_there_is_no_home(tmp_path: Path, named: bool) -> None:
    start = START.split("sys.argv[0]")[0] + (
        "import runpy\nsys.argv = ['-m', 'nonsense']\n"
        "runpy.run_module('hephaestus_flows.build_frame', run_name='__main__', alter_sys=True)\n"
    )
    home = {"PREFECT_HOME": str(tmp_path / "prefect")} if named else {}
    done = subprocess.run(
        [sys.executable, "-c", start], cwd=tmp_path, env=BARE | home,
        capture_output=True, text=True, check=False, timeout=240,
    )  # fmt: skip
    said = "is not a frame id" if named else "set PREFECT_HOME to a folder"
    assert said in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr
    assert done.returncode == (2 if named else 1)
    assert {path.name for path in tmp_path.iterdir()} <= {"prefect"}
