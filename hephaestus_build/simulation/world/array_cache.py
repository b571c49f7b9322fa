"""A memory of bounded size for arrays that are costly to make."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable

import numpy as np


class ArrayCache:
    """Keep the arrays used last, up to a number of bytes; safe for threads.

    Parameters
    ----------
    limit : int
        Bytes.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._arrays: OrderedDict[Hashable, np.ndarray] = OrderedDict()
        self._lock = threading.RLock()
        self._locks: dict[Hashable, threading.Lock] = {}

    def get(self, key: Hashable, make: Callable[[], np.ndarray]) -> np.ndarray:
        """Return the array kept under `key`, read-only, made by `make` if it is not there."""
        with self._lock:
            gate = self._locks.setdefault(key, threading.Lock())
        with gate:  # two threads that want the same array make it once
            with self._lock:
                if key in self._arrays:
                    self._arrays.move_to_end(key)
                    return self._arrays[key]
            value = make()
            value.setflags(write=False)
            with self._lock:
                self._arrays[key] = value
                while (
                    len(self._arrays) > 1 and sum(kept.nbytes for kept in self._arrays.values()) > self._limit
                ):
                    self._arrays.popitem(last=False)
            return value
