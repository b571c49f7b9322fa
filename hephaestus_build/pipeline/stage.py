"""What a stage of a build is, and how its granules are made: on many threads, in order."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Protocol

from hephaestus_build.core.concurrency import BoundedPool, open_bounded_pool
from hephaestus_build.cube.granules import Granule, GranuleKey
from hephaestus_build.pipeline.context import BuildContext
from hephaestus_build.pipeline.ledger import Ledger


@dataclass(frozen=True)
class Build:
    """One build of one frame.

    Attributes
    ----------
    context : BuildContext
        What it knew before it began.
    ledger : Ledger
        What it has finished so far.
    """

    context: BuildContext
    ledger: Ledger

    def staged(self) -> list[Granule]:
        """Return the finished granules that are not in the published cube, or not as they are there."""
        published = self.context.published
        return [
            granule for key, granule in self.ledger.snapshot().items() if published.get(key) is not granule
        ]


class Stage(Protocol):
    """A part of a build that makes granules of one kind."""

    name: str

    def items(self, build: Build, only: Collection[GranuleKey] | None = None) -> Sequence[GranuleKey]:
        """Return the granules that are to be made now, in order.

        Parameters
        ----------
        build : Build
            What there is, and what is finished.
        only : collection of GranuleKey, optional
            The granules to look at; by default all that the request asks for. Those of other kinds are
            left out.
        """

    def begin(self, build: Build, keys: Sequence[GranuleKey]) -> None:
        """Say that the granules `keys` come next, and do what belongs to no single one of them."""
        build.context.listener.stage(self.name, len(keys))

    def run(self, build: Build, key: GranuleKey) -> None:
        """Make one granule: fetch, process, encode and record it; what fails is recorded too, and owed."""


@contextmanager
def open_stage_pool(build: Build) -> Iterator[BoundedPool]:
    """Open the threads that granules are made on, as many as the settings allow."""
    settings = build.context.settings
    with open_bounded_pool(max(settings.worker_count, settings.connections)) as pool:
        yield pool


def submit_items(pool: BoundedPool, build: Build, stage: Stage, keys: Iterable[GranuleKey]) -> None:
    """Have the granules `keys` of a stage that has begun made by a pool."""
    for key in keys:
        pool.submit(partial(_run_item, build, stage, key))


def _run_item(build: Build, stage: Stage, key: GranuleKey) -> None:
    stage.run(build, key)
    build.context.listener.advance(stage.name)


def run_stage(build: Build, stage: Stage, only: Collection[GranuleKey] | None = None) -> None:
    """Make all granules of a stage that are to be made, and wait for the last one.

    Parameters
    ----------
    build : Build
        What there is, and what is finished.
    stage : Stage
        Which.
    only : collection of GranuleKey, optional
        As :meth:`Stage.items` takes it.
    """
    keys = stage.items(build, only)
    stage.begin(build, keys)
    with open_stage_pool(build) as pool:
        submit_items(pool, build, stage, keys)
