"""The manifest of a store: path, hash and size of every object, with a hash of the list itself."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import msgspec

from hephaestus_build.core.atomic_io import encode_json, hash_bytes

#: Maximum size of a manifest or a provenance record; a frame with 1,000 pairs has about 3 MB.
MAX_RECORD_BYTES = 64 << 20
_HEAD = b'{"version":2,"blake3":"%s","objects":'
_TAIL = b"}"
_MAX_OBJECTS = 500_000  # several times the objects of a frame with 3,000 pairs, with retired keys
_Hash = Annotated[str, msgspec.Meta(min_length=64, max_length=64)]
_Objects = dict[str, tuple[_Hash, Annotated[int, msgspec.Meta(ge=0)]]]


def encode_manifest(objects: Mapping[str, list[Any]]) -> bytes:
    """Return the manifest of `objects`, a mapping of path to [BLAKE3 hash, size in bytes]."""
    return _with_hash(_encode_objects(objects))


def hash_objects(objects: Mapping[str, list[Any]]) -> str:
    """Return the hash of a list of objects that stands in its manifest, and names the content of a cube."""
    return hash_bytes(_encode_objects(objects))


def _encode_objects(objects: Mapping[str, list[Any]]) -> bytes:
    return encode_json(dict(sorted(objects.items())))


def _with_hash(listed: bytes) -> bytes:
    return _HEAD % hash_bytes(listed).encode() + listed + _TAIL


def decode_manifest(content: bytes) -> dict[str, list[Any]]:
    """Return the objects of a manifest, as a mapping of path to [BLAKE3 hash, size in bytes].

    Raises
    ------
    ValueError
        If any byte differs from what :func:`encode_manifest` wrote.
    """
    listed = content[content.find(b"{", 1) : -len(_TAIL)]
    if _with_hash(listed) != content:
        raise ValueError("the manifest is not as it was written")
    try:
        objects = msgspec.json.decode(listed, type=_Objects)
    except RecursionError:
        raise ValueError("the manifest is nested too deeply") from None
    if len(objects) > _MAX_OBJECTS:
        raise ValueError(f"the manifest lists {len(objects)} objects")
    return {path: list(item) for path, item in objects.items()}
