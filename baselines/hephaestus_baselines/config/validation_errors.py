"""What a model of pydantic finds wrong, in one line."""

from __future__ import annotations

from pydantic import ValidationError

from hephaestus_build.core.parsing import describe_invalid_value
from hephaestus_build.core.plain_text import sanitize_text


def first_mistake(error: Exception, limit: int = 200) -> str:
    """Return the place and the message of the first mistake; of any other error its own words."""
    if not isinstance(error, ValidationError):
        return sanitize_text(error, limit)
    first = error.errors(include_url=False, include_input=False, include_context=False)[0]
    place = ".".join(map(str, first["loc"]))
    words = describe_invalid_value(first)
    return sanitize_text(f"{place}: {words}" if place else words, limit)
