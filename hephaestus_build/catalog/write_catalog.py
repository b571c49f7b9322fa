"""Writing a catalogue of cubes into a folder."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa

from hephaestus_build.catalog.catalog_folder import CatalogFolder, CatalogWriting
from hephaestus_build.catalog.croissant import make_croissant
from hephaestus_build.catalog.cube_record import CubeRecord
from hephaestus_build.catalog.data_card import render_data_card
from hephaestus_build.catalog.dataset_findings import DatasetFindings, condense_audit, summarize_catalog
from hephaestus_build.catalog.pair_table_file import (
    encode_pair_table,
    join_pair_tables,
    make_pair_table,
    read_pair_table,
    select_frames_of_table,
)
from hephaestus_build.catalog.published_records import find_published, fingerprint_cube, read_cube_record
from hephaestus_build.catalog.stac_collection import make_collection
from hephaestus_build.catalog.stac_item import make_cube_item
from hephaestus_build.core.atomic_io import encode_json, translate_os_errors
from hephaestus_build.core.errors import HephaestusError, wrap_unexpected_errors
from hephaestus_build.core.frames import Frame
from hephaestus_build.core.progress import NullListener, ProgressListener
from hephaestus_build.core.settings import Settings
from hephaestus_build.core.web_address import HttpUrl
from hephaestus_build.cube.discovery import cubes_dir_for
from hephaestus_build.dataset.deformation_events import find_events
from hephaestus_build.dataset.split_leakage import audit_split
from hephaestus_build.dataset.splits import Split, read_split, split_rule
from hephaestus_build.export.export_lock import check_export_target, exclusive_lock
from hephaestus_build.sources.annotations.archive import Annotations, find_annotations

_PAIRS = "pairs.parquet"


@dataclass(frozen=True)
class CatalogResult:
    """What was cataloged.

    Attributes
    ----------
    folder : pathlib.Path
        The folder.
    findings : DatasetFindings
        What is known of the data set.
    writing : CatalogWriting
        What became of the files.
    remade : tuple of str
        Frames whose Item and rows were made again.
    failed : dict of str to str
        Why the records of a cube could not be read, by frame. Its entry of before stays, if there is one.
    """

    folder: Path
    findings: DatasetFindings
    writing: CatalogWriting
    remade: tuple[str, ...]
    failed: Mapping[str, str]


class _Places:
    """Addresses of cubes: relative to the catalogue, or absolute."""

    def __init__(self, folder: Path, settings: Settings, base: HttpUrl | None) -> None:
        self._folder, self._settings, self._base = folder.resolve(), settings, base

    def cube(self, frame: Frame | str, place: str = "") -> str:
        """Return the address of a cube, relative to the folder `place` of the catalogue."""
        name = f"{frame}.zarr"
        if self._base is not None:
            return str(self._base.child(name))
        cubes = cubes_dir_for(self._settings, frame) if isinstance(frame, Frame) else self._settings.cubes_dir
        return Path(os.path.relpath(cubes.resolve() / name, self._folder / place)).as_posix()


def write_catalog(
    frames: Sequence[Frame],
    settings: Settings,
    folder: Path,
    *,
    base: HttpUrl | None = None,
    listener: ProgressListener | None = None,
) -> CatalogResult:
    """Write the catalogue of the published cubes of frames: STAC, table of pairs, Croissant, data card.

    Only what has changed is made and written again.

    Parameters
    ----------
    frames : sequence of Frame
        The frames, at least one; all real or all simulated.
    settings : Settings
        Folders of the cubes, splits and annotations.
    folder : pathlib.Path
        Where to write; made if need be.
    base : HttpUrl, optional
        Address of the folder of the cubes. By default links to cubes are relative paths.
    listener : ProgressListener, optional
        Is told of the progress.

    Raises
    ------
    HephaestusError
        If no cube can be read, or the folder cannot be written.
    UsageError
        If the folder holds something else.
    """
    home = settings.for_frame(frames[0])
    check_export_target(cubes_dir_for(home, frames[0]) / f"{frames[0]}.zarr", folder)
    with translate_os_errors(f"the catalogue in {folder}", setting="--out"), exclusive_lock(folder):
        target = CatalogFolder(folder, simulated=home.is_simulated)
        places = _Places(folder, home, base)
        rows = _read_rows(target)
        known = {} if rows is None else target.state.cubes
        found = _read_cubes(frames, home, target, known, places, listener or NullListener())
        if not found.items:
            raise HephaestusError("; ".join(found.failed.values()))
        annotations, splits = _read_annotations(home), _read_splits(home)
        tables = [] if rows is None else [select_frames_of_table(rows, found.kept)]
        hrefs = {
            record.frame.id: (places.cube(record.frame), item_path(record.frame.id)) for record in found.new
        }
        table = join_pair_tables([*tables, make_pair_table(found.new, hrefs)], splits)
        audits = _audit(splits, annotations, target.state.audits, simulated=home.is_simulated)
        findings = summarize_catalog(
            [msgspec.json.decode(content) for content in found.items.values()],
            table,
            [(split, audits[_audit_key(split, annotations)]) for split in splits],
            [] if annotations is None else annotations.defects,
            (0, "") if annotations is None else (len(annotations), annotations.sha256),
        )
        files = compose_catalog(found.items, table, findings, f"{places.cube('*')}/**")
        writing = target.write(files, found.fingerprints, audits)
    return CatalogResult(
        folder, findings, writing, tuple(record.frame.id for record in found.new), found.failed
    )


def item_path(frame: str) -> str:
    """Return the path of a frame's Item in the catalogue."""
    return f"items/{frame}.json"


def compose_catalog(
    items: Mapping[str, bytes], table: pa.Table, findings: DatasetFindings, cubes: str
) -> dict[str, bytes]:
    """Return all files of a catalogue by path.

    Parameters
    ----------
    items : dict of str to bytes
        The Item of each cube by frame.
    table : pyarrow.Table
        The rows of all pairs.
    findings : DatasetFindings
        What is known of the data set.
    cubes : str
        Pattern of the files of the cubes: their addresses, or relative paths.
    """
    frames = sorted(items)
    documents = [msgspec.json.decode(items[frame]) for frame in frames]
    files = {_PAIRS: encode_pair_table(table)}
    about = {_PAIRS: _hash_and_size(files[_PAIRS])}
    files["croissant.json"] = encode_catalog_document(
        make_croissant(findings, about, table.column_names, cubes)
    )
    files["README.md"] = render_data_card(findings).encode()
    about |= {name: _hash_and_size(content) for name, content in files.items()}
    files["collection.json"] = encode_catalog_document(
        make_collection(documents, list(map(item_path, frames)), findings, about, table.column_names)
    )
    return {**{item_path(frame): items[frame] for frame in frames}, **files}


def encode_catalog_document(value: Mapping[str, Any]) -> bytes:
    """Return a document as JSON that people can read too."""
    return msgspec.json.format(encode_json(value), indent=1) + b"\n"


@dataclass
class _ReadCubes:
    """Items of all cubes by frame, and where each is from."""

    items: dict[str, bytes] = field(default_factory=dict)
    kept: list[str] = field(default_factory=list)  # frames whose Items hold still
    new: list[CubeRecord] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)
    fingerprints: dict[str, str] = field(default_factory=dict)


def _read_cubes(
    frames: Sequence[Frame],
    home: Settings,
    target: CatalogFolder,
    known: Mapping[str, str],
    places: _Places,
    listener: ProgressListener,
) -> _ReadCubes:
    found = _ReadCubes()
    listener.stage("cubes", len(frames))
    for frame in frames:
        before = target.read_own(item_path(frame.id)) if frame.id in known else None
        hrefs = places.cube(frame), places.cube(frame, "items")
        try:
            with wrap_unexpected_errors(frame):
                store, current = find_published(home, frame)
                fingerprint = fingerprint_cube(store, current, *hrefs)
                if before is None or known[frame.id] != fingerprint:
                    record = read_cube_record(home, store, current)
                    found.items[frame.id] = encode_catalog_document(make_cube_item(record, hrefs[1]))
                    found.new.append(record)
        except HephaestusError as error:
            found.failed[frame.id], fingerprint = str(error), ""
        if frame.id not in found.items and before is not None:
            found.items[frame.id] = before
            found.kept.append(frame.id)
        if frame.id in found.items:
            found.fingerprints[frame.id] = fingerprint
        listener.advance("cubes")
    return found


def _read_rows(target: CatalogFolder) -> pa.Table | None:
    """Return the rows that were written before; None without any that can be taken over."""
    content = target.read_own(_PAIRS)
    try:
        return None if content is None else read_pair_table(content)
    except ValueError:
        return None


def _read_splits(home: Settings) -> list[Split]:
    """Return the splits that were written of this kind of cubes."""
    return [read_split(path) for path in sorted((home.data_dir / "splits").glob("*.json"))]


def _read_annotations(home: Settings) -> Annotations | None:
    found = find_annotations(home, offline=True)
    return found if len(found) else None


def _audit_key(split: Split, annotations: Annotations | None) -> str:
    return f"{split.sha256} {annotations.sha256 if annotations else ''}"


def _audit(
    splits: Sequence[Split],
    annotations: Annotations | None,
    before: Mapping[str, dict[str, Any]],
    *,
    simulated: bool,
) -> dict[str, dict[str, Any]]:
    """Return the audit of each split; those that were made of the same before are taken over."""
    found: dict[str, dict[str, Any]] = {}
    # polygons of simulated frames lie on no grid that annotations imply
    seen = None if simulated else annotations
    events = None
    for split in splits:
        key = _audit_key(split, annotations)
        if key not in before:
            if seen is not None and events is None:
                events = find_events(seen)
            found[key] = condense_audit(audit_split(split, events, split_rule(split.name), seen))
        else:
            found[key] = before[key]
    return found


def _hash_and_size(content: bytes) -> tuple[str, int]:
    return hashlib.sha256(content).hexdigest(), len(content)
