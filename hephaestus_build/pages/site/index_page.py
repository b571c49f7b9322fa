"""The first page of a site: the map, the search, what is new, and all frames as a table."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any

from hephaestus_build.core.plain_text import count_of
from hephaestus_build.pages.assets import read_asset
from hephaestus_build.pages.cards import day_text, moment_text
from hephaestus_build.pages.markup import Markup, fill_template, join, tag
from hephaestus_build.pages.render import embed_json
from hephaestus_build.pages.site.page_parts import (
    ICON,
    name_volcanoes,
    page_policy,
    picture_path,
    render_credits,
    simulated_badge,
    site_style,
)
from hephaestus_build.pages.site.site_values import SiteFrame
from hephaestus_build.pages.site.world_map import choose_view, draw_footprint, enlarge_bounds, trace_land

#: Days since the newest acquisition, and numbers of owed products, up to which a colour stands.
LATENCY_EDGES, OWED_EDGES = (14, 30, 90, 365), (0, 9, 99, 999)
_MOST_NEWS = 8


@dataclass(frozen=True)
class SiteTotals:
    """What the pages of a site say of all of it.

    Attributes
    ----------
    simulated : bool
        Whether it is of simulated cubes.
    version, written : str
        Version of this program; time of writing, UTC, ISO 8601.
    """

    simulated: bool
    version: str
    written: str

    @property
    def today(self) -> date:
        """Day of writing, to which latencies are counted."""
        return date.fromisoformat(self.written[:10])


def render_index_page(
    frames: Sequence[SiteFrame], totals: SiteTotals, beside: Sequence[tuple[str, str]] = ()
) -> str:
    """Return the first page of a site as HTML.

    Parameters
    ----------
    frames : sequence of SiteFrame
        All frames, sorted.
    totals : SiteTotals
        About the site.
    beside : sequence of (str, str)
        Links to what else stands in the site's folder: paths, and what each is.
    """
    style, script = site_style(), _script()
    found = f"{count_of(len(frames), 'frame')}: click one, or type a name."
    return fill_template(
        "site_index.html",
        policy=page_policy(style, script),
        title=f"Interferograms of volcanoes{' (SIMULATED)' if totals.simulated else ''}",
        icon=ICON,
        style=Markup(style),
        script=Markup(script),
        heading="Interferograms of volcanoes",
        badge=simulated_badge(simulated=totals.simulated),
        vitals=_vitals(frames, totals),
        map=_map(frames, totals),
        legend=_legend(frames, totals),
        news=_news(frames),
        rows=_rows(frames, totals),
        found=found,
        more=_more(beside),
        credits=render_credits(simulated=totals.simulated),
        written=moment_text(totals.written),
        version=totals.version,
        data=embed_json(_data(frames, found)),
    )


def _script() -> str:
    parts = (read_asset(name).replace('"use strict";\n', "") for name in ("elements.js", "site_index.js"))
    return '"use strict";\n' + "\n".join(parts)


def _data(frames: Sequence[SiteFrame], found: str) -> dict[str, Any]:
    """Return what the script needs beside the markup."""
    volcanoes = {(one.name, one.slug): one for frame in frames for one in frame.digest.volcanoes}
    places = {key: place for place, key in enumerate(sorted(volcanoes))}
    return {
        "found": found,
        "latency": LATENCY_EDGES,
        "volcanoes": [
            {
                "name": name,
                "page": f"volcanoes/{slug}.html",
                "at": (volcanoes[name, slug].longitude, volcanoes[name, slug].latitude),
            }
            for name, slug in places
        ],
        "frames": [
            {
                "frame": frame.frame,
                "direction": frame.direction,
                "track": frame.track,
                "newest": frame.newest,
                "box": [round(edge, 2) for edge in frame.digest.bounds] if frame.digest.bounds else None,
                "volcanoes": [places[one.name, one.slug] for one in frame.digest.volcanoes],
            }
            for frame in frames
        ],
    }


def _vitals(frames: Sequence[SiteFrame], totals: SiteTotals) -> Markup:
    volcanoes = {one.slug for frame in frames for one in frame.digest.volcanoes}
    newest = max((frame.newest for frame in frames), default="")
    late = [days for frame in frames if (days := frame.latency(totals.today)) is not None]
    owed = sum(frame.owed for frame in frames)
    unbuilt = sum(frame.generation is None for frame in frames)
    middle = f"median latency {count_of(sorted(late)[len(late) // 2], 'day')}" if late else ""

    def vital(name: str, value: object, note: str = "", kind: str = "") -> Markup:
        small = [tag("small", note)] if note else []
        return tag("div", tag("dt", name), tag("dd", tag("span", value, class_=kind), *small))

    return join(
        vital("Frames", len(frames), f"{unbuilt} without a cube" if unbuilt else ""),
        vital("Volcanoes", len(volcanoes)),
        vital("Interferograms", f"{sum(frame.pairs for frame in frames):,}".replace(",", " ")),
        vital("Newest acquisition", day_text(newest) if newest else "none", middle),
        vital("Owed products", owed, "the next builds fetch them" if owed else "", "amber" if owed else ""),
    )


def latency_level(frame: SiteFrame, totals: SiteTotals) -> str:
    """Return the class of a frame's latency: ``a0`` to ``a4``; ``a`` where it has no interferogram."""
    days = frame.latency(totals.today)
    return "a" if days is None else f"a{sum(days > edge for edge in LATENCY_EDGES)}"


def owed_level(frame: SiteFrame) -> str:
    """Return the class of a frame's owed products: ``b0`` to ``b4``; ``b`` where it has no cube."""
    return "b" if frame.generation is None else f"b{sum(frame.owed > edge for edge in OWED_EDGES)}"


def _map(frames: Sequence[SiteFrame], totals: SiteTotals) -> Markup:
    placed = [(frame, frame.digest.bounds) for frame in frames if frame.digest.bounds is not None]
    view = choose_view([box for _, box in placed])
    shapes = []
    # small frames, and new ones, over large and old ones
    for frame, box in sorted(
        placed, key=lambda item: (-(item[1][2] - item[1][0]) * (item[1][3] - item[1][1]), item[0].newest)
    ):
        days = frame.latency(totals.today)
        said = (
            f"{count_of(days, 'day')} since {day_text(frame.newest)}"
            if days is not None
            else frame.problem or "no pair"
        )
        title = f"{frame.frame}, {name_volcanoes(frame, 5) or frame.direction}: {said}, {frame.owed} owed"
        rough = " rough" if frame.digest.approximate else ""
        shape = tag(
            "polygon", tag("title", title), id=f"shape-{frame.frame}",
            class_=f"{latency_level(frame, totals)} {owed_level(frame)}{rough}",
            points=draw_footprint(enlarge_bounds(box, view, len(placed)), frame.direction),
        )  # fmt: skip
        shapes.append(
            tag("a", shape, href=f"frames/{frame.frame}.html", aria_label=title)
            if frame.page
            else tag("g", shape)
        )
    return tag(
        "svg",
        tag("path", d=trace_land([box for _, box in placed]), class_="land"),
        *shapes,
        viewBox=" ".join(f"{edge:g}" for edge in view),
        role="group",
        aria_label=f"Map of {count_of(len(placed), 'frame')}; the table below has the same",
    )


def _legend(frames: Sequence[SiteFrame], totals: SiteTotals) -> Markup:
    levels = Counter(latency_level(frame, totals) for frame in frames)
    owed = Counter(owed_level(frame) for frame in frames)

    def key(kind: str, level: str, words: str, count: int) -> Markup:
        return tag("span", tag("i", class_=level), tag("span", f"{words}: ", tag("b", count)), class_=kind)

    days = [f"up to {LATENCY_EDGES[0]} days"]
    days += [f"to {edge}" for edge in LATENCY_EDGES[1:]] + [f"more than {LATENCY_EDGES[-1]}"]
    counts = ["nothing owed"]
    counts += [f"up to {edge}" for edge in OWED_EDGES[1:]] + [f"more than {OWED_EDGES[-1]}"]
    return tag(
        "p",
        *(key("by-latency", f"a{place}", words, levels[f"a{place}"]) for place, words in enumerate(days)),
        *(key("by-owed", f"b{place}", words, owed[f"b{place}"]) for place, words in enumerate(counts)),
        tag("span", tag("i"), tag("span", "no interferogram: ", tag("b", levels["a"]))),
        class_="legend",
    )


def _news(frames: Sequence[SiteFrame]) -> Markup:
    """Return the frames with the pairs that arrived last, each with its newest picture."""
    found = [frame for frame in frames if frame.page and frame.digest.pairs]
    found.sort(key=lambda one: (one.digest.pairs[0].arrived, one.digest.pairs[0].secondary), reverse=True)
    if not found:
        return tag("section", tag("h2", "What is new"), tag("p", "No interferogram yet."), class_="card")
    return tag(
        "section",
        tag("h2", "What is new"),
        tag("ul", *map(_news_item, found[:_MOST_NEWS]), class_="news"),
        tag("p", "Also as ", tag("a", "a feed", href="atom.xml"), ".", class_="note"),
        class_="card",
    )


def _news_item(frame: SiteFrame) -> Markup:
    digest, pair = frame.digest, frame.digest.pairs[0]
    name = name_volcanoes(frame, 2) or frame.frame
    days = f"{day_text(pair.primary)} – {day_text(pair.secondary)}"
    picture = next((one for one in (pair.name, *digest.pictured) if one in digest.pictured), "")
    image = (
        Markup(tag("img", src=picture_path(frame.frame, picture), alt=f"Wrapped phase of {name}, {picture}",
                   loading="lazy").removesuffix("</img>"))
        if picture
        else tag("span", class_="blank")
    )  # fmt: skip
    arrived = f"{count_of(digest.arrived, 'pair')} on {day_text(pair.arrived[:10])}" if pair.arrived else ""
    seen = tag("small", "deformation outlined by an expert", class_="alarm") if pair.deformation else ""
    words = [tag("b", name), tag("small", days), tag("small", f"{frame.direction}, {arrived}"), seen]
    return tag("li", tag("a", image, *words, href=f"frames/{frame.frame}.html#{pair.name}"))


def _rows(frames: Sequence[SiteFrame], totals: SiteTotals) -> Markup:
    heads = ("frame", "volcanoes", "direction", "newest", "latency", "pairs", "annotated", "owed", "")
    kinds = ("", "", "", "", "number", "number", "number", "number", "")
    body = []
    for frame in frames:
        days = frame.latency(totals.today)
        place = tag("i", class_=f"{latency_level(frame, totals)} {owed_level(frame)}")
        name = tag("a", frame.frame, href=f"frames/{frame.frame}.html") if frame.page else frame.frame
        volcanoes: list[object] = []
        for one in frame.digest.volcanoes[:6]:
            volcanoes += [", " if volcanoes else "", tag("a", one.name, href=f"volcanoes/{one.slug}.html")]
        if len(frame.digest.volcanoes) > 6:
            volcanoes.append(f" and {len(frame.digest.volcanoes) - 6} more")
        body.append(
            tag(
                "tr",
                tag("td", place, name),
                tag("td", *volcanoes, class_="wide"),
                tag("td", frame.direction),
                tag("td", frame.newest or "none"),
                tag("td", "" if days is None else f"{days} d", class_="number late"),
                *(tag("td", value, class_="number") for value in (frame.pairs, frame.annotated, frame.owed)),
                tag("td", frame.problem, class_="wide"),
                id=f"row-{frame.frame}",
            )
        )
    head = tag("tr", *(tag("th", name, class_=kind) for name, kind in zip(heads, kinds, strict=True)))
    return tag("table", tag("thead", head), tag("tbody", *body))


def _more(beside: Sequence[tuple[str, str]]) -> Markup:
    """Return links to the benchmark's tables and to the catalogue, where they are."""
    if not beside:
        return Markup("")
    links = [tag("p", tag("a", path, href=path), f": {what}") for path, what in beside]
    return tag("section", tag("h2", "Also here"), *links, class_="card")
