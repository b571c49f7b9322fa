"""Parser of the portal's file ``metadata/baselines``: perpendicular baselines of a frame's acquisitions."""

from __future__ import annotations

from collections import Counter
from datetime import date

from hephaestus_build.core.frames import parse_day
from hephaestus_build.sources.interferograms import EpochBaselines

#: Largest number of lines; no frame has 2,000 acquisitions.
MAX_LINES = 20_000
#: Comment line that marks a file of the simulated archive.
SIMULATED_MARK = "# simulated"
# Metres; Sentinel-1's baselines are a few hundred at most.
_MAX_BASELINE = 10_000.0


def parse_baselines(text: str) -> EpochBaselines:
    """Parse a ``baselines`` file.

    Its lines are ``reference acquisition perpendicular temporal``: two dates, metres and days. Skipped are
    comments (``#``), malformed lines, lines whose days do not match their dates, and lines with another
    reference than most. If an acquisition has several lines, the last is used, since the archive appends
    recomputed values.

    Parameters
    ----------
    text : str
        Content of the file.

    Raises
    ------
    ValueError
        If there is no valid line, or more than :data:`MAX_LINES` lines.
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
