"""A bounded store of the most recently used tiles."""

from __future__ import annotations

import threading
from collections import OrderedDict

import numpy as np


class TileCache:
    """The most recently used decoded tiles, up to a number of bytes; safe to use from several threads.

    Parameters
    ----------
    limit : int
        Bytes of all tiles together.
    """

    def __init__(self, limit: int) -> None:
        self.limit, self.size = limit, 0
        self._tiles: OrderedDict[object, np.ndarray] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: object) -> np.ndarray | None:
        """Return the tile, if it is still here."""
        with self._lock:
            tile = self._tiles.get(key)
            if tile is not None:
                self._tiles.move_to_end(key)
            return tile

    def put(self, key: object, tile: np.ndarray) -> None:
        """Keep `tile`; let the longest unused ones go."""
        with self._lock:
            before = self._tiles.pop(key, None)
            self._tiles[key] = tile
            self.size += tile.nbytes - (0 if before is None else before.nbytes)
            while self.size > self.limit:
                self.size -= self._tiles.popitem(last=False)[1].nbytes
