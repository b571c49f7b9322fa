"""The build, and the limit that it is held against; each runs in a process of its own."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import rasterio

from hephaestus_build.core.concurrency import map_bounded
from hephaestus_build.core.era5_grid import ERA5_VARIABLE_NAMES
from hephaestus_build.core.frames import Frame, Pair
from hephaestus_build.core.gdal import isolated_gdal_env
from hephaestus_build.core.settings import load_settings
from hephaestus_build.cube.schema import cube_schema
from hephaestus_build.performance.input_files import InputFiles
from hephaestus_build.performance.process_timer import TaskTimer
from hephaestus_build.pipeline.build import build
from hephaestus_build.pipeline.encoding import encode_images
from hephaestus_build.pipeline.plan import BuildRequest
from hephaestus_build.processing.interpolation import interpolate_bilinear


def run_codec_limit(clock: TaskTimer, content: dict[str, Any], threads: int) -> dict[str, Any]:
    """Decode every raster and encode every chunk with the cube's codecs; do nothing else.

    Masks are drawn and fields interpolated beforehand, since neither is decoding or encoding; they wait in
    memory, which is why this row has no memory of its own to report.
    """
    here = InputFiles.from_json(content)
    masks = {
        pair: here.rasterize_masks(pair, annotation)
        for pair, annotation in here.annotations_by_pair().items()
    }
    variables = [cube_schema().variables[f"primary_date_{name}"] for name in ERA5_VARIABLE_NAMES]
    steps = [variable.step or 0.0 for variable in variables]
    images = [
        interpolate_bilinear(
            here.era5_fields(day), here.area.latitudes, here.area.longitudes, here.grid, steps=steps
        )
        for day in here.dates
    ]
    sizes: list[int] = []

    def frame(path: Path) -> None:
        sizes.extend(map(len, encode_images({"dem": read_raster_band(path)}).values()))

    def pair(pair: Pair) -> None:
        planes = {
            "insar_difference": read_raster_band(here.phase(pair)),
            "insar_coherence": read_raster_band(here.coherence(pair)),
            **masks.get(pair, {}),
        }
        sizes.extend(map(len, encode_images(planes).values()))

    def epoch(fields: np.ndarray) -> None:
        for variable, plane in zip(variables, fields, strict=True):
            sizes.append(len(variable.make_encoder().encode(plane)))

    with clock:
        frame(here.dem)
        for _ in map_bounded(pair, here.pairs, threads):
            pass
        for _ in map_bounded(epoch, images, threads):
            pass
    return {"pairs": len(here.pairs), "encoded": sum(sizes)}


def read_raster_band(path: Path) -> npt.NDArray[Any]:
    """Return the only band of a raster."""
    with isolated_gdal_env(), rasterio.open(path) as raster:
        values: np.ndarray = raster.read(1)
    return values


def run_build(clock: TaskTimer, frame: str, data: str, cached: bool, limit: int) -> dict[str, Any]:
    """Build a frame's cube from nothing, with all that a build does; downloads may be in the cache.

    Parameters
    ----------
    clock : TaskTimer
        Runs while the build does.
    frame : str
        Frame id.
    data : str
        The data folder; its cubes are removed first, its cache too unless `cached`.
    cached : bool
        Keep the cache.
    limit : int
        How many pairs.
    """
    # imported by the build, and by cdsapi itself, when needed; imports are not measured
    import cdsapi  # noqa: F401
    import ecmwf.datastores.legacy_client  # noqa: F401

    settings = load_settings(data_dir=Path(data)).for_frame(Frame(frame))
    shutil.rmtree(settings.cubes_dir, ignore_errors=True)
    if not cached:
        shutil.rmtree(settings.downloads_dir, ignore_errors=True)
    request = BuildRequest(Frame(frame), limit=limit)
    with clock:
        result = build(request, settings)
    if result.owed or result.pairs != limit:
        raise RuntimeError(f"the build has {result.pairs} pairs and owes {len(result.owed)} products")
    return {
        "pairs": result.pairs,
        "masks": result.masks,
        "epochs": result.epochs,
        "simulated": result.simulated,
        "path": str(result.path.resolve()),
        **measure_stored_bytes(result.path.resolve()),
    }


def measure_stored_bytes(folder: Path) -> dict[str, Any]:
    """Return the bytes of the files under `folder`: each file once, as their names show, and by variable."""
    once: dict[int, int] = {}
    apparent = 0
    parts: dict[str, int] = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            facts = path.stat()
            apparent += facts.st_size
            if facts.st_ino not in once:
                name = path.relative_to(folder).parts[0]
                parts[name] = parts.get(name, 0) + facts.st_size
            once[facts.st_ino] = facts.st_size
    return {"bytes": sum(once.values()), "apparent_bytes": apparent, "bytes_by_variable": parts}
