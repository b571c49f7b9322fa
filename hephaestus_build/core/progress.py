"""Progress reporting of long operations to a listener, such as bars on a terminal or lines in a log."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Protocol

from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from hephaestus_build.core.plain_text import format_duration
from hephaestus_build.core.terminal import SPOKEN, PlainConsole, are_steps_shown, is_log_json, utc_now

_LEAST_SECONDS = 5.0  # between two lines
_MOST_SECONDS = 30.0  # without one


class ProgressListener(Protocol):
    """Protocol of objects that receive progress events."""

    def stage(self, name: str, total: int) -> None:
        """Report the start of the stage `name`, which has `total` steps; one that had begun starts over."""

    def advance(self, name: str, steps: int = 1) -> None:
        """Report that further steps of the stage `name` are done."""

    def note(self, text: str) -> None:
        """Report a message for the user."""


class NullListener:
    """A listener that ignores every event."""

    def stage(self, name: str, total: int) -> None:
        """Do nothing."""

    def advance(self, name: str, steps: int = 1) -> None:
        """Do nothing."""

    def note(self, text: str) -> None:
        """Do nothing."""


class ProgressBars:
    """A listener that draws progress bars on a terminal."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._tasks: dict[str, TaskID] = {}

    def stage(self, name: str, total: int) -> None:
        """Add a bar, and remove completed ones and an earlier one of the same name."""
        begun_before = self._tasks.pop(name, None)
        for task in self._progress.tasks:
            if task.finished or task.id == begun_before:
                self._progress.remove_task(task.id)
        if total:
            self._tasks[name] = self._progress.add_task(name, total=total)

    def advance(self, name: str, steps: int = 1) -> None:
        """Advance a bar."""
        with suppress(KeyError):  # already completed and removed
            self._progress.advance(self._tasks[name], steps)

    def note(self, text: str) -> None:
        """Print a message above the bars."""
        self._progress.console.print(text, soft_wrap=True)


class ProgressLines:
    """A listener that writes a line every 10 % of a stage, at most every 5 s, and at least every 30 s.

    A line has the time, UTC, and how far each unfinished stage is.

    Parameters
    ----------
    write : callable
        Receives the lines.
    clock : callable
        Returns the time in seconds.
    """

    def __init__(self, write: Callable[[str], None], clock: Callable[[], float] = time.monotonic) -> None:
        self._write, self._clock = write, clock
        self._lock = threading.Lock()
        self._began = self._last = clock()
        self._stages: dict[str, _StageProgress] = {}

    def stage(self, name: str, total: int) -> None:
        """Add a stage; one of the same name starts over."""
        with self._lock:
            self._stages.pop(name, None)
            if total:
                self._stages[name] = _StageProgress(total)

    def advance(self, name: str, steps: int = 1) -> None:
        """Count steps, and write a line when a further tenth of the stage is done."""
        with self._lock:
            if stage := self._stages.get(name):
                stage.done += steps
        self.tick()

    def note(self, text: str) -> None:
        """Ignore a message: it is shown by others."""

    def tick(self) -> None:
        """Write a line if it is time to."""
        with self._lock:
            now = self._clock()
            news = any(stage.tenth > stage.written for stage in self._stages.values())
            if now - self._last < (_LEAST_SECONDS if news else _MOST_SECONDS):
                return
            self._last = now
            parts: dict[str, list[str]] = {}
            for name, stage in self._stages.items():
                owner, _, kind = name.rpartition(": ")
                parts.setdefault(owner, []).append(f"{kind} {stage}")
            for stage in self._stages.values():
                stage.written = stage.tenth
            self._stages = {name: one for name, one in self._stages.items() if one.done < one.total}
            after = format_duration(now - self._began)
        said = (f"{owner}{': ' if owner else ''}{', '.join(kinds)}" for owner, kinds in parts.items())
        self._write(f"{utc_now()} {'; '.join(said) or 'at work'}, after {after}")


@dataclass
class _StageProgress:
    total: int
    done: int = 0
    written: int = 0

    @property
    def tenth(self) -> int:
        return 10 * self.done // self.total

    def __str__(self) -> str:
        return f"{self.done} of {self.total} ({100 * self.done // self.total} %)"


class PrefixedListener:
    """A listener that puts a name, such as that of the frame, before those of stages."""

    def __init__(self, listener: ProgressListener, name: str) -> None:
        self._listener, self._name = listener, name

    def stage(self, name: str, total: int) -> None:
        """Pass on the start of a stage."""
        self._listener.stage(f"{self._name}: {name}", total)

    def advance(self, name: str, steps: int = 1) -> None:
        """Pass on that steps are done."""
        self._listener.advance(f"{self._name}: {name}", steps)

    def note(self, text: str) -> None:
        """Pass on a message."""
        self._listener.note(text)


class _RateColumn(ProgressColumn):
    """Steps a second over the last half minute; a minute where there are fewer."""

    def render(self, task: Task) -> Text:
        return Text(format_rate(task.speed), style="progress.data.speed")


def format_rate(steps_per_second: float | None) -> str:
    """Return how fast a stage goes on, in steps a second, or a minute where that is below one.

    Examples
    --------
    >>> format_rate(12.34), format_rate(0.05), format_rate(None)
    ('12.3/s', '3.0/min', '')
    """
    if not steps_per_second:
        return ""
    if steps_per_second >= 1:
        return f"{steps_per_second:.1f}/s"
    return f"{60 * steps_per_second:.1f}/min"


class _ListenerGroup:
    """A listener that passes every event on to several."""

    def __init__(self, *listeners: ProgressListener) -> None:
        self._listeners = listeners

    def stage(self, name: str, total: int) -> None:
        for listener in self._listeners:
            listener.stage(name, total)

    def advance(self, name: str, steps: int = 1) -> None:
        for listener in self._listeners:
            listener.advance(name, steps)

    def note(self, text: str) -> None:
        SPOKEN.info("%s", text)
        for listener in self._listeners:
            listener.note(text)


@contextmanager
def show_progress(console: PlainConsole | None = None, *, quiet: bool = False) -> Iterator[ProgressListener]:
    """Show progress on standard error during the block: as bars on a terminal, elsewhere as lines.

    The log file gets the lines in either case. Where the steps are shown, no bars are drawn.

    Parameters
    ----------
    console : PlainConsole, optional
        The console of standard error.
    quiet : bool
        Whether to show no messages where standard error is no terminal.
    """
    # with FORCE_COLOR, which notebooks set, rich treats any file as a terminal, but bars must not go to files
    drawn = console.is_terminal if console else sys.stderr.isatty()
    logged = is_log_json()  # then the log is all that is on standard error
    drawn = drawn and not are_steps_shown() and not logged
    console = console or PlainConsole(stderr=True)
    progress = Progress(
        TextColumn("{task.description:>24}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        _RateColumn(),
        TimeRemainingColumn(),
        console=console,
        disable=not drawn,
        transient=True,
        redirect_stdout=sys.stdout.isatty(),  # redirected output must not go to the terminal
    )

    def write(line: str) -> None:
        SPOKEN.info("%s", line.partition(" ")[2])
        if not drawn and not logged:
            console.print(line, soft_wrap=True)

    lines, ended = ProgressLines(write), threading.Event()

    def watch() -> None:
        with suppress(OSError, ValueError):  # nobody reads standard error any more
            while not ended.wait(1.0):
                lines.tick()

    threading.Thread(target=watch, name="progress", daemon=True).start()
    try:
        with progress:
            yield _ListenerGroup(
                *([] if logged or (quiet and not drawn) else [ProgressBars(progress)]), lines
            )
    finally:
        ended.set()
