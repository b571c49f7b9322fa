"""Search the registry of the 38 published frames by volcano, place, point or box, offline."""

from __future__ import annotations

import difflib
import math
import shlex
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

from hephaestus_build.core.bounds import Bounds, great_circle_km
from hephaestus_build.core.errors import UsageError
from hephaestus_build.core.frames import Frame
from hephaestus_build.core.registry import PublishedFrame, published_frames
from hephaestus_build.core.volcanoes import (
    VolcanoCone,
    fold_name,
    load_volcanoes,
    nearest_volcano,
    volcanoes_inside,
    volcanoes_named,
)

#: Frames that a search near a point returns where none covers it.
NEAREST = 5
# Of Sentinel-1's interferometric wide swath, measured on the frames whose extent is known.
_BURST_KM = 19.9
_SWATHS_KM = {1: 85.0, 2: 165.0, 3: 244.0}
_TILT = math.radians(12.0)  # of the orbit against the meridians
_KM_PER_DEGREE = 111.2


@dataclass(frozen=True, repr=False)
class FoundFrame:
    """A frame of the registry, with what a person chooses it by.

    Parameters
    ----------
    frame : Frame
        The frame.
    latitude, longitude : float
        Centre, degrees.
    bounds : Bounds
        Approximate footprint (see :func:`approximate_bounds`).
    region : str
        Frames that share a volcano or lie within 300 km share a region; splits keep regions apart.
    places : tuple of str
        Countries, islands or states.
    annotations : int
        Interferograms that the experts looked at.
    volcanoes : tuple of VolcanoCone
        Those that the data set lists for the frame.
    also_inside : tuple of VolcanoCone
        Other volcanoes of the catalogue in the approximate footprint.
    found_inside : tuple of VolcanoCone
        Those of `also_inside` by whose names the search found the frame; empty where it needed none of them.
    distance_km : float or None
        From the point of the search to the frame's centre; None where the search has no point.
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

    def __repr__(self) -> str:
        return f"<FoundFrame {self.id}: {', '.join(volcano.name for volcano in self.volcanoes)}>"

    def to_json(self) -> dict[str, Any]:
        """Return the frame as JSON values."""
        return {
            "frame": self.frame.id,
            "direction": "ascending" if self.frame.direction == "A" else "descending",
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


def approximate_bounds(frame: PublishedFrame) -> Bounds:
    """Return a frame's approximate footprint: good enough to search by, not to cut data by.

    It is the extent that the annotations imply where they do (within 0.1 degree; assumed for the two
    Stripmap frames). For the others it follows from the burst counts in the frame's id: an edge is within
    0.3 degree of the true one, tried on the frames whose extent is known.
    """
    if frame.implied_shape is not None:
        height, width = (count * frame.implied_pixel for count in frame.implied_shape)
    else:
        height, width = _extent_from_bursts(frame)
    return Bounds(
        frame.longitude - width / 2,
        frame.latitude - height / 2,
        frame.longitude + width / 2,
        frame.latitude + height / 2,
    )


def _extent_from_bursts(frame: PublishedFrame) -> tuple[float, float]:
    """Return height and width in degrees of the box around a tilted rectangle of bursts and swaths."""
    digits = frame.id[-6:]
    bursts = [int(digits[start : start + 2]) for start in (0, 2, 4)]  # of each of the three swaths
    along = max(bursts) * _BURST_KM
    across = _SWATHS_KM[sum(count > 0 for count in bursts)]
    height = (along * math.cos(_TILT) + across * math.sin(_TILT)) / _KM_PER_DEGREE
    width = (across * math.cos(_TILT) + along * math.sin(_TILT)) / _KM_PER_DEGREE
    return height, width / math.cos(math.radians(frame.latitude))


def volcanoes_of(frame: PublishedFrame) -> tuple[VolcanoCone, ...]:
    """Return the volcanoes that the registry lists for a frame; of several with one name, the nearest."""
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


def find_frames(
    words: str | Iterable[str] = (),
    *,
    near: tuple[float, float] | None = None,
    bbox: tuple[float, float, float, float] | None = None,
) -> list[FoundFrame]:
    """Return the frames of the registry that a search finds, without asking any archive.

    Parameters
    ----------
    words : str or iterable of str
        Each must begin a word of the frame's id, region, places, or of any spelling of one of its volcanoes;
        case and accents do not matter. Frames for which the data set lists such a volcano come before those
        whose approximate footprint merely contains one.
    near : (float, float), optional
        Latitude and longitude, degrees. Frames whose approximate footprint contains the point, or the five
        with the nearest centres where there are none; the nearest first.
    bbox : (float, float, float, float), optional
        West, south, east, north, degrees; west is greater than east across the antimeridian. Frames whose
        approximate footprint shares a point with the box.

    Returns
    -------
    list of FoundFrame
        In the order of their ids unless said otherwise; all 38 where nothing is asked for.

    Raises
    ------
    UsageError
        If `near` or `bbox` is not on the globe.

    Examples
    --------
    >>> find_frames("etna")
    [<FoundFrame 124D_05291_081406: Etna>]
    """
    text = words if isinstance(words, str) else " ".join(words)
    frames = _matching(text) if text.strip() else list(_registry())
    if bbox is not None:
        box = check_bounds(bbox)
        frames = [item for item in frames if item.bounds.intersects(box)]
    if near is not None:
        frames = _near(frames, *check_point(near))
    return frames


def _matching(text: str) -> list[FoundFrame]:
    wanted = fold_name(text).split()
    if not wanted:
        return []
    listed, inside = [], []
    for item in _registry():
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
    ]
    ranked.sort(key=lambda item: (item.distance_km, item.frame))
    return [item for item in ranked if item.bounds.contains(latitude, longitude)] or ranked[:NEAREST]


def check_point(point: tuple[float, float]) -> tuple[float, float]:
    """Return latitude and longitude as they are.

    Raises
    ------
    UsageError
        If they are no point of the globe.
    """
    latitude, longitude = point
    if not (-90 <= latitude <= 90 and -180 <= longitude <= 360):
        raise UsageError(
            f"{latitude:g},{longitude:g} is no latitude (-90 to 90) and longitude (-180 to 180); write "
            "37.75,15.0 for Etna"
        )
    return latitude, longitude


def check_bounds(box: tuple[float, float, float, float]) -> Bounds:
    """Return a box with its edges named.

    Raises
    ------
    UsageError
        If it is no box of the globe.
    """
    west, south, east, north = box
    if not (-90 <= south <= north <= 90 and -180 <= west <= 360 and -180 <= east <= 360):
        raise UsageError(
            f"{west:g},{south:g},{east:g},{north:g} is no box of west, south, east and north in degrees; "
            "write 13,36,17,39 for Sicily"
        )
    return Bounds(west, south, east, north)


def frame_named(text: str) -> Frame:
    """Return the frame that a person typed: a frame id, or a volcano that one frame of the registry lists.

    Parameters
    ----------
    text : str
        Any frame id, of the registry or not; or any spelling of a volcano's name.

    Raises
    ------
    UsageError
        If it is neither, or if several frames see the volcano; the message names them.
    """
    try:
        return Frame.parse(text)
    except UsageError:
        pass
    # a path such as ./Etna is no name
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
            f"{text!r} lies in no frame of the registry; name a frame of the COMET-LiCSAR portal by its id, "
            "such as 124D_04854_171313 (`hephaestus frames` lists the registry)"
        )
    return (
        f"{text!r} is not a frame id, such as 124D_04854_171313 or 144A_SM_REUN_S6, nor a volcano of "
        f"the registry{suggestion(text)}; `hephaestus frames WORDS` finds frames by volcano or place"
    )


def _choices(frames: Iterable[FoundFrame]) -> str:
    return ", ".join(
        f"{item.id} ({item.region}, {'ascending' if item.frame.direction == 'A' else 'descending'})"
        for item in frames
    )


def suggestion(text: str) -> str:
    """Return a question that names the spelling nearest to a mistyped name or id; empty without one."""
    names = {fold_name(name): name for item in _registry() for name in (item.id, item.region, *item.places)}
    names |= {fold_name(volcano.name): volcano.name for volcano in load_volcanoes()}
    names |= {spelling: v.name for item in _registry() for v in item.volcanoes for spelling in v.spellings}
    wanted = fold_name(text)
    begun = [folded for folded in names if wanted and folded.startswith(f"{wanted} ")]
    near = difflib.get_close_matches(wanted, names, n=1, cutoff=0.75) or sorted(begun, key=len)[:1]
    return f" (did you mean {names[near[0]]!r}?)" if near else ""
