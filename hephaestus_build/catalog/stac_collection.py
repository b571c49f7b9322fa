"""The STAC Collection of all cubes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import pystac
from pystac.extensions.file import FileExtension
from pystac.extensions.table import Column, TableExtension

from hephaestus_build.catalog.dataset_findings import DatasetFindings
from hephaestus_build.catalog.pair_table_file import COLUMNS
from hephaestus_build.catalog.sources_credit import SIMULATED_NOTICE, licences_of
from hephaestus_build.catalog.stac_item import OWN_PREFIX, ZARR_TYPE, collection_id
from hephaestus_build.core.plain_text import count_of

PARQUET_TYPE = "application/vnd.apache.parquet"
#: Code of SHA-256, and of a length of 32 bytes, which begin its multihash.
_SHA256_MULTIHASH = "1220"
_FILES = {
    "pairs.parquet": ("A row a pair: dates, baselines, footprint, labels, quality", PARQUET_TYPE, "data"),
    "croissant.json": ("Croissant, for machine learning", "application/ld+json", "metadata"),
    "README.md": ("Data card", "text/markdown", "metadata"),
}
_KEYWORDS = ["InSAR", "Sentinel-1", "LiCSAR", "ERA5", "volcano", "deformation", "machine learning"]


def make_collection(
    items: Sequence[Mapping[str, Any]],
    hrefs: Sequence[str],
    findings: DatasetFindings,
    files: Mapping[str, tuple[str, int]],
    columns: Sequence[str],
) -> dict[str, Any]:
    """Return the Collection as JSON values.

    Parameters
    ----------
    items : sequence of dict
        The Items of the cubes, at least one.
    hrefs : sequence of str
        Paths of the Items relative to the Collection.
    findings : DatasetFindings
        What is known of all.
    files : dict of str to tuple of str and int
        SHA-256 and size of the files beside the Collection.
    columns : sequence of str
        Columns of ``pairs.parquet``.
    """
    collection = pystac.Collection(
        id=collection_id(findings.simulated),
        title=dataset_title(findings.simulated),
        description=describe_dataset(findings),
        extent=_extent(items, findings),
        license="MIT" if findings.simulated else "other",
        keywords=[*_KEYWORDS, *(["simulated"] if findings.simulated else [])],
        providers=_providers(findings.simulated),
        summaries=_summaries(items),
        extra_fields={f"{OWN_PREFIX}simulated": findings.simulated},
    )
    collection.item_assets = {
        "cube": pystac.ItemAssetDefinition.create(
            "The cube", None, ZARR_TYPE, ["data", "phase", "coherence"]
        ),
        "overview": pystac.ItemAssetDefinition.create("Overviews", None, ZARR_TYPE, ["overview"]),
    }
    for name, (sha256, size) in files.items():
        title, kind, role = _FILES[name]
        asset = pystac.Asset(f"./{name}", title=title, media_type=kind, roles=[role])
        collection.add_asset(name.partition(".")[0].lower(), asset)
        FileExtension.ext(asset, add_if_missing=True).apply(checksum=_SHA256_MULTIHASH + sha256, size=size)
        if name == "pairs.parquet":
            table = TableExtension.ext(asset, add_if_missing=True)
            table.columns = [_describe_column(column) for column in columns]
            table.row_count, table.primary_geometry = findings.pairs, "geometry"
    collection.add_link(pystac.Link("root", "./collection.json", pystac.MediaType.JSON))
    for item, href in zip(items, hrefs, strict=True):
        title = item["properties"]["title"]
        collection.add_link(pystac.Link("item", f"./{href}", pystac.MediaType.GEOJSON, title))
    for licence in licences_of(findings.simulated):
        collection.add_link(pystac.Link("license", licence.url, title=f"{licence.source}: {licence.licence}"))
    return collection.to_dict(include_self_link=False, transform_hrefs=False)


def dataset_title(simulated: bool) -> str:
    """Return the title of the data set."""
    return "SIMULATED cubes of frames that do not exist" if simulated else "Cubes of volcanic unrest"


def describe_dataset(findings: DatasetFindings) -> str:
    """Return a paragraph on what the data set is."""
    about = (
        "Interferograms of Sentinel-1 as LiCSAR forms them, with coherence, heights, the atmosphere of ERA5 "
        "and experts' annotations of deformation, one Zarr v3 cube a frame: "
        f"{count_of(findings.cubes, 'cube')}, "
        f"{count_of(findings.pairs, 'interferogram')} from {findings.first} to {findings.last}, "
        f"{findings.annotated} of them annotated, {findings.deforming} with deformation."
    )
    return f"{SIMULATED_NOTICE} {about}" if findings.simulated else about


def _describe_column(name: str) -> Column:
    _, about = COLUMNS.get(name, (None, f"part of the split {name.partition(':')[2]}; null = in none"))
    return Column({"name": name, "description": about})


def _extent(items: Sequence[Mapping[str, Any]], findings: DatasetFindings) -> pystac.Extent:
    starts = min(item["properties"]["start_datetime"] for item in items)
    ends = max(item["properties"]["end_datetime"] for item in items)
    return pystac.Extent(
        pystac.SpatialExtent([list(findings.bounds)]),
        pystac.TemporalExtent([[datetime.fromisoformat(starts), datetime.fromisoformat(ends)]]),
    )


def _providers(simulated: bool) -> list[pystac.Provider]:
    role = pystac.ProviderRole
    builder = pystac.Provider("hephaestus-build", roles=[role.PROCESSOR], description="builds the cubes")
    if simulated:
        return [builder]
    roles = {
        "COMET": [role.PRODUCER, role.LICENSOR],
        "Orion Lab": [role.PRODUCER, role.LICENSOR],
    }
    return [
        pystac.Provider(
            licence.holder,
            description=f"{licence.source}: {licence.covers}. {licence.credit}",
            roles=roles.get(licence.holder, [role.LICENSOR]),
        )
        for licence in licences_of(simulated)
    ] + [builder]


def _summaries(items: Sequence[Mapping[str, Any]]) -> pystac.Summaries:
    properties = [item["properties"] for item in items]
    summaries = pystac.Summaries.empty()
    for name in ("constellation", "sat:orbit_state", "sar:instrument_mode", f"{OWN_PREFIX}region"):
        summaries.add(name, sorted({about[name] for about in properties}))
    names = sorted({name for about in properties for name in about[f"{OWN_PREFIX}volcanoes"]})
    if names:
        summaries.add(f"{OWN_PREFIX}volcanoes", names)
    for name in ("gsd", "sat:relative_orbit", f"{OWN_PREFIX}pairs"):
        values = [about[name] for about in properties]
        summaries.add(name, pystac.RangeSummary(min(values), max(values)))
    return summaries
