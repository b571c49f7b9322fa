"""The archive that a command starts and stops by itself, for the simulated frames among those it works on."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from hephaestus_build.core.frames import Frame
from hephaestus_build.core.settings import EmbeddedArchive, Settings

if TYPE_CHECKING:
    from hephaestus_build.simulation.server.archive_server import ArchiveServer


def embedded_frames() -> tuple[Frame, ...]:
    """Return the frames that it has."""
    from hephaestus_build.simulation.world.frame_catalog import (
        FRAME_SPECS,  # as below: commands on real frames need none
    )

    return tuple(Frame(place.id) for place in FRAME_SPECS)


@contextmanager
def serve_for_frames(settings: Settings, frames: Iterable[Frame]) -> Iterator[Settings]:
    """Serve the embedded archive where one of `frames` needs it, until the end of the block.

    It is needed for what is simulated where the settings name no portal. Real frames are asked of the real
    archives all the same.

    Parameters
    ----------
    settings : Settings
        Of the command.
    frames : iterable of Frame
        What it works on.

    Yields
    ------
    Settings
        Those to work with.
    """
    if settings.is_portal_set or not any(settings.for_frame(frame).is_simulated for frame in frames):
        yield settings
        return
    with serve_embedded_archive(settings) as served:
        yield served


@contextmanager
def serve_embedded_archive(settings: Settings, *, always: bool = False, **options: Any) -> Iterator[Settings]:
    """Serve a simulated archive until the end of the block.

    Parameters
    ----------
    settings : Settings
        Of the command.
    always : bool
        Whether it is asked for everything, whatever portal is set.
    **options
        Of :class:`~hephaestus_build.simulation.server.archive_server.ArchiveServer`; without any, the small
        default world.

    Yields
    ------
    Settings
        The same, which ask the archive for what is simulated; ``embedded`` of their
        :meth:`~hephaestus_build.core.settings.Settings.for_simulated` names its frames.
    """
    from hephaestus_build.simulation.server.archive_server import ArchiveServer

    with ArchiveServer(**options) as server, _bypass_proxy(server):
        embedded = EmbeddedArchive(
            licsar_url=server.licsar_url,
            annotations=server.annotations_url,
            arco_url=server.arco_url,
            cds_url=server.cds_url,
            cds_key=server.cds_key,
            frames=server.archive.world.frames,
        )
        yield settings.using_archive(embedded) if always else settings.with_embedded_archive(embedded)


@contextmanager
def _bypass_proxy(server: ArchiveServer) -> Iterator[None]:
    """Let no proxy be asked for this machine's own addresses; of other addresses it says nothing."""
    variables = server.proxy_environment()
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
