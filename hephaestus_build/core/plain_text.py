"""Sanitizing of untrusted text for messages, logs, records and pages."""

from __future__ import annotations

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
