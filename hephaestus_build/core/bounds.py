"""Longitude-latitude boxes and great-circle distances."""

from __future__ import annotations

import math
from typing import NamedTuple

_EARTH_RADIUS_KM = 6371.0
#: Length of a degree of latitude, rounded.
KM_PER_DEGREE = 111.2


class Bounds(NamedTuple):
    """A box in EPSG:4326, which crosses the antimeridian if `west` is greater than `east`.

    Parameters
    ----------
    west, south, east, north : float
        Outer edges, degrees, in GeoJSON's order.
    """

    west: float
    south: float
    east: float
    north: float

    def contains(self, latitude: float, longitude: float) -> bool:
        """Whether a point lies in the box or on its edge."""
        return self.south <= latitude <= self.north and any(
            west <= wrap_longitude(longitude) <= east for west, east in self._spans()
        )

    def intersects(self, other: Bounds) -> bool:
        """Whether the boxes have a point in common."""
        return (
            self.south <= other.north
            and other.south <= self.north
            and any(
                west <= east2 and west2 <= east
                for west, east in self._spans()
                for west2, east2 in other._spans()
            )
        )

    def _spans(self) -> list[tuple[float, float]]:
        """Return the box's longitudes as ranges within -180 to 180."""
        if self.east - self.west >= 360:
            return [(-180.0, 180.0)]
        west, east = wrap_longitude(self.west), wrap_longitude(self.east)
        return [(west, east)] if west <= east else [(west, 180.0), (-180.0, east)]


def wrap_longitude(longitude: float) -> float:
    """Return a longitude as one of -180 to 180 degrees; both ends stay as they are."""
    return longitude if -180 <= longitude <= 180 else (longitude + 180) % 360 - 180


def great_circle_km(latitude: float, longitude: float, latitude2: float, longitude2: float) -> float:
    """Return the distance between two points given in degrees, km (spherical Earth, haversine formula).

    Examples
    --------
    >>> round(great_circle_km(0.0, 0.0, 0.0, 1.0), 1)
    111.2
    """
    south, west, north, east = map(math.radians, (latitude, longitude, latitude2, longitude2))
    half = (
        math.sin((north - south) / 2) ** 2
        + math.cos(south) * math.cos(north) * math.sin((east - west) / 2) ** 2
    )
    return 2 * _EARTH_RADIUS_KM * math.asin(math.sqrt(min(1.0, half)))
