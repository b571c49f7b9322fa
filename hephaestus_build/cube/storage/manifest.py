"""The list of a store's objects, sealed so that damage to the list itself shows."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import msgspec

from hephaestus_build.core.atomic_io import encode_json, hash_bytes

_HEAD = b'{"version":2,"blake3":"%s","objects":'
_TAIL = b"}"
_MAX_OBJECTS = 200_000  # objects: ten times those of a frame of three thousand pairs
_Hash = Annotated[str, msgspec.Meta(min_length=64, max_length=64)]
_Objects = dict[str, tuple[_Hash, Annotated[int, msgspec.Meta(ge=0)]]]


def encode_manifest(objects: Mapping[str, list[Any]]) -> bytes:
    """Return the manifest of `objects`: path to [BLAKE3 hash, size], with a hash of the list itself."""
    return _with_hash(encode_json(dict(sorted(objects.items()))))


def _with_hash(listed: bytes) -> bytes:
    return _HEAD % hash_bytes(listed).encode() + listed + _TAIL


def decode_manifest(content: bytes) -> dict[str, list[Any]]:
    """Return the objects of a manifest.

    Raises
    ------
    ValueError
        If one byte of it is not as :func:`seal` wrote it.
    """
    listed = content[content.find(b"{", 1) : -len(_TAIL)]
    if _with_hash(listed) != content:
        raise ValueError("the manifest is not as it was written")
    try:
        objects = msgspec.json.decode(listed, type=_Objects)
    except RecursionError:
        raise ValueError("the manifest is nested too deep") from None
    if len(objects) > _MAX_OBJECTS:
        raise ValueError(f"the manifest lists {len(objects)} objects")
    return {path: list(item) for path, item in objects.items()}
