"""Annotated interferograms of cubes, cut out and downsampled for figures, and which of them to show."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import date

import numpy as np
import numpy.typing as npt
import xarray as xr

from hephaestus_build.core.errors import HephaestusError
from hephaestus_build.core.frames import Pair
from hephaestus_build.core.grid import Grid
from hephaestus_build.cube.georeference import read_cube_grid
from hephaestus_build.report.image_ops import shrink_codes, shrink_factor, shrink_phase
from hephaestus_build.report.quicklook_data import PairNetwork, read_pair_network

#: Interferograms of a series that a figure has room for.
SERIES_SHOWN = 5
#: Rows and columns of a part of the grid.
Window = tuple[slice, slice]
#: A window around an outline is this many times as large as the outline, and at least so many metres.
_MARGIN, _SMALLEST_M = 1.8, 12_000.0


@dataclass(frozen=True)
class Scene:
    """One interferogram, or a part of it, downsampled; all images have the shape (rows, columns).

    Attributes
    ----------
    frame : str
        Frame id.
    pair : Pair
        Dates of the interferogram.
    grid : Grid
        Grid of the images.
    phase : numpy.ndarray
        Wrapped phase in radians; NaN is no data.
    activity, intensity : numpy.ndarray
        Codes of the activity type mask and of the intensity level mask; 0 where no deformation is marked.
    caption : str
        The expert's description; empty if there is none.
    simulated : bool
        Whether the data are simulated.
    """

    frame: str
    pair: Pair
    grid: Grid
    phase: npt.NDArray[np.float32]
    activity: npt.NDArray[np.uint8]
    intensity: npt.NDArray[np.uint8]
    caption: str
    simulated: bool


@dataclass(frozen=True)
class _Outline:
    """Deformation of one type in one interferogram: how well it shows the type, and what bounds it."""

    pair: Pair
    activity: int
    rank: tuple[bool, int]  # whether it is whole, number of pixels
    bounds: Window


def read_scene(cube: xr.Dataset, pair: Pair, window: Window | None = None, *, largest: int = 220) -> Scene:
    """Read one interferogram of a cube with its masks.

    Parameters
    ----------
    cube : xarray.Dataset
        The cube.
    pair : Pair
        A stored pair.
    window : tuple of slice, optional
        Rows and columns to read; by default the whole frame.
    largest : int
        Maximum side length of the images in pixels.
    """
    grid = read_cube_grid(cube)
    rows, columns = window or (slice(0, grid.height), slice(0, grid.width))
    factor = shrink_factor((rows.stop - rows.start, columns.stop - columns.start), largest)
    chosen = _select_pair(cube, pair)

    def image(name: str) -> np.ndarray:
        return np.asarray(chosen[name].isel(latitude=rows, longitude=columns).values)

    return Scene(
        frame=str(cube.attrs.get("frame", "cube")),
        pair=pair,
        grid=Grid(
            (columns.stop - columns.start) // factor,
            (rows.stop - rows.start) // factor,
            grid.west + columns.start * grid.dx,
            grid.north - rows.start * grid.dy,
            grid.dx * factor,
            grid.dy * factor,
        ),
        phase=shrink_phase(image("insar_difference"), factor),
        activity=shrink_codes(image("activity_type_mask"), factor),
        intensity=shrink_codes(image("intensity_level_mask"), factor),
        caption=str(chosen["caption"].values.item()) if chosen["annotated"].values.item() else "",
        simulated=bool(cube.attrs.get("simulated", False)),
    )


def find_type_scenes(cubes: Iterable[xr.Dataset]) -> dict[int, Scene]:
    """Return the largest outline of each activity type, cut out of its interferogram, by the type's code.

    One that lies in the frame as a whole comes before one that is cut by its edge. One mask is in memory at a
    time.

    Raises
    ------
    HephaestusError
        If no cube has deformation.
    """
    best: dict[int, tuple[_Outline, xr.Dataset]] = {}
    for cube in cubes:
        network = read_pair_network(cube)
        for outline in _iter_outlines(cube, np.array(network.pairs, object)[network.deforming]):
            known = best.get(outline.activity)
            if known is None or outline.rank > known[0].rank:
                best[outline.activity] = outline, cube
    if not best:
        raise HephaestusError("the cubes have no annotated deformation to show")
    return {
        code: read_scene(cube, outline.pair, _widen(outline.bounds, read_cube_grid(cube)))
        for code, (outline, cube) in sorted(best.items())
    }


def read_series_scenes(cube: xr.Dataset, pairs: Sequence[Pair]) -> list[Scene]:
    """Return some interferograms of one frame, cut to one window around all deformation that they show."""
    bounds = [outline.bounds for outline in _iter_outlines(cube, pairs)]
    window = None
    if bounds:
        rows, columns = (
            slice(min(one[axis].start for one in bounds), max(one[axis].stop for one in bounds))
            for axis in (0, 1)
        )
        window = _widen((rows, columns), read_cube_grid(cube))
    return [read_scene(cube, pair, window, largest=150) for pair in pairs]


def find_series_pairs(cube: xr.Dataset, primary: date | None = None) -> tuple[Pair, ...]:
    """Return the annotated interferograms of one primary date, in the order of their secondary dates.

    Parameters
    ----------
    cube : xarray.Dataset
        The cube.
    primary : datetime.date, optional
        The primary date; by default the one with the most interferograms that deform, of several the first
        with the most interferograms.

    Raises
    ------
    HephaestusError
        If there is no such interferogram.
    """
    network = read_pair_network(cube)
    groups: dict[date, list[tuple[Pair, bool]]] = {}
    for pair, annotated, deforming in zip(network.pairs, network.annotated, network.deforming, strict=True):
        if annotated:
            groups.setdefault(pair.primary, []).append((pair, bool(deforming)))
    if primary is None and groups:
        primary = max(groups, key=lambda day: (sum(bad for _, bad in groups[day]), len(groups[day])))
    if primary not in groups:
        when = f" with the primary date {primary}" if primary else ""
        raise HephaestusError(f"{cube.attrs.get('frame')}: no annotated interferogram{when} is stored")
    return tuple(sorted((pair for pair, _ in groups[primary]), key=lambda pair: pair.secondary))


def find_caption_scenes(cubes: Sequence[xr.Dataset], count: int = 3) -> list[Scene]:
    """Return interferograms with long captions, with and without deformation in turn.

    Of every cube the longest captions compete; a frame is shown twice only where there are too few frames.

    Raises
    ------
    HephaestusError
        If no cube has a caption.
    """
    found = [
        (bool(deforming), len(caption), index, pair)
        for index, cube in enumerate(cubes)
        for pair, deforming, caption in _iter_captions(cube, read_pair_network(cube))
    ]
    if not found:
        raise HephaestusError("the cubes have no captions to show")
    shown: list[tuple[int, Pair]] = []
    while found and len(shown) < count:
        wanted = len(shown) % 2 == 0
        used = [index for index, _ in shown]
        best = max(found, key=lambda one: (-used.count(one[2]), one[0] == wanted, one[1]))
        found.remove(best)
        shown.append(best[2:])
    return [read_scene(cubes[index], pair) for index, pair in shown]


def _iter_captions(cube: xr.Dataset, network: PairNetwork) -> Iterator[tuple[Pair, bool, str]]:
    table = cube[["caption"]].load()
    for pair, annotated, deforming in zip(network.pairs, network.annotated, network.deforming, strict=True):
        if annotated and (caption := str(_select_pair(table, pair)["caption"].values.item()).strip()):
            yield pair, bool(deforming), caption


def _iter_outlines(cube: xr.Dataset, pairs: Iterable[Pair]) -> Iterator[_Outline]:
    for pair in pairs:
        mask = _select_pair(cube[["activity_type_mask"]], pair)["activity_type_mask"].values
        for code in np.unique(mask[mask > 0]):
            places = np.nonzero(mask == code)
            rows, columns = (slice(int(place.min()), int(place.max()) + 1) for place in places)
            whole = rows.start > 0 < columns.start and rows.stop < len(mask) and columns.stop < mask.shape[1]
            yield _Outline(pair, int(code), (whole, len(places[0])), (rows, columns))


def _widen(bounds: Window, grid: Grid) -> Window:
    """Return a window around `bounds` that is square on the ground, moved into the frame."""
    pixel = grid.pixel_size_m()[::-1]  # of rows and columns
    side = max(
        _SMALLEST_M, *(_MARGIN * (axis.stop - axis.start) * m for axis, m in zip(bounds, pixel, strict=True))
    )
    widened = []
    for axis, metres, total in zip(bounds, pixel, grid.shape, strict=True):
        size = min(round(side / metres), total)
        first = int(np.clip((axis.start + axis.stop - size) // 2, 0, total - size))
        widened.append(slice(first, first + size))
    return widened[0], widened[1]


def _select_pair(cube: xr.Dataset, pair: Pair) -> xr.Dataset:
    return cube.sel(primary_date=np.datetime64(pair.primary), secondary_date=np.datetime64(pair.secondary))
