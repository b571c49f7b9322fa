"""Files that pages are made of: the template, the style sheet, the scripts and the colour maps."""

from __future__ import annotations

from functools import cache
from importlib.resources import files


@cache
def read_asset(name: str) -> str:
    """Return the text of a file of this folder."""
    return (files(__name__) / name).read_text(encoding="utf-8")
