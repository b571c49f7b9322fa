"""Paths as users write them: ``~`` for a home folder, ``$NAME`` and ``${NAME}`` for variables."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TypeVar

from hephaestus_build.core.errors import UsageError
from hephaestus_build.core.machine.home import find_home
from hephaestus_build.core.plain_text import sanitize_text

T = TypeVar("T")
# at least two letters, since C:/data is a folder; one slash, since pathlib turns s3:// into s3:/
_ADDRESS = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+):[/\\]")
_VARIABLE = re.compile(r"\$(?:([A-Za-z_][A-Za-z0-9_]*)|\{([^{}]*)\})")


def local_path(name: str, value: T) -> T | str | Path:
    """Return the local path that a user gave, with ``~`` and variables replaced (:func:`expand_path`).

    Raises
    ------
    UsageError
        If it is the address of a bucket, or cannot be expanded.
    """
    if not isinstance(value, str | Path):
        return value
    require_local_path(name, value)
    expanded = type(value)(expand_path(str(value), name))
    require_local_path(name, expanded)
    return expanded


def require_local_path(name: str, value: object) -> None:
    """Raise an error if a bucket or another address is given in place of a local path.

    Raises
    ------
    UsageError
        If `value` is an address. The message repeats only its scheme, since it may contain a password.
    """
    if isinstance(value, str | os.PathLike) and (match := _ADDRESS.match(os.fspath(value).strip())):
        raise UsageError(
            f"{name} is an address ({match[1]}://...): buckets and other addresses are not supported here "
            f"yet; use a local folder"
        )


def expand_path(text: str, name: str) -> str:
    """Return a path with ``~`` and variables replaced, as a shell does.

    A folder or file whose name holds a ``$`` stays as it is written if it exists.

    Parameters
    ----------
    text : str
        The path, as it is written in a file, in the environment or on the command line.
    name : str
        What sets it, for messages: ``data_dir``, ``--out``.

    Raises
    ------
    UsageError
        If a variable is not set, or the home folder is unknown.
    """
    expanded: list[str] = [_expand_home(text.partition("/")[0], name)] if text.startswith("~") else []
    for part in text.split("/")[len(expanded) :]:
        if "$" in part and not _exists("/".join([*expanded, part])):
            part = _VARIABLE.sub(lambda match: _variable(match, name), part)
        expanded.append(part)
    return "/".join(expanded) or text


def _variable(match: re.Match[str], name: str) -> str:
    variable = match[1] or match[2]
    value = os.environ.get(variable) if "=" not in variable and "\0" not in variable else None
    if not value:
        raise UsageError(
            f"{name}: the environment does not set {sanitize_text(match[0], 80)}, which its path names; "
            f"set that variable, or write the path out"
        )
    return value


def _expand_home(user: str, name: str) -> str:
    # pathlib raises RuntimeError without a name
    home = str(find_home() or user) if user == "~" else os.path.expanduser(user)  # noqa: PTH111
    if not home.startswith("/"):
        if user != "~" and _exists(user):  # a file whose name begins so
            return user
        whose = f"of {sanitize_text(user[1:], 80)}" if user != "~" else f"of user {os.geteuid()}"
        raise UsageError(
            f"{name}: the home folder {whose}, which its path names by {sanitize_text(user, 80)}, is unknown "
            f"here (neither HOME nor the list of users has it); write the path out"
        )
    return home.rstrip("/")


def _exists(text: str) -> bool:
    return "\0" not in text and os.path.lexists(text)
