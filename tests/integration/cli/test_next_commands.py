"""Tests that the commands that messages suggest work on the data that the user meant."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable
from pathlib import Path

import pytest

from archives import FRAME
from hephaestus_build.cli.next_commands import carry_data_options, complete_commands
from hephaestus_build.core.terminal import stop_logging_to_file
from toy_cube import toy_cube

Command = Callable[..., tuple[int, str, str]]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "more data"


@pytest.mark.parametrize(
    ("said", "completed"),
    [
        ("`hephaestus repair FRAME` mends it", "`hephaestus repair FRAME --simulated --data-dir data`"),
        ("`hephaestus migrate FRAME` moves it", "`hephaestus migrate FRAME --data-dir data` moves it"),
        ("`hephaestus splits list` lists them", "`hephaestus splits list --data-dir data` lists them"),
        ("`hephaestus build FRAME --simulated`", "`hephaestus build FRAME --simulated --data-dir data`"),
        ("`hephaestus build F --data-dir x`", "`hephaestus build F --data-dir x --simulated`"),
        ("`hephaestus settings` lists them", "`hephaestus settings` lists them"),
        ("`hephaestus nonsense` is none", "`hephaestus nonsense` is none"),
        ("hephaestus repair FRAME", "hephaestus repair FRAME"),
    ],
)
def test_a_suggested_command_gets_the_options_that_it_takes(said: str, completed: str) -> None:
    carry_data_options({"data_dir": Path("data"), "simulated": True})
    assert completed in complete_commands(said)
    assert complete_commands(complete_commands(said)) == complete_commands(said)
    carry_data_options({"data_dir": None, "simulated": False})
    assert complete_commands(said) == said


def test_a_line_that_is_copied_works_on_the_same_data(hephaestus: Command, folder: Path) -> None:
    code, _, err = hephaestus("inspect", FRAME.id, "--data-dir", str(folder))
    [suggested] = re.findall(r"`hephaestus (build [^`]+)`", err)
    assert code == 1
    assert shlex.split(suggested) == ["build", FRAME.id, "--data-dir", str(folder)]
    code, _, err = hephaestus(*shlex.split(suggested), "--simulated", "--limit", "2", "--no-quicklook")
    assert code in (0, 3), err
    assert hephaestus("inspect", FRAME.id, "--data-dir", str(folder))[0] == 0


def test_what_the_environment_sets_is_not_repeated(
    hephaestus: Command, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HEPHAESTUS_DATA_DIR", str(folder))
    hephaestus("status", "--data-dir", str(folder / "other"))  # is of that command alone
    assert f"`hephaestus build {FRAME}`" in hephaestus("inspect", FRAME.id)[2]


def test_status_tells_how_a_simulated_cube_with_a_real_id_is_found(hephaestus: Command, folder: Path) -> None:
    toy_cube(folder / "simulated" / "cubes", frame="124D_05291_081406", dem=False)
    err = hephaestus("status", "--data-dir", str(folder))[2]
    said = re.findall(r"`hephaestus (build [^`]+)`", err)
    assert said
    assert {" ".join(shlex.split(one)) for one in said} == {
        f"build 124D_05291_081406 --simulated --data-dir {folder}"
    }


def test_warnings_of_a_command_are_completed(
    hephaestus: Command, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder.mkdir()
    (folder / "frames.json").write_text("damaged")
    code, _, err = hephaestus("frames", "--data-dir", str(folder), "etna")
    assert code == 0
    said = [*caplog.messages, err]
    assert any(f"`hephaestus frames --update --data-dir '{folder}'` writes it again" in one for one in said)


def test_results_and_notices_and_the_log_are_completed(hephaestus: Command, folder: Path) -> None:
    log = folder.parent / "log"
    for words in (["status"], ["status", "--simulated"]):
        said = hephaestus(*words, "--data-dir", str(folder), "--log-file", str(log))[2]
        options = [*words[1:], "--data-dir", shlex.quote(str(folder))]
        assert f"`hephaestus build FRAME {' '.join(options)}`" in said
    stop_logging_to_file()
    assert f"`hephaestus build FRAME --simulated --data-dir '{folder}'`" in log.read_text()


@pytest.mark.parametrize(
    "words",
    [
        ("report", "CUBE"),
        ("report", "CUBE", "--html"),
        ("export", "CUBE", "--to", "geotiff"),
        ("export", "CUBE", "--to", "zarr2"),
    ],
)
def test_a_folder_that_cannot_be_written_is_named_with_its_own_option(
    hephaestus: Command, tmp_path: Path, words: tuple[str, ...]
) -> None:
    cube = str(toy_cube(tmp_path / "cubes"))
    (tmp_path / "file").write_text("not a folder")
    where = [cube if word == "CUBE" else word for word in words]
    code, _, err = hephaestus(*where, "--out", str(tmp_path / "file" / "out"))
    assert code == 1
    assert "set --out" in err
    assert str(tmp_path / "file") in err
    assert (tmp_path / "file").read_text() == "not a folder"
