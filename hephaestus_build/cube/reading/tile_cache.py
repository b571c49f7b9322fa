"""A size-bounded LRU cache of decoded tiles."""

from __future__ import annotations

import threading
from collections import OrderedDict
from typing import Any

import numpy as np
import numpy.typing as npt


class TileCache:
    """Thread-safe LRU cache of decoded tiles.

    Parameters
    ----------
    limit : int
        Maximum size of all tiles together, in bytes.
    """

    def __init__(self, limit: int) -> None:
        self.limit, self.size = limit, 0
        self._tiles: OrderedDict[object, np.ndarray] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: object) -> npt.NDArray[Any] | None:
        """Return the tile, or None if it is not in the cache."""
        with self._lock:
            tile = self._tiles.get(key)
            if tile is not None:
                self._tiles.move_to_end(key)
            return tile

    def put(self, key: object, tile: npt.NDArray[Any]) -> None:
        """Add `tile`, and evict the least recently used tiles above the limit."""
        with self._lock:
            before = self._tiles.pop(key, None)
            self._tiles[key] = tile
            self.size += tile.nbytes - (0 if before is None else before.nbytes)
            while self.size > self.limit:
                self.size -= self._tiles.popitem(last=False)[1].nbytes
