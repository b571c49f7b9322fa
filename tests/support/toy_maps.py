"""Probability maps of the toy cube, each made from a known number of images."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import xarray as xr

from hephaestus_baselines.mapping.map_store import MapStore, ProbabilityMap
from hephaestus_build.core.frames import Pair
from toy_cube import FRAME

NAMES = ("20200201_20200213", "20190106_20190118", "20190106_20190130")


def made(cube: xr.Dataset, name: str, images: int) -> ProbabilityMap:
    """Return a map whose pixels are a function of its number of images."""
    probability = np.full((cube.sizes["latitude"], cube.sizes["longitude"]), images / 4096, "f4")
    return ProbabilityMap((Pair.parse(name),), probability, images, 3)


def store(path: Path, cube: xr.Dataset) -> MapStore:
    return MapStore(path / f"{FRAME}.zarr", cube, 1, {"checkpoint": "abc"})
