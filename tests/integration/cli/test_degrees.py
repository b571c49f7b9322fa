"""Tests that points and boxes with blanks between their numbers are answered with the word to type."""

from __future__ import annotations

from collections.abc import Callable

import pytest

FRAME = "198A_00210_131313"


@pytest.mark.parametrize(
    ("words", "right"),
    [
        (f"timeseries {FRAME} --at 37.75 -24.3", "--at 37.75,-24.3"),
        (f"timeseries {FRAME} --at 37.75 24.3", "--at 37.75,24.3"),
        (f"timeseries --at -37.75, -24.3 {FRAME}", "--at -37.75,-24.3"),
        (f"timeseries {FRAME} --at=37.75 -24.3", "--at 37.75,-24.3"),
        ("frames --near 37.75 -25.5", "--near 37.75,-25.5"),
        ("frames --bbox -26 37 -25 38.5", "--bbox -26,37,-25,38.5"),
        ("frames --bbox -26,37 -25,38.5", "--bbox -26,37,-25,38.5"),
        ("frames --bbox -26 37 -25", "--bbox -26,37,-25,38.5"),
        (f"export {FRAME} --to geotiff --bbox -26 37 -25 38.5", "--bbox -26,37,-25,38.5"),
    ],
)
def test_numbers_that_stand_apart_are_answered_with_the_word_to_type(
    hephaestus: Callable[..., tuple[int, str, str]], words: str, right: str
) -> None:
    code, _, err = hephaestus(*words.split())
    assert code == 2
    assert err.rstrip().endswith(f"as one word, without blanks; write {right}")


def test_an_id_that_looks_like_a_number_may_stand_beside_a_point(
    hephaestus: Callable[..., tuple[int, str, str]],
) -> None:
    code, out, _ = hephaestus("frames", "--near", "37.75,15.0", "124")
    assert code == 0
    assert "124D_05291_081406" in out
