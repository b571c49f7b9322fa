"""All that a cube is made of: the grid, the units and the attributes; the rest follows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

from hephaestus_build.cube.units import Axes, Unit
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

    def to_json(self) -> dict[str, Any]:
        """Return the contents as JSON values, the units in order of their keys."""
        return {
            "version": 1,
            "grid": asdict(self.grid),
            "attributes": dict(self.attributes),
            "units": [self.units[key].to_json() for key in sorted(self.units)],
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Contents:
        """Return the contents that :meth:`to_json` wrote."""
        units = (Unit.from_json(item) for item in value["units"])
        return cls(Grid(**value["grid"]), {unit.key: unit for unit in units}, value["attributes"])
