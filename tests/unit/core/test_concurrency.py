"""Caches that threads share."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from cachetools import LRUCache, TTLCache

from hephaestus_build.core.concurrency import SharedCache, make_array_cache


def test_array_cache_stays_within_its_limit_and_evicts_the_least_recently_used() -> None:
    cache = make_array_cache(1000)
    for number in range(30):
        cache.put(number, np.zeros(300, np.uint8))
        assert cache.size <= 1000
        cache.get(0)
    assert cache.get(0) is not None
    assert cache.get(29) is not None
    assert cache.get(5) is None
    cache.put(29, np.zeros(100, np.uint8))
    assert cache.size == 700
    cache.put(29, np.zeros(2000, np.uint8))  # larger than the cache: not kept, nor is the earlier value
    assert cache.get(29) is None
    assert cache.size == 600


def test_missing_value_is_computed_once_for_all_threads() -> None:
    cache: SharedCache[str, int] = SharedCache(LRUCache(10))
    computed: list[int] = []
    together = threading.Barrier(4)

    def compute() -> int:
        computed.append(1)
        return 7

    def ask() -> int:
        together.wait(20)
        return cache.get_or_compute("key", compute)

    with ThreadPoolExecutor(4) as pool:
        found = [future.result() for future in [pool.submit(ask) for _ in range(4)]]
    assert found == [7] * 4
    assert len(computed) == 1
    cache.discard("key")
    assert cache.get_or_compute("key", compute) == 7
    assert len(computed) == 2


def test_value_that_is_not_kept_and_failed_computation_are_computed_again() -> None:
    cache: SharedCache[str, int] = SharedCache(LRUCache(10))
    values = iter([1, 2, 3])
    assert cache.get_or_compute("key", lambda: next(values), keep=lambda value: value > 1) == 1
    with pytest.raises(ZeroDivisionError):
        cache.get_or_compute("key", lambda: 1 // 0)
    assert cache.get_or_compute("key", lambda: next(values), keep=lambda value: value > 1) == 2
    assert cache.get_or_compute("key", lambda: next(values)) == 2


def test_values_expire() -> None:
    now = [0.0]
    cache: SharedCache[str, int] = SharedCache(TTLCache(10, 600, timer=lambda: now[0]))
    assert cache.get_or_compute("key", lambda: 1) == 1
    now[0] = 599
    assert cache.get_or_compute("key", lambda: 2) == 1
    now[0] = 601
    assert cache.get_or_compute("key", lambda: 2) == 2
