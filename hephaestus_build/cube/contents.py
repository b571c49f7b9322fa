"""All that a cube is made of: the grid, the units and the attributes; the rest follows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import msgspec

from hephaestus_build.cube.units import Axes, Unit
from hephaestus_build.files import json_bytes
from hephaestus_build.grid import Grid
from hephaestus_build.sources.fields import Area, area_of


@dataclass(frozen=True)
class Contents:
    """All that a cube is made of.

    Attributes
    ----------
    grid : Grid
        The frame's grid.
    units : dict
        By key.
    attributes : dict
        Of the group, JSON values.
    """

    grid: Grid
    units: Mapping[str, Unit]
    attributes: Mapping[str, Any]

    @cached_property
    def axes(self) -> Axes:
        """The date axes."""
        return Axes.of(self.units.values())

    @cached_property
    def area(self) -> Area:
        """ERA5's own grid around the frame."""
        return area_of(self.grid)

    def record(self) -> bytes:
        """Return the contents as JSON, the units in order of their keys."""
        units = [self.units[key] for key in sorted(self.units)]
        return json_bytes(_Record(grid=self.grid, attributes=self.attributes, units=units))

    @classmethod
    def read(cls, record: bytes) -> Contents:
        """Return the contents that :meth:`record` wrote.

        Raises
        ------
        ValueError
            If they are not such a record.
        """
        found = msgspec.json.decode(record, type=_Record)
        return cls(found.grid, {unit.key: unit for unit in found.units}, found.attributes)


class _Record(msgspec.Struct, frozen=True, kw_only=True):
    version: int = 1
    grid: Grid
    attributes: Mapping[str, Any]
    units: list[Unit]
