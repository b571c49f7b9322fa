"""The errors that a person can act on: each message is one line and says what to do next."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from hephaestus_build.core.plain_text import sanitize_text

log = logging.getLogger(__name__)

_LONGEST = 4000  # characters of a message


class HephaestusError(Exception):
    """Something is wrong; the message names the frame, the product and the next step.

    The command line prints the message alone and exits with :attr:`exit_code_for_state`.
    """

    exit_code = 1

    def __init__(self, message: str) -> None:
        super().__init__(sanitize_text(message, _LONGEST))  # it may quote what others wrote


class MissingProductsError(HephaestusError):
    """The work is done as far as it can be and written; something is missing, and a later run adds it."""

    exit_code = 3


class UsageError(HephaestusError):
    """The request itself is wrong (an id, an option, a setting); nothing was tried."""

    exit_code = 2


class UnreachableError(HephaestusError):
    """An archive did not answer; nothing is wrong here, and the same may go well later."""


@contextmanager
def wrap_unexpected_errors(what: object) -> Iterator[None]:
    """Turn all that reading one frame's odd record may raise into one line, so that others go on.

    Readers check what they read; this is for what they did not foresee.

    Parameters
    ----------
    what : object
        A frame, or where a cube is: what the line begins with.

    Raises
    ------
    HephaestusError
        In place of any other exception.
    """
    try:
        yield
    except HephaestusError:
        raise
    except Exception as error:
        log.debug("%s", what, exc_info=True)
        where = getattr(error, "filename", None)
        reason = getattr(error, "strerror", None) or error
        raise HephaestusError(
            f"{what}: it cannot be read ({type(error).__name__}: {reason}{f', {where}' if where else ''}); "
            f"run the same command with `hephaestus -v` to see where"
        ) from error
