"""Log of runs: one line for each build of a frame, in the data folder."""

from __future__ import annotations

import json
import logging
import os
import re
import time
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from hephaestus_build.core.atomic_io import append_line, translate_os_errors
from hephaestus_build.core.errors import FrameBusyError, HephaestusError
from hephaestus_build.core.frames import Frame
from hephaestus_build.core.parsing import parse_json
from hephaestus_build.core.plain_files import open_plain_file
from hephaestus_build.core.plain_text import format_duration, sanitize_text, utc_text

if TYPE_CHECKING:
    from hephaestus_build.pipeline.missing_products import MissingProduct
    from hephaestus_build.pipeline.result import BuildResult

log = logging.getLogger(__name__)

#: In the data folder.
RUN_LOG = "runs.jsonl"
#: Bytes from the end that are looked through for the last run of each frame: some ten thousand runs.
_TAIL = 16 << 20
#: Beginning of the lines that this program writes; of each frame the last line alone is parsed.
_FRAME_OF_LINE = re.compile(rb'\{"frame": "([0-9A-Z_]{1,40})"')
_LISTED = 20


@dataclass(frozen=True)
class BuildRun:
    """One build of one frame.

    Attributes
    ----------
    frame : Frame
        The frame.
    began, seconds
        Start, UTC, and duration.
    result : BuildResult or None
        Result; None if the build failed.
    error : str
        Cause of the failure, or what is wrong with the archive's listing, one line.
    failure_code : int
        Exit code of the failure.
    exception : Exception or None
        The exception that ended the build.
    """

    frame: Frame
    began: datetime
    seconds: float
    result: BuildResult | None = None
    error: str = ""
    failure_code: int = 1
    exception: Exception | None = None

    @property
    def missing(self) -> tuple[MissingProduct, ...]:
        """The products for want of which it failed; empty where it failed for another reason."""
        return getattr(self.exception, "missing", ())

    @property
    def is_skipped(self) -> bool:
        """Whether another build was at work on the frame."""
        return isinstance(self.exception, FrameBusyError)

    @property
    def exit_code(self) -> int:
        """0 if complete, 1 if it failed, 2 if the request was wrong, 3 if something is owed."""
        return self.result.exit_code if self.result else self.failure_code

    def to_json(self) -> dict[str, Any]:
        """Return the run as JSON values."""
        return {
            "frame": str(self.frame),
            "began": utc_text(self.began),
            "seconds": round(self.seconds, 1),
            "exit_code": self.exit_code,
            **({"error": self.error} if self.error else {}),
            **({"owed": [item.to_json() for item in self.missing]} if self.missing else {}),
            **({"result": self.result.to_json()} if self.result else {}),
        }


class RecordedRun:
    """Context manager of one build of one frame, which writes it down in the log of runs as it ends.

    A build that another one forestalls is not written down: the frame's last run is the one that is at work.

    Parameters
    ----------
    frame : Frame
        The frame.
    data : pathlib.Path or None
        Folder of the log; None to write nothing.

    Attributes
    ----------
    result : BuildResult or None
        To be set within the block.
    run : BuildRun
        The run, once the block has ended; an exception goes on from there.
    """

    run: BuildRun

    def __init__(self, frame: Frame, data: Path | None) -> None:
        self.result: BuildResult | None = None
        self._frame, self._data = frame, data

    def __enter__(self) -> Self:
        self._began, self._clock = datetime.now(UTC), time.monotonic()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None and not isinstance(error, Exception):
            return  # stopped
        self.run = self._describe(error)
        outcome = "skipped" if self.run.is_skipped else "failed" if error else "built"
        log.info("%s: %s in %s", self._frame, outcome, format_duration(self.run.seconds))
        if self._data is not None:
            record_finished_run(self._data, self.run)

    def _describe(self, error: Exception | None) -> BuildRun:
        seconds, said, code = time.monotonic() - self._clock, "", 1
        if isinstance(error, HephaestusError):
            said, code = str(error), error.exit_code
        elif error is not None:  # an error of this program
            log.debug("%s", self._frame, exc_info=error)
            what = " ".join(f"{type(error).__name__}: {error}".split())
            said = f"{self._frame}: {what}; `hephaestus -v build {self._frame}` says more"
        elif self.result is not None:
            said = self.result.retraction
        result = self.result if error is None else None
        return BuildRun(self._frame, self._began, seconds, result, said, code, error)


def record_finished_run(data: Path, run: BuildRun) -> None:
    """Append `run` to the log in the folder `data`, unless another build was at work on the frame."""
    if not run.is_skipped:
        with suppress(HephaestusError):  # a full disk has been reported by the run itself
            record_run(data, run)


def record_run(data: Path, run: BuildRun) -> None:
    """Append `run` to the log in the folder `data`, with the first owed and accepted products.

    Raises
    ------
    HephaestusError
        If it cannot be written.
    """
    value = run.to_json()
    if run.missing:
        value |= {"owed": value["owed"][:_LISTED], "owed_products": len(run.missing)}
    if run.result is not None:
        value["result"] |= {
            "owed": value["result"]["owed"][:_LISTED],
            "owed_products": len(run.result.owed),
            "accepted": value["result"]["accepted"][:_LISTED],
            "accepted_products": len(run.result.accepted),
        }
    with translate_os_errors(f"{run.frame}: writing down the run in {data / RUN_LOG}"):
        append_line(data / RUN_LOG, json.dumps(value, ensure_ascii=False, default=str) + "\n")


def read_last_runs(data: Path) -> dict[str, dict[str, Any]]:
    """Return the last logged run of each recently built frame."""
    runs: dict[str, dict[str, Any]] = {}
    for line in reversed(_read_tail(data)):
        named = _FRAME_OF_LINE.match(line)
        if named and named[1].decode() in runs:
            continue
        try:
            value = parse_json(line)
            runs.setdefault(str(value["frame"]), value)
        except (ValueError, KeyError, TypeError):
            continue  # cut at either end
    return runs


def read_log_tail(data: Path, lines: int) -> list[str]:
    """Return the last lines of the log in the folder `data`, as text without control characters."""
    return [sanitize_text(line.decode(errors="replace"), 20_000) for line in _read_tail(data)[-lines:]]


def _read_tail(data: Path) -> list[bytes]:
    try:
        with open_plain_file(data, RUN_LOG) as (descriptor, facts):
            return os.pread(descriptor, _TAIL, max(0, facts.size - _TAIL)).splitlines()
    except OSError:
        return []
