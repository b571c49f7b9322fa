"""What is reported of a model's detectability, as JSON, CSV and a picture."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator
from pydantic import Field

from hephaestus_baselines.detectability.detection_limits import (
    LIMIT_SHARES,
    MIN_PLACES,
    DetectionCurve,
    DetectionLimit,
)
from hephaestus_baselines.evaluation.result_schema import ResultModel, SanitizedText
from hephaestus_baselines.reporting.prediction_figures import add_heading, make_figure, set_margins
from hephaestus_build.core.atomic_io import translate_os_errors, write_atomic
from hephaestus_build.report.style import GREY, INK, PALE, style_axes

DETECTABILITY_FORMAT: Literal["hephaestus-detectability/3"] = "hephaestus-detectability/3"
#: Maximum number of frames that are drawn, those with the smallest limits first.
_MAX_FRAMES = 8
#: Maximum number of interferograms that are drawn.
_MAX_INTERFEROGRAMS = 60
_LIMIT_NAMES = dict(zip(LIMIT_SHARES, ("half found from", "9 of 10 found from"), strict=True))
_CENTIMETRE_TICKS, _FRINGE_TICKS = (0.25, 0.5, 1, 2, 4, 8, 16, 32), (0.1, 0.3, 1, 3, 10)


class InterferogramLimits(ResultModel):
    """The smallest displacement that is found in one interferogram, or in one series."""

    frame: SanitizedText
    pairs: list[SanitizedText]
    places: int
    false_alarms: int = Field(description="Places that raise an alarm without a source.")
    limits: list[DetectionLimit] = Field(
        description="Null of an interferogram with fewer than ten places. Intervals are over its places."
    )


class DetectabilityReport(ResultModel):
    """Detection of known sources that were added to quiet interferograms (``detectability.json``)."""

    format: Literal["hephaestus-detectability/3"] = DETECTABILITY_FORMAT
    simulated: bool = Field(description="Whether any interferogram is simulated.")
    trained_on_simulated: bool
    model: SanitizedText = Field(description="Key of the run.")
    checkpoint: str = Field(description="SHA-256 of the checkpoint.")
    task: Literal["classification", "segmentation"]
    steps: int = Field(description="Interferograms of an item; a source moves in all of them.")
    split: SanitizedText
    same_split: bool = Field(
        description="Whether the split is that of training; if not, some of the test part may be known."
    )
    tiling: str
    seed: int
    false_alarm_rate: float = Field(description="Share of quiet validation windows that may raise an alarm.")
    threshold: float = Field(description="Windows with a higher score raise an alarm.")
    validation_windows: int
    test_windows: int = Field(description="Windows of the test part that were scored without a source.")
    test_false_alarms: int = Field(
        description="How many of them raise an alarm: what a model that looks at no image finds, too."
    )
    frames_left_out: list[str] = Field(
        description="Frames whose cubes do not state the radar's geometry, so that no phase can be computed."
    )
    displacements_cm: list[float]
    all: DetectionCurve
    by_frame: dict[str, DetectionCurve]
    by_kind: dict[str, DetectionCurve]
    by_extent: dict[str, DetectionCurve] = Field(
        description="By thirds of the area that moves at least half as much as the most."
    )
    by_coherence: dict[str, DetectionCurve] = Field(
        description="By thirds of the mean coherence of that area."
    )
    by_interferogram: list[InterferogramLimits] = Field(
        description="Of each interferogram, or series, that has a place, by frame and date."
    )


def detectability_json_schema() -> dict[str, Any]:
    """Return the JSON Schema of the report, stored as ``schemas/detectability.json``."""
    content = DetectabilityReport.model_json_schema(mode="serialization")
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **content,
        "title": "Detectability of a model",
        "description": "detectability.json: see docs/detectability.md. Written from DetectabilityReport.",
    }


@dataclass(frozen=True)
class InjectedPlace:
    """A place, its source and its scores.

    Attributes
    ----------
    frame : str
    pairs : tuple of str
    row, column : int
        Pixel of the frame above the source.
    kind : str
    depth : float
        Metres.
    unit_volume : float
        Volume change for a largest displacement of one metre, cubic metres; it grows linearly.
    shape : dict of str to float
        Further parameters of the source (length, width, strike, dip, elongation).
    extent_km2 : float
    coherence : float
    quiet_score : float
        Score of the window without the source.
    scores : tuple of float
        Score for each displacement.
    """

    frame: str
    pairs: tuple[str, ...]
    row: int
    column: int
    kind: str
    depth: float
    unit_volume: float
    shape: dict[str, float]
    extent_km2: float
    coherence: float
    quiet_score: float
    scores: tuple[float, ...]


def write_detectability(
    folder: Path, report: DetectabilityReport, places: Sequence[InjectedPlace]
) -> list[Path]:
    """Write ``detectability.json``, ``.csv`` (a row for each place and displacement) and ``.png``.

    Where the limits of single interferograms are known, ``detectability-interferograms.png`` shows them.

    Parameters
    ----------
    folder : pathlib.Path
        Folder of the files; made if it does not exist.
    report : DetectabilityReport
    places : sequence of InjectedPlace

    Raises
    ------
    HephaestusError
        If a file cannot be written.
    """
    contents = {
        "detectability.json": report.model_dump_json(indent=2).encode() + b"\n",
        "detectability.csv": _format_places(report, places).encode(),
        "detectability.png": _draw_as_png(draw_detectability(report)),
    }
    if any(one.places >= MIN_PLACES for one in report.by_interferogram):
        contents["detectability-interferograms.png"] = _draw_as_png(draw_interferogram_limits(report))
    with translate_os_errors(f"{report.model}: writing {folder}", setting="--to"):
        folder.mkdir(parents=True, exist_ok=True)
        for name, content in contents.items():
            write_atomic(folder / name, content)
    return [folder / name for name in contents]


def _draw_as_png(figure: Figure) -> bytes:
    picture = io.BytesIO()
    figure.savefig(picture, format="png", metadata={"Software": None})
    return picture.getvalue()


def _format_places(report: DetectabilityReport, places: Sequence[InjectedPlace]) -> str:
    shapes = ("length", "width", "strike", "dip", "elongation")
    stream = io.StringIO()
    table = csv.writer(stream, lineterminator="\n")
    table.writerow(
        [
            "frame", "pairs", "row", "column", "kind", "depth_m", "volume_m3",
            *(f"{name}_m" if name in ("length", "width") else f"{name}_deg" if name != "elongation" else name
              for name in shapes),
            "extent_km2", "coherence", "displacement_cm", "score", "alarm",
        ]
    )  # fmt: skip
    for place in places:
        known = [
            place.frame, " ".join(place.pairs), place.row, place.column, place.kind, f"{place.depth:.1f}",
        ]  # fmt: skip
        shape = [f"{place.shape[name]:.6g}" if name in place.shape else "" for name in shapes]
        seen = [f"{place.extent_km2:.4g}", f"{place.coherence:.4g}"]
        trials = zip([0.0, *report.displacements_cm], [place.quiet_score, *place.scores], strict=True)
        for displacement, score in trials:
            volume = f"{place.unit_volume * displacement / 100:.8g}"
            alarm = int(score > report.threshold)
            table.writerow([*known, volume, *shape, *seen, f"{displacement:g}", repr(score), alarm])
    return stream.getvalue()


def draw_detectability(report: DetectabilityReport) -> Figure:
    """Draw the curve of all places with its interval, and those of frames, kinds, extent and coherence.

    Parameters
    ----------
    report : DetectabilityReport
    """
    figure = make_figure(11.2, 6.4)
    grid = figure.add_gridspec(2, 4)
    set_margins(figure, left=0.6, right=0.2, bottom=0.62, top=0.95, wspace=0.3, hspace=0.42)
    main = figure.add_subplot(grid[:, :2])
    _draw_curve(main, report.all, INK, "all places", interval=True)
    limits = [limit for limit in report.all.limits if not np.isnan(limit.displacement_cm)]
    for limit in limits:
        main.vlines(limit.displacement_cm, 0, 100 * limit.share, color=GREY, linewidth=0.8, linestyle=":")
        main.annotate(
            f"{limit.displacement_cm:.2g} cm", (limit.displacement_cm, 100 * limit.share), xytext=(6, -3),
            textcoords="offset points", fontsize=9, color=INK,
        )  # fmt: skip
    raised = [100 * point.detected / max(point.cases, 1) for point in report.all.points]
    achieved = 100 * report.test_false_alarms / max(report.test_windows, 1)
    main.plot(
        report.displacements_cm, raised, color=GREY, linewidth=1, linestyle="--",
        label=f"alarms, of which {achieved:.1f} % without a source",
    )  # fmt: skip
    main.legend(fontsize=8, framealpha=0.7, edgecolor="none", loc="lower right", handlelength=1.8)
    _style(main, "share of sources found beyond false alarms, %")
    fringes = main.secondary_xaxis("top", functions=_fringe_scale(report))
    fringes.set_xlabel("fringes", fontsize=8, color=INK)
    fringes.tick_params(labelsize=8, length=3, color=PALE, labelcolor=INK)
    _name_ticks(fringes, _FRINGE_TICKS)
    groups = {
        "by kind of source": report.by_kind,
        "by extent": report.by_extent,
        "by coherence": report.by_coherence,
        "by frame": _first_frames(report.by_frame),
    }
    for place, (title, curves) in enumerate(groups.items()):
        axes = figure.add_subplot(grid[place // 2, 2 + place % 2])
        for number, (name, curve) in enumerate(curves.items()):
            colour, marker = (known[number % len(known)] for known in (_COLORS, _MARKERS))
            _draw_curve(axes, curve, colour, name, marker=marker)
        axes.set_title(title, fontsize=9, color=INK, loc="left")
        axes.legend(fontsize=6.5, framealpha=0.7, edgecolor="none", loc="best", handlelength=1.8)
        _style(axes, "")
    add_heading(
        figure,
        f"Detection of added sources at {100 * report.false_alarm_rate:g} % false alarms: {report.model}",
        report.simulated,
    )
    return figure


def draw_interferogram_limits(report: DetectabilityReport) -> Figure:
    """Draw the smallest displacement found in each interferogram with enough places, with its interval.

    Parameters
    ----------
    report : DetectabilityReport
    """
    known = [one for one in report.by_interferogram if one.places >= MIN_PLACES][:_MAX_INTERFEROGRAMS]
    smallest, largest = report.displacements_cm[0], report.displacements_cm[-1]
    figure = make_figure(8.6, 1.3 + 0.24 * len(known))
    set_margins(figure, left=3.5, right=0.2, bottom=0.5, top=0.75)
    axes = figure.add_subplot()
    for number, share in enumerate(LIMIT_SHARES):
        color, marker = _COLORS[number], _MARKERS[number]
        for row, one in enumerate(known):
            limit = one.limits[number]
            height = row + 0.24 * (number - 0.5)
            # an edge that is not known lies outside what was tried
            low = smallest if np.isnan(limit.low_cm) else limit.low_cm
            high = largest if np.isnan(limit.high_cm) else limit.high_cm
            low, high = np.clip([low, high], smallest, largest).tolist()
            axes.plot([low, high], [height, height], color=color, linewidth=1.2, alpha=0.6)
            if not np.isnan(limit.displacement_cm):
                axes.plot(limit.displacement_cm, height, marker=marker, markersize=4, color=color)
        axes.plot([], [], color=color, marker=marker, markersize=4, label=_LIMIT_NAMES[share])
    names = [f"{one.frame} {one.pairs[0]}{' ...' if len(one.pairs) > 1 else ''}" for one in known]
    axes.set_yticks(range(len(known)), names)
    axes.set_ylim(len(known) - 0.4, -0.6)
    axes.set_xscale("log")
    axes.set_xlim(smallest / 1.1, largest * 1.1)
    axes.set_xlabel("largest displacement in line of sight, cm (no mark: outside what was tried)", fontsize=8)
    _name_ticks(axes, _CENTIMETRE_TICKS)
    axes.legend(fontsize=7, framealpha=0.7, edgecolor="none", loc="best", handlelength=1.8)
    style_axes(axes)
    axes.grid(True, axis="x", color=PALE, alpha=0.3, linewidth=0.5)
    add_heading(
        figure,
        f"Single interferograms at {100 * report.false_alarm_rate:g} % false alarms: {report.model}",
        report.simulated,
    )
    return figure


# colours that people with each kind of colour blindness tell apart (Okabe and Ito), with a marker each
_COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000", "#7F7F7F")
_MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")


def _first_frames(curves: dict[str, DetectionCurve]) -> dict[str, DetectionCurve]:
    def limit(curve: DetectionCurve) -> float:
        value = curve.limits[0].displacement_cm
        return float("inf") if np.isnan(value) else value

    order = sorted(curves, key=lambda frame: limit(curves[frame]))
    return {frame: curves[frame] for frame in order[:_MAX_FRAMES]}


def _draw_curve(
    axes: Any, curve: DetectionCurve, color: str, label: str, *, interval: bool = False, marker: str = "o"
) -> None:
    displacement = [point.displacement_cm for point in curve.points]
    share = [100 * point.beyond_false_alarms for point in curve.points]
    axes.plot(
        displacement, share, color=color, marker=marker, markersize=4, linewidth=1.6,
        label=f"{label} ({curve.places})",
    )  # fmt: skip
    if interval:
        low, high = (
            [100 * getattr(point, name) for point in curve.points] for name in ("beyond_low", "beyond_high")
        )
        axes.fill_between(displacement, low, high, color=color, alpha=0.15, linewidth=0)


def _fringe_scale(report: DetectabilityReport) -> tuple[Any, Any]:
    point = report.all.points[0]
    factor = point.fringes / point.displacement_cm

    def to_fringes(values: npt.NDArray[Any]) -> npt.NDArray[Any]:
        return np.asarray(values) * factor

    def to_centimetres(values: npt.NDArray[Any]) -> npt.NDArray[Any]:
        return np.asarray(values) / factor

    return to_fringes, to_centimetres


def _name_ticks(axes: Any, ticks: Sequence[float]) -> None:
    axes.xaxis.set_major_locator(FixedLocator(ticks))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))


def _style(axes: Any, label: str) -> None:
    axes.set_xscale("log")
    axes.set_ylim(-2, 102)
    axes.set_xlabel("largest displacement in line of sight, cm", fontsize=8, color=INK)
    axes.set_ylabel(label, fontsize=8, color=INK)
    _name_ticks(axes, _CENTIMETRE_TICKS)
    style_axes(axes)
    axes.grid(True, color=PALE, alpha=0.3, linewidth=0.5)
