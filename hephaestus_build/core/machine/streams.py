"""Standard input, output and error of the process: open, and able to take any text."""

from __future__ import annotations

import io
import os
import sys
from contextlib import suppress
from typing import TextIO


def open_standard_streams() -> None:
    """Open the null device in place of standard streams that are closed (``>&-``).

    Otherwise the next file that is opened takes a stream's number, and text is printed into it.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:  # the smallest free number, which is this one
            os.open(os.devnull, os.O_RDONLY if number == 0 else os.O_WRONLY)
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, name) is None:
            mode = "r" if number == 0 else "w"
            setattr(sys, name, os.fdopen(number, mode, encoding="utf-8", closefd=False))


def accept_any_text() -> None:
    """Let standard output and error take any character, whatever the locale.

    The locale POSIX, which says nothing of an encoding, means UTF-8; in others, characters that they lack are
    printed as escapes.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            ascii_only = stream.encoding.lower() in ("ascii", "us-ascii", "ansi_x3.4-1968", "646")
            stream.reconfigure(encoding="utf-8" if ascii_only else None, errors="backslashreplace")


def discard_unprinted(stream: TextIO) -> None:
    """Flush a stream; where that fails, drop what it holds, so that Python's exit does not fail again."""
    try:
        stream.flush()
    except OSError:
        with suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
