"""Fingerprints of what granules are made from beside the products: equal inputs, equal text."""

from __future__ import annotations

import hashlib
from dataclasses import asdict
from functools import lru_cache
from typing import Any

from hephaestus_build.core.atomic_io import encode_json
from hephaestus_build.core.grid import Grid
from hephaestus_build.cube.schema import cube_schema


def fingerprint_inputs(*parts: Any) -> str:
    """Return a short hash of the schema's version and of JSON values."""
    text = encode_json([cube_schema().version, *parts], order="deterministic")
    return hashlib.sha256(text).hexdigest()[:16]


@lru_cache(maxsize=16)
def grid_as_dict(grid: Grid) -> dict[str, Any]:
    """Return a grid as JSON values; asked for once for every granule of a frame."""
    return asdict(grid)


def fingerprint_grid(grid: Grid) -> str:
    """Return the fingerprint of what depends on the grid alone: pairs, the DEM and the atmosphere."""
    return _fingerprint_grid(grid, cube_schema().version)


@lru_cache(maxsize=16)
def _fingerprint_grid(grid: Grid, version: str) -> str:  # noqa: ARG001 -- the cache is kept by it
    return fingerprint_inputs(grid_as_dict(grid))
