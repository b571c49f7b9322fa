"""The data of a quicklook: one pair of a cube, downsampled to the size of the figure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from hephaestus_build.core.errors import UsageError
from hephaestus_build.core.frames import Pair
from hephaestus_build.core.grid import Grid
from hephaestus_build.cube.georeference import read_cube_grid
from hephaestus_build.cube.key_spaces import KeySpace
from hephaestus_build.cube.reading.dataset import open_pinned_cube
from hephaestus_build.cube.reading.store_metadata import read_store_metadata
from hephaestus_build.cube.schema import cube_schema
from hephaestus_build.report.image_ops import shrink_codes, shrink_factor, shrink_mean, shrink_phase

_VAPOUR = "total_column_water_vapour"
#: Maximum number of pairs that are read to select the default one.
_CANDIDATES = 8


@dataclass(frozen=True)
class PairNetwork:
    """The stored pairs of a cube with their flags, read from its tables.

    Attributes
    ----------
    pairs : tuple of Pair
        Stored pairs, sorted.
    annotated, deforming : numpy.ndarray
        bool, shape (pairs,): whether the pair is annotated, and whether the annotation shows deformation.
    valid_fraction : numpy.ndarray
        Fraction of pixels with phase data, shape (pairs,).
    """

    pairs: tuple[Pair, ...]
    annotated: NDArray[np.bool_]
    deforming: NDArray[np.bool_]
    valid_fraction: np.ndarray


@dataclass(frozen=True)
class QuicklookData:
    """One pair of a cube, downsampled; all images have the shape (rows, columns).

    Attributes
    ----------
    frame : str
        Frame id.
    pair : Pair
        The pair shown.
    grid : Grid
        Grid of the downsampled images.
    pixel_m : tuple of float
        Ground size of the cube's own pixels in metres, east-west and north-south.
    phase : numpy.ndarray
        Wrapped phase in radians; NaN is no data.
    coherence : numpy.ndarray
        Coherence from 0 to 1; NaN is no data.
    height : numpy.ndarray
        Height in metres; NaN is no data.
    vapour : numpy.ndarray
        Total column water vapour in kg m-2, secondary minus primary; NaN is no data.
    activity : numpy.ndarray
        Codes of the activity type mask; 0 where no deformation is marked.
    intensity : numpy.ndarray
        Codes of the intensity level mask.
    network : PairNetwork
        All stored pairs.
    annotation : dict
        Phase, confidence and caption of the annotation; empty if the pair is not annotated.
    attributes : dict
        Attributes of the cube.
    """

    frame: str
    pair: Pair
    grid: Grid
    pixel_m: tuple[float, float]
    phase: np.ndarray
    coherence: np.ndarray
    height: np.ndarray
    vapour: np.ndarray
    activity: np.ndarray
    intensity: np.ndarray
    network: PairNetwork
    annotation: dict[str, Any]
    attributes: dict[str, Any]

    @property
    def is_simulated(self) -> bool:
        """Whether the data are simulated."""
        return bool(self.attributes.get("simulated", False))

    @property
    def valid_fraction(self) -> float:
        """Fraction of the frame's pixels with phase data."""
        return float(self.network.valid_fraction[self.network.pairs.index(self.pair)])

    @cached_property
    def extent(self) -> tuple[float, float, float, float]:
        """West, east, south and north edges in degrees."""
        west, south, east, north = self.grid.bounds
        return west, east, south, north


def read_quicklook_data(
    cube: xr.Dataset | str | Path, pair: Pair | None = None, *, largest: int = 1000
) -> QuicklookData:
    """Read and downsample one pair of a cube.

    Parameters
    ----------
    cube : xarray.Dataset, str or pathlib.Path
        A cube, or its path.
    pair : Pair, optional
        The pair; by default the one that :func:`choose_best_pair` selects.
    largest : int
        Maximum side length of the images in pixels.

    Returns
    -------
    QuicklookData
        The pair. Phase is averaged as complex numbers; of masks, the largest code of a block is kept.

    Raises
    ------
    UsageError
        If the cube does not contain the pair.
    """
    dataset = cube if isinstance(cube, xr.Dataset) else open_pinned_cube(cube, chunks=None)
    network = read_pair_network(dataset)
    frame = str(dataset.attrs.get("frame", "cube"))
    if pair is None:
        pair = choose_best_pair(dataset, network)
    elif pair not in network.pairs:
        raise UsageError(f"{frame}: no interferogram of {pair} is stored; {_nearest(pair, network.pairs)}")
    grid = read_cube_grid(dataset)
    factor = shrink_factor(grid.shape, largest)

    def image(name: str) -> np.ndarray:
        return _image(dataset, name, pair)

    coherence = image("insar_coherence")
    words = {name: image(name).item() for name in ("phase", "confidence", "caption") if image("annotated")}
    return QuicklookData(
        frame=frame,
        pair=pair,
        grid=Grid(
            grid.width // factor,
            grid.height // factor,
            grid.west,
            grid.north,
            grid.dx * factor,
            grid.dy * factor,
        ),
        pixel_m=grid.pixel_size_m(),
        phase=shrink_phase(image("insar_difference"), factor),
        coherence=shrink_mean(np.where(coherence == 0, np.nan, coherence / np.float32(255)), factor),
        height=shrink_mean(image("dem"), factor),
        vapour=shrink_mean(image(f"secondary_date_{_VAPOUR}") - image(f"primary_date_{_VAPOUR}"), factor),
        activity=shrink_codes(image("activity_type_mask"), factor),
        intensity=shrink_codes(image("intensity_level_mask"), factor),
        network=network,
        annotation=words,
        attributes=dict(dataset.attrs),
    )


def read_pair_network(dataset: xr.Dataset) -> PairNetwork:
    """Return the stored pairs of a cube; only tables are read."""
    places = np.argwhere(dataset["valid_date_pair"].values)
    primary, secondary = (_days(dataset[f"{axis}_date"].values) for axis in ("primary", "secondary"))
    pairs = tuple(Pair(primary[first], secondary[second]) for first, second in places)
    first, second = places.T if pairs else (np.zeros(0, int), np.zeros(0, int))
    annotated = dataset["annotated"].values[first, second]
    phases = np.array([str(word) for word in dataset["phase"].values[first, second]], dtype=object)
    return PairNetwork(
        pairs=pairs,
        annotated=annotated,
        # only interferograms with the phase "Rest" have no polygons; earthquakes have the phase "None"
        deforming=annotated & (phases != "Rest"),
        valid_fraction=dataset["valid_fraction"].values[first, second],
    )


def choose_best_pair(dataset: xr.Dataset, network: PairNetwork) -> Pair:
    """Return the pair to show by default.

    1. Of the pairs with deformation, the eight with the largest stored masks (in bytes) are read. The one
       with the highest coherence, summed over its deformation mask, is selected.
    2. If no pair has coherent deformation, the eight pairs with the highest valid fraction are read, and the
       one with the highest sum of coherence is selected.

    Raises
    ------
    UsageError
        If no pair is stored.
    """
    if not network.pairs:
        frame = dataset.attrs.get("frame", "the cube")
        raise UsageError(f"{frame}: no interferogram is stored, so there is nothing to draw")

    def seen(pair: Pair, mask: bool) -> float:
        coherence = _image(dataset, "insar_coherence", pair)
        return float(coherence.sum(where=_image(dataset, "deformation_mask", pair) > 0 if mask else True))

    moving = [pair for pair, moves in zip(network.pairs, network.deforming, strict=True) if moves]
    if moving:
        largest = sorted(moving, key=lambda pair: -_stored_size(dataset, pair))[:_CANDIDATES]
        areas = {pair: seen(pair, mask=True) for pair in largest}
        best = max(areas, key=lambda pair: areas[pair])
        if areas[best]:
            return best
    order = np.argsort(-np.nan_to_num(network.valid_fraction), kind="stable")[:_CANDIDATES]
    likely = [network.pairs[index] for index in order]
    return max(likely, key=lambda pair: seen(pair, mask=False))


def _stored_size(dataset: xr.Dataset, pair: Pair) -> int:
    """Return the size of a pair's stored mask in bytes, a proxy for its area; 0 if it is not known."""
    store, name = Path(str(dataset.encoding.get("source", ""))), "deformation_mask"
    dates = [
        int(np.flatnonzero(dataset[f"{axis}_date"].values == np.datetime64(day))[0])
        for axis, day in zip(("primary", "secondary"), pair.dates, strict=True)
    ]
    space = KeySpace.from_metadata(read_store_metadata(store).arrays[name])
    paths = [store / space.chunk_key(name, dates, 2, strip) for strip in range(cube_schema().strips)]
    return sum(path.stat().st_size for path in paths if path.is_file())


def _image(dataset: xr.Dataset, name: str, pair: Pair) -> np.ndarray:
    """Return the value or image of a pair, for a variable with any of the date axes or none."""
    days = {"primary_date": np.datetime64(pair.primary), "secondary_date": np.datetime64(pair.secondary)}
    variable = dataset[name]
    return variable.sel({axis: day for axis, day in days.items() if axis in variable.dims}).values


def _days(values: np.ndarray) -> list[date]:
    return list(values.astype("datetime64[D]").tolist())


def _nearest(pair: Pair, pairs: Sequence[Pair]) -> str:
    if not pairs:
        return "the cube has none"
    near = min(
        pairs,
        key=lambda other: sum(abs((a - b).days) for a, b in zip(other.dates, pair.dates, strict=True)),
    )
    return f"the nearest stored pair is {near}"
