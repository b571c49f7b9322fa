"""Tests that a name that no variable of a cube has, or the wrong one, leads to those that are meant."""

from __future__ import annotations

import pytest

from hephaestus_build.core.errors import UsageError
from hephaestus_build.core.registry import describe_misnamed, near_variables
from hephaestus_build.core.settings import load_settings


@pytest.mark.parametrize(
    ("asked", "meant"),
    [
        ("phase", "insar_difference (wrapped interferometric phase)"),
        ("wrapped_phase", "insar_difference"),
        ("interferogram", "insar_difference"),
        ("insar", "insar_difference"),
        ("insar_phase", "phase (phase of the activity)"),
        ("coherence", "insar_coherence"),
        ("height", "dem (height)"),
        ("mask", "deformation_mask"),
        ("unrest_phase", "insar_difference"),
        ("water_vapour", "primary_date_total_column_water_vapour"),
    ],
)
def test_what_is_meant_is_near(asked: str, meant: str) -> None:
    assert meant in near_variables(asked)


def test_the_state_of_the_volcano_and_the_phase_suggest_each_other() -> None:
    reason, near = describe_misnamed("phase", image=True).split("; near it: ")
    assert reason == "phase is no image on the frame's grid: phase of the activity"
    assert near.startswith("insar_difference (wrapped interferometric phase)")
    said = describe_misnamed("insar_phase")
    assert "insar_difference (wrapped interferometric phase)" in said
    assert "phase (phase of the activity)" in said


def test_a_name_like_no_other_leads_to_the_page() -> None:
    assert describe_misnamed("qqq\x1b[2J").endswith("is no variable of a cube; docs/cube.md lists them all")
    assert "\x1b" not in describe_misnamed("qqq\x1b[2J")


def test_an_optional_variable_that_every_cube_has_is_said_to_be_there() -> None:
    with pytest.raises(UsageError, match=r"'phase' is no optional variable .*insar_difference \(wrapped"):
        load_settings(variables="phase")
    with pytest.raises(UsageError, match=r"'dem' is no optional variable \(every cube has it\)"):
        load_settings(variables="dem")
