"""The optional variables of a cube: their names, and the setting that asks for them."""

from __future__ import annotations

import difflib
from typing import Any

from hephaestus_build.core.errors import UsageError

#: Variables that a cube has only if a build asks for them; ``schemas/cube.json`` describes each.
OPTIONAL_VARIABLES = (
    "unwrapped_phase",
    "look_east",
    "look_north",
    "look_up",
    "perpendicular_baseline",
    "gacos_delay",
    "icams_delay",
)
#: In place of names: the cube shall have no optional variable.
NO_OPTIONAL_VARIABLES = "none"


def parse_optional_variables(value: Any) -> tuple[str, ...]:
    """Parse the setting ``variables``: names in a list, or in one text with commas.

    Parameters
    ----------
    value : str or list of str
        Names of optional variables; ``none`` alone asks for a cube without any.

    Returns
    -------
    tuple of str
        The names, in the order of :data:`OPTIONAL_VARIABLES` and without repeats; ``("none",)`` for none;
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
            hint = f" (did you mean {near[0]}?)" if near else ""
            raise UsageError(
                f"setting variables: {name!r} is no optional variable{hint}: use "
                f"{', '.join(OPTIONAL_VARIABLES)}, or none"
            )
    return tuple(name for name in OPTIONAL_VARIABLES if name in names)


def merge_optional_variables(asked: tuple[str, ...], present: set[str]) -> tuple[str, ...]:
    """Return the optional variables that a cube shall have.

    Parameters
    ----------
    asked : tuple of str
        As :func:`parse_optional_variables` returns it.
    present : set of str
        Those that the cube has.

    Examples
    --------
    >>> merge_optional_variables(("look_up",), {"unwrapped_phase"})
    ('unwrapped_phase', 'look_up')
    >>> merge_optional_variables(("none",), {"unwrapped_phase"})
    ()
    """
    if NO_OPTIONAL_VARIABLES in asked:
        return ()
    return tuple(name for name in OPTIONAL_VARIABLES if name in asked or name in present)
