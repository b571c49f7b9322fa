"""Encoding of arrays into the stored objects of one granule. Pure functions."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt

from hephaestus_build.core.era5_grid import ERA5_VARIABLE_NAMES
from hephaestus_build.core.grid import Grid
from hephaestus_build.cube.codecs.shard_encoder import ChunkEncoder, ShardEncoder
from hephaestus_build.cube.schema import cube_schema
from hephaestus_build.processing.interpolation import interpolate_bilinear
from hephaestus_build.processing.mask_rasterization import AnnotationMasks


@cache
def _encoder(name: str) -> ChunkEncoder:
    return cube_schema().variables[name].make_encoder()


def _new_shard_encoder(name: str, width: int) -> ShardEncoder:
    """Return an empty shard of a variable."""
    fill = float(cube_schema().variables[name].fill)
    return ShardEncoder(width, inner=cube_schema().inner_chunk, encoder=_encoder(name), fill=fill)


def encode_images(planes: dict[str, npt.NDArray[Any]]) -> dict[str, bytes]:
    """Return the encoded images on the frame's grid; images without data are left out.

    Parameters
    ----------
    planes : dict of str to numpy.ndarray
        By variable; each of shape (rows, columns) and of the variable's dtype.
    """
    shards = {
        name: _new_shard_encoder(name, plane.shape[1]).encode_image(plane) for name, plane in planes.items()
    }
    return {name: shard for name, shard in shards.items() if shard is not None}


def encode_masks(masks: AnnotationMasks) -> dict[str, bytes]:
    """Encode masks that are given as a window of the frame.

    The result equals that of :func:`encode_images` for the whole masks.
    """
    inner = cube_schema().inner_chunk
    rows, columns = masks.window
    height, width = masks.shape
    shards: dict[str, bytes] = {}
    for name, values in masks.items():
        shard = _new_shard_encoder(name, width)
        for top in range(0, height, inner):
            bottom = min(top + inner, height)
            first, last = max(top, rows.start), min(bottom, rows.stop)
            band = None
            if first < last:
                band = np.zeros((bottom - top, width), np.uint8)
                band[first - top : last - top, columns] = values[first - rows.start : last - rows.start]
            shard.add_band(band)
        if encoded := shard.finish():
            shards[name] = encoded
    return shards


def encode_atmosphere(
    values: npt.NDArray[np.float32], latitude: npt.NDArray[Any], longitude: npt.NDArray[Any], grid: Grid
) -> dict[str, bytes]:
    """Encode the objects of one epoch: each field on the frame's grid, and on ERA5's own grid.

    Parameters
    ----------
    values : numpy.ndarray
        ERA5's fields in the order of :data:`~hephaestus_build.sources.era5.selection.ERA5_VARIABLE_NAMES`,
        shape (3, latitude, longitude), float32.
    latitude, longitude : numpy.ndarray
        ERA5's grid points, degrees, descending and ascending.
    grid : Grid
        The frame's grid, inside the grid points.

    Returns
    -------
    dict of str to bytes
        ``<name>`` on the frame's grid, rounded to the schema's step, and ``era5_<name>``.
    """
    inner = cube_schema().inner_chunk
    shards = {name: _new_shard_encoder(f"primary_date_{name}", grid.width) for name in ERA5_VARIABLE_NAMES}
    # band by band: whole images would take twenty times the memory, and more time to allocate it
    bands = np.empty((len(ERA5_VARIABLE_NAMES), min(inner, grid.height), grid.width), np.float32)
    for top in range(0, grid.height, inner):
        rows = slice(top, min(top + inner, grid.height))
        band = bands[:, : rows.stop - top]
        interpolate_bilinear(values, latitude, longitude, grid, rows, out=band)  # the encoder rounds
        for shard, image in zip(shards.values(), band, strict=True):
            shard.add_band(image)
    objects: dict[str, bytes] = {}
    for (name, shard), native in zip(shards.items(), values, strict=True):
        encoded = shard.finish()
        assert encoded is not None  # ERA5 has a value everywhere
        objects[name] = encoded
        objects[f"era5_{name}"] = _encoder(f"era5_{name}").encode(np.ascontiguousarray(native, dtype="<f4"))
    return objects
