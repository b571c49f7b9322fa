"""A cube in the published layout, read product by product, each checked and with a receipt."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from functools import cached_property, partial
from typing import Any

import numpy as np
import numpy.typing as npt
from blake3 import blake3

from hephaestus_build.core.era5_grid import ERA5_VARIABLES, Era5Variable
from hephaestus_build.core.errors import HephaestusError
from hephaestus_build.core.frames import Frame, Pair
from hephaestus_build.core.grid import Grid
from hephaestus_build.core.plain_text import count_of, sanitize_text
from hephaestus_build.core.provenance import PUBLISHED, Outcome, Receipt
from hephaestus_build.cube.georeference import read_cube_grid
from hephaestus_build.cube.reading.readable_cube import AXES, ReadableCube
from hephaestus_build.cube.reading.store_objects import StoreObjects
from hephaestus_build.cube.reading.zarr_v2 import ChunkDigest, StoreV2, open_store_v2
from hephaestus_build.cube.schema import GRID_MAPPING, MASK_VARIABLES, cube_schema
from hephaestus_build.published.value_checks import (
    check_coherence,
    check_field,
    check_heights,
    check_mask,
    check_phase,
)

_PHASE, _COHERENCE, _DEM = "insar_difference", "insar_coherence", "dem"
#: Kinds of dtype in which each image may be stored; the values are checked one by one.
_KINDS = {_PHASE: "f", _COHERENCE: "uif", _DEM: "fi", **dict.fromkeys(MASK_VARIABLES, "uif")}
_ATMOSPHERE = tuple(f"{axis}_{variable.name}" for axis in AXES for variable in ERA5_VARIABLES)
_NEEDED = (_PHASE, _COHERENCE)
#: Names of variables that an error lists.
_LISTED = 12
#: Chunks of an image; more than that takes longer to open than to read.
_MAX_CHUNKS = 4096
#: Corners of two descriptions of one grid differ by no more, pixels.
_GRID_TOLERANCE = 0.01


@dataclass(frozen=True)
class PublishedCube:
    """A published cube of one frame.

    Attributes
    ----------
    frame : Frame
        The frame.
    cube : ReadableCube
        Its images and tables.
    store : StoreV2
        Its objects, which keeps the hashes of what is read.
    grid : Grid
        Its grid.
    label : str
        Name of the folder or the tar file, for records.
    remarks : list of str
        What is unusual about its layout, and yet can be read.
    """

    frame: Frame
    cube: ReadableCube
    store: StoreV2
    grid: Grid
    label: str
    remarks: list[str] = field(default_factory=list)

    @classmethod
    def open(cls, objects: StoreObjects, frame: Frame) -> PublishedCube:
        """Open the cube of `frame`, and check names, dimensions, dtypes and grid; no image is read.

        Raises
        ------
        HephaestusError
            If it is another frame's, or is not laid out like a published cube.
        """
        dataset, store = open_store_v2(objects, keep_digests=True)
        cube = ReadableCube.of_dataset(str(objects.path), dataset)
        found = cls(frame, cube, store, _find_grid(cube), objects.name)
        if cube.frame and cube.frame != frame.id:
            raise found._refusal(f"it says that it is of the frame {cube.frame}")
        faults = list(found._find_layout_faults())
        if cube.swapped:
            faults.append(f"the later date of {min(cube.swapped)} stands on the axis of primary dates")
        if faults:
            raise found._refusal(f"it is not laid out like a published cube: {'; '.join(faults)}")
        if not found.pairs:
            raise found._refusal("its valid_date_pair marks no pair")
        return found

    @property
    def pairs(self) -> Sequence[Pair]:
        """The pairs that it holds, in order of dates."""
        return tuple(self.cube.pairs)

    @cached_property
    def days(self) -> frozenset[date]:
        """The acquisition dates of its pairs."""
        return frozenset(day for pair in self.pairs for day in pair.dates)

    @property
    def attributes(self) -> Mapping[str, Any]:
        """Attributes of its group; nothing in them is trusted."""
        return self.cube.dataset.attrs

    @property
    def is_simulated(self) -> bool:
        """Whether the data is simulated, as its frame's id or its attributes say."""
        return self.frame.is_simulated or self.cube.is_simulated

    @property
    def has_dem(self) -> bool:
        """Whether it has heights."""
        return _DEM in self.cube

    @property
    def has_masks(self) -> bool:
        """Whether it has all three masks."""
        return all(name in self.cube for name in MASK_VARIABLES)

    @property
    def has_atmosphere(self) -> bool:
        """Whether it has all fields of ERA5."""
        return all(name in self.cube for name in _ATMOSPHERE)

    @cached_property
    def annotated(self) -> tuple[Pair, ...]:
        """Its annotated pairs: those of its variable `annotated` where it has one, else all."""
        if "annotated" not in self.cube:
            return tuple(self.pairs)
        table = self.cube.table("annotated")
        return tuple(pair for pair, place in self.cube.pairs.items() if table[place] == 1)

    def phase(self, pair: Pair) -> tuple[Receipt, npt.NDArray[np.float32] | None]:
        """Return the phase of a pair, rad, 0 for no data; None if it is damaged, as the receipt says."""
        return self._pair_image(_PHASE, pair, check_phase)

    def coherence(self, pair: Pair) -> tuple[Receipt, npt.NDArray[np.uint8] | None]:
        """Return the coherence of a pair in bytes; None if it is damaged, as the receipt says."""
        return self._pair_image(_COHERENCE, pair, check_coherence)

    def dem(self) -> tuple[Receipt, npt.NDArray[np.float32] | None]:
        """Return the heights, m, NaN for no data; None if there are none, as the receipt says."""
        if not self.has_dem:
            return Receipt(_DEM, Outcome.ABSENT, detail=f"{self.label} has no heights"), None
        return self._read(_DEM, _DEM, (), lambda: self.cube.frame_image(_DEM), check_heights)

    def masks(self, pair: Pair) -> tuple[tuple[Receipt, ...], dict[str, npt.NDArray[np.uint8]]]:
        """Return the receipts of the masks of a pair, and the masks; none of them if one is damaged."""
        receipts: list[Receipt] = []
        masks: dict[str, npt.NDArray[np.uint8]] = {}
        for name in MASK_VARIABLES:
            receipt, values = self._pair_image(name, pair, partial(check_mask, name))
            receipts.append(receipt)
            if values is not None:
                masks[name] = values
        outlined = {name for name, values in masks.items() if values.any()}
        if len(masks) == len(MASK_VARIABLES) and 0 < len(outlined) < len(masks):
            lacking = ", ".join(name for name in MASK_VARIABLES if name not in outlined)
            what = f"{lacking} has no outline, and the other masks of the pair have one"
            receipts[0] = receipts[0].replace(outcome=Outcome.CORRUPT, detail=what)
        return tuple(receipts), masks if all(receipt.ok for receipt in receipts) else {}

    def atmosphere(self, day: date) -> tuple[tuple[Receipt, ...], dict[str, npt.NDArray[np.float32]]]:
        """Return the receipts and the fields of ERA5 at a date, by name; no field if one is damaged.

        A date that stands on both axes must have the same fields on both, up to the step of their rounding.
        """
        receipts: list[Receipt] = []
        fields: dict[str, npt.NDArray[np.float32]] = {}
        for axis in AXES:
            if (place := self.cube.date_place(axis, day)) is None:
                continue
            for variable in ERA5_VARIABLES:
                name = f"{axis}_{variable.name}"
                receipt, values = self._read(
                    f"{day:%Y%m%d}.{name}",
                    name,
                    (place,),
                    partial(self.cube.date_image, name, axis, day),
                    partial(_check_on_both_axes, variable, fields.get(variable.name)),
                )
                receipts.append(receipt)
                if values is None:
                    return (receipt,), {}
                fields.setdefault(variable.name, values)
        return tuple(receipts), fields

    def _pair_image(
        self, name: str, pair: Pair, check: Callable[[npt.NDArray[Any]], npt.NDArray[Any]]
    ) -> tuple[Receipt, Any]:
        read = partial(self.cube.pair_image, name, pair)
        return self._read(f"{pair.name}.{name}", name, self.cube.pairs[pair], read, check)

    def _read(
        self,
        product: str,
        name: str,
        place: tuple[int, ...],
        read: Callable[[], npt.NDArray[Any]],
        check: Callable[[npt.NDArray[Any]], npt.NDArray[Any]],
    ) -> tuple[Receipt, Any]:
        """Read and check one image; return its receipt, and None in place of a damaged image."""
        outcome, detail, values = Outcome.DOWNLOADED, "", None
        try:
            values = check(read())
        except (ValueError, HephaestusError) as error:
            outcome, detail = Outcome.CORRUPT, str(error)
        except OSError as error:
            outcome, detail = Outcome.UNREACHABLE, f"it cannot be read ({error.strerror or error})"
        except Exception as error:  # codecs raise many types for damaged chunks
            outcome, detail = Outcome.CORRUPT, f"it cannot be decoded ({sanitize_text(error, 100)})"
        digests = self.store.find_digests(name, place)
        if values is not None and not digests and name not in MASK_VARIABLES:
            outcome, detail, values = Outcome.ABSENT, "it has no chunk there", None
        receipt = Receipt(
            product,
            outcome,
            size=sum(digest.size for digest in digests),
            blake3=_joint_digest(digests),
            fetched=datetime.now(UTC).isoformat(timespec="seconds"),
            detail=f"{self.label}: {detail}" if detail else "",
            origin=PUBLISHED,
            file=f"{self.label}/{next(self.store.iter_chunk_keys(name, place))}",
        )
        if len(digests) > 1:
            receipt = receipt.with_notes(f"hash of the hashes of {len(digests)} chunks")
        return receipt, values

    def _refusal(self, why: str) -> HephaestusError:
        return HephaestusError(
            f"{self.frame}: {self.cube.label} cannot be imported: {why}; nothing was imported, "
            f"docs/published.md says what is needed"
        )

    def _find_layout_faults(self) -> Iterator[str]:
        """Yield what is wrong with the names, dimensions and dtypes, and note what is unusual."""
        dataset, chunked = self.cube.dataset, list[str]()
        west, south, east, north = self.grid.bounds
        if not (south >= -90 and north <= 90 and east - west <= 360):
            yield f"its coordinates go from {south:g} to {north:g} N and {west:g} to {east:g} E"
        lacking = [name for name in _NEEDED if name not in dataset]
        if lacking:
            there = sorted(map(str, dataset.data_vars))
            more = f" and {len(there) - _LISTED} more" if len(there) > _LISTED else ""
            yield f"it has no {' and no '.join(lacking)}, only {', '.join(there[:_LISTED])}{more}"
        for name, kinds in {**_KINDS, **dict.fromkeys(_ATMOSPHERE, "f")}.items():
            if name not in dataset:
                continue
            variable, right = dataset[name], cube_schema().variables[name]
            if set(variable.dims) != set(right.dims):
                yield f"{name} has the dimensions {', '.join(map(str, variable.dims))}"
                continue
            stored = np.dtype(variable.encoding.get("dtype", variable.dtype))
            if stored.kind not in kinds or stored.itemsize < (4 if kinds == "f" else 1):
                yield f"{name} is {stored}, not {right.dtype}"
            elif stored.newbyteorder("=") != np.dtype(right.dtype):
                self.remarks.append(f"{name} is {stored}, not {right.dtype}: its values are stored as those")
            if {"scale_factor", "add_offset"} & variable.encoding.keys():
                yield f"{name} is stored as scaled integers"
            chunk, size = self.store.arrays[name]["chunks"], variable.sizes
            per_image = zip(variable.dims[-2:], chunk[-2:], strict=True)
            count = math.prod(-(-size[dim] // step) for dim, step in per_image)
            whole = [size[dim] if dim in ("latitude", "longitude") else 1 for dim in variable.dims]
            shape = " x ".join(map(str, chunk))
            if count > _MAX_CHUNKS:
                yield f"{name} is stored in chunks of {shape}, {count} of them an image"
            elif list(chunk) != whole:
                chunked.append(f"{name} in chunks of {shape}")
        if chunked:
            more = f", and {count_of(len(chunked) - 1, 'other')} likewise" if len(chunked) > 1 else ""
            self.remarks.append(f"it is not stored image by image: {chunked[0]}{more}")
        parts = {"heights": self.has_dem, "masks": self.has_masks, "ERA5": self.has_atmosphere}
        self.remarks.extend(
            f"it lacks {what}, which the next build adds" for what, is_there in parts.items() if not is_there
        )


def _check_on_both_axes(
    variable: Era5Variable, before: npt.NDArray[np.float32] | None, values: npt.NDArray[Any]
) -> npt.NDArray[np.float32]:
    """Return a field of ERA5, which must be the one that the other axis has of the date, if any."""
    checked = check_field(variable, values)
    step = cube_schema().variables[f"{AXES[0]}_{variable.name}"].step or 0.0
    if before is not None and (gap := float(np.abs(checked - before).max())) > step:
        raise ValueError(f"{variable.name} differs by up to {gap:g} {variable.units} between the two axes")
    return checked


def _find_grid(cube: ReadableCube) -> Grid:
    """Return the grid of a cube: as its GeoTransform has it, where it has one, else from the coordinates.

    Raises
    ------
    HephaestusError
        If the two disagree.
    """
    if GRID_MAPPING not in cube.dataset or "GeoTransform" not in cube.dataset[GRID_MAPPING].attrs:
        return cube.grid
    try:
        stated = read_cube_grid(cube.dataset).in_first_turn()
    except ValueError:  # south-up, or no six numbers
        return cube.grid
    if not stated.same_as(cube.grid, _GRID_TOLERANCE):
        east = (stated.west - cube.grid.west) / cube.grid.dx
        south = (cube.grid.north - stated.north) / cube.grid.dy
        raise HephaestusError(
            f"{cube.label} cannot be imported: its GeoTransform and its coordinates are {east:.4g} columns "
            f"and {south:.4g} rows apart, so that its place is not certain; nothing was imported, copy it "
            f"again or mend the one that is wrong"
        )
    return stated


def _joint_digest(digests: Sequence[ChunkDigest]) -> str | None:
    """Return the hash of the chunk that an image was read from, or that of the hashes of several."""
    if len(digests) < 2:
        return digests[0].value if digests else None
    return blake3("".join(digest.value for digest in digests).encode()).hexdigest()
