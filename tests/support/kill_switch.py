"""A process that is killed at one change of the file system, simulated inside the process of the tests.

Python announces every change of the file system as an audit event before it happens. At the chosen one an
exception that nothing catches is raised, and from then on every further change is refused: handlers that
clean up run in a living process only. What is on the disk afterwards is what a killed process leaves.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

#: Events of :mod:`sys.audit` that announce a change; renames include replacements.
_CHANGES = ("os.rename", "os.link", "os.symlink", "os.mkdir", "os.rmdir", "os.remove", "os.truncate")
_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT
#: Left of a file that was being written.
TORN = b"torn"


class Killed(BaseException):
    """The simulated process has ended."""


class KillSwitch:
    """Ends some work at one of its changes of the file system.

    Parameters
    ----------
    steps : int
        Which change is the last one, counted from 0; it does not happen any more, but for a file that is
        created: that one is left with a part of its content.
    marker : str
        A name of a file from whose first change on steps are counted.
    """

    def __init__(self, steps: int, marker: str = "") -> None:
        self.steps, self.marker = steps, marker
        self._root = ""
        self._tearing = 0  # the thread that does
        self.passed = 0
        self.dead = False
        self._begun = not marker
        self._lock = threading.RLock()

    def __repr__(self) -> str:
        return f"KillSwitch({self.steps}, {self.marker!r})"

    def run(self, work: Callable[[], object], root: Path) -> bool:
        """Do the work, and return whether it was killed.

        Of paths only those below `root` count, and those that are named by the descriptor of a folder.
        """
        global _armed
        _install()
        assert _armed is None
        self._root, _armed = str(root), self
        try:
            work()
        except Killed:
            pass
        finally:
            _armed = None
        return self.dead

    def on_event(self, event: str, arguments: tuple[Any, ...]) -> None:
        """Count a change; raise Killed at the chosen one and at all that follow."""
        if event == "open":
            path, _, flags = arguments
            if not isinstance(flags, int) or not flags & _WRITES or isinstance(path, int):
                return
        elif event in _CHANGES:
            path = arguments[0]
        else:
            return
        if self._tearing == threading.get_ident():
            return
        changed = Path(os.fsdecode(path))
        if changed.is_absolute() and not changed.is_relative_to(self._root):
            return
        with self._lock:
            self._begun = self._begun or changed.name.strip(".").startswith(self.marker)
            if not self._begun:
                return
            self.passed += 1
            if self.passed > self.steps:
                if not self.dead and event == "open" and flags & os.O_CREAT and changed.is_absolute():
                    self._tear(changed)
                self.dead = True
                self._refuse(changed)

    def _tear(self, path: Path) -> None:
        """Leave a file as a process does that is killed while it writes it."""
        self._tearing = threading.get_ident()
        try:
            path.write_bytes(TORN)
        finally:
            self._tearing = 0

    def _refuse(self, path: Path) -> None:
        if path.name == "lock.json":
            # the block that removes it releases the lock next, as the end of a process does
            raise OSError(f"{path} stays, the process was killed")
        raise Killed(path)


_armed: KillSwitch | None = None
_installed = False


def _install() -> None:
    """Have events reported. A hook cannot be taken away; it does nothing unless a switch is armed."""
    global _installed
    if not _installed:
        _installed = True
        sys.addaudithook(_hook)


def _hook(event: str, arguments: tuple[Any, ...]) -> None:
    if _armed is not None:
        _armed.on_event(event, arguments)
