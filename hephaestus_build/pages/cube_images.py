"""The images of a page as a cube holds them: its overviews, its heights, its water vapour, a model's maps."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import xarray as xr

from hephaestus_build.core.errors import HephaestusError
from hephaestus_build.core.frames import Pair
from hephaestus_build.core.grid import Grid
from hephaestus_build.core.plain_text import sanitize_text
from hephaestus_build.cube.decimation import Decimation
from hephaestus_build.cube.georeference import read_cube_grid
from hephaestus_build.cube.group_tables import OVERVIEW
from hephaestus_build.cube.reading.dataset import open_pinned_cube
from hephaestus_build.processing.interpolation import interpolate_bilinear

_VAPOUR = "total_column_water_vapour"
_MAP_FORMAT = "hephaestus-predictions-map/1"
_PROBABILITY = "deformation_probability"


@dataclass(frozen=True)
class PairImages:
    """The overview of one pair, as stored.

    Attributes
    ----------
    phase, coherence, mask : numpy.ndarray
        uint8, shape (rows, columns): the bytes of the group ``overview``.
    probability : numpy.ndarray or None
        float32, the same shape: a model's probability; None where none was predicted.
    """

    phase: npt.NDArray[np.uint8]
    coherence: npt.NDArray[np.uint8]
    mask: npt.NDArray[np.uint8]
    probability: npt.NDArray[np.float32] | None = None


@dataclass(frozen=True)
class CubeImages:
    """Images of a cube on the grid of its overviews.

    Attributes
    ----------
    grid : Grid
        That grid.
    factor : int
        Pixels of the frame's grid for each of its own.
    pairs : dict of Pair to PairImages
        In order of secondary date, then of primary date.
    height : numpy.ndarray or None
        Heights in metres, float32; NaN is no data. None while the DEM is owed.
    model : dict of str to str
        About the model of the probabilities; empty without one.
    """

    grid: Grid
    factor: int
    pairs: Mapping[Pair, PairImages]
    height: npt.NDArray[np.float32] | None
    model: Mapping[str, str]


def read_cube_images(cube: xr.Dataset, pairs: Collection[Pair], maps: Path) -> CubeImages:
    """Return the images of some pairs of a cube.

    Parameters
    ----------
    cube : xarray.Dataset
        A cube that was opened by :func:`~hephaestus_build.cube.reading.dataset.open_pinned_cube`.
    pairs : collection of Pair
        Stored pairs; those whose overview is missing are left out.
    maps : pathlib.Path
        Where maps of a model may be, ``<predictions>/<frame>.zarr``.

    Raises
    ------
    HephaestusError
        If the cube is damaged, or the maps are not those of its frame.
    """
    full = read_cube_grid(cube)
    ordered = sorted(pairs, key=lambda pair: (pair.secondary, pair.primary))
    with open_pinned_cube(
        cube.encoding["source"], group=OVERVIEW, mask_and_scale=False, chunks=None, verify="first"
    ) as small:
        factor = int(small.attrs["decimation"])
        columns = (small[name].values.astype("datetime64[D]").tolist() for name in ("primary", "secondary"))
        places = {Pair(*days): place for place, days in enumerate(zip(*columns, strict=True))}
        stored = {pair: _read_pair(small, places[pair]) for pair in ordered if pair in places}
    decimation = Decimation(factor)
    probabilities, model = _read_maps(maps, full, stored, decimation)
    height = _decimate(cube["dem"].values, decimation)
    return CubeImages(
        decimation.grid(full),
        factor,
        {
            pair: replace(one, probability=probabilities.get(pair))
            for pair, one in stored.items()
            if one.phase.any() or one.coherence.any()
        },
        None if np.isnan(height).all() else height,
        model,
    )


def _read_pair(small: xr.Dataset, place: int) -> PairImages:
    names = ("wrapped_phase", "coherence", "deformation_mask")
    phase, coherence, mask = (small[name].isel(pair=place).values for name in names)
    return PairImages(phase, coherence, mask)


def _decimate(values: npt.NDArray[Any], decimation: Decimation) -> npt.NDArray[Any]:
    return decimation.assemble([(0, values)], values.shape, values.dtype)


def _read_maps(
    store: Path, grid: Grid, pairs: Collection[Pair], decimation: Decimation
) -> tuple[dict[Pair, npt.NDArray[np.float32]], dict[str, str]]:
    """Return a model's probabilities of some pairs, and about the model.

    A map of a series is of its last pair.
    """
    if not (store / "zarr.json").is_file():
        return {}, {}
    with open_pinned_cube(store, chunks=None, decode_times=False) as maps:
        values, attributes = maps.get(_PROBABILITY), maps.attrs
        if values is None or attributes.get("format") != _MAP_FORMAT or values.shape[1:] != grid.shape:
            raise HephaestusError(
                f"{store.stem}: {store} holds no maps of this frame's grid; move it away, or predict again "
                f"with `hephaestus benchmark predict {store.stem}`"
            )
        places = {pair: place for place, pair in enumerate(_mapped_pairs(maps, store)) if pair in pairs}
        found = {pair: _decimate(values[place].values, decimation) for pair, place in places.items()}
    names = ("model", "task", "checkpoint", "learnt_from_simulated")
    return found, {name: sanitize_text(attributes[name], 100) for name in names if name in attributes}


def _mapped_pairs(maps: xr.Dataset, store: Path) -> list[Pair]:
    """Return the pair of each map; of a map of a series its last one."""
    start = date(1970, 1, 1)
    columns = maps["primary_date"].values.tolist(), maps["secondary_date"].values[:, -1].tolist()
    try:
        return [Pair(*(start + timedelta(days=day) for day in both)) for both in zip(*columns, strict=True)]
    except (OverflowError, ValueError) as error:
        raise HephaestusError(
            f"{store.stem}: {store} is damaged: it has a date that is none ({error})"
        ) from error


def read_vapour(cube: xr.Dataset, days: Collection[date], grid: Grid) -> dict[date, npt.NDArray[np.float32]]:
    """Return the water vapour at some dates on a grid, kg m-2; dates that have none are left out.

    Parameters
    ----------
    cube : xarray.Dataset
        A cube.
    days : collection of datetime.date
        Acquisition dates.
    grid : Grid
        The grid, within the frame.
    """
    epochs = dict(_places(cube, "epoch"))
    fields = cube[f"era5_{_VAPOUR}"].values
    latitudes, longitudes = (cube[f"era5_{axis}"].values for axis in ("latitude", "longitude"))
    found = {}
    for day in sorted(days):
        if day in epochs and np.isfinite(fields[epochs[day]]).all():
            found[day] = interpolate_bilinear(fields[epochs[day]], latitudes, longitudes, grid)
        elif (whole := _read_whole_field(cube, day)) is not None:  # imported without ERA5's own grid
            found[day] = _take_nearest(whole, read_cube_grid(cube), grid)
    return found


def _read_whole_field(cube: xr.Dataset, day: date) -> npt.NDArray[np.float32] | None:
    """Return the water vapour of a date on the frame's grid, if there is any."""
    for axis in ("primary_date", "secondary_date"):
        if (place := dict(_places(cube, axis)).get(day)) is not None:
            field = cube[f"{axis}_{_VAPOUR}"][place].values
            if np.isfinite(field).any():
                return field
    return None


def _places(cube: xr.Dataset, axis: str) -> list[tuple[date, int]]:
    return [(day, place) for place, day in enumerate(cube[axis].values.astype("datetime64[D]").tolist())]


def _take_nearest(values: npt.NDArray[np.float32], source: Grid, target: Grid) -> npt.NDArray[np.float32]:
    """Return the values of the pixels that hold the centres of another grid."""
    rows = ((source.north - target.latitudes) / source.dy).astype(int).clip(0, source.height - 1)
    columns = ((target.longitudes - source.west) / source.dx).astype(int).clip(0, source.width - 1)
    return values[np.ix_(rows, columns)]
