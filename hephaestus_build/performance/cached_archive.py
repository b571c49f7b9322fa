"""The archive that is measured on: simulated, made once into a cache, served by a process of its own."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import date
from pathlib import Path
from typing import Any, Self

import numpy as np

import hephaestus_build.performance.thin_archive as thin_archive
import hephaestus_build.simulation
from hephaestus_build.core.era5_grid import era5_area_around, nearest_era5_hour
from hephaestus_build.core.frames import Frame
from hephaestus_build.performance.input_files import InputFiles
from hephaestus_build.performance.thin_archive import ThinArchive
from hephaestus_build.simulation.server.archive_server import ArchiveServer
from hephaestus_build.simulation.server.archive_state import SimulatedArchive
from hephaestus_build.simulation.world.frame_catalog import HIGH_LATITUDE_FRAME

#: Of the simulated frames the one that has least sea: its share of no data is that of a frame on land.
BENCHMARK_FRAME = HIGH_LATITUDE_FRAME
#: First of dates between which some of its sources move, so that there are masks to draw.
_FIRST_DATE = date(2019, 8, 28)


@dataclass(frozen=True)
class CachedArchive:
    """The arguments of a simulated archive, and where its files are kept.

    Attributes
    ----------
    folder : pathlib.Path
        Of this world alone.
    size : str or tuple of int
        As :class:`~hephaestus_build.simulation.world.world.World` takes it.
    epochs : int
        Acquisitions; about three times as many pairs.
    thin : int
        How many of the first pairs hold little data.
    """

    folder: Path
    size: str | tuple[int, int]
    epochs: int
    thin: int = 0

    @classmethod
    def in_cache(cls, cache: Path, size: str | tuple[int, int], epochs: int, thin: int = 0) -> Self:
        """Return the world whose folder in `cache` is named after its arguments and the archive's code."""
        source = hashlib.sha256()
        code = sorted(Path(hephaestus_build.simulation.__path__[0]).rglob("*.py"))
        for path in (*code, Path(thin_archive.__file__)):
            source.update(path.read_bytes())
        shape = size if isinstance(size, str) else f"{size[0]}x{size[1]}"
        name = f"{BENCHMARK_FRAME}-{shape}-{epochs}-{thin}-{source.hexdigest()[:8]}"
        return cls(cache.resolve() / name, size, epochs, thin)

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Self:
        """Return the world that :meth:`to_json` wrote."""
        size = value["size"] if isinstance(value["size"], str) else (value["size"][0], value["size"][1])
        return cls(Path(value["folder"]), size, value["epochs"], value["thin"])

    def to_json(self) -> dict[str, Any]:
        """Return the world as JSON values."""
        return {**asdict(self), "folder": str(self.folder)}

    def open_archive(self) -> SimulatedArchive:
        """Return the archive, without any oddity: all rasters lie on one grid."""
        options: dict[str, Any] = {"size": self.size, "epochs": self.epochs, "start": _FIRST_DATE}
        options |= {"frames": [BENCHMARK_FRAME], "oddities": [], "cache": self.folder / "files"}
        return ThinArchive(self.thin, **options) if self.thin else SimulatedArchive(**options)

    @property
    def annotations(self) -> Path:
        """The experts' archive."""
        return self.folder / "annotations.tar.gz"

    def ensure_files(self) -> InputFiles:
        """Make every file that a build reads, unless they are here; return what there is."""
        ready = self.folder / "content.json"
        if not ready.exists():
            shutil.rmtree(self.folder, ignore_errors=True)
            self.folder.mkdir(parents=True)
            archive = self.open_archive()
            archive.make_all_files()
            self.annotations.write_bytes(archive.annotations())
            ready.write_text(json.dumps(self._write_inputs(archive).to_json()))
        return InputFiles.from_json(json.loads(ready.read_text()))

    def _write_inputs(self, archive: SimulatedArchive) -> InputFiles:
        scene = archive.world.scene(BENCHMARK_FRAME)
        area = era5_area_around(scene.grid)
        fields = self.folder / "fields"
        fields.mkdir()
        for day in scene.epochs:
            hour = nearest_era5_hour(day, scene.spec.center_time)
            np.save(
                fields / f"{day:%Y%m%d}.npy", archive.world.era5_fields(hour, area.latitudes, area.longitudes)
            )
        dem = archive.product_path(BENCHMARK_FRAME, "metadata", "", f"{BENCHMARK_FRAME}.geo.hgt.tif")
        assert dem is not None
        pairs = archive.pairs(BENCHMARK_FRAME)
        files = archive.folder / BENCHMARK_FRAME / "interferograms"
        return InputFiles(Frame(BENCHMARK_FRAME), scene.grid, pairs, files, dem, self.annotations, fields)

    @contextmanager
    def serve(self) -> Iterator[dict[str, str]]:
        """Serve the archive from another process; give the variables that point a build at it."""
        command = [sys.executable, "-m", __name__, json.dumps(self.to_json())]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as server:
            assert server.stdout is not None
            line = server.stdout.readline()
            if not line:
                raise RuntimeError("the simulated archive could not be served")
            # outlining the deformation again would take the server longer than a build takes
            yield {**json.loads(line), "HEPHAESTUS_ANNOTATIONS": str(self.annotations)}


def _serve(world: CachedArchive) -> None:
    """Serve until standard input ends, as it does with the process that started this one."""
    archive = world.open_archive()
    with ArchiveServer(archive) as server:
        scene = archive.world.scene(BENCHMARK_FRAME)
        area = era5_area_around(scene.grid)
        archive.world.era5_fields(scene.acquisition_time(scene.epochs[0]), area.latitudes, area.longitudes)
        print(json.dumps(server.environment()), flush=True)
        sys.stdin.read()


if __name__ == "__main__":
    _serve(CachedArchive.from_json(json.loads(sys.argv[1])))
