"""Versions of the schema that cubes were written in, and what helps where it is not that of this version."""

from __future__ import annotations

import re

from hephaestus_build.cube.schema import cube_schema

#: Schema of cubes whose record states none.
FIRST_SCHEMA = "1.0"
#: What to do with a cube of a later schema.
UPGRADE = "`pip install --upgrade hephaestus-build` installs a version that knows it"


def is_later_schema(version: str | None) -> bool:
    """Return whether a schema is one that only a later version of this program knows.

    Examples
    --------
    >>> is_later_schema("1.2"), is_later_schema("99.0"), is_later_schema(None)
    (False, True, False)
    """
    return _as_numbers(version or FIRST_SCHEMA) > _as_numbers(cube_schema().version)


def _as_numbers(version: str) -> tuple[int, ...]:
    return tuple(map(int, re.findall("[0-9]{1,9}", version)))


def describe_other_schema(frame: str, version: str | None) -> str:
    """Return that a cube was written in another schema than this version writes, and what helps."""
    remedy = (
        UPGRADE
        if is_later_schema(version)
        else f"`hephaestus migrate {frame}` brings it over without downloading anything"
    )
    return (
        f"its cube was written in schema {version or FIRST_SCHEMA}, this version writes "
        f"{cube_schema().version}; {remedy}"
    )
