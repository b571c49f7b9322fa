"""The tables of a grid for a terminal: Markdown taken apart into tables of plain cells and lines of text."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

#: How the marks of Markdown are explained in the notes, and how they are on a terminal.
_NOTES = {
    "the best score is bold and the second underlined": "the best score has a * and the second a +",
    "Controls, in italics, look": "Controls look",
}


@dataclass(frozen=True)
class PlainTable:
    """A table of plain cells; the first column names what a row is of, the others are figures."""

    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


def plain_tables(text: str) -> Iterator[PlainTable | str]:
    r"""Yield the tables and the other lines of a Markdown document of tables, in order, without its marks.

    The block that stands in the first row of several is repeated in each.

    Examples
    --------
    >>> list(plain_tables("# Scores\n| | Model | F1 |\n|---|---|---:|\n| Single | A\\*B | **0.5** |"))
    ['Scores', PlainTable(columns=('Model', 'F1'), rows=(('Single: A*B', '0.5 *'),))]
    """
    lines = text.splitlines()
    place = 0
    while place < len(lines):
        if not lines[place].startswith("|"):
            yield _plain_line(lines[place])
            place += 1
            continue
        table = []
        while place < len(lines) and lines[place].startswith("|"):
            table.append(_cells(lines[place]))
            place += 1
        yield _table(table)


def _table(lines: list[list[str]]) -> PlainTable:
    head, _, *rows = lines
    block = ""
    found = []
    for first, second, *figures in rows:
        block = first or block
        name = f"control: {second.strip('*')}" if second.startswith("*") else second
        found.append((_plain(f"{block}: {name}"), *map(_plain, figures)))
    return PlainTable((_plain(head[1] or head[0]), *map(_plain, head[2:])), tuple(found))


def _cells(line: str) -> list[str]:
    """Return the cells of a line of a table; an escaped bar is no border."""
    return [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]


def _plain_line(line: str) -> str:
    for marked, plain in _NOTES.items():
        line = line.replace(marked, plain)
    line = re.sub(r"\*\*(.*?)\*\*", r"\1", line.lstrip("# "))
    return _unescaped(line.replace("`", ""))


def _plain(cell: str) -> str:
    cell = re.sub(r"^\*\*(.*)\*\*$", r"\1 *", cell)
    return _unescaped(re.sub(r"^<u>(.*)</u>$", r"\1 +", cell))


def _unescaped(text: str) -> str:
    return re.sub(r"\\([^\w\s])", r"\1", text)
