"""The schema of a cube: ``schemas/cube.json`` as typed values, used by the writer and the validation."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any, Literal

from hephaestus_build.core.registry import load_schema
from hephaestus_build.cube.codecs.image_encoder import ChunkEncoder, strip_width

#: How a variable is divided into stored objects; see the comment in ``schemas/cube.json``.
StorageLayout = Literal["pair", "date", "frame", "epoch", "table", "overview", "rows"]


#: Name of the grid mapping variable, in the root group and in `overview`.
GRID_MAPPING = "spatial_ref"
#: Masks of an annotated pair, drawn from the same outlines.
MASK_VARIABLES = ("deformation_mask", "activity_type_mask", "intensity_level_mask")
#: Variables of a sample, in the order of the channels of a published ``image.pth``.
CHANNELS = (
    "insar_difference",
    "insar_coherence",
    "dem",
    *(
        f"{date}_date_{quantity}"
        for quantity in ("total_column_water_vapour", "surface_pressure", "vertical_integral_of_temperature")
        for date in ("primary", "secondary")
    ),
)
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
    name : str
        Path of its array in the store: the name, after that of its group and a slash in groups.
    dims, dtype
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
        """Whether the variable lies on the frame's grid, or on that of the overviews."""
        return self.dims[-2:] in (("latitude", "longitude"), ("y", "x"))

    @property
    def is_in_strips(self) -> bool:
        """Whether an image is stored as column strips; otherwise it is one chunk."""
        return self.layout in ("pair", "frame")

    @property
    def strips(self) -> int:
        """Largest number of column strips of an image."""
        return cube_schema().strips if self.is_in_strips else 1

    def chunk_shape(self, shape: Sequence[int]) -> tuple[int, ...]:
        """Return the shape of a chunk of the table, the rows or the images, from that of the array."""
        if self.layout == "table":
            return super().chunk_shape(shape)
        if self.layout == "rows":
            return (cube_schema().table_rows, cube_schema().text_bytes)[: len(shape)]
        *leading, height, width = shape
        return (*[1] * len(leading), height, strip_width(width, self.strips))

    def make_encoder(self) -> ChunkEncoder:
        """Return the encoder of the variable's chunks."""
        if self.codec is None:
            raise ValueError(f"{self.name} is a table of one chunk, which zarr-python encodes")
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
class GroupSchema:
    """A group of the cube beside the root's arrays.

    Attributes
    ----------
    name : str
        Name of the group.
    attributes : dict
        Attributes of the group that are the same in every cube.
    coordinates, variables : dict
        Coordinates of one chunk, and all other arrays, by path in the store.
    date_names : tuple of str
        Variables that are coordinates too, by their names in the group.
    tables : dict of str to str
        The root's table or coordinate that a variable of the layout ``rows`` repeats, by path in the store.
    """

    name: str
    attributes: dict[str, Any]
    coordinates: dict[str, Coordinate]
    variables: dict[str, Variable]
    date_names: tuple[str, ...]
    tables: dict[str, str]

    @property
    def items(self) -> dict[str, Variable | Coordinate]:
        """All arrays of the schema, by path in the store."""
        return {**self.coordinates, **self.variables}

    def without_tables(self, names: Collection[str]) -> GroupSchema:
        """Return the group without the variables that repeat the root's tables `names`."""
        tables = {path: name for path, name in self.tables.items() if name not in names}
        gone = self.tables.keys() - tables
        variables = {path: variable for path, variable in self.variables.items() if path not in gone}
        return replace(self, variables=variables, tables=tables)


@dataclass(frozen=True)
class CubeSchema:
    """The content of ``schemas/cube.json``.

    Attributes
    ----------
    version : str
        Version of the schema. A cube states the version it was written with.
    strips : int
        Number of column strips of an image.
    table_rows, text_bytes : int
        Rows of a chunk of a group's tables, and bytes of a text in it.
    coordinates, variables : dict
        Coordinates and variables of the root group by name.
    groups : dict
        The other groups by name.
    """

    version: str
    strips: int
    table_rows: int
    text_bytes: int
    coordinates: dict[str, Coordinate]
    variables: dict[str, Variable]
    groups: dict[str, GroupSchema]

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
        groups = {
            name: group.without_tables(self.variables.keys() - kept) for name, group in self.groups.items()
        }
        return replace(self, variables=kept, groups=groups)

    def for_simulated(self) -> CubeSchema:
        """Return the schema of simulated cubes, whose ``source`` attributes say that they are simulated."""
        groups = {
            name: replace(group, variables=_as_simulated(group.variables))
            for name, group in self.groups.items()
        }
        return replace(self, variables=_as_simulated(self.variables), groups=groups)


_SIMULATED_ATTRIBUTES = {
    "source": "simulated: no satellite, no weather service and no expert saw this",
    "license": "MIT",
}


def _as_simulated(variables: dict[str, Variable]) -> dict[str, Variable]:
    return {
        name: replace(variable, attributes={**variable.attributes, **_SIMULATED_ATTRIBUTES})
        if "source" in variable.attributes
        else variable
        for name, variable in variables.items()
    }


def _fill(value: Any) -> Any:
    return float("nan") if value == "NaN" else value


def _coordinates(entries: list[dict[str, Any]], prefix: str = "") -> dict[str, Coordinate]:
    return {
        prefix + entry["name"]: Coordinate(
            prefix + entry["name"], tuple(entry["dims"]), entry["dtype"], entry["attributes"]
        )
        for entry in entries
    }


def _variables(entries: list[dict[str, Any]], prefix: str = "") -> dict[str, Variable]:
    return {
        prefix + entry["name"]: Variable(
            **{
                **entry,
                "name": prefix + entry["name"],
                "dims": tuple(entry["dims"]),
                "fill": _fill(entry["fill"]),
            },
        )
        for entry in entries
    }


#: Codec of the tables of groups.
_ROWS_CODEC = "small"


def _group(
    entry: dict[str, Any], coordinates: dict[str, Coordinate], variables: dict[str, Variable]
) -> GroupSchema:
    """Return a group, whose tables are those of the root group."""
    prefix = f"{entry['name']}/"
    rows: dict[str, Variable] = {}
    tables: dict[str, str] = {}

    def add(root: Coordinate | Variable, name: str) -> None:
        axis = "epoch" if root.dims == ("epoch",) else "pair"
        path, fill = prefix + name, root.fill if isinstance(root, Variable) else 0
        item = Variable(path, (axis,), root.dtype, "rows", fill, root.attributes, _ROWS_CODEC)
        if root.dtype == "string":
            attributes = {**root.attributes, "text_encoding": "UTF-8, padded with zeros"}
            item = replace(item, dims=(axis, f"{name}_bytes"), dtype="uint8", fill=0, attributes=attributes)
        rows[path], tables[path] = item, root.name

    # other names than the root's: a group of an xarray.DataTree inherits the root's coordinates
    for name, renamed in entry["dates"].items():
        add(coordinates[name], renamed)
    if (other_names := entry.get("of_root")) is not None:
        for variable in variables.values():
            if variable.layout == "table" and (len(variable.dims) == 2 or variable.dtype == "string"):
                add(variable, other_names.get(variable.name, variable.name))
    return GroupSchema(
        entry["name"],
        entry["attributes"],
        _coordinates(entry["coordinates"], prefix),
        {**rows, **_variables(entry["variables"], prefix)},
        tuple(entry["dates"].values()),
        tables,
    )


@cache
def cube_schema() -> CubeSchema:
    """Return the schema of the cubes that this version writes."""
    raw = load_schema("cube.json")
    coordinates, variables = _coordinates(raw["coordinates"]), _variables(raw["variables"])
    return CubeSchema(
        version=raw["version"],
        strips=raw["strips"],
        table_rows=raw["table_rows"],
        text_bytes=raw["text_bytes"],
        coordinates=coordinates,
        variables=variables,
        groups={entry["name"]: _group(entry, coordinates, variables) for entry in raw["groups"]},
    )


def describe_not_built(frame: str, variable: Variable) -> str:
    """Return that a cube lacks an optional variable, and the command that adds it."""
    return (
        f"{frame}: the cube has no {variable.name}; `hephaestus build {frame} --variables "
        f"{variable.quantity}` adds it"
    )
