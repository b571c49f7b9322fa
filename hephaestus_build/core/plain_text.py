"""Text from outside as one harmless line: for messages, logs, records and pages."""

from __future__ import annotations

#: Stands for a character that a terminal might take for a command, or that hides what is written.
REPLACEMENT_CHARACTER = "\N{REPLACEMENT CHARACTER}"


def sanitize_text(text: object, limit: int = 500) -> str:
    r"""Return `text` on one line, without control or invisible formatting characters.

    Escape sequences could move the cursor, change the title or write to the clipboard of a terminal;
    formatting characters could reverse the order of what is shown. Each becomes
    :data:`REPLACEMENT_CHARACTER`, white space becomes a blank.

    Parameters
    ----------
    text : object
        What a server, a file or a stranger's cube says; made a string if it is none.
    limit : int
        Characters that are kept; a longer text ends with an ellipsis.

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
