"""A frame that a cluster has not finished, and what its workers have said of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from hephaestus_build.cluster.frame_task import FrameOutcome
from hephaestus_build.core.progress import ProgressListener
from hephaestus_build.pipeline.plan import BuildRequest

if TYPE_CHECKING:
    from distributed import Future


@dataclass
class PendingFrame:
    """A frame that is not finished.

    Attributes
    ----------
    request : BuildRequest
        What to build.
    rank : int
        Its place among the frames, of which the first costs most.
    future : object
        The task on the cluster.
    tries : int
        Tasks that were submitted.
    began : int
        Times that a worker began.
    starts, steps : int
        Times that one began the last task, and steps that it has reported.
    stages : set of str
        Stages that a worker has begun.
    workers : list of str
        The only ones that may build it, if any.
    since : datetime.datetime
        When it was submitted first.
    """

    request: BuildRequest
    rank: int
    future: Future[FrameOutcome] | None = None
    tries: int = 0
    began: int = 0
    starts: int = 0
    steps: int = 0
    stages: set[str] = field(default_factory=set)
    workers: list[str] = field(default_factory=list)
    since: datetime = field(default_factory=lambda: datetime.now(UTC))

    def note_event(self, said: dict[str, Any], shown: ProgressListener) -> None:
        """Note what a worker says, and take back what was shown of one that was lost."""
        self.steps += sum(said["steps"].values())
        match said["kind"]:
            case "began":
                self.began += 1
                self.starts += 1
                for name in self.stages:  # of a worker that was lost
                    shown.stage(name, 0)
                self.stages.clear()
                if self.began > 1:
                    shown.note(f"{said['frame']} goes on on another worker, {said['worker']}")
            case "stage":
                self.stages.add(said["about"]["name"])
