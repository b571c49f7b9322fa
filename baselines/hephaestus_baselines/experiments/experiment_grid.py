"""A grid of runs: which there are, which are finished, each done once, whoever does it.

::

    <results>/<preset>/cubes/<frame>.zarr            the generations that all runs read
    <results>/<preset>/runs/<key>/result.json        written last: the run is finished
    <results>/<preset>/tables.md, .csv, .json, *.png

What is finished stands on disk alone. So a grid may be stopped anywhere, spread over processes and machines,
and started again: a run that is finished is not repeated, one that was cut off goes on from its last epoch.
"""

from __future__ import annotations

import csv
import logging
import os
import signal
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from multiprocessing import active_children, get_context, parent_process
from multiprocessing.connection import wait
from pathlib import Path
from threading import Thread
from typing import Any, TypeVar

from hephaestus_baselines.config.run_config import Preset, Recipe
from hephaestus_baselines.data.cube_integrity import Wholeness
from hephaestus_baselines.data.pinned_cubes import alone, pin
from hephaestus_baselines.data.preparation import Prepared, prepare
from hephaestus_baselines.evaluation.evaluate import assess
from hephaestus_baselines.evaluation.result_schema import RunResult, SplitRecord, code_version, versions
from hephaestus_baselines.reporting.aggregate_tables import tables
from hephaestus_baselines.training.history import METRICS, checked
from hephaestus_build.core.errors import HephaestusError, UsageError
from hephaestus_build.core.progress import NullListener, ProgressListener
from hephaestus_build.dataset.samples import count_classes
from hephaestus_build.dataset.splits import PARTS

log = logging.getLogger(__name__)
T = TypeVar("T")

RESULT = "result.json"
#: Files that only a run which is not finished needs.
_SCAFFOLD = ("last.ckpt",)


def share(items: Sequence[T], part: tuple[int, int]) -> tuple[T, ...]:
    """Return the i-th of n parts of `items`: disjoint, together all, and the same for whoever asks.

    Parameters
    ----------
    items : sequence
    part : tuple of int
        i and n, from (1, 1).

    Raises
    ------
    UsageError
        If i is not between 1 and n.
    """
    number, count = part
    if not 1 <= number <= count:
        raise UsageError(f"there is no part {number} of {count}: parts go from 1/{count} to {count}/{count}")
    return tuple(items[number - 1 :: count])


@dataclass(frozen=True)
class Bench:
    """A grid and where it stands.

    Attributes
    ----------
    preset : Preset
    recipes : tuple of Recipe
        All its runs, in the order in which they are done.
    folder : pathlib.Path
        ``<results>/<preset>``.
    cubes : pathlib.Path
        Links to the generations that its runs read.
    changed : tuple of str
        Frames whose published cube is another one by now.
    command : str
        What was typed, to be written into results.
    unchecked : bool
        Whether what is read of the cubes is used without a comparison with what was published.
    """

    preset: Preset
    recipes: tuple[Recipe, ...]
    folder: Path
    cubes: Path
    changed: tuple[str, ...] = ()
    command: str = ""
    unchecked: bool = False
    _prepared: dict[Any, Prepared] = field(default_factory=dict, compare=False, repr=False)

    def home(self, recipe: Recipe) -> Path:
        """Return the folder of a run."""
        return self.folder / "runs" / recipe.key

    def is_finished(self, recipe: Recipe) -> bool:
        """Return whether a run is finished."""
        return (self.home(recipe) / RESULT).is_file()

    def results(self, problems: list[str] | None = None) -> list[RunResult]:
        """Return the results of the runs that are finished, in the grid's order.

        Parameters
        ----------
        problems : list of str, optional
            Takes why results cannot be read, which are left out then.

        Raises
        ------
        HephaestusError
            If one cannot be read and `problems` is not given.
        """
        found = []
        for recipe in filter(self.is_finished, self.recipes):
            try:
                found.append(self.result(recipe))
            except HephaestusError as error:
                if problems is None:
                    raise
                problems.append(f"{recipe.key}: {error}")
        return found

    def result(self, recipe: Recipe) -> RunResult:
        """Return the result of a finished run.

        Raises
        ------
        HephaestusError
            If it is damaged, or that of another run.
        """
        path = self.home(recipe) / RESULT
        found = RunResult.read(path)
        try:
            same = found.key == Recipe.model_validate(found.recipe).key == recipe.key
        except ValueError:
            same = False
        if not same:
            raise HephaestusError(
                f"{path} is the result of another run; remove it and run the same command again"
            )
        return found

    def whole(self, listener: ProgressListener | None = None) -> Wholeness | None:
        """Return what compares the cubes with what was published, unless that is not wanted."""
        return None if self.unchecked else Wholeness(self.folder, listener)

    def prepared(self, recipe: Recipe, listener: ProgressListener | None = None) -> Prepared:
        """Return what `recipe` learns from and is scored on; runs that see the same share it."""
        seen = (recipe.split, recipe.series, recipe.size, recipe.training, recipe.tiling)
        if seen not in self._prepared:
            self._prepared[seen] = prepare(
                self.cubes,
                split=recipe.split,
                series=recipe.series,
                size=recipe.size,
                training=recipe.training,
                tiling=recipe.tiling,
                results=self.folder,
                mixed=True,  # what was pinned was wanted
                whole=self.whole(listener),
                listener=listener,
            )
        return self._prepared[seen]


def open_bench(
    preset: Preset,
    cubes: Path | Sequence[Path],
    results: Path,
    /,
    *,
    mixed: bool = False,
    command: str = "",
    unchecked: bool = False,
    **changes: Any,
) -> Bench:
    """Return the grid of a preset, its cubes pinned.

    Parameters
    ----------
    preset : Preset
    cubes : pathlib.Path or sequence of pathlib.Path
        Folder of published cubes, or the cubes.
    results : pathlib.Path
        Folder of all grids.
    mixed : bool
        Whether real and simulated cubes may be among them.
    command : str
        What was typed.
    unchecked : bool
        Whether to leave out comparing the cubes with what was published.
    **changes
        Fields of :class:`~hephaestus_baselines.config.run_config.Recipe` that override the preset's.

    Raises
    ------
    HephaestusError
        If there are no cubes, or a pinned one is gone.
    UsageError
        If a change is not possible.
    """
    recipes = preset.runs(**changes)
    folder = results / preset.name
    pinned, changed = pin(cubes, folder, mixed=mixed)
    return Bench(preset, recipes, folder, pinned, tuple(changed), command, unchecked)


@dataclass(frozen=True)
class Ended:
    """What became of one run.

    Attributes
    ----------
    recipe : Recipe
    result : RunResult or None
        None where it failed, or another process is at it.
    kept : bool
        Whether it was finished before.
    error : str
        Why it failed, in one line.
    """

    recipe: Recipe
    result: RunResult | None = None
    kept: bool = False
    error: str = ""

    @property
    def elsewhere(self) -> bool:
        """Whether another process is at it."""
        return self.result is None and not self.error


def run_benchmark(
    bench: Bench,
    *,
    part: tuple[int, int] = (1, 1),
    device: str = "auto",
    at_a_time: int = 1,
    listener: ProgressListener | None = None,
) -> Iterator[Ended]:
    """Do the runs of a grid, or of a part of it; one that fails never stops the others.

    Parameters
    ----------
    bench : Bench
    part : tuple of int
        See :func:`share`.
    device : str
        ``auto``, ``cpu`` or ``cuda``.
    at_a_time : int
        Runs at once, each in a process of its own with its share of the cores: small models on a CPU do not
        use two cores well.
    listener : Listener, optional
        Told how far it is.

    Yields
    ------
    Ended
        As each run ends, also for those that were finished before.
    """
    recipes = share(bench.recipes, part)
    todo = [recipe for recipe in recipes if not bench.is_finished(recipe)]
    for recipe in recipes:
        if recipe not in todo:
            yield run_one(bench, recipe)
    if at_a_time == 1:
        for recipe in todo:
            yield run_one(bench, recipe, device=device, listener=listener)
    elif todo:
        yield from _side_by_side(bench, todo, device, min(at_a_time, len(todo)), listener or NullListener())


def _side_by_side(
    bench: Bench, todo: Sequence[Recipe], device: str, processes: int, listener: ProgressListener
) -> Iterator[Ended]:
    listener.stage("runs", len(todo))
    pool = ProcessPoolExecutor(
        processes, get_context("spawn"), initializer=_join, initargs=(bench, max(1, cores() // processes))
    )
    patient = True
    try:
        futures = {pool.submit(_work, recipe, device): recipe for recipe in todo}
        for future in as_completed(futures):
            listener.advance("runs")
            try:
                yield future.result()
            except BrokenProcessPool:
                key = futures[future].key
                yield Ended(
                    futures[future], error=f"{key}: its process was killed; run the same command again"
                )
    except KeyboardInterrupt:
        patient = False  # the processes end with this one
        raise
    finally:
        pool.shutdown(wait=patient, cancel_futures=True)


#: In a process that does runs: their grid, whose data is prepared once.
_bench: list[Bench] = []


def _join(bench: Bench, threads: int) -> None:
    """Make this process one that does runs, and end with the one that started it, however that ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all: one line is said, by the parent
    Thread(target=_end_with_parent, daemon=True).start()
    import torch

    torch.set_num_threads(threads)
    _bench.append(bench)


def _end_with_parent() -> None:
    parent = parent_process()
    assert parent is not None
    wait([parent.sentinel])
    for worker in active_children():  # they load data, and would notice the end only seconds later
        worker.kill()
    os._exit(1)


def _work(recipe: Recipe, device: str) -> Ended:
    return run_one(_bench[-1], recipe, device=device)


def cores() -> int:
    """Return how many cores this process may use."""
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity else os.cpu_count() or 1


def run_one(
    bench: Bench, recipe: Recipe, *, device: str = "auto", listener: ProgressListener | None = None
) -> Ended:
    """Do one run of a grid, unless it is finished or another process is at it."""
    try:
        home = bench.home(recipe)
        with alone(home) as ours:
            if bench.is_finished(recipe):
                return Ended(recipe, bench.result(recipe), kept=True)
            if not ours:
                return Ended(recipe)
            return Ended(recipe, _run(bench, recipe, home, device, listener or NullListener()))
    except HephaestusError as known:
        return Ended(recipe, error=f"{recipe.key}: {known}")
    except Exception as mistake:  # of ours, or a full GPU, in one run: no reason to leave the others
        log.debug("%s", recipe.key, exc_info=True)
        what = " ".join(f"{type(mistake).__name__}: {mistake}".split())
        return Ended(recipe, error=f"{recipe.key}: {what}; `hephaestus -v benchmark run` says more")


def _run(bench: Bench, recipe: Recipe, home: Path, device: str, listener: ProgressListener) -> RunResult:
    # seconds of imports, and nothing of it is needed to find that all runs are finished
    from hephaestus_baselines.models.architectures import trainable
    from hephaestus_baselines.training.inference import described
    from hephaestus_baselines.training.trainer import fit, infer, load

    recipe.write(home / "recipe.yaml")
    prepared = bench.prepared(recipe, listener)
    checkpoint = fit(recipe, prepared, home, device=device, listener=listener)
    trained = load(checkpoint, device=device)
    clock = _Clock()
    predictions = {}
    for name in ("validation", "test"):
        predictions[name] = infer(
            trained, prepared.items[name], prepared, workers=recipe.workers, listener=listener
        )  # fmt: skip
        predictions[name].write(home / f"{name}.npz")
    clock.lap("prediction")
    assessment = assess(predictions["validation"], predictions["test"], seed=recipe.seed)
    clock.lap("scoring")
    items = prepared.split.series if recipe.series else prepared.split.parts
    counts = {part: count_classes(items[part]) for part in PARTS}
    result = RunResult(
        key=recipe.key,
        task=recipe.task,
        model=recipe.model,
        series=recipe.series,
        atmosphere=recipe.atmosphere != "none",
        seed=recipe.seed,
        size=recipe.size,
        training=recipe.training,
        tiling=recipe.tiling,
        weights=_weights(recipe),
        recipe={**recipe.model_dump(mode="json"), "weights": _weights(recipe)},
        command=bench.command,
        simulated=prepared.simulated,
        split=SplitRecord(
            name=prepared.split.name,
            version=prepared.split.version,
            sha256=prepared.split.sha256,
            counts={
                part: {"positive": count["positive"], "negative": count["negative"]}
                for part, count in counts.items()
            },
        ),
        generations=dict(prepared.generations),
        versions=versions(),
        code=code_version(),
        device=described(trained.device),
        parameters=trainable(trained.model),
        epochs=recipe.epochs,
        best_epoch=trained.epoch - 1,
        seconds={"training": _trained_in(home), **clock.laps},
        samples_per_second=trained.samples_per_second,
        assessment=assessment,
    )
    result.write(home / RESULT)
    for name in _SCAFFOLD:
        (home / name).unlink(missing_ok=True)
    return result


def _trained_in(home: Path) -> float:
    """Return the seconds of all epochs, also of those before a run was cut off."""
    with checked(home, METRICS).open(encoding="utf-8", newline="") as stream:
        return round(sum(float(row["seconds"]) for row in csv.DictReader(stream)), 3)


def _weights(recipe: Recipe) -> str:
    """Return where a model's first weights came from, without the name of a folder of this machine."""
    return recipe.weights if recipe.weights in ("imagenet", "none") else "imagenet, from a folder"


def finish(bench: Bench, problems: list[str] | None = None) -> list[Path]:
    """Write the tables and pictures of the runs that are finished; return the files.

    Parameters
    ----------
    bench : Bench
    problems : list of str, optional
        Takes what is damaged, which is left out.

    Raises
    ------
    HephaestusError
        If none is finished, a file cannot be written, or something is damaged and `problems` is not given;
        tables and pictures of the rest are written then too.
    """
    from hephaestus_baselines.reporting.run_figures import draw_all

    found: list[str] = []
    results = bench.results(found)
    if found and not results:
        raise HephaestusError(found[0])
    written = list(tables(results).write(bench.folder))
    homes = {recipe.key: bench.home(recipe) for recipe in bench.recipes}
    written += draw_all(bench.folder, results, homes, bench.prepared, found)
    if problems is not None:
        problems += found
    elif found:
        more = f" (and {len(found) - 1} more files)" if len(found) > 1 else ""
        raise HephaestusError(f"{found[0]}{more}")
    return written


class _Clock:
    """Wall time of one step after the other."""

    def __init__(self) -> None:
        self.laps: dict[str, float] = {}
        self._last = time.monotonic()

    def lap(self, name: str) -> None:
        now = time.monotonic()
        self.laps[name], self._last = round(now - self._last, 3), now
