"""Values of settings as users write them: lists, shares, times and names, in YAML, JSON or one text."""

from __future__ import annotations

import difflib
import os
import re
from fractions import Fraction
from typing import Any

from hephaestus_build.core.errors import UsageError
from hephaestus_build.core.frames import Frame
from hephaestus_build.core.machine.user_paths import local_path
from hephaestus_build.core.parsing import parse_json
from hephaestus_build.core.plain_text import sanitize_text
from hephaestus_build.core.registry import OPTIONAL_VARIABLES, load_schema, near_variables

CENTER_TIME_EXAMPLE = '{124D_04854_171313: "5:03:37.6"}'
#: In place of names: the cube is to have no optional variable.
NO_OPTIONAL_VARIABLES = "none"
_SHARE = re.compile(r"([0-9]{1,6})(?:/([0-9]{1,6}))?", re.ASCII)


def parse_share(value: Any) -> Any:
    """Return a part of one, such as ``1/20``, in its shortest form."""
    match = _SHARE.fullmatch(str(value).strip()) if isinstance(value, str | int) else None
    if match is None or not 0 < int(match[1]) <= int(match[2] or 1):
        raise ValueError("must be a part of one, such as 1/20")
    return str(Fraction(int(match[1]), int(match[2] or 1)))


def parse_folders(value: Any) -> Any:
    """Parse folders given as a list, as JSON, or as a string in the format of PATH."""
    if isinstance(value, str):
        text = value.strip()
        value = (
            parse_json(text) if text.startswith("[") else [item for item in text.split(os.pathsep) if item]
        )
    return [local_path("data_roots", item) for item in value] if isinstance(value, list | tuple) else value


def parse_clusters(value: Any) -> Any:
    """Parse addresses given as a list, or in one text with commas."""
    if isinstance(value, str):
        value = [part.strip() for part in value.split(",") if part.strip()]
    return value


def parse_optional_variables(value: Any) -> tuple[str, ...]:
    """Parse the setting ``variables``: names in a list, or in one text with commas.

    Parameters
    ----------
    value : str or list of str
        Names of optional variables; ``none`` alone asks for a cube without any.

    Returns
    -------
    tuple of str
        The names, in the order of the schema and without repeats; ``("none",)`` for none;
        empty if nothing is asked for, so that a cube keeps what it has.

    Raises
    ------
    UsageError
        If a name is unknown, or stands beside ``none``; the message suggests the nearest.

    Examples
    --------
    >>> parse_optional_variables("look_up, unwrapped_phase")
    ('unwrapped_phase', 'look_up')
    """
    parts = value.split(",") if isinstance(value, str) else value
    if not isinstance(parts, list | tuple):
        raise UsageError(f"setting variables: it must be names with commas: {', '.join(OPTIONAL_VARIABLES)}")
    names = [name for part in parts if (name := str(part).strip()[:80])]
    if NO_OPTIONAL_VARIABLES in names:
        if set(names) != {NO_OPTIONAL_VARIABLES}:
            raise UsageError("setting variables: none takes every optional variable away; it stands alone")
        return (NO_OPTIONAL_VARIABLES,)
    for name in names:
        if name not in OPTIONAL_VARIABLES:
            near = difflib.get_close_matches(name, OPTIONAL_VARIABLES, n=1)
            hint = f" (did you mean {near[0]}?)" if near else _hint_at_every_cube(name)
            raise UsageError(
                f"setting variables: {name!r} is no optional variable{hint}: use "
                f"{', '.join(OPTIONAL_VARIABLES)}, or none"
            )
    return tuple(name for name in OPTIONAL_VARIABLES if name in names)


def parse_center_times(value: Any) -> dict[str, str]:
    """Parse the setting ``center_time``: times of day by frame, as a mapping or as JSON text.

    Raises
    ------
    UsageError
        If it is not such a mapping, or a frame or a time cannot be read.
    """
    from hephaestus_build.core.era5_grid import parse_center_time  # numpy takes a while to load

    what, example = "setting center_time", f"write it as center_time: {CENTER_TIME_EXAMPLE}"
    if isinstance(value, str):
        try:
            value = parse_json(value)
        except ValueError as error:
            raise UsageError(f"{what}: it is not a JSON object ({error}); {example}") from None
    if not isinstance(value, dict):
        raise UsageError(f"{what}: it must be a mapping of frames to times; {example}")
    times: dict[str, str] = {}
    for key, text in value.items():
        name = sanitize_text(str(key), 80).strip()
        try:
            frame = Frame.parse(name).id
        except UsageError:
            raise UsageError(f"{what}: {name!r} is no frame id; {example}") from None
        if not isinstance(text, str):  # YAML reads 18:41:07 as 67267
            raise UsageError(f"{what}: the time of {frame} must stand in quotes; {example}")
        try:
            parse_center_time(text[:200])
        except ValueError as error:
            raise UsageError(f"{what}: of {frame}, {error}; {example}") from None
        times[frame] = text.strip()
    return times


def _hint_at_every_cube(name: str) -> str:
    """Return what every cube has of this name, or near it."""
    known = {entry["name"] for entry in load_schema("cube.json")["variables"] if not entry.get("optional")}
    near = near_variables(name, known)
    if name in known:
        return " (every cube has it" + (f", and {near})" if near else ")")
    return f" (every cube has {near})" if near else ""
