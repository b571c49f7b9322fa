"""Output of the commands: results, notices, JSON and exit codes."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from functools import wraps
from pathlib import Path
from typing import Any, get_type_hints

import typer
from rich.measure import Measurement
from rich.table import Table

from hephaestus_build.core.errors import MissingProductsError
from hephaestus_build.core.plain_text import sanitize_text
from hephaestus_build.core.settings import Settings, load_settings, require_local_path
from hephaestus_build.core.terminal import PlainConsole, json_text

#: Results go to standard output, everything else to standard error.
out = PlainConsole(soft_wrap=True)
err = PlainConsole(stderr=True, soft_wrap=True)


def print_notice(message: str) -> None:
    """Print one line on standard error."""
    err.print(f"hephaestus: {' '.join(sanitize_text(message, 4000).split())}")


def load_command_settings(simulated: bool, **overrides: Any) -> Settings:
    """Return the settings of a command: with ``--simulated``, those for simulated data."""
    settings = load_settings(**overrides)
    return settings.for_simulated() if simulated else settings


_WRAPPER_MARK = "_with_local_paths"


def refuse_remote_paths(command: Callable[..., Any]) -> Callable[..., Any]:
    """Wrap a command so that it refuses the address of a bucket where it takes a folder or file."""
    if hasattr(command, _WRAPPER_MARK):
        return command

    @wraps(command)
    def refusing(**values: Any) -> Any:
        for name, value in values.items():
            for item in value if isinstance(value, list | tuple) else [value]:
                if isinstance(item, Path):
                    require_local_path(_option_name(command, name), item)
        return command(**values)

    setattr(refusing, _WRAPPER_MARK, True)
    return refusing


def _option_name(command: Callable[..., Any], name: str) -> str:
    """Return the name of a parameter on the command line."""
    for about in getattr(get_type_hints(command, include_extras=True)[name], "__metadata__", ()):
        for spelled in (getattr(about, "default", None), *(getattr(about, "param_decls", None) or ())):
            if isinstance(spelled, str) and spelled.startswith("--"):
                return spelled
    return f"--{name.replace('_', '-')}"


def worst_exit_code(codes: Iterable[int]) -> int:
    """Return the exit code of a command from those of its frames: 1 before 3 before 0.

    It is 2 (wrong usage) only if that is the code of every frame.
    """
    known = set(codes) or {0}
    if len(known) == 1:
        return known.pop()
    return MissingProductsError.exit_code if known <= {0, MissingProductsError.exit_code} else 1


def print_json(value: Any) -> None:
    """Print a result as JSON on standard output."""
    typer.echo(json_text(value))


def print_table(
    columns: Sequence[str],
    rows: Iterable[Sequence[str]],
    *,
    numbers: Collection[str] = (),
    folded: str | None = None,
) -> None:
    """Print a table on standard output: one line per row, except on a terminal that is too narrow.

    Parameters
    ----------
    columns : sequence of str
        Headings.
    rows : iterable of sequences of str
        The cells of each row.
    numbers : collection of str
        Columns that are set to the right.
    folded : str, optional
        The column that a narrow terminal wraps first.
    """
    table = Table(box=None, pad_edge=False, padding=(0, 1))
    for name in columns:
        right = name in numbers
        table.add_column(name, justify="right" if right else "left", overflow="fold", no_wrap=name != folded)
    for row in rows:
        table.add_row(*row)
    if out.is_terminal:
        out.print(table)
        return
    width = Measurement.get(out, out.options.update(max_width=1 << 16), table).maximum
    for line in out.render_lines(table, out.options.update(width=width)):
        out.print("".join(segment.text for segment in line).rstrip())


def print_fields(title: str, rows: dict[str, Any], to: PlainConsole = out) -> None:
    """Print names and values as a small table."""
    width = max(map(len, rows), default=0)
    to.print(title, style="bold")
    for name, value in rows.items():
        to.print(f"  {name:<{width}}  {value}".rstrip())
