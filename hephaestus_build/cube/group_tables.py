"""The coordinates and tables of a cube's groups, and the attributes of the groups, from its inventory."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from hephaestus_build.core.grid import Grid
from hephaestus_build.cube.codecs.padded_text import encode_texts
from hephaestus_build.cube.decimation import Decimation
from hephaestus_build.cube.geozarr import geozarr_attributes
from hephaestus_build.cube.inventory import CubeInventory
from hephaestus_build.cube.pair_tables import days_since_1970
from hephaestus_build.cube.plain_attributes import to_plain_attributes
from hephaestus_build.cube.schema import GRID_MAPPING, GroupSchema, cube_schema

#: The group of small images.
OVERVIEW = "overview"


def overview_grid(contents: CubeInventory) -> Grid:
    """Return the grid of a cube's overviews."""
    return Decimation(contents.overview_factor).grid(contents.grid)


def make_group_tables(
    contents: CubeInventory, tables: Mapping[str, npt.NDArray[Any]]
) -> dict[str, npt.NDArray[Any]]:
    """Return every coordinate and table of the groups by path, with the values and dtypes that are stored.

    Parameters
    ----------
    contents : CubeInventory
        The cube.
    tables : mapping of str to numpy.ndarray
        Coordinates and tables of its root group, from
        :func:`~hephaestus_build.cube.storage.writer.make_tables`.
    """
    pairs, grid = contents.axes.pairs, overview_grid(contents)
    keys = contents.chunk_keys
    cells = np.array([keys.pair_index(pair) for pair in pairs], np.intp).reshape(-1, 2)
    dates = {
        "primary_date": days_since_1970([pair.primary for pair in pairs]),
        "secondary_date": days_since_1970([pair.secondary for pair in pairs]),
    }
    schema = cube_schema().with_optional(contents.optional_variables)
    values: dict[str, npt.NDArray[Any]] = {
        f"{OVERVIEW}/y": grid.latitudes,
        f"{OVERVIEW}/x": grid.longitudes,
    }
    for group in schema.groups.values():
        for path, name in group.tables.items():
            if name in dates:
                values[path] = dates[name]
                continue
            column = tables[name]
            if len(group.variables[path].dims) == 1:
                values[path] = column[cells[:, 0], cells[:, 1]] if column.ndim == 2 else column
                continue
            # one by one: NumPy 2.1 cannot select strings by arrays of positions
            places = cells.tolist() if column.ndim == 2 else np.ndindex(column.shape)
            values[path] = encode_texts([column[tuple(place)] for place in places], schema.text_bytes)
    return values


def make_child_attributes(contents: CubeInventory, group: GroupSchema) -> dict[str, Any]:
    """Return the attributes of a group beside the root's arrays."""
    shared = {
        name: contents.attributes[name] for name in ("frame", "simulated") if name in contents.attributes
    }
    own = {"decimation": contents.overview_factor} if group.name == OVERVIEW else {}
    mapping = [GRID_MAPPING] if group.name == OVERVIEW else []
    return {
        **to_plain_attributes({**group.attributes, **shared, **own}),
        # makes xarray read them as coordinates, not as data variables
        "coordinates": " ".join([*group.date_names, *mapping]),
        **(geozarr_attributes(overview_grid(contents), ("y", "x")) if group.name == OVERVIEW else {}),
    }
