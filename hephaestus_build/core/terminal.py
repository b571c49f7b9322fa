"""Terminal output, logs and JSON that are safe for untrusted text, without markup and control characters."""

from __future__ import annotations

import json
import logging
import math
import os
import re
import sys
import time
import warnings
from collections.abc import Iterable
from datetime import datetime
from logging.handlers import WatchedFileHandler
from pathlib import Path
from typing import Any, TextIO

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment
from rich.text import Text

from hephaestus_build.core.errors import UsageError
from hephaestus_build.core.machine.environment import discard_unusable_size
from hephaestus_build.core.machine.log_lines import (
    OWN_LOGGERS,
    JsonFormatter,
    NoticeFormatter,
    PlainFormatter,
)
from hephaestus_build.core.plain_text import REPLACEMENT_CHARACTER, sanitize_text, utc_text

# Characters that json does not escape: C1 controls, bidirectional and other invisible ones, surrogates.
_NOT_ASCII = re.compile(r"[\x7f-\U0010ffff]")

#: Log of what is said on standard error anyway: it reaches the log file alone.
SPOKEN = logging.getLogger("hephaestus")
SPOKEN.addHandler(logging.NullHandler())
SPOKEN.propagate = False
SPOKEN.setLevel(logging.INFO)


class PlainConsole(Console):
    """A rich console that prints text without markup, highlighting, or control characters of the text."""

    def __init__(self, **options: Any) -> None:
        discard_unusable_size(os.environ)  # rich would print nothing, or fail
        super().__init__(**{"markup": False, "emoji": False, "highlight": False, **options})

    def render_str(self, text: str, **options: Any) -> Text:
        """Convert a string to sanitized text, before the width of a cell is measured."""
        plain = {**options, "markup": False, "emoji": False}  # whatever the caller says
        return super().render_str(_replace_control_characters(text), **plain)

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """Render an object into segments, and remove control characters from text segments."""
        for segment in super().render(renderable, options):
            text, style, control = segment
            yield (
                segment
                if control or text == "\n" or text.isprintable()
                else Segment(_replace_control_characters(text), style)
            )


def _replace_control_characters(text: str) -> str:
    return "".join(
        char if char.isprintable() or char == "\n" else " " if char.isspace() else REPLACEMENT_CHARACTER
        for char in text
    )


class _StandardErrorHandler(logging.StreamHandler[TextIO]):
    """Writes to what standard error is at that moment; with `verbose`, the steps of the command too.

    With `as_json` it also gets what is said on standard error otherwise, which nothing else prints then.
    """

    verbose = False
    as_json = False

    def __init__(self) -> None:
        logging.Handler.__init__(self)
        self.addFilter(_is_ours_or_warning)
        self.set_verbose(False)

    @property
    def stream(self) -> TextIO:  # type: ignore[override]
        return sys.stderr

    def set_verbose(self, verbose: bool) -> None:
        self.verbose = verbose
        self.setLevel(logging.DEBUG if verbose else logging.INFO if self.as_json else logging.WARNING)
        if self.as_json:
            self.setFormatter(JsonFormatter())
        else:
            self.setFormatter(PlainFormatter() if verbose else NoticeFormatter())

    def set_json(self) -> None:
        self.as_json = True
        self.set_verbose(self.verbose)

    def filter(self, record: logging.LogRecord) -> bool | logging.LogRecord:
        # without `verbose`, what is said, but no steps
        if (
            self.as_json
            and not self.verbose
            and record.levelno < logging.WARNING
            and record.name != SPOKEN.name
        ):
            return False
        return super().filter(record)


class _LogFileHandler(WatchedFileHandler):
    """Appends to a log file, which may be moved away meanwhile; a file that fails never ends the command."""

    def __init__(self, path: Path) -> None:
        self._failed = False
        super().__init__(path, encoding="utf-8", errors="backslashreplace")
        self.addFilter(_is_ours_or_warning)
        self.setFormatter(JsonFormatter() if is_log_json() else PlainFormatter())

    def _open(self) -> Any:
        return open(
            self.baseFilename, "a", encoding=self.encoding, errors=self.errors, opener=_open_for_appending
        )

    def emit(self, record: logging.LogRecord) -> None:
        try:
            super().emit(record)
        except OSError:  # the folder is gone, for instance
            self.handleError(record)

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 (of logging)
        error = sys.exc_info()[1]
        if not self._failed:
            self._failed = True
            message = f"the log file {self.baseFilename} cannot be written ({error})"
            print(f"hephaestus: {sanitize_text(message)}", file=sys.stderr)


def _open_for_appending(path: str, flags: int) -> int:
    """Open a file or device; a pipe that nobody reads is an error, where it would wait for ever."""
    descriptor = os.open(path, flags | os.O_NONBLOCK | os.O_CLOEXEC, 0o666)
    os.set_blocking(descriptor, True)
    return descriptor


def configure_logging() -> None:
    """Write warnings of this project and of libraries to standard error, one line each."""
    root = logging.getLogger()
    if not root.handlers:
        root.addHandler(_StandardErrorHandler())
    root.setLevel(logging.WARNING)
    logging.captureWarnings(True)
    # ignored here as well: threads that suppress it concurrently restore each other's filters
    warnings.filterwarnings("ignore", message="Numcodecs codecs are not in the Zarr version 3")
    # it repeats what errors say, and warns of databases that are not asked here
    logging.getLogger("rasterio").setLevel(logging.CRITICAL)


def log_steps() -> None:
    """Write the steps of this project, with times, to standard error."""
    for handler in _standard_error_handlers():
        handler.set_verbose(True)
    logging.getLogger().setLevel(logging.DEBUG)


def are_steps_shown() -> bool:
    """Return whether standard error shows the steps."""
    return any(handler.verbose for handler in _standard_error_handlers())


def log_as_json(run: str = "") -> None:
    """Write everything on standard error and to the log file as JSON, an object a line.

    Call it after :func:`configure_logging`. It lasts as long as the process.

    Parameters
    ----------
    run : str
        Name of the run in the lines; a random one by default.
    """
    JsonFormatter.run = run or JsonFormatter.run
    for handler in _standard_error_handlers():
        handler.set_json()
        if handler not in SPOKEN.handlers:
            SPOKEN.addHandler(handler)
    for each in SPOKEN.handlers:
        if isinstance(each, _LogFileHandler):
            each.setFormatter(JsonFormatter())


def is_log_json() -> bool:
    """Return whether standard error and the log file have JSON."""
    return any(handler.as_json for handler in _standard_error_handlers())


def json_log_run() -> str:
    """Return the name of the run in the lines of JSON; empty where the lines are text."""
    return JsonFormatter.run if is_log_json() else ""


def _standard_error_handlers() -> list[_StandardErrorHandler]:
    return [item for item in logging.getLogger().handlers if isinstance(item, _StandardErrorHandler)]


def log_to_file(path: Path) -> None:
    """Append steps, warnings and all that is said on standard error to a file, with times, a line each.

    Raises
    ------
    UsageError
        If it cannot be written.
    """
    try:
        handler = _LogFileHandler(path)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UsageError(f"--log-file {path} cannot be written ({reason}); name another file") from None
    stop_logging_to_file()
    logging.getLogger().addHandler(handler)
    SPOKEN.addHandler(handler)
    logging.getLogger().setLevel(logging.DEBUG)


def log_file_path() -> Path | None:
    """Return the log file of this process, if there is one."""
    handlers = (handler for handler in SPOKEN.handlers if isinstance(handler, _LogFileHandler))
    return next((Path(handler.baseFilename) for handler in handlers), None)


def stop_logging_to_file() -> None:
    """Close the log file, if there is one."""
    for logger in (logging.getLogger(), SPOKEN):
        for handler in logger.handlers[:]:
            if isinstance(handler, _LogFileHandler):
                logger.removeHandler(handler)
                handler.close()


def _is_ours_or_warning(record: logging.LogRecord) -> bool:
    return record.levelno >= logging.WARNING or record.name.startswith(OWN_LOGGERS)


def utc_now() -> str:
    """Return the present time, UTC, as lines of progress and logs have it."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())


def json_text(value: Any, indent: int | None = 2) -> str:
    r"""Return `value` as strict JSON with invisible characters escaped and other non-ASCII letters kept.

    NaN and infinities become null, moments are in UTC with a Z.

    Examples
    --------
    >>> json_text("Piton é\u202e\x9b", indent=None)
    '"Piton é\\u202e\\u009b"'
    >>> json_text({"highest": float("nan")}, indent=None)
    '{"highest": null}'
    """
    text = json.dumps(_finite(value), indent=indent, default=_text_of, ensure_ascii=False, allow_nan=False)
    return _NOT_ASCII.sub(_escaped, text)


def _text_of(value: object) -> str:
    return utc_text(value) if isinstance(value, datetime) else str(value)


def _finite(value: Any) -> Any:
    """Return `value` with every non-finite float replaced by None, at any depth."""
    match value:
        case float():
            return value if math.isfinite(value) else None
        case dict():
            return {key: _finite(item) for key, item in value.items()}
        case list() | tuple():
            return [_finite(item) for item in value]
    return value


def _escaped(match: re.Match[str]) -> str:
    character = match[0]
    if character.isprintable():
        return character
    return f"\\u{ord(character):04x}" if ord(character) < 1 << 16 else json.dumps(character)[1:-1]


def sanitize_lines(text: str) -> str:
    """Return multi-line text without control characters other than line ends."""
    return _replace_control_characters(text.expandtabs(4))
