"""Writer of a cube's Zarr store: metadata, coordinates and tables, and a hard link for every image."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import zarr
from zarr.codecs import BloscCodec, VLenUTF8Codec, ZstdCodec
from zarr.core.buffer import Buffer
from zarr.storage import MemoryStore

from hephaestus_build.core.atomic_io import hash_bytes, link_files, sync_files, write_atomic
from hephaestus_build.core.crs import WGS84_WKT
from hephaestus_build.core.grid import Grid
from hephaestus_build.core.registry import load_schema
from hephaestus_build.cube.codecs.image_encoder import CHUNK_KEY_SEPARATOR, chunk_key
from hephaestus_build.cube.codecs.padded_chunks import split_into_chunks
from hephaestus_build.cube.codecs.vlen_utf8 import encode_vlen_utf8
from hephaestus_build.cube.granules import ChunkKeys, Granule
from hephaestus_build.cube.group_tables import (
    OVERVIEW,
    make_child_attributes,
    make_group_tables,
    overview_grid,
)
from hephaestus_build.cube.inventory import CubeInventory
from hephaestus_build.cube.pair_tables import days_since_1970, fill_tables
from hephaestus_build.cube.schema import Coordinate, CubeSchema, Variable, cube_schema
from hephaestus_build.cube.storage.frame_folder import MANIFEST, PROVENANCE
from hephaestus_build.cube.storage.manifest import encode_manifest

_CHUNK_KEY_ENCODING: Any = {"name": "default", "separator": CHUNK_KEY_SEPARATOR}


def write_cube_store(
    store: Path, contents: CubeInventory, origin: Callable[[Granule], Mapping[str, str]]
) -> None:
    """Write a complete cube, with its provenance and its manifest, to the empty folder `store`.

    Parameters
    ----------
    store : pathlib.Path
        An empty folder.
    contents : CubeInventory
        Grid, granules and attributes of the cube.
    origin : callable
        Returns the files that hold a granule's objects, by object name. They are linked, not copied.
    """
    written = {**encode_metadata(contents), PROVENANCE: contents.encode()}
    for key, content in written.items():
        write_atomic(store / key, content)
    sync_files(store / key for key in written)
    manifest = {key: [hash_bytes(content), len(content)] for key, content in written.items()}
    places, sources = ChunkKeys(contents.axes), dict[str, str]()
    for granule in contents.granules.values():
        files = origin(granule)
        for name, key in places.keys(granule):
            sources[key] = files[name]
            manifest[key] = [granule.objects[name].digest, granule.objects[name].size]
    link_files(store, sources)
    write_atomic(store / MANIFEST, encode_manifest(manifest), durable=True)


def encode_metadata(contents: CubeInventory) -> dict[str, bytes]:
    """Return the metadata, coordinates and tables of a cube, by their keys in the store."""
    schema = cube_schema().for_simulated() if contents.attributes.get("simulated") else cube_schema()
    values = make_tables(contents)
    sizes = {name: len(values[name]) for name in schema.coordinates}
    objects: dict[str, Buffer] = {}
    texts: dict[str, bytes] = {}
    # in memory: writing many small files through zarr takes twice as long
    group = zarr.create_group(MemoryStore(objects), zarr_format=3, attributes=make_group_attributes(contents))
    _write_crs(group, contents.grid)
    for coordinate in schema.coordinates.values():
        _write_table(
            group, coordinate, values[coordinate.name], "NaN" if coordinate.dtype == "float64" else 0
        )
    for variable in schema.variables.values():
        shape = tuple(sizes[dim] for dim in variable.dims)
        if variable.dtype == "string":
            texts |= _write_text_table(group, variable, values[variable.name])
        elif variable.layout == "table":
            _write_table(group, variable, values[variable.name], variable.fill)
        elif min(shape) > 0:
            _create_image_array(group, variable, shape)
    texts |= _write_groups(group, contents, schema, make_group_tables(contents, values))
    return _consolidate_metadata({key: item.to_bytes() for key, item in sorted(objects.items())}) | texts


def _consolidate_metadata(objects: dict[str, bytes]) -> dict[str, bytes]:
    """Add the metadata of all that is in a group to the group's own, for the root and every other group.

    Like zarr.consolidate_metadata, but without its warning.
    """
    own = {key: json.loads(item) for key, item in objects.items() if key.rpartition("/")[2] == "zarr.json"}
    groups = {}
    for key, value in own.items():
        if value["node_type"] == "group":
            prefix = key.removesuffix("zarr.json")
            inside = {
                path.removeprefix(prefix).removesuffix("/zarr.json"): item
                for path, item in own.items()
                if path.startswith(prefix) and path != key
            }
            consolidated = {"kind": "inline", "must_understand": False, "metadata": inside}
            whole = {**value, "consolidated_metadata": consolidated}
            groups[key] = json.dumps(whole, indent=2).encode()
    return {**objects, **groups}


def _write_groups(
    root: zarr.Group, contents: CubeInventory, schema: CubeSchema, values: Mapping[str, npt.NDArray[Any]]
) -> dict[str, bytes]:
    """Create the groups beside the root's arrays; return the chunks of their tables by key."""
    chunks: dict[str, bytes] = {}
    for group in schema.groups.values():
        root.create_group(group.name, attributes=make_child_attributes(contents, group))
        sizes = {
            dim: size
            for path, table in values.items()
            if path in group.items
            for dim, size in zip(group.items[path].dims, table.shape, strict=True)
        }
        for coordinate in group.coordinates.values():
            _write_table(root, coordinate, values[coordinate.name], "NaN")
        for variable in group.variables.values():
            shape = tuple(sizes[dim] for dim in variable.dims)
            _create_image_array(root, variable, shape)
            if variable.layout == "rows":
                chunks |= _encode_rows(variable, values[variable.name])
    _write_crs(root, overview_grid(contents), f"{OVERVIEW}/")
    return chunks


def _encode_rows(variable: Variable, table: npt.NDArray[Any]) -> dict[str, bytes]:
    """Return all chunks of a group's table by key."""
    encoder = variable.make_encoder()
    return {
        chunk_key(variable.name, position, 0): encoder.encode(chunk)
        for position, chunk in split_into_chunks(table, variable.chunk_shape(table.shape), variable.fill)
    }


def make_tables(contents: CubeInventory) -> dict[str, npt.NDArray[Any]]:
    """Return every coordinate and table of a cube by name, with the values and dtypes that are stored."""
    grid, axes, area = contents.grid, contents.axes, contents.era5_area
    return {
        "primary_date": days_since_1970(axes.primary),
        "secondary_date": days_since_1970(axes.secondary),
        "epoch": days_since_1970(axes.epochs),
        "latitude": grid.latitudes,
        "longitude": grid.longitudes,
        "era5_latitude": area.latitudes,
        "era5_longitude": area.longitudes,
        **fill_tables(list(contents.granules.values()), axes),
    }


def make_group_attributes(contents: CubeInventory) -> dict[str, Any]:
    """Return the attributes of a cube's root group."""
    return {
        "Conventions": "CF-1.11",
        **contents.attributes,
        # makes xarray read the grid mapping as a coordinate, not as a data variable
        "coordinates": "spatial_ref",
    }


def grid_mapping_attributes(grid: Grid) -> dict[str, Any]:
    """Return the attributes of the CF grid mapping variable, with GDAL's GeoTransform."""
    return {
        "grid_mapping_name": "latitude_longitude",
        "crs_wkt": WGS84_WKT,
        "spatial_ref": WGS84_WKT,
        "semi_major_axis": 6378137.0,
        "inverse_flattening": 298.257223563,
        "longitude_of_prime_meridian": 0.0,
        "geographic_crs_name": "WGS 84",
        "GeoTransform": " ".join(repr(float(value)) for value in grid.transform.to_gdal()),
    }


def _write_crs(group: zarr.Group, grid: Grid, prefix: str = "") -> None:
    group.create_array(
        f"{prefix}spatial_ref",
        shape=(),
        chunks=(),
        dtype="int64",
        chunk_key_encoding=_CHUNK_KEY_ENCODING,
        dimension_names=(),
        attributes=grid_mapping_attributes(grid),
    )[...] = 0


def _write_table(group: zarr.Group, item: Variable | Coordinate, value: np.ndarray, fill: Any) -> None:
    array = _create_single_chunk(group, item, value.shape, fill)
    if value.size:
        array[...] = value


def _write_text_table(group: zarr.Group, variable: Variable, value: np.ndarray) -> dict[str, bytes]:
    """Create a table of strings; return its chunk by key."""
    codecs = {"serializer": VLenUTF8Codec(), "compressors": ZstdCodec(level=0)}
    _create_single_chunk(group, variable, value.shape, variable.fill, **codecs)
    chunk = encode_vlen_utf8(value)
    return {} if chunk is None else {chunk_key(variable.name, (), value.ndim): chunk}


def _create_single_chunk(
    group: zarr.Group, item: Variable | Coordinate, shape: tuple[int, ...], fill: Any, **codecs: Any
) -> zarr.Array[Any]:
    """Create an array that consists of one chunk."""
    return group.create_array(
        item.name,
        shape=shape,
        dtype=item.dtype,
        chunks=tuple(max(1, size) for size in shape),
        chunk_key_encoding=_CHUNK_KEY_ENCODING,
        fill_value=fill,
        dimension_names=item.dims,
        attributes=item.attributes,
        **codecs,
    )


def _create_image_array(group: zarr.Group, variable: Variable, shape: tuple[int, ...]) -> None:
    """Create an array of images, or a table of a group, without any chunk; those are added afterwards."""
    codec = load_schema("cube.json")["codecs"][variable.codec]
    georeference = {"grid_mapping": "spatial_ref"} if variable.is_georeferenced else {}
    group.create_array(
        variable.name,
        shape=shape,
        dtype=variable.dtype,
        chunks=variable.chunk_shape(shape),
        chunk_key_encoding=_CHUNK_KEY_ENCODING,
        filters=None,
        compressors=BloscCodec(**codec, typesize=np.dtype(variable.dtype).itemsize),
        fill_value=variable.fill,
        dimension_names=variable.dims,
        attributes={**variable.attributes, **georeference},
    )
