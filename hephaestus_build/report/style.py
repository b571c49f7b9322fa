"""Colours and axes shared by all figures."""

from __future__ import annotations

from matplotlib.axes import Axes

INK, GREY, PALE, EMPTY, ALARM = "#1b1f24", "#4a525b", "#8a929b", "#e6e8ea", "#c8102e"
#: With ALARM, for classes of things: normal and colour-blind eyes tell them from each other and from white.
BLUE, AMBER, WINE, SILVER = "#2f6fa8", "#e8a33d", "#5c1a33", "#b4bcc4"


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
