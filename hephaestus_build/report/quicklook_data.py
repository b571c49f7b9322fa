"""What a picture of a cube shows: one pair, read alone and shrunk to the picture's size."""

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
from hephaestus_build.cube.codecs.shard_encoder import chunk_key
from hephaestus_build.cube.georeference import read_cube_grid
from hephaestus_build.cube.reading.dataset import open_pinned_cube
from hephaestus_build.report.image_ops import shrink_codes, shrink_factor, shrink_mean, shrink_phase

_VAPOUR = "total_column_water_vapour"
#: How many pairs are looked into, at most, to find the one to show.
_CANDIDATES = 8


@dataclass(frozen=True)
class PairNetwork:
    """Every stored pair of a cube, and what is known of it without reading an image.

    Attributes
    ----------
    pairs : tuple of Pair
        Stored pairs, sorted.
    annotated, deforming : numpy.ndarray
        bool, shape (pairs,): whether an expert looked at it, and found that the ground moved.
    valid_fraction : numpy.ndarray
        Shape (pairs,).
    """

    pairs: tuple[Pair, ...]
    annotated: NDArray[np.bool_]
    deforming: NDArray[np.bool_]
    valid_fraction: np.ndarray


@dataclass(frozen=True)
class QuicklookData:
    """One pair of a cube at the size of a picture; images are (rows, columns), NaN or 0 = no data.

    Attributes
    ----------
    frame : str
        Frame id.
    pair : Pair
        The pair shown.
    grid : Grid
        Of the images.
    pixel_m : tuple of float
        Ground size of the cube's own pixels, metres.
    phase, coherence, height, vapour : numpy.ndarray
        rad; 0 to 1; m; kg m-2, secondary minus primary.
    activity : numpy.ndarray
        Codes of the activity mask, 0 where the ground is not marked as deforming.
    intensity : numpy.ndarray
        Codes of the intensity mask.
    network : PairNetwork
        All pairs.
    annotation : dict
        What the expert wrote, by variable; empty where nobody looked.
    attributes : dict
        Of the cube.
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
        """Whether the data is simulated."""
        return bool(self.attributes.get("simulated", False))

    @property
    def valid_fraction(self) -> float:
        """Share of the frame's pixels with phase data."""
        return float(self.network.valid_fraction[self.network.pairs.index(self.pair)])

    @cached_property
    def extent(self) -> tuple[float, float, float, float]:
        """West, east, south and north edges, degrees."""
        west, south, east, north = self.grid.bounds
        return west, east, south, north


def read_quicklook_data(
    cube: xr.Dataset | str | Path, pair: Pair | None = None, *, largest: int = 1000
) -> QuicklookData:
    """Read one pair of a cube.

    Parameters
    ----------
    cube : xarray.Dataset, str or pathlib.Path
        A cube, or where it is.
    pair : Pair, optional
        Which; by default the one with the largest deformation, counted in coherent pixels, else the one
        with the most coherent pixels.
    largest : int
        No side of the images is longer than this.

    Returns
    -------
    QuicklookData
        The pair, shrunk: phase averaged as complex numbers, masks by their largest code.

    Raises
    ------
    UsageError
        If the cube does not hold the pair.
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
    """Return the stored pairs of a cube; reads its small tables alone."""
    places = np.argwhere(dataset["valid_date_pair"].values)
    primary, secondary = (_days(dataset[f"{axis}_date"].values) for axis in ("primary", "secondary"))
    pairs = tuple(Pair(primary[first], secondary[second]) for first, second in places)
    first, second = places.T if pairs else (np.zeros(0, int), np.zeros(0, int))
    annotated = dataset["annotated"].values[first, second]
    said = np.array([str(word) for word in dataset["phase"].values[first, second]], dtype=object)
    return PairNetwork(
        pairs=pairs,
        annotated=annotated,
        # only interferograms at rest have no polygon; purely seismic ones are of no phase, "None"
        deforming=annotated & (said != "Rest"),
        valid_fraction=dataset["valid_fraction"].values[first, second],
    )


def choose_best_pair(dataset: xr.Dataset, network: PairNetwork) -> Pair:
    """Return the pair most worth seeing.

    It is the one with the largest deformation, counted in coherent pixels, where there are masks; else the
    one with the most coherent pixels. Only the eight most promising are read: those whose stored mask takes
    most bytes, or that have most valid pixels.
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
    """Return the bytes of a pair's stored mask, which grow with what it holds; 0 where they are unknown."""
    axes = (dataset["primary_date"].values, dataset["secondary_date"].values)
    first, second = (
        int(np.searchsorted(axis, np.datetime64(day))) for axis, day in zip(axes, pair.dates, strict=True)
    )
    path = Path(str(dataset.encoding.get("source", ""))) / chunk_key("deformation_mask", (first, second), 2)
    return path.stat().st_size if path.is_file() else 0


def _image(dataset: xr.Dataset, name: str, pair: Pair) -> np.ndarray:
    """Return one value or image of a pair, whichever of the date axes the variable has."""
    days = {"primary_date": np.datetime64(pair.primary), "secondary_date": np.datetime64(pair.secondary)}
    variable = dataset[name]
    return variable.sel({axis: day for axis, day in days.items() if axis in variable.dims}).values


def _days(values: np.ndarray) -> list[date]:
    return list(values.astype("datetime64[D]").tolist())


def _nearest(pair: Pair, pairs: Sequence[Pair]) -> str:
    if not pairs:
        return "none is"
    near = min(
        pairs,
        key=lambda other: sum(abs((a - b).days) for a, b in zip(other.dates, pair.dates, strict=True)),
    )
    return f"the nearest that is: {near}"
