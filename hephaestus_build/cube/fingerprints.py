"""Fingerprints of what units are made from beside the products: equal inputs, equal text."""

from __future__ import annotations

import hashlib
from dataclasses import asdict
from functools import lru_cache
from typing import Any

from hephaestus_build.core.atomic_io import json_bytes
from hephaestus_build.core.grid import Grid
from hephaestus_build.cube.schema import cube_schema


def fingerprint(*parts: Any) -> str:
    """Return a short hash of the schema's version and of JSON values."""
    text = json_bytes([cube_schema().version, *parts], order="deterministic")
    return hashlib.sha256(text).hexdigest()[:16]


@lru_cache(maxsize=16)
def facts_of(grid: Grid) -> dict[str, Any]:
    """Return a grid as JSON values; asked for once for every unit of a frame."""
    return asdict(grid)


def grid_inputs(grid: Grid) -> str:
    """Return the fingerprint of what depends on the grid alone: pairs, the DEM and the atmosphere."""
    return _grid_inputs(grid, cube_schema().version)


@lru_cache(maxsize=16)
def _grid_inputs(grid: Grid, version: str) -> str:
    return fingerprint(facts_of(grid))
