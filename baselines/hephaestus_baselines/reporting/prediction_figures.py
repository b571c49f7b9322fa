"""Figures of predictions over phase, and drawing helpers shared by all figures of the benchmark.

Figures of simulated data are marked as such.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from hephaestus_baselines.evaluation.metrics import compute_rates
from hephaestus_build.core.atomic_io import translate_os_errors, write_atomic
from hephaestus_build.core.frames import Pair
from hephaestus_build.report.image_ops import phase_colormap
from hephaestus_build.report.map_axes import draw_scale_bar
from hephaestus_build.report.style import INK, PALE, draw_heading
from hephaestus_build.report.text_rendering import escape_mathtext, suppress_glyph_warnings
from hephaestus_build.report.vapour_gradients import VapourGradients, draw_gradient_histogram

#: Colours that colour-blind readers tell apart, as the paper's red and green are not; line styles differ too.
TRUTH_COLOR, PREDICTION_COLOR, BOTH_COLOR = "#d7301f", "#1a6fbf", "#f0d23c"
_NO_DATA_COLOR = "#eceef0"
_DPI = 110


@dataclass(frozen=True)
class PredictionExample:
    """One window with the expert's deformation mask and the model's prediction.

    Attributes
    ----------
    frame : str
    pairs : tuple of str
        The pair of each of the T steps.
    phase : numpy.ndarray
        Wrapped phase, shape (T, rows, columns), rad; exactly 0 is no data.
    mask : numpy.ndarray
        The expert's mask, same shape; above 0 where there is deformation.
    probability : numpy.ndarray
        Predicted probability of deformation, shape (rows, columns).
    threshold : float
        Deformation is predicted where the probability is at least this.
    simulated : bool
    pixel_km : float or None
        East-west size of a pixel in kilometres, for the scale bar; None if it is not known.
    """

    frame: str
    pairs: tuple[str, ...]
    phase: np.ndarray
    mask: np.ndarray
    probability: np.ndarray
    threshold: float
    simulated: bool
    pixel_km: float | None = None

    @property
    def predicted_mask(self) -> npt.NDArray[np.bool]:
        """Predicted deformation, bool, shape (rows, columns)."""
        return np.asarray(self.probability >= self.threshold)

    @property
    def true_mask(self) -> npt.NDArray[np.bool]:
        """Union of the expert's masks over all steps, bool, shape (rows, columns)."""
        return np.asarray((self.mask > 0).any(axis=0))


def draw_predictions(examples: Sequence[PredictionExample], title: str = "Predictions") -> Figure:
    """Draw windows with true and predicted deformation, in the layout of the paper's Figure 8.

    Each example has two panels: the phase, and the phase in grey under the expert's outline (red) and the
    model's (blue, dashed). Of a series, the last step is shown, with the union of the outlines of all steps.
    """
    columns = min(2, len(examples))
    lines = -(-len(examples) // columns)
    figure = make_figure(5.2 * columns + 0.2, 2.72 * lines + 1.0)
    grid = figure.subplots(lines, 2 * columns, squeeze=False)
    set_margins(figure, wspace=0.05, hspace=0.17, bottom=0.5)
    for axes in grid.flat:
        axes.set_visible(False)
    for place, example in enumerate(examples):
        left, right = grid[place // columns, place % columns * 2 : place % columns * 2 + 2]
        show_phase(left, example.phase[-1])
        add_scale(left, example.pixel_km)
        add_caption(left, f"{example.frame}  {_format_dates(example.pairs[-1])}")
        show_gray_phase(right, example.phase[-1])
        _draw_comparison(right, example)
        add_caption(right, _describe_outcome(example))
    add_heading(figure, title, any(example.simulated for example in examples))
    _add_legend(figure)
    return figure


def draw_series_predictions(
    examples: Sequence[PredictionExample], title: str = "Predictions for series"
) -> Figure:
    """Draw series step by step, in the layout of the paper's Figure 9.

    The upper row shows the phase of each step and the predicted probability. The lower row shows the expert's
    outline of each step over grey phase and, last, their union (red) and the prediction (blue) over the last
    step.
    """
    steps = max(len(example.phase) for example in examples)
    figure = make_figure(2.55 * (steps + 1) + 0.2, 5.25 * len(examples) + 1.0)
    grid = figure.subplots(2 * len(examples), steps + 1, squeeze=False)
    set_margins(figure, wspace=0.05, hspace=0.17, bottom=0.5)
    for example, (above, below) in zip(examples, zip(grid[::2], grid[1::2], strict=True), strict=True):
        for step, (phase, mask) in enumerate(zip(example.phase, example.mask, strict=True)):
            show_phase(above[step], phase)
            add_scale(above[step], example.pixel_km)
            add_caption(
                above[step], (f"{example.frame}  " if step == 0 else "") + _format_dates(example.pairs[step])
            )
            show_gray_phase(below[step], phase)
            tint_area(below[step], mask > 0, TRUTH_COLOR)
            draw_outline(below[step], mask > 0, TRUTH_COLOR, "-")
            share = (mask > 0).mean()
            add_caption(below[step], f"deformation in {share:.0%}" if share else "no deformation")
        _draw_probability(above[-1], example)
        show_gray_phase(below[-1], example.phase[-1])
        _draw_comparison(below[-1], example)
        add_caption(below[-1], _describe_outcome(example))
    add_heading(figure, title, any(example.simulated for example in examples))
    _add_legend(figure)
    return figure


def draw_atmosphere_comparison(
    examples: Sequence[tuple[PredictionExample, PredictionExample, VapourGradients]], title: str
) -> Figure:
    """Draw windows as predicted without and with atmosphere, in the layout of the paper's Figure 4.

    Parameters
    ----------
    examples : sequence of tuple
        The same window as predicted without and with atmosphere, and the gradients of water vapour of its
        frame. A row shows the phase, both predictions, and where the pair is among those of its frame.
    title : str
        Title of the figure.
    """
    figure = make_figure(4 * 2.6 + 1.4, 2.72 * len(examples) + 1.0)
    grid = figure.subplots(len(examples), 4, squeeze=False, width_ratios=(1, 1, 1, 1.4))
    set_margins(figure, wspace=0.08, hspace=0.25, bottom=0.62, right=0.2)
    for row, (without, informed, gradients) in zip(grid, examples, strict=True):
        show_phase(row[0], without.phase[-1])
        add_scale(row[0], without.pixel_km)
        add_caption(row[0], f"{without.frame}  {_format_dates(without.pairs[-1])}")
        for axes, example, name in ((row[1], without, "without"), (row[2], informed, "with atmosphere")):
            show_gray_phase(axes, example.phase[-1])
            _draw_comparison(axes, example)
            add_caption(axes, f"{name}: {_describe_outcome(example)}")
        draw_gradient_histogram(row[3], gradients, Pair.parse(without.pairs[-1]))
        place = row[3].get_position()
        row[3].set_position(
            (
                place.x0 + 0.26 * place.width,
                place.y0 + 0.2 * place.height,
                0.7 * place.width,
                0.6 * place.height,
            )
        )
    add_heading(figure, title, any(without.simulated for without, *_ in examples))
    _add_legend(figure)
    return figure


def write_figure(figure: Figure, path: Path, *, setting: str = "--results") -> None:
    """Write a figure to `path` (``.png``) atomically.

    Parameters
    ----------
    figure : matplotlib.figure.Figure
    path : pathlib.Path
    setting : str
        Option that names the folder, for messages.

    Raises
    ------
    HephaestusError
        If the file cannot be written.
    """
    stream = io.BytesIO()
    # no palette: with this many hues it would tint the greys
    with suppress_glyph_warnings():
        figure.savefig(stream, format="png", pil_kwargs={"optimize": True})
    with translate_os_errors(f"writing {path}", setting=setting):
        write_atomic(path, stream.getvalue())


def show_phase(axes: Axes, phase: npt.NDArray[Any]) -> None:
    """Show wrapped phase in colour; `phase` in rad, exactly 0 is no data."""
    shown = np.where(phase == 0, np.nan, phase)
    show_framed_image(axes, shown, cmap=phase_colormap(), vmin=-np.pi, vmax=np.pi)


def show_gray_phase(axes: Axes, phase: npt.NDArray[Any]) -> None:
    """Show wrapped phase in pale grey, as a background for outlines."""
    # pale enough for both outlines to stand out
    shown = np.where(phase == 0, np.nan, phase)
    show_framed_image(axes, shown, cmap="gray", vmin=-2.8 * np.pi, vmax=1.15 * np.pi)


def _draw_probability(axes: Axes, example: PredictionExample) -> None:
    show_framed_image(axes, example.probability, cmap="Blues", vmin=0, vmax=1)
    add_caption(axes, f"probability, white 0 to dark 1; {example.probability.max():.2f} at most")


def _draw_comparison(axes: Axes, example: PredictionExample) -> None:
    truth, found = example.true_mask, example.predicted_mask
    for area, colour in (
        (truth & ~found, TRUTH_COLOR),
        (found & ~truth, PREDICTION_COLOR),
        (truth & found, BOTH_COLOR),
    ):
        tint_area(axes, area, colour)
    draw_outline(axes, truth, TRUTH_COLOR, "-")
    draw_outline(axes, found, PREDICTION_COLOR, "--")


def tint_area(axes: Axes, area: npt.NDArray[Any], colour: str) -> None:
    """Tint the pixels of `area`."""
    layer = np.zeros((*area.shape, 4))
    layer[area] = [*(int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)), 0.3]
    axes.imshow(layer, interpolation="nearest")


def draw_outline(axes: Axes, area: npt.NDArray[Any], colour: str, style: str) -> None:
    """Draw the outline of `area`; nothing if it is empty."""
    if not area.any():
        return
    # pad with zeros, drawn just inside the window's edge, to close outlines that touch the edge
    padded = np.pad(area.astype("f4"), 1)
    rows, columns = ([-0.2, *range(size), size - 0.8] for size in area.shape)
    axes.contour(columns, rows, padded, [0.5], colors=[colour], linewidths=1.5, linestyles=[style])
    axes.set(xlim=(-0.5, area.shape[1] - 0.5), ylim=(area.shape[0] - 0.5, -0.5))


def _describe_outcome(example: PredictionExample) -> str:
    truth, found = example.true_mask, example.predicted_mask
    if not truth.any():
        return "false alarm" if found.any() else "no deformation, none predicted"
    if not found.any():
        return "missed"
    counted = (int(both.sum()) for both in (truth & found, ~truth & found, truth & ~found))
    iou = float(compute_rates(*counted)["iou"])
    return f"IoU {iou:.2f}"


def _format_dates(pair: str) -> str:
    first, second = (f"{day[:4]}-{day[4:6]}-{day[6:]}" for day in pair.split("_"))
    return f"{first} to {second[5:] if first[:4] == second[:4] else second}"


def make_figure(width: float, height: float) -> Figure:
    """Return an empty figure; width and height in inches."""
    return Figure((width, height), dpi=_DPI, facecolor="white")


def set_margins(
    figure: Figure,
    *,
    left: float = 0.1,
    right: float = 0.1,
    bottom: float,
    top: float = 0.74,
    wspace: float = 0.2,
    hspace: float = 0.2,
) -> None:
    """Set the margins of the axes, in inches."""
    width, height = figure.get_size_inches()
    figure.subplots_adjust(
        left=left / width, right=1 - right / width, top=1 - top / height, bottom=bottom / height,
        wspace=wspace, hspace=hspace,
    )  # fmt: skip


def show_framed_image(axes: Axes, image: npt.NDArray[Any], **shown: Any) -> None:
    """Show an image in a thin frame without interpolation; NaN is drawn grey."""
    axes.imshow(image, interpolation="nearest", **shown)
    axes.set_visible(True)
    axes.set_facecolor(_NO_DATA_COLOR)
    axes.set(xticks=[], yticks=[])
    for spine in axes.spines.values():
        spine.set(color=PALE, linewidth=0.6)


def add_scale(axes: Axes, pixel_km: float | None) -> None:
    """Add a scale bar to an image, if the size of its pixels is known."""
    if pixel_km:
        draw_scale_bar(axes, 1 / pixel_km, size=6.5)


def add_phase_scale(figure: Figure) -> None:
    """Add the colour bar of the phase in the lower right corner."""
    width, height = figure.get_size_inches()
    bar = figure.add_axes((1 - 1.75 / width, 0.17 / height, 1.5 / width, 0.1 / height))
    turn = np.linspace(-np.pi, np.pi, 256)[np.newaxis]
    bar.imshow(turn, cmap=phase_colormap(), aspect="auto", extent=(-np.pi, np.pi, 0, 1))
    bar.set(yticks=[], xticks=[-np.pi, 0, np.pi], xticklabels=["−π", "0", "π"])
    bar.tick_params(labelsize=6, length=1.5, pad=1, color=PALE, labelcolor=INK)
    bar.set_title("wrapped phase (rad)", fontsize=6.5, color=INK, pad=1.5)
    for spine in bar.spines.values():
        spine.set_visible(False)


def add_caption(axes: Axes, text: str) -> None:
    """Add a line of text above an image."""
    axes.set_title(escape_mathtext(text), fontsize=7.6, loc="left", color=INK, pad=3)


def _add_legend(figure: Figure) -> None:
    add_phase_scale(figure)
    handles = [
        Patch(facecolor=f"{TRUTH_COLOR}4d", edgecolor=TRUTH_COLOR, label="drawn by the expert"),
        Patch(
            facecolor=f"{PREDICTION_COLOR}4d", edgecolor=PREDICTION_COLOR, linestyle="--", label="predicted"
        ),
        Patch(facecolor=f"{BOTH_COLOR}4d", edgecolor=BOTH_COLOR, label="both"),
        Patch(facecolor=_NO_DATA_COLOR, edgecolor=PALE, label="no data"),
    ]
    figure.legend(
        handles=handles, loc="lower left", ncols=4, fontsize=8.5, frameon=False, borderaxespad=0.3,
        labelcolor=INK,
    )  # fmt: skip


def add_heading(figure: Figure, text: str, simulated: bool) -> None:
    """Add the title and, for simulated data, a badge that says so."""
    draw_heading(figure, text, simulated, margins=(0.12, 0.15, 0.26), mark="SIMULATED DATA")
