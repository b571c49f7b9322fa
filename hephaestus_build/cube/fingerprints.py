"""Fingerprints of a granule's inputs other than products: grid, annotation and schema version."""

from __future__ import annotations

import hashlib
from dataclasses import asdict
from functools import lru_cache
from typing import Any

from hephaestus_build.core.atomic_io import encode_json
from hephaestus_build.core.grid import Grid
from hephaestus_build.cube.schema import cube_schema


def fingerprint_inputs(*parts: Any) -> str:
    """Return a short hash of the schema version and the given JSON values."""
    text = encode_json([cube_schema().version, *parts], order="deterministic")
    return hashlib.sha256(text).hexdigest()[:16]


@lru_cache(maxsize=16)
def grid_as_dict(grid: Grid) -> dict[str, Any]:
    """Return a grid as JSON values; cached, since every granule of a frame needs it."""
    return asdict(grid)


def fingerprint_grid(grid: Grid) -> str:
    """Return the fingerprint of granules that depend on the grid only: pairs, the DEM and the atmosphere."""
    return _fingerprint_grid(grid, cube_schema().version)


@lru_cache(maxsize=16)
def _fingerprint_grid(grid: Grid, version: str) -> str:  # noqa: ARG001 -- the cache is kept by it
    return fingerprint_inputs(grid_as_dict(grid))
