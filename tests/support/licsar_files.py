"""Small GeoTIFFs in the style of LiCSAR, and a portal listing, for tests of LiCSAR clients."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import rasterio

from hephaestus_build.core.grid import Grid

#: Grid whose edges are not multiples of the pixel size, as on the real portal.
GRID = Grid(64, 48, -92.4255, 0.4871667, 0.001, 0.001)


def phase(grid: Grid = GRID, seed: int = 0) -> np.ndarray:
    """Return wrapped noise with a corner of exact zeros (no data)."""
    values = np.random.default_rng(seed).uniform(-np.pi, np.pi, grid.shape).astype(np.float32)
    values[: grid.height // 3, : grid.width // 4] = 0
    return values


def coherence(grid: Grid = GRID, seed: int = 0) -> np.ndarray:
    """Return uint8 coherence with the same corner of zeros."""
    values = np.random.default_rng(seed).integers(1, 249, grid.shape).astype(np.uint8)
    values[: grid.height // 3, : grid.width // 4] = 0
    return values


def write_tif(path: Path, values: np.ndarray, grid: Grid = GRID, **options: Any) -> Path:
    """Write `values` as a DEFLATE GeoTIFF with strips of one row; `options` override the profile."""
    path.parent.mkdir(parents=True, exist_ok=True)
    profile = {
        "driver": "GTiff",
        "width": values.shape[-1],
        "height": values.shape[-2],
        "count": 1 if values.ndim == 2 else values.shape[0],
        "dtype": values.dtype.name,
        "crs": "EPSG:4326",
        "transform": grid.transform,
        "compress": "deflate",
        "predictor": 3 if values.dtype.kind == "f" else 2,
        "blockysize": 1,
        **options,
    }
    with rasterio.open(path, "w", **profile) as dataset:
        dataset.write(values if values.ndim == 3 else values[np.newaxis])
    return path


def autoindex(names: list[str]) -> str:
    """Return an Apache listing (table style) as served by the portal."""
    rows = "".join(
        f'<tr><td><img src="/i.gif"></td><td><a href="{name}">{name}</a></td>'
        f'<td align="right">2024-02-1{n % 10} 10:2{n % 10}  </td><td>  - </td></tr>\n'
        for n, name in enumerate(names)
    )
    return (
        "<html><head><title>Index of /x</title></head><body><h1>Index of /x</h1><table>"
        '<tr><th><a href="?C=N;O=D">Name</a></th><th><a href="?C=M;O=A">Last modified</a></th></tr>'
        f'<tr><td><a href="/LiCSAR_products/106/">Parent Directory</a></td></tr>{rows}</table></body></html>'
    )
