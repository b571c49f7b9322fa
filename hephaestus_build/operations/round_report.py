"""What ``watch`` tells the outside after each round: overdue frames, metrics and a heartbeat."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path

from hephaestus_build.core.atomic_io import require_replaceable
from hephaestus_build.core.errors import UsageError
from hephaestus_build.core.frames import Frame
from hephaestus_build.core.settings import Settings
from hephaestus_build.download.traffic import TRAFFIC
from hephaestus_build.operations.heartbeat import send_heartbeat
from hephaestus_build.operations.run_log import BuildRun
from hephaestus_build.operations.status import describe_overdue, read_frame_status
from hephaestus_build.operations.watch_metrics import RoundFacts, write_metrics_file


class RoundReporter:
    """Reports the rounds of ``watch``. Nothing that fails here ends it.

    Parameters
    ----------
    frames : sequence of Frame
        All frames that are watched.
    settings : Settings
        Folders, and what is to be reported.
        With ``metrics_file``, the file that is replaced by the metrics after each round.

    Raises
    ------
    UsageError
        If the folder of that file is missing, or a folder has its name.
    """

    def __init__(self, frames: Sequence[Frame], settings: Settings) -> None:
        self._frames, self._settings, self._metrics = frames, settings, settings.metrics_file
        if (file := self._metrics) is not None:
            _require_file_in_folder(file)
        self.begin()

    def begin(self) -> None:
        """Note the beginning of a round."""
        self._began = datetime.now(UTC)
        self._received, self._answers = TRAFFIC.received_bytes, TRAFFIC.answers

    def end(self, runs: Sequence[BuildRun], left_out: int) -> Iterator[str]:
        """Report a round.

        Parameters
        ----------
        runs : sequence of BuildRun
            The run of each frame that was looked at.
        left_out : int
            Number of frames that were not due.

        Yields
        ------
        str
            Each thing that should be said, one line.
        """
        now = datetime.now(UTC)
        facts = RoundFacts(
            self._began,
            now,
            runs,
            left_out,
            TRAFFIC.received_bytes - self._received,
            TRAFFIC.answers - self._answers,
        )
        statuses = [read_frame_status(self._settings, frame, now.date(), {}) for frame in self._frames]
        if line := describe_overdue(statuses, self._settings.overdue_days, now.date()):
            yield line
        if self._metrics is not None:
            try:
                write_metrics_file(self._metrics, facts, statuses)
            except OSError as error:
                reason = error.strerror or error
                yield f"--metrics {self._metrics} cannot be written ({reason}); check its disk"
        if facts.is_good and (fault := send_heartbeat(self._settings)):
            yield fault


def _require_file_in_folder(file: Path) -> None:
    """Raise UsageError if no file of that name can be replaced again and again."""
    try:
        require_replaceable(file)
        usable = not file.is_dir() and file.parent.is_dir()
    except OSError:
        usable = False
    if not usable:
        raise UsageError(
            f"{file} is no file in an existing folder; name another by --metrics or metrics_file"
        )
