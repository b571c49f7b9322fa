"""Tests of the choice of optional variables."""

from __future__ import annotations

from hephaestus_build.pipeline.optional_stage import merge_optional_variables


def test_a_cube_keeps_what_it_has_until_none_is_asked_for() -> None:
    assert merge_optional_variables((), {"look_up"}) == ("look_up",)
    assert merge_optional_variables(("gacos_delay",), {"look_up"}) == ("look_up", "gacos_delay")
    assert merge_optional_variables(("none",), {"look_up"}) == ()
