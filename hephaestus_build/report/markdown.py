"""Text of others in Markdown: shown as it is written, whatever it looks like."""

from __future__ import annotations

import re

from hephaestus_build.core.plain_text import sanitize_text

# What begins an emphasis, a link, a picture, code, HTML, an entity, a table, or an address made a link.
# An underscore within a word begins nothing, and there are some in every frame's id.
_ACTIVE = re.compile(r"[\\`*\[\]<>&|~!$@]|(?<!\w)_|_(?!\w)|:(?=//)|(?<=www)\.", re.ASCII | re.IGNORECASE)
# at the beginning: a heading, a list, a line
_BLOCK = re.compile(r"^(?=[#+\-=])|^(\d+)(?=[.)])")


def escape_markdown(value: object, limit: int = 2000) -> str:
    r"""Return Markdown that shows `value` on one line, letter by letter.

    Examples
    --------
    >>> escape_markdown("no *such* file: <img src=http://x.org>")
    'no \\*such\\* file: \\<img src=http\\://x.org\\>'
    """
    escaped = _ACTIVE.sub(r"\\\g<0>", sanitize_text(value, limit))
    return _BLOCK.sub(lambda match: f"{match[0]}\\", escaped)


def code_span(value: object, limit: int = 4000) -> str:
    """Return Markdown that shows `value` as code, on one line."""
    line = sanitize_text(value, limit)
    fence = "`" * (1 + max((len(run) for run in re.findall("`+", line)), default=0))
    return f"{fence}{line}{fence}" if len(fence) == 1 else f"{fence} {line} {fence}"


def table_cell(value: object) -> object:
    """Return a table's cell: numbers as they are, all else as Markdown, as Prefect's first UI reads it."""
    return value if value is None or isinstance(value, bool | int | float) else escape_markdown(value)
