"""The STAC Item of a cube, by pystac and its extensions."""

from __future__ import annotations

import math
from functools import cache
from typing import Any

import pystac
from pystac.extensions.datacube import DatacubeExtension, Dimension, Variable
from pystac.extensions.file import FileExtension
from pystac.extensions.insar import InsarExtension
from pystac.extensions.processing import ProcessingExtension
from pystac.extensions.projection import ProjectionExtension
from pystac.extensions.render import Render, RenderExtension
from pystac.extensions.sar import FrequencyBand, ObservationDirection, Polarization, SarExtension
from pystac.extensions.sat import OrbitState, SatExtension
from pystac.extensions.version import VersionExtension
from pystac.extensions.xarray_assets import AssetXarrayAssetsExtension, XarrayAssetsExtension
from shapely.geometry import mapping

from hephaestus_build.catalog.cube_record import CubeRecord, worst_row_shift
from hephaestus_build.catalog.footprint import bounding_box, footprint_of
from hephaestus_build.catalog.sources_credit import SIMULATED_NOTICE
from hephaestus_build.core.plain_text import count_of, utc_text
from hephaestus_build.cube.group_tables import OVERVIEW
from hephaestus_build.cube.schema import cube_schema

#: Media type of a Zarr v3 store.
ZARR_TYPE = "application/vnd.zarr; version=3"
#: Prefix of the properties of an Item that no extension has.
OWN_PREFIX = "hephaestus:"
# pystac's package of this extension writes its version 1.1, whose `raster:bands` STAC 1.1 replaced by `bands`
_RASTER_SCHEMA = "https://stac-extensions.github.io/raster/v2.0.0/schema.json"
_SPEED_OF_LIGHT = 299_792_458.0
# code of BLAKE3, and of a length of 32 bytes
_BLAKE3_MULTIHASH = "1e20"
_DIMENSIONS = {"latitude", "longitude", "primary_date", "secondary_date", "epoch"}
_DATA_TYPES = {"bool": "other", "string": "other"}
_RECORDS = {
    "manifest.json": "Hash and size of every object",
    "provenance.json": "Source and hash of every product",
}
# `variables` is what readers of Zarr take beside the extension's own fields
_RENDERS: dict[str, dict[str, Any]] = {
    "wrapped_phase": {
        "title": "Wrapped phase",
        "variables": ["insar_difference"],
        "rescale": [[-math.pi, math.pi]],
        "nodata": 0,
        "colormap_name": "twilight_shifted",
        "resampling": "nearest",
    },
    "coherence": {
        "title": "Coherence",
        "variables": ["insar_coherence"],
        "rescale": [[0, 255]],
        "nodata": 0,
        "colormap_name": "gray",
        "resampling": "nearest",
    },
    "deformation": {
        "title": "Deformation",
        "variables": ["deformation_mask"],
        "colormap": {"0": [0, 0, 0, 0], "1": [213, 94, 0, 255], "2": [0, 114, 178, 255]},
        "resampling": "nearest",
    },
}


def make_cube_item(record: CubeRecord, cube_href: str) -> dict[str, Any]:
    """Return the STAC Item of a cube as JSON values.

    Parameters
    ----------
    record : CubeRecord
        The cube.
    cube_href : str
        Address of the cube, or its path relative to the Item.
    """
    days = [pair[name] for pair in record.pairs for name in ("primary", "secondary")]
    item = pystac.Item(
        id=record.frame.id,
        geometry=mapping(footprint_of(record.grid)),
        bbox=list(bounding_box(record.grid)),
        datetime=None,
        start_datetime=record.moment_of(min(days, default=record.published.date())),
        end_datetime=record.moment_of(max(days, default=record.published.date())),
        properties=_properties(record),
    )
    _describe_acquisition(item, record)
    _describe_grid(item, record)
    _add_assets(item, record, cube_href)
    for rel in ("root", "parent", "collection"):
        item.add_link(pystac.Link(rel, "../collection.json", pystac.MediaType.JSON))
    item.add_link(pystac.Link("store", cube_href, ZARR_TYPE))
    item.collection_id = collection_id(record.is_simulated)
    VersionExtension.ext(item, add_if_missing=True).apply(str(record.generation))
    item.stac_extensions.append(_RASTER_SCHEMA)
    return item.to_dict(include_self_link=False, transform_hrefs=False)


def collection_id(simulated: bool) -> str:
    """Return the id of the Collection of real or of simulated cubes."""
    return "hephaestus-cubes-simulated" if simulated else "hephaestus-cubes"


def _properties(record: CubeRecord) -> dict[str, Any]:
    pairs, annotated = len(record.pairs), sum(row["annotated"] for row in record.pairs)
    about = f"{count_of(pairs, 'interferogram')}, {annotated} of them annotated"
    title = record.text("title", 200) or f"Cube of the frame {record.frame}"
    own = {
        "simulated": record.is_simulated,
        "pairs": pairs,
        "annotated": annotated,
        "deforming": sum(row["deformation"] for row in record.pairs),
        "usable": sum(row["usable"] for row in record.pairs),
        "volcanoes": list(record.volcanoes),
        "region": record.region,
        "schema_version": record.text("schema_version", 20),
        "mask_error_rows_if_assumed": round(worst_row_shift(record.grid), 1),
        "masks_assumed": sum(row["mask_position"] == "assumed" for row in record.pairs),
        "masks_uncertain": sum(row["mask_position"] == "uncertain" for row in record.pairs),
    }
    platforms = [name.lower().replace("s1", "sentinel-1") for name in record.satellites]
    return {
        "title": f"SIMULATED: {title}" if record.is_simulated else title,
        "description": f"{SIMULATED_NOTICE} {about}." if record.is_simulated else f"{about}.",
        "created": utc_text(record.published),
        "updated": utc_text(record.published),
        "constellation": "sentinel-1",
        **({"platform": platforms[0]} if len(platforms) == 1 else {}),
        "instruments": ["c-sar"],
        "gsd": round(max(record.grid.pixel_size_m()), 2),
        "license": "MIT" if record.is_simulated else "other",
        **{f"{OWN_PREFIX}{name}": value for name, value in own.items()},
    }


def _describe_acquisition(item: pystac.Item, record: CubeRecord) -> None:
    SatExtension.ext(item, add_if_missing=True).apply(
        OrbitState.ASCENDING if record.frame.direction == "A" else OrbitState.DESCENDING, record.frame.track
    )
    wavelength, look = record.attributes.get("radar_wavelength_m"), record.text("look_direction", 10)
    SarExtension.ext(item, add_if_missing=True).apply(
        instrument_mode="SM" if "_SM_" in record.frame.id else "IW",
        frequency_band=FrequencyBand.C,
        polarizations=[Polarization.VV],  # of all that LiCSAR forms over land
        product_type="INTERFEROGRAM",
        center_frequency=round(_SPEED_OF_LIGHT / wavelength / 1e9, 6) if wavelength else None,
        observation_direction=ObservationDirection(look) if look in ("left", "right") else None,
    )
    if dem := record.text("dem_source", 200):  # all else of the extension differs from pair to pair
        InsarExtension.ext(item, add_if_missing=True).apply(processing_dem=dem, geocoding_dem=dem)
    version = record.text("hephaestus_build_version", 40)
    ProcessingExtension.ext(item, add_if_missing=True).apply(
        lineage=record.text("source"),
        level="L3",
        software={"hephaestus-build": version} if version else None,
        processing_datetime=record.published,
    )


def _describe_grid(item: pystac.Item, record: CubeRecord) -> None:
    grid = record.grid
    west, south, east, north = (round(edge, 9) for edge in grid.bounds)
    ProjectionExtension.ext(item, add_if_missing=True).apply(
        code="EPSG:4326",
        bbox=[west, south, east, north],
        shape=list(grid.shape),
        transform=[grid.dx, 0.0, grid.west, 0.0, -grid.dy, grid.north],
    )
    days = {
        f"{name}_date": sorted({pair[name] for pair in record.pairs}) for name in ("primary", "secondary")
    }
    days["epoch"] = sorted({*days["primary_date"], *days["secondary_date"]})
    spatial = {"type": "spatial", "reference_system": 4326}
    dimensions: dict[str, Any] = {
        "latitude": {**spatial, "axis": "y", "extent": [south, north], "step": -grid.dy},
        "longitude": {**spatial, "axis": "x", "extent": [west, east], "step": grid.dx},
    }
    for name, values in days.items():
        extent = [f"{day}T00:00:00Z" for day in (values[0], values[-1])] if values else [None, None]
        dimensions[name] = {"type": "temporal", "extent": extent, "step": None}
    variables = _cube_variables(record.optional_variables, record.is_simulated)
    DatacubeExtension.ext(item, add_if_missing=True).apply(
        {name: Dimension.from_dict(value) for name, value in dimensions.items()},
        {name: Variable(dict(value)) for name, value in variables.items()},
    )


@cache
def _cube_variables(optional: tuple[str, ...], simulated: bool) -> dict[str, dict[str, Any]]:
    schema = cube_schema().with_optional(optional)
    schema = schema.for_simulated() if simulated else schema
    found = {}
    for variable in schema.variables.values():
        attributes = variable.attributes
        if not _DIMENSIONS.issuperset(variable.dims):  # on ERA5's own grid
            continue
        about = [attributes.get(key) for key in ("long_name", "comment")[: 1 + variable.is_georeferenced]]
        found[variable.name] = {
            "dimensions": list(variable.dims),
            "type": "data" if variable.is_georeferenced else "auxiliary",
            "description": ". ".join(filter(None, about)),
            **({"unit": attributes["units"]} if "units" in attributes else {}),
        }
    return found


@cache
def _bands(optional: tuple[str, ...], pixel_m: float) -> list[dict[str, Any]]:
    bands = []
    for variable in cube_schema().with_optional(optional).variables.values():
        if not variable.is_georeferenced:
            continue
        nan = isinstance(variable.fill, float) and math.isnan(variable.fill)
        bands.append(
            {
                "name": variable.name,
                "description": variable.attributes.get("long_name", variable.name),
                "data_type": _DATA_TYPES.get(variable.dtype, variable.dtype),
                "nodata": "nan" if nan else variable.fill,
                **({"unit": variable.attributes["units"]} if "units" in variable.attributes else {}),
                "raster:sampling": "area",
                "raster:spatial_resolution": pixel_m,
                **({"raster:scale": 1 / 255} if variable.name == "insar_coherence" else {}),
            }
        )
    return bands


def _add_assets(item: pystac.Item, record: CubeRecord, cube_href: str) -> None:
    cube = pystac.Asset(
        cube_href,
        title="The cube",
        description="One Zarr v3 group; xarray.open_zarr opens it",
        media_type=ZARR_TYPE,
        roles=["data", "phase", "coherence"],
        extra_fields={"bands": _bands(record.optional_variables, round(max(record.grid.pixel_size_m()), 2))},
    )
    overview = pystac.Asset(
        f"{cube_href}/{OVERVIEW}",
        title="Overviews",
        description="Small phase, coherence and mask images of every pair, in plain chunks",
        media_type=ZARR_TYPE,
        roles=["overview"],
    )
    item.add_asset("cube", cube)
    item.add_asset(OVERVIEW, overview)
    XarrayAssetsExtension.add_to(item)
    for asset in (cube, overview):
        AssetXarrayAssetsExtension(asset).open_kwargs = {"engine": "zarr", "chunks": {}}
    FileExtension.ext(cube, add_if_missing=True).apply(size=record.size)
    for name, about in record.files.items():
        asset = pystac.Asset(
            f"{cube_href}/{name}",
            title=_RECORDS[name],
            media_type=pystac.MediaType.JSON,
            roles=["metadata"],
        )
        item.add_asset(name.removesuffix(".json"), asset)
        FileExtension.ext(asset).apply(checksum=_BLAKE3_MULTIHASH + about.blake3, size=about.size)
    RenderExtension.ext(item, add_if_missing=True).apply(
        {name: Render({"assets": ["cube"], **fields}) for name, fields in _RENDERS.items()}
    )
