"""Tests of the setting that asks for optional variables."""

from __future__ import annotations

import pytest

from hephaestus_build.core.configuration.setting_values import parse_optional_variables
from hephaestus_build.core.errors import UsageError
from hephaestus_build.core.registry import OPTIONAL_VARIABLES
from hephaestus_build.cube.schema import cube_schema


def test_the_names_are_those_that_the_schema_marks() -> None:
    quantities = {variable.quantity for variable in cube_schema().variables.values() if variable.optional}
    assert quantities == set(OPTIONAL_VARIABLES)
    plain = cube_schema().with_optional(())
    assert not any(variable.optional for variable in plain.variables.values())
    added = cube_schema().with_optional(["gacos_delay"]).variables.keys() - plain.variables.keys()
    assert added == {"primary_date_gacos_delay", "secondary_date_gacos_delay"}


@pytest.mark.parametrize(
    ("value", "meant"),
    [
        ("", ()),
        ("look_up,look_up, unwrapped_phase ,", ("unwrapped_phase", "look_up")),
        (["icams_delay"], ("icams_delay",)),
        ("none", ("none",)),
    ],
)
def test_names_come_in_a_list_or_with_commas(value: object, meant: tuple[str, ...]) -> None:
    assert parse_optional_variables(value) == meant


@pytest.mark.parametrize(
    ("value", "why"),
    [
        ("look_upp", "did you mean look_up"),
        ("insar_difference", "no optional variable"),
        ("none,look_up", "stands alone"),
        ({"look_up": 1}, "names with commas"),
        ([3], "no optional variable"),
    ],
)
def test_what_is_no_name_is_wrong_usage(value: object, why: str) -> None:
    with pytest.raises(UsageError, match=why):
        parse_optional_variables(value)
