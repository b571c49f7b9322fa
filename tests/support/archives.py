"""Small simulated archive, settings for it, and comparisons of cubes, for tests of builds and maintenance."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from hephaestus_build.core.frames import Frame, Pair
from hephaestus_build.core.settings import Settings, load_settings
from hephaestus_build.cube.storage.frame_folder import PROVENANCE
from hephaestus_build.cube.storage.generations import FrameStore
from hephaestus_build.pipeline.plan import BuildRequest
from hephaestus_build.simulation.server.archive_server import ArchiveServer

FRAME = Frame("198A_00210_131313")
ALL = BuildRequest(FRAME, pairs="all")


def small_archive(**options: Any) -> ArchiveServer:
    """Return an archive of one small frame with seven pairs, with all files generated in advance."""
    server = ArchiveServer(**{"epochs": 6, "frames": [FRAME.id], "size": (80, 90), **options})
    server.archive.make_all_files()
    return server


def as_at_first(server: ArchiveServer) -> None:
    """Reset an archive to its initial state."""
    server.faults.clear()
    archive, cds = server.archive, server.cds
    archive.publish_until(None)
    archive._revisions.clear()
    archive._withdrawn.clear()
    archive.extra_links.clear()
    archive.layout = "directories"
    archive.public_root = "LiCSAR_products.public"
    archive.mirror_root = "neodc/comet/data/licsar_products"
    cds.missing_variables, cds.final_until, cds.available_until = frozenset(), None, None
    cds.licence_accepted, cds.job_end, cds.rate_limited = True, "successful", 0
    cds.queue_polls = 0
    server.clear_log()


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
