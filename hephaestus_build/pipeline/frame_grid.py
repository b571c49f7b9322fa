"""Choice of a frame's reference grid: that of the DEM, if interferograms confirm it. Pure functions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from hephaestus_build.core.grid import Grid
from hephaestus_build.cube.granules import DEM_KEY, DemGranule, Granule, InterferogramGranule
from hephaestus_build.processing.alignment import PIXEL_TOLERANCE


def grids_compatible(first: Grid, second: Grid) -> bool:
    """Return whether two grids may belong to one frame: equal pixels, and half of the larger in common."""
    sizes = ((first.dx, second.dx), (first.dy, second.dy))
    if any(abs(mine - theirs) > PIXEL_TOLERANCE * theirs for mine, theirs in sizes):
        return False
    west, south, east, north = (
        choose(mine, theirs)
        for choose, mine, theirs in zip(
            (max, max, min, min), first.in_turn_of(second).bounds, second.bounds, strict=True
        )
    )
    shared = max(0.0, east - west) * max(0.0, north - south)
    return 2 * shared >= max(first.size, second.size) * first.dx * first.dy


def select_reference_grid(dem: Grid | None, seen: Sequence[Grid]) -> Grid | None:
    """Return the frame's grid: that of the DEM, unless no interferogram is compatible with it.

    Parameters
    ----------
    dem : Grid or None
        Grid of the DEM, if there is one.
    seen : sequence of Grid
        Grids of some interferograms. Without a usable DEM the most frequent one is taken, the first among
        equals.
    """
    if dem is not None and (not seen or any(grids_compatible(dem, grid) for grid in seen)):
        return dem
    return max(seen, key=lambda grid: sum(map(grid.same_as, seen)), default=None)


def recorded_grid(granules: Mapping[str, Granule]) -> Grid | None:
    """Return the grid that was settled before, unless what has come since speaks against it."""
    dem = granules.get(DEM_KEY)
    if not isinstance(dem, DemGranule) or dem.grid is None:
        return None
    pairs = [granule for granule in granules.values() if isinstance(granule, InterferogramGranule)]
    stored = [granule for granule in pairs if granule.is_complete]
    fitting = sum(granule.alignment == "identical" for granule in stored)
    none_fits = not stored and any(granule.is_elsewhere for granule in pairs)
    doubted = none_fits or (not dem.is_complete and 2 * fitting < len(stored))
    return None if doubted else dem.grid
