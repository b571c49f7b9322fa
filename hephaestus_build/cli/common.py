"""What all commands share: how they speak, and how they say what was wrong."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import typer

from hephaestus_build.frames import Frame
from hephaestus_build.owed import Owed
from hephaestus_build.plain_text import plain_text
from hephaestus_build.terminal import PlainConsole, json_text

#: Standard output is for results; all else goes to standard error.
out = PlainConsole(soft_wrap=True)
err = PlainConsole(stderr=True, soft_wrap=True)

Json = typer.Option(False, "--json", help="Print JSON instead of text.")


def explain(message: str) -> None:
    """Say what went wrong, in one line on standard error."""
    err.print(f"hephaestus: {' '.join(plain_text(message, 4000).split())}")


def explain_owed(frame: str, owed: Sequence[Owed]) -> None:
    """Say what is owed to a frame's cube, what failed for the same reason in one line."""
    reasons: dict[tuple[str, str, str], list[Owed]] = {}
    for item in owed:
        sort = item.product.removeprefix(item.unit.partition("/")[2])
        reasons.setdefault((sort, item.outcome, item.detail), []).append(item)
    for (_, outcome, detail), items in reasons.items():
        first, more = items[0], f" and {len(items) - 1} more" if len(items) > 1 else ""
        what = f"{first.product} of {first.unit}{more}"
        explain(f"{frame}: owed: {what} ({outcome}: {detail}); `hephaestus build {frame}` tries again")


def print_json(value: Any) -> None:
    """Print a result as JSON on standard output."""
    typer.echo(json_text(value))


def print_pairs(title: str, rows: dict[str, Any]) -> None:
    """Print names and values as a small table."""
    width = max(map(len, rows), default=0)
    out.print(title, style="bold")
    for name, value in rows.items():
        out.print(f"  {name:<{width}}  {value}".rstrip())


def frame_argument(text: str) -> Frame:
    """Return the frame that a user typed."""
    return Frame.parse(text)
