"""How hard rasters are to pack: what tells whether a simulated world stands for the real one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import rasterio

from hephaestus_build.core.gdal import isolated_gdal_env
from hephaestus_build.cube.codecs.image_encoder import split_object_name
from hephaestus_build.pipeline.encoding import encode_images


@dataclass(frozen=True)
class RasterComplexity:
    """How hard rasters are to pack: medians over interferograms.

    Attributes
    ----------
    pairs : int
        How many were looked at.
    nodata : float
        Share of pixels without phase.
    phase_file, coherence_file : float
        Bytes of LiCSAR's files for each pixel with data.
    phase_stored, coherence_stored : float
        Bytes of the cube's strips for each pixel with data.
    """

    pairs: int
    nodata: float
    phase_file: float
    coherence_file: float
    phase_stored: float
    coherence_stored: float


def measure_complexity(files: Sequence[tuple[Path, Path]]) -> RasterComplexity:
    """Return how hard the given rasters are, each a pair of phase and coherence."""
    rows = []
    for phase_file, coherence_file in files:
        with (
            isolated_gdal_env(),
            rasterio.open(phase_file) as phase,
            rasterio.open(coherence_file) as coherence,
        ):
            planes = {"insar_difference": phase.read(1), "insar_coherence": coherence.read(1)}
        sizes = dict.fromkeys(planes, 0)
        for name, content in encode_images(planes).items():
            sizes[split_object_name(name)[0]] += len(content)
        valid = np.count_nonzero(planes["insar_difference"])
        every = [phase_file.stat().st_size, coherence_file.stat().st_size, *sizes.values()]
        rows.append([1 - valid / planes["insar_difference"].size, *(size / valid for size in every)])
    medians = np.median(rows, axis=0)
    return RasterComplexity(len(rows), *(round(float(value), 3) for value in medians))


def find_rasters(folder: Path) -> list[tuple[Path, Path]]:
    """Return phase and coherence of every interferogram of LiCSAR under `folder`."""
    phases = sorted(folder.rglob("*.geo.diff_pha.tif"))
    pairs = [(path, path.with_name(path.name.replace(".diff_pha.", ".cc."))) for path in phases]
    return [(phase, coherence) for phase, coherence in pairs if coherence.exists()]
