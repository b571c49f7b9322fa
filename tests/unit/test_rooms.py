"""Tests of the size of the packages' modules and folders (docs/architecture.md).

The permitted imports between packages are contracts in pyproject.toml, checked by `make lint`.
"""

from __future__ import annotations

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
