"""Simulation, within the test process, of a process that is killed at one change of the file system.

Python raises an audit event before every change of the file system. At the chosen event an uncaught exception
is raised, and every later change is refused, since cleanup handlers would not run in a killed process. The
disk is then in the state that a killed process leaves.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

#: Audit events (:func:`sys.audit`) of changes to the file system; renames include replacements.
_CHANGES = ("os.rename", "os.link", "os.symlink", "os.mkdir", "os.rmdir", "os.remove", "os.truncate")
_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT
#: Content of a file whose writing was interrupted.
TORN = b"torn"


class Killed(BaseException):
    """Raised when the simulated process is killed."""


class KillSwitch:
    """Kill some work at one of its changes of the file system.

    Parameters
    ----------
    steps : int
        Number of changes that succeed. The next one fails; if it creates a file, the file is left with part
        of its content.
    marker : str
        Name of a file; counting starts at the first change of it.
    """

    def __init__(self, steps: int, marker: str = "") -> None:
        self.steps, self.marker = steps, marker
        self._root = ""
        self._tearing = 0  # id of the thread that writes the partial file
        self.passed = 0
        self.dead = False
        self._begun = not marker
        self._lock = threading.RLock()

    def __repr__(self) -> str:
        return f"KillSwitch({self.steps}, {self.marker!r})"

    def run(self, work: Callable[[], object], root: Path) -> bool:
        """Do the work, and return whether it was killed.

        Only changes below `root`, or relative to a folder's file descriptor, are counted.
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
        """Count a change; raise Killed at the chosen one and all later ones."""
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
        """Write a partial file, as a process leaves it that is killed while writing."""
        self._tearing = threading.get_ident()
        try:
            path.write_bytes(TORN)
        finally:
            self._tearing = 0

    def _refuse(self, path: Path) -> None:
        if path.name == "lock.json":
            # OSError lets the surrounding block go on to release the lock, as the end of a process does
            raise OSError(f"{path} stays, the process was killed")
        raise Killed(path)


_armed: KillSwitch | None = None
_installed = False


def _install() -> None:
    """Install the audit hook. It cannot be removed, but does nothing unless a switch is armed."""
    global _installed
    if not _installed:
        _installed = True
        sys.addaudithook(_hook)


def _hook(event: str, arguments: tuple[Any, ...]) -> None:
    if _armed is not None:
        _armed.on_event(event, arguments)
