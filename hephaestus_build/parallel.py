"""A few things at a time, with memory and errors bounded."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from itertools import islice
from typing import TypeVar

T = TypeVar("T")


def side_by_side(work: Callable[[T], object], items: Iterable[T], threads: int) -> Iterator[None]:
    """Do `work` for every item, at most `threads` at a time; yield once for each that is done.

    Only a few items are queued ahead, so that the first error, or the consumer's going away, ends the whole
    after the items in hand; that error is raised.
    """
    pending = iter(items)
    pool = ThreadPoolExecutor(threads)
    try:
        running: set[Future[object]] = {pool.submit(work, item) for item in islice(pending, 2 * threads)}
        while running:
            done, running = wait(running, return_when=FIRST_COMPLETED)
            for future in done:
                future.result()
                running |= {pool.submit(work, item) for item in islice(pending, 1)}
                yield
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
