"""Picture of a time series at one point: wrapped phase and coherence against the secondary date."""

from __future__ import annotations

import io
from datetime import date

import matplotlib.dates as mdates
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from hephaestus_build.dataset.point_series import PointSample, PointSeries
from hephaestus_build.report.style import ALARM, BLUE, GREY, INK, PALE, draw_heading, style_axes


def plot_point_series(series: PointSeries) -> Figure:
    """Draw the pairs of one primary date at a point: a marker each, red where deformation was outlined.

    Parameters
    ----------
    series : PointSeries
        The pairs. Of several primary dates, each pair stands at its secondary date all the same.
    """
    rows = 3 if series.has_unwrapped else 2
    figure = Figure(figsize=(9, 2.1 + 1.55 * rows), layout=None)
    of = f"to {series.primary}" if series.primary else "of all pairs"
    place = f"{series.latitude:.4f}, {series.longitude:.4f}"
    draw_heading(figure, f"{series.frame} at {place}: wrapped phase {of}", series.simulated)
    heights = (2.2, 1.6, 1) if series.has_unwrapped else (2.2, 1)
    all_axes = figure.subplots(
        rows, 1, sharex=True, height_ratios=heights,
        gridspec_kw={"left": 0.1, "right": 0.975, "top": 0.87, "bottom": 0.13, "hspace": 0.16},
    )  # fmt: skip
    phase, coherence = all_axes[0], all_axes[-1]
    _draw_values(phase, series, "phase_rad")
    phase.set(ylim=(-np.pi, np.pi), yticks=[-np.pi, 0, np.pi], yticklabels=["−π", "0", "π"])
    phase.set_ylabel("wrapped phase, rad", fontsize=8.5)
    if series.has_unwrapped:
        _draw_values(all_axes[1], series, "unwrapped_rad")
        all_axes[1].set_ylabel("unwrapped, rad", fontsize=8.5)
    _draw_values(coherence, series, "coherence")
    coherence.set(ylim=(0, 1), yticks=[0, 0.5, 1])
    coherence.set_ylabel("coherence", fontsize=8.5)
    locator = mdates.AutoDateLocator(minticks=4, maxticks=10)
    coherence.xaxis.set_major_locator(locator)
    coherence.xaxis.set_major_formatter(mdates.ConciseDateFormatter(locator))
    coherence.set_xlabel("secondary date", fontsize=8.5)
    notes = "Wrapped phase: whole cycles are unknown, so this is no displacement."
    if any(sample.deformation not in ("", "none") for sample in series.samples):
        notes += " Red: an expert outlined deformation here."
    if any(sample.phase_rad is None for sample in series.samples):
        notes += " Crosses: no data."
    figure.text(0.1, 0.025, notes, fontsize=8, color=GREY)
    return figure


def encode_point_series(series: PointSeries) -> bytes:
    """Return the picture of :func:`plot_point_series` as a PNG."""
    stream = io.BytesIO()
    FigureCanvasAgg(plot_point_series(series)).print_png(stream)
    return stream.getvalue()


def _draw_values(axes: Axes, series: PointSeries, name: str) -> None:
    style_axes(axes)
    axes.axhline(0, color=PALE, linewidth=0.6, zorder=1)
    days: list[date] = [sample.pair.secondary for sample in series.samples]
    values = [np.nan if value is None else value for value in (getattr(s, name) for s in series.samples)]
    colours = [_colour(sample) for sample in series.samples]
    axes.scatter(
        mdates.date2num(days),
        values,
        c=colours,
        s=24,
        zorder=3,
        edgecolors="white",
        linewidths=0.6,
        clip_on=False,
    )
    lacking = [day for day, value in zip(days, values, strict=True) if np.isnan(value)]
    if lacking:
        # no data: a tick at the bottom, so that a gap is seen as one
        axes.plot(
            mdates.date2num(lacking), np.zeros(len(lacking)), "x", color=INK, markersize=4, linestyle="",
            transform=axes.get_xaxis_transform(), clip_on=False,
        )  # fmt: skip


def _colour(sample: PointSample) -> str:
    return ALARM if sample.deformation not in ("", "none") else BLUE
