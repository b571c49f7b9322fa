"""What the pages of a site have in common: style, policy, icon, navigation and credits."""

from __future__ import annotations

import base64
from collections.abc import Sequence

from hephaestus_build.pages.assets import read_asset
from hephaestus_build.pages.markup import Markup, hash_source, join, tag
from hephaestus_build.pages.site.site_values import SiteFrame

_RINGS = "".join(f'<circle cx="8" cy="8" r="{radius}"/>' for radius in (1.6, 4, 6.4))
_DRAWING = (
    '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 16 16"><rect width="16" height="16" rx="3" '
    f'fill="#1f5f8b"/><g fill="none" stroke="#f6ee9b" stroke-width="1.6">{_RINGS}</g></svg>'
)
#: An icon of fringes, inside the page.
ICON = f"data:image/svg+xml;base64,{base64.b64encode(_DRAWING.encode()).decode()}"


def site_style() -> str:
    """Return the style of the pages of a site."""
    return read_asset("page.css") + read_asset("site.css")


def page_policy(style: str, script: str = "") -> str:
    """Return the policy of a page: its own style and script, and pictures of the site alone."""
    scripts = f"script-src {hash_source(script)}; " if script else ""
    return (
        f"default-src 'none'; img-src data: 'self' file:; style-src {hash_source(style)}; {scripts}"
        "base-uri 'none'; form-action 'none'"
    )


def simulated_badge(*, simulated: bool) -> Markup:
    """Return the mark of a page of simulated data; empty of a real one."""
    return tag("span", "SIMULATED", class_="badge") if simulated else Markup("")


def render_credits(*, simulated: bool, coastlines: bool = True) -> Markup:
    """Return whom to credit for what a page draws; each page of a frame has the licences of its data."""
    said = (
        tag("p", "SIMULATED: nothing on this page was seen by a satellite.", class_="alarm")
        if simulated
        else tag("p", "Each frame's page says whom to credit for its data, and under which licence.")
    )
    land = "Coastlines: Natural Earth, public domain. " if coastlines else ""
    return join(said, tag("p", f"{land}Colours: Scientific colour maps by Fabio Crameri, MIT."))


def name_volcanoes(frame: SiteFrame, most: int) -> str:
    """Return the names of a frame's volcanoes, `most` of them."""
    return name_some([one.name for one in frame.digest.volcanoes], most)


def name_some(names: Sequence[str], most: int) -> str:
    """Return some names, and how many more there are.

    Examples
    --------
    >>> name_some(["Etna", "Stromboli", "Vulcano"], 2)
    'Etna, Stromboli and 1 more'
    """
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def picture_path(frame: str, pair: str) -> str:
    """Return where the picture of a pair stands in the site."""
    return f"pictures/{frame}_{pair}.png"
