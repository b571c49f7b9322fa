"""The schema of a cube: ``schemas/cube.json`` as typed values, used by the writer and the validation."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any, Literal

from hephaestus_build.core.registry import load_schema
from hephaestus_build.cube.codecs.image_encoder import ChunkEncoder, strip_width

#: How a variable is divided into stored objects; see the comment in ``schemas/cube.json``.
StorageLayout = Literal["pair", "date", "frame", "epoch", "table"]


#: Dimensions that grow from one generation to the next.
GROWING_DIMENSIONS = ("primary_date", "secondary_date", "epoch")


@dataclass(frozen=True)
class _Item:
    """What coordinates and variables have in common."""

    name: str
    dims: tuple[str, ...]

    def chunk_shape(self, shape: Sequence[int]) -> tuple[int, ...]:
        """Return the shape of the only chunk of a table or coordinate, from the shape of its array.

        Along dates, it is padded to a power of two, so that dates can be appended and readers that
        opened an earlier generation still decode it.

        Examples
        --------
        >>> cube_schema().variables["valid_date_pair"].chunk_shape((3, 65))
        (64, 128)
        """
        return tuple(
            max(64, 1 << (size - 1).bit_length()) if dim in GROWING_DIMENSIONS else max(1, size)
            for dim, size in zip(self.dims, shape, strict=True)
        )


@dataclass(frozen=True)
class Variable(_Item):
    """One variable of the cube.

    Attributes
    ----------
    name, dims, dtype
        As shown by ``xarray.open_zarr``.
    layout : StorageLayout
        How it is divided into stored objects.
    fill : float, int, bool or str
        Zarr fill value, which is read where nothing is stored.
    attributes : dict
        CF attributes.
    codec : str or None
        Key in the schema's codecs; None for tables, which use the writer's default.
    step : float or None
        The values are rounded to multiples of it: a power of two, in the variable's units.
    optional : bool
        Whether a cube has it only if a build asked for it.
    """

    dtype: str
    layout: StorageLayout
    fill: Any
    attributes: dict[str, Any]
    codec: str | None = None
    step: float | None = None
    optional: bool = False

    @property
    def quantity(self) -> str:
        """Name without the date axis: ``gacos_delay`` of ``primary_date_gacos_delay``."""
        return self.name.rpartition("_date_")[2]

    @property
    def is_georeferenced(self) -> bool:
        """Whether the variable lies on the frame's grid."""
        return self.dims[-2:] == ("latitude", "longitude")

    @property
    def is_in_strips(self) -> bool:
        """Whether an image is stored as column strips; otherwise it is one chunk."""
        return self.layout in ("pair", "frame")

    @property
    def strips(self) -> int:
        """Largest number of column strips of an image."""
        return cube_schema().strips if self.is_in_strips else 1

    def chunk_shape(self, shape: Sequence[int]) -> tuple[int, ...]:
        """Return the shape of a chunk of the variable's table or images, from the shape of its array."""
        if self.layout == "table":
            return super().chunk_shape(shape)
        *leading, height, width = shape
        return (*[1] * len(leading), height, strip_width(width, self.strips))

    def make_encoder(self) -> ChunkEncoder:
        """Return the encoder of the variable's chunks."""
        if self.codec is None:
            raise ValueError(f"{self.name} is a table and has no image encoder")
        return ChunkEncoder(load_schema("cube.json")["codecs"][self.codec], self.dtype)


@dataclass(frozen=True)
class Coordinate(_Item):
    """One coordinate of the cube, stored as a single chunk."""

    dtype: str
    attributes: dict[str, Any]

    @property
    def fill(self) -> float:
        """Zarr fill value, which pads the chunk of a growing axis."""
        return float("nan") if self.dtype == "float64" else 0


@dataclass(frozen=True)
class CubeSchema:
    """The content of ``schemas/cube.json``.

    Attributes
    ----------
    version : str
        Version of the schema. A cube states the version it was written with.
    strips : int
        Number of column strips of an image.
    coordinates, variables : dict
        Coordinates and variables by name.
    """

    version: str
    strips: int
    coordinates: dict[str, Coordinate]
    variables: dict[str, Variable]

    def variables_with_layout(self, layout: StorageLayout) -> tuple[Variable, ...]:
        """Return the variables with the given storage layout."""
        return tuple(variable for variable in self.variables.values() if variable.layout == layout)

    def with_optional(self, names: Collection[str]) -> CubeSchema:
        """Return the schema of a cube that has the optional variables `names`, and no other optional one."""
        kept = {
            name: variable
            for name, variable in self.variables.items()
            if not variable.optional or variable.quantity in names
        }
        return replace(self, variables=kept)

    def for_simulated(self) -> CubeSchema:
        """Return the schema of simulated cubes, whose ``source`` attributes say that they are simulated."""
        variables = {
            name: replace(variable, attributes={**variable.attributes, **_SIMULATED_ATTRIBUTES})
            if "source" in variable.attributes
            else variable
            for name, variable in self.variables.items()
        }
        return replace(self, variables=variables)


_SIMULATED_ATTRIBUTES = {
    "source": "simulated: no satellite, no weather service and no expert saw this",
    "license": "MIT",
}


def _fill(value: Any) -> Any:
    return float("nan") if value == "NaN" else value


@cache
def cube_schema() -> CubeSchema:
    """Return the schema of the cubes that this version writes."""
    raw = load_schema("cube.json")
    return CubeSchema(
        version=raw["version"],
        strips=raw["strips"],
        coordinates={
            entry["name"]: Coordinate(
                entry["name"], tuple(entry["dims"]), entry["dtype"], entry["attributes"]
            )
            for entry in raw["coordinates"]
        },
        variables={
            entry["name"]: Variable(
                **{**entry, "dims": tuple(entry["dims"]), "fill": _fill(entry["fill"])},
            )
            for entry in raw["variables"]
        },
    )
