"""The whole measurement of building: rows in turn, several rounds, one result."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from hephaestus_build.core.settings import load_settings
from hephaestus_build.performance.cached_archive import FRAME, World
from hephaestus_build.performance.input_files import Content
from hephaestus_build.performance.markdown_report import summary
from hephaestus_build.performance.process_timer import Measurement, measure, wait_for_quiet
from hephaestus_build.performance.raster_complexity import hardness, rasters_under
from hephaestus_build.performance.region_write_baseline import compare
from hephaestus_build.performance.result_files import head

_ROWS = "hephaestus_build.performance.build_tasks"
#: Rasters of the part that measures bookkeeping: their size must not matter.
_TINY = (60, 72)


@dataclass(frozen=True)
class Suite:
    """What to measure, and where.

    Attributes
    ----------
    folder : pathlib.Path
        Of simulated archives, kept, and of the cubes that are built, thrown away.
    size : str or tuple of int
        Of the rasters.
    epochs : int
        Acquisitions of the world that is built; about twice as many pairs where they are few.
    rounds : int
        How often each row is measured, in turn.
    counts : sequence of int
        Pairs in the cubes that one is added to.
    more : int
        How many are added, one after the other; a date comes with about every third.
    many : int or None
        How many pairs to measure memory with beside 4 and the world's own number.
    real : pathlib.Path or None
        A folder of real interferograms, to compare the simulated ones with.
    patience : float
        Seconds to wait, before each row, for everything else on the machine to be quiet.
    say : callable
        Told what is being done.
    task : callable
        Runs a task as :func:`~hephaestus_build.performance.process_timer.measure` does.
    """

    folder: Path
    size: str | tuple[int, int]
    epochs: int = 10
    rounds: int = 3
    counts: Sequence[int] = (10, 100)
    more: int = 9
    many: int | None = None
    real: Path | None = None
    patience: float = 0.0
    say: Callable[[str], None] = lambda _: None
    task: Callable[..., Measurement] = measure

    def run(self) -> dict[str, Any]:
        """Measure everything and return the result as JSON values."""
        world = self._world(self.size, self.epochs)
        content = world.make()
        scratch = self.folder / "scratch"
        try:
            runs, same = self._rows(world, content, scratch)
            memory = self._memory(world, content, scratch, runs)
            sizes = (_TINY, self.size)  # what grows alone, and beside what a pair takes
            adding = [self._adding(size, count, scratch) for size in sizes for count in self.counts]
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
        return {
            **head("build"),
            "world": self._describe(content),
            "same_content": same,
            **summary(runs),
            "memory": memory,
            "adding": adding,
            "runs": runs,
        }

    def _world(self, size: str | tuple[int, int], epochs: int, thin: int = 0) -> World:
        world = World.under(self.folder / "worlds", size, epochs, thin)
        if not (world.folder / "content.json").exists():
            self.say(f"making a simulated archive of {epochs} acquisitions, once")
        return world

    def _describe(self, content: Content) -> dict[str, Any]:
        self.say("looking at how hard the rasters are")
        simulated = [(content.phase(pair), content.coherence(pair)) for pair in content.pairs[:6]]
        found = rasters_under(self.real)[:6] if self.real else []
        return {
            "frame": str(content.frame),
            "rows": content.grid.height,
            "columns": content.grid.width,
            "pairs": len(content.pairs),
            "dates": len(content.dates),
            "hardness": asdict(hardness(simulated)),
            "hardness_of_real_rasters": asdict(hardness(found)) if found else None,
        }

    def _rows(
        self, world: World, content: Content, scratch: Path
    ) -> tuple[list[dict[str, Any]], dict[str, Any]]:
        """Measure every row in every round; the rows of a round follow each other closely."""
        runs: list[dict[str, Any]] = []
        region, threads = scratch / "region.zarr", _threads()
        build = {"frame": FRAME, "data": str(scratch / "data"), "limit": len(content.pairs)}
        with world.served() as environment:
            for turn in range(self.rounds):
                tasks: Sequence[tuple[str, str, dict[str, Any]]] = (
                    ("floor", f"{_ROWS}:floor", {"content": content.to_json(), "threads": threads}),
                    ("build", f"{_ROWS}:cube", {**build, "cached": False}),
                    ("build, downloads in the cache", f"{_ROWS}:cube", {**build, "cached": True}),
                    (
                        "region",
                        "hephaestus_build.performance.region_write_baseline:region",
                        {"content": content.to_json(), "path": str(region)},
                    ),
                )
                for name, task, arguments in tasks:
                    self.say(f"round {turn + 1} of {self.rounds}: {name}")
                    if self.size == "real":
                        os.sync()  # what an earlier row left to be written is not this one's burden
                    wait_for_quiet(self.patience)
                    run = {"round": turn, "row": name, **vars(self.task(task, environment, **arguments))}
                    runs.append(run)
            self.say("comparing the two cubes, array for array")
            same = compare(Path(runs[-2]["facts"]["path"]), region)
        return runs, same

    def _memory(
        self, world: World, content: Content, scratch: Path, runs: Sequence[dict[str, Any]]
    ) -> list[dict[str, Any]]:
        """Measure the peak memory of builds of more and more pairs."""
        rows = [
            {"pairs": run["facts"]["pairs"], "peak": run["peak"]} for run in runs if run["row"] == "build"
        ]
        for count in filter(None, (4, self.many)):
            if count > len(content.pairs):
                world = self._world(self.size, count // 3 + 3)
                world.make()
            self.say(f"memory of a build of {count} pairs")
            with world.served() as environment:
                run = self.task(
                    f"{_ROWS}:cube",
                    environment,
                    frame=FRAME,
                    data=str(scratch / "data"),
                    cached=False,
                    limit=count,
                )
            rows.append({"pairs": count, "peak": run.peak})
        return sorted(rows, key=lambda row: row["pairs"])

    def _adding(self, size: str | tuple[int, int], count: int, scratch: Path) -> dict[str, Any]:
        world = self._world(size, max(6, count // 3 + self.more + 2), thin=0 if size == _TINY else count)
        grid = world.make().grid
        self.say(f"adding to a cube of {count} pairs of {grid.height} x {grid.width} pixels")
        with world.served() as environment:
            run = self.task(
                "hephaestus_build.performance.incremental_tasks:adding",
                environment,
                frame=FRAME,
                data=str(scratch / "data"),
                pairs=count,
                more=self.more,
            )
        return {"rows": grid.height, "columns": grid.width, **run.facts}


def _threads() -> int:
    """Return how many threads a build uses for interferograms."""
    settings = load_settings()
    return max(settings.threads, settings.connections)
