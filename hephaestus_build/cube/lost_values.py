"""The values of a generation that the next one no longer has.

A Zarr reader takes a missing chunk for the fill value. Readers that opened the earlier generation by name
would therefore take lost values for no data, unless their keys lead to an error.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable

from hephaestus_build.cube.granules import Granule
from hephaestus_build.cube.key_spaces import find_array
from hephaestus_build.cube.schema import MASK_VARIABLES, cube_schema


def lost_objects(before: Granule, after: Granule | None) -> Collection[str]:
    """Return the objects of a granule whose values the granule of the same key does not have any more.

    An image without data is not stored, so one that a granule with other objects lacks has none; fields of
    the atmosphere are always stored. A mask without pixels is no loss: it is what the annotation says now.

    Parameters
    ----------
    before, after : Granule
        The granule in a generation and in the next one; None where that has none.
    """
    if before.kind == "mask":
        return ()
    if after is None or not after.objects:
        return before.objects
    return [name for name in before.objects if name not in after.objects and _is_field(before, name)]


def _is_field(granule: Granule, name: str) -> bool:
    """Return whether an object holds a field of the atmosphere."""
    if granule.kind == "overview":
        return cube_schema().groups["overview"].variables[f"overview/{name}"].step is not None
    return granule.kind == "epoch"


def image_arrays() -> set[str]:
    """Return the paths of all arrays of images other than masks."""
    schema = cube_schema()
    variables = [*schema.variables.values(), *schema.groups["overview"].variables.values()]
    return {
        variable.name
        for variable in variables
        if variable.layout not in ("table", "rows") and variable.name.rpartition("/")[2] not in MASK_VARIABLES
    }


def optional_arrays(names: Collection[str]) -> set[str]:
    """Return the paths of the arrays of some optional variables, in all groups."""
    schema = cube_schema()
    arrays = {
        name
        for name, variable in schema.variables.items()
        if variable.optional and variable.quantity in names
    }
    tables = (item for group in schema.groups.values() for item in group.tables.items())
    return arrays.union(path for path, name in tables if name in arrays)


def select_keys(keys: Iterable[str], arrays: Collection[str]) -> set[str]:
    """Return the keys in a store that belong to some arrays."""
    return {key for key in keys if find_array(key, arrays)} if arrays else set()
