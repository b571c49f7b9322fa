"""Writer of a cube's Zarr store: metadata, coordinates and tables, and a hard link for every image."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt
from numcodecs import Zstd

from hephaestus_build.core.atomic_io import encode_json, hash_bytes, link_files, sync_files, write_atomic
from hephaestus_build.core.crs import WGS84_WKT
from hephaestus_build.core.grid import Grid
from hephaestus_build.cube.array_attributes import array_attributes, raster_attributes
from hephaestus_build.cube.codecs.padded_chunks import split_into_chunks
from hephaestus_build.cube.codecs.vlen_utf8 import encode_vlen_utf8
from hephaestus_build.cube.geozarr import geozarr_attributes
from hephaestus_build.cube.granules import Granule
from hephaestus_build.cube.group_tables import (
    OVERVIEW,
    make_child_attributes,
    make_group_tables,
    overview_grid,
)
from hephaestus_build.cube.inventory import PAIR_GROUPS, CubeInventory
from hephaestus_build.cube.key_spaces import RETIRED_CHUNK, KeySpace
from hephaestus_build.cube.pair_tables import days_since_1970, fill_tables
from hephaestus_build.cube.plain_attributes import to_plain_attributes
from hephaestus_build.cube.schema import GRID_MAPPING, Coordinate, CubeSchema, Variable, cube_schema
from hephaestus_build.cube.storage.frame_folder import MANIFEST, PROVENANCE
from hephaestus_build.cube.storage.manifest import encode_manifest
from hephaestus_build.cube.zarr_json import make_array_metadata, make_group_metadata, make_scalar_metadata

#: Number of hard links to one file; ext4 allows 65,000.
_LINKS_TO_A_FILE = 30_000
_ZSTD = Zstd(level=0)


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
    _write_retired_chunks(store, contents.retired_keys, manifest)
    sources = dict[str, str]()
    for granule in contents.granules.values():
        files = origin(granule)
        for name, key in contents.chunk_keys.keys(granule):
            sources[key] = files[name]
            manifest[key] = [granule.objects[name].digest, granule.objects[name].size]
    link_files(store, sources)
    write_atomic(store / MANIFEST, encode_manifest(manifest), durable=True)


def _write_retired_chunks(store: Path, keys: Sequence[str], manifest: dict[str, list[Any]]) -> None:
    """Store an object that cannot be decoded at each retired key, and add them to the manifest."""
    for first in range(0, len(keys), _LINKS_TO_A_FILE):
        origin, *others = keys[first : first + _LINKS_TO_A_FILE]
        write_atomic(store / origin, RETIRED_CHUNK)
        link_files(store, dict.fromkeys(others, str(store / origin)))
    manifest |= {key: [hash_bytes(RETIRED_CHUNK), len(RETIRED_CHUNK)] for key in keys}


def encode_metadata(contents: CubeInventory) -> dict[str, bytes]:
    """Return the metadata, coordinates and tables of a cube, by their keys in the store."""
    schema = cube_schema().for_simulated() if contents.attributes.get("simulated") else cube_schema()
    schema = schema.with_optional(contents.optional_variables)
    values = make_tables(contents)
    sizes = {name: len(values[name]) for name in schema.coordinates}
    arrays = _ArrayWriter(contents)
    arrays.write_crs(contents.grid)
    for coordinate in schema.coordinates.values():
        arrays.write_table(coordinate, values[coordinate.name])
    for variable in schema.variables.values():
        shape = tuple(sizes[dim] for dim in variable.dims)
        if variable.layout == "table":
            arrays.write_table(variable, values[variable.name])
        elif min(shape) > 0:
            arrays.create_array(variable, shape)
    arrays.write_groups(schema, make_group_tables(contents, values))
    return arrays.objects()


def _encode_metadata_documents(documents: Mapping[str, dict[str, Any]]) -> dict[str, bytes]:
    """Return metadata as it is stored, with that of all that is in a group added to the group's own."""
    encoded = {}
    for key, document in documents.items():
        if document["node_type"] == "group":
            prefix = key.removesuffix("zarr.json")
            inside = {
                path.removeprefix(prefix).removesuffix("/zarr.json"): item
                for path, item in documents.items()
                if path.startswith(prefix) and path != key
            }
            consolidated = {"kind": "inline", "must_understand": False, "metadata": inside}
            document = {**document, "consolidated_metadata": consolidated}
        encoded[key] = msgspec.json.format(encode_json(document), indent=2)
    return encoded


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
        "epoch_satellite": np.array(
            [contents.satellites.get(f"{day:%Y%m%d}", "") for day in axes.epochs], np.dtypes.StringDType()
        ),
    }


def make_group_attributes(contents: CubeInventory) -> dict[str, Any]:
    """Return the attributes of a cube's root group, as the store holds them."""
    return {
        "Conventions": "CF-1.11",
        **to_plain_attributes(
            {**contents.attributes, "optional_variables": list(contents.optional_variables)}
        ),
        # makes xarray read the grid mapping as a coordinate, not as a data variable
        "coordinates": "spatial_ref",
        **geozarr_attributes(contents.grid),
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


class _ArrayWriter:
    """Encoder of a cube's metadata, coordinates and tables.

    Parameters
    ----------
    contents : CubeInventory
        The cube.
    """

    def __init__(self, contents: CubeInventory) -> None:
        self._contents = contents
        self._own = make_group_attributes(contents)
        self._metadata = {"zarr.json": make_group_metadata(self._own)}
        self._chunks: dict[str, bytes] = {}

    def objects(self) -> dict[str, bytes]:
        """Return everything that was encoded, by key in the store."""
        metadata = dict(sorted(self._metadata.items()))
        return {**_encode_metadata_documents(metadata), **self._chunks}

    def write_groups(self, schema: CubeSchema, values: Mapping[str, npt.NDArray[Any]]) -> None:
        """Write the groups beside the root's arrays.

        Parameters
        ----------
        schema : CubeSchema
            Schema of the cube.
        values : mapping of str to numpy.ndarray
            Coordinates and tables of the groups by path.
        """
        for group in schema.groups.values():
            attributes = make_child_attributes(self._contents, group)
            self._metadata[f"{group.name}/zarr.json"] = make_group_metadata(attributes)
            sizes = {
                dim: size
                for path, table in values.items()
                if path in group.items
                for dim, size in zip(group.items[path].dims, table.shape, strict=True)
            }
            for coordinate in group.coordinates.values():
                self.write_table(coordinate, values[coordinate.name])
            for variable in group.variables.values():
                self.create_array(variable, tuple(sizes[dim] for dim in variable.dims))
                if variable.layout == "rows":
                    self._encode_rows(variable, values[variable.name])
        self.write_crs(overview_grid(self._contents), f"{OVERVIEW}/")

    def _encode_rows(self, variable: Variable, table: npt.NDArray[Any]) -> None:
        """Encode all chunks of a group's table."""
        encoder, space = variable.make_encoder(), self._space(variable)
        for position, chunk in split_into_chunks(table, variable.chunk_shape(table.shape), variable.fill):
            self._chunks[space.chunk_key(variable.name, position, 0)] = encoder.encode(chunk)

    def write_crs(self, grid: Grid, prefix: str = "") -> None:
        """Write a grid mapping."""
        metadata = make_scalar_metadata(grid_mapping_attributes(grid))
        self._metadata[f"{prefix}{GRID_MAPPING}/zarr.json"] = metadata

    def write_table(self, item: Variable | Coordinate, value: npt.NDArray[Any]) -> None:
        """Write a coordinate or a table, which is one chunk.

        It is stored even if it holds only fill values: a missing chunk could not be told from a lost one.
        """
        self.create_array(item, value.shape)
        if not value.size:
            return
        chunk = item.chunk_shape(value.shape)
        padded: npt.NDArray[Any]
        if item.dtype == "string":
            padded = np.zeros(chunk, np.dtypes.StringDType())
        else:
            padded = np.full(chunk, item.fill, np.dtype(item.dtype).newbyteorder("<"))
        padded[tuple(map(slice, value.shape))] = value
        key = self._space(item).chunk_key(item.name, (), value.ndim)
        self._chunks[key] = encode_vlen_utf8(padded) if item.dtype == "string" else _ZSTD.encode(padded)

    def create_array(self, item: Variable | Coordinate, shape: tuple[int, ...]) -> None:
        """Write the metadata of an array; the chunks of images are linked afterwards."""
        grid = overview_grid(self._contents) if item.name.startswith(f"{OVERVIEW}/") else self._contents.grid
        attributes = array_attributes(item, self._own) | raster_attributes(item, grid)
        metadata = make_array_metadata(item, shape, self._space(item), attributes)
        self._metadata[f"{item.name}/zarr.json"] = metadata

    def _space(self, item: Variable | Coordinate) -> KeySpace:
        """Return the key space of an array."""
        in_pairs = item.name.startswith(PAIR_GROUPS)
        return (self._contents.pair_keys if in_pairs else self._contents.keys).space
