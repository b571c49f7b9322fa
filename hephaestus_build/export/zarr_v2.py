"""Export of a cube as Zarr format 2, for readers without format 3.

Each image is one chunk, and so one file. Every position of phase, coherence and masks has a chunk (see
:mod:`~hephaestus_build.export.zarr_v2_metadata`); chunks without data are hard links to one small file.
"""

from __future__ import annotations

import shutil
import stat
import uuid
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import zarr

from hephaestus_build.core.atomic_io import (
    link_or_copy,
    translate_os_errors,
    write_atomic,
)
from hephaestus_build.core.concurrency import map_bounded
from hephaestus_build.core.errors import UsageError
from hephaestus_build.core.filesystem.zarr_folder import ZarrFolder
from hephaestus_build.core.parsing import parse_json
from hephaestus_build.core.plain_files import (
    UnsafePathError,
    check_no_links,
    describe_file_type,
    read_plain_file,
    walk_files,
)
from hephaestus_build.core.progress import NullListener, ProgressListener
from hephaestus_build.cube.geozarr import drop_geozarr
from hephaestus_build.cube.pair_tables import empty_table
from hephaestus_build.cube.reading.store_metadata import MAX_METADATA_BYTES, read_store_metadata
from hephaestus_build.cube.schema import GRID_MAPPING, Coordinate, Variable, cube_schema
from hephaestus_build.export.export_lock import check_export_target, exclusive_lock, remove_unfinished_files
from hephaestus_build.export.selection import DimensionIndex, ExportSelection
from hephaestus_build.export.zarr_v2_metadata import (
    ZarrV2ArraySpec,
    image_array_spec,
    table_array_spec,
    to_stored_values,
)

#: Common file systems allow 65,000 hard links to a file.
_MAX_HARD_LINKS = 30_000


def export_zarr_v2(
    source: ExportSelection,
    folder: Path,
    *,
    force: bool = False,
    threads: int = 2,
    listener: ProgressListener | None = None,
) -> Path:
    """Write ``<folder>/<frame>.zarr`` in Zarr format 2; an interrupted export continues.

    Parameters
    ----------
    source : ExportSelection
        What to export.
    folder : pathlib.Path
        Destination; created if needed.
    force : bool
        Whether to replace an earlier export.
    threads : int
        Number of images processed at once; memory grows with it, not with the number of pairs.
    listener : ProgressListener, optional
        Receives progress.

    Returns
    -------
    pathlib.Path
        Path of the finished store.

    Raises
    ------
    UsageError
        If there is another file or export and `force` is false.
    HephaestusError
        If another export is writing there, or the disk fails.
    """
    target = folder / f"{source.frame}.zarr"
    draft = folder / f".{target.name}.partial"
    check_export_target(source.store, target)
    with (
        translate_os_errors(f"{source.frame}: exporting to {target}", setting="--out"),
        exclusive_lock(target),
    ):
        stamp = _make_stamp(source)
        if target.exists():
            made_from = _read_stamp(target)
            if made_from == stamp and not force:
                return target
            if made_from.get("frame") != source.frame:
                raise UsageError(
                    f"{target} is no export of this frame and is never replaced; move it away or choose "
                    "another --out"
                )
            if not force:
                raise UsageError(
                    f"{target} exists and is not this cube as it is now; add --force to replace it"
                )
        check_no_links(folder, draft.name)
        _check_draft(draft)
        if (found := _read_stamp(draft)) != stamp:
            if draft.exists() and not (found or _has_just_begun(draft)):
                raise UsageError(f"{draft} is no unfinished export of this program; move it away")
            shutil.rmtree(draft, ignore_errors=True)
        _ZarrV2Writer(source, draft, stamp).write(threads, listener or NullListener())
        _replace_target(draft, target)
    return target


def _make_stamp(source: ExportSelection) -> dict[str, Any]:
    """Return what identifies an export: frame, content, pairs and variables."""
    return {
        "frame": source.frame,
        "cube_blake3": source.content_hash,
        "pairs": [pair.name for pair in source.pair_positions] if source.pairs is not None else "all",
        "variables": [variable.name for variable in source.variables],
    }


def _read_stamp(store: Path) -> dict[str, Any]:
    """Return what identifies an export, finished or not; empty if the folder is none."""
    try:
        attributes = parse_json(read_plain_file(store, ".zattrs", MAX_METADATA_BYTES))
    except (OSError, ValueError):
        return {}
    stamp = attributes.get("exported_from") if isinstance(attributes, dict) else None
    return stamp if isinstance(stamp, dict) else {}


def _has_just_begun(draft: Path) -> bool:
    """Return whether a draft holds nothing beyond its group's own files, one of which has the stamp."""
    return all(path.name.startswith((".zgroup", ".zattrs")) for path in draft.iterdir())


def _check_draft(draft: Path) -> None:
    """Refuse an unfinished export that contains links or devices, which would be written through."""
    for name, facts in walk_files(draft) if draft.is_dir() else ():
        if not stat.S_ISREG(facts.st_mode):
            raise UnsafePathError(
                f"it is {describe_file_type(facts.st_mode)}, not a plain file", draft / name
            )


def _replace_target(draft: Path, target: Path) -> None:
    old = target.with_name(f".{target.name}.{uuid.uuid4().hex[:12]}")
    if target.exists():
        target.rename(old)
    draft.rename(target)
    shutil.rmtree(old, ignore_errors=True)


class _ZarrV2Writer:
    """Writer of the arrays of a cube into a folder."""

    def __init__(self, source: ExportSelection, store: Path, stamp: dict[str, Any]) -> None:
        self.source, self.store, self.stamp = source, store, stamp
        self.metadata = read_store_metadata(source.store)
        # old positions on the date axes, in the order of the new ones
        self.kept_positions = self._select_positions()
        self.sizes = {**{str(dim): size for dim, size in source.cube.sizes.items()}}
        self.sizes |= {dim: len(positions) for dim, positions in self.kept_positions.items()}

    def _select_positions(self) -> dict[str, list[int]]:
        """Return which positions of each date axis are exported: those of the wanted pairs."""
        cube = self.source.cube
        places = set(self.source.pair_positions.values())
        if self.source.pairs is None:  # also masks of pairs that are gone upstream
            places |= {(int(first), int(second)) for first, second in np.argwhere(cube["annotated"].values)}
        kept = {
            name: sorted({place[axis] for place in places}, key=cube[name].values.__getitem__)
            for axis, name in enumerate(("primary_date", "secondary_date"))
        }
        days = np.union1d(*(cube[name].values[positions] for name, positions in kept.items()))
        return {**kept, "epoch": np.flatnonzero(np.isin(cube["epoch"].values, days)).tolist()}

    def write(self, threads: int, listener: ProgressListener) -> None:
        """Write every array, then the metadata of the group."""
        remove_unfinished_files(self.store)
        group = zarr.open_group(ZarrFolder(self.store), mode="a", zarr_format=2)
        group.attrs.put({**drop_geozarr(self.metadata.attributes), "exported_from": self.stamp})
        images = [variable for variable in self.source.variables if variable.layout != "table"]
        layouts = {variable.name: image_array_spec(variable, self.sizes) for variable in images}
        stored = [(variable, old, new) for variable in images for old, new in self._iter_stored(variable)]
        stage = f"{self.source.frame} to Zarr v2"
        listener.stage(stage, len(stored))

        def write_image(item: tuple[Variable, DimensionIndex, DimensionIndex]) -> None:
            variable, old, new = item
            path = self._chunk_path(variable.name, new)
            if not path.exists():
                values = self.source.read_image(variable, old)
                write_atomic(path, layouts[variable.name].encode_chunk(values))

        for _ in map_bounded(write_image, stored, threads):
            listener.advance(stage)
        for variable in images:
            if layouts[variable.name].fill is None:
                self._fill_missing_chunks(variable, layouts[variable.name])
            self._create_array(variable.name, layouts[variable.name])
        self._write_tables()
        zarr.consolidate_metadata(ZarrFolder(self.store), zarr_format=2)

    def _iter_stored(self, variable: Variable) -> Iterator[tuple[DimensionIndex, DimensionIndex]]:
        """Yield the old and the new position of every selected image that is stored."""
        axes = [self.kept_positions[dim] for dim in variable.dims[:-2]]
        # everything stored, including masks of pairs that are gone upstream; or the selected pairs only
        some = variable.layout == "pair" and self.source.pairs is not None
        wanted = set(self.source.pair_positions.values())
        for new in product(*(range(len(axis)) for axis in axes)):
            old = tuple(axis[index] for axis, index in zip(axes, new, strict=True))
            if not (some and old not in wanted) and self.source.is_stored(variable, old):
                yield old, new

    def _chunk_path(self, name: str, place: DimensionIndex) -> Path:
        return self.store / name / ".".join(map(str, (*place, 0, 0)))

    def _fill_missing_chunks(self, variable: Variable, layout: ZarrV2ArraySpec) -> None:
        """Write the chunks of positions without data: hard links to one file, or to one of a few."""
        origin: Path | None = None
        places = product(*(range(self.sizes[dim]) for dim in variable.dims[:-2]))
        for count, place in enumerate(places):
            path = self._chunk_path(variable.name, place)
            if path.exists():
                continue
            if origin is None or count % _MAX_HARD_LINKS == 0:
                write_atomic(path, layout.encode_empty_chunk())
                origin = path
            else:
                link_or_copy(origin, path)

    def _write_tables(self) -> None:
        schema = cube_schema()
        dims = {dim for variable in self.source.variables for dim in variable.dims}
        items: list[Variable | Coordinate] = [
            coordinate for coordinate in schema.coordinates.values() if coordinate.name in dims
        ]
        items += [variable for variable in self.source.variables if variable.layout == "table"]
        for item in items:
            values = to_stored_values(item, self._table(item))
            self._create_array(item.name, table_array_spec(item, values.shape))[...] = values
        self._create_array(GRID_MAPPING, ZarrV2ArraySpec((), (), (), np.dtype("<i8"), None))[...] = 0

    def _table(self, item: Variable | Coordinate) -> np.ndarray:
        """Return a table on the new axes, empty for pairs that are not selected."""
        cube = self.source.cube[item.name]
        values = cube.isel(
            {dim: self.kept_positions[dim] for dim in item.dims if dim in self.kept_positions}
        ).values
        if self.source.pairs is None or item.dims != ("primary_date", "secondary_date"):
            return values
        assert isinstance(item, Variable)
        wanted = set(self.source.pair_positions.values())
        table = empty_table(item, values.shape)
        for new in np.ndindex(values.shape):
            old = tuple(self.kept_positions[dim][index] for dim, index in zip(item.dims, new, strict=True))
            if old in wanted:
                table[new] = values[new]
        return table

    def _create_array(self, name: str, layout: ZarrV2ArraySpec) -> zarr.Array[Any]:
        # GeoZarr's conventions are those of format 3
        described = drop_geozarr(self.metadata.arrays[name].get("attributes", {}))
        return layout.create(self.store, name, described)
