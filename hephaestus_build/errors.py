"""The errors that a person can act on: each message is one line and says what to do next."""

from __future__ import annotations

from hephaestus_build.plain_text import plain_text

_LONGEST = 4000  # characters of a message


class HephaestusError(Exception):
    """Something is wrong; the message names the frame, the product and the next step.

    The command line prints the message alone and exits with :attr:`exit_code`.
    """

    exit_code = 1

    def __init__(self, message: str) -> None:
        super().__init__(plain_text(message, _LONGEST))  # it may quote what others wrote


class OwedError(HephaestusError):
    """The work is done as far as it can be and written; something is missing, and a later run adds it."""

    exit_code = 3


class UsageError(HephaestusError):
    """The request itself is wrong (an id, an option, a setting); nothing was tried."""

    exit_code = 2


class UnreachableError(HephaestusError):
    """An archive did not answer; nothing is wrong here, and the same may go well later."""
