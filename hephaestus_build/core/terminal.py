"""Terminal output, logs and JSON that are safe for untrusted text, without markup and control characters."""

from __future__ import annotations

import json
import logging
import math
import os
import re
import warnings
from collections.abc import Iterable
from typing import Any

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment
from rich.text import Text

from hephaestus_build.core.machine.environment import discard_unusable_size
from hephaestus_build.core.plain_text import REPLACEMENT_CHARACTER, sanitize_text

_LONGEST = 20_000  # maximum length of a log record, characters; a traceback is part of one
# Characters that json does not escape: C1 controls, bidirectional and other invisible ones, surrogates.
_NOT_ASCII = re.compile(r"[\x7f-\U0010ffff]")


class PlainConsole(Console):
    """A rich console that prints text without markup, highlighting, or control characters of the text."""

    def __init__(self, **options: Any) -> None:
        discard_unusable_size(os.environ)  # rich would print nothing, or fail
        super().__init__(**{"markup": False, "emoji": False, "highlight": False, **options})

    def render_str(self, text: str, **options: Any) -> Text:
        """Convert a string to sanitized text, before the width of a cell is measured."""
        return super().render_str(_replace_control_characters(text), **options)

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """Render an object into segments, and remove control characters from text segments."""
        for segment in super().render(renderable, options):
            text, style, control = segment
            yield (
                segment
                if control or text == "\n" or text.isprintable()
                else Segment(_replace_control_characters(text), style)
            )


def _replace_control_characters(text: str) -> str:
    return "".join(
        char if char.isprintable() or char == "\n" else " " if char.isspace() else REPLACEMENT_CHARACTER
        for char in text
    )


class PlainFormatter(logging.Formatter):
    """Formatter that writes each log record, including its traceback, on one sanitized line."""

    def format(self, record: logging.LogRecord) -> str:
        """Format a record."""
        return sanitize_text(super().format(record), _LONGEST)


def configure_logging(level: int) -> None:
    """Write log records and Python's warnings to standard error, one line each."""
    handler = logging.StreamHandler()
    handler.setFormatter(PlainFormatter("%(levelname)s %(name)s: %(message)s"))
    logging.basicConfig(level=level, handlers=[handler])
    logging.captureWarnings(True)
    # ignored here as well: threads that suppress it concurrently restore each other's filters
    warnings.filterwarnings("ignore", message="Numcodecs codecs are not in the Zarr version 3")


def json_text(value: Any, indent: int | None = 2) -> str:
    r"""Return `value` as strict JSON with invisible characters escaped and other non-ASCII letters kept.

    NaN and infinities become null.

    Examples
    --------
    >>> json_text("Piton é\u202e\x9b", indent=None)
    '"Piton é\\u202e\\u009b"'
    >>> json_text({"highest": float("nan")}, indent=None)
    '{"highest": null}'
    """
    text = json.dumps(_finite(value), indent=indent, default=str, ensure_ascii=False, allow_nan=False)
    return _NOT_ASCII.sub(_escaped, text)


def _finite(value: Any) -> Any:
    """Return `value` with every non-finite float replaced by None, at any depth."""
    match value:
        case float():
            return value if math.isfinite(value) else None
        case dict():
            return {key: _finite(item) for key, item in value.items()}
        case list() | tuple():
            return [_finite(item) for item in value]
    return value


def _escaped(match: re.Match[str]) -> str:
    character = match[0]
    if character.isprintable():
        return character
    return f"\\u{ord(character):04x}" if ord(character) < 1 << 16 else json.dumps(character)[1:-1]


def sanitize_lines(text: str) -> str:
    """Return multi-line text without control characters other than line ends."""
    return _replace_control_characters(text.expandtabs(4))
