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
from hephaestus_baselines.data.cube_integrity import CubeIntegrityChecker
from hephaestus_baselines.data.pinned_cubes import pin_cubes, try_lock_folder
from hephaestus_baselines.data.preparation import PreparedData, prepare_data
from hephaestus_baselines.evaluation.evaluate import evaluate_predictions
from hephaestus_baselines.evaluation.result_schema import (
    RunResult,
    SplitRecord,
    library_versions,
    source_code_hash,
)
from hephaestus_baselines.reporting.aggregate_tables import make_result_tables
from hephaestus_baselines.training.history import METRICS_FILE, verified_training_file
from hephaestus_build.core.errors import HephaestusError, UsageError
from hephaestus_build.core.progress import NullListener, ProgressListener
from hephaestus_build.dataset.samples import count_classes
from hephaestus_build.dataset.splits import PARTS

log = logging.getLogger(__name__)
T = TypeVar("T")

RESULT_FILE = "result.json"
#: Files that only a run which is not finished needs.
_TEMPORARY_FILES = ("last.ckpt",)


def select_part(items: Sequence[T], part: tuple[int, int]) -> tuple[T, ...]:
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
class ExperimentGrid:
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
    changed_frames : tuple of str
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
    changed_frames: tuple[str, ...] = ()
    command: str = ""
    unchecked: bool = False
    _prepared_by_settings: dict[Any, PreparedData] = field(default_factory=dict, compare=False, repr=False)

    def run_folder(self, recipe: Recipe) -> Path:
        """Return the folder of a run."""
        return self.folder / "runs" / recipe.key

    def is_finished(self, recipe: Recipe) -> bool:
        """Return whether a run is finished."""
        return (self.run_folder(recipe) / RESULT_FILE).is_file()

    def read_results(self, problems: list[str] | None = None) -> list[RunResult]:
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
                found.append(self.read_result(recipe))
            except HephaestusError as error:
                if problems is None:
                    raise
                problems.append(f"{recipe.key}: {error}")
        return found

    def read_result(self, recipe: Recipe) -> RunResult:
        """Return the result of a finished run.

        Raises
        ------
        HephaestusError
            If it is damaged, or that of another run.
        """
        path = self.run_folder(recipe) / RESULT_FILE
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

    def make_integrity_checker(self, listener: ProgressListener | None = None) -> CubeIntegrityChecker | None:
        """Return what compares the cubes with what was published, unless that is not wanted."""
        return None if self.unchecked else CubeIntegrityChecker(self.folder, listener)

    def prepare_run_data(self, recipe: Recipe, listener: ProgressListener | None = None) -> PreparedData:
        """Return what `recipe` learns from and is scored on; runs that see the same share it."""
        seen = (recipe.split, recipe.series, recipe.size, recipe.training, recipe.tiling)
        if seen not in self._prepared_by_settings:
            self._prepared_by_settings[seen] = prepare_data(
                self.cubes,
                split=recipe.split,
                series=recipe.series,
                size=recipe.size,
                training=recipe.training,
                tiling=recipe.tiling,
                results=self.folder,
                mixed=True,  # what was pinned was wanted
                whole=self.make_integrity_checker(listener),
                listener=listener,
            )
        return self._prepared_by_settings[seen]


def open_experiment_grid(
    preset: Preset,
    cubes: Path | Sequence[Path],
    results: Path,
    /,
    *,
    mixed: bool = False,
    command: str = "",
    unchecked: bool = False,
    **changes: Any,
) -> ExperimentGrid:
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
    recipes = preset.make_recipes(**changes)
    folder = results / preset.name
    pinned, changed = pin_cubes(cubes, folder, mixed=mixed)
    return ExperimentGrid(preset, recipes, folder, pinned, tuple(changed), command, unchecked)


@dataclass(frozen=True)
class RunOutcome:
    """What became of one run.

    Attributes
    ----------
    recipe : Recipe
    result : RunResult or None
        None where it failed, or another process is at it.
    was_finished : bool
        Whether it was finished before.
    error : str
        Why it failed, in one line.
    """

    recipe: Recipe
    result: RunResult | None = None
    was_finished: bool = False
    error: str = ""

    @property
    def is_running_elsewhere(self) -> bool:
        """Whether another process is at it."""
        return self.result is None and not self.error


def run_experiments(
    bench: ExperimentGrid,
    *,
    part: tuple[int, int] = (1, 1),
    device: str = "auto",
    at_a_time: int = 1,
    listener: ProgressListener | None = None,
) -> Iterator[RunOutcome]:
    """Do the runs of a grid, or of a part of it; one that fails never stops the others.

    Parameters
    ----------
    bench : ExperimentGrid
    part : tuple of int
        See :func:`share`.
    device : str
        ``auto``, ``cpu`` or ``cuda``.
    at_a_time : int
        Runs at once, each in a process of its own with its share of the cores: small models on a CPU do not
        use two cores well.
    listener : ProgressListener, optional
        Told how far it is.

    Yields
    ------
    RunOutcome
        As each run ends, also for those that were finished before.
    """
    recipes = select_part(bench.recipes, part)
    todo = [recipe for recipe in recipes if not bench.is_finished(recipe)]
    for recipe in recipes:
        if recipe not in todo:
            yield run_experiment(bench, recipe)
    if at_a_time == 1:
        for recipe in todo:
            yield run_experiment(bench, recipe, device=device, listener=listener)
    elif todo:
        yield from _run_in_processes(
            bench, todo, device, min(at_a_time, len(todo)), listener or NullListener()
        )


def _run_in_processes(
    bench: ExperimentGrid, todo: Sequence[Recipe], device: str, processes: int, listener: ProgressListener
) -> Iterator[RunOutcome]:
    listener.stage("runs", len(todo))
    pool = ProcessPoolExecutor(
        processes,
        get_context("spawn"),
        initializer=_initialize_worker,
        initargs=(bench, max(1, count_usable_cores() // processes)),
    )
    patient = True
    try:
        futures = {pool.submit(_run_in_worker, recipe, device): recipe for recipe in todo}
        for future in as_completed(futures):
            listener.advance("runs")
            try:
                yield future.result()
            except BrokenProcessPool:
                key = futures[future].key
                yield RunOutcome(
                    futures[future], error=f"{key}: its process was killed; run the same command again"
                )
    except KeyboardInterrupt:
        patient = False  # the processes end with this one
        raise
    finally:
        pool.shutdown(wait=patient, cancel_futures=True)


#: In a process that does runs: their grid, whose data is prepared once.
_worker_experiment_grid: list[ExperimentGrid] = []


def _initialize_worker(bench: ExperimentGrid, threads: int) -> None:
    """Make this process one that does runs, and end with the one that started it, however that ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all: one line is said, by the parent
    Thread(target=_end_with_parent, daemon=True).start()
    import torch

    torch.set_num_threads(threads)
    _worker_experiment_grid.append(bench)


def _end_with_parent() -> None:
    parent = parent_process()
    assert parent is not None
    wait([parent.sentinel])
    for worker in active_children():  # they load data, and would notice the end only seconds later
        worker.kill()
    os._exit(1)


def _run_in_worker(recipe: Recipe, device: str) -> RunOutcome:
    return run_experiment(_worker_experiment_grid[-1], recipe, device=device)


def count_usable_cores() -> int:
    """Return how many cores this process may use."""
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity else os.cpu_count() or 1


def run_experiment(
    bench: ExperimentGrid, recipe: Recipe, *, device: str = "auto", listener: ProgressListener | None = None
) -> RunOutcome:
    """Do one run of a grid, unless it is finished or another process is at it."""
    try:
        home = bench.run_folder(recipe)
        with try_lock_folder(home) as ours:
            if bench.is_finished(recipe):
                return RunOutcome(recipe, bench.read_result(recipe), was_finished=True)
            if not ours:
                return RunOutcome(recipe)
            return RunOutcome(
                recipe, _train_and_evaluate(bench, recipe, home, device, listener or NullListener())
            )
    except HephaestusError as known:
        return RunOutcome(recipe, error=f"{recipe.key}: {known}")
    except Exception as mistake:  # of ours, or a full GPU, in one run: no reason to leave the others
        log.debug("%s", recipe.key, exc_info=True)
        what = " ".join(f"{type(mistake).__name__}: {mistake}".split())
        return RunOutcome(recipe, error=f"{recipe.key}: {what}; `hephaestus -v benchmark run` says more")


def _train_and_evaluate(
    bench: ExperimentGrid, recipe: Recipe, home: Path, device: str, listener: ProgressListener
) -> RunResult:
    # seconds of imports, and nothing of it is needed to find that all runs are finished
    from hephaestus_baselines.models.architectures import count_trainable_parameters
    from hephaestus_baselines.training.inference import describe_device, load_trained_model, predict_items
    from hephaestus_baselines.training.trainer import train_model

    recipe.write(home / "recipe.yaml")
    prepared = bench.prepare_run_data(recipe, listener)
    checkpoint = train_model(recipe, prepared, home, device=device, listener=listener)
    trained = load_trained_model(checkpoint, device=device)
    clock = _StepTimer()
    predictions = {}
    for name in ("validation", "test"):
        predictions[name] = predict_items(
            trained, prepared.items[name], prepared, workers=recipe.workers, listener=listener
        )  # fmt: skip
        predictions[name].write(home / f"{name}.npz")
    clock.lap("prediction")
    assessment = evaluate_predictions(predictions["validation"], predictions["test"], seed=recipe.seed)
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
        weights=_describe_weights(recipe),
        recipe={**recipe.model_dump(mode="json"), "weights": _describe_weights(recipe)},
        command=bench.command,
        simulated=prepared.is_simulated,
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
        versions=library_versions(),
        code=source_code_hash(),
        device=describe_device(trained.device),
        parameters=count_trainable_parameters(trained.model),
        epochs=recipe.epochs,
        best_epoch=trained.epoch - 1,
        seconds={"training": _read_training_seconds(home), **clock.seconds},
        samples_per_second=trained.samples_per_second,
        assessment=assessment,
    )
    result.write(home / RESULT_FILE)
    for name in _TEMPORARY_FILES:
        (home / name).unlink(missing_ok=True)
    return result


def _read_training_seconds(home: Path) -> float:
    """Return the seconds of all epochs, also of those before a run was cut off."""
    with verified_training_file(home, METRICS_FILE).open(encoding="utf-8", newline="") as stream:
        return round(sum(float(row["seconds"]) for row in csv.DictReader(stream)), 3)


def _describe_weights(recipe: Recipe) -> str:
    """Return where a model's first weights came from, without the name of a folder of this machine."""
    return recipe.weights if recipe.weights in ("imagenet", "none") else "imagenet, from a folder"


def write_experiment_report(bench: ExperimentGrid, problems: list[str] | None = None) -> list[Path]:
    """Write the tables and pictures of the runs that are finished; return the files.

    Parameters
    ----------
    bench : ExperimentGrid
    problems : list of str, optional
        Takes what is damaged, which is left out.

    Raises
    ------
    HephaestusError
        If none is finished, a file cannot be written, or something is damaged and `problems` is not given;
        tables and pictures of the rest are written then too.
    """
    from hephaestus_baselines.reporting.run_figures import write_run_figures

    found: list[str] = []
    results = bench.read_results(found)
    if found and not results:
        raise HephaestusError(found[0])
    written = list(make_result_tables(results).write(bench.folder))
    homes = {recipe.key: bench.run_folder(recipe) for recipe in bench.recipes}
    written += write_run_figures(bench.folder, results, homes, bench.prepare_run_data, found)
    if problems is not None:
        problems += found
    elif found:
        more = f" (and {len(found) - 1} more files)" if len(found) > 1 else ""
        raise HephaestusError(f"{found[0]}{more}")
    return written


class _StepTimer:
    """Wall time of one step after the other."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._last = time.monotonic()

    def lap(self, name: str) -> None:
        now = time.monotonic()
        self.seconds[name], self._last = round(now - self._last, 3), now
