"""Validation of a cube's metadata, axes and flags against the schema, without reading images."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from affine import Affine

from hephaestus_build.core.crs import is_wgs84
from hephaestus_build.core.errors import UsageError
from hephaestus_build.core.frames import Frame
from hephaestus_build.core.parsing import parse_json
from hephaestus_build.core.plain_files import read_plain_file
from hephaestus_build.core.registry import OPTIONAL_VARIABLES
from hephaestus_build.cube.array_attributes import array_attributes
from hephaestus_build.cube.georeference import read_cube_grid
from hephaestus_build.cube.group_tables import OVERVIEW
from hephaestus_build.cube.inventory import PAIR_GROUPS
from hephaestus_build.cube.key_spaces import KEY_SPACES, KeySpace
from hephaestus_build.cube.plain_attributes import split_texts
from hephaestus_build.cube.reading.dataset import open_pinned_cube, resolve_published_store
from hephaestus_build.cube.reading.store_metadata import (
    MAX_METADATA_BYTES,
    StoreMetadata,
    read_store_metadata,
)
from hephaestus_build.cube.schema import (
    GRID_MAPPING,
    Coordinate,
    CubeSchema,
    GroupSchema,
    Variable,
    cube_schema,
)
from hephaestus_build.cube.validation.array_metadata import (
    ValidationFinding,
    check_array_metadata,
    short_repr,
)
from hephaestus_build.cube.validation.flag_consistency import check_flags
from hephaestus_build.cube.validation.geozarr_conformance import check_geozarr
from hephaestus_build.cube.validation.wording import is_wording

#: An array along the pair axis, whose key space those of its groups use.
_PAIR_DATES = "pairs/primary"


def check_schema(path: str | Path) -> list[ValidationFinding]:
    """Compare a published cube with ``schemas/cube.json``, and its flags with the stored files.

    Names, dimensions, dtypes, chunks, codecs, fill values, attributes, the georeference, the order of the
    axes, the consolidated metadata and all flags are checked. The content of images is not read;
    ``hephaestus verify`` compares it with the published hashes.

    Parameters
    ----------
    path : str or pathlib.Path
        Path of the cube.

    Returns
    -------
    list of ValidationFinding
        Empty if the cube conforms to the schema.

    Raises
    ------
    HephaestusError
        If there is no cube.
    """
    store = resolve_published_store(path)
    schema = cube_schema()
    try:
        metadata = read_store_metadata(store)
    except (OSError, ValueError) as error:
        return [ValidationFinding("cube", str(error))]
    if not metadata.is_consolidated:
        return [ValidationFinding("cube", "zarr.json has no consolidated metadata")]
    if metadata.attributes.get("simulated"):
        schema = schema.for_simulated()
    optional = split_texts(metadata.attributes.get("optional_variables"))
    if not set(optional) <= set(OPTIONAL_VARIABLES):
        what = (
            f"attribute optional_variables is {short_repr(optional)}, which are not names of such variables"
        )
        return [ValidationFinding("cube", what)]
    schema = schema.with_optional(optional)
    findings = [
        *_check_group(metadata.attributes, schema),
        *_check_arrays(store, metadata, schema),
        *_check_groups(store, metadata, schema),
    ]
    if findings:
        return findings  # values cannot be read reliably through invalid metadata
    try:
        cube = open_pinned_cube(store, chunks=None)
        tables = {name: cube[name].values for name in _small(schema) if name in cube}
    except Exception as error:  # zarr and its codecs raise many types for damaged chunks
        return [ValidationFinding("cube", f"its tables cannot be read: {type(error).__name__}: {error}")]
    misplaced = list(_check_axes(cube))
    if not misplaced:
        misplaced = list(check_geozarr(metadata, schema, read_cube_grid(cube)))
    return [*misplaced, *check_flags(store, tables, _key_space(metadata.arrays))]


def _small(schema: CubeSchema) -> list[str]:
    """Return the names of the coordinates and tables."""
    return [*schema.coordinates, *(variable.name for variable in schema.variables_with_layout("table"))]


def _check_group(attributes: Mapping[str, Any], schema: CubeSchema) -> Iterator[ValidationFinding]:
    for name, expected in (("Conventions", "CF-1.11"), ("schema_version", schema.version)):
        if attributes.get(name) != expected:
            yield ValidationFinding(
                "cube", f"attribute {name} is {short_repr(attributes.get(name))}, expected {expected!r}"
            )
    try:
        simulated = Frame(str(attributes.get("frame"))).is_simulated
    except UsageError:
        yield ValidationFinding(
            "cube", f"attribute frame is {short_repr(attributes.get('frame'))}, which is not a frame id"
        )
        return
    if simulated and attributes.get("simulated") != 1:
        yield ValidationFinding("cube", "its frame is simulated, but its attributes do not say so")


def _check_arrays(store: Path, metadata: StoreMetadata, schema: CubeSchema) -> Iterator[ValidationFinding]:
    arrays = metadata.arrays
    sizes = {
        name: arrays[name]["shape"][0] for name in schema.coordinates if arrays.get(name, {}).get("shape")
    }
    items: dict[str, Variable | Coordinate] = {**schema.coordinates, **schema.variables}
    for group in schema.groups.values():
        items |= group.items
        sizes |= _group_sizes(arrays, group)
    for name, item in items.items():
        if name in arrays:
            attributes = array_attributes(item, metadata.attributes)
            yield from check_array_metadata(item, arrays[name], sizes, attributes)
        elif all(sizes.get(dim) for dim in item.dims):
            yield ValidationFinding(name, "is missing")
    for name in sorted(arrays.keys() - items.keys() - {GRID_MAPPING, f"{OVERVIEW}/{GRID_MAPPING}"}):
        yield ValidationFinding(name, "is not in the schema")
    for name in sorted(arrays.keys() & items.keys()):
        if KeySpace.from_metadata(arrays[name]) != _key_space(arrays, name):
            yield ValidationFinding(name, "names its chunks otherwise than the other arrays")
    for name in sorted(arrays):
        try:
            own = parse_json(read_plain_file(store, f"{name}/zarr.json", MAX_METADATA_BYTES))
        except (OSError, ValueError):
            own = None
        if own != arrays[name]:
            yield ValidationFinding(name, "its zarr.json differs from the consolidated metadata")
    for name in (GRID_MAPPING, f"{OVERVIEW}/{GRID_MAPPING}"):
        yield from _check_georeference(name, arrays.get(name, {}).get("attributes", {}))


def _key_space(arrays: Mapping[str, Any], name: str = "insar_difference") -> KeySpace:
    """Return the key space of the images, which all arrays of the group but the grid mapping use."""
    main = _PAIR_DATES if name.startswith(PAIR_GROUPS) else "insar_difference"
    return KeySpace.from_metadata(arrays[main]) if main in arrays else KEY_SPACES[0]


def _group_sizes(arrays: Mapping[str, Any], group: GroupSchema) -> dict[str, int]:
    """Return the length of every dimension of a group: that of its first array with the dimension.

    A text is as wide as the longest one of its table needs, in multiples of the schema's number of bytes.
    """
    sizes: dict[str, int] = {}
    for path, item in group.items.items():
        shape = arrays.get(path, {}).get("shape") or []
        for place, (dim, size) in enumerate(zip(item.dims, shape, strict=False)):
            width = group.tables.get(path) is not None and place == 1
            if not width or (size and size % cube_schema().text_bytes == 0):
                sizes.setdefault(dim, size)
    return sizes


def _check_groups(store: Path, metadata: StoreMetadata, schema: CubeSchema) -> Iterator[ValidationFinding]:
    """Yield the differences of the groups beside the root's arrays."""
    for name in sorted(metadata.groups.keys() | schema.groups.keys()):
        if name not in schema.groups:
            yield ValidationFinding(name, "is not in the schema")
            continue
        if name not in metadata.groups:
            yield ValidationFinding(name, "is missing")
            continue
        attributes = metadata.groups[name]
        for key, expected in schema.groups[name].attributes.items():
            found = attributes.get(key)
            if found != expected and not is_wording(key, found, expected):
                yield ValidationFinding(
                    name, f"attribute {key} is {short_repr(attributes.get(key))}, expected {expected!r}"
                )
        try:
            own = parse_json(read_plain_file(store, f"{name}/zarr.json", MAX_METADATA_BYTES))
            inside = own["consolidated_metadata"]["metadata"]
        except (OSError, ValueError, TypeError, KeyError):
            own, inside = {}, None
        arrays = {
            path.removeprefix(f"{name}/"): array
            for path, array in metadata.arrays.items()
            if path.startswith(f"{name}/")
        }
        if own.get("attributes") != attributes or inside != arrays:
            yield ValidationFinding(name, "its zarr.json differs from the consolidated metadata")


def _check_georeference(name: str, attributes: Mapping[str, Any]) -> Iterator[ValidationFinding]:
    if not is_wgs84(attributes.get("crs_wkt")):
        yield ValidationFinding(name, "its crs_wkt is not EPSG:4326")
    try:
        Affine.from_gdal(*map(float, str(attributes.get("GeoTransform", "")).split()))
    except (TypeError, ValueError):
        yield ValidationFinding(name, "its GeoTransform is not six numbers")


def _check_axes(cube: xr.Dataset) -> Iterator[ValidationFinding]:
    for name in ("secondary_date", "epoch"):
        if not np.array_equal(cube[name].values, cube["primary_date"].values):
            yield ValidationFinding(name, "differs from primary_date")
    if len(np.unique(cube["epoch"].values)) != cube.sizes["epoch"]:
        yield ValidationFinding("epoch", "holds a date twice")
    for name in ("longitude", "era5_longitude"):
        if not (cube[name].values[1:] > cube[name].values[:-1]).all():
            yield ValidationFinding(name, "is not in ascending order")
    for name in ("latitude", "era5_latitude"):
        if not (cube[name].values[1:] < cube[name].values[:-1]).all():
            yield ValidationFinding(name, "is not in descending order")
    try:
        grid = read_cube_grid(cube)
    except ValueError as error:
        yield ValidationFinding(GRID_MAPPING, f"its GeoTransform is not a valid grid: {error}")
        return
    for name, centres, size in (
        ("latitude", grid.latitudes, grid.dy),
        ("longitude", grid.longitudes, grid.dx),
    ):
        worst = float(np.abs(cube[name].values - centres).max()) / size
        if worst > 1e-3:
            yield ValidationFinding(name, f"is up to {worst:.3g} pixels off the GeoTransform")
