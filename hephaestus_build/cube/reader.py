"""Opening a cube so that it stays the same while it is read."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import xarray as xr

from hephaestus_build.errors import HephaestusError, UsageError
from hephaestus_build.frames import Frame


def no_cube(path: str | Path) -> HephaestusError:
    """Return the error that there is no cube at `path`, with the command that builds it."""
    name = Path(path).stem
    try:
        frame = str(Frame.parse(name))
    except UsageError:
        return HephaestusError(f"there is no cube at {path}; `hephaestus status` shows those there are")
    if (Path(path) / "manifest.json").is_file():
        return HephaestusError(f"the cube at {path} is damaged; `hephaestus repair {frame}` mends it")
    return HephaestusError(f"there is no cube at {path}; `hephaestus build {frame}` builds it")


def open_cube(path: str | Path, **options: Any) -> xr.Dataset:
    """Open a published cube, pinned to the generation that is current now.

    Plain ``xarray.open_zarr`` reads the same data; but it keeps the name, not the generation behind it, so
    that a build published meanwhile could show through in what is read later.

    Parameters
    ----------
    path : str or pathlib.Path
        Such as ``data/cubes/124D_04854_171313.zarr``.
    **options
        Passed to :func:`xarray.open_zarr`.

    Returns
    -------
    xarray.Dataset
        Every variable of docs/cube.md; ``encoding["source"]`` names the pinned store.

    Raises
    ------
    HephaestusError
        If there is no cube.
    """
    store = Path(path).resolve()
    if not (store / "zarr.json").is_file():
        raise no_cube(path)
    with warnings.catch_warnings():
        # said by zarr 3.1 of any codec from numcodecs, which the packed atmosphere needs (docs/cube.md)
        warnings.filterwarnings("ignore", message="Numcodecs codecs are not in the Zarr version 3")
        dataset = xr.open_zarr(store, **options)
    dataset.encoding["source"] = str(store)
    return dataset
