"""Exceptions for users, whose one-line messages state the cause and the next step."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from hephaestus_build.core.plain_text import sanitize_text

log = logging.getLogger(__name__)

_LONGEST = 4000  # maximum length of a message, characters


class HephaestusError(Exception):
    """Base class of errors whose message names the frame, the product and the next step.

    The command line prints only the message and exits with :attr:`exit_code`.
    """

    exit_code = 1

    def __init__(self, message: str) -> None:
        super().__init__(sanitize_text(message, _LONGEST))  # it may quote untrusted text


class MissingProductsError(HephaestusError):
    """The result is written but incomplete; a later run adds the missing products."""

    exit_code = 3


class UsageError(HephaestusError):
    """The request is invalid (an id, an option or a setting); no work was started."""

    exit_code = 2


class UnreachableError(HephaestusError):
    """An archive did not answer; the same request may succeed later."""


class RefusedError(HephaestusError):
    """An archive answered, and refuses access.

    Attributes
    ----------
    status : int or None
        HTTP status of the answer; None where the archive refused in another way.
    """

    def __init__(self, message: str, status: int | None = None) -> None:
        super().__init__(message)
        self.status = status


class FrameBusyError(HephaestusError):
    """Another process writes to the frame; no work was started, and that process adds what is missing."""


@contextmanager
def wrap_unexpected_errors(what: object) -> Iterator[None]:
    """Convert unexpected exceptions to a one-line error, so that other frames can be processed.

    Readers validate their input and raise errors of their own; this covers cases that they do not handle.

    Parameters
    ----------
    what : object
        The frame, or the location of a cube; the message begins with it.

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
