"""The words and tables of a page: figures at its top, and cards on the pair and on the frame."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from datetime import date

from hephaestus_build.core.frames import Frame
from hephaestus_build.core.plain_text import count_of
from hephaestus_build.pages.markup import Markup, join, tag
from hephaestus_build.pages.page_data import FramePage

_MOST_ROWS = 300  # of a table; the count says how many there are
_UNASKED = "No build has asked for this pair yet."


def list_volcanoes(page: FramePage, most: int) -> str:
    """Return the names of the frame's volcanoes, `most` of them."""
    names = [one.name for one in page.volcanoes]
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def build_command(page: FramePage) -> str:
    """Return the command that builds the frame; its id alone means a real one where it is no simulated id."""
    apart = page.simulated and not Frame(page.frame).is_simulated
    return f"hephaestus build {page.frame}{' --simulated' if apart else ''}"


def day_text(iso: str) -> str:
    """Return an ISO date for people.

    Examples
    --------
    >>> day_text("2020-11-06")
    '6 Nov 2020'
    """
    day = date.fromisoformat(iso)
    return f"{day.day} {day:%b %Y}"


def moment_text(text: str) -> str:
    """Return a time in ISO 8601, UTC, for people; empty for an empty text."""
    return f"{day_text(text[:10])}, {text[11:16]} UTC" if text else ""


def render_vitals(page: FramePage) -> Markup:
    """Return the figures at the top: latency, pairs, owed, gaps, generation."""
    states = Counter(pair.status for pair in page.pairs)
    stored = states["stored"] + states["gone"]
    found = []

    def vital(name: str, value: object, *small: object, kind: str = "") -> None:
        notes = [tag("small", note) for note in small if note]
        found.append(tag("div", tag("dt", name), tag("dd", tag("span", value, class_=kind), *notes)))

    if page.newest:
        written = (date.fromisoformat(page.written[:10]) - date.fromisoformat(page.newest)).days
        today = tag("span", data_since=page.newest, data_written=written)
        vital(
            "Newest acquisition",
            day_text(page.newest),
            f"{count_of(written, 'day')} before this was written",
            today,
        )
    else:
        vital("Newest acquisition", "none")
    absent = f"{states['absent']} absent in the archive" if states["absent"] else ""
    left = f"{page.unwanted} listed, not built" if page.unwanted else ""
    waiting = f"{count} not asked for yet" if (count := _count_unasked(page)) else ""
    vital(
        "Interferograms", stored, absent, left, waiting, f"{page.gone} no longer listed" if page.gone else ""
    )
    owed = sum(not item.accepted for item in page.owed)
    vital("Owed products", owed, "the next build fetches them" if owed else "", kind="amber" if owed else "")
    if page.gaps:
        longest = max(page.gaps, key=lambda gap: gap.days)
        vital(
            "Gaps",
            len(page.gaps),
            f"the longest {count_of(longest.days, 'day')}, from {day_text(longest.start)}",
        )
    else:
        vital("Gaps", "none")
    annotated = [pair for pair in page.pairs if pair.annotated]
    vital("Annotated", len(annotated), f"{sum(pair.deformation for pair in annotated)} with deformation")
    if page.generation is None:
        vital("Generation", "not published", kind="alarm")
    else:
        vital("Generation", page.generation or "a copy", moment_text(page.built))
    return join(*found)


def _card(title: str, *children: object) -> Markup:
    return tag("section", tag("h2", title), *children, class_="card")


def render_pair_cards(page: FramePage) -> Markup:
    """Return what follows the chosen pair; scripts fill it."""
    if page.pictures is None:
        return tag(
            "section", tag("h2", id="pair-name"), tag("p", id="pair-facts", class_="quiet"),
            tag("div", id="expert"), tag("div", id="provenance"),
            tag("p", _UNASKED, id="provenance-note", class_="note"),
            class_="card", id="chosen", hidden="hidden",
        )  # fmt: skip
    chooser = tag("label", "primary date ", Markup('<select id="primaries"></select>'))
    return join(
        _card(
            "Time series at the chosen point",
            tag("p", id="series-what"),
            tag(
                "div",
                Markup('<svg id="series" role="img" aria-label="Wrapped phase over time"></svg>'),
                class_="chart",
            ),
            tag("p", chooser, class_="chooser"),
            tag(
                "p",
                "Wrapped phase of the pairs of one primary date: known up to whole turns of 2.8 cm, so it is "
                "no displacement. Click a pixel, or press Enter on a picture, to choose the point. The more "
                "coherent the pixel, the fuller its dot.",
                class_="note",
            ),
        ),
        _card("What the expert wrote", tag("div", id="expert")),
        _card(
            "Where the shown pair comes from",
            tag("div", id="provenance"),
            tag("p", _UNASKED, id="provenance-note", class_="note"),
        ),
    )


def render_frame_cards(page: FramePage) -> Markup:
    """Return what is said of the frame as a whole: owed products, gaps, and facts."""
    cards = [_owed_card(page)]
    if page.gaps:
        rows = [
            (day_text(gap.start), day_text(gap.end), gap.days, "" if gap.spanned else "no pair spans it")
            for gap in page.gaps
        ]
        cards.append(_card("Gaps", _table(("from", "to", "days", ""), rows)))
    if page.generation is not None:
        cards.append(_card("Frame", _facts(page)))
    return join(*cards)


def _count_unasked(page: FramePage) -> int:
    """Return the number of wanted pairs that no build has asked for."""
    asked = {item.unit for item in page.owed}
    return sum(pair.status == "owed" and f"pair/{pair.name}" not in asked for pair in page.pairs)


def _owed_card(page: FramePage) -> Markup:
    if not page.owed:
        waiting = _count_unasked(page)
        said = (
            f"Nothing is owed of what was asked for; {count_of(waiting, 'pair')} of the listing not yet."
            if waiting
            else "Nothing is owed: all that the archives promise is here."
        )
        return _card("Owed", tag("p", said, class_="quiet"))
    rows = [
        (item.product, item.outcome, item.reason + (" (accepted)" if item.accepted else ""))
        for item in page.owed[:_MOST_ROWS]
    ]
    more = f"{len(page.owed)} in all. " if len(page.owed) > _MOST_ROWS else ""
    return _card(
        "Owed, and why",
        _table(("product", "outcome", "why"), rows),
        tag("p", more, tag("code", build_command(page)), " asks for them again.", class_="note"),
    )


def _table(heads: tuple[str, ...], rows: Sequence[Sequence[object]]) -> Markup:
    head = tag("tr", *(tag("th", name) for name in heads))
    body = [tag("tr", *(_cell(cell) for cell in row)) for row in rows]
    return tag("div", tag("table", tag("thead", head), tag("tbody", *body)), class_="scroll", tabindex="0")


def _cell(value: object) -> Markup:
    """Return a cell, not broken where it is short."""
    return tag("td", value, class_="whole") if len(str(value)) <= 14 else tag("td", value)


def _facts(page: FramePage) -> Markup:
    """Return alignment notes, geometry, ERA5's state and the archive's listing."""
    kinds = Counter(pair.alignment for pair in page.pairs if pair.alignment)
    facts = page.facts
    moved = [pair for pair in page.pairs if pair.alignment not in ("", "identical")]
    lines = {
        "Brought to the grid": ", ".join(f"{count} {kind}" for kind, count in kinds.most_common()),
        "Not as served": ", ".join(f"{pair.name} {pair.alignment}" for pair in moved[:20])
        + (f" and {len(moved) - 20} more" if len(moved) > 20 else ""),
        "ERA5": f"{count_of(page.preliminary, 'date')} preliminary"
        if page.preliminary
        else "all dates final or unstated",
        "Acquired about": _clock(str(facts["center_time"])) if "center_time" in facts else "",
        "Heading, incidence": _geometry(page),
        "Pixel": " x ".join(f"{size:.0f}" for size in facts.get("pixel_size_m", ())) + " m",
        "Listing last read": moment_text(page.listed),
        "Changed in the archive": count_of(page.changed, "product") if page.changed else "",
        "Geometry of the previews": facts.get("uncertain_geometry", ""),
        "Built by": f"hephaestus-build {facts.get('hephaestus_build_version', '')}",
        "Schema": facts.get("schema_version", ""),
    }
    pairs = [(tag("dt", name), tag("dd", value)) for name, value in lines.items() if value]
    known = tag("dl", *(part for both in pairs for part in both), class_="facts")
    sign = facts.get("sign_convention")
    more = tag("details", tag("summary", "Sign of the phase"), tag("p", sign, class_="note"))
    return join(known, more if sign else "")


def _clock(text: str) -> str:
    """Return a time of day to the minute."""
    parts = text.split(":")
    return f"{parts[0].zfill(2)}:{parts[1].zfill(2)} UTC" if len(parts) > 1 else text


def _geometry(page: FramePage) -> str:
    heading, incidence = (page.facts.get(name) for name in ("platform_heading_deg", "incidence_angle_deg"))
    parts = [f"{value:.1f}°" for value in (heading, incidence) if isinstance(value, int | float)]
    looks = page.facts.get("look_direction")
    return ", ".join(parts) + (f", looking {looks}" if looks and parts else "")
