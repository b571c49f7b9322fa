"""Every build of every frame, written down: one line a run in the data folder."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from hephaestus_build.core.atomic_io import append_line, translate_os_errors
from hephaestus_build.core.frames import Frame
from hephaestus_build.core.parsing import parse_json
from hephaestus_build.core.plain_files import open_plain_file
from hephaestus_build.pipeline.result import BuildResult

#: In the data folder.
RUN_LOG = "runs.jsonl"
#: Bytes from the end that are looked through for the last run of each frame: some thousand runs.
_TAIL = 1 << 20
_LISTED = 20


@dataclass(frozen=True)
class BuildRun:
    """What became of one build of one frame.

    Attributes
    ----------
    frame : Frame
        Which.
    began, seconds
        When, UTC, and for how long.
    result : BuildResult or None
        How its build ended; None where it failed.
    error : str
        Why it failed, in one line.
    failure_code : int
        The exit code of a failure.
    exception : Exception or None
        What ended it, for callers who want more than the line.
    """

    frame: Frame
    began: datetime
    seconds: float
    result: BuildResult | None = None
    error: str = ""
    failure_code: int = 1
    exception: Exception | None = None

    @property
    def exit_code(self) -> int:
        """0 when all is there, 1 when it failed, 2 when the request was wrong, 3 when something is owed."""
        return self.result.exit_code if self.result else self.failure_code

    def to_json(self) -> dict[str, Any]:
        """Return the run as JSON values."""
        return {
            "frame": str(self.frame),
            "began": self.began.isoformat(timespec="seconds"),
            "seconds": round(self.seconds, 1),
            "exit_code": self.exit_code,
            **({"error": self.error} if self.error else {}),
            **({"result": self.result.to_json()} if self.result else {}),
        }


def record_run(data: Path, run: BuildRun) -> None:
    """Write `run` down below the folder `data`, with the first products that are owed or accepted as absent.

    Raises
    ------
    HephaestusError
        If the disk refuses it.
    """
    value = run.to_json()
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
    """Return the last run of each frame that was built lately, as it was written down."""
    try:
        with open_plain_file(data, RUN_LOG) as (descriptor, facts):
            lines = os.pread(descriptor, _TAIL, max(0, facts.size - _TAIL)).splitlines()
    except OSError:
        return {}
    runs: dict[str, dict[str, Any]] = {}
    for line in lines:
        try:
            value = parse_json(line)
            runs[str(value["frame"])] = value
        except (ValueError, KeyError, TypeError):
            continue  # cut at either end
    return runs
