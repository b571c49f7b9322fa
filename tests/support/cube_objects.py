"""The objects of a published cube, to compare two of them."""

from __future__ import annotations

from typing import Any

from hephaestus_build.cube.storage.generations import PROVENANCE, Shelf


def objects(shelf: Shelf) -> dict[str, list[Any]]:
    current = shelf.current()
    assert current is not None
    return {path: item for path, item in current.manifest().items() if path != PROVENANCE}
