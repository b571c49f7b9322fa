"""Tests of parsing untrusted documents: limits, and errors for hostile ones."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hephaestus_build.core.errors import HephaestusError
from hephaestus_build.core.parsing import MAX_DEPTH, parse_json, parse_yaml, read_bounded
from hephaestus_build.core.plain_text import REPLACEMENT_CHARACTER, sanitize_text

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**25), 10**25) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@given(VALUES)
def test_json_is_what_json_says(value):
    assert parse_json(json.dumps(value)) == value


@pytest.mark.parametrize("depth", [MAX_DEPTH + 1, 5_000, 1_000_000])
@pytest.mark.parametrize("brackets", ["[]", '{"a":}'])
def test_deep_json_is_refused(depth, brackets):
    opening, closing = brackets[:-1], brackets[-1]
    with pytest.raises(ValueError, match="nested deeper"):
        parse_json(opening * depth + "1" + closing * depth)


def test_the_allowed_depth_is_read():
    assert parse_json("[" * MAX_DEPTH + "]" * MAX_DEPTH)


def test_a_number_without_end_is_refused():
    with pytest.raises(ValueError, match="5000 digits"):
        parse_json('{"size": ' + "9" * 5000 + "}")


def test_a_document_beyond_the_limit_is_refused(tmp_path):
    path = tmp_path / "large.json"
    path.write_bytes(b"[" + b" " * 1000 + b"]")
    assert read_bounded(path, 1002) == path.read_bytes()
    for read in (lambda: parse_json(path.read_bytes(), limit=1001), lambda: read_bounded(path, 1001)):
        with pytest.raises(ValueError, match="larger than 1001 bytes"):
            read()


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("[" * 5000 + "]" * 5000, "nested deeper"),
        ("a: &x [1, 2]\nb: *x\n", "aliases"),
        ("a: !!python/object/apply:os.system [id]", "not YAML"),
        ("a: [1, 2", "not YAML"),
        ("a: " + "x" * (1 << 20), "larger"),
    ],
)
def test_hostile_yaml_is_refused(text, reason):
    with pytest.raises(ValueError, match=reason):
        parse_yaml(text)


def test_yaml_is_read():
    assert parse_yaml("accept:\n  124D_04854_171313: [dem]\n") == {"accept": {"124D_04854_171313": ["dem"]}}


@given(st.text())
def test_plain_text_holds_no_command(text):
    plain = sanitize_text(text)
    assert plain.isprintable()
    assert len(plain) <= 501


def test_plain_text_shows_that_something_was_there():
    assert sanitize_text("\x1b]0;owned\x07 gone\r\n\u202etxt.exe") == (
        f"{REPLACEMENT_CHARACTER}]0;owned{REPLACEMENT_CHARACTER} gone  {REPLACEMENT_CHARACTER}txt.exe"
    )
    assert sanitize_text("ordinary, äöü, 火山") == "ordinary, äöü, 火山"
    assert sanitize_text("x" * 600) == "x" * 500 + "…"


def test_an_error_quotes_no_command():
    assert str(HephaestusError("the server says \x1b[2J\x9b31m")) == (
        f"the server says {REPLACEMENT_CHARACTER}[2J{REPLACEMENT_CHARACTER}31m"
    )
