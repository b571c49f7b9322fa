"""Selection of pairs and variables of a cube for an export, read image by image."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import date
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from hephaestus_build.core.atomic_io import hash_bytes
from hephaestus_build.core.errors import HephaestusError, UsageError
from hephaestus_build.core.frames import Frame, Pair
from hephaestus_build.core.grid import Grid
from hephaestus_build.core.plain_files import (
    hash_descriptor,
    is_plain_file,
    open_plain_file,
    read_plain_file,
)
from hephaestus_build.core.registry import describe_misnamed
from hephaestus_build.cube.codecs.image_encoder import strip_count
from hephaestus_build.cube.key_spaces import KeySpace
from hephaestus_build.cube.reading.store_metadata import read_store_metadata
from hephaestus_build.cube.reading.verified_objects import (
    ObjectVerifier,
    choose_verification,
    make_object_verifier,
)
from hephaestus_build.cube.schema import Variable, cube_schema, describe_not_built
from hephaestus_build.cube.storage.frame_folder import MANIFEST
from hephaestus_build.cube.storage.manifest import MAX_RECORD_BYTES

if TYPE_CHECKING:  # xarray is slow to import, and what writes the files does without it
    import xarray as xr

#: Positions on the leading dimensions of a variable: both dates of a pair, one date, or none.
DimensionIndex = tuple[int, ...]


@dataclass(frozen=True)
class ExportSelection:
    """Selected pairs and variables of a cube that is pinned to one generation.

    Attributes
    ----------
    store : pathlib.Path
        Store of the generation.
    cube : xarray.Dataset
        The opened cube.
    pairs : tuple of Pair or None
        Selected pairs; None for all.
    variables : tuple of Variable
        Selected variables, in the schema's order.
    key_space : KeySpace
        Key space of the cube's chunks.
    verifier : ObjectVerifier or None
        Compares objects with the manifest, so that no damage is handed over as data; None without one.
    """

    store: Path
    cube: xr.Dataset
    pairs: tuple[Pair, ...] | None
    variables: tuple[Variable, ...]
    key_space: KeySpace
    verifier: ObjectVerifier | None = None

    @property
    def frame(self) -> str:
        """Frame id."""
        return str(self.cube.attrs["frame"])

    @property
    def is_simulated(self) -> bool:
        """Whether the data is simulated."""
        return bool(self.cube.attrs.get("simulated", False))

    @cached_property
    def grid(self) -> Grid:
        """The frame's grid."""
        from hephaestus_build.cube.georeference import read_cube_grid

        return read_cube_grid(self.cube)

    @cached_property
    def pair_positions(self) -> dict[Pair, DimensionIndex]:
        """Positions on the two date axes of the selected pairs that are stored, in order of the pairs."""
        primary, secondary = (
            self.cube[f"{axis}_date"].values.astype("datetime64[D]").tolist()
            for axis in ("primary", "secondary")
        )
        stored: dict[Pair, DimensionIndex] = {
            Pair(primary[first], secondary[second]): (int(first), int(second))
            for first, second in np.argwhere(self.cube["valid_date_pair"].values)
        }
        stored = dict(sorted(stored.items()))
        if self.pairs is None:
            return stored
        for pair in self.pairs:
            if pair not in stored:
                raise UsageError(
                    f"{self.frame}: no interferogram of {pair} is stored; "
                    f"`hephaestus pairs {self.frame}` lists them"
                )
        return {pair: stored[pair] for pair in sorted(set(self.pairs))}

    @cached_property
    def content_hash(self) -> str:
        """BLAKE3 hash of the manifest, which names all content of the cube."""
        name = MANIFEST if is_plain_file(self.store, MANIFEST) else "zarr.json"
        return hash_bytes(read_plain_file(self.store, name, MAX_RECORD_BYTES))

    def is_stored(self, variable: Variable, place: DimensionIndex) -> bool:
        """Return whether any part of an image is stored, as a plain file.

        Raises
        ------
        HephaestusError
            If it was stored, and its files are gone.
        """
        keys = self._chunk_keys(variable, place)
        if any(is_plain_file(self.store, key) for key in keys):
            return True
        if self.verifier is not None and is_plain_file(self.store, "zarr.json"):  # not gone as a whole
            for key in keys:
                self.verifier.verify_absent(key)
        return False

    def hash_image(self, variable: Variable, place: DimensionIndex) -> str:
        """Return the BLAKE3 hashes of an image's strips, with commas; empty where nothing is stored."""
        hashes = []
        for key in self._chunk_keys(variable, place):
            try:
                with open_plain_file(self.store, key) as (descriptor, facts):
                    hashes.append(hash_descriptor(descriptor, facts.size))
            except FileNotFoundError:
                hashes.append("")
        return ",".join(hashes) if any(hashes) else ""

    def _chunk_keys(self, variable: Variable, place: DimensionIndex) -> list[str]:
        """Return the keys of the chunks of an image."""
        strips = strip_count(self.grid.width, variable.strips)
        return [self.key_space.chunk_key(variable.name, place, 2, strip) for strip in range(strips)]

    def read_image(self, variable: Variable, place: DimensionIndex) -> npt.NDArray[Any]:
        """Return one image; filled with the fill value if it is not stored.

        Raises
        ------
        HephaestusError
            If the generation was removed meanwhile, so that a stored image would read as no data.
        """
        return self.read_window(variable, place, slice(None), slice(None))

    def read_window(
        self, variable: Variable, place: DimensionIndex, rows: slice, columns: slice
    ) -> npt.NDArray[Any]:
        """Return a window of one image, as :meth:`read_image` does; `rows` and `columns` lie in the frame."""
        stored = self.is_stored(variable, place)
        chosen = self.cube[variable.name].isel(dict(zip(variable.dims, place, strict=False)))
        values = np.asarray(chosen[rows, columns].values)
        if stored != self.is_stored(variable, place) or not is_plain_file(self.store, "zarr.json"):
            raise HephaestusError(
                f"{self.frame}: the exported generation was removed meanwhile; run the same command again"
            )
        return values


def open_export_selection(
    path: str | Path,
    pairs: Sequence[Pair] | None = None,
    variables: Sequence[str] | None = None,
    *,
    since: date | None = None,
    newest: int | None = None,
    images_only: bool = False,
) -> ExportSelection:
    """Open a cube for export.

    Parameters
    ----------
    path : str or pathlib.Path
        Of the cube.
    pairs : sequence of Pair, optional
        By default all that are stored.
    variables : sequence of str, optional
        Names as in docs/cube.md; by default all.
    since : datetime.date, optional
        Leave out pairs that begin earlier.
    newest : int, optional
        Of what is left, take only this many: those that end last.
    images_only : bool
        Whether `variables` may name images alone, as for GeoTIFF.

    Raises
    ------
    HephaestusError
        If there is no cube.
    UsageError
        If a variable is not in the schema, or a pair not in the cube.
    """
    from hephaestus_build.cube.reading.dataset import open_pinned_cube, resolve_published_store

    schema = cube_schema().variables
    for name in variables or ():
        if name not in schema:
            raise UsageError(describe_misnamed(name, image=images_only))
        if images_only and not schema[name].is_georeferenced:
            raise UsageError(describe_misnamed(name, image=True))
    wanted = tuple(variable for variable in schema.values() if not variables or variable.name in variables)
    verify = choose_verification(resolve_published_store(path))
    cube = open_pinned_cube(path, verify=verify, chunks=None)
    try:
        Frame(str(cube.attrs.get("frame")))  # it becomes a part of paths
    except UsageError as error:
        raise HephaestusError(f"{path}: what frame the cube is of is not said: {error}") from None
    for name in variables or ():
        if schema[name].optional and name not in cube:
            raise UsageError(describe_not_built(str(cube.attrs["frame"]), schema[name]))
    store = Path(cube.encoding["source"])
    source = ExportSelection(
        store,
        cube,
        tuple(pairs) if pairs else None,
        tuple(variable for variable in wanted if variable.name in cube),
        KeySpace.from_metadata(read_store_metadata(store).arrays["insar_difference"]),
        make_object_verifier(store, verify),
    )
    if not source.pair_positions:
        raise HephaestusError(f"{source.frame}: no interferogram is stored, so there is nothing to export")
    if since is None and newest is None:
        return source
    chosen = _latest_pairs(source.pair_positions, since, newest)
    if not chosen:
        raise UsageError(
            f"{source.frame}: no stored interferogram begins on {since} or later; the newest is "
            f"{_latest_pairs(source.pair_positions, None, 1)[0]}"
        )
    return replace(source, pairs=chosen)


def _latest_pairs(pairs: Iterable[Pair], since: date | None, newest: int | None) -> tuple[Pair, ...]:
    """Return the pairs that begin on `since` or later; of these, the `newest` that end last."""
    left = [pair for pair in pairs if since is None or pair.primary >= since]
    left.sort(key=lambda pair: (pair.secondary, pair.primary))
    return tuple(left if newest is None else left[-newest:])
