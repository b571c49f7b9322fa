"""The commands that messages suggest, with the options by which the user said which data is meant.

A message names a command in backquotes, such as ```hephaestus repair FRAME```, from wherever it is made: few
places know what was typed. It is completed where it is printed, so that a line that is copied works on the
same data. What comes from the environment or the settings file holds for the next command too.
"""

from __future__ import annotations

import logging
import re
import shlex
from collections.abc import Mapping
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

from hephaestus_build.core.errors import HephaestusError

_SUGGESTED = re.compile(r"`hephaestus ([^`]+)`")

#: Words of the options that were given, by option.
_given: dict[str, str] = {}


def carry_data_options(values: Mapping[str, Any]) -> None:
    """Note the options of the present command that say which data is meant, in place of those of before.

    Parameters
    ----------
    values : mapping of str
        Values of its parameters.
    """
    _given.clear()
    if values.get("simulated") is True:
        _given["--simulated"] = "--simulated"
    if isinstance(folder := values.get("data_dir"), Path):
        _given["--data-dir"] = f"--data-dir {shlex.quote(str(folder))}"
    for handler in logging.getLogger().handlers if _given else ():
        handler.addFilter(_complete_record)


def complete_commands(text: str, *, simulated: bool = False) -> str:
    """Return a message whose suggested commands have the options that were given and that they take.

    Parameters
    ----------
    text : str
        The message.
    simulated : bool
        Whether it is of a simulated cube that a command finds with ``--simulated`` alone.
    """
    given = {**({"--simulated": "--simulated"} if simulated else {}), **_given}
    return _SUGGESTED.sub(lambda found: f"`hephaestus {_complete(found[1], given)}`", text) if given else text


def _complete_record(record: logging.LogRecord) -> bool:
    """Complete what is logged; let it pass."""
    with suppress(TypeError, ValueError):  # values that do not fit the text: the handler says so
        record.msg, record.args = complete_commands(record.getMessage()), None
    return True


def _complete(command: str, given: Mapping[str, str]) -> str:
    words = command.split()
    taken = _options_of(*words[:2])
    return " ".join(
        [command, *(said for option, said in given.items() if option in taken and option not in words)]
    )


@cache
def _options_of(name: str, then: str = "") -> frozenset[str]:
    """Return the options of a command, or of the one of its group that the next word names."""
    import typer

    from hephaestus_build.cli import app

    try:
        command = typer.main.get_command(app).get_command(None, name)  # type: ignore[attr-defined]
    except HephaestusError:  # of a package that is not installed
        return frozenset()
    command = getattr(command, "commands", {}).get(then, command)
    return frozenset(option for one in getattr(command, "params", ()) for option in one.opts)
