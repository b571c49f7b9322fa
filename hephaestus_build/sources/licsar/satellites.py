"""Which Sentinel-1 satellite made an acquisition, where that is certain.

LiCSAR's metadata does not say it. It follows from the dates on which only one satellite flew, and from the
orbit: Sentinel-1A and 1B repeated their tracks every 12 days, 6 days apart, so the days on which 1A passes a
track are known for the whole mission. All 5,743 dates of the published annotations agree
(tests/unit/sources/licsar/test_satellites.py).
"""

from __future__ import annotations

from datetime import date, datetime, timedelta

#: The first acquisition, and the launches of 1B and 1C.
_FIRST_DAY, _B_LAUNCHED, _C_LAUNCHED = date(2014, 4, 3), date(2016, 4, 25), date(2024, 12, 5)
#: 1B reached its place in the orbit in June 2016 and was in routine use from September on; its last day.
_B_IN_PLACE, _B_LAST_DAY = date(2016, 10, 1), date(2021, 12, 23)
_DAY, _SHIFT = timedelta(days=1), timedelta(days=6)
#: Relative orbits in 12 days, and the time of one.
_TRACKS = 175
_ORBIT = 12 * _DAY / _TRACKS
#: A passage of 1A over the equator at the start of relative orbit 1, to a few minutes.
_A_AT_NODE = datetime(2014, 1, 2, 18)
_TOLERANCE = timedelta(hours=2)


def sentinel1_satellite(track: int, center_time: timedelta | None, day: date) -> str:
    """Return ``S1A`` or ``S1B``, or an empty text where it is not certain.

    Not certain are the dates between 1B's launch and its routine use, and those since 1C's launch.

    Parameters
    ----------
    track : int
        Relative orbit, 1 to 175.
    center_time : datetime.timedelta or None
        Acquisition time of the frame, after midnight UTC; None if it is not known.
    day : datetime.date
        Acquisition date.

    Examples
    --------
    >>> sentinel1_satellite(71, timedelta(hours=13, minutes=52), date(2019, 7, 4))
    'S1A'
    >>> sentinel1_satellite(71, timedelta(hours=13, minutes=52), date(2019, 7, 10))
    'S1B'
    """
    if not (1 <= track <= _TRACKS and _FIRST_DAY <= day < _C_LAUNCHED):
        return ""
    if day < _B_LAUNCHED or day > _B_LAST_DAY:
        return "S1A"
    if day < _B_IN_PLACE or center_time is None:
        return ""
    return repeat_cycle_satellite(track, center_time, day)


def repeat_cycle_satellite(track: int, center_time: timedelta, day: date) -> str:
    """Return ``S1A`` or ``S1B`` from the repeat cycle alone; empty if neither passes the track that day."""
    moment = datetime(day.year, day.month, day.day) + center_time
    since = moment - _A_AT_NODE - (track - 1) * _ORBIT + _TOLERANCE
    if since % _SHIFT > _ORBIT + 2 * _TOLERANCE:
        return ""
    return ("S1A", "S1B")[since // _SHIFT % 2]
