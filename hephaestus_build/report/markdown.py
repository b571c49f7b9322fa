"""Markdown: tables, and the escaping of untrusted text."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from hephaestus_build.core.plain_text import sanitize_text

# Characters that start emphasis, links, images, code, HTML, entities, tables or autolinks. An underscore
# within a word has no meaning, and every frame id contains some.
_ACTIVE = re.compile(r"[\\`*\[\]<>&|~!$@]|(?<!\w)_|_(?!\w)|:(?=//)|(?<=www)\.", re.ASCII | re.IGNORECASE)
# characters at the start of a line that make it a heading, list item or rule
_BLOCK = re.compile(r"^(?=[#+\-=])|^(\d+)(?=[.)])")


def escape_markdown(value: object, limit: int = 2000) -> str:
    r"""Return Markdown that renders `value` literally, on one line.

    Examples
    --------
    >>> escape_markdown("no *such* file: <img src=http://x.org>")
    'no \\*such\\* file: \\<img src=http\\://x.org\\>'
    """
    escaped = _ACTIVE.sub(r"\\\g<0>", sanitize_text(value, limit))
    return _BLOCK.sub(lambda match: f"{match[0]}\\", escaped)


def code_span(value: object, limit: int = 4000) -> str:
    """Return a Markdown code span of `value`, on one line."""
    line = sanitize_text(value, limit)
    fence = "`" * (1 + max((len(run) for run in re.findall("`+", line)), default=0))
    return f"{fence}{line}{fence}" if len(fence) == 1 else f"{fence} {line} {fence}"


def markdown_table(columns: Sequence[str], rows: Iterable[Iterable[str]]) -> str:
    """Return a table of cells that are Markdown already."""
    lines = [f"| {' | '.join(columns)} |", f"|{'---|' * len(columns)}"]
    return "\n".join([*lines, *(f"| {' | '.join(row)} |" for row in rows)])


def table_cell(value: object) -> object:
    """Return a cell for a Prefect table artifact: numbers unchanged, other values as escaped Markdown."""
    return value if value is None or isinstance(value, bool | int | float) else escape_markdown(value)
