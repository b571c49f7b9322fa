"""What a cube holds: ``schemas/cube.json`` as typed values that the writer and the checks follow."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache
from typing import Any, Literal

from hephaestus_build.core.registry import load_schema
from hephaestus_build.cube.codecs.shard_encoder import ChunkEncoder

#: How a variable is cut into stored objects; see the comment of ``schemas/cube.json``.
StorageLayout = Literal["pair", "date", "frame", "epoch", "table"]


@dataclass(frozen=True)
class Variable:
    """One variable of the cube.

    Attributes
    ----------
    name, dims, dtype
        As ``xarray.open_zarr`` shows them.
    layout : StorageLayout
        How it is cut into stored objects.
    fill : float, int, bool or str
        Zarr's fill value: what an unwritten place reads as.
    attributes : dict
        CF attributes.
    codec : str or None
        Key of the schema's codecs; tables have none and take the writer's default.
    step : float or None
        Packing step, in the variable's units.
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
            raise ValueError(f"{self.name} is stored whole, not as images")
        return ChunkEncoder(load_schema("cube.json")["codecs"][self.codec], self.dtype, self.step)


@dataclass(frozen=True)
class Coordinate:
    """One coordinate of the cube, stored whole."""

    name: str
    dims: tuple[str, ...]
    dtype: str
    attributes: dict[str, Any]


@dataclass(frozen=True)
class CubeSchema:
    """The whole of ``schemas/cube.json``.

    Attributes
    ----------
    version : str
        Of the schema; a cube states the one it was written by.
    inner_chunk : int
        Side of the inner chunks, in pixels.
    coordinates, variables : dict
        By name.
    """

    version: str
    inner_chunk: int
    coordinates: dict[str, Coordinate]
    variables: dict[str, Variable]

    def variables_with_layout(self, layout: StorageLayout) -> tuple[Variable, ...]:
        """Return the variables that are cut in the given way."""
        return tuple(variable for variable in self.variables.values() if variable.layout == layout)

    def for_simulated(self) -> CubeSchema:
        """Return the schema of a cube of simulated data: what has a source says that it is simulated."""
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
    """Return the schema that this version writes."""
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
