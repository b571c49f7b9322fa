"""Opening a cube so that it stays the same while it is read."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import xarray as xr

from hephaestus_build.core.errors import HephaestusError, UsageError
from hephaestus_build.core.frames import Frame
from hephaestus_build.core.plain_files import is_plain_file
from hephaestus_build.core.plain_text import sanitize_text
from hephaestus_build.cube.reading.plain_store import PlainStore
from hephaestus_build.cube.reading.store_metadata import read_store_metadata
from hephaestus_build.cube.reading.verified_objects import VerifyMode, make_object_verifier


def no_cube_error(path: str | Path) -> HephaestusError:
    """Return the error that there is no cube at `path`, with the command that builds it."""
    name = Path(path).stem
    try:
        frame = str(Frame.parse(name))
    except UsageError:
        return HephaestusError(f"there is no cube at {path}; `hephaestus status` shows those there are")
    if (Path(path) / "manifest.json").is_file():
        return HephaestusError(f"the cube at {path} is damaged; `hephaestus repair {frame}` mends it")
    return HephaestusError(f"there is no cube at {path}; `hephaestus build {frame}` builds it")


@contextmanager
def suppress_codec_warnings() -> Iterator[None]:
    """Keep back what zarr 3.1 says of any codec from numcodecs: the packed atmosphere needs some."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Numcodecs codecs are not in the Zarr version 3")
        yield


def resolve_published_store(path: str | Path) -> Path:
    """Return the store of the generation that is published now at `path`.

    Raises
    ------
    HephaestusError
        If there is no cube.
    """
    try:
        store = Path(path).resolve()
    except (OSError, RuntimeError, ValueError):  # links in a circle, a name that no file can have
        raise no_cube_error(path) from None
    if not is_plain_file(store, "zarr.json"):
        raise no_cube_error(path)
    return store


def open_pinned_cube(path: str | Path, *, verify: VerifyMode = None, **options: Any) -> xr.Dataset:
    """Open a published cube, pinned to the generation that is current now.

    Plain ``xarray.open_zarr`` reads the same data; but it keeps the name, not the generation behind it, so
    that a build published meanwhile could show through in what is read later. It also follows links in the
    store and takes whatever memory its files name; here all that is read is a plain file of the store, and
    decodes to what its array says.

    Parameters
    ----------
    path : str or pathlib.Path
        Such as ``data/cubes/124D_04854_171313.zarr``.
    verify : {"first", None}
        Whether each stored object is compared with the manifest when it is first read, once in each process.
    **options
        Passed to :func:`xarray.open_zarr`.

    Returns
    -------
    xarray.Dataset
        Every variable of docs/cube.md; ``encoding["source"]`` names the pinned store.

    Raises
    ------
    HephaestusError
        If there is no cube, or it is damaged or removed; while values are read too. Without `verify`, an
        object that cannot be decoded ends in the error of its codec (RuntimeError, ValueError) instead.
    """
    store = resolve_published_store(path)
    inspect.signature(xr.open_zarr).bind(store, **options)  # a wrong option is no damage
    try:
        metadata = read_store_metadata(store)
        plain = PlainStore(store, metadata.arrays, make_object_verifier(store, verify))
        with suppress_codec_warnings():
            dataset = xr.open_zarr(plain, **options)
    except HephaestusError:
        raise
    except Exception as error:  # whatever metadata of others makes of the readers
        raise HephaestusError(
            f"{store.stem}: the cube at {path} is damaged ({sanitize_text(error, 200)}); "
            f"`hephaestus verify {path}` says more; `hephaestus repair FRAME` mends what was built here"
        ) from error
    dataset.encoding["source"] = str(store)
    return dataset
