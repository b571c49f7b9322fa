"""What all commands share: how they speak, and how they say what was wrong."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Any

import typer
from rich.console import Console

from hephaestus_build.errors import OwedError
from hephaestus_build.frames import Frame
from hephaestus_build.owed import Owed
from hephaestus_build.sources.receipt import Outcome

#: Standard output is for results; all else goes to standard error.
out = Console(highlight=False, soft_wrap=True)
err = Console(stderr=True, highlight=False, soft_wrap=True)

Json = typer.Option(False, "--json", help="Print JSON instead of text.")


def explain(message: str) -> None:
    """Say what went wrong, in one line on standard error."""
    err.print(f"hephaestus: {' '.join(message.split())}", markup=False)


def explain_owed(frame: str, owed: Sequence[Owed]) -> None:
    """Say what is owed to a frame's cube, what failed for the same reason in one line."""
    reasons: dict[tuple[str, str, str], list[Owed]] = {}
    for item in owed:
        sort = item.product.removeprefix(item.unit.partition("/")[2])
        reasons.setdefault((sort, item.outcome, item.detail), []).append(item)
    for (_, outcome, detail), items in reasons.items():
        first, more = items[0], f" and {len(items) - 1} more" if len(items) > 1 else ""
        what = f"{first.product} of {first.unit}{more}"
        lasting = ", `accept` in the settings makes it no news" if outcome == Outcome.ABSENT else ""
        explain(
            f"{frame}: owed: {what} ({outcome}: {detail}); `hephaestus build {frame}` tries again{lasting}"
        )


def worst(codes: Iterable[int]) -> int:
    """Return the exit code of a command from those of its frames: 1 before 3 before 0.

    2, wrong usage, is that of the whole only where it is that of every frame.
    """
    known = set(codes) or {0}
    if len(known) == 1:
        return known.pop()
    return OwedError.exit_code if known <= {0, OwedError.exit_code} else 1


def print_json(value: Any) -> None:
    """Print a result as JSON on standard output."""
    typer.echo(json.dumps(value, indent=2, default=str, ensure_ascii=False))


def print_pairs(title: str, rows: dict[str, Any]) -> None:
    """Print names and values as a small table."""
    width = max(map(len, rows), default=0)
    out.print(title, markup=False, style="bold")
    for name, value in rows.items():
        out.print(f"  {name:<{width}}  {value}".rstrip(), markup=False)


def frame_argument(text: str) -> Frame:
    """Return the frame that a user typed."""
    return Frame.parse(text)
