"""``pairs.parquet``: a row a pair, as GeoParquet in the layout of stac-geoparquet.

Its rows are STAC Items to tools that read that layout (rustac, stac-geoparquet, DuckDB), and a plain table to
all others. Columns with a colon have the names of STAC's extensions.
"""

from __future__ import annotations

import io
import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import timedelta
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from hephaestus_build.catalog.cube_record import CubeRecord
from hephaestus_build.catalog.footprint import bounding_box, footprint_of
from hephaestus_build.catalog.stac_item import ZARR_TYPE, collection_id
from hephaestus_build.dataset.splits import Split
from hephaestus_build.sources.annotations.record import FLAGS

#: Beginning of the name of a column with the part of a split.
SPLIT_PREFIX = "split:"
_MOMENT = pa.timestamp("us", tz="UTC")
_WORD = pa.dictionary(pa.int16(), pa.string())
_EXTENSIONS = [f"https://stac-extensions.github.io/{name}/v1.0.0/schema.json" for name in ("insar", "sat")]
_BOX = pa.struct([(name, pa.float64()) for name in ("xmin", "ymin", "xmax", "ymax")])
_LINK = pa.struct([(name, pa.string()) for name in ("href", "rel", "type")])
_ASSET = pa.struct([("href", pa.string()), ("type", pa.string()), ("roles", pa.list_(pa.string()))])

#: What the columns hold, beside those of the splits.
COLUMNS: Mapping[str, tuple[pa.DataType, str]] = {
    "type": (_WORD, "Feature"),
    "stac_version": (_WORD, "version of STAC"),
    "stac_extensions": (pa.list_(pa.string()), "extensions of STAC whose columns are here"),
    "id": (pa.string(), "frame and pair"),
    "geometry": (pa.binary(), "footprint of the frame, WKB, longitude and latitude of WGS 84"),
    "bbox": (_BOX, "bounding box of the footprint, degrees"),
    "links": (pa.list_(_LINK), "the Item of the cube"),
    "assets": (pa.struct([("cube", _ASSET)]), "the cube that holds the pair"),
    "collection": (_WORD, "id of the Collection"),
    "datetime": (_MOMENT, "the later acquisition, UTC"),
    "start_datetime": (_MOMENT, "the earlier acquisition, UTC"),
    "end_datetime": (_MOMENT, "the later acquisition, UTC"),
    "frame": (_WORD, "id of the frame"),
    "pair": (pa.string(), "both dates, yyyymmdd_yyyymmdd"),
    "primary_date": (pa.date32(), "the earlier date"),
    "secondary_date": (pa.date32(), "the later date"),
    "insar:reference_datetime": (_MOMENT, "the earlier acquisition, UTC"),
    "insar:secondary_datetime": (_MOMENT, "the later acquisition, UTC"),
    "insar:temporal_baseline": (pa.float64(), "days"),
    "insar:perpendicular_baseline": (
        pa.float64(),
        "m; the secondary's minus the primary's; null = not known",
    ),
    "insar:processing_dem": (_WORD, "heights that were used"),
    "sat:orbit_state": (_WORD, "ascending or descending"),
    "sat:relative_orbit": (pa.int16(), "track"),
    "region": (_WORD, "frames of one region show the same volcanoes: keep them in one part"),
    "status": (_WORD, "stored, or gone: stored here, and no longer listed by the archive"),
    "generation": (pa.int32(), "generation of the cube"),
    "simulated": (pa.bool_(), "whether the data is simulated"),
    "annotated": (pa.bool_(), "whether an expert looked at the pair"),
    "usable": (pa.bool_(), "annotated, not corrupted, no processing error, not empty: a sample"),
    "deformation": (pa.bool_(), "whether the expert outlined deformation"),
    "phase": (_WORD, "Rest, Unrest, Rebound or None, as the expert wrote it"),
    **{name: (pa.int8(), "flag of the expert; -1 = not annotated") for name in FLAGS},
    "confidence": (pa.float64(), "of the expert, 0 to 1"),
    "caption": (pa.string(), "what the expert wrote"),
    "unique_id": (pa.int32(), "id of the annotation; -1 = not annotated"),
    "valid_fraction": (pa.float64(), "share of pixels with data"),
    "alignment": (_WORD, "how the raster was brought to the grid"),
    "era5_primary": (_WORD, "final, preliminary, published, unstated or missing"),
    "era5_secondary": (_WORD, "the same of the later date"),
    "satellite_primary": (_WORD, "satellite of the earlier date; null = not certain"),
    "satellite_secondary": (_WORD, "the same of the later date"),
    "mask_position": (_WORD, "whether a preview tells where outlines lie: seen, assumed, uncertain"),
    "mask_error_rows": (pa.float64(), "rows that a mask may be off; null = not known"),
}
#: Columns of the rows of a record that are copied under their own names.
_COPIED = (
    *("pair", "status", "annotated", "usable", "deformation", "phase"),
    *(*FLAGS, "confidence", "caption", "unique_id"),
    *("valid_fraction", "alignment", "era5_primary", "era5_secondary"),
    *("satellite_primary", "satellite_secondary", "mask_position", "mask_error_rows"),
)
_SCHEMA = pa.schema([pa.field(name, kind) for name, (kind, _) in COLUMNS.items()])


def make_pair_table(records: Sequence[CubeRecord], hrefs: Mapping[str, tuple[str, str]]) -> pa.Table:
    """Return the rows of the pairs of cubes.

    Parameters
    ----------
    records : sequence of CubeRecord
        The cubes.
    hrefs : dict of str to tuple of str
        Address of each cube and of its Item by frame, or paths relative to the table.
    """
    rows = [row for record in records for row in record.pairs]
    of_cube = pa.array(np.repeat(np.arange(len(records)), [len(record.pairs) for record in records]))
    facts = [_facts_of_cube(record, *hrefs[record.frame.id]) for record in records]
    days = {role: pa.array([row[role] for row in rows], pa.date32()) for role in ("primary", "secondary")}
    times = pa.array([record.center_time or timedelta() for record in records], pa.duration("us")).take(
        of_cube
    )
    moments = {
        role: pc.add(values.cast(pa.timestamp("us")), times).cast(_MOMENT) for role, values in days.items()
    }
    columns = {
        "datetime": moments["secondary"],
        "start_datetime": moments["primary"],
        "end_datetime": moments["secondary"],
        "primary_date": days["primary"],
        "secondary_date": days["secondary"],
        "insar:reference_datetime": moments["primary"],
        "insar:secondary_datetime": moments["secondary"],
        "insar:temporal_baseline": [row["temporal_baseline_days"] for row in rows],
        "insar:perpendicular_baseline": [row["perpendicular_baseline_m"] for row in rows],
        **{name: [row[name] for row in rows] for name in _COPIED},
    }
    arrays = {
        name: _column(columns[name], kind)
        if name in columns
        else _column([fact.get(name) for fact in facts], kind).take(of_cube)
        for name, (kind, _) in COLUMNS.items()
    }
    frames = arrays["frame"].cast(pa.string())
    arrays["id"] = pc.binary_join_element_wise(frames, arrays["pair"], "_")
    return pa.Table.from_arrays(list(arrays.values()), schema=_SCHEMA)


def _facts_of_cube(record: CubeRecord, cube_href: str, item_href: str) -> dict[str, Any]:
    """Return the columns that are the same in all rows of a cube."""
    names = ("xmin", "ymin", "xmax", "ymax")
    return {
        "type": "Feature",
        "stac_version": "1.1.0",
        "stac_extensions": _EXTENSIONS,
        "geometry": footprint_of(record.grid).wkb,
        "bbox": dict(zip(names, bounding_box(record.grid), strict=True)),
        "links": [{"href": item_href, "rel": "derived_from", "type": "application/geo+json"}],
        "assets": {"cube": {"href": cube_href, "type": ZARR_TYPE, "roles": ["data"]}},
        "collection": collection_id(record.is_simulated),
        "frame": record.frame.id,
        "insar:processing_dem": record.text("dem_source", 200),
        "sat:orbit_state": "ascending" if record.frame.direction == "A" else "descending",
        "sat:relative_orbit": record.frame.track,
        "region": record.region,
        "generation": record.generation,
        "simulated": record.is_simulated,
    }


def _column(values: Any, kind: pa.DataType) -> pa.Array:
    """Return values as an array; NaN and, of a word, an empty text become null."""
    if isinstance(values, pa.Array):
        return values
    if pa.types.is_dictionary(kind):
        return pa.array([value or None for value in values], pa.string()).dictionary_encode().cast(kind)
    return pa.array(values, kind, from_pandas=True)


def join_pair_tables(tables: Iterable[pa.Table], splits: Sequence[Split]) -> pa.Table:
    """Return the rows of all cubes in order of frame and dates, with the part of each in each split.

    Parameters
    ----------
    tables : iterable of pyarrow.Table
        Tables of :func:`make_pair_table`, or parts of a table that was made here before.
    splits : sequence of Split
        The splits.
    """
    parts = [table.select(_SCHEMA.names) for table in tables]
    whole = pa.concat_tables(parts).unify_dictionaries() if parts else _SCHEMA.empty_table()
    whole = whole.sort_by([("id", "ascending")]).combine_chunks()
    ids = whole["id"].to_pylist()
    for split in splits:
        part_of = {f"{sample.frame}_{sample.pair.name}": part for part, sample in split.samples_with_parts}
        column = _column([part_of.get(name, "") for name in ids], _WORD)
        whole = whole.append_column(f"{SPLIT_PREFIX}{split.name}", column)
    return whole


def encode_pair_table(table: pa.Table) -> bytes:
    """Return a table as GeoParquet 1.1."""
    edges = {name: pc.struct_field(table["bbox"], name) for name in ("xmin", "ymin", "xmax", "ymax")}
    across = bool(pc.any(pc.greater(edges["xmin"], edges["xmax"])).as_py())  # 180 degrees of longitude
    geometry = {
        "encoding": "WKB",
        "geometry_types": ["Polygon", *(["MultiPolygon"] if across else [])],
        "orientation": "counterclockwise",
        "covering": {"bbox": {name: ["bbox", name] for name in edges}},
    }
    geo = {"version": "1.1.0", "primary_column": "geometry", "columns": {"geometry": geometry}}
    stream = io.BytesIO()
    table = table.replace_schema_metadata({b"geo": json.dumps(geo).encode()})
    pq.write_table(table, stream, compression="zstd", row_group_size=100_000)
    return stream.getvalue()


def read_pair_table(content: bytes) -> pa.Table:
    """Return a table that :func:`encode_pair_table` wrote, without the columns of splits.

    Raises
    ------
    ValueError
        If it is damaged, or has other columns than this version writes.
    """
    try:
        table = pq.read_table(io.BytesIO(content))
        return table.select(_SCHEMA.names).cast(_SCHEMA)
    except (pa.ArrowException, KeyError) as error:
        raise ValueError(f"it is no table of pairs ({error})") from None


def select_frames_of_table(table: pa.Table, frames: Collection[str]) -> pa.Table:
    """Return the rows of some frames."""
    return table.filter(pc.is_in(table["frame"].cast(pa.string()), pa.array(sorted(frames), pa.string())))
