"""The network of a frame's pairs over time: each pair is an arch from its primary to its secondary date."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import matplotlib.dates as mdates
import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.lines import Line2D

from hephaestus_build.core.frames import Pair
from hephaestus_build.report.style import INK, style_axes


def draw_pair_arches(
    axes: Axes,
    groups: Iterable[tuple[str, str, Sequence[Pair]]],
    *,
    linewidth: float,
    alpha: float = 1.0,
    label_size: float = 8,
) -> list[Line2D]:
    """Draw pairs as arches whose height is the number of days between the dates, and the dates as ticks.

    Parameters
    ----------
    axes : matplotlib.axes.Axes
        The axes; their limits, ticks and labels are set.
    groups : iterable of (str, str, sequence of Pair)
        Label, colour and pairs of each group; later groups are drawn over earlier ones.
    linewidth, alpha : float
        Width of an arch in points, and its opacity.
    label_size : float
        Font size of the tick labels, points.

    Returns
    -------
    list of matplotlib.lines.Line2D
        A legend handle for each group: its label and number of pairs.
    """
    handles = []
    drawn: list[Pair] = []
    for order, (label, colour, pairs) in enumerate(groups):
        arches = LineCollection(
            list(pair_arches(pairs)), colors=colour, linewidths=linewidth, alpha=alpha, zorder=2 + order
        )
        axes.add_collection(arches)
        handles.append(Line2D([], [], color=colour, label=f"{label} ({len(pairs)})"))
        drawn += pairs
    numbers = mdates.date2num(sorted({day for pair in drawn for day in pair.dates}))
    axes.plot(
        numbers, np.zeros(len(numbers)), "|", color=INK, markersize=4.5, markeredgewidth=0.65, zorder=10
    )
    longest = max((pair.secondary - pair.primary).days for pair in drawn)
    margin = 0.012 * max(numbers[-1] - numbers[0], 1)
    axes.set(xlim=(numbers[0] - margin, numbers[-1] + margin), ylim=(-0.06 * longest, 1.1 * longest))
    axes.xaxis_date()
    locator = mdates.AutoDateLocator(minticks=4, maxticks=10)
    axes.xaxis.set_major_locator(locator)
    axes.xaxis.set_major_formatter(mdates.ConciseDateFormatter(locator))
    axes.xaxis.get_offset_text().set(size=label_size, color=INK)
    axes.set_ylabel("days", fontsize=label_size + 0.5)
    style_axes(axes, label_size)
    return handles


def pair_arches(pairs: Sequence[Pair]) -> npt.NDArray[np.float64]:
    """Return a half ellipse above the time axis for each pair, shape (pairs, 25, 2), in days."""
    if not pairs:
        return np.empty((0, 25, 2))
    angle = np.linspace(np.pi, 0, 25)
    start, end = mdates.date2num([pair.dates for pair in pairs]).T[..., np.newaxis]
    middle, radius = (start + end) / 2, (end - start) / 2
    return np.stack([middle + radius * np.cos(angle), 2 * radius * np.sin(angle)], axis=-1)
