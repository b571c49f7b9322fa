"""A cube as Zarr format 2, for readers that do not know format 3.

Images stay whole: one chunk, and so one file, for each pair and variable, as the cube has one shard. Every
place of phase, coherence and masks has its chunk (:mod:`~hephaestus_build.export.zarr_v2_metadata` says
why); those without data are names of one and the same small file.
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

from hephaestus_build.core.atomic_io import digest, explained, link_or_copy, write_atomic, write_json
from hephaestus_build.core.concurrency import side_by_side
from hephaestus_build.core.errors import UsageError
from hephaestus_build.core.parsing import parse_json
from hephaestus_build.core.plain_files import (
    NotPlainError,
    check_no_links,
    is_plain,
    kind_of,
    read_plain,
    walk,
)
from hephaestus_build.core.progress import Listener, Silent
from hephaestus_build.cube.georeference import GRID_MAPPING
from hephaestus_build.cube.pair_tables import empty_table
from hephaestus_build.cube.reading.store_metadata import METADATA_BYTES, read_metadata
from hephaestus_build.cube.schema import Coordinate, Variable, cube_schema
from hephaestus_build.cube.storage.generations import MANIFEST, RECORD_BYTES
from hephaestus_build.export.export_lock import alone, check_target, sweep
from hephaestus_build.export.selection import Place, Source
from hephaestus_build.export.zarr_v2_metadata import Layout, image_layout, stored_values, table_layout

#: A file may have 65,000 names on common file systems.
_NAMES = 30_000
_STAMP = "export.json"


def export_zarr2(
    source: Source, folder: Path, *, force: bool = False, threads: int = 2, listener: Listener | None = None
) -> Path:
    """Write ``<folder>/<frame>.zarr`` in Zarr format 2; an interrupted export goes on where it stopped.

    Parameters
    ----------
    source : Source
        What to export.
    folder : pathlib.Path
        Made if need be.
    force : bool
        Whether to replace what stands there already.
    threads : int
        Images worked on at once; memory grows with it, not with the number of pairs.
    listener : Listener, optional
        Who wants to know how far it is.

    Returns
    -------
    pathlib.Path
        The store, whole.

    Raises
    ------
    UsageError
        If something else stands there and `force` is false.
    HephaestusError
        If another export is writing there, or nothing can be written.
    """
    target = folder / f"{source.frame}.zarr"
    draft = folder / f".{target.name}.partial"
    check_target(source.store, target)
    with explained(f"{source.frame}: exporting to {target}"), alone(target):
        stamp = _stamp(source)
        if target.exists():
            made_from = _read(target, ".zattrs").get("exported_from")
            if made_from == stamp and not force:
                return target
            if not isinstance(made_from, dict) or made_from.get("frame") != source.frame:
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
        if (found := _read(draft, _STAMP)) != stamp:
            if draft.exists() and not (found or not any(draft.iterdir())):
                raise UsageError(f"{draft} is no unfinished export of this program; move it away")
            shutil.rmtree(draft, ignore_errors=True)
            write_json(draft / _STAMP, stamp)
        _Writer(source, draft, stamp).write(threads, listener or Silent())
        _replace(draft, target)
    return target


def _stamp(source: Source) -> dict[str, Any]:
    """Return what tells one export from another."""
    manifest = MANIFEST if is_plain(source.store, MANIFEST) else "zarr.json"
    return {
        "frame": source.frame,
        "cube_blake3": digest(read_plain(source.store, manifest, RECORD_BYTES)),
        "pairs": [pair.name for pair in source.places] if source.pairs is not None else "all",
        "variables": [variable.name for variable in source.variables],
    }


def _read(folder: Path, name: str) -> dict[str, Any]:
    """Return what a small JSON file of an export says; nothing where there is none."""
    try:
        value = parse_json(read_plain(folder, name, METADATA_BYTES))
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}


def _check_draft(draft: Path) -> None:
    """Refuse an unfinished export in which something is a link or no file: it would be written through."""
    for name, facts in walk(draft) if draft.is_dir() else ():
        if not stat.S_ISREG(facts.st_mode):
            raise NotPlainError(f"it is {kind_of(facts.st_mode)}, not a plain file", draft / name)


def _replace(draft: Path, target: Path) -> None:
    (draft / _STAMP).unlink()
    old = target.with_name(f".{target.name}.{uuid.uuid4().hex[:12]}")
    if target.exists():
        target.rename(old)
    draft.rename(target)
    shutil.rmtree(old, ignore_errors=True)


class _Writer:
    """Fills a folder with the arrays of a cube."""

    def __init__(self, source: Source, store: Path, stamp: dict[str, Any]) -> None:
        self.source, self.store, self.stamp = source, store, stamp
        self.metadata = read_metadata(source.store)
        # old positions on the date axes, in the order of the new ones
        self.kept = self._kept()
        self.sizes = {**{str(dim): size for dim, size in source.cube.sizes.items()}}
        self.sizes |= {dim: len(positions) for dim, positions in self.kept.items()}
        self.documents: dict[str, Any] = {}

    def _kept(self) -> dict[str, list[int]]:
        """Return which positions of each date axis are exported: all, or those of the wanted pairs."""
        cube = self.source.cube
        if self.source.pairs is None:
            axes = ("primary_date", "secondary_date", "epoch")
            return {name: list(range(cube.sizes[name])) for name in axes}
        kept = {
            name: sorted({place[axis] for place in self.source.places.values()})
            for axis, name in enumerate(("primary_date", "secondary_date"))
        }
        days = np.union1d(*(cube[name].values[positions] for name, positions in kept.items()))
        return {**kept, "epoch": np.flatnonzero(np.isin(cube["epoch"].values, days)).tolist()}

    def write(self, threads: int, listener: Listener) -> None:
        """Write every array, then what describes them."""
        sweep(self.store)
        images = [variable for variable in self.source.variables if variable.layout != "table"]
        layouts = {variable.name: image_layout(variable, self.sizes) for variable in images}
        stored = [(variable, old, new) for variable in images for old, new in self._stored(variable)]
        stage = f"{self.source.frame} to Zarr v2"
        listener.stage(stage, len(stored))

        def write_image(item: tuple[Variable, Place, Place]) -> None:
            variable, old, new = item
            path = self._chunk(variable.name, new, 2)
            if not path.exists():
                values = self.source.image(variable, old)
                write_atomic(path, layouts[variable.name].encode(values))

        for _ in side_by_side(write_image, stored, threads):
            listener.advance(stage)
        for variable in images:
            if layouts[variable.name].fill is None:
                self._fill_places(variable, layouts[variable.name])
            self._describe(variable.name, layouts[variable.name])
        self._write_tables()
        self._write_group()

    def _stored(self, variable: Variable) -> Iterator[tuple[Place, Place]]:
        """Yield the old and the new place of every stored image that is wanted."""
        axes = [self.kept[dim] for dim in variable.dims[:-2]]
        # all that is stored, also masks of a pair that upstream has lost; or the wanted pairs alone
        some = variable.layout == "pair" and self.source.pairs is not None
        wanted = set(self.source.places.values())
        for new in product(*(range(len(axis)) for axis in axes)):
            old = tuple(axis[index] for axis, index in zip(axes, new, strict=True))
            if not (some and old not in wanted) and self.source.stored(variable, old):
                yield old, new

    def _chunk(self, name: str, place: Place, planes: int) -> Path:
        return self.store / name / ".".join(map(str, (*place, *[0] * planes)))

    def _fill_places(self, variable: Variable, layout: Layout) -> None:
        """Give every place without data its chunk: names of one file, or of one in many thousands."""
        origin: Path | None = None
        places = product(*(range(self.sizes[dim]) for dim in variable.dims[:-2]))
        for count, place in enumerate(places):
            path = self._chunk(variable.name, place, 2)
            if path.exists():
                continue
            if origin is None or count % _NAMES == 0:
                write_atomic(path, layout.empty())
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
            values = stored_values(item, self._table(item))
            layout = table_layout(item, values.shape)
            write_atomic(self._chunk(item.name, (), values.ndim), layout.encode(values))
            self._describe(item.name, layout)
        layout = Layout((), (), (), np.dtype("<i8"), None)
        write_atomic(self.store / GRID_MAPPING / "0", layout.encode(np.zeros(())))
        self._describe(GRID_MAPPING, layout)

    def _table(self, item: Variable | Coordinate) -> np.ndarray:
        """Return a table on the new axes, empty at the pairs that are not wanted."""
        cube = self.source.cube[item.name]
        values = cube.isel({dim: self.kept[dim] for dim in item.dims if dim in self.kept}).values
        if self.source.pairs is None or item.dims != ("primary_date", "secondary_date"):
            return values
        assert isinstance(item, Variable)
        wanted = set(self.source.places.values())
        table = empty_table(item, values.shape)
        for new in np.ndindex(values.shape):
            old = tuple(self.kept[dim][index] for dim, index in zip(item.dims, new, strict=True))
            if old in wanted:
                table[new] = values[new]
        return table

    def _describe(self, name: str, layout: Layout) -> None:
        attributes = self.metadata.arrays[name].get("attributes", {})
        for document, content in layout.documents(attributes).items():
            write_json(self.store / name / document, content)
            self.documents[f"{name}/{document}"] = content

    def _write_group(self) -> None:
        group = {
            ".zgroup": {"zarr_format": 2},
            ".zattrs": {**self.metadata.attributes, "exported_from": self.stamp},
        }
        for name, content in group.items():
            write_json(self.store / name, content)
        metadata = dict(sorted({**group, **self.documents}.items()))
        write_json(self.store / ".zmetadata", {"zarr_consolidated_format": 1, "metadata": metadata})
