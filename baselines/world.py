"""The simulated cubes that ``make benchmark`` learns from: built once, then kept and used again."""

from __future__ import annotations

import json
import shutil
from datetime import date
from pathlib import Path
from typing import Any

from hephaestus_build.archive.embedded import embedded_archive
from hephaestus_build.cube.schema import cube_schema
from hephaestus_build.errors import HephaestusError
from hephaestus_build.files import explained, write_json
from hephaestus_build.frames import Frame
from hephaestus_build.plan import Request
from hephaestus_build.progress import Listener
from hephaestus_build.settings import load_settings
from hephaestus_build.watch import build_frames

#: Two and a half years at every 12 days: every part of the splits by time has deformation and quiet.
WORLD: dict[str, Any] = {"epochs": 80, "start": date(2018, 3, 1)}
#: Beside the cubes, written last: which world they are of.
_MARK = "world.json"


def benchmark_cubes(
    data: Path, *, options: dict[str, Any] | None = None, listener: Listener | None = None
) -> Path:
    """Return the folder of the embedded archive's cubes, built unless they are there.

    Parameters
    ----------
    data : pathlib.Path
        The data folder; the cubes are in ``benchmark/cubes`` below it, apart from those of real data.
    options : dict, optional
        Of the simulated archive; :data:`WORLD` by default.
    listener : Listener, optional
        Told how far it is.

    Raises
    ------
    HephaestusError
        If a cube cannot be built, or cubes of another world are in the way; what is finished stays, and the
        next call goes on from there.
    """
    home = data / "benchmark"
    chosen = {**WORLD, **(options or {})}
    mark = {"options": {name: str(value) for name, value in chosen.items()}, "schema": cube_schema().version}
    known = _read(home / _MARK)
    if known and all((home / "cubes" / f"{name}.zarr").exists() for name in known.pop("frames")):
        if known == mark:
            return home / "cubes"
        if known["options"] != mark["options"]:
            raise HephaestusError(
                f"{home} holds the cubes of another simulated world; move it away, run the same command again"
            )
    with embedded_archive(**chosen) as frames:
        settings = load_settings(data_dir=home, cache_dir=home / "cache")
        requests = [Request(Frame(name), "all") for name in frames]
        for run in build_frames(requests, settings, listener=listener, wait=True):
            if run.result is None:
                raise HephaestusError(run.error)
            if run.result.owed:
                raise HephaestusError(
                    f"{run.frame}: {len(run.result.owed)} products of the simulated archive are owed; "
                    f"run the same command again"
                )
    shutil.rmtree(settings.downloads_dir, ignore_errors=True)  # as large as the cubes, and of no use any more
    with explained(f"benchmark: writing {home / _MARK}"):
        write_json(home / _MARK, {**mark, "frames": list(frames)})
    return settings.cubes_dir


def _read(path: Path) -> dict[str, Any]:
    try:
        return dict(json.loads(path.read_bytes()))
    except (OSError, ValueError):
        return {}
