"""A Zarr store behind plain HTTP: its metadata, and single chunks of it decoded by zarr itself."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import numpy as np

from hephaestus_build.address import Address
from hephaestus_build.sources.fields import decode_times
from hephaestus_build.sources.http import Client
from hephaestus_build.sources.receipt import Outcome


class StoreError(Exception):
    """The store cannot be used; `outcome` says what kind of trouble it is."""

    def __init__(self, outcome: Outcome, detail: str) -> None:
        super().__init__(detail)
        self.outcome = outcome


@dataclass(frozen=True)
class Chunked:
    """One array of a store, of Zarr format 2 or 3.

    Attributes
    ----------
    name : str
        Its path in the store.
    metadata : dict
        Content of its ``.zarray`` or ``zarr.json``.
    attributes : dict
        Of the array.
    """

    name: str
    metadata: dict[str, Any]
    attributes: dict[str, Any]

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the whole array."""
        return tuple(int(size) for size in self.metadata["shape"])

    @property
    def chunks(self) -> tuple[int, ...]:
        """Shape of one stored object."""
        if "chunks" in self.metadata:
            return tuple(int(size) for size in self.metadata["chunks"])
        return tuple(int(size) for size in self.metadata["chunk_grid"]["configuration"]["chunk_shape"])

    def key(self, position: Sequence[int]) -> str:
        """Return where in the array's folder the chunk at `position` lies."""
        numbers = [str(number) for number in position]
        if self.metadata["zarr_format"] == 2:
            return str(self.metadata.get("dimension_separator", ".")).join(numbers)
        encoding = self.metadata.get("chunk_key_encoding", {"name": "default"})
        plain = encoding["name"] == "v2"
        separator = encoding.get("configuration", {}).get("separator", "." if plain else "/")
        return str(separator).join(numbers if plain else ["c", *numbers])

    def decode(self, content: bytes) -> np.ndarray:
        """Return the values of one stored chunk.

        Raises
        ------
        ValueError
            If `content` is no such chunk.
        """
        import zarr
        from zarr.buffer.cpu import Buffer
        from zarr.storage import MemoryStore

        # a store that holds nothing but this chunk
        alone = json.dumps({**self.metadata, "shape": list(self.chunks)}).encode()
        name = ".zarray" if self.metadata["zarr_format"] == 2 else "zarr.json"
        objects = {name: alone, self.key([0] * len(self.chunks)): content}
        store = MemoryStore({key: Buffer.from_bytes(value) for key, value in objects.items()})
        try:
            array = zarr.open_array(store, mode="r", zarr_format=self.metadata["zarr_format"])
            return np.asarray(array[...])
        except Exception as error:  # every codec fails in its own way
            raise ValueError(f"the chunk cannot be decoded ({type(error).__name__})") from error


def open_store(
    http: Client, address: Address, names: Sequence[str]
) -> tuple[dict[str, Any], dict[str, Chunked]]:
    """Return the attributes of the store at `address` and the arrays `names`.

    Consolidated metadata of format 2 is looked for first, then format 3.

    Raises
    ------
    StoreError
        If the store cannot be reached, is none, or lacks one of the arrays.
    """
    url = str(address)
    consolidated = _read(http, address.child(".zmetadata"))
    try:
        if consolidated is not None:
            entries = consolidated["metadata"]
            return dict(entries.get(".zattrs", {})), {
                name: Chunked(name, entries[f"{name}/.zarray"], dict(entries.get(f"{name}/.zattrs", {})))
                for name in names
            }
        group = _read(http, address.child("zarr.json"))
        if group is None:
            raise StoreError(Outcome.ABSENT, f"there is no Zarr store at {url}; check HEPHAESTUS_ARCO_URL")
        entries = (group.get("consolidated_metadata") or {}).get("metadata", {})
        arrays = {}
        for name in names:
            entry = entries.get(name) or _read(http, address.child(f"{name}/zarr.json"))
            if entry is None:
                raise KeyError(f"{name}/zarr.json")
            arrays[name] = Chunked(name, entry, dict(entry.get("attributes", {})))
        return dict(group.get("attributes", {})), arrays
    except KeyError as error:
        missing = str(error.args[0]).partition("/")[0]
        raise StoreError(Outcome.CORRUPT, f"the Zarr store at {url} has no {missing}") from None
    except (TypeError, AttributeError):
        raise StoreError(Outcome.CORRUPT, f"the metadata at {url} are not those of a Zarr store") from None


def moments(axis: Chunked, numbers: np.ndarray) -> list[datetime]:
    """Return what `numbers` of a CF time axis stand for, UTC without a zone.

    Raises
    ------
    StoreError
        If the axis has no usable units.
    """
    try:
        attributes = axis.attributes
        return decode_times(numbers, attributes.get("units", ""), attributes.get("calendar", "standard"))
    except ValueError as error:
        raise StoreError(Outcome.CORRUPT, f"the {axis.name} axis of the store: {error}") from None


def _read(http: Client, address: Address) -> dict[str, Any] | None:
    """Return the JSON at `address`, None if there is nothing."""
    page = http.get_page(address.whole)
    if page.outcome is Outcome.ABSENT:
        return None
    if not page.ok:
        raise StoreError(page.outcome, f"{address}: {page.detail}; check the network, then build again")
    try:
        value = json.loads(page.text)
    except ValueError:
        raise StoreError(Outcome.CORRUPT, f"{address} is no JSON") from None
    return value if isinstance(value, dict) else {}
