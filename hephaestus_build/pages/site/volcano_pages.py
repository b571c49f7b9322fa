"""The page of a volcano: all tracks that see it, ascending and descending side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import cos, radians

from hephaestus_build.core.plain_text import count_of
from hephaestus_build.pages.cards import day_text
from hephaestus_build.pages.colour_maps import load_colour_map
from hephaestus_build.pages.markup import Markup, fill_template, join, tag
from hephaestus_build.pages.site.index_page import SiteTotals
from hephaestus_build.pages.site.page_parts import (
    ICON,
    page_policy,
    picture_path,
    render_credits,
    simulated_badge,
    site_style,
)
from hephaestus_build.pages.site.site_values import SiteFrame, SiteVolcano

#: Degrees of latitude around a volcano that its pictures show, upwards and downwards.
REACH = 0.3
_PAIR_DAYS = (slice(0, 8), slice(9, 17))


def group_by_volcano(frames: Sequence[SiteFrame]) -> dict[str, tuple[SiteVolcano, list[SiteFrame]]]:
    """Return each volcano with the frames that see it, by the name of its page."""
    found: dict[str, tuple[SiteVolcano, list[SiteFrame]]] = {}
    for frame in frames:
        for volcano in frame.digest.volcanoes:
            found.setdefault(volcano.slug, (volcano, []))[1].append(frame)
    return dict(sorted(found.items()))


def render_volcano_page(volcano: SiteVolcano, frames: Sequence[SiteFrame], totals: SiteTotals) -> str:
    """Return the page of a volcano as HTML. It has no time of writing: it changes with its content alone.

    Parameters
    ----------
    volcano : SiteVolcano
        The volcano.
    frames : sequence of SiteFrame
        The frames that see it.
    totals : SiteTotals
        About the site.
    """
    style = site_style()
    simulated = any(frame.simulated for frame in frames)
    by_direction: Mapping[str, list[SiteFrame]] = {
        one: sorted((frame for frame in frames if frame.direction == one), key=lambda frame: frame.track)
        for one in ("ascending", "descending")
    }
    columns = [
        tag(
            "div",
            tag("h2", one.capitalize()),
            *(_track(frame, volcano) for frame in found),
            tag("p", f"No {one} track here sees it.", class_="quiet") if not found else "",
        )
        for one, found in by_direction.items()
    ]
    place = _place(volcano)
    return fill_template(
        "site_page.html",
        policy=page_policy(style),
        title=f"{volcano.name}{' (SIMULATED)' if simulated else ''}",
        icon=ICON,
        style=Markup(style),
        up="../index.html",
        kicker=f"Seen by {count_of(len(frames), 'track')}",
        heading=volcano.name,
        badge=simulated_badge(simulated=simulated),
        place=place,
        figure=Markup(""),
        content=join(_phase_scale(), tag("div", *columns, class_="tracks"), _note()),
        credits=render_credits(simulated=simulated),
        version=totals.version,
    )


def _place(volcano: SiteVolcano) -> str:
    north = f"{abs(volcano.latitude):.3f}° {'SN'[volcano.latitude >= 0]}"
    east = f"{abs(volcano.longitude):.3f}° {'WE'[volcano.longitude >= 0]}"
    height = f", {volcano.elevation} m" if volcano.elevation is not None else ""
    return f"{north}, {east}{height}"


def _track(frame: SiteFrame, volcano: SiteVolcano) -> Markup:
    facts = [
        f"newest acquisition {day_text(frame.newest)}" if frame.newest else "no interferogram yet",
        count_of(frame.pairs, "pair"),
        f"{frame.owed} owed" if frame.owed else "",
        frame.problem,
    ]
    name = f"Track {frame.track}, {frame.frame}"
    head = tag("a", name, href=f"../frames/{frame.frame}.html") if frame.page else name
    shots = [_shot(frame, pair, volcano) for pair in frame.digest.pictured]
    return tag(
        "section",
        tag("h2", head),
        tag("p", ", ".join(filter(None, facts)), class_="quiet"),
        tag("div", *shots, class_="shots") if shots else "",
        class_="card track",
    )


def _shot(frame: SiteFrame, pair: str, volcano: SiteVolcano) -> Markup:
    """Return the surroundings of the volcano in a pair's picture: one SVG whose units are degrees."""
    assert frame.digest.grid is not None
    west, north, width, height = frame.digest.grid
    squeeze = max(cos(radians(volcano.latitude)), 0.1)
    east = (volcano.longitude - west) % 360
    x, y = east * squeeze, north - volcano.latitude
    reach = min(REACH, height / 2, width * squeeze / 2)
    left = min(max(x - reach, 0.0), max(width * squeeze - 2 * reach, 0.0))
    top = min(max(y - reach, 0.0), max(height - 2 * reach, 0.0))
    days = " – ".join(_day(pair[one]) for one in _PAIR_DAYS)
    address = f"../frames/{frame.frame}.html#{pair}"
    ring = {"cx": f"{x:.4f}", "cy": f"{y:.4f}", "r": f"{reach * 0.045:.4f}", "class_": "summit"}
    image = tag(
        "image",
        href=f"../{picture_path(frame.frame, pair)}", width=f"{width * squeeze:.5f}", height=f"{height:.5f}",
        preserveAspectRatio="none",
    )  # fmt: skip
    view = f"{left:.4f} {top:.4f} {2 * reach:.4f} {2 * reach:.4f}"
    mask = _mask(frame, pair, width * squeeze, height)
    drawing = tag(
        "svg", image, mask, tag("circle", **ring), tag("circle", **ring), viewBox=view,
        role="img", aria_label=f"Wrapped phase around {volcano.name}, {days}",
    )  # fmt: skip
    stamp = tag("span", "SIMULATED", class_="stamp") if frame.simulated else ""
    seen = next((one for one in frame.digest.pairs if one.name == pair), None)
    words = [tag("small", days)]
    if seen is not None and seen.annotated:
        said = "deformation outlined by an expert" if seen.deformation else "an expert outlined nothing"
        words.append(tag("small", said, class_="alarm" if seen.deformation else ""))
    return tag(
        "div", tag("a", tag("div", drawing, stamp, class_="stamped"), *words, href=address), class_="shot"
    )


def _mask(frame: SiteFrame, pair: str, wide: float, tall: float) -> Markup:
    """Return the outline of the experts' mask, dark on a light edge; empty without one."""
    path, shape = frame.digest.outlines.get(pair), frame.digest.shape
    if not path or shape is None:
        return Markup("")
    name = f"mask-{frame.frame}-{pair}"
    scale = f"scale({wide / shape[1]:.8f} {tall / shape[0]:.8f})"
    lines = [tag("use", href=f"#{name}", class_="mask") for _ in range(2)]
    return join(tag("defs", tag("path", d=path, id=name, transform=scale, class_="outline")), *lines)


def _day(digits: str) -> str:
    return day_text(f"{digits[:4]}-{digits[4:6]}-{digits[6:]}")


def _phase_scale() -> Markup:
    """Return the legend of the phase."""
    colours = load_colour_map("romaO")[::16]
    stops = [
        tag("stop", offset=f"{place / len(colours):.3f}", stop_color=f"#{bytes(colour).hex()}")
        for place, colour in enumerate([*colours.tolist(), colours[0].tolist()])
    ]
    gradient = tag("linearGradient", *stops, id="turn")
    bar = tag(
        "svg", tag("defs", gradient), tag("rect", width=160, height=10, fill="url(#turn)"),
        viewBox="0 0 160 10", role="img", aria_label="Colours of one turn of phase",
    )  # fmt: skip
    return tag("p", "−π", bar, "π: one turn of phase, 2.8 cm along the line of sight", class_="turn")


def _note() -> Markup:
    return tag(
        "p",
        f"The newest pairs of each track, {2 * REACH:g} degrees of latitude across; the ring is where the "
        "catalogue has the volcano, the line what an expert outlined as deformation. Wrapped phase: known up "
        "to whole turns, so it is no displacement. Each picture opens its pair.",
        class_="note",
    )
