"""One writer at a time, and nothing left of those that were killed."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from hephaestus_build.errors import HephaestusError

_UNFINISHED = re.compile(r"\..+\.[0-9a-f]{12}")


@contextmanager
def alone(target: Path) -> Iterator[None]:
    """Be the only writer of `target`, a file or folder whose own folder is made if need be.

    Raises
    ------
    HephaestusError
        If another process is writing it now.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    path = target.with_name(f".{target.name}.lock")
    lock = FileLock(path, timeout=0)
    try:
        lock.acquire()
    except Timeout:
        raise HephaestusError(f"another export is writing {target} now; wait for its end") from None
    try:
        yield
    finally:
        path.unlink(missing_ok=True)
        lock.release()


def sweep(folder: Path) -> None:
    """Remove the files in `folder` and below that a killed writer was writing."""
    for path in folder.rglob(".*"):
        if _UNFINISHED.fullmatch(path.name) and path.is_file():
            path.unlink()
