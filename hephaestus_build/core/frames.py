"""Frames and pairs, which together identify an interferogram."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import date
from functools import cached_property, lru_cache

import msgspec

from hephaestus_build.core.errors import UsageError

# Range of datetime64[ns]; listings may contain any eight digits.
_FIRST_YEAR, _LAST_YEAR = 1970, 2261
_PAIR = re.compile(r"(\d{8})_(\d{8})")

# Degrees around each pole that no frame has its centre in.
_POLAR_CAP = 5.0
#: Sentinel-1 has 175 tracks; frames with higher numbers are simulated.
LAST_TRACK = 175


@dataclass(frozen=True)
class FrameIdForm:
    """The format of one source's frame ids. No other code parses frame ids.

    Attributes
    ----------
    source : str
        Name of the source.
    pattern : re.Pattern
        Pattern of the ids, which consist of upper case letters, digits and underscores, since they are used
        as folder names. Its group ``track`` is the relative orbit, and ``direction`` is ``A`` or ``D``. It
        may have the groups ``colatitude``, hundredths of a degree from the north pole, and ``bursts``, two
        digits for each swath.
    example : str
        Description of the format, for error messages.
    last_track : int
        Highest relative orbit of the satellite; frames with higher numbers are simulated.
    """

    source: str
    pattern: re.Pattern[str]
    example: str
    last_track: int

    @property
    def plain_pattern(self) -> str:
        """The pattern without named groups, in the syntax of JSON Schema and JavaScript."""
        return re.sub(r"\(\?P<[^>]+>", "(?:", self.pattern.pattern)


LICSAR = FrameIdForm(
    "LiCSAR",
    re.compile(
        r"(?P<track>[0-9]{3})(?P<direction>[AD])_"
        r"(?:(?P<colatitude>[0-9]{5})_(?P<bursts>[0-9]{6})|SM_[A-Z0-9]{2,8}_S[1-6])"
    ),
    "124D_04854_171313 or 144A_SM_REUN_S6",
    LAST_TRACK,
)
#: Id formats of all sources; the first one that an id matches determines its source.
FRAME_ID_FORMS = [LICSAR]
#: Where the ids of frames are found, for messages.
FRAME_ID_HELP = (
    "`hephaestus frames` finds ids by volcano or place, "
    "https://comet.nerc.ac.uk/comet-lics-portal/ shows those of all frames"
)


@dataclass(frozen=True, order=True, repr=False)
class Frame:
    """A frame: a fixed area on the ground, of which a source provides interferograms on one grid.

    Parameters
    ----------
    id : str
        Frame id, such as ``124D_04854_171313`` or ``144A_SM_REUN_S6`` of LiCSAR. Use :meth:`parse` for user
        input.

    Examples
    --------
    >>> Frame("124D_04854_171313").direction
    'D'
    """

    id: str

    def __post_init__(self) -> None:
        if not any(form.pattern.fullmatch(self.id) for form in FRAME_ID_FORMS):
            forms = " or ".join(form.example for form in FRAME_ID_FORMS)
            raise UsageError(f"{self.id!r} is not a frame id: expected the form {forms}; {FRAME_ID_HELP}")

    @classmethod
    def parse(cls, text: str) -> Frame:
        """Return the frame named by `text`, ignoring case and surrounding blanks.

        Raises
        ------
        UsageError
            If `text` is not a frame id.
        """
        return cls(text.strip().upper())

    @property
    def source(self) -> str:
        """Name of the source of its interferograms."""
        return self._parts[0].source

    @property
    def track(self) -> int:
        """Relative orbit, without leading zeros."""
        return int(self._parts[1]["track"])

    @property
    def direction(self) -> str:
        """``A`` for ascending, ``D`` for descending."""
        return self._parts[1]["direction"]

    @property
    def nominal_latitude(self) -> float | None:
        """Latitude of the centre as the id states it, degrees; None where it states none.

        Of the 38 published frames, 34 state it within 0.3 degree, one is off by a degree.
        """
        text = self._parts[1].groupdict().get("colatitude")
        colatitude = int(text) / 100 if text else 0.0
        # Sentinel-1 does not see the poles: such numbers are none
        return 90.0 - colatitude if _POLAR_CAP <= colatitude <= 180 - _POLAR_CAP else None

    @property
    def burst_counts(self) -> tuple[int, ...]:
        """Number of bursts of each swath; empty where the id states none."""
        text = self._parts[1].groupdict().get("bursts") or ""
        return tuple(int(text[start : start + 2]) for start in range(0, len(text), 2))

    @property
    def is_simulated(self) -> bool:
        """Whether the frame exists only in the simulated archive."""
        return not 1 <= self.track <= self._parts[0].last_track

    @property
    def _parts(self) -> tuple[FrameIdForm, re.Match[str]]:
        """The format of the id, and the match of its pattern."""
        matches = ((form, form.pattern.fullmatch(self.id)) for form in FRAME_ID_FORMS)
        return next((form, match) for form, match in matches if match is not None)

    def __repr__(self) -> str:
        return f"Frame({self.id!r})"

    def __str__(self) -> str:
        return self.id


@lru_cache(maxsize=1 << 14)  # few distinct days: a frame of a thousand pairs has a few hundred
def parse_day(text: str) -> date:
    """Parse a day written as ``yyyymmdd`` or ``yyyy-mm-dd``.

    Raises
    ------
    ValueError
        If `text` is not a day in this form.
    """
    plain = text.replace("-", "")
    if not (len(plain) == 8 and plain.isascii() and plain.isdigit()):
        raise ValueError(f"{text!r} is not a day: expected yyyymmdd")
    if not _FIRST_YEAR <= int(plain[:4]) <= _LAST_YEAR:
        raise ValueError(f"{text!r} is not a day of {_FIRST_YEAR} to {_LAST_YEAR}")
    return date(int(plain[:4]), int(plain[4:6]), int(plain[6:]))


class Pair(msgspec.Struct, frozen=True, order=True, dict=True):  # a struct, for fast sorting and hashing
    """The two acquisition dates of an interferogram, the earlier one first.

    Parameters
    ----------
    primary, secondary : datetime.date
        Epochs of the interferogram; `primary` is strictly earlier.

    Examples
    --------
    >>> Pair.parse("20160909_20160921").secondary
    datetime.date(2016, 9, 21)
    """

    primary: date
    secondary: date

    def __post_init__(self) -> None:
        if self.primary >= self.secondary:
            raise ValueError(f"primary {self.primary} is not before secondary {self.secondary}")

    @classmethod
    def parse(cls, text: str) -> Pair:
        """Parse a pair written as ``yyyymmdd_yyyymmdd``.

        Raises
        ------
        ValueError
            If `text` is not a pair in this form.
        """
        match = _PAIR.fullmatch(text)
        if match is None:
            raise ValueError(f"{text!r} is not a pair: expected yyyymmdd_yyyymmdd")
        return cls(parse_day(match[1]), parse_day(match[2]))

    @property
    def dates(self) -> tuple[date, date]:
        """Both epochs, primary first."""
        return self.primary, self.secondary

    @cached_property
    def name(self) -> str:
        """The pair in LiCSAR's form, ``yyyymmdd_yyyymmdd``."""
        return f"{self.primary:%Y%m%d}_{self.secondary:%Y%m%d}"

    def __repr__(self) -> str:
        return f"Pair.parse({self.name!r})"

    def __str__(self) -> str:
        return self.name
