"""Encoding of arrays into the stored objects of one granule. Pure functions."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt

from hephaestus_build.core.era5_grid import ERA5_VARIABLE_NAMES, era5_area_around
from hephaestus_build.core.grid import Grid
from hephaestus_build.cube.codecs.image_encoder import ChunkEncoder, ImageEncoder, object_name
from hephaestus_build.cube.decimation import Decimation
from hephaestus_build.cube.schema import Variable, cube_schema
from hephaestus_build.processing.interpolation import interpolate_bilinear, quantize
from hephaestus_build.processing.mask_rasterization import AnnotationMasks
from hephaestus_build.processing.overview_images import phase_to_bytes, water_vapour_difference

#: First column and values of each stored strip of an image.
ImageStrips = Iterable[tuple[int, npt.NDArray[Any]]]


@cache
def _encoder(name: str) -> ChunkEncoder:
    return cube_schema().variables[name].make_encoder()


def _new_image(name: str, shape: tuple[int, int]) -> ImageEncoder:
    """Return the encoder of an image of a variable, without any pixel."""
    variable = cube_schema().variables[name]
    return ImageEncoder(shape, strips=variable.strips, encoder=_encoder(name), fill=float(variable.fill))


def _stored_objects(name: str, image: ImageEncoder) -> dict[str, bytes]:
    """Return the strips of an image that hold data, by object name."""
    return {
        object_name(name, strip): content
        for strip, content in enumerate(image.finish())
        if content is not None
    }


def encode_images(planes: dict[str, npt.NDArray[Any]]) -> dict[str, bytes]:
    """Return the encoded images on the frame's grid; strips without data are left out.

    Parameters
    ----------
    planes : dict of str to numpy.ndarray
        By variable; each of shape (rows, columns) and of the variable's dtype.
    """
    objects: dict[str, bytes] = {}
    for name, plane in planes.items():
        height, width = plane.shape
        image = _new_image(name, (height, width))
        image.put(0, 0, plane)
        objects |= _stored_objects(name, image)
    return objects


def encode_field(name: str, variable: Variable, values: npt.NDArray[Any]) -> dict[str, bytes]:
    """Encode an image of a date as the object `name`, which both date axes show.

    Parameters
    ----------
    name : str
        Name without the date axis.
    variable : Variable
        The variable on one of the axes.
    values : numpy.ndarray
        Shape (rows, columns), of the variable's dtype.
    """
    return {name: _encoder(variable.name).encode(np.ascontiguousarray(values))}


def encode_masks(masks: AnnotationMasks) -> dict[str, bytes]:
    """Encode masks that are given as a window of the frame.

    The result equals that of :func:`encode_images` for the whole masks.
    """
    rows, columns = masks.window
    objects: dict[str, bytes] = {}
    for name, values in masks.items():
        image = _new_image(name, masks.shape)
        image.put(rows.start, columns.start, values)
        objects |= _stored_objects(name, image)
    return objects


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
    objects: dict[str, bytes] = {}
    image = np.empty((1, *grid.shape), np.float32)
    for name, native in zip(ERA5_VARIABLE_NAMES, values, strict=True):
        variable = cube_schema().variables[f"primary_date_{name}"]
        assert variable.step is not None
        # field by field: the three images together would take three times the memory
        interpolate_bilinear(native[np.newaxis], latitude, longitude, grid, steps=[variable.step], out=image)
        objects[name] = _encoder(variable.name).encode(image[0])
        objects[f"era5_{name}"] = _encoder(f"era5_{name}").encode(np.ascontiguousarray(native, dtype="<f4"))
    return objects


def encode_gridded_atmosphere(fields: Mapping[str, npt.NDArray[np.float32]]) -> dict[str, bytes]:
    """Encode ERA5's fields of one epoch that are given on the frame's grid alone, by name.

    They are rounded to the schema's step, as :func:`encode_atmosphere` rounds its own.
    """
    objects: dict[str, bytes] = {}
    for name, values in fields.items():
        variable = cube_schema().variables[f"primary_date_{name}"]
        assert variable.step is not None
        objects |= encode_field(name, variable, quantize(values, variable.step))
    return objects


@cache
def _overview_encoder(name: str) -> ChunkEncoder:
    return cube_schema().groups["overview"].variables[f"overview/{name}"].make_encoder()


def decimate_pair(
    grid: Grid, factor: int, *, phase: ImageStrips, coherence: ImageStrips
) -> dict[str, npt.NDArray[np.uint8]]:
    """Return the images of a pair's overview that follow from its interferogram alone.

    Parameters
    ----------
    grid : Grid
        The frame's grid.
    factor : int
        Every `factor`-th pixel of every `factor`-th row is taken.
    phase, coherence : iterable of (int, numpy.ndarray)
        Images of the pair, as strips of columns.
    """
    decimation = Decimation(factor)
    return {
        "wrapped_phase": phase_to_bytes(decimation.assemble(phase, grid.shape, np.float32)),
        "coherence": decimation.assemble(coherence, grid.shape, np.uint8),
    }


def encode_overview(
    grid: Grid,
    factor: int,
    interferogram: Mapping[str, npt.NDArray[np.uint8]],
    *,
    mask: ImageStrips = (),
    water_vapour: tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]] | None = None,
) -> dict[str, bytes]:
    """Encode the small images of one pair; images without data are left out.

    Parameters
    ----------
    grid : Grid
        The frame's grid.
    factor : int
        Every `factor`-th pixel of every `factor`-th row is taken.
    interferogram : mapping of str to numpy.ndarray
        Small images of phase and coherence, as :func:`decimate_pair` returns them.
    mask : iterable of (int, numpy.ndarray)
        Mask of the pair, as strips of columns.
    water_vapour : tuple of numpy.ndarray, optional
        Total column water vapour on ERA5's grid around `grid` at the primary and the secondary date, kg m-2;
        None where ERA5 is owed.

    Returns
    -------
    dict of str to bytes
        Encoded images by name in the group ``overview``.
    """
    decimation = Decimation(factor)
    images: dict[str, npt.NDArray[Any]] = {
        **interferogram,
        "deformation_mask": decimation.assemble(mask, grid.shape, np.uint8),
    }
    stored = {name: image for name, image in images.items() if image.any()}
    if water_vapour is not None:
        area, name = era5_area_around(grid), "water_vapour_difference"
        step = cube_schema().groups["overview"].variables[f"overview/{name}"].step
        assert step is not None
        stored[name] = water_vapour_difference(
            *water_vapour, area.latitudes, area.longitudes, decimation.grid(grid), step
        )
    return {name: _overview_encoder(name).encode(image) for name, image in stored.items()}
