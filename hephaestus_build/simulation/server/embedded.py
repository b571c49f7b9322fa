"""Embedded archive: a simulated archive that a command serves to itself for simulated frames."""

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
    """Return the frames of the embedded archive."""
    from hephaestus_build.simulation.world.frame_catalog import (
        FRAME_SPECS,  # imported here and below only: commands on real frames do not need it
    )

    return tuple(Frame(place.id) for place in FRAME_SPECS)


@contextmanager
def serve_for_frames(settings: Settings, frames: Iterable[Frame]) -> Iterator[Settings]:
    """Serve the embedded archive within the block if one of `frames` needs it.

    A simulated frame needs it unless the settings name a portal. Real frames still use the real archives.

    Parameters
    ----------
    settings : Settings
        Settings of the command.
    frames : iterable of Frame
        Frames that the command works on.

    Yields
    ------
    Settings
        Settings to use within the block.
    """
    if settings.is_portal_set or not any(settings.for_frame(frame).is_simulated for frame in frames):
        yield settings
        return
    with serve_embedded_archive(settings) as served:
        yield served


@contextmanager
def serve_embedded_archive(settings: Settings, *, always: bool = False, **options: Any) -> Iterator[Settings]:
    """Serve a simulated archive within the block.

    Parameters
    ----------
    settings : Settings
        Settings of the command.
    always : bool
        Use the archive for all frames, even if the settings name a portal.
    **options
        Arguments of :class:`~hephaestus_build.simulation.server.archive_server.ArchiveServer`; by default it
        serves the small default world.

    Yields
    ------
    Settings
        `settings` with the embedded archive as the source of simulated frames; ``embedded`` of
        :meth:`~hephaestus_build.core.settings.Settings.for_simulated` lists the frames.
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
    """Exclude loopback addresses from the proxy, if one is configured, within the block."""
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
