"""What is known of the data set as a whole: contents, splits and their audits, defects of the annotations."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from hephaestus_build.catalog.pair_table_file import SPLIT_PREFIX
from hephaestus_build.catalog.stac_item import OWN_PREFIX
from hephaestus_build.core.plain_text import count_of
from hephaestus_build.dataset.samples import count_classes
from hephaestus_build.dataset.split_leakage import SplitAudit
from hephaestus_build.dataset.splits import PARTS, Split
from hephaestus_build.sources.annotations.record import Defect

_EXAMPLES = 5


@dataclass(frozen=True)
class DefectKind:
    """A kind of defect in the files of the annotations.

    Attributes
    ----------
    kind, action : str
        The kind, and how such a file was treated.
    count : int
        Number of findings.
    files : tuple of str
        Up to five files that have it.
    """

    kind: str
    action: str
    count: int
    files: tuple[str, ...]


@dataclass(frozen=True)
class CatalogedSplit:
    """A split, how much of it is in the catalogue, and its audit.

    Attributes
    ----------
    name, version, sha256, rule, promises
        See :class:`hephaestus_build.dataset.splits.Split`.
    counts : dict
        Positive and negative samples by part, of the whole split.
    here : dict of str to int
        Samples of each part whose pair is in the catalogue.
    audit : dict
        The audit as JSON values (:class:`hephaestus_build.dataset.split_leakage.SplitAudit`).
    """

    name: str
    version: int
    sha256: str
    rule: str
    promises: tuple[str, ...]
    counts: Mapping[str, Mapping[str, int]]
    here: Mapping[str, int]
    audit: Mapping[str, Any]

    @property
    def findings(self) -> tuple[str, ...]:
        """The leaks that the audit found, in words, and the promises that are broken or unchecked."""
        found = [_describe_leak(leak) for leak in self.audit["leaks"]]
        broken = [name for name, kept in self.audit["promises"].items() if not kept]
        found += [f"BROKEN PROMISE: {name}" for name in broken]
        found += [f"not checked: {name}" for name in self.audit["unchecked"]]
        for weight in self.audit["weights"]:
            if weight["dominant"]:
                found.append(
                    f"over a quarter of {weight['part']}'s positives: {', '.join(weight['dominant'])}"
                )
        return tuple(found)


@dataclass(frozen=True)
class DatasetFindings:
    """Everything that the catalogue says of the data set as a whole.

    Attributes
    ----------
    simulated : bool
        Whether the data is simulated.
    cubes, pairs, annotated, usable, deforming, size : int
        Numbers of cubes and pairs, and bytes.
    first, last : str
        First and last acquisition, ISO 8601; empty without pairs.
    updated : str
        When the newest of the cubes was published, ISO 8601.
    bounds : tuple of float
        West, south, east and north of all cubes; around the Earth if one is across 180 degrees.
    resolution : tuple of float
        Smallest and largest size of a pixel, m.
    baselines : tuple of int
        Shortest and longest span of a pair, days.
    regions : dict of str to tuple of int
        Pairs and deforming pairs by region, in descending order of the latter.
    masks : dict of str to int
        Masks by how their position is known: seen, assumed, uncertain.
    mask_error_rows : float
        Rows that an assumed mask may be off at most.
    defects : tuple of DefectKind
        Defects of the annotations, the most frequent first.
    annotations : int
        Annotations that were looked at for defects; 0 if there are none here.
    annotations_sha256 : str
        SHA-256 of their archive.
    splits : tuple of CatalogedSplit
        The splits that were written.
    """

    simulated: bool
    cubes: int
    pairs: int
    annotated: int
    usable: int
    deforming: int
    size: int
    first: str
    last: str
    updated: str
    bounds: tuple[float, float, float, float]
    resolution: tuple[float, float]
    baselines: tuple[int, int]
    regions: Mapping[str, tuple[int, int]]
    masks: Mapping[str, int]
    mask_error_rows: float
    defects: tuple[DefectKind, ...] = ()
    annotations: int = 0
    annotations_sha256: str = ""
    splits: tuple[CatalogedSplit, ...] = ()

    @property
    def mask_error_m(self) -> float:
        """The same in metres, at the largest pixel size."""
        return self.mask_error_rows * self.resolution[1]


def summarize_catalog(
    items: Sequence[Mapping[str, Any]],
    table: pa.Table,
    splits: Iterable[tuple[Split, Mapping[str, Any]]] = (),
    defects: Iterable[Defect] = (),
    annotations: tuple[int, str] = (0, ""),
) -> DatasetFindings:
    """Return the findings on a catalogue.

    Parameters
    ----------
    items : sequence of dict
        The Items of its cubes, at least one.
    table : pyarrow.Table
        The rows of its pairs.
    splits : iterable of tuple
        The splits, each with its audit as JSON values.
    defects : iterable of Defect
        Defects of the annotations.
    annotations : tuple of int and str
        Number of annotations, and the SHA-256 of their archive.
    """
    properties = [item["properties"] for item in items]
    own = {
        name: sum(about[f"{OWN_PREFIX}{name}"] for about in properties)
        for name in ("pairs", "annotated", "usable", "deforming")
    }
    pixels = [about["gsd"] for about in properties]
    days = [about[name] for about in properties for name in ("start_datetime", "end_datetime")]
    spans = pc.min_max(table["insar:temporal_baseline"]).as_py() if len(table) else {"min": 0, "max": 0}
    positions = Counter(name for name in table["mask_position"].to_pylist() if name)
    errors = pc.max(table["mask_error_rows"]).as_py()
    return DatasetFindings(
        simulated=any(about[f"{OWN_PREFIX}simulated"] for about in properties),
        cubes=len(items),
        **own,
        size=sum(item["assets"]["cube"]["file:size"] for item in items),
        first=min(days)[:10],
        last=max(days)[:10],
        updated=max(about["updated"] for about in properties),
        bounds=_bounds_of([item["bbox"] for item in items]),
        resolution=(min(pixels), max(pixels)),
        baselines=(int(spans["min"]), int(spans["max"])),
        regions=_count_by_region(table),
        masks={name: positions[name] for name in ("seen", "assumed", "uncertain")},
        mask_error_rows=errors or 0.0,
        defects=summarize_defects(defects),
        annotations=annotations[0],
        annotations_sha256=annotations[1],
        splits=tuple(_cataloged_split(split, audit, table) for split, audit in splits),
    )


def summarize_defects(defects: Iterable[Defect]) -> tuple[DefectKind, ...]:
    """Return the kinds of defects, the most frequent first."""
    groups: dict[tuple[str, str], list[Defect]] = defaultdict(list)
    for defect in defects:
        groups[defect.kind or defect.what, defect.action].append(defect)
    found = [
        DefectKind(kind, action, len(items), tuple(sorted({item.file for item in items})[:_EXAMPLES]))
        for (kind, action), items in groups.items()
    ]
    return tuple(sorted(found, key=lambda item: (-item.count, item.kind, item.action)))


def condense_audit(audit: SplitAudit) -> dict[str, Any]:
    """Return what the catalogue says of an audit, as JSON values."""
    whole = audit.to_json()
    kept = {name: whole[name] for name in ("promises", "unchecked", "passed", "leaks")}
    weights = [{"part": item["part"], "dominant": list(item["dominant"])} for item in whole["weights"]]
    return {**kept, "weights": weights}


def _bounds_of(boxes: Sequence[Sequence[float]]) -> tuple[float, float, float, float]:
    wests, souths, easts, norths = zip(*boxes, strict=True)
    if any(west > east for west, east in zip(wests, easts, strict=True)):
        return -180.0, min(souths), 180.0, max(norths)
    return min(wests), min(souths), max(easts), max(norths)


def _count_by_region(table: pa.Table) -> dict[str, tuple[int, int]]:
    deforming = table["deformation"].to_pylist()
    pairs: Counter[str] = Counter()
    positives: Counter[str] = Counter()
    for region, moves in zip(table["region"].to_pylist(), deforming, strict=True):
        pairs[region] += 1
        positives[region] += bool(moves)
    return {
        name: (pairs[name], positives[name])
        for name in sorted(pairs, key=lambda name: (-positives[name], -pairs[name], name))
    }


def _cataloged_split(split: Split, audit: Mapping[str, Any], table: pa.Table) -> CatalogedSplit:
    here = Counter(table[f"{SPLIT_PREFIX}{split.name}"].to_pylist())
    return CatalogedSplit(
        split.name,
        split.version,
        split.sha256,
        split.rule,
        split.promises,
        {part: count_classes(split.parts[part]) for part in PARTS},
        {part: here[part] for part in PARTS},
        audit,
    )


def _describe_leak(leak: Mapping[str, Any]) -> str:
    where = " and ".join(leak["parts"])
    if leak["kind"] == "boundaries":
        what = f"{count_of(leak['shared'], 'pair')} of {where} beyond its window"
    elif leak["kind"] == "places":
        what = (
            f"{count_of(leak['shared'], 'sample')} of {leak['parts'][1]} with a place of {leak['parts'][0]}"
        )
    else:
        what = f"{count_of(leak['shared'], leak['kind'].removesuffix('s'))} in both {where}"
    return f"{what} ({count_of(leak['samples'], 'sample')}, {leak['positives']} positive)"
