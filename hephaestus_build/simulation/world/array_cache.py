"""A memory of bounded size for arrays that are costly to make."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable

import numpy as np


class Memo:
    """Keep the arrays used last, up to a number of bytes; safe for threads.

    Parameters
    ----------
    limit : int
        Bytes.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._kept: OrderedDict[Hashable, np.ndarray] = OrderedDict()
        self._lock = threading.RLock()
        self._making: dict[Hashable, threading.Lock] = {}

    def get(self, key: Hashable, make: Callable[[], np.ndarray]) -> np.ndarray:
        """Return the array kept under `key`, read-only, made by `make` if it is not there."""
        with self._lock:
            gate = self._making.setdefault(key, threading.Lock())
        with gate:  # two threads that want the same array make it once
            with self._lock:
                if key in self._kept:
                    self._kept.move_to_end(key)
                    return self._kept[key]
            value = make()
            value.setflags(write=False)
            with self._lock:
                self._kept[key] = value
                while len(self._kept) > 1 and sum(kept.nbytes for kept in self._kept.values()) > self._limit:
                    self._kept.popitem(last=False)
            return value
