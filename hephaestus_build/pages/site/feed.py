"""The Atom feed of new pairs."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from xml.etree import ElementTree

from hephaestus_build.core.web_address import HttpUrl
from hephaestus_build.pages.cards import day_text
from hephaestus_build.pages.site.site_values import SiteFrame

#: Entries of the feed.
MOST_ENTRIES = 200
_ATOM = "http://www.w3.org/2005/Atom"


def render_feed(
    frames: Sequence[SiteFrame],
    feed: str,
    *,
    base: HttpUrl | None,
    simulated: bool,
    version: str,
    written: str,
) -> bytes:
    """Return the feed as Atom (RFC 4287): an entry for each of the pairs that arrived last.

    Parameters
    ----------
    frames : sequence of SiteFrame
        All frames.
    feed : str
        Id of the feed, a UUID; those of entries follow from it.
    base : HttpUrl or None
        Address of the site, for absolute links; without it they are relative to the feed.
    simulated : bool
        Whether all of it is simulated.
    version : str
        Version of this program.
    written : str
        Time of writing, UTC, ISO 8601: that of a feed without entries.
    """
    found = sorted(
        ((pair.arrived, frame.frame, pair, frame) for frame in frames for pair in frame.digest.pairs),
        key=lambda item: (item[0], item[2].secondary, item[1], item[2].primary),
        reverse=True,
    )[:MOST_ENTRIES]
    root = ElementTree.Element(f"{{{_ATOM}}}feed")

    def add(parent: ElementTree.Element, name: str, text: str = "", **attributes: str) -> ElementTree.Element:
        made = ElementTree.SubElement(parent, f"{{{_ATOM}}}{name}", attributes)
        made.text = text or None
        return made

    def link(parent: ElementTree.Element, path: str, relation: str, kind: str) -> None:
        add(parent, "link", rel=relation, type=kind, href=str(base.child(path)) if base else path)

    mark = "SIMULATED: " if simulated else ""
    add(root, "title", f"{mark}new interferograms")
    add(root, "id", f"urn:uuid:{feed}")
    add(root, "updated", found[0][0] if found and found[0][0] else written)
    add(add(root, "author"), "name", "hephaestus-build")
    add(root, "generator", "hephaestus-build", version=version)
    link(root, "index.html", "alternate", "text/html")
    link(root, "atom.xml", "self", "application/atom+xml")
    for arrived, _, pair, frame in found:
        entry = add(root, "entry")
        names = ", ".join(one.name for one in frame.digest.volcanoes[:4])
        days = f"{day_text(pair.primary)} to {day_text(pair.secondary)}"
        badge = "SIMULATED: " if frame.simulated else ""
        add(entry, "title", f"{badge}{names or frame.frame}, {days}")
        add(entry, "id", f"urn:uuid:{uuid.uuid5(uuid.UUID(feed), f'{frame.frame}/{pair.name}')}")
        add(entry, "updated", arrived or written)
        link(entry, f"frames/{frame.frame}.html#{pair.name}", "alternate", "text/html")
        seen = ", annotated" + (" with deformation" if pair.deformation else "") if pair.annotated else ""
        add(
            entry,
            "summary",
            f"{badge}interferogram {pair.name} of frame {frame.frame}, {frame.direction}{seen}.",
            type="text",
        )
    ElementTree.register_namespace("", _ATOM)
    return bytes(ElementTree.tostring(root, encoding="utf-8", xml_declaration=True)) + b"\n"
