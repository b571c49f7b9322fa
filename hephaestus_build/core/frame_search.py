"""Offline search of frames by volcano, place, point or box: the published ones, and others by their ids."""

from __future__ import annotations

import difflib
import math
import shlex
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

from hephaestus_build.core.bounds import KM_PER_DEGREE, Bounds, great_circle_km
from hephaestus_build.core.errors import UsageError
from hephaestus_build.core.frames import FRAME_ID_HELP, LAST_TRACK, Frame
from hephaestus_build.core.registry import PublishedFrame, published_frames
from hephaestus_build.core.volcanoes import (
    VolcanoCone,
    fold_name,
    load_volcanoes,
    nearest_volcano,
    volcanoes_inside,
    volcanoes_named,
)

#: Number of frames that a search near a point returns if no frame covers it.
NEAREST = 5
# Dimensions of Sentinel-1's interferometric wide swath, measured on frames of known extent.
_BURST_KM = 19.9
_SWATHS_KM = {1: 85.0, 2: 165.0, 3: 244.0}
_TILT = math.radians(12.0)  # angle between the orbit and the meridians
# Sentinel-1's orbit: inclination, and 175 orbits in twelve days. Tracks count from an ascending node near
# Greenwich; the middle of the swath lies to the right of the flight. The two longitudes are fitted to the 38
# published frames.
_INCLINATION = math.radians(98.18)
_DEGREES_PER_ORBIT = 360.0 * 12 / LAST_TRACK
_SWATH_OFFSET = {"A": 4.70, "D": -4.42}  # degrees of a great circle, eastwards
_SWATH_WIDTH = 0.71  # degrees of a great circle from the middle of one swath to the next


@dataclass(frozen=True, repr=False)
class FoundFrame:
    """A frame with the details shown in search results.

    Parameters
    ----------
    frame : Frame
        The frame.
    latitude, longitude : float
        Centre, degrees; of a frame outside the registry, as its id implies (NaN where it implies none).
    bounds : Bounds
        Approximate footprint (see :func:`approximate_bounds`).
    region : str
        Frames that share a volcano or lie within 300 km share a region; splits keep regions apart. Empty for
        a frame outside the registry, as are its places and volcanoes.
    places : tuple of str
        Countries, islands or states.
    annotations : int
        Number of interferograms that experts annotated.
    volcanoes : tuple of VolcanoCone
        Volcanoes that the data set lists for the frame.
    also_inside : tuple of VolcanoCone
        Other volcanoes of the catalogue in the approximate footprint.
    found_inside : tuple of VolcanoCone
        Those of `also_inside` whose names matched the search; empty if other details matched.
    distance_km : float or None
        Distance from the search point to the frame's centre, km; None for searches without a point.
    """

    frame: Frame
    latitude: float
    longitude: float
    bounds: Bounds
    region: str
    places: tuple[str, ...]
    annotations: int
    volcanoes: tuple[VolcanoCone, ...]
    also_inside: tuple[VolcanoCone, ...]
    found_inside: tuple[VolcanoCone, ...] = ()
    distance_km: float | None = None

    @property
    def id(self) -> str:
        """The frame's id."""
        return self.frame.id

    @property
    def is_published(self) -> bool:
        """Whether it is one of the 38 frames of the published data set."""
        return self.id in published_frames()

    def __repr__(self) -> str:
        return f"<FoundFrame {self.id}: {', '.join(volcano.name for volcano in self.volcanoes)}>"

    def to_json(self) -> dict[str, Any]:
        """Return the frame as a JSON-compatible mapping."""
        return {
            "frame": self.frame.id,
            "direction": "ascending" if self.frame.direction == "A" else "descending",
            "published": self.is_published,
            "latitude": self.latitude,
            "longitude": self.longitude,
            "bounds": [round(edge, 3) for edge in self.bounds],
            "region": self.region,
            "places": list(self.places),
            "annotations": self.annotations,
            "volcanoes": [volcano.to_json() for volcano in self.volcanoes],
            "also_inside": [volcano.to_json() for volcano in self.also_inside],
            "found_inside": [volcano.name for volcano in self.found_inside],
            "distance_km": None if self.distance_km is None else round(self.distance_km, 1),
        }


def list_published_frames() -> list[Frame]:
    """Return the 38 frames of the published data set."""
    return sorted(Frame(name) for name in published_frames())


def approximate_bounds(frame: PublishedFrame) -> Bounds:
    """Return a frame's approximate footprint, for searches only.

    Where the annotations imply the extent, it is used (accurate to 0.1 degree; assumed for the two Stripmap
    frames). Otherwise, the footprint is estimated from the burst counts in the frame's id, with edges
    accurate to 0.3 degree on the frames whose extent is known.
    """
    if frame.implied_shape is not None:
        height, width = (count * frame.implied_pixel for count in frame.implied_shape)
    else:
        height, width = approximate_extent(Frame(frame.id), frame.latitude) or (0.0, 0.0)
    return Bounds(
        frame.longitude - width / 2,
        frame.latitude - height / 2,
        frame.longitude + width / 2,
        frame.latitude + height / 2,
    )


def approximate_extent(frame: Frame, latitude: float) -> tuple[float, float] | None:
    """Return height and width of a frame at a latitude, in degrees, by the burst counts in its id.

    They are those of the box around a tilted rectangle of bursts and swaths; None where the id states none.
    """
    bursts = frame.burst_counts
    if not any(bursts):
        return None
    along = max(bursts) * _BURST_KM
    across = _SWATHS_KM[sum(count > 0 for count in bursts)]
    height = (along * math.cos(_TILT) + across * math.sin(_TILT)) / KM_PER_DEGREE
    width = (across * math.cos(_TILT) + along * math.sin(_TILT)) / KM_PER_DEGREE
    return height, width / math.cos(math.radians(latitude))


def approximate_centre(frame: Frame) -> tuple[float, float] | None:
    """Return latitude and longitude of a frame's centre, degrees, by its id; None where it has no latitude.

    The id states track, direction and latitude, from which the orbit gives the longitude: within 0.4 degree
    of that of the registry for the published frames.

    Examples
    --------
    >>> [round(degrees, 1) for degrees in approximate_centre(Frame("124D_05291_081406"))]
    [37.1, 14.6]
    """
    latitude = frame.nominal_latitude
    present = [number for number, count in enumerate(frame.burst_counts) if count]
    if latitude is None or not present or frame.is_simulated:
        return None
    # the argument of latitude: the angle along the orbit from the ascending node
    along = math.asin(max(-1.0, min(1.0, math.sin(math.radians(latitude)) / math.sin(_INCLINATION))))
    along = (math.pi - along if frame.direction == "D" else along) % math.tau
    east = math.degrees(math.atan2(math.cos(_INCLINATION) * math.sin(along), math.cos(along)))
    turned = _DEGREES_PER_ORBIT * (frame.track - 1 + along / math.tau)
    offset = _SWATH_OFFSET[frame.direction]
    # the second of three swaths is in the middle
    offset += math.copysign(_SWATH_WIDTH, offset) * ((present[0] + present[-1]) / 2 - 1)
    longitude = east - turned + offset / math.cos(math.radians(latitude))
    return latitude, round((longitude + 180.0) % 360.0 - 180.0, 4)


def volcanoes_of(frame: PublishedFrame) -> tuple[VolcanoCone, ...]:
    """Return the volcanoes that the registry lists for a frame (the nearest of those with one name)."""
    return tuple(
        nearest_volcano(frame.latitude, frame.longitude, volcanoes_named(name)) for name in frame.volcanoes
    )


@cache
def _registry() -> tuple[FoundFrame, ...]:
    frames = []
    for known in published_frames().values():
        listed, bounds = volcanoes_of(known), approximate_bounds(known)
        frames.append(
            FoundFrame(
                Frame(known.id),
                known.latitude,
                known.longitude,
                bounds,
                known.region,
                known.places,
                known.annotations,
                listed,
                tuple(volcano for volcano in volcanoes_inside(bounds) if volcano not in listed),
            )
        )
    return tuple(sorted(frames, key=lambda item: item.frame))


@cache
def _found_by_id(frame: Frame) -> FoundFrame:
    """Return what the id of a frame outside the registry implies."""
    centre = approximate_centre(frame)
    if centre is None:
        nowhere = Bounds(math.nan, math.nan, math.nan, math.nan)
        return FoundFrame(frame, math.nan, math.nan, nowhere, "", (), 0, (), ())
    latitude, longitude = centre
    height, width = approximate_extent(frame, latitude) or (0.0, 0.0)
    bounds = Bounds(
        longitude - width / 2, latitude - height / 2, longitude + width / 2, latitude + height / 2
    )
    return FoundFrame(frame, latitude, longitude, bounds, "", (), 0, (), volcanoes_inside(bounds))


def _all_frames(others: Iterable[Frame]) -> list[FoundFrame]:
    """Return the registry, and the frames of `others` that it does not hold, sorted by id."""
    added = [_found_by_id(frame) for frame in set(others) if frame.id not in published_frames()]
    return sorted([*_registry(), *added], key=lambda item: item.frame)


def find_frames(
    words: str | Iterable[str] = (),
    *,
    others: Iterable[Frame] = (),
    near: tuple[float, float] | None = None,
    bbox: tuple[float, float, float, float] | None = None,
) -> list[FoundFrame]:
    """Return the frames that match a search: of the registry, and of `others`. No archive is asked.

    Parameters
    ----------
    words : str or iterable of str
        Prefixes of words in the frame's id, region, places or any spelling of its volcanoes, all of which
        must match; case and accents are ignored. Frames for which the data set lists a matching volcano
        precede those whose approximate footprint merely contains one.
    others : iterable of Frame, optional
        Frames to search besides those of the registry; where they lie follows from their ids.
    near : (float, float), optional
        Latitude and longitude, degrees. Selects frames whose approximate footprint contains the point, or
        otherwise the five with the nearest centres, sorted by distance.
    bbox : (float, float, float, float), optional
        West, south, east, north, degrees; west is greater than east across the antimeridian. Selects frames
        whose approximate footprint intersects the box.

    Returns
    -------
    list of FoundFrame
        Sorted by id unless stated otherwise above; all frames if no criterion is given.

    Raises
    ------
    UsageError
        If `near` or `bbox` is out of range.

    Examples
    --------
    >>> find_frames("etna")
    [<FoundFrame 124D_05291_081406: Etna>]
    """
    text = words if isinstance(words, str) else " ".join(words)
    frames = _all_frames(others)
    if text.strip():
        frames = _matching(text, frames)
    if bbox is not None:
        box = check_bounds(bbox)
        frames = [item for item in frames if item.bounds.intersects(box)]
    if near is not None:
        frames = _near(frames, *check_point(near))
    return frames


def _matching(text: str, frames: Iterable[FoundFrame]) -> list[FoundFrame]:
    wanted = fold_name(text).split()
    if not wanted:
        return []
    listed, inside = [], []
    for item in frames:
        words = set(fold_name(" ".join((item.id, item.region, *item.places))).split())
        words |= _words(item.volcanoes)
        if _begins_all(wanted, words):
            listed.append(item)
        elif others := tuple(v for v in item.also_inside if _begins_all(wanted, words | _words([v]))):
            inside.append(replace(item, found_inside=others))
    return listed + inside


def _words(volcanoes: Iterable[VolcanoCone]) -> set[str]:
    return {word for volcano in volcanoes for spelling in volcano.spellings for word in spelling.split()}


def _begins_all(wanted: Iterable[str], words: Iterable[str]) -> bool:
    return all(any(word.startswith(start) for word in words) for start in wanted)


def _near(frames: Iterable[FoundFrame], latitude: float, longitude: float) -> list[FoundFrame]:
    ranked = [
        replace(item, distance_km=great_circle_km(item.latitude, item.longitude, latitude, longitude))
        for item in frames
        if not math.isnan(item.latitude)
    ]
    ranked.sort(key=lambda item: (item.distance_km, item.frame))
    return [item for item in ranked if item.bounds.contains(latitude, longitude)] or ranked[:NEAREST]


def check_point(point: tuple[float, float]) -> tuple[float, float]:
    """Check and return a latitude and longitude.

    Raises
    ------
    UsageError
        If either is out of range.
    """
    latitude, longitude = point
    if not (-90 <= latitude <= 90 and -180 <= longitude <= 360):
        raise UsageError(
            f"{latitude:g},{longitude:g} is not a latitude (-90 to 90) and longitude (-180 to 180); write "
            "37.75,15.0 for Etna"
        )
    return latitude, longitude


def check_bounds(box: tuple[float, float, float, float]) -> Bounds:
    """Check a box of west, south, east and north edges, and return it as :class:`Bounds`.

    Raises
    ------
    UsageError
        If an edge is out of range.
    """
    west, south, east, north = box
    if not (-90 <= south <= north <= 90 and -180 <= west <= 360 and -180 <= east <= 360):
        raise UsageError(
            f"{west:g},{south:g},{east:g},{north:g} is not a box of west, south, east and north in degrees; "
            "write 13,36,17,39 for Sicily"
        )
    return Bounds(west, south, east, north)


def frame_named(text: str) -> Frame:
    """Return the frame named by user input: a frame id, or a volcano listed for exactly one frame.

    Parameters
    ----------
    text : str
        A frame id, in the registry or not, or any spelling of a volcano's name.

    Raises
    ------
    UsageError
        If it is neither, or if several frames cover the volcano; the message lists them.
    """
    try:
        return Frame.parse(text)
    except UsageError:
        pass
    # a path such as ./Etna is not a name
    volcanoes = set(volcanoes_named(text)) if text.strip()[:1].isalpha() else set()
    found = [item for item in _registry() if not volcanoes.isdisjoint(item.volcanoes)]
    if len(found) == 1:
        return found[0].frame
    raise UsageError(_not_one_frame(text.strip()[:80], volcanoes, found))


def _not_one_frame(text: str, volcanoes: set[VolcanoCone], listing: list[FoundFrame]) -> str:
    search = f"`hephaestus frames {shlex.quote(text)}`"
    if listing:
        return f"{text!r} names {len(listing)} frames: {_choices(listing)}; use one of their ids ({search})"
    if inside := [item for item in _registry() if not volcanoes.isdisjoint(item.also_inside)]:
        return (
            f"no frame of the registry lists {text!r}, but it lies in the approximate footprint of "
            f"{_choices(inside)}; use one of their ids ({search})"
        )
    if volcanoes:
        return (
            f"{text!r} lies in no frame of the registry; name a frame by its id, such as 124D_04854_171313: "
            f"{FRAME_ID_HELP}"
        )
    return (
        f"{text!r} is not a frame id, such as 124D_04854_171313 or 144A_SM_REUN_S6, nor a volcano of "
        f"the registry{suggestion(text)}; {FRAME_ID_HELP}"
    )


def _choices(frames: Iterable[FoundFrame]) -> str:
    return ", ".join(
        f"{item.id} ({item.region}, {'ascending' if item.frame.direction == 'A' else 'descending'})"
        for item in frames
    )


def suggestion(text: str) -> str:
    """Return a "did you mean" hint for a mistyped name or id; empty if nothing is similar."""
    names = {fold_name(name): name for item in _registry() for name in (item.id, item.region, *item.places)}
    names |= {fold_name(volcano.name): volcano.name for volcano in load_volcanoes()}
    names |= {spelling: v.name for item in _registry() for v in item.volcanoes for spelling in v.spellings}
    wanted = fold_name(text)
    begun = [folded for folded in names if wanted and folded.startswith(f"{wanted} ")]
    near = difflib.get_close_matches(wanted, names, n=1, cutoff=0.75) or sorted(begun, key=len)[:1]
    return f" (did you mean {names[near[0]]!r}?)" if near else ""
