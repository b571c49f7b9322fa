"""Parser of docs/json.md, and comparison of printed JSON with it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from checkout import ROOT

PAGE = ROOT / "docs" / "json.md"
_ROW = re.compile(r"\| (?:`(?P<key>[^`]+)`|\(the whole\)) \| (?P<type>[^|]+?) \| ?(?P<note>.*?) ?\|")
#: Names of the JSON types on the page.
_TYPES = {
    "text": lambda value: isinstance(value, str),
    "integer": lambda value: isinstance(value, int) and not isinstance(value, bool),
    "number": lambda value: isinstance(value, int | float) and not isinstance(value, bool),
    "boolean": lambda value: isinstance(value, bool),
    "null": lambda value: value is None,
    "object": lambda value: isinstance(value, dict),
    "list of objects": lambda value: isinstance(value, list) and all(isinstance(x, dict) for x in value),
    "list of text": lambda value: isinstance(value, list) and all(isinstance(x, str) for x in value),
    "list of integers": lambda value: isinstance(value, list) and all(map(_TYPES["integer"], value)),
    "list of numbers": lambda value: isinstance(value, list) and all(map(_TYPES["number"], value)),
}


@dataclass
class Answer:
    """Documentation of the JSON output of one command.

    Attributes
    ----------
    types : dict of str to tuple of str
        Types by key; ``[]`` stands for list elements, ``<name>`` for any key.
    optional : set of str
        Keys that the page marks with *only*.
    seen : set of str
        Keys found in outputs so far.
    """

    types: dict[str, tuple[str, ...]] = field(default_factory=dict)
    optional: set[str] = field(default_factory=set)
    seen: set[str] = field(default_factory=set)

    def compare(self, value: Any) -> list[str]:
        """Return the differences between an output and the page; add the keys found to :attr:`seen`."""
        return list(self._compare(value, ""))

    @property
    def unseen(self) -> set[str]:
        """Return the keys of the page that no output had."""
        return self.types.keys() - self.seen

    def _compare(self, value: Any, key: str) -> Iterator[str]:
        if key in self.types:
            self.seen.add(key)
            if not any(_TYPES[name](value) for name in self.types[key]):
                yield f"{key or 'the whole'} is {value!r}, not {' or '.join(self.types[key])}"
                return
        elif key and not key.endswith("[]"):
            yield f"{key} is not on the page"
            return
        if isinstance(value, list) and any(isinstance(item, dict) for item in value):
            for item in value:
                yield from self._compare(item, f"{key}[]")
        elif isinstance(value, dict):
            known = self._children(key)
            wild = [name for name in known if name.startswith("<")]
            for name, item in value.items():
                found = name if name in known or not wild else wild[0]
                yield from self._compare(item, f"{key}.{found}" if key else found)
            for name in known:
                full = f"{key}.{name}" if key else name
                if not name.startswith("<") and full not in self.optional and name not in value:
                    yield f"{full} is missing"

    def _children(self, key: str) -> list[str]:
        start = f"{key}." if key else ""
        rest = (name[len(start) :] for name in self.types if name.startswith(start) and name != key)
        return [name for name in rest if name and "." not in name and "[]" not in name]


def documented_answers() -> dict[str, Answer]:
    """Return the documented outputs, by command without ``hephaestus``."""
    answers: dict[str, Answer] = {}
    for line in PAGE.read_text(encoding="utf-8").splitlines():
        if line.startswith("## hephaestus "):
            current = answers.setdefault(line.removeprefix("## hephaestus "), Answer())
        elif answers and line.startswith("| ") and not line.startswith("| key |"):
            row = _ROW.fullmatch(line)
            assert row is not None, line
            key = row["key"] or ""
            assert key not in current.types, line
            current.types[key] = tuple(row["type"].split(" or "))
            assert set(current.types[key]) <= _TYPES.keys(), line
            if re.search(r"\bonly\b", row["note"]):
                current.optional.add(key)
    return answers
