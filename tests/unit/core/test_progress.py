"""Tests of the lines that tell of progress where there is no terminal."""

from __future__ import annotations

import re

import pytest

from hephaestus_build.core.plain_text import count_of, format_bytes, format_duration
from hephaestus_build.core.progress import PrefixedListener, ProgressLines, format_rate, show_progress


class Clock:
    """A clock that tests set."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def said() -> list[str]:
    return []


def lines_of(said: list[str], clock: Clock) -> ProgressLines:
    return ProgressLines(said.append, clock)


def test_a_long_stage_has_a_line_every_tenth_with_the_time_in_utc(said: list[str], clock: Clock) -> None:
    lines = lines_of(said, clock)
    listener = PrefixedListener(lines, "198A_00210_131313")
    listener.stage("interferograms", 600)
    for _ in range(600):
        clock.now += 0.25  # shorter than 30 s from one tenth to the next
        listener.advance("interferograms")
    assert len(said) == 10
    assert said[0].endswith(" 198A_00210_131313: interferograms 60 of 600 (10 %), after 15 s")
    assert said[-1].endswith(" 198A_00210_131313: interferograms 600 of 600 (100 %), after 2 min 30 s")
    assert all(re.match(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ ", line) for line in said)


def test_a_slow_stage_has_a_line_every_30_seconds(said: list[str], clock: Clock) -> None:
    lines = lines_of(said, clock)
    lines.stage("ERA5 hours", 14)
    for _ in range(3600):
        clock.now += 1  # an hour in a queue
        lines.tick()
    assert len(said) == 120
    assert said[-1].endswith(" ERA5 hours 0 of 14 (0 %), after 1 h 0 min")


def test_what_has_no_stages_is_said_to_be_at_work(said: list[str], clock: Clock) -> None:
    lines = lines_of(said, clock)
    for _ in range(45):
        clock.now += 1
        lines.tick()
    (line,) = said
    assert line.endswith(" at work, after 30 s")


def test_a_short_command_says_nothing_and_a_quick_one_not_every_step(said: list[str], clock: Clock) -> None:
    lines = lines_of(said, clock)
    for number in range(100):
        lines.stage(f"stage {number}", 2)
        lines.advance(f"stage {number}")
        lines.advance(f"stage {number}")
        clock.now += 0.04
    assert said == []
    clock.now += 4
    lines.tick()
    assert len(said) == 1


def test_frames_built_at_once_share_a_line(said: list[str], clock: Clock) -> None:
    lines = lines_of(said, clock)
    for frame in ("198A_00210_131313", "203A_SM_SIMU_S3"):
        for stage in ("interferograms", "annotations"):
            PrefixedListener(lines, frame).stage(stage, 4)
    clock.now = 30
    lines.tick()
    assert said[0].partition(" ")[2] == (
        "198A_00210_131313: interferograms 0 of 4 (0 %), annotations 0 of 4 (0 %); "
        "203A_SM_SIMU_S3: interferograms 0 of 4 (0 %), annotations 0 of 4 (0 %), after 30 s"
    )


def test_a_finished_stage_is_named_once(said: list[str], clock: Clock) -> None:
    lines = lines_of(said, clock)
    lines.stage("annotations", 1)
    lines.stage("interferograms", 9)
    lines.advance("annotations")
    for clock.now in (10.0, 50.0):
        lines.tick()
    assert ["annotations" in line for line in said] == [True, False]


def test_lines_come_without_an_event_and_end_with_the_block(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("hephaestus_build.core.progress._MOST_SECONDS", 0.0)
    with show_progress() as listener:
        listener.stage("objects", 3)
        import time

        deadline = time.monotonic() + 20
        err = ""
        while "objects 0 of 3 (0 %)" not in err and time.monotonic() < deadline:
            time.sleep(0.05)
            err += capfd.readouterr().err
    assert "objects 0 of 3 (0 %)" in err


def test_words_for_numbers() -> None:
    assert [count_of(n, "map") for n in (0, 1, 2)] == ["0 maps", "1 map", "2 maps"]
    assert count_of(2, "entry", "entries") == "2 entries"
    assert [format_duration(s) for s in (0, 59.4, 59.6, 3599, 3600)] == [
        "0 s", "59 s", "1 min 0 s", "59 min 59 s", "1 h 0 min",
    ]  # fmt: skip
    assert [format_bytes(n) for n in (0, 999_400, 1e6, 2.5e9)] == ["0.0 kB", "999.4 kB", "1.0 MB", "2.50 GB"]


def test_a_rate_is_told_in_the_unit_that_fits() -> None:
    assert [format_rate(speed) for speed in (None, 0.0, 0.05, 1.0, 12.34)] == [
        "",
        "",
        "3.0/min",
        "1.0/s",
        "12.3/s",
    ]
