"""Cubes as the published data set lays them out: Zarr format 2, written file by file.

Names and dimensions are those that the published loader relies on and the paper's Table 5 lists; chunks,
codecs and attributes are what xarray 2025.1 and zarr 2.18, which the published code pins, write by default.
Nothing of the project's exporter is used here.
"""

from __future__ import annotations

import json
import tarfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import numcodecs
import numpy as np

QUANTITIES = ("total_column_water_vapour", "surface_pressure", "vertical_integral_of_temperature")
MASKS = ("deformation_mask", "activity_type_mask", "intensity_level_mask")
FLAGS = (
    "atmospheric_fringes",
    "glacier_fringes",
    "orbital_fringes",
    "processing_error",
    "corrupted",
    "no_info",
    "low_coherence",
    "image_artifacts",
    "is_crowd",
)
IMAGE_DIMS = ("primary_date", "secondary_date", "latitude", "longitude")


@dataclass(frozen=True)
class PublishedPair:
    """One interferogram: images of shape (latitude, longitude) by variable, and what the expert wrote."""

    images: Mapping[str, np.ndarray]
    annotation: Mapping[str, Any]


@dataclass(frozen=True)
class PublishedFrame:
    """What a published cube of one frame holds: pairs by name, fields of shape (3, lat, lon) by date."""

    frame: str
    latitudes: np.ndarray
    longitudes: np.ndarray
    dem: np.ndarray
    pairs: Mapping[str, PublishedPair]
    atmosphere: Mapping[str, np.ndarray]

    @property
    def shape(self) -> tuple[int, int]:
        return len(self.latitudes), len(self.longitudes)

    @property
    def axes(self) -> dict[str, list[str]]:
        """Dates of the two axes."""
        return {
            name: sorted({pair.split("_")[place] for pair in self.pairs})
            for place, name in enumerate(("primary_date", "secondary_date"))
        }


def write_published_cube(
    content: PublishedFrame,
    folder: Path,
    *,
    chunks: Mapping[str, int] | None = None,
    consolidated: bool = True,
    fixed_texts: bool = False,
    dtypes: Mapping[str, str] | None = None,
) -> Path:
    """Write a cube and return its path, ``<folder>/<frame>.zarr``.

    Parameters
    ----------
    content : PublishedFrame
        What it holds.
    folder : pathlib.Path
        Where the group is made.
    chunks : mapping of str to int, optional
        Chunk of each dimension; by default one image.
    consolidated : bool
        Whether ``.zmetadata`` is written.
    fixed_texts : bool
        Whether texts have a fixed length, as NumPy's do; else they are objects.
    dtypes : mapping of str to str, optional
        Types of images other than the usual ones.
    """
    root = folder / f"{content.frame}.zarr"
    sizes = {
        "primary_date": 1,
        "secondary_date": 1,
        "latitude": content.shape[0],
        "longitude": content.shape[1],
    }
    writer = _Writer(root, sizes | dict(chunks or {}))
    writer.write_group({"description": f"{content.frame}"})
    places = {
        name: tuple(days.index(day) for days, day in zip(content.axes.values(), name.split("_"), strict=True))
        for name in content.pairs
    }
    for axis, days in content.axes.items():
        first = np.datetime64(f"{days[0][:4]}-{days[0][4:6]}-{days[0][6:]}")
        offsets = [(np.datetime64(f"{one[:4]}-{one[4:6]}-{one[6:]}") - first).astype("i8") for one in days]
        writer.write(
            axis,
            (axis,),
            np.array(offsets, "i8"),
            {"units": f"days since {first} 00:00:00", "calendar": "proleptic_gregorian"},
            whole=True,
        )
    writer.write("latitude", ("latitude",), content.latitudes.astype("f8"), fill="NaN", whole=True)
    writer.write("longitude", ("longitude",), content.longitudes.astype("f8"), fill="NaN", whole=True)
    writer.write("spatial_ref", (), np.array(0, "i8"), {"spatial_ref": "EPSG:4326"})
    table = tuple(len(days) for days in content.axes.values())

    kinds = {
        "insar_difference": "f4",
        "insar_coherence": "u1",
        **dict.fromkeys(MASKS, "u1"),
        **(dtypes or {}),
    }
    for variable, kind in kinds.items():
        values = np.zeros((*table, *content.shape), kind)
        for name, pair in content.pairs.items():
            values[places[name]] = pair.images.get(variable, 0)
        writer.write(variable, IMAGE_DIMS, values, fill="NaN" if values.dtype.kind == "f" else None)
    writer.write("dem", IMAGE_DIMS[2:], content.dem.astype("f4"), fill="NaN")
    for axis, days in content.axes.items():
        fields = np.stack([content.atmosphere[day] for day in days]).astype("f4")
        for index, quantity in enumerate(QUANTITIES):
            writer.write(f"{axis}_{quantity}", (axis, *IMAGE_DIMS[2:]), fields[:, index], fill="NaN")

    def tabled(name: str, empty: Any, dtype: Any) -> np.ndarray:
        values = np.full(table, empty, dtype)
        for pair, place in places.items():
            values[place] = content.pairs[pair].annotation[name]
        return values

    for flag in FLAGS:
        writer.write(flag, IMAGE_DIMS[:2], tabled(flag, -1, "i1"), whole=True)
    writer.write("unique_id", IMAGE_DIMS[:2], tabled("unique_id", -1, "i8"), whole=True)
    writer.write("confidence", IMAGE_DIMS[:2], tabled("confidence", np.nan, "f4"), fill="NaN", whole=True)
    for text in ("phase", "caption"):
        values = tabled(text, "", object)
        writer.write(text, IMAGE_DIMS[:2], values.astype("U") if fixed_texts else values, whole=True)
    valid = np.zeros(table, "i1")
    for place in places.values():
        valid[place] = 1
    writer.write("valid_date_pair", IMAGE_DIMS[:2], valid, {"dtype": "bool"}, whole=True)
    if consolidated:
        writer.consolidate()
    return root


def pack_cube(root: Path, tar: Path) -> Path:
    """Write a plain tar archive of a cube, as ``tar -cf`` from its parent folder does."""
    tar.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(tar, "w") as archive:
        archive.add(root, root.name)
    return tar


class _Writer:
    """Writes a group in Zarr format 2."""

    def __init__(self, root: Path, chunks: Mapping[str, int]) -> None:
        self.root, self.chunks = root, chunks
        self.metadata: dict[str, Any] = {}

    def write_group(self, attributes: Mapping[str, Any]) -> None:
        self._put_json(".zgroup", {"zarr_format": 2})
        self._put_json(".zattrs", attributes)

    def write(
        self,
        name: str,
        dims: Sequence[str],
        values: np.ndarray,
        attributes: Mapping[str, Any] | None = None,
        *,
        fill: Any = None,
        whole: bool = False,
    ) -> None:
        chunk = [size if whole else self.chunks[dim] for dim, size in zip(dims, values.shape, strict=True)]
        text = values.dtype == object
        codec = numcodecs.Blosc("lz4", 5, numcodecs.Blosc.SHUFFLE)
        mapping = {} if name == "spatial_ref" or len(dims) < 2 else {"coordinates": "spatial_ref"}
        self._put_json(
            f"{name}/.zarray",
            {
                "chunks": chunk,
                "compressor": codec.get_config(),
                "dtype": "|O" if text else values.dtype.str,
                "fill_value": fill,
                "filters": [{"id": "vlen-utf8"}] if text else None,
                "order": "C",
                "shape": list(values.shape),
                "zarr_format": 2,
            },
        )
        self._put_json(f"{name}/.zattrs", {"_ARRAY_DIMENSIONS": list(dims), **mapping, **(attributes or {})})
        counts = [-(-size // step) for size, step in zip(values.shape, chunk, strict=True)]
        for index in product(*map(range, counts)):
            begins = [place * step for place, step in zip(index, chunk, strict=True)]
            part = values[tuple(slice(one, one + step) for one, step in zip(begins, chunk, strict=True))]
            # chunks at the end of an axis are as large as the others
            padding = [(0, step - size) for step, size in zip(chunk, part.shape, strict=True)]
            part = (
                np.pad(part, padding, constant_values="" if text else 0) if any(map(any, padding)) else part
            )
            encoded = numcodecs.VLenUTF8().encode(part.ravel()) if text else np.ascontiguousarray(part)
            key = ".".join(map(str, index)) or "0"
            (self.root / name / key).write_bytes(codec.encode(encoded))

    def consolidate(self) -> None:
        metadata = dict(self.metadata)
        self._put_json(".zmetadata", {"metadata": metadata, "zarr_consolidated_format": 1})

    def _put_json(self, key: str, value: Any) -> None:
        path = self.root / key
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(value, indent=4))
        self.metadata[key] = value
