"""From arrays to the stored objects of one unit: pure functions."""

from __future__ import annotations

from functools import cache

import numpy as np

from hephaestus_build.atmosphere import bilinear
from hephaestus_build.cube.schema import Variable, cube_schema
from hephaestus_build.cube.shards import Encoder, encode_shard
from hephaestus_build.grid import Grid
from hephaestus_build.sources.fields import VARIABLES


@cache
def _encoder(name: str) -> Encoder:
    return cube_schema().variables[name].encoder()


def _shard(variable: Variable, plane: np.ndarray) -> bytes | None:
    return encode_shard(
        plane, inner=cube_schema().inner_chunk, encoder=_encoder(variable.name), fill=float(variable.fill)
    )


def encode_images(planes: dict[str, np.ndarray]) -> dict[str, bytes]:
    """Return the shards of images on the frame's grid, those without any data left out.

    Parameters
    ----------
    planes : dict of str to numpy.ndarray
        By variable; each of shape (rows, columns) and of the variable's dtype.
    """
    variables = cube_schema().variables
    shards = {name: _shard(variables[name], plane) for name, plane in planes.items()}
    return {name: shard for name, shard in shards.items() if shard is not None}


def encode_atmosphere(
    values: np.ndarray, latitude: np.ndarray, longitude: np.ndarray, grid: Grid
) -> dict[str, bytes]:
    """Return the stored objects of one epoch: each field on the frame's grid, and as ERA5 gives it.

    Parameters
    ----------
    values : numpy.ndarray
        ERA5's fields in the order of :data:`~hephaestus_build.sources.era5.VARIABLES`, shape
        (3, latitude, longitude), float32.
    latitude, longitude : numpy.ndarray
        ERA5's grid points, degrees, descending and ascending.
    grid : Grid
        The frame's grid, inside the grid points.

    Returns
    -------
    dict of str to bytes
        ``<name>`` on the frame's grid, rounded to the schema's step, and ``era5_<name>``.
    """
    variables = [cube_schema().variables[f"primary_date_{name}"] for name in VARIABLES]
    steps = [variable.step or 0.0 for variable in variables]
    objects: dict[str, bytes] = {}
    images = bilinear(values, latitude, longitude, grid, steps=steps)
    for name, variable, image, native in zip(VARIABLES, variables, images, values, strict=True):
        shard = _shard(variable, image)
        assert shard is not None  # ERA5 has a value everywhere
        objects[name] = shard
        objects[f"era5_{name}"] = _encoder(f"era5_{name}").encode(np.ascontiguousarray(native, dtype="<f4"))
    return objects
