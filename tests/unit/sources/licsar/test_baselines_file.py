"""Tests of the portal's file of perpendicular baselines: valid, damaged, and arbitrary text."""

from __future__ import annotations

import math
from datetime import date, timedelta
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from hephaestus_build.core.frames import Pair
from hephaestus_build.simulation.world.frame_catalog import ORDINARY_FRAME
from hephaestus_build.sources.licsar.baselines_file import MAX_LINES, parse_baselines
from small_world import small_world

LINES = "20201210 20201210 0.0000 0\n20201210 20210103 40 24\n20201210 20210115 -25.5 36\n"


def of(text: str, pair: str) -> float:
    return parse_baselines(text).of_pair(Pair.parse(pair))


def test_a_pairs_baseline_is_the_difference_of_its_acquisitions() -> None:
    assert of(LINES, "20210103_20210115") == -65.5
    assert of(LINES, "20201210_20210103") == 40
    assert math.isnan(of(LINES, "20210103_20210127"))
    assert repr(parse_baselines(LINES)) == "<EpochBaselines of 3 acquisitions to 2020-12-10>"


def test_the_reference_needs_no_line_of_its_own() -> None:
    assert of("20201210 20210103 40 24", "20201210_20210103") == 40


def test_of_several_lines_for_a_day_the_last_counts() -> None:
    assert of(LINES + "20201210 20210103 41.5 24\n", "20201210_20210103") == 41.5


@pytest.mark.parametrize(
    "line",
    [
        "",
        "# simulated",
        "20201210 20210127 12",
        "20201210 20210127 12 48 1",
        "20201210 20210127 nan 48",
        "20201210 20210127 inf 48",
        "20201210 20210127 99999 48",
        "20201210 20210127 12 47",  # not the days between
        "20201210 20211327 12 48",
        "20210103 20210127 12 24",  # another reference than the others'
        "<td>20201210 20210127 12 48</td>",
    ],
)
def test_a_line_that_is_none_is_left_out(line: str) -> None:
    found = parse_baselines(f"{line}\n{LINES}{line}\n")
    assert date(2021, 1, 27) not in found.metres
    assert len(found.metres) == 3


@pytest.mark.parametrize("text", ["", "<html>404</html>", "20201210 20210103 40 24\n" * (MAX_LINES + 1)])
def test_another_file_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"it has (no line|more than)"):
        parse_baselines(text)


def digits(least: int, most: int) -> st.SearchStrategy[str]:
    return st.text("0123456789٣", min_size=least, max_size=most)  # and one that is no digit of ASCII


SIGN = st.sampled_from(("", "-"))
NUMBERS = (digits(8, 8), digits(8, 8), SIGN, digits(1, 6), st.sampled_from(("", ".")), digits(0, 3), SIGN)
LINE = st.builds("{} {} {}{}{}{} {}{}".format, *NUMBERS, digits(1, 5))
GOOD_LINE = st.builds(
    lambda days, metres: f"20201210 {date(2020, 12, 10) + timedelta(days):%Y%m%d} {metres:.4f} {days}",
    st.integers(-2000, 2000),
    st.floats(-1000, 1000),
)


@given(st.text() | st.lists(LINE | GOOD_LINE).map("\n".join))
@example("20201210 20210103 1e400 24")
@example("٢٠٢٠١٢١٠ 20210103 40 24")
def test_any_text_is_baselines_or_a_value_error(text: str) -> None:
    try:
        found = parse_baselines(text)
    except ValueError:
        return
    assert found.metres[found.reference] == 0
    assert all(math.isfinite(value) for value in found.metres.values())


def test_the_simulated_file_says_what_the_scene_has(tmp_path: Path) -> None:
    files = small_world().frame_files(ORDINARY_FRAME)
    files.write_metadata(tmp_path, ["baselines"])
    found = parse_baselines((tmp_path / "baselines").read_text())
    assert set(found.metres) == set(files.scene.epochs)
    for pair in files.scene.pairs:
        there, here = (files.scene.perpendicular_baseline(day) for day in (pair.secondary, pair.primary))
        assert found.of_pair(pair) == pytest.approx(there - here, abs=2e-4)


def test_the_real_file_is_read_whole(shared_data: Path) -> None:
    path = shared_data / "licsar" / "106A_09048_000909" / "metadata" / "baselines"
    found = parse_baselines(path.read_text())
    assert found.reference == date(2020, 12, 10)
    assert len(found.metres) == 336
    assert found.metres[date(2026, 4, 25)] == -166.4295
