"""Lines of logs: plain or JSON, one for each record, without control characters and secrets of addresses."""

from __future__ import annotations

import json
import logging
import os
import re
import time
import uuid

from hephaestus_build.core.frames import FRAME_ID_FORMS
from hephaestus_build.core.plain_text import sanitize_text

#: Beginning of the names of this project's loggers, whose records say what a command does.
OWN_LOGGERS = "hephaestus"
_LONGEST = 20_000  # maximum length of a log record, characters; a traceback is part of one
# Login and query of an address, which may be secret.
_ADDRESS = re.compile(r"(\w://)(?:[^\s/'\"]*@)?([^\s?#'\"]*)(?:[?#][^\s'\")]*)?")
_QUERY = re.compile(r"(?<=\S)\?[^\s=]+=[^\s'\")]*")
_FRAME = re.compile("|".join(rf"\b{form.plain_pattern}\b" for form in FRAME_ID_FORMS))


class PlainFormatter(logging.Formatter):
    """Formatter that writes each log record, including its traceback, on one sanitized line.

    Times are in UTC. Logins and queries of addresses are removed, since they may be secret.
    """

    converter = staticmethod(time.gmtime)
    default_time_format = "%Y-%m-%dT%H:%M:%SZ"
    default_msec_format = ""

    def __init__(self, line: str = "%(asctime)s %(levelname)s %(name)s: %(message)s") -> None:
        super().__init__(line)

    def format(self, record: logging.LogRecord) -> str:
        """Format a record."""
        text = _ADDRESS.sub(r"\1\2", super().format(record))
        return sanitize_text(_QUERY.sub("", text), _LONGEST)


class NoticeFormatter(PlainFormatter):
    """Writes warnings like other lines of the program; one of a library begins with the library's name."""

    def __init__(self) -> None:
        super().__init__("%(message)s")

    def format(self, record: logging.LogRecord) -> str:
        """Format a record."""
        source = "" if record.name.startswith(OWN_LOGGERS) else f"{sanitize_text(record.name)}: "
        return f"hephaestus: {source}{super().format(record)}"


class JsonFormatter(PlainFormatter):
    """Formatter that writes each log record as one line of JSON (``--log-format json``).

    Attributes
    ----------
    run : str
        Name of this run of the command, the same on all of its lines.
    """

    run = uuid.uuid4().hex[:12]

    def __init__(self) -> None:
        super().__init__("%(message)s")

    def format(self, record: logging.LogRecord) -> str:
        """Format a record; ``frame`` is there if the message names exactly one."""
        message = super().format(record).removeprefix("hephaestus: ")
        frames = set(_FRAME.findall(message))
        moment = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        return json.dumps(
            {
                "time": f"{moment}.{int(record.msecs):03}Z",
                "level": record.levelname.lower(),
                "message": message,
                **({"frame": frames.pop()} if len(frames) == 1 else {}),
                "run": self.run,
                "process": os.getpid(),
                "logger": sanitize_text(record.name),
            }
        )
