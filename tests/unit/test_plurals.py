"""Test that messages with a number fit a single thing too: "1 map", not "1 maps"."""

from __future__ import annotations

import ast
import re

import pytest

from checkout import PACKAGES, ROOT

#: Rooms that print or write for people; others count what is never one, or raise errors of damaged files.
ROOMS = ("cli", "operations", "pages", "site", "catalog", "hephaestus_flows")
FILES = sorted(
    path
    for package in PACKAGES
    for path in package.rglob("*.py")
    if path.parent.name in ROOMS or path.stem == "cli"
)
#: A word in the plural that follows a number at once.
PLURAL = re.compile(r" (?:more )?(?!is\b|was\b|has\b|less\b|minus\b|rows x|columns)[a-z]+s\b")


#: What holds a number, as far as its name tells.
NUMBER = re.compile(r"\blen\(|\bsum\(|count|\btotal|\bmade\b|\bpairs'?\]?$|\bdays$|\bwritten$|\bpreliminary$")


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_number_has_its_noun_from_count_of(path) -> None:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    functions = (node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef))
    for_programmers = {id(part) for node in functions if node.name == "__repr__" for part in ast.walk(node)}
    for node in ast.walk(tree):
        if id(node) in for_programmers or not isinstance(node, ast.JoinedStr):
            continue
        for value, text in zip(node.values, node.values[1:], strict=False):
            if isinstance(value, ast.FormattedValue) and isinstance(text, ast.Constant):
                shown = ast.unparse(value.value)
                is_number = NUMBER.search(shown) and "count_of" not in shown
                assert not (is_number and PLURAL.match(text.value)), f"{path}: {{{shown}}}{text.value}"
