"""Stages of a build: the protocol, and running the items of a stage in a pool of threads."""

from __future__ import annotations

import logging
import time
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Protocol

from hephaestus_build.core.concurrency import BoundedPool, open_bounded_pool
from hephaestus_build.cube.granules import Granule, GranuleKey
from hephaestus_build.pipeline.context import BuildContext
from hephaestus_build.pipeline.ledger import Ledger

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Build:
    """One build of one frame.

    Attributes
    ----------
    context : BuildContext
        Immutable state.
    ledger : Ledger
        Mutable state: what is finished.
    """

    context: BuildContext
    ledger: Ledger

    def staged(self) -> list[Granule]:
        """Return the finished granules that are missing from, or differ from, the published cube."""
        published = self.context.published
        return [
            granule for key, granule in self.ledger.snapshot().items() if published.get(key) is not granule
        ]


class Stage(Protocol):
    """A step of a build that makes granules of one kind."""

    name: str

    def items(self, build: Build, only: Collection[GranuleKey] | None = None) -> Sequence[GranuleKey]:
        """Return the keys of the granules to make now, in order.

        Parameters
        ----------
        build : Build
            The build.
        only : collection of GranuleKey, optional
            Candidates; by default everything that the request asks for. Keys of other kinds are ignored.
        """

    def begin(self, build: Build, keys: Sequence[GranuleKey]) -> None:
        """Announce the granules `keys`, and do work that they share."""
        if keys:
            log.info("%s: %s: %d to make", build.context.frame, self.name, len(keys))
        build.context.listener.stage(self.name, len(keys))

    def run(self, build: Build, key: GranuleKey) -> None:
        """Make one granule: fetch, process, encode and record it. A failed granule is recorded as owed."""


@contextmanager
def open_stage_pool(build: Build) -> Iterator[BoundedPool]:
    """Open the thread pool in which granules are made; the settings give its size."""
    settings = build.context.settings
    with open_bounded_pool(max(settings.worker_count, settings.connections_allowed)) as pool:
        yield pool


def submit_items(pool: BoundedPool, build: Build, stage: Stage, keys: Iterable[GranuleKey]) -> None:
    """Submit the granules `keys` of a stage, whose `begin` has returned, to a pool."""
    for key in keys:
        pool.submit(partial(_run_item, build, stage, key))


def _run_item(build: Build, stage: Stage, key: GranuleKey) -> None:
    began = time.monotonic()
    stage.run(build, key)
    log.debug("%s: %s encoded and stored in %.1f s", build.context.frame, key, time.monotonic() - began)
    build.context.listener.advance(stage.name)


def run_stage(build: Build, stage: Stage, only: Collection[GranuleKey] | None = None) -> None:
    """Make all missing granules of a stage, and wait for them.

    Parameters
    ----------
    build : Build
        The build.
    stage : Stage
        The stage to run.
    only : collection of GranuleKey, optional
        As :meth:`Stage.items` takes it.
    """
    keys = stage.items(build, only)
    stage.begin(build, keys)
    with open_stage_pool(build) as pool:
        submit_items(pool, build, stage, keys)
