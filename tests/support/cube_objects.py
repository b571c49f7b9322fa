"""Reader of all objects of a published cube, to compare cubes."""

from __future__ import annotations

from typing import Any

from hephaestus_build.cube.storage.frame_folder import PROVENANCE
from hephaestus_build.cube.storage.generations import FrameStore


def objects(frame_store: FrameStore) -> dict[str, list[Any]]:
    current = frame_store.published_generation()
    assert current is not None
    return {path: item for path, item in current.read_manifest().items() if path != PROVENANCE}
