"""Perpendicular baselines of a frame's acquisitions: the portal's small file ``metadata/baselines``."""

from __future__ import annotations

from collections import Counter
from datetime import date

from hephaestus_build.core.frames import parse_day
from hephaestus_build.sources.interferograms import EpochBaselines

#: Lines of a file, at most; Sentinel-1 has seen no frame on 2,000 days.
MAX_LINES = 20_000
#: Line of a file that the simulated archive serves.
SIMULATED_MARK = "# simulated"
# Metres; the orbits stay within some hundred of each other.
_MAX_BASELINE = 10_000.0


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
