"""Generator of the table in docs/cube.md: ``python -m hephaestus_build.cube.schema_docs``."""

from __future__ import annotations

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
    """Return a Markdown table of the cube's variables."""
    lines = ["| variable | dims | dtype | unit | meaning |", "|---|---|---|---|---|"]
    for variable in cube_schema().variables.values():
        dims = ", ".join(_SHORT.get(dim, dim) for dim in variable.dims)
        unit = variable.attributes.get("units", "")
        unit = "" if "since" in unit else unit
        dtype = "datetime64" if variable.name == "era5_time" else variable.dtype
        lines.append(f"| {variable.name} | {dims} | {dtype} | {unit} | {_meaning(variable)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    print(variable_table())
