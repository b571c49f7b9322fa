"""What a cube is made of: units that are built, hashed, kept and linked whole.

A cube is a pure function of its units: the axes, the place of every stored object and the tables of flags
all follow from them. That is why a build can stop and go on anywhere.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import date
from functools import cached_property
from typing import Any, Literal

import msgspec

from hephaestus_build.core.frames import Pair, parse_day
from hephaestus_build.core.provenance import Outcome, Receipt
from hephaestus_build.cube.codecs.shard_encoder import chunk_name
from hephaestus_build.cube.schema import cube_schema

#: pair = phase and coherence of a pair; mask = an annotation and its masks; epoch = ERA5 at a date; dem.
GranuleKind = Literal["pair", "mask", "epoch", "dem"]


class GranuleKey(str):
    """The name of a granule, unique within a cube: ``<kind>/<name>``, as records and JSON have it.

    It is a text, so that thousands of granules are looked up quickly, by key or by what a record says.

    Examples
    --------
    >>> GranuleKey.of_pair(Pair.parse("20200101_20200113"))
    'pair/20200101_20200113'
    """

    __slots__ = ()

    @classmethod
    def of_pair(cls, pair: Pair) -> GranuleKey:
        """Return the key of an interferogram's phase and coherence."""
        return cls(f"pair/{pair.name}")

    @classmethod
    def of_mask(cls, pair: Pair) -> GranuleKey:
        """Return the key of an annotation and its masks."""
        return cls(f"mask/{pair.name}")

    @classmethod
    def of_epoch(cls, day: date) -> GranuleKey:
        """Return the key of the atmosphere at an acquisition date."""
        return cls(f"epoch/{day:%Y%m%d}")

    @property
    def kind(self) -> str:
        """What it names: ``pair``, ``mask``, ``epoch`` or ``dem``."""
        return self.partition("/")[0]

    @property
    def name(self) -> str:
        """Its name among those of its kind."""
        return self.partition("/")[2]

    @property
    def pair(self) -> Pair:
        """The pair of an interferogram or a mask."""
        return Pair.parse(self.name)

    @property
    def day(self) -> date:
        """The acquisition date of an atmosphere."""
        return parse_day(self.name)


#: Key of the one granule of the elevation model, in which the frame's grid is recorded.
DEM_KEY = GranuleKey("dem/dem")


class ChunkRef(msgspec.Struct, frozen=True, array_like=True):
    """A stored file: its content's BLAKE3 hash and size in bytes."""

    digest: str
    size: int


class Granule(msgspec.Struct, frozen=True, dict=True):  # dict: what is derived is kept
    """One thing that is built and kept whole.

    Attributes
    ----------
    kind : Kind
        What it is.
    name : str
        ``yyyymmdd_yyyymmdd`` for pairs and masks, ``yyyymmdd`` for epochs, ``dem``.
    inputs : str
        Fingerprint of what it was made from beside the products (grid, annotation, schema); a unit whose
        inputs have changed is built again.
    objects : dict
        Its stored objects by variable; an epoch's fields are named once for both date axes.
    receipts : tuple of Receipt
        One for every product that was asked for.
    facts : dict
        JSON values that the cube's tables are filled from.
    """

    kind: GranuleKind
    name: str
    inputs: str = ""
    objects: Mapping[str, ChunkRef] = {}
    receipts: tuple[Receipt, ...] = ()
    facts: Mapping[str, Any] = {}

    @property
    def key(self) -> GranuleKey:
        """Name that is unique within a cube: ``<kind>/<name>``."""
        return GranuleKey(f"{self.kind}/{self.name}")

    @cached_property
    def pair(self) -> Pair:
        """The pair of a pair or mask unit."""
        return Pair.parse(self.name)

    @cached_property
    def outcome(self) -> Outcome:
        """The worst end among its products; DOWNLOADED where it needed none."""
        bad = [receipt.outcome for receipt in self.receipts if not receipt.ok]
        return bad[0] if bad else Outcome.DOWNLOADED

    @cached_property
    def is_complete(self) -> bool:
        """Whether every product it needs is in it."""
        return self.outcome.ok

    @property
    def needs_retry(self) -> bool:
        """Whether upstream promises what is missing here; a later build tries again."""
        return not self.is_complete and not self.facts.get("unlisted", False)

    @property
    def identity(self) -> tuple[Any, ...]:
        """What makes it another unit than an earlier one of its key: all but when and why it was fetched."""
        proofs = tuple(
            (item.product, item.url, item.size, item.digest, item.last_modified, item.etag)
            if item.ok
            else (item.product, item.outcome)
            for item in self.receipts
        )
        return self.objects, self.inputs, self.facts, proofs


@dataclass(frozen=True)
class DateAxes:
    """The date axes of a cube, each sorted and without repeats.

    Attributes
    ----------
    primary, secondary : tuple of datetime.date
        The dates of the two axes.
    """

    primary: tuple[date, ...]
    secondary: tuple[date, ...]

    @classmethod
    def from_granules(cls, units: Iterable[Granule]) -> DateAxes:
        """Return the axes that hold every pair of `units`, stored or not."""
        pairs = [unit.pair for unit in units if unit.kind in ("pair", "mask")]
        return cls(
            tuple(sorted({pair.primary for pair in pairs})), tuple(sorted({pair.secondary for pair in pairs}))
        )

    @property
    def epochs(self) -> tuple[date, ...]:
        """Every date of either axis, sorted."""
        return tuple(sorted({*self.primary, *self.secondary}))


class ChunkKeys:
    """Where the stored objects of units stand in a store with given axes.

    Parameters
    ----------
    axes : Axes
        Of the store.
    """

    def __init__(self, axes: DateAxes) -> None:
        self._primary = {day: index for index, day in enumerate(axes.primary)}
        self._secondary = {day: index for index, day in enumerate(axes.secondary)}
        self._epoch = {day: index for index, day in enumerate(axes.epochs)}

    def pair_index(self, pair: Pair) -> tuple[int, int]:
        """Return the positions of `pair` on the two date axes."""
        return self._primary[pair.primary], self._secondary[pair.secondary]

    def epoch_index(self, day: date) -> int:
        """Return the position of `day` on the epoch axis."""
        return self._epoch[day]

    def keys(self, unit: Granule) -> Iterator[tuple[str, str]]:
        """Yield (object name, path in the store) for every place that an object of `unit` stands in."""
        if unit.kind == "epoch":
            yield from self._epoch_keys(unit, parse_day(unit.name))
            return
        at = () if unit.kind == "dem" or not unit.objects else self.pair_index(unit.pair)
        last = chunk_name(at, 2)
        for name in unit.objects:
            yield name, f"{name}/{last}"

    def _epoch_keys(self, unit: Granule, day: date) -> Iterator[tuple[str, str]]:
        variables = cube_schema().variables
        last = chunk_name((self._epoch[day],), 2)
        # a field on the frame's grid: one object, on either axis that has the date
        axes = [
            (axis, chunk_name((positions[day],), 2))
            for axis, positions in (("primary", self._primary), ("secondary", self._secondary))
            if day in positions
        ]
        for name in unit.objects:
            if name in variables:
                yield name, f"{name}/{last}"
            else:
                for axis, on_it in axes:
                    yield name, f"{axis}_date_{name}/{on_it}"
