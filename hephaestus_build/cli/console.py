"""Output of the commands: results, notices, JSON and exit codes."""

from __future__ import annotations

import logging
import sys
import textwrap
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from functools import wraps
from pathlib import Path
from types import MappingProxyType
from typing import Any, get_type_hints

import typer
from rich.cells import cell_len
from rich.table import Table
from rich.text import Text

from hephaestus_build.cli.next_commands import carry_data_options, complete_commands
from hephaestus_build.core.errors import MissingProductsError
from hephaestus_build.core.machine.user_paths import local_path
from hephaestus_build.core.plain_text import sanitize_text
from hephaestus_build.core.settings import Settings, load_settings
from hephaestus_build.core.terminal import SPOKEN, PlainConsole, is_log_json, json_text


class _CommandConsole(PlainConsole):
    """A console of a command: commands that its texts suggest work on the same data."""

    def print(self, *objects: Any, **options: Any) -> None:
        super().print(*map(_complete_text, objects), **options)


def _complete_text(printed: Any) -> Any:
    return complete_commands(printed) if isinstance(printed, str) else printed


class _ErrorConsole(_CommandConsole):
    """Standard error; what is printed goes to the log file too, if there is one, or is logged as JSON."""

    def print(self, *objects: Any, level: int = logging.INFO, **options: Any) -> None:
        objects = tuple(map(_complete_text, objects))
        if not is_log_json():
            super().print(*objects, **options)
        if said := " ".join(map(str, objects)).strip():
            SPOKEN.log(level, "%s", said)


#: Results go to standard output, everything else to standard error.
out = _CommandConsole(soft_wrap=True)
err = _ErrorConsole(stderr=True, soft_wrap=True)

_GAP = 2  # blanks between the columns of a table
_FOLDED_WIDTH = 20  # columns of the terminal that a wrapped column gets at least


def print_notice(message: str, level: int = logging.INFO, *, simulated: bool = False) -> None:
    """Print one line on standard error; `level` is that of the log, `simulated` as for the commands in it."""
    line = " ".join(sanitize_text(message, 4000).split())
    err.print(f"hephaestus: {complete_commands(line, simulated=simulated)}", level=level)


def load_command_settings(simulated: bool, **overrides: Any) -> Settings:
    """Return the settings of a command: with ``--simulated``, those for simulated data."""
    settings = load_settings(**overrides)
    return settings.for_simulated() if simulated else settings


_WRAPPER_MARK = "_with_local_paths"


def resolve_local_paths(command: Callable[..., Any]) -> Callable[..., Any]:
    """Wrap a command so that ``~`` and variables in its paths are replaced, and addresses refused.

    The commands that its messages suggest have its options that say which data is meant.
    """
    if hasattr(command, _WRAPPER_MARK):
        return command

    @wraps(command)
    def resolving(**values: Any) -> Any:
        found = {name: resolve(name, value) for name, value in values.items()}
        carry_data_options(found)
        return command(**found)

    def resolve(name: str, value: Any) -> Any:
        if isinstance(value, list | tuple):
            return [resolve(name, item) for item in value]
        return local_path(_option_name(command, name), value) if isinstance(value, Path) else value

    setattr(resolving, _WRAPPER_MARK, True)
    return resolving


def _option_name(command: Callable[..., Any], name: str) -> str:
    """Return the name of a parameter on the command line."""
    for about in getattr(get_type_hints(command, include_extras=True)[name], "__metadata__", ()):
        for spelled in (getattr(about, "default", None), *(getattr(about, "param_decls", None) or ())):
            if isinstance(spelled, str) and spelled.startswith("--"):
                return spelled
    return f"--{name.replace('_', '-')}"


def run_module(main: Callable[..., Any]) -> None:
    """Run the main function of a module as a command of its own, with options from its signature."""
    app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)
    app.command()(main)
    app()


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
    rows: Iterable[Sequence[object]],
    *,
    numbers: Collection[str] = (),
    folded: Collection[str] = (),
    styles: Mapping[int, str] = MappingProxyType({}),
) -> None:
    """Print a table on standard output: where that is no terminal, one line a row, however long.

    On a terminal the columns `folded` are wrapped between words. A table that is wider even so is printed in
    parts of as many columns as fit, each with the first column. No word is ever cut or broken.

    Parameters
    ----------
    columns : sequence of str
        Headings.
    rows : iterable of sequences
        The cells of each row.
    numbers : collection of str
        Columns that are set to the right.
    folded : collection of str
        Columns of text.
    styles : mapping of int to str
        How a terminal shows rows, by their number: ``bold``, ``yellow``, ``bold red``.
    """
    cells = [[" ".join(complete_commands(str(cell)).splitlines()) for cell in row] for row in rows]
    wide = [max(cell_len(text) for text in column) for column in zip(columns, *cells, strict=True)]
    least = list(wide)
    width = sum(wide) + _GAP * len(wide)
    on_terminal = sys.stdout.isatty()
    if on_terminal:
        width = out.width
        for index in (index for index, name in enumerate(columns) if name in folded):
            words = (word for row in cells for word in row[index].split())
            least[index] = max([min(wide[index], _FOLDED_WIDTH), *map(cell_len, words)])
    for number, part in enumerate(_columns_that_fit(least, width)):
        table = Table(box=None, pad_edge=False, padding=(0, _GAP // 2))
        for index in part:
            name = columns[index]
            table.add_column(
                name,
                justify="right" if name in numbers else "left",
                min_width=least[index],
                no_wrap=name not in folded or not on_terminal,
            )
        for index, row in enumerate(cells):
            table.add_row(*(row[i] for i in part), style=styles.get(index))
        if number:
            out.print()
        needed = sum(least[index] + _GAP for index in part) - _GAP
        for line in out.render_lines(table, out.options.update(width=max(width, needed)), pad=False):
            text = Text.assemble(*((segment.text, segment.style or "") for segment in line))
            text.rstrip()
            out.print(text if on_terminal else text.plain)


def _columns_that_fit(widths: Sequence[int], room: int) -> Iterator[list[int]]:
    """Yield the columns of each part of a table, the first column in every one."""
    part, left = [0], room - widths[0]
    for index, width in enumerate(widths[1:], 1):
        if width + _GAP > left and len(part) > 1:
            yield part
            part, left = [0], room - widths[0]
        part.append(index)
        left -= width + _GAP
    yield part


def print_fields(title: str, rows: dict[str, Any], to: PlainConsole = out, style: str = "bold") -> None:
    """Print names and values as a small table; further lines of a value stand below its first one.

    On a terminal a long value is wrapped between words; elsewhere its lines stay as they are. `style` is how
    a terminal shows the title.
    """
    width = max(map(len, rows), default=0)
    to.print(title, style=style)
    for name, value in rows.items():
        lines = complete_commands(str(value)).splitlines()
        if to.file.isatty():  # also where FORCE_COLOR says otherwise
            room = max(to.width - width - 4, _FOLDED_WIDTH)
            lines = [part for line in lines for part in _wrapped(line, room)]
        text = ("\n" + " " * (width + 4)).join(lines)
        to.print(f"  {name:<{width}}  {text}".rstrip())


def _wrapped(line: str, room: int) -> list[str]:
    """Return a line in parts of whole words; one that fits keeps its blanks."""
    if cell_len(line) <= room:
        return [line]
    return textwrap.wrap(line, room, break_long_words=False, break_on_hyphens=False)
