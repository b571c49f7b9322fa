"""Points and boxes on the command line: numbers with commas between, as one word."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

from hephaestus_build.core.errors import UsageError

#: Forms of these options, as their help shows them, and an example of each.
DEGREE_FORMS = {"LAT,LON": "37.75,-25.5", "W,S,E,N": "-26,37,-25,38.5"}


def parse_degrees(option: str, text: str, form: str) -> tuple[float, ...]:
    """Return the numbers of an option such as ``37.75,15.0``, whose form is one of :data:`DEGREE_FORMS`."""
    numbers = _numbers(text)
    if len(numbers) != _count(form):
        raise UsageError(f"{option} {text} is not {form} in degrees; write {option} {DEGREE_FORMS[form]}")
    return numbers


def require_one_word(parameters: Iterable[Any], words: Sequence[str]) -> None:
    """Check that no point or box of a command line has blanks between its numbers.

    Parsers take what stands after a blank for an argument or, where it is negative, for an option.

    Parameters
    ----------
    parameters : iterable
        The parameters of the command.
    words : sequence of str
        What the user typed after the command.

    Raises
    ------
    UsageError
        If one has; the message says what to type.
    """
    forms = {name: form for one in parameters if (form := one.metavar) in DEGREE_FORMS for name in one.opts}
    for place, word in enumerate(words):
        option, _, first = word.partition("=")
        if option not in forms:
            continue
        form, taken = forms[option], 0
        found: list[str] = []
        for text in (*([first] if first else []), *words[place + 1 :]):
            if len(found) >= _count(form) or not (numbers := text.strip(",")) or not _numbers(numbers):
                break
            found += numbers.split(",")
            taken += 1
        if taken > 1:
            right = ",".join(found) if len(found) == _count(form) else DEGREE_FORMS[form]
            raise UsageError(f"{option} takes {form} as one word, without blanks; write {option} {right}")


def _count(form: str) -> int:
    return form.count(",") + 1


def _numbers(text: str) -> tuple[float, ...]:
    """Return numbers with commas between; none where any of them is no finite number."""
    try:
        numbers = tuple(float(part) for part in text.split(","))
    except ValueError:
        return ()
    return numbers if all(map(math.isfinite, numbers)) else ()
