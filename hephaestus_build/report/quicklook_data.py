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
from hephaestus_build.core.plain_text import sanitize_text
from hephaestus_build.cube.array_attributes import DEM_SOURCE
from hephaestus_build.cube.georeference import read_cube_grid
from hephaestus_build.cube.reading.dataset import open_pinned_cube
from hephaestus_build.report.image_ops import shrink_codes, shrink_factor, shrink_mean, shrink_phase

_VAPOUR = "total_column_water_vapour"


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
    credits : tuple of str
        Whom to credit for what is shown, and for nothing else; of simulated data what is simulated.
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
    credits: tuple[str, ...]

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
        The pair; by default the newest (:func:`newest_pair`).
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
        pair = newest_pair(network, frame)
    elif pair not in network.pairs:
        raise UsageError(f"{frame}: no interferogram of {pair} is stored; {_nearest(pair, network.pairs)}")
    grid = read_cube_grid(dataset)
    factor = shrink_factor(grid.shape, largest)

    def image(name: str) -> np.ndarray:
        return _image(dataset, name, pair)

    coherence, height = image("insar_coherence"), image("dem")
    vapour = image(f"secondary_date_{_VAPOUR}") - image(f"primary_date_{_VAPOUR}")
    words = {name: image(name).item() for name in ("phase", "confidence", "caption") if image("annotated")}
    shown = {
        "insar_difference": True,
        "dem": not np.isnan(height).all(),
        f"secondary_date_{_VAPOUR}": not np.isnan(vapour).all(),
        "annotated": bool(words),
    }
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
        height=shrink_mean(height, factor),
        vapour=shrink_mean(vapour, factor),
        activity=shrink_codes(image("activity_type_mask"), factor),
        intensity=shrink_codes(image("intensity_level_mask"), factor),
        network=network,
        annotation=words,
        attributes=dict(dataset.attrs),
        credits=_credits(dataset, [name for name, there in shown.items() if there]),
    )


#: What the sources of a cube's variables are called in a credit.
_SIMULATED_WORDS = {
    "insar_difference": "interferogram",
    "dem": "terrain",
    f"secondary_date_{_VAPOUR}": "weather",
    "annotated": "annotation",
}


def _credits(dataset: xr.Dataset, shown: Sequence[str]) -> tuple[str, ...]:
    """Return whom to credit for some variables of a cube, as their attributes say."""
    if dataset.attrs.get("simulated"):
        *words, last = (_SIMULATED_WORDS[name] for name in shown)
        what = f"{', '.join(words)} and {last}" if words else last
        return (f"Simulated {what}: no satellite saw this.",)
    found: dict[str, None] = {}
    for name in shown:
        about = dataset[name].attrs
        text = f"{about['source']}: {about['license']}" if "license" in about else about.get("source", "")
        if name == "dem" and (model := dataset[name].attrs.get(DEM_SOURCE)):
            text = f"Heights: {model}"
        if text:
            found[f"{sanitize_text(text, 200)}."] = None
    return tuple(found)


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


def newest_pair(network: PairNetwork, frame: str) -> Pair:
    """Return the stored pair with the latest secondary date; of several, the one with the latest primary.

    Raises
    ------
    UsageError
        If no pair is stored.
    """
    if not network.pairs:
        raise UsageError(f"{frame}: no interferogram is stored, so there is nothing to draw")
    return max(network.pairs, key=lambda pair: (pair.secondary, pair.primary))


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
