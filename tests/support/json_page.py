"""The JSON that commands print, by schemas/commands.json: strict validation, and the tables of docs/json.md.

``python tests/support/json_page.py`` writes the tables of the page again; descriptions stand in the schema.
"""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

from jsonschema import Draft202012Validator

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "json.md"
_REFERENCE = "#/$defs/"
_COMMAND = "hephaestus "


@cache
def command_schema() -> dict[str, Any]:
    """Return the parsed schemas/commands.json."""
    return json.loads((ROOT / "schemas" / "commands.json").read_text(encoding="utf-8"))


def described_commands() -> list[str]:
    """Return the commands of the schema, without ``hephaestus``."""
    names = command_schema()["$defs"]
    return [name.removeprefix(_COMMAND) for name in names if name.startswith(_COMMAND)]


def differences(command: str, answer: Any, *, partial: bool = False) -> list[str]:
    """Return where an answer is not as the schema says; keys that it does not know differ too.

    Parameters
    ----------
    command : str
        Without ``hephaestus``.
    answer : object
        What it printed, parsed.
    partial : bool
        Whether keys may be left out, as in an example.
    """
    schema = copy.deepcopy(command_schema())
    for part in _walk(schema):
        if "properties" in part:
            part["additionalProperties"] = False
            if partial:
                part["required"] = []
    whole = {"$defs": schema["$defs"], "$ref": f"{_REFERENCE}{_COMMAND}{command}"}
    return [
        f"{error.json_path}: {error.message}" for error in Draft202012Validator(whole).iter_errors(answer)
    ]


def keys_of(command: str) -> set[str]:
    """Return the keys that the schema describes for a command, such as ``frames[].frame``."""
    return {key for key, _ in _rows(command_schema()["$defs"][f"{_COMMAND}{command}"], inline=True)}


def keys_in(command: str, answer: Any) -> set[str]:
    """Return the described keys that an answer has."""
    return set(_found(command_schema()["$defs"][f"{_COMMAND}{command}"], answer, ""))


def rewritten(page: str) -> str:
    """Return the page with the tables that follow from the schema."""
    sections = re.split(r"^(?=## )", page, flags=re.MULTILINE)
    text = "".join([sections[0], *map(_rewritten_section, sections[1:])])
    return text.rstrip("\n") + "\n"


def examples() -> Iterator[tuple[str, Any]]:
    """Yield the page's examples, by command; ``...`` stands for what is left out."""
    for section in re.split(r"^## ", PAGE.read_text(encoding="utf-8"), flags=re.MULTILINE)[1:]:
        title = section.partition("\n")[0]
        for block in re.findall(r"```json\n(.*?)```", section, re.DOTALL):
            yield title.removeprefix(_COMMAND), _without_dots(json.loads(block))


def _rewritten_section(section: str) -> str:
    heading, _, rest = section.partition("\n")
    name = heading.removeprefix("## ")
    if name not in command_schema()["$defs"]:
        return section
    example = rest[rest.index("```json") :] if "```json" in rest else ""
    schema = command_schema()["$defs"][name]
    text = f"{schema['description']}\n\n" if "description" in schema else ""
    if "$ref" in schema:
        table = f"It has the keys of [{_target(schema)}](#{_anchor(schema)}).\n"
    else:
        lines = [f"| `{key}` | {_type_text(part)} | {_note(part)} |" for key, part in _rows(schema)]
        table = "\n".join(["| key | type | |", "|---|---|---|", *lines]).replace("|  |", "| |") + "\n"
    return f"{heading}\n\n{text}{table}\n{example}"


def _rows(schema: dict[str, Any], key: str = "", *, inline: bool = False) -> Iterator[tuple[str, Any]]:
    """Yield key and schema of everything in an object; with `inline` also of the shared objects in it."""
    if inline:
        schema = _resolved(schema)
    if schema.get("type") == "array":
        yield from _rows(schema["items"], f"{key}[]", inline=inline)
    dot = f"{key}." if key else ""
    for name, part in schema.get("properties", {}).items():
        yield f"{dot}{name}", part
        yield from _rows(part, f"{dot}{name}", inline=inline)
    if isinstance(part := schema.get("additionalProperties"), dict):
        name = f"{dot}<{schema['propertyNames']['title']}>"
        yield name, part
        yield from _rows(part, name, inline=inline)


def _found(schema: dict[str, Any], value: Any, key: str) -> Iterator[str]:
    schema = _resolved(schema)
    if isinstance(value, list):
        for item in value:
            yield from _found(schema.get("items", {}), item, f"{key}[]")
    elif isinstance(value, dict):
        dot = f"{key}." if key else ""
        for name, item in value.items():
            part = schema.get("properties", {}).get(name)
            full = f"{dot}{name}"
            if part is None:
                part, full = schema["additionalProperties"], f"{dot}<{schema['propertyNames']['title']}>"
            yield full
            yield from _found(part, item, full)


def _walk(schema: Any) -> Iterator[dict[str, Any]]:
    if isinstance(schema, dict):
        yield schema
        for part in schema.values():
            yield from _walk(part)


def _resolved(schema: dict[str, Any]) -> dict[str, Any]:
    if "anyOf" in schema:
        schema = schema["anyOf"][0]
    return _resolved(command_schema()["$defs"][_target(schema)]) if "$ref" in schema else schema


def _target(schema: dict[str, Any]) -> str:
    return str(schema["$ref"]).removeprefix(_REFERENCE)


def _anchor(schema: dict[str, Any]) -> str:
    return _target(schema).replace(" ", "-")


def _type_text(schema: dict[str, Any]) -> str:
    """Return the type of a value in words."""
    if "anyOf" in schema:
        return " or ".join(map(_type_text, schema["anyOf"]))
    if "$ref" in schema:
        shared = command_schema()["$defs"][_target(schema)]
        return f"[{_target(schema)}](#{_anchor(schema)})" if "properties" in shared else _target(schema)
    if "enum" in schema:
        return "text"
    if schema.get("type") == "array":
        inner = _type_text(schema["items"])
        return f"list of {inner if inner.startswith('[') or inner == 'text' else f'{inner}s'}"
    kinds = schema.get("type", "any")
    words = kinds if isinstance(kinds, list) else [kinds]
    return " or ".join("text" if word == "string" else str(word) for word in words)


def _note(schema: dict[str, Any]) -> str:
    words = schema.get("enum") or ()
    listed = ", ".join(f"`{word}`" for word in words)
    return "; ".join(filter(None, [listed, schema.get("description", "")]))


def _without_dots(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _without_dots(item) for name, item in value.items() if "..." not in (name, item)}
    return [_without_dots(item) for item in value if item != "..."] if isinstance(value, list) else value


if __name__ == "__main__":
    PAGE.write_text(rewritten(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
