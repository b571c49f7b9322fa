"""HTML from values: every text is escaped, only markup that was made here is not."""

from __future__ import annotations

import base64
import hashlib
import html
from string import Template

from hephaestus_build.pages.assets import read_asset


class Markup(str):
    """Text that is markup already."""

    __slots__ = ()


def escape(value: object) -> Markup:
    """Return a value as markup: texts escaped, markup as it is.

    Examples
    --------
    >>> escape("<b>"), escape(Markup("<b>"))
    ('&lt;b&gt;', '<b>')
    """
    return value if isinstance(value, Markup) else Markup(html.escape(str(value), quote=True))


def tag(name: str, *children: object, **attributes: object) -> Markup:
    """Return an element with its children.

    Parameters
    ----------
    name : str
        Name of the element.
    *children : object
        Texts, which are escaped, and markup.
    **attributes : object
        Values of attributes; underscores in names stand for hyphens, and one at the end is left out.

    Examples
    --------
    >>> tag("p", "a < b", tag("b", "c"), class_="x")
    '<p class="x">a &lt; b<b>c</b></p>'
    """
    given = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{escape(value)}"' for key, value in attributes.items()
    )
    return Markup(f"<{name}{given}>{join(*children)}</{name}>")


def hash_source(text: str) -> str:
    """Return how a content security policy names an inline script or style."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def join(*parts: object) -> Markup:
    """Return parts one after another, texts escaped."""
    return Markup("".join(map(escape, parts)))


def fill_template(template: str, /, **values: object) -> Markup:
    """Return the template of that name with its places filled; texts are escaped.

    Raises
    ------
    KeyError
        If a place of the template is not given.
    """
    return Markup(
        Template(read_asset(template)).substitute({key: escape(value) for key, value in values.items()})
    )
