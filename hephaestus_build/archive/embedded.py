"""The archive that ``make cubes`` starts and stops by itself."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from hephaestus_build.archive.simulated import ArchiveServer


@contextmanager
def embedded_archive(**options: Any) -> Iterator[tuple[str, ...]]:
    """Serve a simulated archive and point this process's environment at it, until the end of the block.

    Parameters
    ----------
    **options
        Of :class:`~hephaestus_build.archive.simulated.ArchiveServer`; without any, the small default world.

    Yields
    ------
    tuple of str
        Ids of the frames that it has.
    """
    with ArchiveServer(**options) as server:
        variables = server.environment()
        before = {name: os.environ.get(name) for name in variables}
        os.environ.update(variables)
        try:
            yield server.archive.world.frames
        finally:
            for name, value in before.items():
                if value is None:
                    os.environ.pop(name, None)
                else:
                    os.environ[name] = value
