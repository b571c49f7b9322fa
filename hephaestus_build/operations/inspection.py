"""Summary of a cube's content."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from hephaestus_build.core.accepted_absences import AcceptedAbsences
from hephaestus_build.core.era5_grid import (
    EXPVER_FINAL,
    EXPVER_PRELIMINARY,
    EXPVER_PUBLISHED,
    EXPVER_UNSTATED,
)
from hephaestus_build.core.errors import HephaestusError
from hephaestus_build.core.frames import Frame
from hephaestus_build.core.plain_files import walk_files
from hephaestus_build.core.plain_text import sanitize_text
from hephaestus_build.cube.georeference import read_cube_grid
from hephaestus_build.cube.group_tables import OVERVIEW
from hephaestus_build.cube.inventory import CubeInventory
from hephaestus_build.cube.plain_attributes import split_texts
from hephaestus_build.cube.reading.dataset import open_pinned_cube, resolve_published_store
from hephaestus_build.cube.reading.store_metadata import read_store_metadata
from hephaestus_build.cube.schema import cube_schema
from hephaestus_build.cube.storage.generations import Generation, generation_number
from hephaestus_build.cube.validation.array_metadata import ValidationFinding
from hephaestus_build.cube.validation.schema_conformance import check_schema
from hephaestus_build.cube.validation.wording import has_other_wording
from hephaestus_build.pipeline.missing_products import (
    MissingProduct,
    find_missing_products,
    partition_accepted,
)

_SIZE_CATEGORIES = {
    "insar_difference": "phase",
    "insar_coherence": "coherence",
    "deformation_mask": "masks",
    "activity_type_mask": "masks",
    "intensity_level_mask": "masks",
    "dem": "DEM",
}


@dataclass(frozen=True, repr=False)
class CubeSummary:
    """Summary of a cube.

    Attributes
    ----------
    path : str
        The store itself, not the link to it.
    findings : tuple of ValidationFinding
        Deviations from the schema; if they prevent reading, all other attributes are empty.
    frame : str
        Frame id.
    generation : int or None
        Number of the generation; None if the cube is not in a frame store.
    simulated : bool
        Whether the data is simulated.
    volcanoes : tuple of str
        As the data set's authors name them.
    shape : tuple of int
        Rows and columns.
    bounds : tuple of float
        West, south, east and north edges, degrees.
    pixel_deg, pixel_m : tuple of float
        East-west and north-south size of a pixel, degrees and metres.
    first, last : str
        First and last acquisition date, ISO 8601.
    dates : dict of str to int
        Length of the two date axes and of their union.
    pairs : dict of str to int
        Numbers of valid and annotated pairs, of those with deformation, and of the others by status.
    owed : tuple of MissingProduct
        Products that a later build must fetch.
    accepted : tuple of MissingProduct
        Absent products that the setting ``accept`` allows.
    atmosphere : dict
        Source of ERA5, and numbers of dates that are present, preliminary and missing.
    optional_variables : tuple of str
        The optional variables that the cube has.
    other_wording : bool
        Whether descriptions in its metadata are worded as another version did.
    bytes : int
        Size on disk; shared files count once.
    parts : dict of str to int
        Size on disk by kind of content.
    overview : dict of str to int
        Shape of the group ``overview``: ``decimation``, ``pairs``, ``rows`` and ``columns``.
    versions : dict of str to str
        Versions of the schema and of the program.
    """

    path: str
    findings: tuple[ValidationFinding, ...]
    frame: str = ""
    generation: int | None = None
    simulated: bool = False
    volcanoes: tuple[str, ...] = ()
    shape: tuple[int, int] = (0, 0)
    bounds: tuple[float, float, float, float] = (0.0, 0.0, 0.0, 0.0)
    pixel_deg: tuple[float, float] = (0.0, 0.0)
    pixel_m: tuple[float, float] = (0.0, 0.0)
    first: str = ""
    last: str = ""
    dates: dict[str, int] = field(default_factory=dict)
    pairs: dict[str, int] = field(default_factory=dict)
    owed: tuple[MissingProduct, ...] = ()
    accepted: tuple[MissingProduct, ...] = ()
    atmosphere: dict[str, Any] = field(default_factory=dict)
    bytes: int = 0
    parts: dict[str, int] = field(default_factory=dict)
    overview: dict[str, int] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
    optional_variables: tuple[str, ...] = ()
    other_wording: bool = False

    def __repr__(self) -> str:
        return (
            f"<CubeSummary {self.frame or self.path}: {self.pairs.get('valid', 0)} interferograms, "
            f"{len(self.findings)} findings>"
        )

    @property
    def bytes_per_pair(self) -> float:
        """Bytes on disk for each stored pair, everything counted."""
        return self.bytes / max(1, self.pairs.get("valid", 0))

    def to_json(self) -> dict[str, Any]:
        """Return the summary as JSON values."""
        products = {name: [item.to_json() for item in getattr(self, name)] for name in ("owed", "accepted")}
        unknown = {name: None for name in ("frame", "first", "last") if not getattr(self, name)}
        return {**asdict(self), **products, **unknown, "bytes_per_pair": round(self.bytes_per_pair)}


def summarize_cube(path: str | Path, accept: AcceptedAbsences | None = None) -> CubeSummary:
    """Summarize a cube from its tables and file sizes; no image is read.

    Parameters
    ----------
    path : str or pathlib.Path
        Path of the cube.
    accept : mapping, optional
        The setting ``accept``.

    Raises
    ------
    HephaestusError
        If there is no cube.
    """
    findings = tuple(check_schema(path))
    store = resolve_published_store(path)
    number = generation_number(store)
    try:
        cube = open_pinned_cube(store, chunks=None)
        tables = {
            name: cube[name].values
            for name in ("valid_date_pair", "annotated", "phase", "pair_status", "era5_expver")
        }
        grid = read_cube_grid(cube)
    except Exception as error:
        if not findings:
            raise
        return CubeSummary(
            str(store),
            (*findings, ValidationFinding("cube", f"no more can be read: {error}")),
            generation=number,
        )
    epochs = np.datetime_as_string(cube["epoch"].values, "D").tolist()
    expver = Counter(tables["era5_expver"].tolist())
    parts = _bytes_by_category(store)
    attributes = cube.attrs
    owed, accepted = _read_missing(store, number, accept or {})
    return CubeSummary(
        path=str(store),
        findings=findings,
        frame=sanitize_text(attributes.get("frame", "")),
        generation=number,
        simulated=bool(attributes.get("simulated", False)),
        volcanoes=_texts(attributes.get("volcanoes")),
        shape=grid.shape,
        bounds=grid.bounds,
        pixel_deg=(grid.dx, grid.dy),
        pixel_m=grid.pixel_size_m(),
        first=epochs[0] if epochs else "",
        last=epochs[-1] if epochs else "",
        dates={name: int(cube.sizes[name]) for name in ("primary_date", "secondary_date", "epoch")},
        pairs=_count_pairs(tables),
        owed=owed,
        accepted=accepted,
        atmosphere={
            "source": sanitize_text(attributes.get("era5_source", "")),
            "final": expver[EXPVER_FINAL],
            "preliminary": expver[EXPVER_PRELIMINARY],
            "unstated": expver[EXPVER_UNSTATED],
            "imported": expver[EXPVER_PUBLISHED],
            "missing": count_dates_without_era5(cube),
        },
        optional_variables=_texts(attributes.get("optional_variables")),
        bytes=sum(parts.values()),
        parts=parts,
        other_wording=not findings and has_other_wording(store),
        overview=_describe_overview(store),
        versions={
            "schema": sanitize_text(attributes.get("schema_version", "")),
            "hephaestus_build": sanitize_text(attributes.get("hephaestus_build_version", "")),
        },
    )


def _texts(value: Any) -> tuple[str, ...]:
    """Return what should be a list of names, each on one line."""
    return tuple(sanitize_text(item, 100) for item in split_texts(value)[:20])


def _count_pairs(tables: dict[str, np.ndarray]) -> dict[str, int]:
    annotated = tables["annotated"]
    meanings = cube_schema().variables["pair_status"].attributes["flag_meanings"].split()
    statuses = Counter(tables["pair_status"].ravel().tolist())
    return {
        "valid": int(tables["valid_date_pair"].sum()),
        "annotated": int(annotated.sum()),
        "with_deformation": int((annotated & (tables["phase"] != "Rest")).sum()),
        **{
            meaning.removesuffix("_upstream"): statuses[code]
            for code, meaning in enumerate(meanings)
            if code > 1
        },
    }


def count_dates_without_era5(cube: xr.Dataset) -> int:
    """Return the number of dates of stored interferograms whose ERA5 is missing; no others need it."""
    stored = cube["valid_date_pair"].values
    days = {
        *cube["primary_date"].values[stored.any(axis=1)].tolist(),
        *cube["secondary_date"].values[stored.any(axis=0)].tolist(),
    }
    versions = zip(cube["epoch"].values.tolist(), cube["era5_expver"].values.tolist(), strict=True)
    return sum(not version and day in days for day, version in versions)


def _read_missing(
    store: Path, number: int | None, accept: AcceptedAbsences
) -> tuple[tuple[MissingProduct, ...], tuple[MissingProduct, ...]]:
    """Return what is owed and what is accepted."""
    try:
        contents: CubeInventory = Generation(number or 0, store).read_inventory()
        return partition_accepted(
            find_missing_products(contents.granules), Frame(contents.attributes["frame"]), accept
        )
    except (HephaestusError, KeyError, TypeError, ValueError):
        return (), ()  # a copy without its provenance; the pairs' statuses still tell


def _describe_overview(store: Path) -> dict[str, int]:
    """Return the shape of the overviews; empty if there are none."""
    metadata = read_store_metadata(store)
    try:
        pairs, rows, columns = metadata.arrays[f"{OVERVIEW}/wrapped_phase"]["shape"]
        decimation = int(metadata.groups[OVERVIEW]["decimation"])
    except (KeyError, TypeError, ValueError):
        return {}
    return {"decimation": decimation, "pairs": pairs, "rows": rows, "columns": columns}


def _bytes_by_category(store: Path) -> dict[str, int]:
    """Return the bytes of a store by what they hold, each file once however many names it has."""
    seen: set[tuple[int, int]] = set()
    sizes: Counter[str] = Counter()
    for path, facts in walk_files(store):
        if (facts.st_dev, facts.st_ino) not in seen:
            seen.add((facts.st_dev, facts.st_ino))
            sizes[_size_category(tuple(path.split("/")))] += facts.st_size
    return dict(sizes.most_common())


def _size_category(parts: tuple[str, ...]) -> str:
    if len(parts) == 1 or not parts[-1].startswith("c."):
        return "records and metadata"
    if parts[0] in cube_schema().groups:
        return "overview" if parts[0] == OVERVIEW else "tables"
    if parts[0] in _SIZE_CATEGORIES:
        return _SIZE_CATEGORIES[parts[0]]
    variable = cube_schema().variables.get(parts[0])
    if variable is not None and variable.optional:
        return "optional variables"
    return "atmosphere" if "_date_" in parts[0] or parts[0].startswith("era5_") else "tables"
