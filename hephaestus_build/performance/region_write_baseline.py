"""The same content as a user writes it today: rioxarray, ``xarray.interp`` and ``to_zarr(region=...)``."""

from __future__ import annotations

import shutil
import warnings
from pathlib import Path
from typing import Any

import dask.array
import numpy as np
import rioxarray
import xarray as xr

from hephaestus_build.core.era5_grid import ERA5_VARIABLE_NAMES
from hephaestus_build.cube.schema import cube_schema
from hephaestus_build.performance.build_tasks import measure_stored_bytes
from hephaestus_build.performance.input_files import InputFiles
from hephaestus_build.performance.process_timer import TaskTimer

PAIR_DIMENSIONS = ("primary_date", "secondary_date", "latitude", "longitude")
IMAGE_DTYPES = {
    "insar_difference": "float32",
    "insar_coherence": "uint8",
    "deformation_mask": "uint8",
    "activity_type_mask": "uint8",
    "intensity_level_mask": "uint8",
}


def run_region_build(clock: TaskTimer, content: dict[str, Any], path: str) -> dict[str, Any]:
    """Build the cube of all rasters, masks and fields pair by pair, from files on this disk.

    One chunk an image and the codecs that xarray takes by itself. Kind to this way of building: nothing is
    downloaded, hashed or checked, and the fields of a date are interpolated once for both date axes.
    """
    here = InputFiles.from_json(content)
    annotated = here.annotations_by_pair()
    store = Path(path)
    shutil.rmtree(store, ignore_errors=True)
    with warnings.catch_warnings(), clock:
        warnings.filterwarnings("ignore", category=PendingDeprecationWarning)
        warnings.filterwarnings("ignore", message="Consolidated metadata is currently not part")
        _write_cube(here, annotated, store)
    return {"pairs": len(here.pairs), **measure_stored_bytes(store)}


def _write_cube(here: InputFiles, annotated: dict[Any, Any], store: Path) -> None:
    primary = sorted({pair.primary for pair in here.pairs})
    secondary = sorted({pair.secondary for pair in here.pairs})
    latitude, longitude = here.grid.latitudes, here.grid.longitudes
    _write_template(store, primary, secondary, latitude, longitude)
    whole = {"latitude": slice(None), "longitude": slice(None)}

    xr.Dataset({"dem": (PAIR_DIMENSIONS[2:], _read_raster(here.dem))}).to_zarr(store, region=whole)

    for pair in here.pairs:
        i, j = primary.index(pair.primary), secondary.index(pair.secondary)
        layers = {
            "insar_difference": _read_raster(here.phase(pair)),
            "insar_coherence": _read_raster(here.coherence(pair)),
        }
        if pair in annotated:
            layers |= here.rasterize_masks(pair, annotated[pair])
        xr.Dataset({name: (PAIR_DIMENSIONS, values[None, None]) for name, values in layers.items()}).to_zarr(
            store,
            region={"primary_date": slice(i, i + 1), "secondary_date": slice(j, j + 1), **whole},
        )

    for day in here.dates:
        fields = xr.DataArray(
            here.era5_fields(day),
            dims=("variable", "latitude", "longitude"),
            coords={"latitude": here.area.latitudes, "longitude": here.area.longitudes},
        )
        images = fields.interp(latitude=latitude, longitude=longitude).astype("float32").to_numpy()
        for axis, days in (("primary_date", primary), ("secondary_date", secondary)):
            if day in days:
                i = days.index(day)
                xr.Dataset(
                    {
                        f"{axis}_{name}": ((axis, "latitude", "longitude"), image[None])
                        for name, image in zip(ERA5_VARIABLE_NAMES, images, strict=True)
                    }
                ).to_zarr(store, region={axis: slice(i, i + 1), **whole})


def _read_raster(path: Path) -> np.ndarray:
    raster = rioxarray.open_rasterio(path)
    assert isinstance(raster, xr.DataArray)
    return raster.squeeze("band", drop=True).to_numpy()


def _write_template(
    store: Path, primary: list[Any], secondary: list[Any], latitude: np.ndarray, longitude: np.ndarray
) -> None:
    """Write the metadata of all arrays, and their coordinates."""
    sizes = (len(primary), len(secondary), latitude.size, longitude.size)
    plane = sizes[2:]
    variables: dict[str, Any] = {
        name: (PAIR_DIMENSIONS, dask.array.zeros(sizes, dtype=dtype, chunks=(1, 1, *plane)))
        for name, dtype in IMAGE_DTYPES.items()
    }
    variables["dem"] = (PAIR_DIMENSIONS[2:], dask.array.zeros(plane, dtype="float32", chunks=plane))
    for axis, days in (("primary_date", primary), ("secondary_date", secondary)):
        for name in ERA5_VARIABLE_NAMES:
            zeros = dask.array.zeros((len(days), *plane), dtype="float32", chunks=(1, *plane))
            variables[f"{axis}_{name}"] = ((axis, *PAIR_DIMENSIONS[2:]), zeros)
    coordinates = {
        "primary_date": np.array(primary, dtype="datetime64[ns]"),
        "secondary_date": np.array(secondary, dtype="datetime64[ns]"),
        "latitude": latitude,
        "longitude": longitude,
    }
    xr.Dataset(variables, coords=coordinates).to_zarr(store, compute=False, zarr_format=3)


def compare_with_build(ours: Path, theirs: Path) -> dict[str, Any]:
    """Return how the arrays of two cubes differ: images must not, the fields by half a step.

    Returns
    -------
    dict
        ``images_equal``, ``pairs_compared``, and by field ``largest_difference`` in steps.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Numcodecs codecs are not in the Zarr version 3")
        with xr.open_zarr(ours) as mine, xr.open_zarr(theirs) as other:
            return _compare_datasets(mine, other)


def _compare_datasets(mine: xr.Dataset, other: xr.Dataset) -> dict[str, Any]:
    dates = [mine[axis].values for axis in ("primary_date", "secondary_date")]
    stored_pairs = [
        {"primary_date": dates[0][i], "secondary_date": dates[1][j]}
        for i, j in np.argwhere(mine["valid_date_pair"].values)
    ]
    equal = bool(np.array_equal(mine["dem"].values, other["dem"].values, equal_nan=True))
    for place in stored_pairs:
        for name in IMAGE_DTYPES:
            # bit for bit: a sign of zero counts
            bits = [cube[name].sel(place).values.tobytes() for cube in (mine, other)]
            equal &= bits[0] == bits[1]
    largest: dict[str, float] = {}
    for axis in ("primary_date", "secondary_date"):
        for name in ERA5_VARIABLE_NAMES:
            variable = f"{axis}_{name}"
            step = cube_schema().variables[variable].step or 1.0
            for day in other[axis].values:  # ours holds dates without a stored pair too
                difference = mine[variable].sel({axis: day}).values - other[variable].sel({axis: day}).values
                worst = float(np.abs(difference).max()) / step
                largest[name] = round(max(largest.get(name, 0.0), worst), 3)
    return {
        "images_equal": equal,
        "pairs_compared": len(stored_pairs),
        "largest_difference_in_steps": largest,
    }
