"""The keys of the stored objects of granules."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from datetime import date

from hephaestus_build.core.frames import Pair
from hephaestus_build.cube.codecs.image_encoder import split_object_name
from hephaestus_build.cube.date_axes import DateAxes
from hephaestus_build.cube.granules import (
    EpochGranule,
    Granule,
    OptionalGranule,
    OverviewGranule,
    PairGranule,
)
from hephaestus_build.cube.key_spaces import KEY_SPACES, KeySpace
from hephaestus_build.cube.schema import cube_schema


class ChunkKeys:
    """The keys of stored objects in a store with given axes.

    Parameters
    ----------
    axes : DateAxes
        Axes of the store.
    space : KeySpace
        Key space of the arrays of the root group.
    pair_space : KeySpace
        Key space of the arrays along the pair axis, in the other groups.
    """

    def __init__(
        self, axes: DateAxes, space: KeySpace = KEY_SPACES[0], pair_space: KeySpace = KEY_SPACES[0]
    ) -> None:
        self._space, self._pair_space = space, pair_space
        self._row = {pair: index for index, pair in enumerate(axes.pairs)}
        self._primary = {day: index for index, day in enumerate(axes.primary)}
        self._secondary = {day: index for index, day in enumerate(axes.secondary)}
        self._epoch = {day: index for index, day in enumerate(axes.epochs)}

    def pair_index(self, pair: Pair) -> tuple[int, int]:
        """Return the positions of `pair` on the two date axes."""
        return self._primary[pair.primary], self._secondary[pair.secondary]

    def epoch_index(self, day: date) -> int:
        """Return the position of `day` on the epoch axis."""
        return self._epoch[day]

    def keys(self, granule: Granule) -> Iterator[tuple[str, str]]:
        """Yield (object name, key in the store) for every key of an object of `granule`.

        Examples
        --------
        An epoch whose date is third on both date axes has one object for each field, with two keys:
        ``primary_date_surface_pressure/c.2.0.0`` and ``secondary_date_surface_pressure/c.2.0.0``.
        """
        if isinstance(granule, EpochGranule):
            yield from self._epoch_keys(granule, granule.day)
            return
        if isinstance(granule, OverviewGranule):
            row = self._row[granule.pair]
            for name in granule.objects:
                yield name, self._pair_space.chunk_key(f"overview/{name}", (row,), 2)
            return
        place = granule.place if isinstance(granule, OptionalGranule) else None
        if isinstance(place, date):
            yield from self._epoch_keys(granule, place)
            return
        pair = granule.pair if isinstance(granule, PairGranule) else place
        at = self.pair_index(pair) if pair is not None and granule.objects else ()
        for name in granule.objects:
            variable, strip = split_object_name(name)
            yield name, f"{variable}/{self._space.chunk_name(at, 2, strip)}"

    def optional_tables(self, variables: Collection[str]) -> set[str]:
        """Return the keys of the tables of some optional variables, in the root group and in `pairs`.

        Parameters
        ----------
        variables : collection of str
            The optional variables that a cube has.
        """
        schema = cube_schema().with_optional(variables)
        names = [table.name for table in schema.variables_with_layout("table") if table.optional]
        keys = {self._space.chunk_key(name, (), 2) for name in names}
        rows = range(-(-len(self._row) // schema.table_rows))
        for group in schema.groups.values() if names else ():
            paths = [path for path, name in group.tables.items() if name in names]
            keys.update(self._pair_space.chunk_key(path, (row,), 0) for path in paths for row in rows)
        return keys

    def _epoch_keys(self, granule: Granule, day: date) -> Iterator[tuple[str, str]]:
        variables = cube_schema().variables
        last = self._space.chunk_name((self._epoch[day],), 2)
        # a field that both date axes show is one object, linked on each axis that has the date
        axes = [
            (axis, self._space.chunk_name((positions[day],), 2))
            for axis, positions in (("primary", self._primary), ("secondary", self._secondary))
            if day in positions
        ]
        for name in granule.objects:
            if name in variables:
                yield name, f"{name}/{last}"
            else:
                for axis, on_it in axes:
                    yield name, f"{axis}_date_{name}/{on_it}"
