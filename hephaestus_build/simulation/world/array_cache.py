"""In-memory cache of bounded size for arrays that are costly to compute."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Any

import numpy as np
import numpy.typing as npt


class ArrayCache:
    """Thread-safe least-recently-used cache of arrays, limited by their total size.

    Parameters
    ----------
    limit : int
        Total size in bytes. The newest array is kept even if it is larger.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._arrays: OrderedDict[Hashable, np.ndarray] = OrderedDict()
        self._lock = threading.RLock()
        self._locks: dict[Hashable, threading.Lock] = {}

    def get(self, key: Hashable, make: Callable[[], npt.NDArray[Any]]) -> npt.NDArray[Any]:
        """Return the array cached under `key`, read-only; `make` computes it if it is not cached."""
        with self._lock:
            gate = self._locks.setdefault(key, threading.Lock())
        with gate:  # threads that ask for the same array compute it once
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
