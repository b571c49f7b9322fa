"""Parsers for untrusted JSON and YAML, with limits on size, nesting depth and integers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

#: Maximum nesting depth of lists and mappings; ordinary documents have fewer than twenty levels.
MAX_DEPTH = 64
_DIGITS = 30
_JSON_BYTES, _YAML_BYTES = 256 << 20, 1 << 20


def parse_json(content: bytes | str, *, limit: int = _JSON_BYTES) -> Any:
    """Parse a JSON document.

    Parameters
    ----------
    content : bytes or str
        The document; bytes are UTF-8.
    limit : int
        Maximum size, bytes (characters of a string).

    Raises
    ------
    ValueError
        If it is not JSON, is larger than `limit`, is nested deeper than :data:`MAX_DEPTH` levels, or contains
        an integer with too many digits.
    """
    _check_size(len(content), limit)
    try:
        value = json.loads(content, parse_int=_integer)
    except RecursionError:
        raise _too_deep() from None
    check_depth(value)
    return value


def parse_yaml(text: str, *, limit: int = _YAML_BYTES) -> Any:
    """Parse a YAML document of plain values, without object tags and aliases.

    Aliases are rejected, since a few of them can expand to billions of values.

    Parameters
    ----------
    text : str
        The document.
    limit : int
        Maximum size, characters.

    Raises
    ------
    ValueError
        If it is not YAML, is larger than `limit`, is nested deeper than :data:`MAX_DEPTH` levels, or has
        aliases or object tags.
    """
    import yaml

    _check_size(len(text), limit)
    depth = 0
    try:
        for event in yaml.parse(text, Loader=yaml.SafeLoader):
            if isinstance(event, yaml.AliasEvent):
                raise ValueError("it has aliases (*name), which are not supported: write the value out")
            depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
            if depth > MAX_DEPTH:
                raise _too_deep()
        return yaml.safe_load(text)
    except (yaml.YAMLError, RecursionError) as error:
        problem = getattr(error, "problem", None) or str(error).partition("\n")[0]
        mark = getattr(error, "problem_mark", None)
        where = f" in line {mark.line + 1}" if mark else ""
        raise ValueError(f"it is not YAML: {problem}{where}") from None


def read_bounded(path: Path, limit: int) -> bytes:
    """Read a plain file of at most `limit` bytes.

    Raises
    ------
    ValueError
        If the file is larger.
    OSError
        If it cannot be read.
    """
    with path.open("rb") as stream:
        content = stream.read(limit + 1)
    _check_size(len(content), limit)
    return content


def _integer(digits: str) -> int:
    if len(digits) > _DIGITS:
        raise ValueError(f"it contains an integer of {len(digits)} digits")
    return int(digits)


def _check_size(size: int, limit: int) -> None:
    if size > limit:
        raise ValueError(f"it is larger than {limit} bytes")


def check_depth(value: Any) -> None:
    """Raise ValueError if lists and mappings are nested too deeply (checked without recursion)."""

    def nested(item: Any) -> bool:
        return isinstance(item, dict | list)

    level = [value] if nested(value) else []
    for _ in range(MAX_DEPTH):
        if not level:
            return
        inner: list[Any] = []
        for item in level:
            inner += filter(nested, item.values() if isinstance(item, dict) else item)
        level = inner
    if level:
        raise _too_deep()


def _too_deep() -> ValueError:
    return ValueError(f"it is nested deeper than {MAX_DEPTH} levels")
