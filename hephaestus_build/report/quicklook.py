"""Quicklook of a cube: one pair's phase, coherence, terrain and water vapour, and the network of pairs."""

from __future__ import annotations

import io
import textwrap
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import xarray as xr
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from hephaestus_build.core.atomic_io import translate_os_errors, write_atomic
from hephaestus_build.core.errors import UsageError
from hephaestus_build.core.frames import Frame, Pair
from hephaestus_build.core.plain_text import count_of
from hephaestus_build.cube.plain_attributes import split_texts
from hephaestus_build.cube.reading.dataset import open_pinned_cube
from hephaestus_build.report.map_axes import draw_map_frame, ground_ratio
from hephaestus_build.report.panels import (
    draw_coherence,
    draw_outlines,
    draw_pair_network,
    draw_phase,
    draw_terrain,
    draw_vapour,
)
from hephaestus_build.report.quicklook_data import (
    QuicklookData,
    newest_pair,
    read_pair_network,
    read_quicklook_data,
)
from hephaestus_build.report.style import ALARM, GREY, INK
from hephaestus_build.report.text_rendering import escape_mathtext, suppress_glyph_warnings

_DPI = 130
#: Inches: outer margins, gap between the small maps, space for a colour bar, minimum width of the page.
_LEFT, _RIGHT, _TOP, _GAP, _SCALE, _NARROWEST = 0.85, 0.35, 1.12, 0.40, 0.9, 9.4
#: Frames whose height is more than this multiple of their width have their maps side by side.
_SLENDER = 2.0


def draw_quicklook(cube: xr.Dataset | str | Path, pair: Pair | str | None = None) -> Figure:
    """Draw the quicklook of one pair of a cube.

    Parameters
    ----------
    cube : xarray.Dataset, str or pathlib.Path
        A cube, or its path.
    pair : Pair or str, optional
        The pair, such as ``20160909_20160921``; by default the newest.

    Returns
    -------
    matplotlib.figure.Figure
        A figure that is not registered with pyplot.

    Raises
    ------
    HephaestusError
        If there is no such cube, or no such pair in it.
    """
    return draw_quicklook_data(read_quicklook_data(cube, parse_pair_argument(pair)))


@dataclass(frozen=True)
class Quicklook:
    """A quicklook that was written.

    Attributes
    ----------
    path : pathlib.Path
        The PNG file, ``<frame>_<pair>.png``.
    frame : str
        Frame id.
    pair : Pair
        The pair that it shows.
    of : int
        Number of interferograms in the cube.
    asked : bool
        Whether the pair was asked for; else it is the newest of them.
    """

    path: Path
    frame: str
    pair: Pair
    of: int
    asked: bool

    @property
    def reason(self) -> str:
        """Why this pair is shown, in words."""
        return "as asked" if self.asked else f"the newest of {self.of} interferograms"


def write_quicklook(
    cube: str | Path,
    folder: Path,
    pair: Pair | str | None = None,
    *,
    keep: bool = False,
    setting: str = "HEPHAESTUS_DATA_DIR",
) -> Quicklook:
    """Draw the quicklook of one pair of a cube, and write it to a PNG file of its own atomically.

    Parameters
    ----------
    cube : str or pathlib.Path
        Path of the cube.
    folder : pathlib.Path
        Folder to write to; the file is called after frame and pair.
    pair : Pair or str, optional
        See :func:`draw_quicklook`.
    keep : bool
        Whether to leave a picture of the same pair that is there already.
    setting : str
        Setting or option that names the folder, for messages.

    Raises
    ------
    HephaestusError
        If there is no such cube, no such pair in it, or the file cannot be written.
    """
    wanted = parse_pair_argument(pair)
    with open_pinned_cube(cube, chunks=None) as dataset:
        network = read_pair_network(dataset)
        frame = str(dataset.attrs.get("frame", "cube"))
        shown = wanted or newest_pair(network, frame)
        done = Quicklook(
            folder / f"{frame}_{shown}.png", frame, shown, len(network.pairs), wanted is not None
        )
        if keep and done.path.is_file():
            return done
        view = read_quicklook_data(dataset, shown)
    figure = draw_quicklook_data(view)
    buffer = io.BytesIO()
    about = {"Title": f"{view.frame} {view.pair}", "Software": "hephaestus-build"}
    if view.is_simulated:
        about["Comment"] = "simulated data"
    with suppress_glyph_warnings():
        figure.savefig(buffer, format="png", dpi=_DPI, metadata=about, pil_kwargs={"compress_level": 4})
    with translate_os_errors(f"{view.frame}: writing its picture", setting=setting):
        write_atomic(done.path, buffer.getvalue())
    return done


def parse_pair_argument(pair: Pair | str | None) -> Pair | None:
    """Return the pair that a user gave as text, or None; raise UsageError if it is not valid."""
    if not isinstance(pair, str):
        return pair
    try:
        return Pair.parse(pair)
    except ValueError as error:
        raise UsageError(str(error)) from None


class _Page:
    """A figure whose contents are positioned in inches from its top left corner."""

    def __init__(self, width: float, height: float) -> None:
        self.width, self.height = width, height
        self.figure = Figure(figsize=(width, height), facecolor="white")
        FigureCanvasAgg(self.figure)

    def box(self, left: float, top: float, width: float, height: float) -> Axes:
        """Add axes and return them."""
        rectangle = (
            left / self.width,
            1 - (top + height) / self.height,
            width / self.width,
            height / self.height,
        )
        return self.figure.add_axes(rectangle)

    def text(self, left: float, top: float, text: str, **style: Any) -> None:
        """Add text whose baseline is `top` inches below the upper edge."""
        self.figure.text(
            left / self.width, 1 - top / self.height, escape_mathtext(text), **{"color": INK, **style}
        )


@dataclass(frozen=True)
class _MapLayout:
    """Positions of the maps on the page (left, top, width, height), in inches from its top left corner."""

    main: tuple[float, float, float, float]
    small: tuple[tuple[float, float, float, float], ...]

    @property
    def bottom(self) -> float:
        return self.main[1] + self.main[3]

    @property
    def width(self) -> float:
        left, _, width, _ = self.small[-1]
        return max(left + width + _SCALE, _NARROWEST)


def _lay_out_maps(aspect: float) -> _MapLayout:
    """Return the positions of one large and three small maps whose height is `aspect` times their width."""
    if aspect > _SLENDER:  # side by side, with the same height
        tall, top = 7.6, _TOP + 0.14
        wide = tall / aspect
        step = max(wide + _SCALE, 2.6)
        return _MapLayout(
            (_LEFT, top, wide, tall),
            tuple((_LEFT + wide + 0.55 + index * step, top, wide, tall) for index in range(3)),
        )
    tall = min(max(7.2 * aspect, 5.4), 8.2)
    wide, small = tall / aspect, (tall - 2 * _GAP) / 3
    column = _LEFT + wide + 0.55
    return _MapLayout(
        (_LEFT, _TOP, wide, tall),
        tuple((column, _TOP + row * (small + _GAP), small / aspect, small) for row in range(3)),
    )


def draw_quicklook_data(view: QuicklookData) -> Figure:
    """Return the quicklook of a pair whose data were read by :func:`read_quicklook_data`."""
    west, east, south, north = view.extent
    plan = _lay_out_maps((north - south) / ((east - west) * ground_ratio(view.extent)))
    page = _Page(plan.width + _RIGHT, plan.bottom + 2.95)

    _title(page, view)
    main = page.box(*plan.main)
    scale = page.box(_LEFT, plan.bottom + 0.43, min(3.6, plan.main[2]), 0.13)
    draw_phase(main, scale, view)
    draw_map_frame(main, view.extent, labels=True)
    draw_outlines(main, view, width=1.5, names=True)
    for panel, (left, top, wide, tall) in zip(
        (draw_coherence, draw_terrain, draw_vapour), plan.small, strict=True
    ):
        axes = page.box(left, top, wide, tall)
        panel(axes, page.box(left + wide + 0.1, top, 0.12, tall), view)
        draw_map_frame(axes, view.extent, labels=False)
        draw_outlines(axes, view, width=0.8)
    draw_pair_network(page.box(_LEFT, plan.bottom + 1.12, page.width - _LEFT - _RIGHT, 0.92), view)
    _footnote(page, view)
    return page.figure


def _title(page: _Page, view: QuicklookData) -> None:
    days = (view.pair.secondary - view.pair.primary).days
    page.text(_LEFT, 0.48, view.frame, fontsize=19, fontweight="bold")
    page.text(
        page.width - _RIGHT,
        0.48,
        f"{_day(view.pair.primary)}  –  {_day(view.pair.secondary)},  {count_of(days, 'day')}",
        fontsize=15,
        ha="right",
    )
    page.text(_LEFT, 0.82, "   ·   ".join(_header_facts(view)), fontsize=10.5, color=GREY)


def _day(day: date) -> str:
    return f"{day.day} {day:%b %Y}"


def _header_facts(view: QuicklookData) -> list[str]:
    facts = []
    if names := split_texts(view.attributes.get("volcanoes")):
        facts.append(", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else ""))
    facts.append("ascending" if Frame(view.frame).direction == "A" else "descending")
    facts.append(f"pixel {view.pixel_m[0]:.0f} x {view.pixel_m[1]:.0f} m")
    facts.append(f"{100 * view.valid_fraction:.0f} % of the frame has data")
    if view.annotation:
        facts.append(f"expert: {view.annotation['phase']}, confidence {view.annotation['confidence']:.1f}")
    return facts


def _footnote(page: _Page, view: QuicklookData) -> None:
    """Write the expert's words, and below them whom to credit for what is shown."""
    lines = textwrap.wrap(" ".join(view.credits), int(14 * page.width), max_lines=3, placeholder=" …")
    above = 0.16 * len(lines)
    for number, line in enumerate(reversed(lines)):
        colour = ALARM if view.is_simulated else GREY
        page.text(_LEFT, page.height - 0.16 * (number + 1), line, fontsize=8, color=colour)
    if caption := str(view.annotation.get("caption", "")).strip():
        text = textwrap.shorten(caption, int(13 * page.width), placeholder=" …")
        below = page.height - above - 0.2
        page.text(_LEFT, below, f"expert: “{text}”", fontsize=8.5, style="italic", color=GREY)
