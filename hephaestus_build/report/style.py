"""Colours and axes shared by all figures."""

from __future__ import annotations

from matplotlib.axes import Axes

INK, GREY, PALE, EMPTY, ALARM = "#1b1f24", "#4a525b", "#8a929b", "#e6e8ea", "#c8102e"


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
