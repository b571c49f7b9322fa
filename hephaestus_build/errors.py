"""The errors that a person can act on: each message is one line and says what to do next."""


class HephaestusError(Exception):
    """Something is owed or wrong; the message names the frame, the product and the next step.

    The command line prints the message alone and exits with :attr:`exit_code`.
    """

    exit_code = 1


class UsageError(HephaestusError):
    """The request itself is wrong (an id, an option, a setting); nothing was tried."""

    exit_code = 2


class UnreachableError(HephaestusError):
    """An archive did not answer; nothing is wrong here, and the same may go well later."""
