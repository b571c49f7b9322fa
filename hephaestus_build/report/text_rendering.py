"""Text of others in pictures: letter by letter, never as mathematics."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager

from hephaestus_build.core.plain_text import sanitize_text


def escape_mathtext(text: object, limit: int = 500) -> str:
    r"""Return `text` on one line as Matplotlib draws it: what lies between dollars is no formula.

    Examples
    --------
    >>> escape_mathtext("from $1 to $2_3\n")
    'from \\$1 to \\$2_3'
    """
    return sanitize_text(text, limit).replace("$", r"\$")


@contextmanager
def suppress_glyph_warnings() -> Iterator[None]:
    """Draw letters that the font lacks as boxes, without a warning for each."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        yield
