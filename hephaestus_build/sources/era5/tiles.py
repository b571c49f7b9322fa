"""Fixed tiles of ERA5's grid that many frames share, and the hours at which Sentinel-1 passes them.

The CDS packs a field with 16 bits over the range of the values in the area that is asked for. So a frame's
values depend on the area of the request, and on nothing else of it. A tile depends on the place of the frame
alone: the values of each are the same whichever frames share it and whichever is built first.
"""

from __future__ import annotations

import math

from hephaestus_build.core.era5_grid import Era5Area

#: Distance of neighbouring tiles, degrees.
TILE_STEP = 10
#: Degrees of latitude and longitude by which a tile goes beyond its middle on each side, so that any frame
#: with its centre there lies in it: one of 5 by 10 degrees, where the largest published has 3.7 by 7.
_MARGINS = (2.5, 5.0)
#: Local mean solar times, hours, around which Sentinel-1 passes: descending and ascending. The 38 published
#: frames are within 0.7 of them.
_PASSES = (5.84, 18.44)


def era5_tile_around(area: Era5Area) -> Era5Area:
    """Return the tile for a frame's area, by the centre of the area; the area itself where no tile holds it.

    Tiles end at the poles. They end at 180 degrees too, unless the area crosses them, as areas do.

    Examples
    --------
    >>> str(era5_tile_around(Era5Area(38.75, 12.5, 35.25, 16.75)))
    'N42.5_W5_S27.5_E25'
    """
    row, column = (
        math.floor((low + high) / 2 / TILE_STEP) * TILE_STEP
        for low, high in ((area.south, area.north), (area.west, area.east))
    )
    end = 180.0 if area.west >= -180 and area.east <= 180 else 360.0
    tile = Era5Area(
        min(90.0, row + TILE_STEP + _MARGINS[0]),
        max(-end, column - _MARGINS[1]),
        max(-90.0, row - _MARGINS[0]),
        min(end, column + TILE_STEP + _MARGINS[1]),
    )
    return tile if tile.contains(area) else area


def era5_tile_hours(tile: Era5Area) -> tuple[int, ...]:
    """Return the six hours of the day (UTC) nearest to which Sentinel-1 passes frames of a tile.

    They are the three within an hour and a half of either pass, in local mean solar time of the tile's
    middle. Frames beyond some 65 degrees of latitude may need others.

    Examples
    --------
    >>> era5_tile_hours(Era5Area(42.5, 5.0, 27.5, 25.0))
    (4, 5, 6, 16, 17, 18)
    """
    middle = (tile.west + tile.east) / 2
    firsts = (math.ceil(passes - 1.5 - middle / 15) for passes in _PASSES)
    return tuple(sorted((first + number) % 24 for first in firsts for number in range(3)))
