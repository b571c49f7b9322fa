"""Pools of threads with a bounded queue, and caches that threads share."""

from __future__ import annotations

import multiprocessing
import os
import threading
from collections.abc import Callable, Hashable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from itertools import islice
from multiprocessing.connection import wait as wait_for_processes
from typing import Any, Generic, TypeVar
from weakref import WeakValueDictionary

import numpy.typing as npt
from cachetools import Cache, LRUCache

T = TypeVar("T")
R = TypeVar("R")
K = TypeVar("K", bound=Hashable)


class BackgroundTask(Generic[R]):
    """A call that runs in a background thread, started at once.

    The thread is a daemon: it is abandoned unless :meth:`result` is called.

    Parameters
    ----------
    work : callable
        Function without arguments.
    """

    def __init__(self, work: Callable[[], R]) -> None:
        self._future: Future[R] = Future()
        threading.Thread(target=self._run, args=(work,), daemon=True).start()

    def _run(self, work: Callable[[], R]) -> None:
        try:
            self._future.set_result(work())
        except BaseException as error:
            self._future.set_exception(error)

    @property
    def is_done(self) -> bool:
        """Whether the call has returned or raised."""
        return self._future.done()

    def result(self) -> R:
        """Wait for the call and return its result, or raise its exception."""
        return self._future.result()


def exit_with_parent() -> None:
    """End this child process when its parent ends, however it ends; also if it has ended already.

    The process ends at once, with its own children, and without any clean-up.
    """

    def watch() -> None:
        parent = multiprocessing.parent_process()
        if parent is None:
            return
        wait_for_processes([parent.sentinel])
        for child in multiprocessing.active_children():
            child.kill()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def map_bounded(work: Callable[[T], R], items: Iterable[T], threads: int) -> Iterator[R]:
    """Call `work` for every item in at most `threads` threads; yield results in order of completion.

    Only a few items are queued ahead. At the first error, or when the consumer closes the generator, running
    items are completed and no others are started; the error is raised. A KeyboardInterrupt does not wait
    for running items, which may be interrupted at any point.
    """
    pending = iter(items)
    pool = ThreadPoolExecutor(threads)
    wait_for_running = True
    try:
        running: set[Future[R]] = {pool.submit(work, item) for item in islice(pending, 2 * threads)}
        while running:
            done, running = wait(running, return_when=FIRST_COMPLETED)
            for future in done:
                result = future.result()
                running |= {pool.submit(work, item) for item in islice(pending, 1)}
                yield result
    except KeyboardInterrupt:
        wait_for_running = False
        raise
    finally:
        pool.shutdown(wait=wait_for_running, cancel_futures=True)


class BoundedPool:
    """A pool of threads that runs tasks in the order of submission, with a bounded queue.

    Parameters
    ----------
    executor : concurrent.futures.ThreadPoolExecutor
        The threads.
    limit : int
        Number of unfinished tasks at which :meth:`submit` blocks.
    """

    def __init__(self, executor: ThreadPoolExecutor, limit: int) -> None:
        self._executor, self._limit = executor, limit
        self._running: set[Future[object]] = set()

    def submit(self, work: Callable[[], object]) -> None:
        """Queue a task, waiting for room in the queue; raise the error of an earlier task, if any."""
        self._wait_until_fewer_than(self._limit)
        self._running.add(self._executor.submit(work))

    def drain(self) -> None:
        """Wait for all tasks; raise the first error."""
        self._wait_until_fewer_than(1)

    def _wait_until_fewer_than(self, limit: int) -> None:
        while len(self._running) >= limit:
            done, self._running = wait(self._running, return_when=FIRST_COMPLETED)
            for future in done:
                future.result()


@contextmanager
def open_bounded_pool(threads: int) -> Iterator[BoundedPool]:
    """Open a pool of threads, and wait for all submitted tasks at the end of the block.

    After the first error, of a task or of the block, running tasks are completed and no others are started.
    A KeyboardInterrupt does not wait for running tasks, which may be interrupted at any point.
    """
    executor = ThreadPoolExecutor(threads)
    wait_for_running = True
    try:
        pool = BoundedPool(executor, 2 * threads)
        yield pool
        pool.drain()
    except KeyboardInterrupt:
        wait_for_running = False
        raise
    finally:
        executor.shutdown(wait=wait_for_running, cancel_futures=True)


class SharedCache(Generic[K, T]):
    """Cache that threads share; threads that ask for the same missing value compute it once.

    Parameters
    ----------
    values : cachetools.Cache
        Holds the values, and decides which of them to evict.
    """

    def __init__(self, values: Cache[K, T]) -> None:
        self._values = values
        self._lock = threading.Lock()
        # one lock for each value that is being computed; it goes when no thread holds it
        self._computing: WeakValueDictionary[K, threading.Lock] = WeakValueDictionary()

    @property
    def size(self) -> float:
        """Size of all values together, as the cache measures it."""
        return self._values.currsize

    def get(self, key: K) -> T | None:
        """Return a value, or None if it is not in the cache."""
        with self._lock:
            return self._values.get(key)

    def put(self, key: K, value: T) -> None:
        """Add a value, unless it is larger than the whole cache."""
        with self._lock:
            self._values.pop(key, None)
            if self._values.getsizeof(value) <= self._values.maxsize:
                self._values[key] = value

    def discard(self, key: K) -> None:
        """Remove a value if it is in the cache."""
        with self._lock:
            self._values.pop(key, None)

    def clear(self) -> None:
        """Remove all values."""
        with self._lock:
            self._values.clear()

    def get_or_compute(
        self, key: K, compute: Callable[[], T], keep: Callable[[T], bool] = lambda _: True
    ) -> T:
        """Return a value, and compute it first if it is not in the cache.

        Parameters
        ----------
        key : hashable
            Key of the value.
        compute : callable
            Returns the value; other threads that want the same one wait for it.
        keep : callable, optional
            Decides whether a computed value is added to the cache; by default all are.
        """
        with self._lock:
            computing = self._computing.setdefault(key, threading.Lock())
        with computing:
            value = self.get(key)
            if value is None:
                value = compute()
                if keep(value):
                    self.put(key, value)
            return value


def make_array_cache(limit: int) -> SharedCache[Hashable, npt.NDArray[Any]]:
    """Return a least-recently-used cache of arrays whose total size is at most `limit` bytes."""
    return SharedCache(LRUCache(limit, getsizeof=lambda array: array.nbytes))
