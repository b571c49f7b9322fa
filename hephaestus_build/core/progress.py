"""How long work tells how far it is, whoever listens."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Protocol

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from hephaestus_build.core.terminal import PlainConsole


class ProgressListener(Protocol):
    """Whoever wants to know how far a build is."""

    def stage(self, name: str, total: int) -> None:
        """Say that the stage `name` begins, of `total` steps."""

    def advance(self, name: str, steps: int = 1) -> None:
        """Say that so many steps of the stage `name` are done."""

    def note(self, text: str) -> None:
        """Say something that a person should know."""


class NullListener:
    """A listener that does not."""

    def stage(self, name: str, total: int) -> None:
        """Do nothing."""

    def advance(self, name: str, steps: int = 1) -> None:
        """Do nothing."""

    def note(self, text: str) -> None:
        """Do nothing."""


class ProgressBars:
    """A listener that draws bars on a terminal and prints only its notes elsewhere."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._tasks: dict[str, TaskID] = {}

    def stage(self, name: str, total: int) -> None:
        """Add a bar; those that are full make room."""
        for task in self._progress.tasks:
            if task.finished:
                self._progress.remove_task(task.id)
        if total:
            self._tasks[name] = self._progress.add_task(name, total=total)

    def advance(self, name: str, steps: int = 1) -> None:
        """Move a bar on."""
        with suppress(KeyError):  # it was full already
            self._progress.advance(self._tasks[name], steps)

    def note(self, text: str) -> None:
        """Print a line above the bars."""
        self._progress.console.print(text, soft_wrap=True)


@contextmanager
def show_progress_bars(console: PlainConsole | None = None) -> Iterator[ProgressListener]:
    """Show bars on standard error while the block runs, if that is a terminal."""
    # FORCE_COLOR, which notebooks set, makes any file a terminal for rich: colours may go there, bars may not
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
        redirect_stdout=sys.stdout.isatty(),  # what goes to a file is not for the terminal
    )
    with progress:
        yield ProgressBars(progress)
