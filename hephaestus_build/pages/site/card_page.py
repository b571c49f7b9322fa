"""The data card as a page of the site, from the Markdown that ``hephaestus catalog`` writes."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath

from markdown_it import MarkdownIt
from markdown_it.token import Token

from hephaestus_build.core.plain_files import read_plain_file
from hephaestus_build.pages.markup import Markup, fill_template, tag
from hephaestus_build.pages.site.index_page import SiteTotals
from hephaestus_build.pages.site.page_parts import (
    ICON,
    page_policy,
    render_credits,
    simulated_badge,
    site_style,
)

#: Where the data card may stand in the folder of a site.
CARD_PLACES = ("catalog/README.md", "README.md")
_MAX_BYTES = 2 << 20
_FRONT_MATTER = re.compile(r"\A---\n(.*?\n)---\n", re.DOTALL)
_ELSEWHERE = re.compile(r"[a-z][a-z0-9+.-]*:|/|#", re.IGNORECASE)


def read_card(folder: Path) -> tuple[str, str] | None:
    """Return the place of the data card in the folder of a site, and its Markdown; None where there is none.

    A ``README.md`` without the YAML in front that data cards have is that of something else.
    """
    for place in CARD_PLACES:
        try:
            text = read_plain_file(folder, place, _MAX_BYTES).decode("utf-8").replace("\r\n", "\n")
        except (OSError, ValueError):
            continue
        matter = _FRONT_MATTER.match(text)
        if matter is not None and "\npretty_name:" in f"\n{matter[1]}":
            return place, text[matter.end() :]
    return None


def render_card_page(place: str, text: str, totals: SiteTotals) -> str:
    """Return the data card as a page, in HTML; what is HTML in it is shown as text, and no picture is loaded.

    Parameters
    ----------
    place : str
        Where the card stands in the folder of the site: its links are from there.
    text : str
        Its Markdown.
    totals : SiteTotals
        About the site.
    """
    reader = MarkdownIt("commonmark", {"html": False}).enable("table").disable("image")
    tokens = reader.parse(text)
    heading = "Data card"
    if len(tokens) > 2 and tokens[0].tag == "h1":
        heading, tokens = tokens[1].content, tokens[3:]
    for token in _walk(tokens):
        token.attrs.pop("style", None)  # a policy without inline styles
        if token.type == "link_open":
            address = str(token.attrs.get("href", ""))
            if not _ELSEWHERE.match(address):
                token.attrs["href"] = str(PurePosixPath(place).parent / address)
            token.attrs["rel"] = "noreferrer noopener"
    body = reader.renderer.render(tokens, reader.options, {})
    body = body.replace("<table>", '<div class="scroll" tabindex="0"><table>')
    style = site_style()
    return fill_template(
        "site_page.html",
        policy=page_policy(style),
        title=heading,
        icon=ICON,
        style=Markup(style),
        up="index.html",
        kicker="Data card",
        heading=heading,
        badge=simulated_badge(simulated=totals.simulated),
        place="What the data set holds, how it may be used, and what is known to be wrong with it",
        figure=Markup(""),
        content=tag("section", Markup(body.replace("</table>", "</table></div>")), class_="card prose"),
        credits=render_credits(simulated=totals.simulated),
        version=totals.version,
    )


def _walk(tokens: Iterable[Token]) -> Iterator[Token]:
    for token in tokens:
        yield token
        yield from _walk(token.children or ())
