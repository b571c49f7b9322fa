"""Learning curves, reliability diagrams (calibration of predicted probabilities), alarms and detection."""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from hephaestus_baselines.evaluation.alarms import BUDGETS
from hephaestus_baselines.evaluation.metrics import DEFORMATION_KINDS, DeformationKind
from hephaestus_baselines.evaluation.predictions import PROBABILITY_BINS, Predictions
from hephaestus_baselines.evaluation.result_schema import RunRecord, RunResult
from hephaestus_baselines.reporting.prediction_figures import (
    add_heading,
    make_figure,
    set_margins,
)
from hephaestus_baselines.reporting.published_scores import MODEL_TITLES
from hephaestus_baselines.reporting.table_schema import kind_order
from hephaestus_build.report.style import GREY, INK, style_axes
from hephaestus_build.report.text_rendering import escape_mathtext

#: Colours that normal and colour-blind eyes tell from each other and from white.
LINE_COLORS = ("#5229cc", "#993d1f", "#63998c", "#6b2d80", "#b2b224", "#1b1f24", "#e673e6", "#2ee68a")
#: Up to this many intensities, activity types and volcanoes are drawn: those with the most interferograms.
_MAX_KINDS = 60
#: Words in the names of training-log columns that are not scores.
_NON_SCORE_WORDS = ("epoch", "step", "rate", "lr", "second", "time", "threshold", "sample")


def setting_title(result: RunRecord) -> str:
    """Return what a run is called in figures: its model or control, and its inputs."""
    form = "series" if result.series else "single"
    name = result.recipe.get("control") or MODEL_TITLES.get(result.model, result.model)
    return f"{name}, {form}{', atmosphere' if result.atmosphere else ''}"


def draw_learning_curves(runs: Mapping[str, Sequence[Path]], title: str, *, simulated: bool) -> Figure:
    """Draw every loss and score of training logs over the epochs.

    Parameters
    ----------
    runs : mapping of str to sequence of pathlib.Path
        ``metrics.csv`` of each seed, by the label of the setting. Seeds are drawn thin, their mean thick.
    title : str
        Title of the figure.
    simulated : bool
        Whether to mark the figure as one of simulated data.
    """
    curves = {name: [read_learning_curves(path) for path in paths] for name, paths in runs.items()}
    columns = sorted(
        {column for seeds in curves.values() for curve in seeds for column in curve},
        key=lambda column: ("loss" not in column, column),
    )
    width = 3.1 * max(1, len(columns)) + 0.4
    key_lines = -(-len(curves) // max(1, int(width // 3.2)))
    figure = make_figure(width, 3.2 + 0.2 * key_lines)
    cells = figure.subplots(1, max(1, len(columns)), squeeze=False)[0]
    set_margins(figure, left=0.55, right=0.15, bottom=0.62 + 0.2 * key_lines, wspace=0.26)
    for axes, column in zip(cells, columns, strict=False):
        for colour, seeds in zip(_line_colors(len(curves)), curves.values(), strict=True):
            known = [curve[column] for curve in seeds if column in curve]
            for epochs, values in known:
                axes.plot(
                    epochs, values, color=colour, linewidth=0.8, alpha=0.4 if len(known) > 1 else 1,
                    marker="o" if len(epochs) == 1 else None, markersize=4,
                )  # fmt: skip
            if len(known) > 1:
                length = min(len(epochs) for epochs, _ in known)
                mean = np.mean([values[:length] for _, values in known], axis=0)
                axes.plot(known[0][0][:length], mean, color=colour, linewidth=2)
        axes.set_title(
            escape_mathtext(column.replace("_", " ").replace("/", " ").replace("f1", "F1")),
            fontsize=9,
            loc="left",
            color=INK,
        )
        axes.set_xlabel("epoch", fontsize=8.5, color=GREY)
        if "loss" not in column:
            axes.set_ylim(bottom=0, top=1.02)
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.grid(color="#e9ecef", linewidth=0.7)
        style_axes(axes)
    handles = [
        Line2D([], [], color=colour, linewidth=2, label=escape_mathtext(name))
        for colour, name in zip(_line_colors(len(curves)), curves, strict=True)
    ]
    figure.legend(
        handles=handles, loc="lower left", bbox_to_anchor=(0.01, 0), fontsize=8.5, frameon=False,
        ncols=max(1, int(width // 3.2)), labelcolor=INK,
    )  # fmt: skip
    add_heading(figure, title, simulated)
    return figure


def read_learning_curves(path: Path) -> dict[str, tuple[npt.NDArray[Any], npt.NDArray[Any]]]:
    """Return the epochs and values of each loss and score in a training log.

    Cells may be empty: some loggers write training and validation on separate lines.
    """
    with path.open(encoding="utf-8", newline="") as stream:
        lines = list(csv.DictReader(stream))
    curves: dict[str, tuple[np.ndarray, np.ndarray]] = {}
    for column in lines[0] if lines else ():
        if any(word in column.lower() for word in _NON_SCORE_WORDS):
            continue
        # keep the last value of an epoch
        values = {
            float(line["epoch"]): float(line[column])
            for line in lines
            if line.get(column) and line.get("epoch")
        }
        if values:
            epochs = sorted(values)
            curves[column] = np.array(epochs), np.array([values[epoch] for epoch in epochs])
    return curves


@dataclass(frozen=True)
class Calibration:
    """Predicted probability against observed frequency of deformation, by bin.

    Attributes
    ----------
    mean_probability, observed_frequency : numpy.ndarray
        Mean predicted probability and share with deformation in each bin; NaN for empty bins.
    count : numpy.ndarray
        Number of items or pixels in each bin, int64.
    """

    mean_probability: np.ndarray
    observed_frequency: np.ndarray
    count: np.ndarray

    @property
    def expected_error(self) -> float:
        """Expected calibration error: mean absolute difference over all items; NaN without items."""
        filled = self.count > 0
        if not filled.any():
            return math.nan
        return float(
            np.average(
                np.abs(self.mean_probability - self.observed_frequency)[filled], weights=self.count[filled]
            )
        )


def compute_calibration(predictions: Predictions, bins: int = 8) -> Calibration:
    """Bin items (pixels with data, for a segmentation) by predicted probability, in bins of equal width.

    Parameters
    ----------
    predictions : Predictions
    bins : int
        Number of bins; a divisor of 512, the number of bins of the stored pixel histograms.
    """
    if predictions.pixels is None:
        place = np.minimum((predictions.probability * bins).astype(int), bins - 1)
        count = np.bincount(place, minlength=bins)
        seen = np.bincount(place, predictions.label, bins)
        said = np.bincount(place, predictions.probability, bins)
    else:
        quiet, deforming = predictions.pixels["data"].sum(axis=0, dtype=np.int64)
        middle = (np.arange(PROBABILITY_BINS) + 0.5) / PROBABILITY_BINS
        parts = [quiet + deforming, deforming, (quiet + deforming) * middle]
        count, seen, said = (part.reshape(bins, -1).sum(axis=1) for part in parts)
    with np.errstate(invalid="ignore", divide="ignore"):
        return Calibration(said / count, seen / count, count)


def draw_reliability_diagram(runs: Mapping[str, Sequence[Predictions]], title: str) -> Figure:
    """Draw a reliability diagram above a histogram of the predicted probabilities.

    Parameters
    ----------
    runs : mapping of str to sequence of Predictions
        Predictions of each seed, by the label of the setting; one line per seed.
    title : str
        Title of the figure.
    """
    said = [predictions for seeds in runs.values() for predictions in seeds]
    pixels = any(predictions.pixels is not None for predictions in said)
    simulated = any(predictions.source.simulated for predictions in said)
    columns = 1 if len(runs) <= 8 else 2
    height = max(5.0, 1.0 + 0.42 * -(-(len(runs) + 1) // columns))
    figure = make_figure(6.4 + 3.4 * columns, height)
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1.25))
    set_margins(figure, left=0.75, right=0.2 + 3.45 * columns, bottom=0.55, hspace=0.1)
    above.plot([0, 1], [0, 1], color=GREY, linewidth=1, linestyle=":", zorder=1)
    handles = []
    for colour, (name, seeds) in zip(_line_colors(len(runs)), runs.items(), strict=True):
        found = [compute_calibration(predictions) for predictions in seeds]
        for one in found:
            filled = one.count > 0
            edges = np.linspace(0, 1, len(one.count) + 1)
            above.plot(
                one.mean_probability[filled],
                one.observed_frequency[filled],
                "o-",
                color=colour,
                linewidth=1.3,
                markersize=4,
            )
            below.stairs(np.maximum(one.count, 0.5), edges, color=colour, linewidth=1.3)
        error = np.mean([one.expected_error for one in found])
        handles.append(
            Line2D(
                [],
                [],
                color=colour,
                marker="o",
                markersize=4,
                label=f"{escape_mathtext(name)}\nerror {error:.3f}",
            )
        )
    handles.append(Line2D([], [], color=GREY, linestyle=":", label="perfect calibration"))
    cases, share = _deformation_share(said[0])
    if not math.isnan(share):
        above.axhline(share, color=GREY, linewidth=0.8, linestyle="--", zorder=1)
        above.text(0.005, share + 0.012, f"overall share: {share:.1%}", fontsize=8, color=GREY, va="bottom")
    above.set(xlim=(0, 1), ylim=(0, 1.02))
    above.set_ylabel("share with deformation", fontsize=9, color=INK)
    below.set_yscale("log")
    below.set_ylim(bottom=0.7, top=3.0 * max(compute_calibration(one).count.max() for one in said))
    below.set_xlabel("predicted probability", fontsize=9, color=INK)
    below.set_ylabel("pixels" if pixels else "items", fontsize=9, color=INK)
    for axes in (above, below):
        axes.grid(color="#e9ecef", linewidth=0.7)
        style_axes(axes)
    figure.legend(
        handles=handles, loc="upper left", fontsize=8.5, frameon=False, ncols=columns, labelcolor=INK,
        bbox_to_anchor=(1 - (3.4 * columns + 0.1) / figure.get_figwidth(), 1 - 0.55 / height),
        columnspacing=0.5, labelspacing=0.9,
    )  # fmt: skip
    add_heading(figure, f"{title}, {cases:,} {'pixels' if pixels else 'items'}", simulated)
    return figure


def draw_alarm_curves(results: Sequence[RunResult], title: str) -> Figure:
    """Draw recall of interferograms against days with false alarms, a line per run, controls at the budgets.

    Parameters
    ----------
    results : sequence of RunResult
        Runs of one task. Runs of one setting have one colour.
    title : str
        Title of the figure.
    """
    settings: dict[str, list[RunResult]] = {}
    for result in results:
        settings.setdefault(setting_title(result), []).append(result)
    height = max(4.4, 1.5 + 0.22 * len(settings))
    figure = make_figure(9.4, height)
    axes = figure.subplots()
    set_margins(figure, left=0.75, right=3.5, bottom=0.6)
    handles = []
    for colour, (name, runs) in zip(_line_colors(len(settings)), settings.items(), strict=True):
        dashes: Literal["--", "-"] = "--" if runs[0].recipe.get("control") else "-"
        for run in runs:
            curve = run.assessment.alarm_curve
            axes.step(
                curve.days_per_frame_year,
                curve.recall,
                where="post",
                color=colour,
                linewidth=1.4,
                linestyle=dashes,
            )
        handles.append(
            Line2D([], [], color=colour, linewidth=2, linestyle=dashes, label=escape_mathtext(name))
        )
    for marker, series in (("o", False), ("s", True)):
        some = next((run for run in results if run.series == series), None)
        if some is None:
            continue
        for shade, (name, control) in zip(
            (GREY, INK), some.assessment.units["interferograms"].controls.items(), strict=False
        ):
            days = [float(budget) for budget in control.budgets]
            recalls = [point.recall for point in control.budgets.values()]
            axes.plot(days, recalls, marker, color=shade, markersize=5, markerfacecolor="none")
            label = f"{name}, {'series' if series else 'single'}"
            handles.append(
                Line2D(
                    [], [], color=shade, marker=marker, linestyle="", markerfacecolor="none",
                    label=escape_mathtext(label),
                )
            )  # fmt: skip
    for budget in BUDGETS:
        axes.axvline(budget, color=GREY, linewidth=0.7, linestyle=":", zorder=1)
    axes.set(xlim=(0, 1.25 * max(BUDGETS)), ylim=(0, 1.02))
    axes.set_xlabel("days with a false alarm, for each frame and year", fontsize=9, color=INK)
    axes.set_ylabel("share of the interferograms with deformation", fontsize=9, color=INK)
    axes.grid(color="#e9ecef", linewidth=0.7)
    style_axes(axes)
    figure.legend(
        handles=handles, loc="upper left", fontsize=8.5, frameon=False, labelcolor=INK,
        bbox_to_anchor=(1 - 3.35 / figure.get_figwidth(), 1 - 0.55 / height), labelspacing=0.7,
    )  # fmt: skip
    add_heading(figure, title, any(result.simulated for result in results))
    return figure


def draw_detection(results: Sequence[RunResult], title: str) -> Figure:
    """Draw how well runs tell each intensity, activity type and volcano from what shows no deformation.

    The AUROC does not depend on a threshold. Beside each name stand its single interferograms and series;
    of more than 60 names, those with the most are drawn.

    Parameters
    ----------
    results : sequence of RunResult
        Runs of one task. Runs of one setting have one colour; series have squares, controls are left out.
    title : str
        Title of the figure.
    """
    runs = [result for result in results if not result.recipe.get("control")]
    positives: dict[tuple[DeformationKind, str], dict[bool, int]] = {}
    for run in runs:
        for kind in DEFORMATION_KINDS:
            for name, scores in run.assessment.units["interferograms"].groups.get(kind, {}).items():
                positives.setdefault((kind, name), {})[run.series] = scores.positives
    frequent = sorted(positives, key=lambda row: -max(positives[row].values()))[:_MAX_KINDS]
    rows = sorted(frequent, key=lambda row: kind_order(*row))
    settings: dict[str, list[RunResult]] = {}
    for run in runs:
        settings.setdefault(setting_title(run), []).append(run)
    height = 1.5 + 0.3 * max(4, len(rows), 0.75 * len(settings))
    figure = make_figure(9.8, height)
    axes = figure.subplots()
    set_margins(figure, left=2.9, right=3.5, bottom=0.6)
    handles = []
    for number, (colour, (name, members)) in enumerate(
        zip(_line_colors(len(settings)), settings.items(), strict=True)
    ):
        marker = "s" if members[0].series else "o"
        shift = 0.5 * ((number + 0.5) / len(settings) - 0.5)
        for run in members:
            groups = run.assessment.units["interferograms"].groups
            known = [groups.get(kind, {}).get(label) for kind, label in rows]
            points = [(one.values["auroc"], place + shift) for place, one in enumerate(known) if one]
            for point in points:
                axes.plot(*point, marker, color=colour, markersize=4.5, alpha=0.8, clip_on=False)
        handles.append(Line2D([], [], color=colour, marker=marker, linestyle="", label=escape_mathtext(name)))
    axes.axvline(0.5, color=GREY, linewidth=1, linestyle=":", zorder=1)
    for place in range(1, len(rows)):
        if rows[place][0] != rows[place - 1][0]:
            axes.axhline(place - 0.5, color=GREY, linewidth=0.8)
    counts = [" / ".join(str(count) for _, count in sorted(positives[row].items())) for row in rows]
    labels = [escape_mathtext(f"{name} ({count})") for (_, name), count in zip(rows, counts, strict=True)]
    axes.set_yticks(range(len(rows)), labels)
    axes.set(xlim=(0, 1), ylim=(max(len(rows), 1) - 0.5, -0.5))
    axes.set_xlabel(
        "AUROC against interferograms without deformation (dotted: chance)", fontsize=9, color=INK
    )
    axes.grid(color="#e9ecef", linewidth=0.7)
    style_axes(axes)
    figure.legend(
        handles=handles, loc="upper left", fontsize=8.5, frameon=False, labelcolor=INK,
        bbox_to_anchor=(1 - 3.35 / figure.get_figwidth(), 1 - 0.55 / height), labelspacing=0.7,
    )  # fmt: skip
    add_heading(figure, title, any(result.simulated for result in results))
    return figure


def _deformation_share(predictions: Predictions) -> tuple[int, float]:
    """Return the number of items or pixels and the share of them with deformation."""
    found = compute_calibration(predictions, 1)
    return int(found.count[0]), float(found.observed_frequency[0])


def _line_colors(count: int) -> list[str]:
    return [LINE_COLORS[place % len(LINE_COLORS)] for place in range(count)]
