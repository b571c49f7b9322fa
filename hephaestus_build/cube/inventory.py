"""The inventory of a cube: its grid, granules and attributes, from which all else is derived."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, cast

import msgspec

from hephaestus_build.core.atomic_io import encode_json
from hephaestus_build.core.era5_grid import Era5Area, era5_area_around
from hephaestus_build.core.grid import Grid
from hephaestus_build.core.parsing import check_depth
from hephaestus_build.cube.decimation import DEFAULT_FACTOR, MAX_FACTOR, MIN_FACTOR
from hephaestus_build.cube.granule_checks import check_granule
from hephaestus_build.cube.granules import AnyGranule, DateAxes, Granule
from hephaestus_build.cube.schema import cube_schema

#: Maximum number of cells of a table (primary dates times secondary dates) and of pixels of a grid: four
#: times what Sentinel-1 can have acquired of a frame, and ten times the largest frame.
MAX_TABLE_CELLS, MAX_GRID_PIXELS = 4_000_000, 400_000_000


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
    """

    grid: Grid
    granules: Mapping[str, Granule]
    attributes: Mapping[str, Any]

    def __repr__(self) -> str:
        height, width = self.grid.shape
        return f"<CubeInventory: {len(self.granules)} granules on {height} x {width} pixels>"

    @cached_property
    def axes(self) -> DateAxes:
        """The date axes."""
        return DateAxes.from_granules(self.granules.values())

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
            _Record(grid=self.grid, attributes=self.attributes, units=cast(list[AnyGranule], granules))
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
        contents = cls(found.grid, {granule.key: granule for granule in found.units}, found.attributes)
        if len(contents.granules) != len(found.units):
            raise ValueError("it contains two granules with the same key")
        contents._check()
        return contents

    def _check(self) -> None:
        """Raise ValueError if the inventory does not describe a valid cube."""
        check_depth(self.attributes)
        factor = self.overview_factor
        if type(factor) is not int or not MIN_FACTOR <= factor <= MAX_FACTOR:
            raise ValueError(f"its overview_factor is {str(factor)[:100]}")
        whole = self.attributes.get("schema_version") == cube_schema().version
        for granule in self.granules.values():
            check_granule(granule, whole=whole)
        if (
            self.grid.size > MAX_GRID_PIXELS
            or len(self.axes.primary) * len(self.axes.secondary) > MAX_TABLE_CELLS
        ):
            raise ValueError("its grid or its date axes are larger than those of any frame")
        epochs = {f"{day:%Y%m%d}" for day in self.axes.epochs}
        strays = [
            granule.name
            for granule in self.granules.values()
            if granule.kind == "epoch" and granule.name not in epochs
        ]
        if strays:
            raise ValueError(f"it has an epoch {strays[0]}, but no pair with this date")
        _ = self.era5_area  # raises if the grid is not on the Earth


class _Record(msgspec.Struct, frozen=True, kw_only=True):
    version: int = 1
    grid: Grid
    attributes: Mapping[str, Any]
    units: list[AnyGranule]
