"""Simulated cubes for ``make benchmark``, built once and reused."""

from __future__ import annotations

import json
import shutil
from datetime import date
from pathlib import Path
from typing import Any

from hephaestus_build.core.atomic_io import translate_os_errors, write_json
from hephaestus_build.core.errors import HephaestusError
from hephaestus_build.core.frames import Frame
from hephaestus_build.core.progress import ProgressListener
from hephaestus_build.core.settings import Settings
from hephaestus_build.cube.discovery import BENCHMARK_FOLDER
from hephaestus_build.cube.schema import cube_schema
from hephaestus_build.cube.storage.migration import WORLD_FILE as _MARK
from hephaestus_build.operations.batch import build_frames
from hephaestus_build.pipeline.plan import BuildRequest
from hephaestus_build.simulation.server.embedded import serve_embedded_archive
from hephaestus_build.simulation.world.benchmark_frames import BENCHMARK_WORLD, benchmark_frame_specs

#: Two and a half years, one date every 12 days: each part of the splits by time has samples with and without
#: deformation.
BENCHMARK_ARCHIVE_OPTIONS: dict[str, Any] = {"epochs": 80, "start": date(2018, 3, 1)}
#: Acquisitions of each frame in any other world than 0: five years and a quarter.
_EPOCHS_ELSEWHERE = 160


def benchmark_folder(world: int = 0) -> str:
    """Return the folder, in the simulated data folder, of the cubes of a world of the simulated benchmark."""
    return f"{BENCHMARK_FOLDER}-{world}" if world else BENCHMARK_FOLDER


def ensure_benchmark_cubes(
    settings: Settings,
    *,
    world: int = 0,
    options: dict[str, Any] | None = None,
    listener: ProgressListener | None = None,
) -> Path:
    """Return the folder of the embedded archive's cubes; build those that are missing.

    The embedded archive is used whatever portal is set. Its frames have the ids and grids of those of ``make
    cubes``, and unrest at other places (:mod:`hephaestus_build.simulation.world.benchmark_frames`).

    Parameters
    ----------
    settings : Settings
        Settings of the command; the cubes are in ``<data>/simulated/benchmark/cubes``. Those of earlier
        versions in ``<data>/benchmark`` are used until ``hephaestus migrate`` moves them.
    world : int
        Number of the simulated world, the seed of its terrain, weather, noise and unrest. Those other than 0
        are in ``<data>/simulated/benchmark-<world>/cubes``.
    options : dict, optional
        Options of the simulated archive; :data:`BENCHMARK_ARCHIVE_OPTIONS` by default.
    listener : ProgressListener, optional
        Receives progress.

    Raises
    ------
    HephaestusError
        If a cube cannot be built, or the folder holds cubes of an archive with other options. Finished cubes
        are kept, and the next call continues from there.
    """
    apart = settings.for_simulated()
    home = apart.data_dir / benchmark_folder(world)
    elsewhere = {"seed": world, "epochs": _EPOCHS_ELSEWHERE} if world else {}
    chosen = {**BENCHMARK_ARCHIVE_OPTIONS, **elsewhere, **(options or {})}
    described = {name: str(value) for name, value in chosen.items()} | {"world": BENCHMARK_WORLD}
    mark = {"options": described, "schema": cube_schema().version}
    if not world and not home.exists() and apart.real_data_dir is not None:
        earlier = apart.real_data_dir / BENCHMARK_FOLDER
        if mark.items() <= _read_world_file(earlier / _MARK).items():
            home = earlier
    known = _read_world_file(home / _MARK)
    if known and all((home / "cubes" / f"{name}.zarr").exists() for name in known.pop("frames")):
        if known == mark:
            return home / "cubes"
        if known["options"] != mark["options"]:
            raise HephaestusError(
                f"{home} holds cubes of a simulated archive with other options; move it away and run the "
                "same command again"
            )
    own = settings.for_standalone_simulated(home)
    with serve_embedded_archive(own, always=True, places=benchmark_frame_specs(world), **chosen) as served:
        assert served.embedded_archive is not None
        frames = served.embedded_archive.frames
        requests = [BuildRequest(Frame(name), "all") for name in frames]
        for run in build_frames(requests, served, listener=listener, wait=True):
            if run.result is None:
                raise HephaestusError(run.error)
            if run.result.owed:
                raise HephaestusError(
                    f"{run.frame}: {len(run.result.owed)} products of the simulated archive are owed; "
                    f"run the same command again"
                )
    shutil.rmtree(own.downloads_dir, ignore_errors=True)  # as large as the cubes, and no longer needed
    with translate_os_errors(f"benchmark: writing {home / _MARK}"):
        write_json(home / _MARK, {**mark, "frames": list(frames)})
    return own.cubes_dir


def _read_world_file(path: Path) -> dict[str, Any]:
    try:
        return dict(json.loads(path.read_bytes()))
    except (OSError, ValueError):
        return {}
