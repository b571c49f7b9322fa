"""Tests of the packages' folders: their size, and what docs/architecture.md says of them.

The permitted imports between rooms are contracts in pyproject.toml, checked by `make lint`.
"""

from __future__ import annotations

import ast
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from checkout import PACKAGES, ROOT

MOST_MODULES = 24
#: Folders with one module per command, exempt from the limit; `hephaestus --help` lists the commands.
COMMANDS = {ROOT / "hephaestus_build" / "cli"}


def modules(folder: Path) -> set[str]:
    return {path.stem for path in folder.glob("*.py")} - {"__init__"}


ROOMS = sorted(path.parent for package in PACKAGES for path in package.rglob("__init__.py"))


def test_every_module_of_the_builder_stands_in_a_room() -> None:
    assert modules(ROOT / "hephaestus_build") == {"__main__"}


@pytest.mark.parametrize("room", ROOMS, ids=lambda room: str(room.relative_to(ROOT)))
def test_a_room_has_no_more_than_two_dozen_modules(room: Path) -> None:
    if room not in COMMANDS:
        assert len(modules(room)) <= MOST_MODULES, sorted(modules(room))


@pytest.mark.parametrize("package", PACKAGES, ids=lambda package: package.name)
def test_every_folder_of_code_is_a_package(package: Path) -> None:
    """Without `__init__.py` a folder escapes the contracts of imports and the count above."""
    assert {path.parent for path in package.rglob("*.py")} <= set(ROOMS)


@pytest.mark.parametrize("package", PACKAGES, ids=lambda package: package.name)
def test_type_checkers_of_users_read_the_annotations(package: Path) -> None:
    assert (package / "py.typed").is_file()


def names_in(text: str, name: str) -> Iterator[int]:
    """Yield the lines of a module that import a package or name it in a string, docstrings left out."""
    if name not in text:
        return
    tree = ast.parse(text)
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    docstrings = {
        id(node.body[0].value)
        for node in ast.walk(tree)
        if isinstance(node, documented) and node.body and isinstance(node.body[0], ast.Expr)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            named = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            named = [node.module or ""]
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docstrings:
            named = [node.value]
        else:
            continue
        if any(name in one for one in named):
            yield node.lineno


@pytest.mark.parametrize("name", ["hephaestus_baselines", "hephaestus_flows"])
def test_the_builder_does_not_know_the_packages_above_it(name: str) -> None:
    """What they add is found through entry points; imports that are strings escape the linter."""
    found = {
        f"{path.relative_to(ROOT)}:{line}"
        for path in (ROOT / "hephaestus_build").rglob("*.py")
        for line in names_in(path.read_text(encoding="utf-8"), name)
    }
    assert found == set()


def test_names_in_strings_and_imports_are_found() -> None:
    for text in ("import a.b", "from a import b", "x = {'y': 'a.b'}", "x = f'{1} a'", "def f(): g('a')"):
        assert list(names_in(text, "a")) == [1]
    assert list(names_in('"""a"""\ndef f():\n    """a"""\n    # a\n', "a")) == []


@pytest.mark.parametrize("package", PACKAGES, ids=lambda package: package.name)
def test_nothing_needs_the_measurements_that_the_wheel_leaves_out(package: Path) -> None:
    found = {
        f"{path.relative_to(ROOT)}:{line}"
        for path in package.rglob("*.py")
        for name in ("hephaestus_build.performance", "hephaestus_baselines.performance")
        for line in names_in(path.read_text(encoding="utf-8"), name)
        if path.parent.name != "performance"
    }
    assert found == set()


ARCHITECTURE = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")


def test_the_page_has_the_floors_of_the_contracts() -> None:
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["importlinter"]
    for contract in contracts["contracts"]:
        for package in contract.get("containers", ()):
            floors = "".join(f"    {layer}\n" for layer in contract["layers"])
            assert f"\n{package}\n{floors}" in ARCHITECTURE


def test_the_page_says_what_each_room_imports() -> None:
    told = re.findall(
        r"^\| `(\w+)` \| .* \| ((?:`\w+`(?:, )?)+|no other room) \|$", ARCHITECTURE, re.MULTILINE
    )
    folder = ROOT / "hephaestus_build"
    found = {}
    for room in {path.name for path in ROOMS if path.parent == folder} - {"cli", "performance"}:
        texts = (path.read_text(encoding="utf-8") for path in (folder / room).rglob("*.py"))
        named = {
            name
            for text in texts
            for name in re.findall(r"^ *from hephaestus_build\.(\w+)", text, re.MULTILINE)
        }
        found[room] = named - {room}
    assert {room: set(re.findall(r"`(\w+)`", names)) for room, names in told} == found
