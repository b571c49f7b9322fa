"""Generator of the tables in docs/cube.md: ``python -m hephaestus_build.cube.schema_docs``."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from hephaestus_build.cube.group_tables import OVERVIEW
from hephaestus_build.cube.schema import Variable, cube_schema

_SHORT = {"primary_date": "primary", "secondary_date": "secondary", "latitude": "lat", "longitude": "lon"}


def _meaning(variable: Variable) -> str:
    attributes = variable.attributes
    text = attributes.get("long_name", "")
    if "flag_meanings" in attributes:
        meanings = attributes["flag_meanings"].split()
        flags = zip(attributes["flag_values"], meanings, strict=True)
        text += ": " + ", ".join(f"{value} {meaning}" for value, meaning in flags)
    if "comment" in attributes:
        text += f". {attributes['comment'][:1].upper()}{attributes['comment'][1:]}"
    return f"{text} (optional)" if variable.optional else text


def variable_table() -> str:
    """Return a Markdown table of the variables of the cube's root group."""
    return _table(cube_schema().variables.values())


def overview_table() -> str:
    """Return a Markdown table of the images of the group ``overview``."""
    variables = cube_schema().groups[OVERVIEW].variables.values()
    return _table(
        replace(variable, name=variable.name.removeprefix(f"{OVERVIEW}/"))
        for variable in variables
        if variable.layout == "overview"
    )


def _table(variables: Iterable[Variable]) -> str:
    lines = ["| variable | dims | dtype | unit | meaning |", "|---|---|---|---|---|"]
    for variable in variables:
        dims = ", ".join(_SHORT.get(dim, dim) for dim in variable.dims)
        unit = variable.attributes.get("units", "")
        unit = "" if "since" in unit else unit
        dtype = "datetime64" if variable.name == "era5_time" else variable.dtype
        lines.append(f"| {variable.name} | {dims} | {dtype} | {unit} | {_meaning(variable)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    print(variable_table(), overview_table(), sep="\n\n")
