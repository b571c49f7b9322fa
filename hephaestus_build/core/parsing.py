"""Parsers for untrusted JSON and YAML, with limits on size, nesting depth and integers."""

from __future__ import annotations

import codecs
import errno
import json
import os
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from hephaestus_build.core.plain_files import describe_file_type
from hephaestus_build.core.plain_text import sanitize_text

#: Maximum nesting depth of lists and mappings; ordinary documents have fewer than twenty levels.
MAX_DEPTH = 64
_DIGITS = 30
# longer marks first: UTF-32's begins with UTF-16's
_WIDE_MARKS = {
    codecs.BOM_UTF32_LE: "UTF-32",
    codecs.BOM_UTF32_BE: "UTF-32",
    codecs.BOM_UTF16_LE: "UTF-16",
    codecs.BOM_UTF16_BE: "UTF-16",
}
_JSON_BYTES, _YAML_BYTES = 256 << 20, 1 << 20
#: What YAML's reader raises of a value that it cannot make, such as a number of 5,000 digits.
_UNREADABLE = (ValueError, TypeError, LookupError, ArithmeticError, AttributeError)
#: What pydantic says of values of the wrong kind in words of Python, in words for people.
_PLAIN_REASONS = {
    "bool_parsing": "it must be true or false",
    "bool_type": "it must be true or false",
    "date_from_datetime_inexact": "it must be a day without a time, such as 2019-06-04",
    "dict_type": "it must have lines of `name: value`",
    "int_from_float": "it must be a whole number",
    "int_parsing": "it must be a whole number",
    "int_type": "it must be a whole number",
    "list_type": "it must be a list, such as [a, b]",
    "model_type": "it must have lines of `name: value`",
    "path_type": "it must be the path of a folder or a file",
    "string_type": "it must be text; a number or a date is text in quotes",
    "too_short": "it is empty",
    "tuple_type": "it must be a list, such as [a, b]",
}


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

    Aliases are rejected, since a few of them can expand to billions of values, and so is a key that appears
    twice, of which YAML's readers take the last.

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
        aliases, object tags or a key twice.
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
        loader = yaml.SafeLoader(text)
        if (node := loader.get_single_node()) is None:
            return None
        _check_keys(node)
        try:
            return loader.construct_document(node)
        except _UNREADABLE as error:
            why = str(error).partition(";")[0]  # not how Python is told to read it
            raise ValueError(
                f"it is not YAML: a value cannot be read ({why}){_where_unreadable(node)}"
            ) from None
    except (yaml.YAMLError, RecursionError) as error:
        problem = getattr(error, "problem", None) or str(error).partition("\n")[0]
        problem = problem.replace(r"character '\t' that", "a tab, where YAML takes spaces alone, that")
        mark = getattr(error, "problem_mark", None)
        where = f" in line {mark.line + 1}" if mark else ""
        raise ValueError(f"it is not YAML: {problem}{where}") from None


def _walk_nodes(root: Any) -> Iterator[Any]:
    """Yield all nodes of a YAML document."""
    import yaml

    pending = [root]
    while pending:
        yield (node := pending.pop())
        match node:
            case yaml.MappingNode(value=pairs):
                pending += [one for both in pairs for one in both]
            case yaml.SequenceNode(value=items):
                pending += items


def _check_keys(root: Any) -> None:
    """Raise ValueError if a mapping of a YAML document has a key twice."""
    import yaml

    for node in _walk_nodes(root):
        seen: set[str] = set()
        for key, _ in node.value if isinstance(node, yaml.MappingNode) else ():
            if isinstance(key, yaml.ScalarNode):
                if key.value in seen:
                    line = key.start_mark.line + 1
                    raise ValueError(f"it has {sanitize_text(key.value, 80)} twice, again in line {line}")
                seen.add(key.value)


def _where_unreadable(root: Any) -> str:
    """Return in which line a YAML document has a value that cannot be read, such as a day in month 13."""
    import yaml

    lines, loader = [], yaml.SafeLoader("")
    for node in _walk_nodes(root):
        if isinstance(node, yaml.ScalarNode):
            try:
                loader.construct_object(node)
            except _UNREADABLE:
                lines.append(node.start_mark.line + 1)
    return f" in line {min(lines)}" if lines else ""


def describe_invalid_value(found: Mapping[str, Any]) -> str:
    """Return why a value does not fit, in words for people.

    Parameters
    ----------
    found : mapping
        One of the errors that pydantic lists.

    Examples
    --------
    >>> describe_invalid_value({"type": "tuple_type", "msg": "Input should be a valid tuple"})
    'it must be a list, such as [a, b]'
    >>> describe_invalid_value({"type": "less_than_equal", "msg": "Input should be less than or equal to 8"})
    'it must be less than or equal to 8'
    """
    said = str(found["msg"]).removeprefix("Value error, ").replace("Input should be", "it must be")
    return _PLAIN_REASONS.get(found["type"], said)


def decode_utf8(content: bytes) -> str:
    """Decode UTF-8 text, with or without a byte order mark.

    Raises
    ------
    ValueError
        If it is not UTF-8, as UTF-16 is, in which some programs of Windows save text.
    """
    if wide := next((name for mark, name in _WIDE_MARKS.items() if content.startswith(mark)), ""):
        raise ValueError(f"it is {wide} text; save it as UTF-8")
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise ValueError(f"it is not UTF-8 text (line {line}); save it as UTF-8") from None
    if "\0" in text:
        raise ValueError("it contains null characters, as UTF-16 text does; save it as UTF-8 text")
    return text


def read_bounded(path: Path, limit: int) -> bytes:
    """Read a file of at most `limit` bytes; never wait for a pipe.

    Raises
    ------
    ValueError
        If the file is larger.
    OSError
        If it cannot be read.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    mode = os.fstat(descriptor).st_mode
    if not (stat.S_ISREG(mode) or stat.S_ISCHR(mode)):
        os.close(descriptor)
        raise OSError(errno.EINVAL, f"it is {describe_file_type(mode)}, not a file", str(path))
    with os.fdopen(descriptor, "rb") as stream:
        content = stream.read(limit + 1) or b""  # None where a terminal has nothing to read
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
