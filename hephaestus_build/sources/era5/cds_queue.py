"""Places in the queue of the CDS, shared by all processes with one cache folder, on one machine or many."""

from __future__ import annotations

import logging
from contextlib import ExitStack
from pathlib import Path

from hephaestus_build.core.filesystem.locks import try_lock_file

log = logging.getLogger(__name__)


class QueuePlaces:
    """A number of places, each a file that the process which holds it has locked.

    The operating system frees the places of a process that ends, however it ends; its request may go on in
    the CDS's queue, and the next build of the frame resumes it.

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
        """Return a free place, which is held until the stack is closed; None if there is none.

        Where files cannot be made, every place is free: the cache may be removed at any time.
        """
        for number in range(self.count):
            place = ExitStack()
            try:
                if place.enter_context(try_lock_file(self._folder / f"place-{number}.lock")):
                    return place
            except OSError as error:
                log.debug("%s: no places can be shared: %s", self._folder, error)
                return ExitStack()
            place.close()
        return None
