"""Tests of what commands say of their work: progress lines, `--verbose`, `--log-file` and summaries."""

from __future__ import annotations

import json
import logging
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from archives import FRAME, copied, reached
from hephaestus_build.cli import COMMANDS, app
from hephaestus_build.core.machine.log_lines import JsonFormatter
from hephaestus_build.core.terminal import SPOKEN, log_to_file, stop_logging_to_file
from hephaestus_build.simulation.server import faults

TIME = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ"
KEY = "s3cret-key"

Call = Callable[..., tuple[int, str, str]]


@pytest.fixture
def hephaestus(
    upstream: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, hephaestus: Call
) -> Iterator[Call]:
    """Run a command on a data folder of its own; no log file is kept open."""
    monkeypatch.setenv("HEPHAESTUS_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setenv("HEPHAESTUS_PAIRS", "all")
    yield hephaestus
    stop_logging_to_file()


@pytest.fixture(scope="module")
def built_in_a_pipe(archive: object, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str, Path]:
    """Standard output and error of `build -v --log-file`, and the log file."""
    folder = tmp_path_factory.mktemp("logs")
    with reached(archive):
        environment = {
            **os.environ,
            "HEPHAESTUS_DATA_DIR": str(folder / "data"),
            "CDSAPI_KEY": KEY,
        }
        words = ["build", str(FRAME), "--pairs", "all", "--no-quicklook", "-v", "--log-file", "build.log"]
        done = subprocess.run(
            [sys.executable, "-m", "hephaestus_build", *words],
            cwd=folder, env=environment, capture_output=True, text=True, check=False,
        )  # fmt: skip
    assert done.returncode in (0, 3), done.stderr
    return done.stdout, done.stderr, folder / "build.log"


def test_verbose_after_the_command_shows_our_steps_with_times(built_in_a_pipe: tuple[str, str, Path]) -> None:
    _, err, _ = built_in_a_pipe
    steps = [line for line in err.splitlines() if re.match(rf"{TIME} (DEBUG|INFO) ", line)]
    said = "\n".join(steps)
    for wanted in (
        r"\.geo\.diff_pha\.tif: downloaded, [\d.]+ [kM]B in [\d.]+ s, http://127\.0\.0\.1",
        r"\.geo\.cc\.tif: downloaded",
        rf"{FRAME}: the archive lists \d+ pairs, \d+ are wanted",
        rf"{FRAME}: pair/\d+_\d+ encoded and stored in [\d.]+ s",
        rf"{FRAME}: ERA5: ",
        rf"{FRAME}: published generation 1",
        rf"{FRAME}: built in ",
    ):
        assert re.search(wanted, said), wanted
    loggers = {line.split()[2].partition(".")[0].rstrip(":") for line in steps}
    assert loggers == {"hephaestus_build"}  # no library


def test_the_log_file_has_the_steps_and_what_is_said_but_no_secret(
    built_in_a_pipe: tuple[str, str, Path],
) -> None:
    _, err, file = built_in_a_pipe
    lines = file.read_text(encoding="utf-8").splitlines()
    assert all(re.match(rf"{TIME} (DEBUG|INFO|WARNING) hephaestus", line) for line in lines)
    assert all(line.isprintable() for line in lines)
    assert re.search(rf"hephaestus: hephaestus [\w.]+: build {FRAME} .*--log-file build\.log", lines[0])
    assert any("published generation 1" in line for line in lines)
    assert any(f"{FRAME}: ERA5 from" in line for line in lines)
    assert KEY not in file.read_text() + err


@pytest.mark.parametrize("words", [("-v", "status"), ("status", "-v"), ("annotations", "summary", "-v")])
def test_verbose_is_taken_before_and_after_a_command(hephaestus: Call, words: tuple[str, ...]) -> None:
    code, _, err = hephaestus(*words)
    assert code in (0, 1)
    assert "No such option" not in err


def test_every_command_takes_the_options_of_the_log() -> None:
    from typer.main import get_command

    group = get_command(app)
    for name in COMMANDS:
        command = group.get_command(None, name)  # type: ignore[attr-defined, arg-type]
        for leaf in getattr(command, "commands", {name: command}).values():
            options = {text for option in leaf.params for text in option.opts}
            assert {"-v", "--verbose", "--log-file", "--log-format"} <= options, (name, leaf.name)


@pytest.mark.parametrize("after", [False, True])
def test_errors_and_notices_are_in_the_log_file_which_is_appended_to(
    hephaestus: Call, tmp_path: Path, after: bool
) -> None:
    file = tmp_path / "run.log"
    file.write_text("before\n")
    option = ("--log-file", str(file))
    words = ("plan", "124D_nonsense")
    code, _, err = hephaestus(*((*words, *option) if after else (*option, *words)))
    assert code == 2
    first, command, error = file.read_text().splitlines()
    assert first == "before"
    assert "plan 124D_nonsense" in command
    assert error.endswith(err.strip().removeprefix("hephaestus: "))


@pytest.mark.parametrize("place", ["missing/run.log", "folder", "pipe", "s3://bucket/run.log", ""])
def test_a_log_file_that_cannot_be_written_is_one_line_before_any_work(
    hephaestus: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")  # which nobody reads: it must not wait
    monkeypatch.chdir(tmp_path)
    code, out, err = hephaestus("build", str(FRAME), "--log-file", place)
    assert (code, out) == (2, "")
    (line,) = err.splitlines()
    assert "--log-file" in line
    assert not (tmp_path / "data").exists()


def test_a_log_file_survives_rotation_and_the_loss_of_its_folder(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "logs"
    folder.mkdir()
    log_to_file(folder / "run.log")
    try:
        SPOKEN.info("one")
        (folder / "run.log").rename(folder / "run.log.1")
        SPOKEN.info("two")
        assert [len((folder / name).read_text().splitlines()) for name in ("run.log.1", "run.log")] == [1, 1]
        for name in ("run.log", "run.log.1"):
            (folder / name).unlink()
        folder.rmdir()
        for _ in range(3):
            SPOKEN.info("lost")  # never ends the work
    finally:
        stop_logging_to_file()
    (line,) = capfd.readouterr().err.splitlines()
    assert line.startswith("hephaestus: the log file")


def test_secrets_in_addresses_are_never_in_the_log(tmp_path: Path) -> None:
    log_to_file(tmp_path / "run.log")
    try:
        SPOKEN.info("annotations fetch --url 'http://me:passw0rd@host.invalid/a.tar.gz?token=t0ken'")
        SPOKEN.info("Max retries exceeded with url: /a.tar.gz?token=t0ken (Caused by x)")
        SPOKEN.info("https://host.invalid/a?t0ken, https://passw0rd@host.invalid#t0ken")
    finally:
        stop_logging_to_file()
    text = (tmp_path / "run.log").read_text()
    assert not any(secret in text for secret in ("passw0rd", "t0ken"))
    assert "http://host.invalid/a.tar.gz'" in text
    assert "/a.tar.gz (Caused by x)" in text


def test_a_build_of_several_frames_ends_with_a_summary(hephaestus: Call) -> None:
    code, _, err = hephaestus("build", str(FRAME), "198A_00001_000001", "--no-quicklook")
    assert code == 1
    expected = r"^2 frames: 1 built, 1 failed, 0 with something owed; ([\d.]+) [kM]B fetched in \d"
    summary = re.search(expected, err, re.MULTILINE)
    assert summary, err
    assert float(summary[1]) > 0


def test_a_watch_ends_each_round_with_a_summary_that_counts_what_is_owed(
    hephaestus: Call, upstream, whole_cube: Path, tmp_path: Path
) -> None:
    copied(whole_cube, tmp_path / "data")
    upstream.faults.add(r"\.geo\.hgt\.tif$", faults.error_status(500))
    _, _, err = hephaestus("watch", str(FRAME), "--rounds", "2", "--every", "0.01")
    rounds = re.findall(r"^round (\d): 1 frame: 0 built, 1 unchanged, 0 failed, \d with", err, re.M)
    assert rounds == ["1", "2"]
    assert re.search(r"^watch: 2 rounds, 2 builds: 0 built, 2 unchanged, 0 failed, \d with", err, re.M)
    assert "watch: " not in hephaestus("watch", str(FRAME), "--once")[2]  # its round is all


@pytest.mark.parametrize("command", ["verify", "repair", "build"])
def test_long_commands_in_a_pipe_say_how_far_they_are(
    hephaestus: Call, whole_cube: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    if command != "build":
        copied(whole_cube, tmp_path / "data")
    monkeypatch.setattr("hephaestus_build.core.progress._LEAST_SECONDS", 0.0)
    _, _, err = hephaestus(command, str(FRAME), "--log-file", str(tmp_path / "run.log"))
    expected = "published generation 1" if command == "build" else r"\d+ objects compared, 0 damaged"
    assert re.search(rf"{FRAME}: {expected}", (tmp_path / "run.log").read_text())
    assert re.search(rf"^{TIME} {FRAME}: \w+ \d+ of \d+ \(\d+ %\)", err, re.M)


def _run(folder: Path, *words: str) -> tuple[int, str, list[dict[str, object]]]:
    """Run a command in a process; its exit code, standard output and the objects on standard error."""
    done = subprocess.run(
        [sys.executable, "-m", "hephaestus_build", *words],
        cwd=folder, env={**os.environ, "HEPHAESTUS_DATA_DIR": str(folder / "data")},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    return done.returncode, done.stdout, [json.loads(line) for line in done.stderr.splitlines()]


def test_with_log_format_json_every_line_of_both_logs_is_an_object(archive: object, tmp_path: Path) -> None:
    with reached(archive):
        words = ("build", str(FRAME), "--pairs", "all", "--no-quicklook", "--log-file", "build.log")
        code, out, said = _run(tmp_path, *words, "--log-format", "json")
    assert code in (0, 3)
    assert f"{FRAME}" in out  # results stay what they are
    logged = [json.loads(line) for line in (tmp_path / "build.log").read_text().splitlines()]
    for line in (*said, *logged):
        assert {"time", "level", "message", "run", "process", "logger"} <= line.keys()
        assert re.fullmatch(rf"{TIME[:-1]}\.\d{{3}}Z", str(line["time"]))
    assert len({line["run"] for line in (*said, *logged)}) == 1
    steps = [line for line in logged if line["logger"] != "hephaestus"]
    assert any(line["message"] == f"{FRAME}: published generation 1" for line in steps)
    assert {line["frame"] for line in steps if "published" in str(line["message"])} == {str(FRAME)}
    assert {line["logger"] for line in said} == {"hephaestus"}  # no steps without --verbose


@pytest.mark.parametrize(
    "words",
    [
        ("plan", "124D_nonsense"), ("plan", "--nonsense"), ("nonsense",), ("--nonsense", "plan"),
        ("timeseries", "nonsense", "--at", "37.7", "-24.3"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("first", [False, True])
def test_wrong_usage_is_an_object_too(tmp_path: Path, words: tuple[str, ...], first: bool) -> None:
    option = ("--log-format", "json")
    code, out, said = _run(tmp_path, *((*option, *words) if first else (*words, *option)))
    assert (code, out) == (2, "")
    assert [line["level"] for line in said] == ["error"]
    assert re.search("nonsense|--at takes LAT,LON as one word", str(said[0]["message"]))


def test_a_traceback_is_one_object_and_control_characters_and_secrets_are_none() -> None:
    try:
        raise ValueError("a\x1b[2J\nb")
    except ValueError:
        error = sys.exc_info()
    message = "%s: from http://me:passw0rd@host.invalid/a?token=t0ken"
    record = logging.LogRecord("hephaestus", logging.ERROR, "", 1, message, (FRAME,), error)
    line = JsonFormatter().format(record)
    assert line.isprintable()
    said = json.loads(line)
    assert said["frame"] == str(FRAME)
    assert "ValueError" in said["message"]
    assert "\x1b" not in said["message"]
    assert "passw0rd" not in line
    assert "t0ken" not in line
    both = logging.LogRecord("hephaestus", logging.INFO, "", 1, f"{FRAME}, 198A_00001_000001", (), None)
    assert "frame" not in json.loads(JsonFormatter().format(both))
