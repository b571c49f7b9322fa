"""Progress reporting of long operations to a listener, such as progress bars."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Protocol

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from hephaestus_build.core.terminal import PlainConsole


class ProgressListener(Protocol):
    """Protocol of objects that receive progress events."""

    def stage(self, name: str, total: int) -> None:
        """Report the start of the stage `name`, which has `total` steps."""

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
    """A listener that draws progress bars on a terminal, and prints only messages elsewhere."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._tasks: dict[str, TaskID] = {}

    def stage(self, name: str, total: int) -> None:
        """Add a bar, and remove completed ones."""
        for task in self._progress.tasks:
            if task.finished:
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


@contextmanager
def show_progress_bars(console: PlainConsole | None = None) -> Iterator[ProgressListener]:
    """Show progress bars on standard error during the block, if it is a terminal."""
    # with FORCE_COLOR, which notebooks set, rich treats any file as a terminal, but bars must not go to files
    drawn = console.is_terminal if console else sys.stderr.isatty()
    console = console or PlainConsole(stderr=True)
    progress = Progress(
        TextColumn("{task.description:>24}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=console,
        disable=not drawn,
        transient=True,
        redirect_stdout=sys.stdout.isatty(),  # redirected output must not go to the terminal
    )
    with progress:
        yield ProgressBars(progress)
