"""An archive of many pairs of real size that is made in a minute and whose cubes fit on any disk."""

from __future__ import annotations

import threading
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from hephaestus_build.core.atomic_io import link_or_copy
from hephaestus_build.core.frames import Pair
from hephaestus_build.simulation.server.archive_state import SimulatedArchive
from hephaestus_build.simulation.world.annotator import preview_projection
from hephaestus_build.simulation.world.geotiff_writer import write_raster
from hephaestus_build.simulation.world.previews import write_phase_preview

#: Side of the square in which a thin pair has data, pixels.
_DATA_SIDE = 128
#: Size at which the experts of a thin archive draw: outlining at real size takes a second a pair.
_ANNOTATION_SHAPE = (60, 72)


class ThinArchive(SimulatedArchive):
    """An archive whose first pairs share files that hold little data; the others are as everywhere.

    Parameters
    ----------
    thin : int
        How many pairs are thin.
    cache : pathlib.Path
        Folder for made files.
    **options
        Of :class:`~hephaestus_build.simulation.world.world.World`.
    """

    def __init__(self, thin: int, *, cache: Path, **options: Any) -> None:
        super().__init__(cache=cache, **options)
        self._thin = thin
        self._options = options
        self._shared_lock = threading.Lock()

    def annotations(self) -> bytes:
        """Return annotations of the same pairs, drawn on small rasters: as many masks, in a corner."""
        small = SimulatedArchive(cache=self.folder, **{**self._options, "size": _ANNOTATION_SHAPE})
        return small.annotations()

    def _make_files(
        self, folder: Path, frame: str, kind: str, key: str, revision: int, names: Iterable[str]
    ) -> None:
        if kind != "interferograms" or Pair.parse(key) not in self.pairs(frame)[: self._thin]:
            super()._make_files(folder, frame, kind, key, revision, names)
            return
        shared = self._shared_files(frame)
        folder.mkdir(parents=True)
        for path in shared.iterdir():
            link_or_copy(path, folder / f"{key}.{path.name}")

    def _shared_files(self, frame: str) -> Path:
        folder = self.folder / frame / "thin"
        with self._shared_lock:
            if not folder.exists():
                scene = self.world.scene(frame)
                seen = scene.simulate_interferogram(scene.pairs[0])
                phase, coherence = np.zeros_like(seen.phase), np.zeros_like(seen.coherence)
                middle = tuple(slice(side // 2, side // 2 + _DATA_SIDE) for side in phase.shape)
                phase[middle], coherence[middle] = seen.phase[middle], seen.coherence[middle]
                folder.mkdir(parents=True)
                write_raster(folder / "geo.diff_pha.tif", phase, scene.grid)
                write_raster(folder / "geo.cc.tif", coherence, scene.grid)
                projection = preview_projection(scene, scene.pairs[0])
                write_phase_preview(folder / "geo.diff.png", phase, scene.height, scene.grid, projection)
        return folder
