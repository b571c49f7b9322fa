"""Descriptive attributes of a cube: texts for people, which a version may word otherwise than the next.

They change no value and no meaning, so a cube with the wording of another version is whole. ``hephaestus
migrate`` writes the wording of this version, and so does the next build that publishes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from hephaestus_build.core.atomic_io import encode_json, hash_bytes
from hephaestus_build.cube.array_attributes import array_attributes
from hephaestus_build.cube.reading.store_metadata import StoreMetadata, read_store_metadata
from hephaestus_build.cube.schema import Coordinate, CubeSchema, Variable, cube_schema

#: Names of the attributes that hold only text for people.
DESCRIPTIVE = ("long_name", "comment", "title", "source", "license")
_SIMULATED = "simulated"


def is_wording(name: str, found: Any, expected: Any) -> bool:
    """Return whether a difference between two values of an attribute is one of wording alone.

    A text that says that data is simulated is more than wording.

    Examples
    --------
    >>> is_wording("long_name", "elevation", "height"), is_wording("units", "feet", "m")
    (True, False)
    """
    texts = [value for value in (found, expected) if value is not None]
    marked = {str(text).startswith(_SIMULATED) for text in (found, expected)}
    return (
        name in DESCRIPTIVE
        and all(isinstance(text, str) for text in texts)
        and (name != "source" or len(marked) == 1)
    )


def has_other_wording(store: Path) -> bool:
    """Return whether a cube's metadata are worded otherwise than this version words them.

    Parameters
    ----------
    store : pathlib.Path
        The store of the cube. Metadata that cannot be read count as worded alike; ``verify`` names what is
        wrong with them.
    """
    try:
        return any(_reworded(read_store_metadata(store)))
    except (OSError, ValueError):
        return False


def describe_wording(frame: str) -> str:
    """Return what is to be said of a cube whose descriptive texts are those of another version."""
    return (
        f"its descriptions (long_name, comment) are worded as another version did, which is no damage; "
        f"`hephaestus migrate {frame}` writes those of this version"
    )


@cache
def wording_fingerprint(*, simulated: bool) -> str:
    """Return a hash of this version's schema and of all descriptive texts that it writes."""
    schema = cube_schema().for_simulated() if simulated else cube_schema()
    texts = {name: _texts(array_attributes(item, {})) for name, item in _items(schema).items()}
    groups = {group.name: _texts(group.attributes) for group in schema.groups.values()}
    return hash_bytes(encode_json([schema.version, texts, groups], order="deterministic"))[:16]


def _texts(attributes: Mapping[str, Any]) -> dict[str, Any]:
    return {name: attributes.get(name) for name in DESCRIPTIVE}


def _items(schema: CubeSchema) -> dict[str, Variable | Coordinate]:
    """Return all arrays of a schema by name, those of its groups too."""
    items: dict[str, Variable | Coordinate] = {**schema.coordinates, **schema.variables}
    for group in schema.groups.values():
        items |= group.items
    return items


def _reworded(metadata: StoreMetadata) -> Iterator[bool]:
    schema = cube_schema()
    if metadata.attributes.get("simulated"):
        schema = schema.for_simulated()
    items = _items(schema)
    for group in schema.groups.values():
        yield _differ(metadata.groups.get(group.name, {}), group.attributes)
    for name in items.keys() & metadata.arrays.keys():
        found = metadata.arrays[name].get("attributes")
        expected = array_attributes(items[name], metadata.attributes)
        yield isinstance(found, Mapping) and _differ(found, expected)


def _differ(found: Mapping[str, Any], expected: Mapping[str, Any]) -> bool:
    return any(
        found.get(name) != expected.get(name) and is_wording(name, found.get(name), expected.get(name))
        for name in DESCRIPTIVE
    )
