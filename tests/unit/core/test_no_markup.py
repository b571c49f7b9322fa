"""Tests that no text can be markup: neither in the console, nor by another way to print."""

from __future__ import annotations

import ast
import io
from collections.abc import Iterator
from pathlib import Path

import pytest
from rich.table import Table

from checkout import PACKAGES, ROOT
from hephaestus_build.core.terminal import PlainConsole

TAGS = "[/b] [bold]x[/bold] [link=http://x.invalid]y[/link] [] [/] :smile: \\[a]"
#: Modules that may make a rich console, or print without one.
CONSOLE = {"hephaestus_build/core/terminal.py"}
PRINTERS = {
    "hephaestus_build/core/terminal.py": "before there is a console; the text is sanitized",
    "hephaestus_build/cube/schema_docs.py": "prints a page of the documentation",
    "hephaestus_build/performance/process_timer.py": "prints JSON for the process that started it",
    "hephaestus_build/performance/cached_archive.py": "prints JSON for the process that started it",
    "flows/hephaestus_flows/prefect_plugin.py": "within Prefect's command; messages of HephaestusError",
}


@pytest.mark.parametrize("options", [{}, {"markup": True, "emoji": True}])
def test_a_console_takes_no_markup_even_where_it_is_told_to(options: dict[str, bool]) -> None:
    stream = io.StringIO()
    console = PlainConsole(file=stream, width=300, **options)
    console.print(TAGS)
    console.print(TAGS, markup=True, emoji=True, soft_wrap=True)
    table = Table(TAGS, box=None)
    table.add_row(TAGS)
    console.print(table)
    assert stream.getvalue().count(TAGS) == 4


def calls(tree: ast.AST) -> Iterator[tuple[str, ast.Call]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            yield ast.unparse(node.func), node


def ways_to_print_markup(text: str, name: str = "") -> list[str]:
    """Return the calls and imports of a module by which text could be printed as markup."""
    tree = ast.parse(text)
    found = []
    for called, call in calls(tree):
        keywords = {word.arg: ast.unparse(word.value) for word in call.keywords}
        last = called.rpartition(".")[2]
        wrong = (
            last == "from_markup",
            keywords.get("markup") == "True",
            last == "TextColumn" and keywords.get("markup") != "False",
            called == "typer.Typer" and keywords.get("rich_markup_mode") != "None",
            called in ("typer.run", "typer.secho", "rich.print"),
            last == "Console" and name not in CONSOLE,
            called == "print" and name not in PRINTERS,
        )
        found += [ast.unparse(call)] if any(wrong) else []
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("rich"):
            taken = {alias.name for alias in node.names}
            if taken & {"print", "markup"} or ("Console" in taken and name not in CONSOLE):
                found.append(ast.unparse(node))
    return found


@pytest.mark.parametrize("package", PACKAGES, ids=lambda package: package.name)
def test_no_module_prints_markup(package: Path) -> None:
    found = {
        f"{name}: {what}"
        for path in package.rglob("*.py")
        for name in [str(path.relative_to(ROOT))]
        for what in ways_to_print_markup(path.read_text(encoding="utf-8"), name)
    }
    assert found == set()


@pytest.mark.parametrize(
    "text",
    [
        "from rich import print",
        "from rich.console import Console",
        "print(f'{path} is there')",
        "rich.print(path)",
        "out.print(path, markup=True)",
        "Text.from_markup(path)",
        "TextColumn('{task.description}')",
        "typer.Typer(add_completion=False)",
        "typer.run(main)",
        "rich.console.Console().print(path)",
    ],
)
def test_each_way_to_print_markup_is_found(text: str) -> None:
    assert ways_to_print_markup(text)


def test_the_consoles_own_way_to_print_is_none() -> None:
    assert not ways_to_print_markup("out.print(path)\nout = PlainConsole()\n")
