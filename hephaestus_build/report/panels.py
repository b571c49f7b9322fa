"""Panels of a cube's quicklook: maps on the frame's grid, and the network of pairs over time."""

from __future__ import annotations

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colorbar import Colorbar
from matplotlib.colors import LightSource, ListedColormap, Normalize
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator
from scipy import ndimage

from hephaestus_build.core.plain_text import count_of
from hephaestus_build.cube.schema import cube_schema
from hephaestus_build.report.image_ops import hillshade, phase_colormap
from hephaestus_build.report.map_axes import figure_of, halo, size_in_inches
from hephaestus_build.report.pair_network import draw_pair_arches, pair_arches
from hephaestus_build.report.quicklook_data import QuicklookData
from hephaestus_build.report.style import ALARM, BLUE, GREY, INK, PALE, SILVER

#: The wavelength of Sentinel-1 is 5.55 cm. One cycle is half of it, since the path is travelled twice.
_FRINGE = "one turn = 2.8 cm along the line of sight"
#: Maximum number of labelled regions per activity type.
_MAX_REGION_NAMES = 5


def draw_phase(axes: Axes, below: Axes, view: QuicklookData) -> None:
    """Draw the wrapped phase with its colour bar, and a watermark on simulated data.

    Parameters
    ----------
    axes, below : matplotlib.axes.Axes
        Axes of the map and of the colour bar below it.
    view : QuicklookData
        The data.
    """
    image = axes.imshow(
        view.phase,
        cmap=phase_colormap(),
        vmin=-np.pi,
        vmax=np.pi,
        extent=view.extent,
        interpolation="nearest",
    )
    turns = np.pi * np.arange(-1, 1.5, 0.5)
    bar = figure_of(axes).colorbar(image, cax=below, orientation="horizontal", ticks=turns)
    _tidy(bar)
    bar.set_ticks(turns.tolist(), labels=["−π", "−π/2", "0", "π/2", "π"])
    below.text(1.04, 0.1, f"wrapped phase (rad); {_FRINGE}", transform=below.transAxes, fontsize=9, color=INK)
    if view.is_simulated:
        _mark_simulated(axes)


def _mark_simulated(axes: Axes) -> None:
    wide, tall = size_in_inches(axes)
    slender = tall > 2 * wide
    axes.text(
        0.5, 0.5, "SIMULATED", transform=axes.transAxes, fontsize=min(46, 28 * wide, 9 * tall),
        fontweight="bold", rotation=90 if slender else 28, ha="center", va="center", color="white", alpha=0.3,
        zorder=5,
    )  # fmt: skip
    axes.text(
        0.985, 0.985, "SIMULATED DATA", transform=axes.transAxes, fontsize=min(11, 4.4 * wide),
        fontweight="bold", ha="right", va="top", color="white",
        bbox={"facecolor": ALARM, "edgecolor": "none", "pad": 4}, zorder=6,
    )  # fmt: skip


def draw_coherence(axes: Axes, beside: Axes, view: QuicklookData) -> None:
    """Draw the coherence with its colour bar.

    Parameters
    ----------
    axes, beside : matplotlib.axes.Axes
        Axes of the map and of the colour bar next to it.
    view : QuicklookData
        The data.
    """
    image = axes.imshow(view.coherence, cmap="gray", vmin=0, vmax=1, extent=view.extent)
    bar = figure_of(axes).colorbar(image, cax=beside, ticks=[0, 0.5, 1])
    _tidy(bar)
    _panel_title(axes, "coherence")


def draw_terrain(axes: Axes, beside: Axes, view: QuicklookData) -> None:
    """Draw the height as a hillshade with its colour bar.

    Parameters
    ----------
    axes, beside : matplotlib.axes.Axes
        Axes of the map and of the colour bar next to it.
    view : QuicklookData
        The data.
    """
    _panel_title(axes, "height (m)")
    if np.isnan(view.height).all():
        _missing(axes, beside, "DEM is missing")
        return
    west_east, north_south = view.grid.pixel_size_m()
    shade = hillshade(view.height, (west_east, north_south))
    low, high = np.nanpercentile(view.height, (0.5, 99.8))
    scale = Normalize(low, max(high, low + 1))
    colours = colormaps["gist_earth"]
    tinted = colours(0.35 + 0.6 * scale(view.height).filled(0).clip(0, 1))
    shaded = LightSource().blend_soft_light(tinted[..., :3], np.nan_to_num(shade, nan=0.5)[..., None])
    axes.imshow(np.dstack([shaded, ~np.isnan(view.height)]), extent=view.extent)
    part = ListedColormap(colours(np.linspace(0.35, 0.95, 256)))
    bar = figure_of(axes).colorbar(ScalarMappable(scale, part), cax=beside)
    bar.locator = MaxNLocator(4)
    _tidy(bar)


def draw_vapour(axes: Axes, beside: Axes, view: QuicklookData) -> None:
    """Draw the change of water vapour between the two acquisitions with its colour bar.

    Parameters
    ----------
    axes, beside : matplotlib.axes.Axes
        Axes of the map and of the colour bar next to it.
    view : QuicklookData
        The data.
    """
    space = " " if size_in_inches(axes)[0] > 2 else "\n"
    _panel_title(axes, f"water vapour,{space}later − earlier (kg m$^{{-2}}$)")
    if np.isnan(view.vapour).all():
        _missing(axes, beside, "ERA5 is missing")
        return
    limit = max(1.2 * float(np.nanmax(np.abs(view.vapour))), 0.1)
    image = axes.imshow(view.vapour, cmap="BrBG", vmin=-limit, vmax=limit, extent=view.extent)
    if np.ptp(view.vapour) > 0.01:
        # a uniform change causes no fringes: contour lines show the spatial variation
        lines = axes.contour(
            view.grid.longitudes, view.grid.latitudes, view.vapour, locator=MaxNLocator(4, steps=[1, 2, 5]),
            colors=[INK], linewidths=0.4, linestyles="solid",
        )  # fmt: skip
        for label in axes.clabel(lines, fontsize=6.5, inline_spacing=2):
            label.set_path_effects(halo(1.5))
    bar = figure_of(axes).colorbar(image, cax=beside)
    bar.locator = MaxNLocator(5, symmetric=True)
    _tidy(bar)


def _panel_title(axes: Axes, text: str) -> None:
    axes.set_title(text, fontsize=9, loc="left", pad=4, color=INK)


def _missing(axes: Axes, beside: Axes, text: str) -> None:
    beside.set_axis_off()
    axes.text(0.5, 0.5, text, transform=axes.transAxes, ha="center", va="center", color=GREY, fontsize=11)


def _tidy(bar: Colorbar) -> None:
    bar.outline.set_visible(False)
    bar.ax.tick_params(labelsize=8, length=2, color=PALE, labelcolor=INK)
    bar.update_ticks()


def draw_outlines(axes: Axes, view: QuicklookData, *, width: float, names: bool = False) -> None:
    """Draw the outlines of the regions of each activity type.

    Parameters
    ----------
    axes : matplotlib.axes.Axes
        Axes of the map.
    view : QuicklookData
        The data.
    width : float
        Line width in points.
    names : bool
        Whether to label the larger regions with activity and intensity.
    """
    meanings = {
        name: cube_schema().variables[name].attributes["flag_meanings"].split()
        for name in ("activity_type_mask", "intensity_level_mask")
    }
    outline = halo(2.2 * width)
    for code in np.unique(view.activity[view.activity > 0]):
        inside = view.activity == code
        # pad the mask, so that outlines are closed at the edge of the frame
        padded = np.pad(inside, 1)
        columns = np.concatenate([[view.extent[0]], view.grid.longitudes, [view.extent[1]]])
        rows = np.concatenate([[view.extent[3]], view.grid.latitudes, [view.extent[2]]])
        lines = axes.contour(
            columns, rows, padded.astype("f4"), levels=[0.5], colors=[INK], linewidths=width, zorder=4
        )
        lines.set_path_effects(outline)
        if names:
            for region in _regions(inside):
                level = meanings["intensity_level_mask"][int(np.bincount(view.intensity[region]).argmax())]
                strength = f", {level.lower()}" if level in ("Low", "Medium", "High") else ""
                _draw_region_name(axes, view, region, meanings["activity_type_mask"][code] + strength)


def _regions(inside: np.ndarray) -> list[np.ndarray]:
    """Return the connected regions of a mask, without those below 2 % of the largest one."""
    labels, _ = ndimage.label(inside)
    areas = np.bincount(labels.ravel())[1:]
    return [labels == 1 + index for index in np.flatnonzero(areas > 0.02 * areas.max())][:_MAX_REGION_NAMES]


def _draw_region_name(axes: Axes, view: QuicklookData, inside: np.ndarray, text: str) -> None:
    """Write `text` above a region, or below it if there is no space above."""
    rows, columns = np.nonzero(inside)
    above = rows.min() > 0.05 * view.grid.height
    row = rows.min() if above else rows.max()
    column = int(np.median(columns[rows == row]))
    # align the text inwards near an edge of the frame
    share = column / view.grid.width
    side = "left" if share < 0.2 else "right" if share > 0.8 else "center"
    axes.annotate(
        text, (view.grid.longitudes[column], view.grid.latitudes[row]), xytext=(0, 5 if above else -5),
        textcoords="offset points", fontsize=min(10.5, 5.5 * size_in_inches(axes)[0]), fontweight="bold",
        ha=side, va="bottom" if above else "top", color=INK, path_effects=halo(2.6), zorder=8,
    )  # fmt: skip


def draw_pair_network(axes: Axes, view: QuicklookData) -> None:
    """Draw every stored pair as an arch from date to date, whose height is its number of days."""
    network = view.network
    kinds = (
        ("not annotated", ~network.annotated, SILVER),
        ("annotated", network.annotated & ~network.deforming, BLUE),
        ("with deformation", network.deforming, ALARM),
    )
    groups = [
        (label, colour, [pair for pair, inside in zip(network.pairs, chosen, strict=True) if inside])
        for label, chosen, colour in kinds
        if chosen.any()
    ]
    thin = float(np.clip(40 / np.sqrt(len(network.pairs)), 0.35, 1.0))
    handles = draw_pair_arches(axes, groups, linewidth=thin, alpha=0.85, label_size=8.5)
    axes.plot(*pair_arches([view.pair])[0].T, color=INK, linewidth=2, zorder=9)
    handles.append(Line2D([], [], color=INK, linewidth=2, label="shown"))
    axes.yaxis.set_major_locator(MaxNLocator(3, integer=True))
    epochs = {day for pair in network.pairs for day in pair.dates}
    axes.set_title(
        f"{count_of(len(network.pairs), 'interferogram')} of {count_of(len(epochs), 'acquisition')}",
        fontsize=9,
        loc="left",
        pad=4,
    )
    axes.legend(
        handles=handles, loc="lower right", bbox_to_anchor=(1, 0.98), ncols=len(handles), fontsize=8.5,
        frameon=False, handlelength=1.4, columnspacing=1.2, borderpad=0,
    )  # fmt: skip
