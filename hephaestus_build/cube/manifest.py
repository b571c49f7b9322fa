"""The list of a store's objects, sealed so that damage to the list itself shows."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from hephaestus_build.files import digest, json_bytes


def seal(objects: Mapping[str, list[Any]]) -> dict[str, Any]:
    """Return the manifest of `objects`: path to [BLAKE3 hash, size], with a hash of the list itself."""
    ordered = dict(sorted(objects.items()))
    return {"version": 2, "blake3": digest(json_bytes(ordered)), "objects": ordered}


def unseal(content: bytes) -> dict[str, list[Any]]:
    """Return the objects of a manifest.

    Raises
    ------
    ValueError
        If one byte of it is not as :func:`seal` wrote it.
    """
    value = json.loads(content)
    if not isinstance(value, dict) or json_bytes(seal(value.get("objects", {}))) != content:
        raise ValueError("the manifest is not as it was written")
    return value["objects"]
