"""Small simulated archive, settings for it, and comparisons of cubes, for tests of builds and maintenance."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from hephaestus_build.core.frames import Frame, Pair
from hephaestus_build.core.settings import Settings, load_settings
from hephaestus_build.cube.storage.frame_folder import PROVENANCE
from hephaestus_build.cube.storage.generations import FrameStore
from hephaestus_build.pipeline.plan import BuildRequest
from hephaestus_build.simulation.server.archive_server import ArchiveServer
from netcdf_pool import keep_netcdf_processes

FRAME = Frame("198A_00210_131313")
ALL = BuildRequest(FRAME, pairs="all")


def small_archive(**options: Any) -> ArchiveServer:
    """Return an archive of one small frame with seven pairs, with all files generated in advance."""
    server = ArchiveServer(**{"epochs": 6, "frames": [FRAME.id], "size": (80, 90), **options})
    server.archive.make_all_files()
    return server


@contextmanager
def reached(server: ArchiveServer) -> Iterator[pytest.MonkeyPatch]:
    """Let the settings name an archive, which is as it was when it was made."""
    server.reset()
    with pytest.MonkeyPatch.context() as patch:
        for name, value in server.environment().items():
            patch.setenv(name, value)
        keep_netcdf_processes(patch)
        yield patch


def settings_for(data: Path, **options: Any) -> Settings:
    """Return settings for simulated frames, with a short timeout and a single retry."""
    return load_settings(data_dir=data, **{"timeout": 20, "retries": 1, **options}).for_simulated()


def frame_store_of(settings: Settings, frame: Frame = FRAME) -> FrameStore:
    """Return the frame store of a frame."""
    return FrameStore(settings.cubes_dir, frame)


def copied(data: Path, target: Path) -> Path:
    """Copy a data folder, keeping hard links, and return the copy."""
    shutil.copytree(data, target, symlinks=True)
    return target


def objects(settings: Settings, frame: Frame = FRAME) -> dict[str, list[Any]]:
    """Return hash and size of every object of the published cube, without its provenance record."""
    current = frame_store_of(settings, frame).published_generation()
    assert current is not None
    return {path: item for path, item in current.read_manifest().items() if path != PROVENANCE}


def asked(server: ArchiveServer, ending: str = ".tif") -> set[str]:
    """Return the names of the products requested since the log was cleared."""
    return {entry.path.rsplit("/", 1)[1] for entry in server.log if entry.path.endswith(ending)}


def rasters(pair: Pair) -> set[str]:
    """Return the names of a pair's two rasters."""
    return {f"{pair}.geo.diff_pha.tif", f"{pair}.geo.cc.tif"}
