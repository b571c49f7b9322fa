"""Output of the commands: results, notices, JSON and exit codes."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import wraps
from pathlib import Path
from typing import Any, get_type_hints

import typer

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


def print_fields(title: str, rows: dict[str, Any]) -> None:
    """Print names and values as a small table."""
    width = max(map(len, rows), default=0)
    out.print(title, style="bold")
    for name, value in rows.items():
        out.print(f"  {name:<{width}}  {value}".rstrip())
