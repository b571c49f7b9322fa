"""Writer of a cube's Zarr store: metadata, coordinates and tables, and a hard link for every image."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt
import zarr
from zarr.codecs import BloscCodec, VLenUTF8Codec, ZstdCodec
from zarr.core.buffer import Buffer
from zarr.storage import MemoryStore

from hephaestus_build.core.atomic_io import encode_json, hash_bytes, link_files, sync_files, write_atomic
from hephaestus_build.core.crs import WGS84_WKT
from hephaestus_build.core.grid import Grid
from hephaestus_build.core.registry import load_schema
from hephaestus_build.cube.array_attributes import array_attributes, raster_attributes
from hephaestus_build.cube.codecs.padded_chunks import split_into_chunks
from hephaestus_build.cube.codecs.vlen_utf8 import encode_vlen_utf8
from hephaestus_build.cube.georeference import GRID_MAPPING
from hephaestus_build.cube.geozarr import geozarr_attributes
from hephaestus_build.cube.granules import Granule
from hephaestus_build.cube.group_tables import (
    OVERVIEW,
    make_child_attributes,
    make_group_tables,
    overview_grid,
)
from hephaestus_build.cube.inventory import PAIR_GROUPS, CubeInventory
from hephaestus_build.cube.key_spaces import KEY_SPACES, RETIRED_CHUNK, KeySpace
from hephaestus_build.cube.pair_tables import days_since_1970, fill_tables
from hephaestus_build.cube.plain_attributes import to_plain_attributes
from hephaestus_build.cube.schema import Coordinate, CubeSchema, Variable, cube_schema
from hephaestus_build.cube.storage.frame_folder import MANIFEST, PROVENANCE
from hephaestus_build.cube.storage.manifest import encode_manifest

#: Number of hard links to one file; ext4 allows 65,000.
_LINKS_TO_A_FILE = 30_000


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
    # in memory: writing many small files through zarr takes twice as long
    arrays = _ArrayWriter(contents)
    arrays.write_crs(contents.grid)
    for coordinate in schema.coordinates.values():
        arrays.write_table(coordinate, values[coordinate.name])
    for variable in schema.variables.values():
        shape = tuple(sizes[dim] for dim in variable.dims)
        if variable.dtype == "string":
            arrays.write_text_table(variable, values[variable.name])
        elif variable.layout == "table":
            arrays.write_table(variable, values[variable.name])
        elif min(shape) > 0:
            arrays.create_images(variable, shape)
    arrays.write_groups(schema, make_group_tables(contents, values))
    return _consolidate_metadata(arrays.objects())


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
            groups[key] = msgspec.json.format(encode_json(whole), indent=2)
    return {**objects, **groups}


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
    """Writer of a cube's arrays to memory.

    Parameters
    ----------
    contents : CubeInventory
        The cube.
    """

    def __init__(self, contents: CubeInventory) -> None:
        self._objects: dict[str, Buffer] = {}
        self._encoded: dict[str, bytes] = {}
        self._contents = contents
        self._own = make_group_attributes(contents)
        self._group = zarr.create_group(MemoryStore(self._objects), zarr_format=3, attributes=self._own)

    def objects(self) -> dict[str, bytes]:
        """Return everything that was written, by key."""
        stored = {key: item.to_bytes() for key, item in sorted(self._objects.items())}
        return {**stored, **self._encoded}

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
            self._group.create_group(group.name, attributes=make_child_attributes(self._contents, group))
            sizes = {
                dim: size
                for path, table in values.items()
                if path in group.items
                for dim, size in zip(group.items[path].dims, table.shape, strict=True)
            }
            for coordinate in group.coordinates.values():
                self.write_table(coordinate, values[coordinate.name])
            for variable in group.variables.values():
                self.create_images(variable, tuple(sizes[dim] for dim in variable.dims))
                if variable.layout == "rows":
                    self._encode_rows(variable, values[variable.name])
        self.write_crs(overview_grid(self._contents), f"{OVERVIEW}/")

    def _encode_rows(self, variable: Variable, table: npt.NDArray[Any]) -> None:
        """Encode all chunks of a group's table."""
        encoder, space = variable.make_encoder(), self._space(variable)
        for position, chunk in split_into_chunks(table, variable.chunk_shape(table.shape), variable.fill):
            self._encoded[space.chunk_key(variable.name, position, 0)] = encoder.encode(chunk)

    def write_crs(self, grid: Grid, prefix: str = "") -> None:
        """Write a grid mapping. Its value has no meaning, so its key never changes."""
        self._group.create_array(
            f"{prefix}{GRID_MAPPING}",
            shape=(),
            chunks=(),
            dtype="int64",
            chunk_key_encoding=_key_encoding(KEY_SPACES[0]),
            dimension_names=(),
            attributes=grid_mapping_attributes(grid),
        )[...] = 0

    def write_table(self, item: Variable | Coordinate, value: np.ndarray) -> None:
        """Write a coordinate or a table of numbers."""
        # one that holds only fill values is stored too: a missing chunk could not be told from a lost one
        array = self._create(item, value.shape, config={"write_empty_chunks": True})
        if value.size:
            array[...] = value

    def write_text_table(self, variable: Variable, value: np.ndarray) -> None:
        """Write a table of strings."""
        codecs = {"serializer": VLenUTF8Codec(), "compressors": ZstdCodec(level=0)}
        array = self._create(variable, value.shape, **codecs)
        padded = np.zeros(array.chunks, np.dtypes.StringDType())
        padded[tuple(map(slice, value.shape))] = value
        key = self._space(variable).chunk_key(variable.name, (), value.ndim)
        self._encoded[key] = encode_vlen_utf8(padded)

    def create_images(self, variable: Variable, shape: tuple[int, ...]) -> None:
        """Create an array of images, or a table of a group, without any chunk."""
        codec = load_schema("cube.json")["codecs"][variable.codec]
        itemsize = np.dtype(variable.dtype).itemsize
        self._create(variable, shape, filters=None, compressors=BloscCodec(**codec, typesize=itemsize))

    def _create(self, item: Variable | Coordinate, shape: tuple[int, ...], **options: Any) -> zarr.Array[Any]:
        grid = overview_grid(self._contents) if item.name.startswith(f"{OVERVIEW}/") else self._contents.grid
        described = array_attributes(item, self._own) | raster_attributes(item, grid)
        return self._group.create_array(
            item.name,
            shape=shape,
            dtype=item.dtype,
            chunks=item.chunk_shape(shape),
            chunk_key_encoding=_key_encoding(self._space(item)),
            fill_value=item.fill,
            dimension_names=item.dims,
            attributes=described,
            **options,
        )

    def _space(self, item: Variable | Coordinate) -> KeySpace:
        """Return the key space of an array."""
        in_pairs = item.name.startswith(PAIR_GROUPS)
        return (self._contents.pair_keys if in_pairs else self._contents.keys).space


def _key_encoding(space: KeySpace) -> Any:
    return {"name": space.name, "separator": space.separator}
