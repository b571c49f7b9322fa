"""Storage of probability maps: one Zarr group per frame, and a GeoTIFF and a PNG figure per map.

The consolidated metadata of the group is replaced by one rename after all files that it refers to are
written, so readers never see a map whose writing was interrupted.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np
import numpy.typing as npt
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colorbar import Colorbar
from matplotlib.figure import Figure
from zarr.codecs import BloscCodec

from hephaestus_baselines.evaluation.result_schema import Threshold
from hephaestus_baselines.mapping.growing_arrays import GrowingArrays
from hephaestus_baselines.reporting.prediction_figures import write_figure
from hephaestus_build.core.atomic_io import translate_os_errors, write_atomic
from hephaestus_build.core.errors import HephaestusError, UsageError
from hephaestus_build.core.filesystem.zarr_folder import ZarrFolder
from hephaestus_build.core.frames import Pair
from hephaestus_build.core.grid import Grid
from hephaestus_build.core.plain_files import is_real_folder, remove_folder
from hephaestus_build.core.plain_text import sanitize_text
from hephaestus_build.cube.georeference import read_cube_grid
from hephaestus_build.cube.schema import GRID_MAPPING, Variable
from hephaestus_build.export.geotiff import encode_cog
from hephaestus_build.export.geotiff_layers import KEY_TAG, GeotiffLayer
from hephaestus_build.report.image_ops import phase_colormap, shrink_factor, shrink_mean, shrink_phase
from hephaestus_build.report.map_axes import draw_map_frame, ground_ratio, halo
from hephaestus_build.report.style import ALARM, GREY, INK, PALE
from hephaestus_build.report.text_rendering import escape_mathtext

PROBABILITY_VARIABLE = "deformation_probability"
MAP_FORMAT = "hephaestus-predictions-map/1"
#: Probabilities are rounded to multiples of this. They then compress five times better, and the rounding is
#: far below the uncertainty of any model.
PROBABILITY_STEP = 2.0**-12
_EPOCH = date(1970, 1, 1)
_TABLE_VARIABLES = ("primary_date", "secondary_date", "images", "cube_generation")
_ARRAY_NAMES = (PROBABILITY_VARIABLE, *_TABLE_VARIABLES)


@dataclass(frozen=True)
class ProbabilityMap:
    """A model's probability of deformation for one frame.

    Attributes
    ----------
    pairs : tuple of Pair
        Input of the model: one interferogram, or the series of one primary date.
    probability : numpy.ndarray
        float32, shape (rows, columns), 0 to 1; NaN where no interferogram has data.
    images_hash : int
        Hash of the content of the interferograms.
    generation : int
        Generation number of the cube.
    """

    pairs: tuple[Pair, ...]
    probability: np.ndarray
    images_hash: int
    generation: int

    @property
    def name(self) -> str:
        """Name of the map: ``<primary>_<secondary>``, followed by the other secondaries of a series."""
        return map_name(self.pairs)


def map_name(pairs: Sequence[Pair]) -> str:
    """Return the name of the map of `pairs`."""
    return "_".join([pairs[0].name, *(pair.name[9:] for pair in pairs[1:])])


class MapStore:
    """The maps of one frame and one model, ``<folder>/<frame>.zarr``.

    A map of new interferograms is appended. A map that replaces an earlier one is written under a new chunk
    key and published by one rename of the group's metadata
    (:mod:`hephaestus_baselines.mapping.growing_arrays`), so readers that opened the group before keep reading
    the version they opened.

    Parameters
    ----------
    path : pathlib.Path
        Path of the group; created with the first map.
    cube : xarray.Dataset
        Cube of the frame, from which the grid is taken.
    steps : int
        Number of interferograms per map.
    attributes : mapping
        Attributes of the group, including ``checkpoint``, the SHA-256 of the model's checkpoint.

    Raises
    ------
    UsageError
        If the group holds maps of another model or on another grid, is a link, or was not created by this
        class.
    """

    def __init__(self, path: Path, cube: xr.Dataset, steps: int, attributes: Mapping[str, Any]) -> None:
        self.path, self.steps = path, steps
        self.attributes = {"Conventions": "CF-1.11", "format": MAP_FORMAT, **attributes}
        self._grid = cube[["latitude", "longitude", GRID_MAPPING]].reset_coords()
        self._rows: dict[tuple[str, ...], _MapRow] = {}
        self._arrays: GrowingArrays | None = None
        self._unpublished_rows: dict[tuple[str, ...], _MapRow] = {}
        if os.path.lexists(path):
            self._open()

    def _open(self) -> None:
        advice = f"move {self.path} away, or give another folder with --to"
        try:
            keys = GrowingArrays(self.path, _ARRAY_NAMES)
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise UsageError(
                f"{self.path} is not a group of maps ({sanitize_text(error, 200)}); {advice}"
            ) from error
        with (
            _suppress_zarr_warnings(),
            xr.open_zarr(self.path, chunks=None, consolidated=True, decode_times=False) as there,
        ):
            if there.attrs.get("checkpoint") != self.attributes["checkpoint"]:
                raise UsageError(f"{self.path} holds maps of another checkpoint; {advice}")
            axes = ("latitude", "longitude")
            if not all(np.array_equal(there[axis].values, self._grid[axis].values) for axis in axes):
                raise UsageError(f"{self.path} holds maps on a grid other than the cube's; {advice}")
            columns = [there[name].values.tolist() for name in _TABLE_VARIABLES]
            for place, (first, others, images, generation) in enumerate(zip(*columns, strict=True)):
                row = _MapRow(place, first, others, images, generation)
                self._rows[row.key] = row
        self._arrays = keys

    def has_map(self, pairs: Sequence[Pair], images: int) -> bool:
        """Return whether the store holds a map of `pairs` made from images with this hash."""
        row = self._unpublished_rows.get(_dates_key(pairs)) or self._rows.get(_dates_key(pairs))
        return row is not None and row.images == images

    def remove_leftovers(self) -> None:
        """Remove partly written files of interrupted runs, and maps replaced more than a day ago.

        Raises
        ------
        HephaestusError
            If a file cannot be removed.
        """
        with translate_os_errors(f"{self.path.stem}: removing leftovers of an earlier run", setting="--to"):
            for draft in self.path.parent.glob(f".{self.path.name}.*"):
                if is_real_folder(draft):
                    remove_folder(draft.parent, draft.name)
            if self._arrays:
                self._arrays.remove_leftovers()

    def write_map(self, made: ProbabilityMap, *, publish: bool = True) -> None:
        """Append a map, or replace the earlier map of the same pairs.

        Parameters
        ----------
        made : ProbabilityMap
            The map.
        publish : bool
            Whether to publish a replacement immediately. If not, :meth:`publish_replacements` publishes all
            replacements together. A map of new pairs is always published immediately.

        Raises
        ------
        HephaestusError
            If the map cannot be written.
        """
        with (
            translate_os_errors(f"{self.path.stem}: writing the map of {made.name}", setting="--to"),
            _suppress_zarr_warnings(),
        ):
            keys = self._arrays or self._create()
            key = _dates_key(made.pairs)
            days = [
                (day - _EPOCH).days for day in (made.pairs[0].primary, *(p.secondary for p in made.pairs))
            ]
            known = self._rows.get(key)
            place = known.place if known else len(self._rows)
            row = _MapRow(place, days[0], days[1:], made.images_hash, made.generation)
            values = round_probability(made.probability)[np.newaxis]
            if known is None:
                keys.write_new_chunk(PROBABILITY_VARIABLE, place, values)
                keys.publish_new(self._tables({**self._rows, key: row}), place)
                self._rows[key] = row
            else:
                keys.write_replacement(PROBABILITY_VARIABLE, place, values)
                self._unpublished_rows[key] = row
        if publish:
            self.publish_replacements()

    def publish_replacements(self) -> None:
        """Publish all replaced maps by one rename.

        Raises
        ------
        HephaestusError
            If the metadata cannot be written.
        """
        if not self._unpublished_rows:
            return
        with (
            translate_os_errors(f"{self.path.stem}: publishing the maps", setting="--to"),
            _suppress_zarr_warnings(),
        ):
            assert self._arrays
            rows = {**self._rows, **self._unpublished_rows}
            changed = {row.place for row in self._unpublished_rows.values()}
            self._arrays.publish_replacements(PROBABILITY_VARIABLE, changed, self._tables(rows))
            self._rows, self._unpublished_rows = rows, {}

    def _tables(self, rows: Mapping[tuple[str, ...], _MapRow]) -> dict[str, np.ndarray]:
        ordered = sorted(rows.values(), key=lambda row: row.place)
        columns = zip(*(row.cells for row in ordered), strict=True)
        return {name: np.array(column) for name, column in zip(_TABLE_VARIABLES, columns, strict=True)}

    def _create(self) -> GrowingArrays:
        """Create the empty group atomically."""
        rows, columns = self._grid.sizes["latitude"], self._grid.sizes["longitude"]
        days = {"units": "days since 1970-01-01", "calendar": "proleptic_gregorian"}
        numbers: dict[str, tuple[Any, ...]] = {
            "primary_date": ("map", np.zeros(0, "i8"), {**days, "long_name": "date of the first image"}),
            "secondary_date": (
                ("map", "step"),
                np.zeros((0, self.steps), "i8"),
                {**days, "long_name": "dates of the later images"},
            ),
            "images": ("map", np.zeros(0, "i8"), {"long_name": "number that names the images' content"}),
            "cube_generation": ("map", np.zeros(0, "i4"), {"long_name": "generation of the cube"}),
        }
        picture = (
            ("map", "latitude", "longitude"),
            np.zeros((0, rows, columns), "f4"),
            {**_ATTRIBUTES, "grid_mapping": GRID_MAPPING},
        )
        empty = (
            self._grid.drop_attrs(deep=False)
            .assign_attrs(self.attributes)
            .assign(numbers | {PROBABILITY_VARIABLE: picture})
        )
        codec = BloscCodec(cname="zstd", clevel=3, shuffle="bitshuffle")
        encoding: dict[str, dict[str, Any]] = {
            PROBABILITY_VARIABLE: {
                "chunks": (1, rows, columns),
                "compressors": (codec,),
                "_FillValue": np.float32("nan"),
            },
            "primary_date": {"chunks": (1024,)},
            "secondary_date": {"chunks": (1024, self.steps)},
            "images": {"chunks": (1024,)},
            "cube_generation": {"chunks": (1024,)},
        }
        self.path.parent.mkdir(parents=True, exist_ok=True)
        draft = self.path.with_name(f".{self.path.name}.{uuid4().hex[:12]}")
        empty.set_coords(["primary_date", "secondary_date", GRID_MAPPING]).to_zarr(
            ZarrFolder(draft), mode="w-", zarr_format=3, encoding=encoding, consolidated=True
        )
        draft.rename(self.path)
        self._arrays = GrowingArrays(self.path, _ARRAY_NAMES)
        return self._arrays


@dataclass(frozen=True)
class _MapRow:
    """Row of the tables for one map; dates are days since 1970-01-01."""

    place: int
    primary: int
    secondaries: Sequence[int]
    images: int
    generation: int

    @property
    def key(self) -> tuple[str, ...]:
        return tuple(str(_EPOCH + timedelta(days=day)) for day in (self.primary, *self.secondaries))

    @property
    def cells(self) -> tuple[Any, ...]:
        return self.primary, list(self.secondaries), self.images, self.generation


_ATTRIBUTES = {
    "long_name": "probability of ground deformation",
    "units": "1",
    "valid_range": [0.0, 1.0],
    "comment": "output of a model, not calibrated; no data where no interferogram has data",
}


def _dates_key(pairs: Sequence[Pair]) -> tuple[str, ...]:
    return (str(pairs[0].primary), *(str(pair.secondary) for pair in pairs))


def round_probability(probability: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Return probabilities, rounded to :data:`PROBABILITY_STEP`."""
    return (np.round(probability / PROBABILITY_STEP) * PROBABILITY_STEP).astype("f4")


@contextmanager
def _suppress_zarr_warnings() -> Iterator[None]:
    with warnings.catch_warnings():
        # zarr-python warns about every consolidated Zarr v3 group
        warnings.filterwarnings("ignore", message="Consolidated metadata is currently not part")
        yield


def write_map_geotiff(path: Path, made: ProbabilityMap, grid: Grid, tags: Mapping[str, str]) -> None:
    """Write a map as a cloud-optimized GeoTIFF, atomically.

    Parameters
    ----------
    path : pathlib.Path
        Path of the file.
    made : ProbabilityMap
        The map.
    grid : Grid
        Grid of the frame.
    tags : mapping of str to str
        Further tags of the file.

    Raises
    ------
    HephaestusError
        If the file cannot be written.
    """
    variable = Variable(
        PROBABILITY_VARIABLE, ("latitude", "longitude"), "float32", "pair", float("nan"), dict(_ATTRIBUTES)
    )
    about = {"PAIRS": " ".join(pair.name for pair in made.pairs), "CUBE_GENERATION": str(made.generation)}
    layer = GeotiffLayer(path.name, variable, (), {**tags, **about, KEY_TAG: str(made.images_hash)})
    with translate_os_errors(f"{path.name}: writing it", setting="--to"):
        write_atomic(path, encode_cog(round_probability(made.probability), grid, layer))


def write_map_figure(
    path: Path,
    made: ProbabilityMap,
    phase: npt.NDArray[Any],
    grid: Grid,
    title: str,
    *,
    threshold: Threshold | None,
    simulated: bool,
) -> None:
    """Draw a map over the phase of its last interferogram, with the contour of a threshold, as a PNG.

    Parameters
    ----------
    path : pathlib.Path
        Path of the file.
    made : ProbabilityMap
        The map.
    phase : numpy.ndarray
        Wrapped phase, shape (rows, columns), rad; 0 is no data.
    grid : Grid
        Grid of the frame.
    title : str
        Title of the figure, one line.
    threshold : Threshold or None
        Probability from which on the run calls it deformation; None if it is not known.
    simulated : bool
        Whether to mark the figure as simulated data.

    Raises
    ------
    HephaestusError
        If the file cannot be written.
    """
    figure = draw_map_figure(made, phase, grid, title, threshold=threshold, simulated=simulated)
    write_figure(figure, path, setting="--to")


def draw_map_figure(
    made: ProbabilityMap,
    phase: npt.NDArray[Any],
    grid: Grid,
    title: str,
    *,
    threshold: Threshold | None,
    simulated: bool,
) -> Figure:
    """Return the figure that :func:`write_map_figure` writes."""
    west, south, east, north = grid.bounds
    extent = (west, east, south, north)
    factor = shrink_factor(phase.shape, 900)
    shown = shrink_phase(phase, factor)
    probability = shrink_mean(made.probability, factor)
    wide = 5.0
    tall = float(np.clip(wide * (north - south) / ((east - west) * ground_ratio(extent)), 1.5, 9.0))
    page = tall + 1.75
    figure = Figure(figsize=(13.0, page), facecolor="white")
    left, right = (figure.add_axes((x / 13.0, 0.85 / page, wide / 13.0, tall / page)) for x in (0.75, 7.0))
    image = left.imshow(
        shown, cmap=phase_colormap(), vmin=-np.pi, vmax=np.pi, extent=extent, interpolation="nearest"
    )
    turns = (np.pi * np.arange(-1, 1.5, 0.5)).tolist()
    bar = figure.colorbar(image, ax=left, ticks=turns, fraction=0.035, pad=0.02)
    bar.set_ticks(turns, labels=["−π", "−π/2", "0", "π/2", "π"])
    right.imshow(
        shown, cmap="gray", vmin=-2 * np.pi, vmax=1.5 * np.pi, extent=extent, interpolation="nearest"
    )
    # the higher the probability, the more opaque the map
    image = right.imshow(
        probability, cmap="inferno", vmin=0, vmax=1, alpha=0.9 * np.nan_to_num(probability), extent=extent,
        interpolation="nearest",
    )  # fmt: skip
    scale = figure.colorbar(ScalarMappable(image.norm, image.cmap), ax=right, fraction=0.035, pad=0.02)
    for axes, text in ((left, "wrapped phase (rad)"), (right, "probability of deformation")):
        draw_map_frame(axes, extent, labels=True)
        axes.set_title(text, fontsize=9.5, loc="left", color=INK)
    for one in (bar, scale):
        one.ax.tick_params(labelsize=8, length=2, color=PALE, labelcolor=INK)
        one.outline.set_visible(False)
    note = _describe_threshold(right, scale, probability, threshold)
    figure.text(0.75 / 13, 0.2 / page, note, fontsize=8.5, color=GREY)
    figure.text(0.75 / 13, 1 - 0.4 / page, escape_mathtext(title), fontsize=11, weight="bold", color=INK)
    if simulated:
        figure.text(
            1 - 0.75 / 13, 1 - 0.4 / page, "SIMULATED DATA", fontsize=10, weight="bold", color="white",
            ha="right", bbox={"facecolor": ALARM, "edgecolor": "none", "pad": 4},
        )  # fmt: skip
    return figure


def _describe_threshold(
    axes: Axes, scale: Colorbar, probability: npt.NDArray[Any], threshold: Threshold | None
) -> str:
    """Draw the contour of a threshold on the map, and its line on the colour bar; return what it says."""
    if threshold is None:
        return "no contour: the run's threshold is not known, its result.json is not beside the checkpoint"
    level = threshold.value
    for colour, width in (("white", 2.6), (INK, 1.2)):
        scale.ax.axhline(level, color=colour, linewidth=width)
    how = "chosen on validation" if threshold.chosen_on == "validation" else "fixed"
    text = f"threshold {level:.3g}, {how}"
    filled = np.nan_to_num(probability, nan=-1.0)
    if not (filled >= level).any():
        return f"{text}: nowhere reached, the highest probability is {np.nanmax(filled, initial=0):.3g}"
    west, east, south, north = axes.get_images()[0].get_extent()
    rows, columns = probability.shape
    longitudes = np.linspace(west, east, columns + 1)[:-1] + (east - west) / columns / 2
    latitudes = np.linspace(north, south, rows + 1)[:-1] - (north - south) / rows / 2
    # padded, so that outlines at the edge of the frame are closed
    lines = axes.contour(
        np.concatenate([[west], longitudes, [east]]),
        np.concatenate([[north], latitudes, [south]]),
        np.pad(filled, 1, constant_values=-1.0),
        [level],
        colors=[INK],
        linewidths=1.1,
    )
    lines.set_path_effects(halo(2.6))
    share = (filled >= level).sum() / (filled >= 0).sum()
    return f"line: {text}; {share:.1%} of the pixels with data are above it"


def require_cube_grid(cube: xr.Dataset) -> Grid:
    """Return the grid of a cube.

    Raises
    ------
    HephaestusError
        If the cube has no valid georeference.
    """
    try:
        return read_cube_grid(cube)
    except ValueError as error:
        raise HephaestusError(
            f"{cube.attrs.get('frame')}: {error}; `hephaestus verify` lists what is damaged"
        ) from error
