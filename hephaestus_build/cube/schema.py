"""The schema of a cube: ``schemas/cube.json`` as typed values, used by the writer and the validation."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache
from typing import Any, Literal

from hephaestus_build.core.registry import load_schema
from hephaestus_build.cube.codecs.shard_encoder import ChunkEncoder

#: How a variable is divided into stored objects; see the comment in ``schemas/cube.json``.
StorageLayout = Literal["pair", "date", "frame", "epoch", "table"]


@dataclass(frozen=True)
class Variable:
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
        Packing step in the variable's units.
    """

    name: str
    dims: tuple[str, ...]
    dtype: str
    layout: StorageLayout
    fill: Any
    attributes: dict[str, Any]
    codec: str | None = None
    step: float | None = None

    @property
    def is_georeferenced(self) -> bool:
        """Whether the variable lies on the frame's grid."""
        return self.dims[-2:] == ("latitude", "longitude")

    @property
    def is_sharded(self) -> bool:
        """Whether its stored objects are shards of inner chunks."""
        return self.is_georeferenced

    def make_encoder(self) -> ChunkEncoder:
        """Return the encoder of the variable's inner chunks."""
        if self.codec is None:
            raise ValueError(f"{self.name} is a table and has no image encoder")
        return ChunkEncoder(load_schema("cube.json")["codecs"][self.codec], self.dtype, self.step)


@dataclass(frozen=True)
class Coordinate:
    """One coordinate of the cube, stored as a single chunk."""

    name: str
    dims: tuple[str, ...]
    dtype: str
    attributes: dict[str, Any]


@dataclass(frozen=True)
class CubeSchema:
    """The content of ``schemas/cube.json``.

    Attributes
    ----------
    version : str
        Version of the schema. A cube states the version it was written with.
    inner_chunk : int
        Side length of the inner chunks in pixels.
    coordinates, variables : dict
        Coordinates and variables by name.
    """

    version: str
    inner_chunk: int
    coordinates: dict[str, Coordinate]
    variables: dict[str, Variable]

    def variables_with_layout(self, layout: StorageLayout) -> tuple[Variable, ...]:
        """Return the variables with the given storage layout."""
        return tuple(variable for variable in self.variables.values() if variable.layout == layout)

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
        inner_chunk=raw["inner_chunk"],
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
