"""Arrays of a Zarr store, as its own metadata lists them, and checksums of their values."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np


@dataclass(frozen=True)
class StoredArray:
    """One array of a store.

    Attributes
    ----------
    path : str
        Path below the store, such as ``dem`` or ``overview/phase``.
    shape : tuple of int
    data_type : str
        Zarr's name: ``float32``, ``bool``, ``string``, ...
    dims : tuple of str
        Names of the dimensions.
    """

    path: str
    shape: tuple[int, ...]
    data_type: str
    dims: tuple[str, ...]

    @property
    def is_text(self) -> bool:
        """Whether the values are strings, which some readers refuse."""
        return self.data_type == "string"

    @property
    def is_raster(self) -> bool:
        """Whether the last two dimensions are those of the frame's grid."""
        return self.dims[-2:] in (("latitude", "longitude"), ("y", "x"))

    @property
    def name(self) -> str:
        """Name within its group."""
        return self.path.rpartition("/")[2]

    @property
    def group(self) -> str:
        """Path of its group; empty for the root."""
        return self.path.rpartition("/")[0]


def list_stored_arrays(store: Path) -> list[StoredArray]:
    """Return every array below `store`, groups in it included, sorted by path."""
    found = []
    for file in sorted(store.rglob("zarr.json")):
        metadata = json.loads(file.read_bytes())
        if metadata["node_type"] == "array":
            path = file.parent.relative_to(store).as_posix()
            dims = tuple(name or "" for name in metadata.get("dimension_names") or ())
            data_type = metadata["data_type"]
            found.append(StoredArray(path, tuple(metadata["shape"]), str(data_type), dims))
    return found


def digest(values: Any) -> str:
    """Return the SHA-256 of the values in C order and little-endian; of texts, that of their JSON list."""
    array = np.asarray(values)
    if array.dtype.kind in "OTU":
        content = json.dumps([str(value) for value in array.ravel()], ensure_ascii=False).encode()
    else:
        content = np.ascontiguousarray(array, array.dtype.newbyteorder("<")).tobytes()
    return hashlib.sha256(content).hexdigest()
