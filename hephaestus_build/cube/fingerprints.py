"""Fingerprints of a granule's inputs other than products: grid, annotation and version of the processing."""

from __future__ import annotations

import hashlib
from dataclasses import asdict
from functools import lru_cache
from typing import Any

from hephaestus_build.core.atomic_io import encode_json
from hephaestus_build.core.grid import Grid

#: Version of what is made of the products. It changes when all granules must be made again from their
#: products, and not with the layout in which they are stored (docs/decisions/0010-column-strips.md).
PROCESSING_VERSION = "1.2"


def fingerprint_inputs(*parts: Any) -> str:
    """Return a short hash of the processing's version and the given JSON values."""
    text = encode_json([PROCESSING_VERSION, *parts], order="deterministic")
    return hashlib.sha256(text).hexdigest()[:16]


@lru_cache(maxsize=16)
def grid_as_dict(grid: Grid) -> dict[str, Any]:
    """Return a grid as JSON values; cached, since every granule of a frame needs it."""
    return asdict(grid)


def fingerprint_grid(grid: Grid) -> str:
    """Return the fingerprint of granules that depend on the grid only: pairs, the DEM and the atmosphere."""
    return _fingerprint_grid(grid, PROCESSING_VERSION)


@lru_cache(maxsize=16)
def _fingerprint_grid(grid: Grid, version: str) -> str:  # noqa: ARG001 -- the cache is kept by it
    return fingerprint_inputs(grid_as_dict(grid))
