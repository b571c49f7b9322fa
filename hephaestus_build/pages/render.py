"""The HTML of a frame's page: one file that needs nothing else."""

from __future__ import annotations

import zlib
from math import cos, radians
from typing import Any

import msgspec

from hephaestus_build.core.bounds import wrap_longitude
from hephaestus_build.core.plain_text import count_of
from hephaestus_build.core.volcanoes import load_simulated_volcanoes
from hephaestus_build.pages.assets import read_asset
from hephaestus_build.pages.cards import (
    build_command,
    day_text,
    list_volcanoes,
    moment_text,
    render_frame_cards,
    render_pair_cards,
    render_vitals,
)
from hephaestus_build.pages.maps import RADIUS, draw_globe, draw_region
from hephaestus_build.pages.markup import Markup, fill_template, hash_source, join, tag
from hephaestus_build.pages.page_data import FramePage, FramePictures, PageGrid
from hephaestus_build.pages.pictures import Picture, to_base64

#: Scripts of a page, in the order in which they are joined.
SCRIPTS = ("decode_png.js", "elements.js", "panels.js", "network.js", "series.js", "page.js")


def render_frame_page(page: FramePage, navigation: Markup | None = None, full: str = "") -> str:
    """Return the page of a frame as HTML.

    Parameters
    ----------
    page : FramePage
        What it shows.
    navigation : Markup, optional
        Links to other pages, at its top, where the page is part of a site.
    full : str
        Address of what shows a pair at full resolution, with parameters after its ``#``; empty without.
    """
    style = read_asset("page.css")
    if page.pictures is not None:
        style += _proportions(page.pictures.grid)
    script = "\n".join(read_asset(name).replace('"use strict";\n', "") for name in SCRIPTS)
    script = f'"use strict";\n{script}'
    simulated = tag("span", "SIMULATED", class_="badge") if page.simulated else ""
    return fill_template(
        "page.html",
        policy=_policy(style, script),
        title=" ".join(
            [page.frame, *(["(SIMULATED)"] if page.simulated else []), list_volcanoes(page, 3)]
        ).strip(),
        navigation=navigation or Markup(""),
        kicker=f"Track {page.facts['track']}, {page.facts['direction']}",
        frame=page.frame,
        badge=simulated,
        volcanoes=list_volcanoes(page, 12)
        or ("no volcano of the catalogue in this frame" if page.bounds else "where it lies is not known yet"),
        vitals=render_vitals(page),
        maps=_map(page),
        viewer=join(_viewer(page, full), _network(page)),
        columns="" if page.pictures is not None else "single",
        pair_cards=render_pair_cards(page),
        frame_cards=render_frame_cards(page),
        credits=_credits(page),
        written=moment_text(page.written),
        version=page.version,
        style=Markup(style),
        data=embed_json(_pack_provenance(page)),
        script=Markup(script),
    )


def _pack_provenance(page: FramePage) -> dict[str, Any]:
    """Return a page as JSON values, with the products of its pairs and dates compressed."""
    values: dict[str, Any] = msgspec.to_builtins(page)
    products = {
        kind: {one[key]: one.pop("products") for one in values[kind]}
        for kind, key in (("pairs", "name"), ("dates", "day"))
    }
    return {**values, "provenance": to_base64(zlib.compress(msgspec.json.encode(products), 9))}


def embed_json(value: object) -> Markup:
    r"""Return a value as JSON that stands inside a script element, whatever texts it holds.

    Examples
    --------
    >>> embed_json({"a": "</script>"})
    '{"a":"\\u003c/script\\u003e"}'
    """
    text = msgspec.json.encode(value).decode()
    for letter in "<>&\u2028\u2029":
        text = text.replace(letter, f"\\u{ord(letter):04x}")
    return Markup(text)


def _policy(style: str, script: str) -> str:
    """Return the policy that lets a page load nothing, and run nothing but its own script."""
    return (
        f"default-src 'none'; img-src data:; style-src {hash_source(style)}; "
        f"script-src {hash_source(script)}; base-uri 'none'; form-action 'none'"
    )


def _proportions(grid: PageGrid) -> str:
    """Return the style of panels in the proportions of the ground; slender frames stay on the screen."""
    ratio = _width_over_height(grid)
    return f".view {{ aspect-ratio: {ratio:.4f}; width: min(100%, calc(82vh * {ratio:.4f})); }}\n"


def _width_over_height(grid: PageGrid) -> float:
    """Return the proportions of the ground that a grid covers."""
    middle = grid.north - grid.height * grid.dy / 2
    return grid.width * grid.dx * cos(radians(middle)) / (grid.height * grid.dy)


def _map(page: FramePage) -> Markup:
    """Return the maps: the land and the volcanoes around the frame, and the Earth from above it."""
    if page.bounds is None:
        return Markup("")
    return tag("div", _region(page, page.bounds), _globe(page.bounds), class_="maps")


def _region(page: FramePage, bounds: tuple[float, float, float, float]) -> Markup:
    own = {one.name for one in page.volcanoes}
    paths = draw_region(bounds, load_simulated_volcanoes() if page.simulated else None)
    left, top, wide, tall = paths.box
    size = wide / 60
    marks = []
    for x, y, volcano in sorted(paths.volcanoes, key=lambda one: one[2].name in own):
        points = f"M{x:.2f} {y - size:.2f}l{size:.2f} {1.8 * size:.2f}h{-2 * size:.2f}z"
        kind = "volcano own" if volcano.name in own else "volcano"
        marks.append(tag("path", tag("title", volcano.name), d=points, class_=kind))
    drawing = tag(
        "svg",
        tag("rect", x=left, y=top, width=wide, height=tall, class_="sea"),
        tag("path", d=paths.land, class_="land"),
        tag("path", d=paths.frame, class_="frame rough" if page.approximate else "frame"),
        *marks,
        viewBox=f"{left:.3f} {top:.3f} {wide:.3f} {tall:.3f}",
        role="img",
        aria_label=f"The frame with the land and the volcanoes around it: {list_volcanoes(page, 12)}",
    )
    words = f"{round(wide * 111.2)} km across" + (", the frame as its id says" if page.approximate else "")
    return tag("figure", drawing, tag("figcaption", words), class_="region")


def _globe(bounds: tuple[float, float, float, float]) -> Markup:
    paths = draw_globe(bounds)
    west, south, east, north = bounds
    place = f"{_degrees((south + north) / 2, 'NS')} {_degrees(wrap_longitude((west + east) / 2), 'EW')}"
    reach = RADIUS + 2
    drawing = tag(
        "svg",
        tag("circle", r=RADIUS, class_="sea"),
        tag("path", d=paths.land, class_="land"),
        tag("path", d=paths.graticule, class_="graticule"),
        tag("path", d=paths.frame, class_="frame"),
        viewBox=f"{-reach} {-reach} {2 * reach} {2 * reach}",
        role="img",
        aria_label=f"The Earth from above the frame, at {place}",
    )
    return tag("figure", drawing, tag("figcaption", place), class_="globe")


def _degrees(value: float, letters: str) -> str:
    return f"{abs(value):.1f}° {letters[value < 0]}"


def _viewer(page: FramePage, full: str) -> Markup:
    pictures = page.pictures
    if pictures is None:
        words = "No interferogram is stored yet, so there are no pictures."
        todo = tag("code", build_command(page))
        return tag(
            "section", tag("h2", "No pictures"), tag("p", words, " ", todo, " fetches them."), class_="viewer"
        )
    shown = next(pair for pair in page.pairs if pair.name == page.shown)
    names = list(pictures.pairs)
    predicted = any(one.probability for one in pictures.pairs.values())
    toggle = tag(
        "label", Markup('<input type="checkbox" id="toggle-probability">'), " the model's probability"
    )
    dot = Markup("&middot;")
    return fill_template(
        "viewer.html",
        first=f"{day_text(shown.primary)} – {day_text(shown.secondary)}",
        dot=dot,
        probability_key=join(" ", dot, " ", tag("kbd", "P"), " probability") if predicted else "",
        probability_toggle=toggle if predicted else "",
        shape="six" if predicted else "tall" if _width_over_height(pictures.grid) < 0.6 else "five",
        panels=_panels(page, pictures, predicted, full),
        last=len(names) - 1,
        place=names.index(page.shown),
        scale_note=_scale_note(page, pictures),
    )


def _panels(page: FramePage, pictures: FramePictures, predicted: bool, full: str) -> Markup:
    shown = pictures.pairs[page.shown]
    vapour = [float(edge) for edge in pictures.vapour_range] if pictures.vapour_range else None
    low, high = (f"{edge:.0f}" for edge in vapour) if vapour else ("", "")
    bottom, top = (f"{edge:.0f} m" for edge in pictures.height_range) if pictures.height_range else ("", "")
    unit = " kg m⁻²"
    stamp = tag("span", "SIMULATED", class_="stamp") if page.simulated else ""
    panels = [
        _panel("phase", "Wrapped phase", "−π", "π", shown.phase, stamp, full),
        _panel("coherence", "Coherence", "0", "1", shown.coherence, full=full),
        _panel("height", "Height", bottom, top, pictures.relief),
        _panel("primary", "Water vapour", low, high + unit if high else "", None),
        _panel("secondary", "Water vapour", low, high + unit if high else "", None),
    ]
    if predicted:
        panels.insert(1, _panel("probability", "Model's probability", "0", "1", shown.probability))
    return join(*panels)


def _panel(
    name: str, title: str, low: str, high: str, picture: Picture | None, stamp: object = "", full: str = ""
) -> Markup:
    """Return a panel, with its picture where one stands in the page without a script."""
    link = tag("a", "full resolution", href=f"{full}&layer={name}", class_="full") if full else ""
    source = Markup(f'src="data:image/png;base64,{picture.png}"') if picture else Markup("hidden")
    return fill_template(
        "panel.html", name=name, title=title, low=low, high=high, source=source, stamp=stamp, full=link
    )


def _scale_note(page: FramePage, pictures: FramePictures) -> str:
    grid = pictures.grid
    wide, tall = (round(size * grid.step) for size in page.facts.get("pixel_size_m", (0, 0)))
    stored = sum(pair.status in ("stored", "gone") for pair in page.pairs)
    overview = (
        "these are the bytes of the cube's overview"
        if grid.overview_step == 1
        else f"of the cube's overview, one of {grid.overview_step} x {grid.overview_step}, for a small page"
    )
    steps = "phase in 254 steps of 0.025 rad, coherence in 255, heights in metres, water vapour in 254 steps"
    parts = [
        f"One pixel of {grid.step} x {grid.step} of the cube, {wide} x {tall} m apart: {overview}.",
        "Nothing is averaged.",
        f"Quantised: {steps} of the range shown.",
        "One turn of phase is 2.8 cm along the line of sight; positive is a longer path on the later date.",
        f"{len(pictures.pairs)} of {count_of(stored, 'pair')} have pictures here.",
    ]
    if pictures.model:
        known = {name.replace("_", " "): value for name, value in pictures.model.items() if value != "False"}
        about = ", ".join(f"{name} {value}".removesuffix(" True") for name, value in known.items())
        parts.append(f"Probabilities are a model's own, not calibrated, in 254 steps ({about}).")
    return " ".join(parts)


def _network(page: FramePage) -> Markup:
    """Return the section of the pair network; empty while no pair is known."""
    return Markup(read_asset("network.html")) if page.pairs else Markup("")


def _credits(page: FramePage) -> Markup:
    lines = [tag("p", line) for line in page.credits]
    if page.simulated:
        lines.append(tag("p", "SIMULATED: nothing on this page was seen by a satellite.", class_="alarm"))
    note = "Coastlines: Natural Earth, public domain. Colours: Scientific colour maps by Fabio Crameri, MIT."
    return join(*lines, tag("p", note))
