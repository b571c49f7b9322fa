"""Perpendicular baselines of a frame's acquisitions: the portal's small file ``metadata/baselines``."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date

from hephaestus_build.core.frames import Pair, parse_day

#: Lines of a file, at most; Sentinel-1 has seen no frame on 2,000 days.
MAX_LINES = 20_000
#: Line of a file that the simulated archive serves.
SIMULATED_MARK = "# simulated"
# Metres; the orbits stay within some hundred of each other.
_MAX_BASELINE = 10_000.0


@dataclass(frozen=True, repr=False)
class EpochBaselines:
    """Where the satellite was at each acquisition of a frame, beside where it was at one of them.

    Attributes
    ----------
    reference : datetime.date
        The acquisition that the others are compared with.
    metres : dict of datetime.date to float
        Perpendicular baseline of each acquisition to the reference, m; 0 for the reference itself.
    is_simulated : bool
        Whether the file says of itself that it is simulated.
    """

    reference: date
    metres: Mapping[date, float] = field(default_factory=dict)
    is_simulated: bool = False

    def __repr__(self) -> str:
        return f"<EpochBaselines of {len(self.metres)} acquisitions to {self.reference}>"

    def of_pair(self, pair: Pair) -> float:
        r"""Return the perpendicular baseline of a pair, m: the secondary's less the primary's.

        NaN where the file has not both acquisitions.

        Examples
        --------
        >>> orbit = parse_baselines("20201210 20210103 40 24\n20201210 20210115 -25.5 36")
        >>> orbit.of_pair(Pair.parse("20210103_20210115"))
        -65.5
        """
        primary, secondary = (self.metres.get(day, math.nan) for day in pair.dates)
        return secondary - primary


def parse_baselines(text: str) -> EpochBaselines:
    """Return what a ``baselines`` file says.

    Its lines are ``reference acquisition perpendicular temporal``: two dates, metres and days. Lines that
    are none, whose days are not those between their dates, or that have another reference than most are
    left out, and so are comments (``#``). Of several lines for one acquisition the last counts, since the
    archive appends what it computes again.

    Parameters
    ----------
    text : str
        Content of the file.

    Raises
    ------
    ValueError
        If it has no such line, or more than :data:`MAX_LINES` lines.
    """
    lines = text.splitlines()
    if len(lines) > MAX_LINES:
        raise ValueError(f"it has more than {MAX_LINES} lines")
    entries = [entry for line in lines if (entry := _parse_line(line)) is not None]
    if not entries:
        raise ValueError("it has no line of the form: reference acquisition metres days")
    [(reference, _)] = Counter(entry[0] for entry in entries).most_common(1)
    metres = {day: value for start, day, value in entries if start == reference}
    return EpochBaselines(reference, {**metres, reference: 0.0}, SIMULATED_MARK in lines)


def _parse_line(line: str) -> tuple[date, date, float] | None:
    fields = line.split()
    if len(fields) != 4 or line.startswith("#"):
        return None
    try:
        reference, day = parse_day(fields[0]), parse_day(fields[1])
        metres, days = float(fields[2]), float(fields[3])
    except ValueError:
        return None
    if not abs(metres) <= _MAX_BASELINE or days != (day - reference).days:
        return None
    return reference, day, metres
