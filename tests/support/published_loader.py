"""What the published loader makes of a cube: one item of a series, as tensors of NumPy.

It opens the cube with plain xarray, selects one primary and several secondary dates, calls earthquakes
deformation, repeats the height for each step, stacks the channels, and cuts a window at a random distance
from the middle of the deformation, or of the frame where there is none.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import xarray as xr

CHANNELS = (
    "insar_difference",
    "insar_coherence",
    "dem",
    "primary_date_total_column_water_vapour",
    "secondary_date_total_column_water_vapour",
    "primary_date_surface_pressure",
    "secondary_date_surface_pressure",
    "primary_date_vertical_integral_of_temperature",
    "secondary_date_vertical_integral_of_temperature",
)


def load_item(
    folder: Path, frame: str, pairs: Sequence[str], size: int, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return image, shape (steps x channels, size, size), and labels, shape (steps, size, size).

    Parameters
    ----------
    folder : pathlib.Path
        Where ``<frame>.zarr`` is.
    frame : str
        Frame id.
    pairs : sequence of str
        Members of the series, of one primary date.
    size : int
        Rows and columns of the window.
    seed : int
        Of the window's place.
    """
    days = [f"{name[9:13]}-{name[13:15]}-{name[15:]}" for name in pairs]
    [primary] = {f"{name[:4]}-{name[4:6]}-{name[6:8]}" for name in pairs}
    with xr.open_zarr(folder / f"{frame}.zarr") as cube:
        chosen = cube.sel(
            primary_date=np.datetime64(primary), secondary_date=[np.datetime64(day) for day in days]
        )[[*CHANNELS, "deformation_mask"]]
        layers = {name: chosen[name].to_numpy() for name in chosen.data_vars}
    codes = layers.pop("deformation_mask")
    mask = np.where(codes == 2, 1, codes)
    assert set(np.unique(mask)) <= {0, 1}, f"the mask of {pairs} has the codes {np.unique(codes)}"
    steps = [
        np.repeat(one[np.newaxis], len(pairs), 0) if one.ndim == 2 else one
        for one in (layers[name] for name in CHANNELS)
    ]
    stacked = np.stack([one.astype("f4") for one in steps], 1)
    row, column = _window(mask.any(0), size, np.random.default_rng(seed))
    cut = np.s_[..., row : row + size, column : column + size]
    return stacked[cut].reshape(-1, size, size), mask[cut].astype("i8")


def _window(deforming: np.ndarray, size: int, rng: np.random.Generator) -> tuple[int, int]:
    places = np.argwhere(deforming)
    ends = (
        (places.min(0), places.max(0)) if len(places) else (np.zeros(2, int), np.array(deforming.shape) - 1)
    )
    middle = (ends[0] + ends[1]) // 2 + rng.integers(-size // 4, size // 4 + 1, 2)
    half = size // 2
    row, column = np.clip(middle, half, np.array(deforming.shape) - half) - half
    return int(row), int(column)
