"""Rendering of untrusted text in Matplotlib figures, without mathtext."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager

from hephaestus_build.core.plain_text import sanitize_text


def escape_mathtext(text: object, limit: int = 500) -> str:
    r"""Return text that Matplotlib draws literally, on one line: dollar signs do not start a formula.

    Examples
    --------
    >>> escape_mathtext("from $1 to $2_3\n")
    'from \\$1 to \\$2_3'
    """
    return sanitize_text(text, limit).replace("$", r"\$")


@contextmanager
def suppress_glyph_warnings() -> Iterator[None]:
    """Suppress the warnings about glyphs that are missing from the font, which are drawn as boxes."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        yield
