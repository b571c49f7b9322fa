"""Figures of the data set: samples over time, positives, lengths of series, the map, pair networks."""

from __future__ import annotations

import io
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from datetime import date

import matplotlib.dates as mdates
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch, Rectangle
from PIL import Image

from hephaestus_build.core.frames import Frame, Pair
from hephaestus_build.core.plain_text import count_of
from hephaestus_build.core.registry import PublishedFrame
from hephaestus_build.dataset.deformation_events import DeformationEvent, implied_grid
from hephaestus_build.dataset.samples import Sample, is_usable
from hephaestus_build.dataset.splits import PARTS, Split
from hephaestus_build.report.map_axes import Box, draw_land, halo, place_labels, size_in_inches
from hephaestus_build.report.pair_network import draw_pair_arches
from hephaestus_build.report.style import ALARM, AMBER, BLUE, GREY, INK, SILVER, WINE, style_axes
from hephaestus_build.report.text_rendering import escape_mathtext, suppress_glyph_warnings
from hephaestus_build.sources.annotations.record import Annotation

PART_COLOURS = {"train": BLUE, "validation": AMBER, "test": WINE, "left out": SILVER}
ANNOTATION_COLOURS = {"of poor quality": SILVER, "no deformation": BLUE, "deformation": ALARM}
_DPI = 110
_DAYS_PER_QUARTER = 91.3125
#: Side length in degrees with which a frame of unknown shape is drawn.
_NOMINAL_FRAME_DEG = 2.7
#: Font size of the frame ids on the map, points.
_ID_SIZE = 5.6


def plot_samples_over_time(splits: Sequence[Split]) -> Figure:
    """Return a figure of the number of samples per quarter, by part, with a row for each split."""
    figure = _figure(11, 1.1 + 1.75 * len(splits))
    axes = figure.subplots(len(splits), 2, sharex=True, squeeze=False)
    figure.subplots_adjust(
        left=0.06, right=0.985, top=1 - 0.62 / figure.get_figheight(), bottom=0.09, hspace=0.42
    )
    days = [sample.pair.primary for split in splits for _, sample in _members(split)]
    first, last = (mdates.date2num(day) for day in (min(days), max(days)))
    edges = np.arange(first, last + _DAYS_PER_QUARTER, _DAYS_PER_QUARTER)
    for row, split in zip(axes, splits, strict=True):
        for cell, positive in zip(row, (False, True), strict=True):
            members = [(part, sample) for part, sample in _members(split) if sample.positive >= positive]
            bottom = np.zeros(len(edges) - 1)
            for part, colour in PART_COLOURS.items():
                days = [sample.pair.primary for name, sample in members if name == part]
                counts, _ = np.histogram(mdates.date2num(np.array(days, "datetime64[D]")), edges)
                cell.bar(
                    edges[:-1],
                    counts,
                    _DAYS_PER_QUARTER * 0.9,
                    bottom,
                    align="edge",
                    color=colour,
                    linewidth=0,
                )
                bottom += counts
            counts_text = " / ".join(str(sum(name == part for name, _ in members)) for part in PARTS)
            kind = "positives" if positive else "all samples"
            cell.set_title(
                f"{escape_mathtext(split.name)}: {kind}, {counts_text}", fontsize=9, loc="left", color=INK
            )
            style_axes(cell)
            cell.set_ylabel("interferograms", fontsize=8, color=GREY)
            cell.xaxis_date()
            cell.xaxis.set_major_locator(mdates.YearLocator())
            cell.xaxis.set_major_formatter(mdates.DateFormatter("%Y"))
    handles = [Patch(color=colour, label=part) for part, colour in PART_COLOURS.items()]
    figure.legend(handles=handles, loc="upper right", ncols=4, fontsize=9, frameon=False, borderaxespad=0.4)
    _title(figure, "Samples by primary date, one bar per quarter", splits)
    return figure


def plot_positives_per_frame(split: Split) -> Figure:
    """Return a figure of the positives of each frame by part, labelled with its total of samples."""
    counts: dict[Frame, Counter[str]] = defaultdict(Counter)
    total: Counter[Frame] = Counter()
    for part, sample in _members(split):
        total[sample.frame] += 1
        counts[sample.frame][part] += sample.positive
    order = sorted(total, key=lambda frame: (counts[frame].total(), total[frame], frame))
    figure = _figure(9, 1.2 + 0.2 * len(order))
    axes = figure.add_axes((0.2, 0.07, 0.77, 1 - 0.07 - 0.62 / figure.get_figheight()))
    left = np.zeros(len(order))
    for part, colour in PART_COLOURS.items():
        width = np.array([counts[frame][part] for frame in order])
        if width.any():
            axes.barh(np.arange(len(order)), width, 0.72, left, color=colour, label=part, linewidth=0)
        left += width
    for index, frame in enumerate(order):
        text = f"{counts[frame].total()} of {total[frame]}"
        axes.text(left[index], index, f" {text}", va="center", fontsize=7.5, color=GREY)
    axes.set_yticks(np.arange(len(order)), [frame.id for frame in order], fontsize=7.5, family="monospace")
    axes.set_ylim(-0.7, len(order) - 0.3)
    axes.set_xlim(0, max(1.0, float(left.max()) * 1.12))
    axes.set_xlabel("interferograms with deformation", fontsize=8.5, color=GREY)
    axes.legend(loc="lower right", fontsize=9, frameon=False)
    style_axes(axes)
    _title(figure, f"Positives per frame in the split {split.name}", [split])
    return figure


def plot_series_lengths(split: Split) -> Figure:
    """Return a figure of how many interferograms share a primary date, by part; the paper's Figure 7.

    A group of as many interferograms as a series has is one series; shorter groups repeat interferograms,
    longer ones are cut into several series.
    """
    figure = _figure(9, 3.3)
    axes = figure.subplots(1, len(PARTS), sharex=True)
    figure.subplots_adjust(left=0.065, right=0.985, top=0.79, bottom=0.15, wspace=0.2)
    lengths = {part: count_group_sizes(split.parts[part]) for part in PARTS}
    longest = max((size for found in lengths.values() for size in found), default=1)
    for cell, (part, found) in zip(axes, lengths.items(), strict=True):
        bars = cell.bar(
            list(found), list(found.values()), 0.8, color=PART_COLOURS[part], linewidth=0, zorder=2
        )
        cell.bar_label(bars, fontsize=7, color=GREY, padding=2, rotation=90)
        cell.axvline(split.series_length - 0.5, color=INK, linewidth=0.8, linestyle=":", zorder=1)
        cell.margins(y=0.16)
        cell.set_xlim(0.3, longest + 0.7)
        cell.set_xticks(range(1, longest + 1, 1 + longest // 12))
        cell.set_xlabel("interferograms of one primary date", fontsize=8, color=GREY)
        enough = sum(count for size, count in found.items() if size >= split.series_length)
        share = f", {enough / found.total():.0%} with {split.series_length} or more" if found else ""
        made = f"{len(split.series[part])} series of {split.series_length}"
        cell.set_title(
            f"{part}: {found.total()} primary dates{share}\n{made}", fontsize=8, loc="left", color=INK
        )
        style_axes(cell)
    axes[0].set_ylabel("primary dates", fontsize=8, color=GREY)
    _title(figure, f"Lengths of time series in the split {split.name}", [split])
    return figure


def count_group_sizes(samples: Iterable[Sample]) -> Counter[int]:
    """Return how many groups of samples with one frame and primary date have 1, 2, 3... members, sorted."""
    groups = Counter((sample.frame, sample.pair.primary) for sample in samples)
    return Counter(dict(sorted(Counter(groups.values()).items())))


def plot_frame_map(frames: Mapping[str, PublishedFrame], events: Sequence[DeformationEvent]) -> Figure:
    """Return a map of the frames, with their ids, and the annotated events; and their volcanoes in a list."""
    figure = _figure(12, 7.2)
    axes = figure.add_axes((0.035, 0.33, 0.955, 0.62))
    west, east, south, north = -180, 184, -52, 74
    axes.set(xlim=(west, east), ylim=(south, north), aspect="equal")
    axes.set_xticks(np.arange(-180, 181, 30), [_degrees(value, "WE") for value in range(-180, 181, 30)])
    axes.set_yticks(np.arange(-45, 61, 15), [_degrees(value, "SN") for value in range(-45, 61, 15)])
    draw_land(axes)
    axes.grid(color="#dde2e7", linewidth=0.5, zorder=0.6)
    axes.set_axisbelow(True)
    outlines = [_outline(frame) for frame in frames.values()]
    for left, bottom, right, top in outlines:
        axes.add_patch(
            Rectangle(
                (left, bottom), right - left, top - bottom, facecolor=f"{BLUE}55", edgecolor=BLUE, lw=0.7,
                zorder=3,
            )
        )  # fmt: skip
    seen = [event.location for event in events if event.location]
    axes.plot(*np.array(seen).reshape(-1, 2).T, "^", color=ALARM, markersize=3, markeredgewidth=0, zorder=4)
    point = (east - west) / (72 * size_in_inches(axes)[0])  # degrees
    sizes = [(point * 0.63 * _ID_SIZE * len(name), point * 1.15 * _ID_SIZE) for name in frames]
    dots = [(x - 0.6, y - 0.6, x + 0.6, y + 0.6) for x, y in seen]
    places = place_labels(outlines, sizes, (west, south, east, north), dots)
    for name, outline, place in zip(frames, outlines, places, strict=True):
        x, y = (place[0] + place[2]) / 2, (place[1] + place[3]) / 2
        axes.text(
            x, y, name, fontsize=_ID_SIZE, family="monospace", color=INK, ha="center", va="center_baseline",
            zorder=6, path_effects=halo(1.2),
        )  # fmt: skip
        nearest = (np.clip(x, outline[0], outline[2]), np.clip(y, outline[1], outline[3]))
        end = (np.clip(nearest[0], place[0], place[2]), np.clip(nearest[1], place[1], place[3]))
        axes.plot(*zip(nearest, end, strict=True), color=GREY, linewidth=0.45, zorder=2)
    style_axes(axes)
    order = sorted(frames.values(), key=lambda frame: (_west(frames, frame.region), frame.region, frame.id))
    rows = -(-len(order) // 3)
    for index, frame in enumerate(order):
        left, level = 0.035 + 0.325 * (index // rows), 0.285 - 0.0205 * (index % rows)
        figure.text(left, level, frame.id, fontsize=6.4, family="monospace", va="top", color=INK)
        figure.text(left + 0.082, level, _frame_text(frame), fontsize=6.6, va="top", color=GREY)
    figure.legend(
        handles=[
            Patch(facecolor=f"{BLUE}55", edgecolor=BLUE, label="frame"),
            Line2D([], [], marker="^", markersize=4, linestyle="", color=ALARM, label="annotated event"),
        ],
        loc="upper right", ncols=2, fontsize=9, frameon=False,
    )  # fmt: skip
    regions = len({frame.region for frame in frames.values()})
    _title(figure, f"{len(frames)} frames in {regions} regions", [])
    figure.text(0.985, 0.015, "coastlines: Natural Earth", fontsize=6, color=GREY, ha="right")
    return figure


def _outline(frame: PublishedFrame) -> Box:
    """Return the rectangle of a frame on the map, in degrees."""
    if grid := implied_grid(Frame(frame.id)):
        return grid.bounds
    half = _NOMINAL_FRAME_DEG / 2
    return (
        frame.longitude - half,
        frame.latitude - half,
        frame.longitude + half,
        frame.latitude + half,
    )


def plot_pair_network(
    frame: Frame, annotations: Mapping[Pair, Annotation], boundaries: Sequence[date] = ()
) -> Figure:
    """Return a figure of the annotated pairs of a frame, each as an arch from date to date.

    Parameters
    ----------
    frame : Frame
        The frame.
    annotations : mapping of Pair to Annotation
        Annotations of the frame. The height of a pair's arch is its number of days, its colour the label.
    boundaries : sequence of datetime.date
        Days to mark with a vertical line, such as the boundaries of a split.
    """
    kinds = ANNOTATION_COLOURS
    sorted_in: dict[str, list[Pair]] = {name: [] for name in kinds}
    for pair, item in annotations.items():
        good = "deformation" if item.is_deforming else "no deformation"
        sorted_in[good if is_usable(item) else "of poor quality"].append(pair)
    figure = _figure(8.2, 2.6)
    axes = figure.add_axes((0.07, 0.12, 0.915, 0.66))
    groups = [(name, kinds[name], pairs) for name, pairs in sorted_in.items()]
    handles = draw_pair_arches(axes, groups, linewidth=0.5)
    for day in boundaries:
        axes.axvline(mdates.date2num(day), color=INK, linewidth=0.7, linestyle=":", zorder=1)
    figure.legend(
        handles=handles,
        loc="upper left", bbox_to_anchor=(0.008, 0.915), ncols=3, fontsize=8, frameon=False, handlelength=1.4,
        borderpad=0,
    )  # fmt: skip
    epochs = {day for pair in annotations for day in pair.dates}
    simulated = " (simulated)" if frame.is_simulated else ""
    text = f"{frame}{simulated}: {count_of(len(annotations), 'interferogram')} of "
    text += count_of(len(epochs), "acquisition")
    figure.text(0.015, 0.95, text, fontsize=9.5, weight="bold", color=INK, va="center")
    return figure


def encode_png(figure: Figure) -> bytes:
    """Return a figure as a PNG with a palette of 96 colours."""
    canvas = FigureCanvasAgg(figure)
    with suppress_glyph_warnings():
        canvas.draw()
    image = Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB")
    stream = io.BytesIO()
    # the only one of Pillow's methods that keeps the colours of a few small marks
    small = image.quantize(96, Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE)
    small.save(stream, "PNG", optimize=True)
    return stream.getvalue()


def _members(split: Split) -> list[tuple[str, Sample]]:
    left = [("left out", sample) for samples in split.left_out.values() for sample in samples]
    return [*split.samples_with_parts, *left]


def _degrees(value: int, letters: str) -> str:
    return f"{abs(value)}°{letters[value > 0] if value else ''}"


def _west(frames: Mapping[str, PublishedFrame], region: str) -> float:
    return min(frame.longitude for frame in frames.values() if frame.region == region)


def _frame_text(frame: PublishedFrame, limit: int = 42) -> str:
    """Return the region and the volcanoes of a frame, as many as fit."""
    names = list(frame.volcanoes)
    shown = [names.pop(0)] if names else []
    while names and len(", ".join([frame.region, *shown, names[0]])) < limit:
        shown.append(names.pop(0))
    rest = f" and {len(names)} more" if names else ""
    return escape_mathtext(f"{frame.region}: {', '.join(shown)}{rest}")


def _figure(width: float, height: float) -> Figure:
    return Figure((width, height), dpi=_DPI, facecolor="white")


def _title(figure: Figure, text: str, splits: Sequence[Split]) -> None:
    simulated = any(split.is_simulated for split in splits)
    offset = 0.2 / figure.get_figheight()
    figure.text(
        0.015, 1 - offset, escape_mathtext(text) + (" (simulated)" if simulated else ""),
        fontsize=11, weight="bold", color=INK, va="center",
    )  # fmt: skip
