"""What processes with one cache folder share: places in the CDS's queue, and requests."""

from __future__ import annotations

import logging
from contextlib import ExitStack
from pathlib import Path

from hephaestus_build.core.atomic_io import hash_bytes
from hephaestus_build.core.filesystem.locks import try_lock_file

log = logging.getLogger(__name__)

#: Number of lock files that all requests share. Two that share one are sent one after the other, which those
#: of an area do only if they are 256 months apart.
_REQUEST_LOCKS = 256


class QueuePlaces:
    """A number of places, each a file that the process which holds it has locked.

    The operating system frees the places of a process that ends, however it ends; its request may go on in
    the CDS's queue, and the next build that needs it resumes it.

    Parameters
    ----------
    folder : pathlib.Path
        Folder of the files.
    count : int
        Number of places.
    """

    def __init__(self, folder: Path, count: int) -> None:
        self._folder, self.count = folder, count

    def try_take(self) -> ExitStack | None:
        """Return a free place, which is held until the stack is closed; None if there is none."""
        for number in range(self.count):
            if (place := _try_lock(self._folder / f"place-{number}.lock")) is not None:
                return place
        return None


class RequestLocks:
    """The right to ask for what several frames need, which one process has at a time.

    Parameters
    ----------
    folder : pathlib.Path
        Folder of the files.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def try_take(self, area: str, month: int) -> ExitStack | None:
        """Return the right to a month of an area, held until the stack is closed; None if it is taken.

        Parameters
        ----------
        area : str
            Name of the area.
        month : int
            Number of the month, counted over years.
        """
        number = (int(hash_bytes(area.encode())[:8], 16) + month) % _REQUEST_LOCKS
        return _try_lock(self._folder / f"request-{number:02x}.lock")


def _try_lock(path: Path) -> ExitStack | None:
    """Return a stack that holds the lock of a file; None if another process holds it.

    Where files cannot be made, nothing is locked: the cache may be removed at any time.
    """
    place = ExitStack()
    try:
        if place.enter_context(try_lock_file(path)):
            return place
    except OSError as error:
        log.debug("%s: nothing can be shared: %s", path.parent, error)
        return ExitStack()
    place.close()
    return None
