"""How the arrays of a cube are stored in Zarr format 2.

xarray treats the ``fill_value`` of an array in format 2 as CF's ``_FillValue``: 0 would turn real zeros into
NaN, and bytes into floats. Without a fill value, old readers return uninitialized memory for a missing chunk.
So arrays whose zeros are values have no fill value, and all their chunks are stored.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numcodecs
import numpy as np
import numpy.typing as npt
import zarr

from hephaestus_build.core.filesystem.zarr_folder import ZarrFolder
from hephaestus_build.core.registry import load_schema
from hephaestus_build.cube.schema import Coordinate, Variable

_SHUFFLES = {
    "noshuffle": numcodecs.Blosc.NOSHUFFLE,
    "shuffle": numcodecs.Blosc.SHUFFLE,
    "bitshuffle": numcodecs.Blosc.BITSHUFFLE,
}


@dataclass(frozen=True)
class ZarrV2ArraySpec:
    """Storage of one array.

    Attributes
    ----------
    dims : tuple of str
        Names of the dimensions.
    shape, chunks : tuple of int
        Shapes of the array and of its chunks.
    dtype : numpy.dtype
        Type of the values; object for strings.
    fill : float, int or None
        Value of missing chunks; None if all chunks are stored.
    filters : tuple of numcodecs.abc.Codec
        Applied before the compressor.
    compressor : numcodecs.abc.Codec
        The last codec; by default one for small arrays.
    """

    dims: tuple[str, ...]
    shape: tuple[int, ...]
    chunks: tuple[int, ...]
    dtype: np.dtype
    fill: float | int | None
    filters: tuple[Any, ...] = ()
    compressor: Any = field(default_factory=lambda: numcodecs.Blosc("zstd", 5, numcodecs.Blosc.SHUFFLE))

    def encode_chunk(self, values: npt.NDArray[Any]) -> bytes:
        """Encode `values` as one chunk."""
        values = np.ascontiguousarray(values, dtype=self.dtype)
        for codec in self.filters:
            values = codec.encode(values)
        return bytes(self.compressor.encode(values))

    def encode_empty_chunk(self) -> bytes:
        """Encode a chunk of zeros, as small as possible."""
        return bytes(
            numcodecs.Blosc("zstd", 9, numcodecs.Blosc.NOSHUFFLE).encode(np.zeros(self.chunks, self.dtype))
        )

    def create(self, store: Path, name: str, attributes: Mapping[str, Any]) -> zarr.Array[Any]:
        """Write the metadata of the array into a store; chunks that are there stay.

        Parameters
        ----------
        store : pathlib.Path
            Folder of the group.
        name : str
            Name of the array.
        attributes : mapping
            Attributes of the cube's array; its ``_FillValue`` is that of format 3 and is left out.
        """
        (store / name / ".zarray").unlink(missing_ok=True)
        described = {key: value for key, value in attributes.items() if key != "_FillValue"}
        return zarr.create_array(
            ZarrFolder(store),
            name=name,
            shape=self.shape,
            chunks=self.chunks,
            dtype=str if self.dtype.kind == "O" else self.dtype,
            filters=list(self.filters) or None,
            compressors=self.compressor,
            fill_value=self.fill,
            zarr_format=2,
            attributes={**described, "_ARRAY_DIMENSIONS": list(self.dims)},
            config={"write_empty_chunks": True},
        )


def image_array_spec(variable: Variable, sizes: Mapping[str, int]) -> ZarrV2ArraySpec:
    """Return how images are stored: one chunk for each, with the codecs of the cube."""
    assert variable.codec is not None
    codec = load_schema("cube.json")["codecs"][variable.codec]
    shape = tuple(sizes[dim] for dim in variable.dims)
    dtype = np.dtype(variable.dtype)
    return ZarrV2ArraySpec(
        variable.dims,
        shape,
        (1,) * (len(shape) - 2) + shape[-2:],
        dtype.newbyteorder("<"),
        # NaN cannot be taken for data; zeros are meant
        variable.fill if _is_nan(variable.fill) else None,
        (),
        numcodecs.Blosc(codec["cname"], codec["clevel"], _SHUFFLES[codec["shuffle"]], blocksize=0),
    )


def table_array_spec(item: Variable | Coordinate, shape: tuple[int, ...]) -> ZarrV2ArraySpec:
    """Return how a table or coordinate is stored: in one chunk."""
    text = item.dtype == "string"
    declared = item.attributes.get("_FillValue")
    fill = float("nan") if isinstance(item, Variable) and _is_nan(item.fill) else declared
    return ZarrV2ArraySpec(
        item.dims,
        shape,
        shape,
        np.dtype(object) if text else np.dtype(item.dtype).newbyteorder("<"),
        fill,
        (numcodecs.VLenUTF8(),) if text else (),
    )


def _is_nan(value: Any) -> bool:
    return isinstance(value, float) and math.isnan(value)


def to_stored_values(item: Variable | Coordinate, values: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Return values as they are stored: dates as the numbers that the units of `item` count."""
    if values.dtype.kind != "M":
        return values
    step = "D" if str(item.attributes["units"]).startswith("days") else "h"
    numbers = values.astype(f"datetime64[{step}]").astype("int64")
    return np.where(np.isnat(values), item.attributes.get("_FillValue", 0), numbers)
