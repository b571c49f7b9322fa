"""The whole measurement of building: rows in turn, several rounds, one result."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from hephaestus_build.core.settings import load_settings
from hephaestus_build.performance.cached_archive import BENCHMARK_FRAME, CachedArchive
from hephaestus_build.performance.input_files import InputFiles
from hephaestus_build.performance.markdown_report import summarize_build_runs
from hephaestus_build.performance.process_timer import Measurement, measure_task, wait_until_idle
from hephaestus_build.performance.raster_complexity import find_rasters, measure_complexity
from hephaestus_build.performance.region_write_baseline import compare_with_build
from hephaestus_build.performance.result_files import result_header

_TASKS_MODULE = "hephaestus_build.performance.build_tasks"
#: Rasters of the part that measures bookkeeping: their size must not matter.
_SMALL_SHAPE = (60, 72)


@dataclass(frozen=True)
class BuildBenchmark:
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
    cube_sizes : sequence of int
        Pairs in the cubes that one is added to.
    pairs_added : int
        How many are added, one after the other; a date comes with about every third.
    memory_pairs : int or None
        How many pairs to measure memory with beside 4 and the world's own number.
    real : pathlib.Path or None
        A folder of real interferograms, to compare the simulated ones with.
    idle_timeout : float
        Seconds to wait, before each row, for everything else on the machine to be quiet.
    report : callable
        Told what is being done.
    run_task : callable
        Runs a task as :func:`~hephaestus_build.performance.process_timer.measure_task` does.
    """

    folder: Path
    size: str | tuple[int, int]
    epochs: int = 10
    rounds: int = 3
    cube_sizes: Sequence[int] = (10, 100)
    pairs_added: int = 9
    memory_pairs: int | None = None
    real: Path | None = None
    idle_timeout: float = 0.0
    report: Callable[[str], None] = lambda _: None
    run_task: Callable[..., Measurement] = measure_task

    def run(self) -> dict[str, Any]:
        """Measure everything and return the result as JSON values."""
        world = self._make_archive(self.size, self.epochs)
        content = world.ensure_files()
        scratch = self.folder / "scratch"
        try:
            runs, same = self._measure_rows(world, content, scratch)
            memory = self._measure_memory(world, content, scratch, runs)
            sizes = (_SMALL_SHAPE, self.size)  # what grows alone, and beside what a pair takes
            adding = [
                self._measure_incremental(size, count, scratch) for size in sizes for count in self.cube_sizes
            ]
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
        return {
            **result_header("build"),
            "world": self._describe(content),
            "same_content": same,
            **summarize_build_runs(runs),
            "memory": memory,
            "adding": adding,
            "runs": runs,
        }

    def _make_archive(self, size: str | tuple[int, int], epochs: int, thin: int = 0) -> CachedArchive:
        world = CachedArchive.in_cache(self.folder / "worlds", size, epochs, thin)
        if not (world.folder / "content.json").exists():
            self.report(f"making a simulated archive of {epochs} acquisitions, once")
        return world

    def _describe(self, content: InputFiles) -> dict[str, Any]:
        self.report("looking at how hard the rasters are")
        simulated = [(content.phase(pair), content.coherence(pair)) for pair in content.pairs[:6]]
        found = find_rasters(self.real)[:6] if self.real else []
        return {
            "frame": str(content.frame),
            "rows": content.grid.height,
            "columns": content.grid.width,
            "pairs": len(content.pairs),
            "dates": len(content.dates),
            "hardness": asdict(measure_complexity(simulated)),
            "hardness_of_real_rasters": asdict(measure_complexity(found)) if found else None,
        }

    def _measure_rows(
        self, world: CachedArchive, content: InputFiles, scratch: Path
    ) -> tuple[list[dict[str, Any]], dict[str, Any]]:
        """Measure every row in every round; the rows of a round follow each other closely."""
        runs: list[dict[str, Any]] = []
        region, threads = scratch / "region.zarr", _build_threads()
        build = {"frame": BENCHMARK_FRAME, "data": str(scratch / "data"), "limit": len(content.pairs)}
        with world.serve() as environment:
            for turn in range(self.rounds):
                tasks: Sequence[tuple[str, str, dict[str, Any]]] = (
                    (
                        "floor",
                        f"{_TASKS_MODULE}:run_codec_limit",
                        {"content": content.to_json(), "threads": threads},
                    ),
                    ("build", f"{_TASKS_MODULE}:run_build", {**build, "cached": False}),
                    (
                        "build, downloads in the cache",
                        f"{_TASKS_MODULE}:run_build",
                        {**build, "cached": True},
                    ),
                    (
                        "region",
                        "hephaestus_build.performance.region_write_baseline:run_region_build",
                        {"content": content.to_json(), "path": str(region)},
                    ),
                )
                for name, task, arguments in tasks:
                    self.report(f"round {turn + 1} of {self.rounds}: {name}")
                    if self.size == "real":
                        os.sync()  # what an earlier row left to be written is not this one's burden
                    wait_until_idle(self.idle_timeout)
                    run = {"round": turn, "row": name, **vars(self.run_task(task, environment, **arguments))}
                    runs.append(run)
            self.report("comparing the two cubes, array for array")
            same = compare_with_build(Path(runs[-2]["facts"]["path"]), region)
        return runs, same

    def _measure_memory(
        self, world: CachedArchive, content: InputFiles, scratch: Path, runs: Sequence[dict[str, Any]]
    ) -> list[dict[str, Any]]:
        """Measure the peak memory of builds of more and more pairs."""
        rows = [
            {"pairs": run["facts"]["pairs"], "peak": run["peak"]} for run in runs if run["row"] == "build"
        ]
        for count in filter(None, (4, self.memory_pairs)):
            if count > len(content.pairs):
                world = self._make_archive(self.size, count // 3 + 3)
                world.ensure_files()
            self.report(f"memory of a build of {count} pairs")
            with world.serve() as environment:
                run = self.run_task(
                    f"{_TASKS_MODULE}:run_build",
                    environment,
                    frame=BENCHMARK_FRAME,
                    data=str(scratch / "data"),
                    cached=False,
                    limit=count,
                )
            rows.append({"pairs": count, "peak": run.peak})
        return sorted(rows, key=lambda row: row["pairs"])

    def _measure_incremental(self, size: str | tuple[int, int], count: int, scratch: Path) -> dict[str, Any]:
        world = self._make_archive(
            size, max(6, count // 3 + self.pairs_added + 2), thin=0 if size == _SMALL_SHAPE else count
        )
        grid = world.ensure_files().grid
        self.report(f"adding to a cube of {count} pairs of {grid.height} x {grid.width} pixels")
        with world.serve() as environment:
            run = self.run_task(
                "hephaestus_build.performance.incremental_tasks:run_incremental_builds",
                environment,
                frame=BENCHMARK_FRAME,
                data=str(scratch / "data"),
                pairs=count,
                more=self.pairs_added,
            )
        return {"rows": grid.height, "columns": grid.width, **run.facts}


def _build_threads() -> int:
    """Return how many threads a build uses for interferograms."""
    settings = load_settings()
    return max(settings.worker_count, settings.connections_allowed)
