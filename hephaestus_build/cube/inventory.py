"""The inventory of a cube: its grid, granules and attributes, from which all else is derived."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, cast

import msgspec

from hephaestus_build.core.atomic_io import encode_json
from hephaestus_build.core.era5_grid import Era5Area, era5_area_around
from hephaestus_build.core.frames import Pair, parse_day
from hephaestus_build.core.grid import Grid
from hephaestus_build.core.parsing import check_depth
from hephaestus_build.cube.chunk_keys import ChunkKeys
from hephaestus_build.cube.date_axes import DateAxes
from hephaestus_build.cube.decimation import DEFAULT_FACTOR, MAX_FACTOR, MIN_FACTOR
from hephaestus_build.cube.granule_checks import check_granule
from hephaestus_build.cube.granules import (
    AnyGranule,
    EpochGranule,
    Granule,
    OptionalGranule,
    PairGranule,
    present_optional_variables,
)
from hephaestus_build.cube.key_spaces import KeyHistory
from hephaestus_build.cube.lost_values import image_arrays, lost_objects, optional_arrays, select_keys
from hephaestus_build.cube.schema import cube_schema


@dataclass(frozen=True)
class StoredHistory:
    """What is on disk of a cube, looked up only if positions change.

    Attributes
    ----------
    chunk_keys : callable
        Returns the keys of all chunks of the published generation, the retired ones among them.
    key_spaces : callable
        Returns the key spaces of all generations that are kept: of the root group and of the others.
    """

    chunk_keys: Callable[[], set[str]]
    key_spaces: Callable[[], Collection[tuple[int, int]]]


#: Beginning of the keys of the groups whose arrays lie along the pair axis.
PAIR_GROUPS = ("pairs/", "overview/")
#: Maximum number of cells of a table (primary dates times secondary dates) and of pixels of a grid: four
#: times what Sentinel-1 can have acquired of a frame, and ten times the largest frame.
MAX_TABLE_CELLS, MAX_GRID_PIXELS = 4_000_000, 400_000_000
_SATELLITE = re.compile(r"[A-Za-z0-9-]{1,20}")


@dataclass(frozen=True, repr=False)
class CubeInventory:
    """Grid, granules and attributes of a cube, stored as its provenance.

    Attributes
    ----------
    grid : Grid
        The frame's reference grid.
    granules : dict
        Granules by key.
    attributes : dict
        Attributes of the root group, JSON values.
    axes : DateAxes
        The axes. They hold the pairs of all granules, and all other pairs that were ever listed.
    keys : KeyHistory
        Key space of the chunks of the root group, and the keys that were in use before.
    pair_keys : KeyHistory
        The same of the groups with a pair axis.
    satellites : dict
        Satellite of each acquisition for which it is known, by date (``yyyymmdd``).
    """

    grid: Grid
    granules: Mapping[str, Granule]
    attributes: Mapping[str, Any]
    axes: DateAxes
    keys: KeyHistory = field(default_factory=KeyHistory)
    pair_keys: KeyHistory = field(default_factory=KeyHistory)
    satellites: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def new(
        cls,
        grid: Grid,
        granules: Mapping[str, Granule],
        attributes: Mapping[str, Any],
        listed: Iterable[Pair] = (),
    ) -> CubeInventory:
        """Return the inventory of a cube that has no earlier generation.

        Parameters
        ----------
        grid, granules, attributes
            See the attributes of these names.
        listed : iterable of Pair
            Pairs that the archive lists.
        """
        pairs = {*listed, *_pairs_of(granules.values())}
        return cls(grid, granules, attributes, DateAxes.from_pairs(pairs))

    def succeed(
        self,
        grid: Grid,
        granules: Mapping[str, Granule],
        attributes: Mapping[str, Any],
        listed: Iterable[Pair],
        history: StoredHistory,
    ) -> CubeInventory:
        """Return the inventory of the next generation.

        Positions on the axes stay the same where possible. Otherwise, or if the key of a stored image would
        become free, the chunks move to another key space (see :mod:`hephaestus_build.cube.key_spaces`).

        Parameters
        ----------
        grid, granules, attributes
            Those of the next generation.
        listed : iterable of Pair
            Pairs that the archive lists now.
        history : StoredHistory
            What is on disk of this and earlier generations.

        Raises
        ------
        ValueError
            If the chunks must move, but generations on disk use all key spaces.
        """
        pairs = {*self.axes.pairs, *listed, *_pairs_of(granules.values())}
        after = CubeInventory(
            grid,
            granules,
            attributes,
            DateAxes.from_pairs(pairs),
            self.keys,
            self.pair_keys,
            self.satellites,
        )
        other_images = self.is_outdated or not grid.same_as(self.grid)
        other_overviews = other_images or after.overview_factor != self.overview_factor
        lost = set[str]() if other_images else self._lost_keys(after, history)
        lost_pairs = {key for key in lost if key.startswith(PAIR_GROUPS)}
        lost_dates = lost - lost_pairs
        # nobody who opens the next generation asks for an array that it does not have
        unasked = select_keys(lost, optional_arrays({*self.optional_variables} - {*after.optional_variables}))
        epochs_move = bool(other_images or not _continues(after.axes.epochs, self.axes.epochs))
        dates_move = bool(epochs_move or lost_dates - unasked)
        pairs_move = bool(
            other_overviews or lost_pairs - unasked or not _continues(after.axes.pairs, self.axes.pairs)
        )
        if not (dates_move or pairs_move):
            return after._restore(lost_dates, lost_pairs)
        used = history.chunk_keys().difference(self.retired_keys)
        in_pairs = {key for key in used if key.startswith(PAIR_GROUPS)}
        spaces = history.key_spaces()
        free = self.keys.free_spaces({date_space for date_space, _ in spaces})
        free_pairs = self.pair_keys.free_spaces({pair_space for _, pair_space in spaces})
        keys, pair_keys, axes = self.keys, self.pair_keys, after.axes
        if dates_move and free and (free_pairs or not epochs_move):
            keys, lost_dates = keys.move(free[0], used - in_pairs), set()
            pairs_move |= epochs_move  # one table of the group `pairs` lies along the dates
        elif other_images:
            raise ValueError("all key spaces are in use by generations on another grid")
        elif dates_move:  # out of order rather than at a position that an open reader takes for another date
            axes = self.axes.append_dates(axes)
        if pairs_move and free_pairs:
            pair_keys, lost_pairs = pair_keys.move(free_pairs[0], in_pairs), set()
        elif other_overviews:
            raise ValueError("all key spaces are in use by generations with overviews of another size")
        elif pairs_move:
            axes = self.axes.append_pairs(axes)
        moved = replace(after, axes=axes, keys=keys, pair_keys=pair_keys)
        return moved._restore(lost_dates, lost_pairs)

    def _restore(self, lost_dates: set[str], lost_pairs: set[str]) -> CubeInventory:
        """Return the inventory with lost keys retired, and with those retired no more that are stored again.

        A retired key in the key space in use gives an error instead of no data.
        """
        if not (lost_dates or lost_pairs or self.keys.own_retired or self.pair_keys.own_retired):
            return self
        stored = self._stored_keys()
        return replace(
            self,
            keys=self.keys.retire(lost_dates, stored=stored),
            pair_keys=self.pair_keys.retire(lost_pairs, stored=stored),
        )

    def _lost_keys(self, after: CubeInventory, history: StoredHistory) -> set[str]:
        """Return the keys at which readers of this generation would find no data in place of data.

        An inventory without any granule is that of a cube whose record is lost: all images on disk are its
        own.
        """
        if not self.granules:
            on_disk = select_keys(history.chunk_keys(), image_arrays())
            return on_disk.difference(self.retired_keys, after._stored_keys())
        lost = self.chunk_keys.optional_tables(self.optional_variables)
        lost -= after.chunk_keys.optional_tables(after.optional_variables)
        for key, granule in self.granules.items():
            if names := lost_objects(granule, after.granules.get(key)):
                lost.update(path for name, path in self.chunk_keys.keys(granule) if name in names)
        return lost

    def _stored_keys(self) -> set[str]:
        """Return the keys of all objects of granules, and of the tables that not every cube has."""
        stored = {key for granule in self.granules.values() for _, key in self.chunk_keys.keys(granule)}
        return stored | self.chunk_keys.optional_tables(self.optional_variables)

    def __repr__(self) -> str:
        height, width = self.grid.shape
        return f"<CubeInventory: {len(self.granules)} granules on {height} x {width} pixels>"

    @property
    def schema_version(self) -> str | None:
        """Version of the schema that the cube was written with; None in records of early versions."""
        return self.attributes.get("schema_version")

    @property
    def is_outdated(self) -> bool:
        """Whether the cube was written with another schema than that of this version."""
        return self.schema_version != cube_schema().version

    @property
    def retired_keys(self) -> tuple[str, ...]:
        """All keys in the store that lead to an error."""
        return self.keys.retired_keys + self.pair_keys.retired_keys

    @cached_property
    def chunk_keys(self) -> ChunkKeys:
        """The keys of the stored objects."""
        return ChunkKeys(self.axes, self.keys.space, self.pair_keys.space)

    @cached_property
    def optional_variables(self) -> tuple[str, ...]:
        """The optional variables that the cube has, sorted: those of its granules."""
        return tuple(sorted(present_optional_variables(self.granules.values())))

    @property
    def overview_factor(self) -> int:
        """Decimation of the cube's overviews along either axis."""
        return cast(int, self.attributes.get("overview_factor", DEFAULT_FACTOR))

    @cached_property
    def era5_area(self) -> Era5Area:
        """The part of ERA5's grid that covers the frame."""
        return era5_area_around(self.grid)

    def encode(self) -> bytes:
        """Return the inventory as JSON, with the granules in order of their keys."""
        granules = [self.granules[key] for key in sorted(self.granules)]
        return encode_json(
            _Record(
                grid=self.grid,
                attributes=self.attributes,
                units=cast(list[AnyGranule], granules),
                dates=[f"{day:%Y%m%d}" for day in self.axes.epochs],
                pairs=[pair.name for pair in self.axes.pairs],
                keys=self.keys,
                pair_keys=self.pair_keys,
                satellites=self.satellites,
            )
        )

    @classmethod
    def decode(cls, record: bytes) -> CubeInventory:
        """Return the inventory that :meth:`encode` wrote.

        Names that become paths, values that become tables, and sizes for which memory is allocated are
        checked.

        Raises
        ------
        ValueError
            If it is not a valid record of a cube.
        """
        try:
            found = msgspec.json.decode(record, type=_Record)
        except RecursionError:
            raise ValueError("it is nested too deeply") from None
        granules: dict[str, Granule] = {granule.key: granule for granule in found.units}
        if len(granules) != len(found.units):
            raise ValueError("it contains two granules with the same key")
        contents = cls(
            found.grid,
            granules,
            found.attributes,
            found.axes(),
            found.keys,
            found.pair_keys,
            found.satellites,
        )
        contents._check()
        return contents

    def _check(self) -> None:
        """Raise ValueError if the inventory does not describe a valid cube."""
        check_depth(self.attributes)
        for day, satellite in self.satellites.items():
            if not (parse_day(day) and _SATELLITE.fullmatch(satellite)):
                raise ValueError(f"it names {satellite[:100]!r} as the satellite of a date")
        factor = self.overview_factor
        if type(factor) is not int or not MIN_FACTOR <= factor <= MAX_FACTOR:
            raise ValueError(f"its overview_factor is {str(factor)[:100]}")
        for granule in self.granules.values():
            check_granule(granule, whole=not self.is_outdated)
        self.keys.check()
        self.pair_keys.check()
        if (
            self.grid.size > MAX_GRID_PIXELS
            or len(self.axes.primary) * len(self.axes.secondary) > MAX_TABLE_CELLS
        ):
            raise ValueError("its grid or its date axes are larger than those of any frame")
        dates = {day for pair in _pairs_of(self.granules.values()) for day in pair.dates}
        strays = [
            granule.name
            for granule in self.granules.values()
            if isinstance(granule, EpochGranule) and granule.day not in dates
        ]
        if strays:
            raise ValueError(f"it has an epoch {strays[0]}, but no pair with this date")
        pairs = set(_pairs_of(self.granules.values()))
        if not dates.issubset(self.axes.epochs) or not (self.is_outdated or pairs.issubset(self.axes.pairs)):
            raise ValueError("its axes lack the dates of a pair")
        for granule in self.granules.values():
            place = granule.place if isinstance(granule, OptionalGranule) else None
            if place is not None and place not in (pairs if isinstance(place, Pair) else dates):
                raise ValueError(f"it has {granule.key}, but no such pair or date")
        own_retired = self.keys.own_retired + self.pair_keys.own_retired
        if own_retired and self._stored_keys().intersection(own_retired):
            raise ValueError("a key of its images is retired")
        _ = self.era5_area  # raises if the grid is not on the Earth


class _Record(msgspec.Struct, frozen=True, kw_only=True):
    version: int = 2
    grid: Grid
    attributes: Mapping[str, Any]
    satellites: Mapping[str, str] = {}  # a struct copies it; older records have none
    units: list[AnyGranule]
    dates: list[str] = []
    pairs: list[str] = []
    keys: KeyHistory = KeyHistory()
    pair_keys: KeyHistory = KeyHistory()

    def axes(self) -> DateAxes:
        """Return the axes; records of schema 1 do not state them.

        Raises
        ------
        ValueError
            If a date is not valid or occurs twice.
        """
        if self.version < 2:
            pairs = set(_pairs_of(self.units))
            return DateAxes(
                tuple(sorted({pair.primary for pair in pairs})),
                tuple(sorted({pair.secondary for pair in pairs})),
            )
        dates, axis = tuple(map(parse_day, self.dates)), tuple(map(Pair.parse, self.pairs))
        if len(set(dates)) != len(dates) or len(set(axis)) != len(axis):
            raise ValueError("its axes hold a date or a pair twice")
        return DateAxes(dates, dates, axis)


def _pairs_of(granules: Iterable[Granule]) -> Iterator[Pair]:
    """Yield the pair of each interferogram and mask."""
    return (granule.pair for granule in granules if isinstance(granule, PairGranule))


def _continues(axis: Sequence[object], previous: Sequence[object]) -> bool:
    """Return whether every position of the previous axis holds the same on this one."""
    return axis[: len(previous)] == previous
