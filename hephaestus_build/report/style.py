"""Colours and axes shared by all figures."""

from __future__ import annotations

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.textpath import TextPath

from hephaestus_build.report.text_rendering import escape_mathtext

INK, GREY, PALE, EMPTY, ALARM = "#1b1f24", "#4a525b", "#8a929b", "#e6e8ea", "#c8102e"
#: With ALARM, for classes of things: normal and colour-blind eyes tell them from each other and from white.
BLUE, AMBER, WINE, SILVER = "#2f6fa8", "#e8a33d", "#5c1a33", "#b4bcc4"
#: Between the text of a badge and its edge, points.
_BADGE_PAD = 3.5


def style_axes(axes: Axes, label_size: float = 8) -> None:
    """Draw the left and bottom side of the axes alone, with pale ticks.

    Parameters
    ----------
    axes : matplotlib.axes.Axes
        The axes.
    label_size : float
        Font size of the tick labels, points.
    """
    axes.tick_params(labelsize=label_size, length=3, color=PALE, labelcolor=INK)
    for side, spine in axes.spines.items():
        spine.set(visible=side in ("left", "bottom"), color=PALE, linewidth=0.6)


def draw_heading(
    figure: Figure,
    text: str,
    simulated: bool,
    *,
    margins: tuple[float, float, float] = (0.2, 0.2, 0.25),
    mark: str = "SIMULATED",
) -> None:
    """Write the title of a figure and, for simulated data, a badge that says so.

    A title that would reach into the badge, or out of the figure, is written smaller.

    Parameters
    ----------
    figure : matplotlib.figure.Figure
        The figure.
    text : str
        The title.
    simulated : bool
        Whether any data of the figure is simulated.
    margins : tuple of float
        Of the title from the left, of the badge from the right, and of both from the top, inches.
    mark : str
        Text of the badge.
    """
    wide, tall = figure.get_size_inches()
    left, right, top = margins
    level = 1 - top / tall
    title = escape_mathtext(text)
    room = 72 * (wide - left - right) - (_text_width(mark, 9) + 4 * _BADGE_PAD if simulated else 0)
    size = 11 * min(1.0, 0.95 * room / max(1.0, _text_width(title, 11)))  # hinting widens small letters
    figure.text(left / wide, level, title, fontsize=size, weight="bold", color=INK, va="center")
    if simulated:
        figure.text(
            1 - right / wide, level, mark, fontsize=9, weight="bold", ha="right", va="center",
            color="white", bbox={"facecolor": ALARM, "edgecolor": "none", "pad": _BADGE_PAD},
        )  # fmt: skip


def _text_width(text: str, size: float) -> float:
    """Return the width of bold text, points."""
    return float(TextPath((0, 0), text, prop=FontProperties(weight="bold", size=size)).get_extents().width)
