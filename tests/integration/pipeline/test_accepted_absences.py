"""Tests of the setting `accept`: valid values, and refusal of others with the nearest name."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from hephaestus_build.core.accepted_absences import (
    ACCEPT_EXAMPLE,
    ACCEPTABLE_PRODUCTS,
    parse_accepted_absences,
)
from hephaestus_build.core.configuration.settings_reference import settings_template
from hephaestus_build.core.errors import UsageError
from hephaestus_build.core.frames import Frame
from hephaestus_build.core.provenance import Outcome
from hephaestus_build.core.settings import load_settings
from hephaestus_build.pipeline.missing_products import MissingProduct, partition_accepted

FRAME = Frame("124D_04854_171313")
OTHER = Frame("106A_09048_000909")
PAIR = "20160909_20160921"
LACKS = {
    "dem": MissingProduct("dem/dem", f"{FRAME}.geo.hgt.tif", Outcome.ABSENT, "", "dem"),
    "phase": MissingProduct(f"pair/{PAIR}", f"{PAIR}.geo.diff_pha.tif", Outcome.ABSENT, "", "phase"),
    "coherence": MissingProduct(f"pair/{PAIR}", f"{PAIR}.geo.cc.tif", Outcome.ABSENT, "", "coherence"),
    "preview": MissingProduct(f"mask/{PAIR}", f"{PAIR}.geo.diff.png", Outcome.ABSENT, "", "preview"),
    "era5": MissingProduct("epoch/20160909", "era5 2016-09-09 23:00", Outcome.ABSENT, "", "era5"),
}


def accepted(names: list[str], frame: Frame = FRAME, **accept: list[str]) -> set[str]:
    """Return which of the products `names` are accepted under the setting."""
    _, found = partition_accepted([LACKS[name] for name in names], frame, parse_accepted_absences(accept))
    return {name for name in names if LACKS[name] in found}


@pytest.mark.parametrize("name", LACKS)
def test_each_product_is_accepted_by_its_name_alone(name):
    assert accepted(list(LACKS), **{FRAME.id: [name]}) == {name}
    assert accepted(list(LACKS), **{"*": [name]}) == {name}
    assert accepted(list(LACKS), **{OTHER.id: [name]}) == set()


@pytest.mark.parametrize(
    ("name", "those"),
    [
        ("interferogram", {"phase", "coherence"}),
        (PAIR, {"phase", "coherence", "preview"}),
        ("20160909", {"era5"}),
        ("2016-09-09", {"era5"}),
        ("20160909_20161003", set()),
        ("DEM", {"dem"}),
    ],
)
def test_names_of_more_than_one_product_of_a_pair_and_of_a_date(name, those):
    assert accepted(list(LACKS), **{"*": [name]}) == those


@pytest.mark.parametrize("outcome", [Outcome.UNREACHABLE, Outcome.CORRUPT, Outcome.REFUSED])
def test_only_what_the_archive_does_not_have_is_accepted(outcome):
    item = MissingProduct("dem/dem", "x", outcome, "", "dem")
    assert partition_accepted([item], FRAME, parse_accepted_absences({"*": list(ACCEPTABLE_PRODUCTS)})) == (
        (item,),
        (),
    )


@given(
    outcomes=st.lists(st.tuples(st.sampled_from(sorted(LACKS)), st.sampled_from(list(Outcome)))),
    chosen=st.dictionaries(
        st.sampled_from([FRAME.id, OTHER.id, "*"]), st.lists(st.sampled_from(ACCEPTABLE_PRODUCTS))
    ),
)
def test_everything_is_either_owed_or_accepted_in_order(outcomes, chosen):
    items = [replace(LACKS[name], outcome=outcome) for name, outcome in outcomes]
    owed, known = partition_accepted(items, FRAME, parse_accepted_absences(chosen))
    assert sorted([*owed, *known], key=repr) == sorted(items, key=repr)
    assert list(owed) == [item for item in items if item in owed]
    assert all(item.outcome is Outcome.ABSENT for item in known)


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ({"124D_04854_171313": ["demm"]}, r"'demm' is not a product \(did you mean dem\?\)"),
        ({"*": ["coherance"]}, r"did you mean coherence\?"),
        ({"124D_04854_17131": ["dem"]}, r"neither a frame id .* \(did you mean 124D_04854_171313\?"),
        ({"all": ["dem"]}, "'all' is neither"),
        ({"*": ["20160921_20160909"]}, "is not a product"),
        ({"*": ["20161345"]}, "is not a product"),
        ({"*": None}, "'None' is not a product"),
        ({"*": {"dem": True}}, "is not a product"),
        ({"*": [["dem"]]}, "is not a product"),
        ({1: ["dem"]}, "'1' is neither"),
        (["dem"], "must be a mapping of frames"),
        (None, "must be a mapping of frames"),
        ("{not json", "not a JSON object"),
        ("[" * 5000, "not a JSON object"),
        ('["dem"]', "must be a mapping of frames"),
    ],
)  # fmt: skip
def test_what_cannot_be_meant_is_refused_in_one_line_with_an_example(value, said):
    with pytest.raises(UsageError, match=said) as caught:
        parse_accepted_absences(value)
    assert f"accept: {ACCEPT_EXAMPLE}" in str(caught.value)
    assert "\n" not in str(caught.value)


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.dates(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text() | st.integers(), inner),
    )
)
def test_any_value_is_read_or_refused(value):
    try:
        read = parse_accepted_absences(value)
    except UsageError:
        return
    assert parse_accepted_absences(read) == read


def test_a_file_may_say_it_as_yaml_and_the_environment_as_json(tmp_path, monkeypatch):
    file = tmp_path / "settings.yaml"
    # YAML takes a pair for an integer, and a date for a date
    file.write_text("accept: {124d_04854_171313: [dem, 20160909_20160921, 2016-09-09], '*': preview}\n")
    monkeypatch.setenv("HEPHAESTUS_SETTINGS", str(file))
    expected = {FRAME.id: ("dem", PAIR, "20160909"), "*": ("preview",)}
    assert load_settings().accept == expected
    monkeypatch.setenv("HEPHAESTUS_ACCEPT", json.dumps({"*": ["phase"]}))
    assert load_settings().accept == {"*": ("phase",)}
    monkeypatch.setenv("HEPHAESTUS_ACCEPT", "{")
    with pytest.raises(UsageError, match="setting accept: it is not a JSON object"):
        load_settings()


def test_the_printed_settings_document_it_with_an_example_that_can_be_used():
    lines = settings_template().splitlines()
    (example,) = (line for line in lines if line.startswith("# Example: accept:"))
    value = yaml.safe_load(example.removeprefix("# Example: "))["accept"]
    assert parse_accepted_absences(value) == {FRAME.id: ("dem",), "*": ("preview",)}
    assert "# accept: {}" in lines
    assert all(name in settings_template() for name in ACCEPTABLE_PRODUCTS)
