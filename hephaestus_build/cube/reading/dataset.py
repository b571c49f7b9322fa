"""Opening of a cube as an xarray.Dataset, pinned to one generation."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import xarray as xr

from hephaestus_build.core.errors import HephaestusError
from hephaestus_build.core.plain_files import is_plain_file
from hephaestus_build.core.plain_text import sanitize_text
from hephaestus_build.cube.discovery import no_cube_error
from hephaestus_build.cube.geozarr import drop_geozarr
from hephaestus_build.cube.reading.plain_store import PlainStore
from hephaestus_build.cube.reading.store_metadata import read_store_metadata
from hephaestus_build.cube.reading.verified_objects import VerifyMode, make_object_verifier
from hephaestus_build.cube.storage.generations import pinned_store


@contextmanager
def suppress_codec_warnings() -> Iterator[None]:
    """Suppress the warning of zarr 3.1 about codecs from numcodecs, which the packed atmosphere uses."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Numcodecs codecs are not in the Zarr version 3")
        yield


def resolve_published_store(path: str | Path) -> Path:
    """Return the store of the generation that is currently published at `path`.

    Raises
    ------
    HephaestusError
        If there is no cube.
    """
    try:
        store = pinned_store(Path(path))
    except (OSError, RuntimeError, ValueError):  # a loop of links, or an invalid file name
        raise no_cube_error(path) from None
    if not is_plain_file(store, "zarr.json"):
        raise no_cube_error(path)
    return store


def open_pinned_cube(path: str | Path, *, verify: VerifyMode = None, **options: Any) -> xr.Dataset:
    """Open a published cube, pinned to the currently published generation.

    Plain ``xarray.open_zarr`` reads the same data, but differs in three ways. It keeps the path of the link,
    so later reads return data of a newer generation if one has been published since. It follows links
    inside the store and allocates whatever memory the headers of compressed chunks state; this function
    reads only plain files whose decoded size matches the metadata of their array. And it shows the attributes
    of GeoZarr, which this function leaves out: they describe the whole grid, so they would be wrong for a
    selection, and netCDF cannot hold them.

    Parameters
    ----------
    path : str or pathlib.Path
        Path of the cube, such as ``data/cubes/124D_04854_171313.zarr``.
    verify : {"first", None}
        ``"first"`` compares each stored object with the manifest when it is first read, once per process.
    **options
        Passed to :func:`xarray.open_zarr`.

    Returns
    -------
    xarray.Dataset
        Every variable of docs/cube.md; ``encoding["source"]`` names the pinned store.

    Raises
    ------
    HephaestusError
        If there is no cube, or it is damaged. Also raised later, while values are read, if an object is
        damaged or the generation was removed. Without `verify`, an object that cannot be decoded raises the
        error of its codec (RuntimeError or ValueError) instead.
    """
    store = resolve_published_store(path)
    # reject invalid options here, so that they are not reported as a damaged cube below
    inspect.signature(xr.open_zarr).bind(store, **options)
    try:
        metadata = read_store_metadata(store)
        plain = PlainStore(store, metadata.arrays, make_object_verifier(store, verify))
        with suppress_codec_warnings():
            dataset = xr.open_zarr(plain, **options)
    except HephaestusError:
        raise
    except Exception as error:  # zarr and xarray raise many types for invalid metadata
        raise HephaestusError(
            f"{store.stem}: the cube at {path} is damaged ({sanitize_text(error, 200)}); "
            f"`hephaestus verify {path}` shows details; `hephaestus repair FRAME` repairs a cube built here"
        ) from error
    for described in (dataset, *dataset.variables.values()):
        described.attrs = drop_geozarr(described.attrs)
    dataset.encoding["source"] = str(store)
    return dataset
