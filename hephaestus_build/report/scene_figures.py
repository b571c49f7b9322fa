"""Figures of annotated interferograms: types of deformation, a series with its masks, captions."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib.dates as mdates
import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from hephaestus_build.core.frames import Pair
from hephaestus_build.core.plain_text import count_of
from hephaestus_build.cube.schema import cube_schema
from hephaestus_build.report.image_ops import phase_colormap
from hephaestus_build.report.map_axes import draw_scale_bar, halo
from hephaestus_build.report.palette_png import encode_palette_png, phase_colours
from hephaestus_build.report.scenes import Scene
from hephaestus_build.report.style import (
    ALARM,
    AMBER,
    BLUE,
    EMPTY,
    GREY,
    INK,
    PALE,
    WINE,
    draw_heading,
    style_axes,
)
from hephaestus_build.report.text_rendering import escape_mathtext

#: Colours of the codes of both masks, of which a figure shows one at a time; 0 is no deformation.
TYPE_COLOURS = {1: BLUE, 2: AMBER, 3: WINE, 4: "#7fc4b8", 5: ALARM, 6: "#222255"}
INTENSITY_COLOURS = {1: "#cdeac0", 2: "#5fae76", 3: "#0b4a2c", 4: "#8a6fb0"}
_DPI = 110
_PANEL = 2.45  # inches
_OPACITY = 0.55  # of masks


def plot_types(scenes: Mapping[int, Scene]) -> Figure:
    """Return a gallery of the types of deformation, as in the paper's Figure 2: phase with the outline.

    Parameters
    ----------
    scenes : mapping of int to Scene
        A scene for each code of the activity type mask.
    """
    columns = min(3, len(scenes))
    rows = -(-len(scenes) // columns)
    figure = _figure(columns * (_PANEL + 0.15) + 0.25, rows * (_PANEL + 0.5) + 0.95)
    for place, (code, scene) in enumerate(scenes.items()):
        axes = _panel(figure, place // columns, place % columns, below=0.5)
        _show_phase(axes, scene)
        _outline(axes, scene.activity == code, ALARM)
        _scale(axes, scene)
        level = np.bincount(scene.intensity[scene.activity == code]).argmax()
        strength = meaning_of("intensity_level_mask", int(level))
        intensity = f", {strength.lower()} intensity" if strength != "None" else ""
        _caption(axes, f"{meaning_of('activity_type_mask', code)}{intensity}", f"{scene.frame}  {scene.pair}")
    _phase_scale(figure)
    simulated = any(scene.simulated for scene in scenes.values())
    draw_heading(figure, "Types of deformation", simulated)
    return figure


def plot_series(scenes: Sequence[Scene]) -> Figure:
    """Return a series with one primary date: how it is made, its phase, and both masks over grey phase.

    The dates and arcs are those of the paper's Figure 3, the rows with masks those of its Figure 6.
    """
    west_east, north_south = scenes[0].grid.pixel_size_m()
    rows, columns = scenes[0].phase.shape
    wide = max(min(_PANEL, _PANEL * columns * west_east / (rows * north_south)), 1.5)
    step, top = _PANEL + 0.12, 2.05
    figure = _figure(max(len(scenes) * (wide + 0.15) + 0.8, 7.2), top + 3 * step + 0.75)
    dates = figure.add_axes(_place(figure, 0.75, 0.6, figure.get_figwidth() - 0.95, 1.0))
    _draw_dates(dates, [scene.pair for scene in scenes])
    for column, scene in enumerate(scenes):
        above, types, levels = (
            figure.add_axes(_place(figure, 0.75 + column * (wide + 0.15), top + row * step, wide, _PANEL))
            for row in range(3)
        )
        _show_phase(above, scene)
        days = (scene.pair.secondary - scene.pair.primary).days
        _caption(above, f"{column + 1}. to {scene.pair.secondary}, {count_of(days, 'day')}")
        _show_mask(types, scene, scene.activity, TYPE_COLOURS)
        _show_mask(levels, scene, scene.intensity, INTENSITY_COLOURS)
        for axes in (above, types, levels):
            _scale(axes, scene)
    for row, word in enumerate(("wrapped phase", "activity type", "intensity level")):
        level = 1 - (top + row * step + _PANEL / 2) / figure.get_figheight()
        figure.text(
            0.5 / figure.get_figwidth(), level, word, rotation=90, fontsize=9, ha="center", va="center",
            color=INK,
        )  # fmt: skip
    _series_legend(figure, scenes)
    _phase_scale(figure)
    draw_heading(
        figure,
        f"{scenes[0].frame}: series of {len(scenes)}, primary {scenes[0].pair.primary}",
        any(scene.simulated for scene in scenes),
    )
    return figure


def plot_captions(scenes: Sequence[Scene]) -> Figure:
    """Return interferograms with the experts' captions in full below them, as in the paper's Figure 5."""
    columns, wide = len(scenes), 3.1
    texts = [textwrap.wrap(escape_mathtext(scene.caption, 2000), 46) for scene in scenes]
    lines = max(map(len, texts))
    figure = _figure(columns * (wide + 0.2) + 0.2, wide + 1.35 + 0.155 * lines)
    for column, (scene, text) in enumerate(zip(scenes, texts, strict=True)):
        left = 0.2 + column * (wide + 0.2)
        axes = figure.add_axes(_place(figure, left, 0.75, wide, wide))
        _show_phase(axes, scene)
        _outline(axes, scene.activity > 0, ALARM)
        _scale(axes, scene)
        _caption(axes, f"{scene.frame}  {scene.pair}")
        figure.text(
            left / figure.get_figwidth(), 1 - (0.75 + wide + 0.1) / figure.get_figheight(), "\n".join(text),
            fontsize=8, color=INK, va="top", linespacing=1.25,
        )  # fmt: skip
    _phase_scale(figure)
    draw_heading(
        figure, "Interferograms and what the experts wrote", any(scene.simulated for scene in scenes)
    )
    return figure


def encode_scenes(figure: Figure) -> bytes:
    """Return a figure of this module as a PNG, with a palette made of the colours that it uses."""
    masks = np.array([to_rgb(one) for one in (*TYPE_COLOURS.values(), *INTENSITY_COLOURS.values())])
    over_gray = _OPACITY * masks + (1 - _OPACITY) * np.linspace(0.3, 1, 6)[:, np.newaxis, np.newaxis]
    return encode_palette_png(figure, np.concatenate([phase_colours(), masks, over_gray.reshape(-1, 3)]))


def meaning_of(mask: str, code: int) -> str:
    """Return what a code of a mask means, as the cube's schema says."""
    return str(cube_schema().variables[mask].attributes["flag_meanings"].split()[code]).replace("_", " ")


def _show_phase(axes: Axes, scene: Scene) -> None:
    """Show the phase of a scene in colour, with a scale bar."""
    _show(axes, scene, scene.phase, cmap=phase_colormap(), vmin=-np.pi, vmax=np.pi)


def _show_mask(axes: Axes, scene: Scene, codes: npt.NDArray[np.uint8], colours: Mapping[int, str]) -> None:
    """Show a mask over phase in pale grey."""
    _show(axes, scene, scene.phase, cmap="gray", vmin=-2.8 * np.pi, vmax=1.15 * np.pi)
    layer = np.zeros((*codes.shape, 4))
    for code, colour in colours.items():
        layer[codes == code] = [*(int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)), _OPACITY]
    _show(axes, scene, layer)
    for code in np.unique(codes[codes > 0]):
        _outline(axes, codes == code, colours[int(code)])


def _show(axes: Axes, scene: Scene, image: npt.NDArray[Any], **style: Any) -> None:
    west_east, north_south = scene.grid.pixel_size_m()
    axes.imshow(image, interpolation="nearest", aspect=north_south / west_east, **style)
    axes.set(xticks=[], yticks=[], facecolor=EMPTY, anchor="NW")
    for spine in axes.spines.values():
        spine.set(color=PALE, linewidth=0.6)


def _outline(axes: Axes, inside: npt.NDArray[np.bool_], colour: str) -> None:
    if inside.any():
        padded = np.pad(inside.astype("f4"), 1)
        rows, columns = ([-0.2, *range(size), size - 0.8] for size in inside.shape)
        lines = axes.contour(columns, rows, padded, [0.5], colors=[colour], linewidths=1.4, zorder=4)
        lines.set_path_effects(halo(2.8))
        axes.set(xlim=(-0.5, inside.shape[1] - 0.5), ylim=(inside.shape[0] - 0.5, -0.5))


def _scale(axes: Axes, scene: Scene) -> None:
    draw_scale_bar(axes, 1000 / scene.grid.pixel_size_m()[0], size=7)


def _draw_dates(axes: Axes, pairs: Sequence[Pair]) -> None:
    """Draw the primary date, and an arc from it to each secondary date."""
    first = mdates.date2num(pairs[0].primary)
    days = [mdates.date2num(pair.secondary) - first for pair in pairs]
    for number, length in enumerate(days, 1):
        angle = np.linspace(0, np.pi, 60)
        x, y = first + length / 2 * (1 - np.cos(angle)), np.sin(angle) * (length / max(days)) ** 0.5
        axes.plot(x, y, color=BLUE, linewidth=1.1)
        axes.plot([first + length], [0], "o", color=BLUE, markersize=10, clip_on=False, zorder=4)
        axes.text(
            first + length, -0.015, str(number), fontsize=7, weight="bold", color="white", ha="center",
            va="center", zorder=6, clip_on=False,
        )  # fmt: skip
    axes.plot([first], [0], "s", color=ALARM, markersize=8, clip_on=False, zorder=5)
    axes.annotate(
        f"primary {pairs[0].primary}", (first, 0), xytext=(-6, 8), textcoords="offset points", fontsize=8,
        ha="right", color=ALARM, weight="bold",
    )  # fmt: skip
    axes.set(xlim=(first - 0.16 * max(days), first + 1.03 * max(days)), ylim=(0, 1.08), yticks=[])
    axes.xaxis_date()
    locator = mdates.AutoDateLocator(minticks=3, maxticks=9)
    axes.xaxis.set_major_locator(locator)
    axes.xaxis.set_major_formatter(mdates.ConciseDateFormatter(locator))
    style_axes(axes)
    axes.tick_params(pad=6)
    axes.spines["left"].set_visible(False)


def _series_legend(figure: Figure, scenes: Sequence[Scene]) -> None:
    handles = []
    for mask, colours in (("activity", TYPE_COLOURS), ("intensity", INTENSITY_COLOURS)):
        seen = {int(code) for scene in scenes for code in np.unique(getattr(scene, mask)) if code}
        variable = f"{mask}_{'type' if mask == 'activity' else 'level'}_mask"
        handles += [
            Patch(facecolor=colours[code], label=f"{mask}: {meaning_of(variable, code)}")
            for code in sorted(seen)
        ]
    if handles:
        figure.legend(
            handles=handles, loc="lower left", ncols=min(3, len(handles)), fontsize=8, frameon=False,
            labelcolor=INK, bbox_to_anchor=(0.6 / figure.get_figwidth(), 0.0), borderaxespad=0.4,
        )  # fmt: skip


def _figure(width: float, height: float) -> Figure:
    return Figure((width, height), dpi=_DPI, facecolor="white")


def _place(
    figure: Figure, left: float, top: float, width: float, height: float
) -> tuple[float, float, float, float]:
    """Return the rectangle of axes given in inches from the top left corner."""
    wide, tall = figure.get_size_inches()
    return left / wide, 1 - (top + height) / tall, width / wide, height / tall


def _panel(figure: Figure, row: int, column: int, *, below: float) -> Axes:
    return figure.add_axes(
        _place(figure, 0.2 + column * (_PANEL + 0.15), 0.85 + row * (_PANEL + below), _PANEL, _PANEL)
    )


def _caption(axes: Axes, text: str, second: str = "") -> None:
    axes.set_title(
        escape_mathtext(text), fontsize=9 if second else 8, loc="left", color=INK, pad=13 if second else 3,
        weight="bold" if second else "normal",
    )  # fmt: skip
    if second:
        axes.text(
            0, 1.012, escape_mathtext(second), transform=axes.transAxes, fontsize=7, color=GREY, va="bottom"
        )


def _phase_scale(figure: Figure) -> None:
    """Add the colour bar of the phase in the lower right corner."""
    wide, tall = figure.get_size_inches()
    bar = figure.add_axes((1 - 2.0 / wide, 0.2 / tall, 1.75 / wide, 0.1 / tall))
    bar.imshow(
        np.linspace(-np.pi, np.pi, 256)[np.newaxis], cmap=phase_colormap(), aspect="auto",
        extent=(-np.pi, np.pi, 0, 1),
    )  # fmt: skip
    bar.set(yticks=[], xticks=[-np.pi, 0, np.pi], xticklabels=["−π", "0", "π"])
    bar.tick_params(labelsize=6.5, length=1.5, pad=1, color=PALE, labelcolor=INK)
    bar.set_title("wrapped phase (rad)", fontsize=7, color=INK, pad=1.5)
    for spine in bar.spines.values():
        spine.set_visible(False)
