"""Tests that docs/promises.md and docs/reliability.md name existing tests and pages only."""

from __future__ import annotations

import ast
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

ROOT = next(folder for folder in Path(__file__).resolve().parents if (folder / "pyproject.toml").is_file())
PAGE = ROOT / "docs" / "promises.md"


def defined() -> Counter[str]:
    """Return the number of definitions of each test function below tests/."""
    trees = (ast.parse(path.read_bytes()) for path in (ROOT / "tests").rglob("test_*.py"))
    functions = (node for tree in trees for node in ast.walk(tree) if isinstance(node, ast.FunctionDef))
    return Counter(node.name for node in functions if node.name.startswith("test_"))


def rows(text: str) -> Iterator[tuple[str, str, str]]:
    """Yield promise, pages and tests of each row of the tables of a page."""
    for line in text.splitlines():
        if line.startswith("| ") and not line.startswith("| promise |"):
            promise, pages, tests = (cell.strip() for cell in line.strip("|").split(" | "))
            yield promise, pages, tests


def faults(text: str, known: Counter[str]) -> Iterator[str]:
    """Yield the errors of a page of promises."""
    seen: Counter[str] = Counter()
    for promise, pages, tests in rows(text):
        seen[promise] += 1
        if seen[promise] == 2:
            yield f"{promise}: stands twice"
        links = re.findall(r"\]\(([^)#]+)", pages)
        if not links:
            yield f"{promise}: no page is linked"
        yield from (f"{promise}: {link} is not there" for link in links if not (PAGE.parent / link).is_file())
        names = tests.split(", ")
        for name in names:
            if not re.fullmatch(r"`test_\w+`", name):
                yield f"{promise}: {name} is not written as `test_name`"
            elif (count := known[name.strip("`")]) != 1:
                yield f"{promise}: {name} is defined {count} times, and must be once"
        if len({*names}) < len(names):
            yield f"{promise}: a test is named twice"


def test_each_promise_names_pages_and_tests_that_exist() -> None:
    text = PAGE.read_text(encoding="utf-8")
    assert list(faults(text, defined())) == []
    assert sum(1 for _ in rows(text)) > 100


def test_a_page_of_promises_that_names_what_is_not_there_is_found() -> None:
    known = Counter({"test_a": 1, "test_b": 2})
    good = "| promise | page | tests |\n|---|---|---|\n| It holds | [cube](cube.md) | `test_a` |\n"
    assert list(faults(good, known)) == []
    for bad in ("`test_c`", "`test_b`", "test_a", "", "`test_a`, `test_a`"):
        assert list(faults(good.replace("`test_a`", bad), known)), bad
    for bad in ("[cube](no-such-page.md)", "cube"):
        assert list(faults(good.replace("[cube](cube.md)", bad), known)), bad
    assert list(faults(good + good, known))


RELIABILITY = ROOT / "docs" / "reliability.md"
#: A test as a page names it: a file below tests/, and perhaps a function in it.
NAMED_TEST = re.compile(r"\b(tests/[\w/]+\.py)(?:::(\w+))?")


def missing_tests(text: str) -> Iterator[str]:
    """Yield the tests that a page names and that do not exist."""
    for file, name in NAMED_TEST.findall(text):
        path = ROOT / file
        if not path.is_file() or (name and not re.search(rf"^def {name}\(", path.read_text(), re.MULTILINE)):
            yield f"{file}::{name}" if name else file


def test_each_kind_of_trouble_names_a_test_that_exists() -> None:
    text = RELIABILITY.read_text(encoding="utf-8")
    assert list(missing_tests(text)) == []
    kinds, _, _ = text.partition("## Long tests")
    for line in kinds.splitlines():
        if line.startswith("| ") and not line.startswith("| kind |"):
            kind, now, tests = line.strip("|").split(" | ")
            assert now, kind
            assert NAMED_TEST.search(tests), kind


def test_a_trouble_whose_test_is_gone_is_found() -> None:
    here = "tests/integration/test_promises.py"
    good = f"`{here}` and `{here}::test_a_trouble_whose_test_is_gone_is_found`"
    assert list(missing_tests(good)) == []
    assert list(missing_tests(f"{good} `{here}::test_a_trouble` `tests/unit/gone.py::test_x`")) == [
        f"{here}::test_a_trouble",
        "tests/unit/gone.py::test_x",
    ]
