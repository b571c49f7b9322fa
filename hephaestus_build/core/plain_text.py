"""Sanitizing of untrusted text for messages, logs, records and pages."""

from __future__ import annotations

from datetime import UTC, datetime

#: Replaces control and invisible formatting characters.
REPLACEMENT_CHARACTER = "\N{REPLACEMENT CHARACTER}"


def sanitize_text(text: object, limit: int = 500) -> str:
    r"""Return `text` on one line, without control or invisible formatting characters.

    Escape sequences can move the cursor of a terminal, change its title or write to its clipboard, and
    formatting characters can reverse the order of the text. Each becomes :data:`REPLACEMENT_CHARACTER`;
    white space becomes a space.

    Parameters
    ----------
    text : object
        Text from a server, a file or a foreign cube; converted to a string if necessary.
    limit : int
        Maximum length, characters; a longer text is cut and ends with an ellipsis.

    Examples
    --------
    >>> sanitize_text("Not\x1b[2J Found\r\n")
    'Not�[2J Found'
    """
    line = str(text)
    cut = len(line) > limit
    line = line[:limit]
    if not line.isprintable():
        line = "".join(
            character if character.isprintable() else " " if character.isspace() else REPLACEMENT_CHARACTER
            for character in line
        )
    return f"{line.strip()}…" if cut else line.strip()


def count_of(count: int, noun: str, plural: str = "") -> str:
    """Return a number with its noun.

    Examples
    --------
    >>> count_of(1, "map"), count_of(0, "map"), count_of(2, "entry", "entries")
    ('1 map', '0 maps', '2 entries')
    """
    return f"{count} {noun if count == 1 else plural or f'{noun}s'}"


def format_bytes(size: float) -> str:
    """Return a number of bytes in kB, MB, GB or TB.

    Examples
    --------
    >>> format_bytes(512), format_bytes(1_234_567), format_bytes(5.5e10), format_bytes(1.48e13)
    ('0.5 kB', '1.2 MB', '55.00 GB', '14.80 TB')
    """
    if size >= 1e12:
        return f"{size / 1e12:.2f} TB"
    if size >= 1e9:
        return f"{size / 1e9:.2f} GB"
    return f"{size / 1e6:.1f} MB" if size >= 1e6 else f"{size / 1e3:.1f} kB"


def format_duration(seconds: float) -> str:
    """Return a duration in seconds, minutes, hours or days.

    Examples
    --------
    >>> format_duration(9.4), format_duration(200), format_duration(3 * 3600 + 61), format_duration(2e5)
    ('9 s', '3 min 20 s', '3 h 1 min', '2 days 7 h')
    """
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    hours, minutes = divmod(whole // 60, 60)
    if hours >= 48:
        return f"{hours // 24} days {hours % 24} h"
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {whole % 60} s"


def utc_text(moment: datetime | str) -> str:
    """Return a moment as UTC in ISO 8601, to the second; empty for a text that is no moment with a zone.

    Examples
    --------
    >>> utc_text("2026-11-26 17:29:47.167767+02:00")
    '2026-11-26T15:29:47Z'
    """
    try:
        known = datetime.fromisoformat(moment) if isinstance(moment, str) else moment
        if known.tzinfo is None:
            return ""
        return f"{known.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}"
    except (ValueError, OverflowError):
        return ""
