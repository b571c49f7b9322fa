"""Axes of maps: ground proportions, degrees, a scale bar; coastlines and labels of a map of the world."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from matplotlib import patheffects
from matplotlib.axes import Axes
from matplotlib.collections import PolyCollection
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from hephaestus_build.core.registry import load_schema
from hephaestus_build.report.image_ops import round_scale_length
from hephaestus_build.report.style import EMPTY, INK, PALE

#: Edges in degrees: west, east, south, north.
Extent = tuple[float, float, float, float]
#: Corners of a rectangle in the coordinates of the axes: left, bottom, right, top.
Box = tuple[float, float, float, float]


def halo(width: float) -> list[patheffects.AbstractPathEffect]:
    """Return the white outline that keeps lines and text readable on any image."""
    return [patheffects.withStroke(linewidth=width, foreground="white")]


def ground_ratio(extent: Extent) -> float:
    """Return the length of a degree of longitude divided by that of a degree of latitude, in the middle."""
    _, _, south, north = extent
    return float(np.cos(np.radians((south + north) / 2)))


def figure_of(axes: Axes) -> Figure:
    """Return the figure of axes."""
    figure = axes.get_figure(root=True)
    assert figure is not None
    return figure


def size_in_inches(axes: Axes) -> tuple[float, float]:
    """Return the width and height of axes in inches."""
    box, (wide, tall) = axes.get_position(original=True), figure_of(axes).get_size_inches()
    return float(box.width * wide), float(box.height * tall)


def draw_map_frame(axes: Axes, extent: Extent, *, labels: bool) -> None:
    """Set the extent, aspect ratio and ticks of a map.

    Parameters
    ----------
    axes : matplotlib.axes.Axes
        Axes of the map.
    extent : tuple of float
        West, east, south and north edges in degrees.
    labels : bool
        Whether to draw tick labels and a scale bar.
    """
    west, east, south, north = extent
    ground = ground_ratio(extent)
    axes.set_facecolor(EMPTY)
    axes.set(xlim=(west, east), ylim=(south, north), aspect=1 / ground)
    for spine in axes.spines.values():
        spine.set(color=PALE, linewidth=0.6)
    for axis, inches in zip((axes.xaxis, axes.yaxis), size_in_inches(axes), strict=True):
        axis.set_major_locator(
            MaxNLocator(int(np.clip(inches / 1.2, 1, 6)), steps=[1, 2, 5, 10], min_n_ticks=1)
        )
    axes.tick_params(labelsize=9, length=3, color=PALE, labelcolor=INK, labelbottom=labels, labelleft=labels)
    if labels:
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: _degrees(value, "EW")))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: _degrees(value, "NS")))
        draw_scale_bar(axes, 1 / (111.195 * ground))


def _degrees(value: float, letters: str) -> str:
    return f"{abs(value):g}° {letters[0] if value >= 0 else letters[1]}" if round(value, 9) else "0°"


def draw_scale_bar(axes: Axes, kilometre: float, *, size: float = 9) -> None:
    """Draw a bar of a round length in the lower left corner.

    Parameters
    ----------
    axes : matplotlib.axes.Axes
        The axes, with their limits set.
    kilometre : float
        Its length along the horizontal axis, in the axes' units.
    size : float
        Font size, points.
    """
    (left, right), (bottom, top) = axes.get_xlim(), axes.get_ylim()
    length = round_scale_length((right - left) / kilometre)
    text = f"{length:g} km" if length >= 1 else f"{1000 * length:g} m"
    start, level = left + 0.03 * (right - left), bottom + 0.035 * (top - bottom)
    axes.plot(
        [start, start + length * kilometre], [level, level], color=INK, linewidth=size / 3,
        solid_capstyle="butt", path_effects=halo(size / 1.5), zorder=7,
    )  # fmt: skip
    axes.text(
        start, level + 0.012 * (top - bottom), text, fontsize=size, color=INK, path_effects=halo(2.6),
        va="bottom", zorder=7,
    )  # fmt: skip


def draw_land(axes: Axes) -> None:
    """Fill the land of the world, with its coastlines; Natural Earth at 1:110m has no small islands."""
    rings = [np.array(ring) for ring in load_schema("land.json")["rings"]]
    rings += [ring - (360, 0) for ring in rings if ring[:, 0].max() > 180]
    land = PolyCollection(rings, facecolor="#f0eee8", edgecolor="#a9a498", linewidth=0.5, zorder=0.5)
    axes.add_collection(land, autolim=False)


def place_labels(
    anchors: Sequence[Box], size: Sequence[tuple[float, float]], within: Box, taken: Iterable[Box] = ()
) -> list[Box]:
    """Return places for labels near what they name, none over another, over an anchor or outside.

    Each label takes the nearest of some hundred places around its anchor that is free; the outermost one if
    none is.

    Parameters
    ----------
    anchors : sequence of Box
        Rectangles of what is labelled.
    size : sequence of (float, float)
        Width and height of each label.
    within : Box
        Rectangle of the map.
    taken : iterable of Box
        Further rectangles to keep free.
    """
    occupied = [*anchors, *taken]
    places: list[Box] = []
    for anchor, (width, height) in zip(anchors, size, strict=True):
        for place in _places_around(anchor, width, height):
            inside = place[0] >= within[0] and place[2] <= within[2]
            inside = inside and place[1] >= within[1] and place[3] <= within[3]
            if inside and not any(overlaps(place, other) for other in occupied):
                break
        places.append(place)
        occupied.append(place)
    return places


def _places_around(anchor: Box, width: float, height: float) -> Iterable[Box]:
    """Yield boxes around an anchor, the nearest first; beside it before above and below it."""
    left, bottom, right, top = anchor
    x, y = (left + right) / 2, (bottom + top) / 2
    for distance in np.arange(1.0, 40, 1.2) * height / 3:
        for angle in np.radians([0, 180, 30, -30, 150, -150, 60, -60, 120, -120, 90, -90]):
            middle = x + np.cos(angle) * ((right - left + width) / 2 + distance)
            level = y + np.sin(angle) * ((top - bottom + height) / 2 + distance)
            yield middle - width / 2, level - height / 2, middle + width / 2, level + height / 2


def overlaps(one: Box, other: Box) -> bool:
    """Return whether two rectangles share an area."""
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]
