"""Lateral gradients of water vapour: how uneven the air was over a frame, and how that compares over time.

Uneven vapour delays the signal unevenly and so imitates deformation. The gradients are computed on ERA5's own
grid, which is coarser than an interferogram by a factor of about 250.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import date

import numpy as np
import numpy.typing as npt
import xarray as xr
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from hephaestus_build.core.errors import HephaestusError, UsageError
from hephaestus_build.core.frames import Pair
from hephaestus_build.report.map_axes import draw_map_frame, draw_scale_bar, ground_ratio
from hephaestus_build.report.palette_png import encode_palette_png, phase_colours
from hephaestus_build.report.panels import draw_outlines, draw_phase, draw_vapour
from hephaestus_build.report.quicklook_data import QuicklookData, read_pair_network, read_quicklook_data
from hephaestus_build.report.style import ALARM, BLUE, GREY, INK, draw_heading, style_axes

_KM_PER_DEGREE = 111.195
_VAPOUR = "era5_total_column_water_vapour"
#: Unit of all gradients.
UNIT = "kg m$^{-2}$ per 100 km"


@dataclass(frozen=True)
class VapourGradients:
    """Mean lateral gradients of the water vapour of a frame, in kg m-2 per 100 km, by pair.

    Attributes
    ----------
    of_dates : mapping of Pair to float
        Mean of the gradients at the primary and at the secondary date, as in the paper's Figure 4.
    of_difference : mapping of Pair to float
        Gradient of the secondary field minus the primary field, which is what delays the phase.
    """

    of_dates: Mapping[Pair, float]
    of_difference: Mapping[Pair, float]

    def count_below(self, pair: Pair, *, difference: bool = False) -> int:
        """Return how many of the frame's pairs have a smaller gradient than `pair`."""
        values = self.of_difference if difference else self.of_dates
        return sum(value < values[pair] for value in values.values())


def mean_lateral_gradient(
    field: npt.NDArray[np.floating], latitudes: npt.NDArray[np.floating], longitudes: npt.NDArray[np.floating]
) -> float:
    """Return the mean magnitude of the horizontal gradient of a field, per 100 km.

    Parameters
    ----------
    field : numpy.ndarray
        Shape (latitudes, longitudes); NaN is no data and is left out.
    latitudes, longitudes : numpy.ndarray
        In degrees, evenly spaced, at least two of each.

    Returns
    -------
    float
        Unit of the field per 100 km; NaN if there is no data.
    """
    if not np.isfinite(field).any():
        return float("nan")
    north = np.gradient(field, _KM_PER_DEGREE * latitudes, axis=0)
    east = np.gradient(field, _KM_PER_DEGREE * longitudes, axis=1) / np.cos(np.radians(latitudes))[:, None]
    slope = np.hypot(north, east)
    return float(100 * np.nanmean(slope)) if np.isfinite(slope).any() else float("nan")


def compute_vapour_gradients(cube: xr.Dataset) -> VapourGradients:
    """Return the gradients of all stored pairs of a cube whose two dates have water vapour.

    Raises
    ------
    HephaestusError
        If there is none, or ERA5's grid has fewer than two points in one direction.
    """
    frame = str(cube.attrs.get("frame", "cube"))
    latitudes, longitudes = (cube[f"era5_{axis}"].values for axis in ("latitude", "longitude"))
    if min(len(latitudes), len(longitudes)) < 2:
        raise HephaestusError(f"{frame}: ERA5's grid is too small for a gradient")
    days: list[date] = cube["epoch"].values.astype("datetime64[D]").tolist()
    fields = dict(zip(days, cube[_VAPOUR].values.astype("f8"), strict=True))
    single = {day: mean_lateral_gradient(field, latitudes, longitudes) for day, field in fields.items()}
    of_dates, of_difference = {}, {}
    for pair in read_pair_network(cube).pairs:
        one, other = (single.get(day, np.nan) for day in pair.dates)
        if np.isfinite(one) and np.isfinite(other):
            of_dates[pair] = (one + other) / 2
            change = fields[pair.secondary] - fields[pair.primary]
            of_difference[pair] = mean_lateral_gradient(change, latitudes, longitudes)
    if not of_dates:
        raise HephaestusError(
            f"{frame}: no pair has water vapour at both dates; `hephaestus build {frame}` fetches it"
        )
    return VapourGradients(of_dates, of_difference)


def draw_vapour_figure(cube: xr.Dataset, pair: Pair | None = None) -> tuple[Pair, bytes]:
    """Draw one pair's phase and change of vapour, and its gradients among all pairs; return pair and PNG.

    Parameters
    ----------
    cube : xarray.Dataset
        The cube.
    pair : Pair, optional
        By default the pair with the largest gradient of the difference.

    Raises
    ------
    UsageError
        If the pair is not stored, or has no water vapour.
    HephaestusError
        If no pair has water vapour.
    """
    gradients = compute_vapour_gradients(cube)
    shown = pair or max(gradients.of_difference, key=gradients.of_difference.__getitem__)
    view = read_quicklook_data(cube, shown, largest=300)
    if shown not in gradients.of_dates:
        raise UsageError(f"{view.frame}: {shown} has no water vapour at both dates")
    colours = [phase_colours(), colormaps["BrBG"](np.linspace(0, 1, 96))[:, :3]]
    return shown, encode_palette_png(_plot(view, gradients), np.concatenate(colours))


def _plot(view: QuicklookData, gradients: VapourGradients) -> Figure:
    shown = view.pair
    west, east, south, north = view.extent
    wide = float(np.clip(2.9 * (east - west) * ground_ratio(view.extent) / (north - south), 1.0, 3.6))
    figure = Figure((2 * wide + 6.3, 4.75), dpi=110, facecolor="white")
    width, height = figure.get_size_inches()

    def box(left: float, top: float, across: float, down: float) -> Axes:
        return figure.add_axes((left / width, 1 - (top + down) / height, across / width, down / height))

    main = box(0.3, 0.95, wide, 2.9)
    draw_phase(main, box(0.3, 4.05, min(wide, 1.9), 0.1), _without_watermark(view))
    for text in figure.axes[1].texts:
        text.remove()
    figure.axes[1].tick_params(labelsize=7)
    figure.axes[1].set_xlabel("wrapped phase (rad)", fontsize=7.5, color=INK, labelpad=1)
    draw_map_frame(main, view.extent, labels=False)
    main.set_title("phase", fontsize=9, loc="left", pad=4, color=INK)
    draw_outlines(main, view, width=1.2)
    vapour = box(0.55 + wide, 0.95, wide, 2.9)
    draw_vapour(vapour, box(0.62 + 2 * wide, 0.95, 0.11, 2.9), view)
    draw_map_frame(vapour, view.extent, labels=False)
    left = 2 * wide + 1.95
    for row, difference in enumerate((False, True)):
        draw_gradient_histogram(
            box(left, 0.95 + 1.72 * row, 4.1, 1.15), gradients, shown, difference=difference
        )
    for axes in (main, vapour):
        draw_scale_bar(axes, 1 / (_KM_PER_DEGREE * ground_ratio(view.extent)), size=8)
    title = f"{view.frame}  {shown}: lateral gradient of water vapour"
    draw_heading(figure, title, view.is_simulated, margins=(0.3, 0.2, 0.28))
    return figure


def _without_watermark(view: QuicklookData) -> QuicklookData:
    """Return the view as it is drawn where the figure as a whole is marked as simulated."""
    return replace(view, attributes={**view.attributes, "simulated": False})


def draw_gradient_histogram(
    axes: Axes, gradients: VapourGradients, pair: Pair, *, difference: bool = False
) -> None:
    """Draw the distribution of the gradients of a frame's pairs, and where one pair is in it.

    Parameters
    ----------
    axes : matplotlib.axes.Axes
    gradients : VapourGradients
    pair : Pair
        The marked pair.
    difference : bool
        Whether to show the gradient of the difference of the two dates instead of the mean of both.
    """
    known = gradients.of_difference if difference else gradients.of_dates
    values = np.array(list(known.values()))
    axes.hist(values, min(30, max(8, len(values) // 6)), color=BLUE, linewidth=0)
    axes.axvline(known[pair], color=ALARM, linewidth=1.6)
    below = gradients.count_below(pair, difference=difference)
    what = "secondary − primary" if difference else "mean of both dates"
    axes.set_title(
        f"this pair {known[pair]:.2g}: above {below} of {len(values)}", fontsize=8.5, loc="right",
        color=ALARM, pad=3,
    )  # fmt: skip
    axes.set_xlim(left=0)
    axes.yaxis.set_major_locator(MaxNLocator(4, integer=True))
    axes.set_ylabel("pairs", fontsize=8, color=GREY)
    axes.set_xlabel(f"gradient, {what} ({UNIT})", fontsize=7.5, color=GREY, labelpad=1)
    style_axes(axes, 7.5)
