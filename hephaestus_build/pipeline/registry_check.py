"""Comparison of a frame's metadata and grid with the registry of published frames."""

from __future__ import annotations

from datetime import timedelta

from hephaestus_build.core.bounds import wrap_longitude
from hephaestus_build.core.era5_grid import parse_center_time
from hephaestus_build.core.frames import Frame
from hephaestus_build.core.grid import Grid
from hephaestus_build.core.registry import PublishedFrame, published_frames

#: Passes of one frame differ by seconds; a minute or more means another frame or another orbit.
CENTER_TIME_TOLERANCE = timedelta(minutes=1)
#: Degrees between the centres of registry and grid; one burst more or less at an end moves it by less.
CENTER_TOLERANCE_DEG = 0.3
_DAY = timedelta(days=1)


def compare_with_registry(frame: Frame, center_time: timedelta | None, grid: Grid | None) -> tuple[str, ...]:
    """Return how `frame` differs from its registry entry; empty if it has none.

    Parameters
    ----------
    frame, center_time, grid
        See :func:`find_registry_mismatches`.
    """
    known = published_frames().get(frame.id)
    return find_registry_mismatches(known, center_time, grid) if known else ()


def find_registry_mismatches(
    known: PublishedFrame, center_time: timedelta | None, grid: Grid | None
) -> tuple[str, ...]:
    """Return how a frame's metadata and grid differ from the registry, in words.

    Parameters
    ----------
    known : PublishedFrame
        The registry entry.
    center_time : datetime.timedelta or None
        Acquisition time of day in the frame's metadata; None if it is unknown.
    grid : Grid or None
        The frame's grid; None if it is unknown.
    """
    found = []
    if center_time is not None:
        apart = (center_time - parse_center_time(known.center_time)) % _DAY
        if min(apart, _DAY - apart) > CENTER_TIME_TOLERANCE:
            found.append(f"its metadata give {center_time} as centre time, the registry {known.center_time}")
    if grid is not None:
        west, south, east, north = grid.bounds
        centre = wrap_longitude((west + east) / 2), (south + north) / 2
        apart_east = abs(wrap_longitude(centre[0] - known.longitude))
        if max(apart_east, abs(centre[1] - known.latitude)) > CENTER_TOLERANCE_DEG:
            found.append(
                f"its grid is centred on {centre[0]:.3f} E, {centre[1]:.3f} N, the registry has "
                f"{known.longitude:.3f} E, {known.latitude:.3f} N"
            )
    return tuple(found)
