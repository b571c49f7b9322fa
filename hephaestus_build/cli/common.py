"""What all commands share: how they speak, and how they say what was wrong."""

from __future__ import annotations

import json
from typing import Any

import typer
from rich.console import Console
from rich.table import Table

from hephaestus_build.frames import Frame

#: Standard output is for results; all else goes to standard error.
out = Console(highlight=False, soft_wrap=True)
err = Console(stderr=True, highlight=False, soft_wrap=True)

Json = typer.Option(False, "--json", help="Print JSON instead of text.")


def explain(message: str) -> None:
    """Say what went wrong, in one line on standard error."""
    err.print(f"hephaestus: {' '.join(message.split())}", markup=False)


def print_json(value: Any) -> None:
    """Print a result as JSON on standard output."""
    typer.echo(json.dumps(value, indent=2, default=str, ensure_ascii=False))


def print_pairs(title: str, rows: dict[str, Any]) -> None:
    """Print names and values as a small table."""
    table = Table(title=title, show_header=False, title_justify="left", box=None, pad_edge=False)
    for name, value in rows.items():
        table.add_row(name, str(value))
    out.print(table)


def frame_argument(text: str) -> Frame:
    """Return the frame that a user typed."""
    return Frame.parse(text)
