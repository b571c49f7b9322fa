"""Archives of several small frames, for tests of builds on Dask clusters of separate processes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

from hephaestus_build.core.frames import Frame
from hephaestus_build.simulation.server.archive_server import ArchiveServer
from hephaestus_build.simulation.server.archive_state import SimulatedArchive
from hephaestus_build.simulation.world.frame_catalog import FRAME_SPECS
from hephaestus_build.simulation.world.world import World


@contextmanager
def archive_of(frames: int, *, epochs: int = 4, size: tuple[int, int] = (80, 90)) -> Iterator[ArchiveServer]:
    """Serve a number of small frames, each at one of the places of the catalog."""
    places = [
        replace(spec, id=f"{198 + index % 3}{spec.id[3]}_{300 + index:05d}_131313")
        for index in range(frames)
        for spec in [FRAME_SPECS[index % 2]]
    ]
    archive = SimulatedArchive(World(size=size, epochs=epochs, places=places, oddities=()))
    archive.make_all_files()
    try:
        with ArchiveServer(archive) as server:
            yield server
    finally:
        archive.close()


def frames_of(server: ArchiveServer) -> list[Frame]:
    """Return the frames of an archive."""
    return [Frame(name) for name in server.archive.world.frames]
