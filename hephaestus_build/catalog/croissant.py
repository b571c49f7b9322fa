"""``croissant.json``: Croissant 1.1 with GeoCroissant 1.0 and the extension for responsible AI.

It is composed here and not by mlcroissant, which knows none of GeoCroissant's terms and takes seconds to
load; the tests validate it with mlcroissant.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa

from hephaestus_build.catalog.dataset_findings import DatasetFindings
from hephaestus_build.catalog.known_limits import (
    ANNOTATION,
    CITATIONS,
    MISUSE,
    SAMPLING,
    USE,
    describe_defects,
    describe_limits,
    describe_spatial_bias,
)
from hephaestus_build.catalog.pair_table_file import COLUMNS, SPLIT_PREFIX
from hephaestus_build.catalog.sources_credit import licences_of
from hephaestus_build.catalog.stac_collection import PARQUET_TYPE, dataset_title, describe_dataset
from hephaestus_build.catalog.stac_item import ZARR_TYPE, collection_id
from hephaestus_build.cube.schema import cube_schema
from hephaestus_build.dataset.splits import PARTS

CONFORMS_TO = ("http://mlcommons.org/croissant/1.1", "http://mlcommons.org/croissant/geo/1.0")
#: Standard context of Croissant 1.1, with the prefix of GeoCroissant.
_CONTEXT: dict[str, Any] = {
    "@language": "en",
    "@vocab": "https://schema.org/",
    "arrayShape": "cr:arrayShape",
    "citeAs": "cr:citeAs",
    "column": "cr:column",
    "conformsTo": "dct:conformsTo",
    "containedIn": "cr:containedIn",
    "cr": "http://mlcommons.org/croissant/",
    "rai": "http://mlcommons.org/croissant/RAI/",
    "geocr": "http://mlcommons.org/croissant/geo/",
    "data": {"@id": "cr:data", "@type": "@json"},
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
    "dct": "http://purl.org/dc/terms/",
    "description": {"@container": "@language"},
    "equivalentProperty": "cr:equivalentProperty",
    "examples": {"@id": "cr:examples", "@type": "@json"},
    "extract": "cr:extract",
    "field": "cr:field",
    "fileProperty": "cr:fileProperty",
    "fileObject": "cr:fileObject",
    "fileSet": "cr:fileSet",
    "format": "cr:format",
    "includes": "cr:includes",
    "isArray": "cr:isArray",
    "isLiveDataset": "cr:isLiveDataset",
    "jsonPath": "cr:jsonPath",
    "key": "cr:key",
    "md5": "cr:md5",
    "name": {"@container": "@language"},
    "parentField": "cr:parentField",
    "path": "cr:path",
    "recordSet": "cr:recordSet",
    "references": "cr:references",
    "regex": "cr:regex",
    "repeated": "cr:repeated",
    "replace": "cr:replace",
    "samplingRate": "cr:samplingRate",
    "sc": "https://schema.org/",
    "separator": "cr:separator",
    "source": "cr:source",
    "subField": "cr:subField",
    "transform": "cr:transform",
}
_TEXT, _INTEGER, _BOOLEAN = "sc:Text", "sc:Integer", "sc:Boolean"
#: Columns of the table that are of STAC alone.
_OF_STAC = {"type", "stac_version", "stac_extensions", "geometry", "bbox", "links", "assets"}


def make_croissant(
    findings: DatasetFindings, files: Mapping[str, tuple[str, int]], columns: Sequence[str], cubes: str
) -> dict[str, Any]:
    """Return the description of the data set as JSON-LD.

    Parameters
    ----------
    findings : DatasetFindings
        What is known of it.
    files : dict of str to tuple of str and int
        SHA-256 and size of ``pairs.parquet``.
    columns : sequence of str
        Its columns.
    cubes : str
        Pattern of the files of the cubes: their addresses or relative paths.
    """
    mean_m = round(sum(findings.resolution) / 2, 1)
    bands = [name for name, variable in cube_schema().variables.items() if _is_band(variable)]
    licences = licences_of(findings.simulated)
    return {
        "@context": _CONTEXT,
        "@type": "sc:Dataset",
        "name": collection_id(findings.simulated),
        "alternateName": dataset_title(findings.simulated),
        "description": describe_dataset(findings),
        "conformsTo": list(CONFORMS_TO),
        "license": [licence.url for licence in licences],
        "creator": [
            {"@type": "sc:Organization", "name": name}
            for name in dict.fromkeys([*(licence.holder for licence in licences), "hephaestus-build"])
        ],
        "citeAs": "; ".join(CITATIONS),
        "datePublished": findings.updated[:10],
        # of the newest cube, as numbers of a semantic version
        "version": ".".join(str(int(part)) for part in findings.updated[:10].split("-")),
        "keywords": ["InSAR", "volcano", *(["simulated"] if findings.simulated else [])],
        "isLiveDataset": False,
        "spatialCoverage": {"@type": "Place", "geo": {"@type": "GeoShape", "box": _box(findings)}},
        "temporalCoverage": f"{findings.first}/{findings.last}",
        "geocr:coordinateReferenceSystem": "EPSG:4326",
        "geocr:spatialResolution": {"@type": "QuantitativeValue", "value": mean_m, "unitText": "m"},
        "geocr:temporalResolution": (
            f"pairs of acquisitions {findings.baselines[0]} to {findings.baselines[1]} days apart"
        ),
        "geocr:bandConfiguration": {
            "@type": "geocr:BandConfiguration",
            "geocr:totalBands": len(bands),
            "geocr:bandNameList": bands,
        },
        "geocr:samplingStrategy": SAMPLING,
        "geocr:spatialBias": describe_spatial_bias(findings),
        **_responsible_ai(findings),
        "distribution": _distribution(files, cubes),
        "recordSet": [
            _pairs(columns),
            _parts(),
            *_inline("splits", "Splits, their hashes and what audits found.", _split_rows(findings)),
            *_inline("defects", "Defects of the files of the annotations.", _defect_rows(findings)),
            *_inline("licences", "Licences of the sources, and what each covers.", _licence_rows(findings)),
        ],
    }  # fmt: skip


def _is_band(variable: Any) -> bool:
    return bool(variable.is_georeferenced and not variable.optional)


def _box(findings: DatasetFindings) -> str:
    west, south, east, north = findings.bounds
    return f"{south} {west} {north} {east}"


def _responsible_ai(findings: DatasetFindings) -> dict[str, Any]:
    holders = "; ".join(licence.credit for licence in licences_of(findings.simulated))
    return {
        "rai:dataCollection": holders,
        "rai:dataCollectionTimeframe": [findings.first, findings.last],
        "rai:dataPreprocessingProtocol": [
            (
                "Phase and coherence are stored bit for bit wherever the raster is on the frame's grid; the "
                "column alignment says where it is not. ERA5 at the hour nearest the acquisition, bilinear "
                "on the grid."
            )
        ],
        "rai:dataAnnotationProtocol": [ANNOTATION],
        "rai:annotationsPerItem": "1",
        "rai:dataAnnotationAnalysis": describe_defects(findings),
        "rai:dataBiases": [describe_spatial_bias(findings)],
        "rai:dataLimitations": [*describe_limits(findings), MISUSE],
        "rai:dataUseCases": [USE],
        "rai:personalSensitiveInformation": ["None."],
        "rai:dataReleaseMaintenancePlan": (
            "Cubes grow with the archive; each generation has a number, and every object a hash."
        ),
    }


def _distribution(files: Mapping[str, tuple[str, int]], cubes: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = [
        {
            "@type": "cr:FileObject",
            "@id": name,
            "name": name,
            "contentUrl": name,
            "contentSize": f"{size} B",
            "encodingFormat": [PARQUET_TYPE, "application/x-parquet"],  # the latter is mlcroissant's
            "sha256": sha256,
        }
        for name, (sha256, size) in files.items()
    ]
    sets = {
        "items": (
            "items/*.json",
            "application/geo+json",
            "STAC Items, one a cube (collection.json lists them)",
        ),
        "cubes": (cubes, ZARR_TYPE, "cubes, one Zarr v3 group a frame"),
    }
    return found + [
        {
            "@type": "cr:FileSet",
            "@id": name,
            "name": name,
            "description": about,
            "encodingFormat": kind,
            "includes": pattern,
        }
        for name, (pattern, kind, about) in sets.items()
    ]


def _pairs(columns: Sequence[str]) -> dict[str, Any]:
    fields = []
    for name in columns:
        if name in _OF_STAC:
            continue
        kind, about = COLUMNS.get(name, (pa.string(), "part of this split; null = in none"))
        field = {
            "@type": "cr:Field",
            "@id": f"pairs/{name}",
            "name": name,
            "description": about,
            "dataType": _data_type(kind),
            "source": {"fileObject": {"@id": "pairs.parquet"}, "extract": {"column": name}},
        }
        if name.startswith(SPLIT_PREFIX):
            field["references"] = {"field": {"@id": "parts/name"}}
        fields.append(field)
    return {
        "@type": "cr:RecordSet",
        "@id": "pairs",
        "name": "pairs",
        "description": "A row an interferogram; the table has its footprint too (geometry, WKB).",
        "key": {"@id": "pairs/id"},
        "geocr:timeSeriesIndex": {"@id": "pairs/secondary_date"},
        "field": fields,
    }


def _data_type(kind: pa.DataType) -> str:
    if pa.types.is_boolean(kind):
        return _BOOLEAN
    if pa.types.is_integer(kind):
        return _INTEGER
    if pa.types.is_floating(kind):
        return "sc:Float"
    if pa.types.is_date(kind):
        return "sc:Date"
    return "sc:DateTime" if pa.types.is_timestamp(kind) else _TEXT


def _parts() -> dict[str, Any]:
    """Return the enumeration of the parts of a split, as Croissant marks them."""
    urls = {"train": "TrainingSplit", "validation": "ValidationSplit", "test": "TestSplit"}
    rows = [{"name": part, "url": f"http://mlcommons.org/croissant/{urls[part]}"} for part in PARTS]
    [record_set] = _inline("parts", "Parts of a split.", rows)
    record_set["dataType"] = "cr:Split"
    record_set["key"] = {"@id": "parts/name"}
    record_set["field"][1]["dataType"] = "sc:URL"
    return record_set


def _inline(name: str, about: str, rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return a record set with its rows, in a list; nothing without rows."""
    if not rows:
        return []
    types = {bool: _BOOLEAN, int: _INTEGER}
    return [
        {
            "@type": "cr:RecordSet",
            "@id": name,
            "name": name,
            "description": about,
            "field": [
                {
                    "@type": "cr:Field",
                    "@id": f"{name}/{key}",
                    "name": key,
                    "description": f"{key} of {name}",
                    "dataType": types.get(type(value), _TEXT),
                }
                for key, value in rows[0].items()
            ],
            "data": [{f"{name}/{key}": value for key, value in row.items()} for row in rows],
        }
    ]


def _split_rows(findings: DatasetFindings) -> list[dict[str, Any]]:
    return [
        {
            "name": split.name,
            "version": split.version,
            "sha256": split.sha256,
            "rule": split.rule,
            "promises": "; ".join(split.promises) or "none",
            "audit_passed": bool(split.audit["passed"]),
            "findings": "; ".join(split.findings) or "none",
            **{
                f"{part}_{sign}": int(split.counts[part][sign])
                for part in PARTS
                for sign in ("positive", "negative")
            },
            **{f"{part}_here": split.here[part] for part in PARTS},
        }
        for split in findings.splits
    ]


def _defect_rows(findings: DatasetFindings) -> list[dict[str, Any]]:
    return [
        {"kind": item.kind, "count": item.count, "action": item.action, "files": ", ".join(item.files)}
        for item in findings.defects
    ]


def _licence_rows(findings: DatasetFindings) -> list[dict[str, Any]]:
    return [
        {
            "source": licence.source,
            "holder": licence.holder,
            "licence": licence.licence,
            "url": licence.url,
            "covers": licence.covers,
            "credit": licence.credit,
        }
        for licence in licences_of(findings.simulated)
    ]
