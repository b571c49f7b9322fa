"""Grid of training runs: one per model, setting and seed, each executed exactly once.

::

    <results>/<preset>/cubes/<frame>.zarr            the generations that all runs read
    <results>/<preset>/runs/<key>/result.json        written last: the run is finished
    <results>/<preset>/tables.md, .csv, .json, *.png

All progress is kept on disk. A grid can therefore be stopped at any time, distributed over processes and
machines, and resumed: finished runs are not repeated, interrupted ones continue from their last epoch.
"""

from __future__ import annotations

import csv
import logging
import math
import signal
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from dataclasses import dataclass, field
from multiprocessing import get_context
from pathlib import Path
from typing import Any, TypeVar

from hephaestus_baselines.config.run_config import Preset, Recipe, fold_family
from hephaestus_baselines.data.cube_integrity import CubeIntegrityChecker
from hephaestus_baselines.data.pinned_cubes import pin_cubes, try_lock_folder
from hephaestus_baselines.data.preparation import PreparedData, prepare_recipe_data
from hephaestus_baselines.data.task_items import select_task_items
from hephaestus_baselines.evaluation.kind_schema import KindRunResult, read_run_result
from hephaestus_baselines.evaluation.predictions import Predictions
from hephaestus_baselines.evaluation.result_schema import (
    PartCoverageRecord,
    RunResult,
    SplitRecord,
    library_versions,
    source_code_hash,
)
from hephaestus_baselines.experiments.pooled_folds import group_folds
from hephaestus_baselines.experiments.run_scoring import score_run
from hephaestus_baselines.training.history import METRICS_FILE, verified_training_file
from hephaestus_build.core.concurrency import exit_with_parent
from hephaestus_build.core.errors import HephaestusError, UsageError
from hephaestus_build.core.machine.limits import count_usable_cores
from hephaestus_build.core.plain_text import format_duration
from hephaestus_build.core.progress import NullListener, ProgressListener
from hephaestus_build.core.terminal import (
    are_steps_shown,
    configure_logging,
    json_log_run,
    log_as_json,
    log_file_path,
    log_steps,
    log_to_file,
)
from hephaestus_build.dataset.samples import count_classes
from hephaestus_build.dataset.splits import PARTS, SplitPart

log = logging.getLogger(__name__)
T = TypeVar("T")
#: The result of a run of any task.
AnyResult = RunResult | KindRunResult

RESULT_FILE = "result.json"
#: Files that are removed when a run finishes.
_TEMPORARY_FILES = ("last.ckpt",)
_SCORED_PARTS: tuple[SplitPart, ...] = ("validation", "test")


def select_part(items: Sequence[T], part: tuple[int, int]) -> tuple[T, ...]:
    """Return the i-th of n parts of `items`. The parts are disjoint, cover all items and are deterministic.

    Parameters
    ----------
    items : sequence
        All items.
    part : tuple of int
        (i, n), where i counts from 1.

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
    """A grid of runs and its folder.

    Attributes
    ----------
    preset : Preset
        Preset that describes the grid.
    recipes : tuple of Recipe
        All runs of the grid, in order of execution.
    folder : pathlib.Path
        ``<results>/<preset>``.
    cubes : pathlib.Path or None
        Folder of links to the generations that the runs read; None if the cubes are gone.
    changed_frames : tuple of str
        Frames whose published cube has changed since the grid began.
    command : str
        The command line, recorded in the results.
    unchecked : bool
        Whether to skip comparing cube data with the hashes that were published with it.
    without_cubes : str
        Why there are no cubes; empty if there are.
    """

    preset: Preset
    recipes: tuple[Recipe, ...]
    folder: Path
    cubes: Path | None
    changed_frames: tuple[str, ...] = ()
    command: str = ""
    unchecked: bool = False
    without_cubes: str = ""
    _prepared_by_settings: dict[Any, PreparedData] = field(default_factory=dict, compare=False, repr=False)

    def run_folder(self, recipe: Recipe) -> Path:
        """Return the folder of a run."""
        return self.folder / "runs" / recipe.folder_name

    def is_finished(self, recipe: Recipe) -> bool:
        """Return whether a run is finished."""
        return (self.run_folder(recipe) / RESULT_FILE).is_file()

    def read_results(self, problems: list[str] | None = None) -> list[AnyResult]:
        """Return the results of finished runs, in the grid's order.

        Parameters
        ----------
        problems : list of str, optional
            Descriptions of unreadable results, which are skipped, are appended here.

        Raises
        ------
        HephaestusError
            If a result cannot be read and `problems` is not given.
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

    @property
    def folds(self) -> tuple[str, ...]:
        """Splits of the grid if they are folds of one split, whose tests are scored together; else empty."""
        names = tuple(dict.fromkeys(recipe.split for recipe in self.recipes))
        return names if fold_family(names) else ()

    def has_results_for_tables(self) -> bool:
        """Return whether some run is finished; of folds, whether all those of some run are."""
        results = self.read_results([])
        if not self.folds:
            return bool(results)
        detection = [result for result in results if isinstance(result, RunResult)]
        return any(len(members) == len(self.folds) for members in group_folds(detection))

    def read_result(self, recipe: Recipe) -> AnyResult:
        """Return the result of a finished run.

        Raises
        ------
        HephaestusError
            If the result is damaged or belongs to another run.
        """
        path = self.run_folder(recipe) / RESULT_FILE
        found = read_run_result(path)
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
        """Return the checker that compares cubes with their published hashes; None if `unchecked`."""
        return None if self.unchecked else CubeIntegrityChecker(self.folder, listener)

    def prepare_run_data(self, recipe: Recipe, listener: ProgressListener | None = None) -> PreparedData:
        """Return the data of all three parts for a run; runs with the same data settings share it."""
        seen = (
            recipe.split, recipe.series, recipe.size, recipe.training, recipe.tiling, recipe.uses_uncertain,
            recipe.positives,
        )  # fmt: skip
        if self.cubes is None:
            raise HephaestusError(self.without_cubes)
        if seen not in self._prepared_by_settings:
            self._prepared_by_settings[seen] = prepare_recipe_data(
                recipe,
                self.cubes,
                results=self.folder,
                mixed=True,  # mixing was checked when the cubes were pinned
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
    results_alone: bool = False,
    **changes: Any,
) -> ExperimentGrid:
    """Open the grid of a preset, with its cubes pinned to their generations.

    Parameters
    ----------
    preset : Preset
        Preset that describes the grid.
    cubes : pathlib.Path or sequence of pathlib.Path
        Folder of published cubes, or the cubes themselves.
    results : pathlib.Path
        Folder that holds all grids.
    mixed : bool
        Whether real and simulated cubes may be mixed.
    command : str
        The command line, recorded in the results.
    unchecked : bool
        Whether to skip comparing cube data with the hashes that were published with it.
    results_alone : bool
        Whether to open the grid without cubes if they are gone and runs are finished.
    **changes
        Fields of :class:`~hephaestus_baselines.config.run_config.Recipe` that override the preset's.

    Raises
    ------
    HephaestusError
        If there are no cubes, or a pinned generation no longer exists.
    UsageError
        If a change names no field or has an invalid value.
    """
    recipes = preset.make_recipes(**changes)
    folder = results / preset.name
    try:
        pinned, changed = pin_cubes(cubes, folder, mixed=mixed)
    except UsageError:
        raise
    except HephaestusError as error:
        alone = ExperimentGrid(preset, recipes, folder, None, (), command, unchecked, str(error))
        if results_alone and any(map(alone.is_finished, recipes)):
            return alone
        raise
    return ExperimentGrid(preset, recipes, folder, pinned, tuple(changed), command, unchecked)


@dataclass(frozen=True)
class RunOutcome:
    """Outcome of one run.

    Attributes
    ----------
    recipe : Recipe
        The run.
    result : RunResult, KindRunResult or None
        None if the run failed or is running in another process.
    was_finished : bool
        Whether the run had been finished before.
    error : str
        Cause of the failure in one line; empty if the run did not fail.
    """

    recipe: Recipe
    result: AnyResult | None = None
    was_finished: bool = False
    error: str = ""

    @property
    def is_running_elsewhere(self) -> bool:
        """Whether the run is running in another process."""
        return self.result is None and not self.error


def run_experiments(
    bench: ExperimentGrid,
    *,
    part: tuple[int, int] = (1, 1),
    device: str = "auto",
    at_a_time: int = 1,
    listener: ProgressListener | None = None,
) -> Iterator[RunOutcome]:
    """Execute the runs of a grid, or of one part of it. A failed run does not stop the others.

    Parameters
    ----------
    bench : ExperimentGrid
        The grid.
    part : tuple of int
        See :func:`select_part`.
    device : str
        ``auto``, ``cpu`` or ``cuda``.
    at_a_time : int
        Number of concurrent runs, each in its own process with an equal share of the cores. More than one
        helps with small models on a CPU, which make poor use of several cores.
    listener : ProgressListener, optional
        Receives progress events.

    Yields
    ------
    RunOutcome
        Outcome of each run as it ends, including those that were finished before.
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
        initargs=(
            bench,
            max(1, count_usable_cores() // processes),
            are_steps_shown(),
            log_file_path(),
            json_log_run(),
        ),
    )
    wait_for_running = True
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
        wait_for_running = False  # the workers end with this process
        raise
    finally:
        pool.shutdown(wait=wait_for_running, cancel_futures=True)


#: Grid of a worker process; kept here so that its data is prepared only once.
_worker_experiment_grid: list[ExperimentGrid] = []


def _initialize_worker(
    bench: ExperimentGrid, threads: int, verbose: bool, log_file: Path | None, json_run: str
) -> None:
    """Initialize a worker process; it exits when its parent does, even if the parent is killed.

    It writes to standard error and to the log file what its parent would.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all processes; only the parent reports it
    exit_with_parent()
    configure_logging()
    if json_run:
        log_as_json(json_run)
    if verbose:
        log_steps()
    if log_file is not None:
        with suppress(UsageError):  # the parent has said so
            log_to_file(log_file)
    import torch

    torch.set_num_threads(threads)
    _worker_experiment_grid.append(bench)


def _run_in_worker(recipe: Recipe, device: str) -> RunOutcome:
    return run_experiment(_worker_experiment_grid[-1], recipe, device=device)


def run_experiment(
    bench: ExperimentGrid, recipe: Recipe, *, device: str = "auto", listener: ProgressListener | None = None
) -> RunOutcome:
    """Execute one run of a grid, unless it is finished or running in another process."""
    try:
        home = bench.run_folder(recipe)
        with try_lock_folder(home) as ours:
            if bench.is_finished(recipe):
                return RunOutcome(recipe, bench.read_result(recipe), was_finished=True)
            if not ours:
                return RunOutcome(recipe)
            log.info("%s: begins", recipe.key)
            clock = time.monotonic()
            result = _train_and_evaluate(bench, recipe, home, device, listener or NullListener())
            log.info("%s: ended after %s", recipe.key, format_duration(time.monotonic() - clock))
            return RunOutcome(recipe, result)
    except HephaestusError as known:
        return RunOutcome(recipe, error=f"{recipe.key}: {known}")
    except Exception as mistake:  # a bug or a full GPU in one run must not stop the others
        log.debug("%s", recipe.key, exc_info=True)
        what = " ".join(f"{type(mistake).__name__}: {mistake}".split())
        return RunOutcome(recipe, error=f"{recipe.key}: {what}; `hephaestus -v benchmark run` shows details")


@dataclass(frozen=True)
class _MadePredictions:
    """What a run says of validation and test, and what it took."""

    predictions: dict[SplitPart, Predictions]
    parameters: int
    epochs: int
    best_epoch: int
    device: str
    seconds: dict[str, float]
    samples_per_second: float
    chosen_batch: int = 0


def _train_and_predict(
    recipe: Recipe, prepared: PreparedData, home: Path, device: str, listener: ProgressListener
) -> _MadePredictions:
    # imported late: it takes seconds, and finished runs do not need it
    from hephaestus_baselines.models.architectures import count_trainable_parameters
    from hephaestus_baselines.training.inference import load_trained_model
    from hephaestus_baselines.training.prediction import predict_items
    from hephaestus_baselines.training.reader_count import count_readers
    from hephaestus_baselines.training.trainer import describe_run_device, train_model

    checkpoint = train_model(recipe, prepared, home, device=device, listener=listener)
    trained = load_trained_model(checkpoint, device=device)
    clock = _StepTimer()
    predictions = {
        part: predict_items(
            trained,
            select_task_items(recipe.task, prepared, part),
            prepared,
            part=part,
            workers=count_readers(recipe, trained.device),
            listener=listener,
        )
        for part in _SCORED_PARTS
    }
    clock.lap("prediction")
    return _MadePredictions(
        predictions,
        count_trainable_parameters(trained.model),
        recipe.epochs,
        trained.epoch - 1,
        describe_run_device(recipe, trained.device),
        {"training": _read_training_seconds(home), **clock.seconds},
        trained.samples_per_second,
        trained.recipe.chosen_batch,
    )


def _fit_and_predict(
    recipe: Recipe, prepared: PreparedData, cache: Path, device: str, listener: ProgressListener
) -> _MadePredictions:
    from hephaestus_baselines.probes.frozen_run import predict_with_frozen_encoder

    found = predict_with_frozen_encoder(recipe, prepared, cache, device=device, listener=listener)
    return _MadePredictions(found.predictions, found.parameters, 0, 0, found.device, found.seconds, 0.0)


def _train_and_evaluate(
    bench: ExperimentGrid, recipe: Recipe, home: Path, device: str, listener: ProgressListener
) -> AnyResult:
    if recipe.batch_size != "auto":  # else written once the number is chosen, and kept
        recipe.write(home / "recipe.yaml")
    prepared = bench.prepare_run_data(recipe, listener)
    if recipe.method == "trained":
        made = _train_and_predict(recipe, prepared, home, device, listener)
    else:
        made = _fit_and_predict(recipe, prepared, bench.folder / "features", device, listener)
    recipe = recipe.model_copy(update={"chosen_batch": made.chosen_batch})
    predictions = made.predictions
    for name in _SCORED_PARTS:
        predictions[name].write(home / f"{name}.npz")
    clock = _StepTimer()
    assessment = score_run(recipe, prepared, predictions, home)
    clock.lap("scoring")
    items = prepared.split.series if recipe.series else prepared.split.parts
    counts = {part: count_classes(items[part]) for part in PARTS}
    facts = {
        "key": recipe.key,
        "task": recipe.task,
        "model": recipe.model_title,
        "series": recipe.series,
        "atmosphere": recipe.atmosphere != "none",
        "seed": recipe.seed,
        "size": recipe.size,
        "training": recipe.training,
        "tiling": recipe.tiling,
        "weights": _describe_weights(recipe),
        "recipe": {**recipe.model_dump(mode="json"), "weights": _describe_weights(recipe)},
        "command": bench.command,
        "simulated": prepared.is_simulated,
        "split": SplitRecord(
            name=prepared.split.name,
            version=prepared.split.version,
            sha256=prepared.split.sha256,
            counts={
                part: {"positive": count["positive"], "negative": count["negative"]}
                for part, count in counts.items()
            },
        ),
        "coverage": _record_coverage(prepared),
        "generations": dict(prepared.generations),
        "versions": library_versions(),
        "code": source_code_hash(),
        "device": made.device,
        "parameters": made.parameters,
        "epochs": made.epochs,
        "best_epoch": made.best_epoch,
        "seconds": {**made.seconds, **clock.seconds},
        "samples_per_second": made.samples_per_second,
        "assessment": assessment,
    }
    kind: type[AnyResult] = KindRunResult if recipe.spec.tells_kind else RunResult
    result = kind.model_validate(facts)
    result.write(home / RESULT_FILE)
    for temporary in _TEMPORARY_FILES:
        (home / temporary).unlink(missing_ok=True)
    return result


def _record_coverage(prepared: PreparedData) -> dict[SplitPart, PartCoverageRecord]:
    if prepared.coverage is None:
        return {}
    records: dict[SplitPart, PartCoverageRecord] = {}
    for part in PARTS:
        counts = prepared.coverage.parts[part].total
        records[part] = PartCoverageRecord(
            positives=counts.positives,
            seen=counts.seen,
            touched=counts.touched,
            pixels_seen=counts.pixels_inside / counts.pixels if counts.pixels else math.nan,
            uncertain=counts.uncertain,
            uncertain_left_out=prepared.uncertain_left_out.get(part, 0),
        )
    return records


def _read_training_seconds(home: Path) -> float:
    """Return the seconds of all epochs, including those before an interruption."""
    with verified_training_file(home, METRICS_FILE).open(encoding="utf-8", newline="") as stream:
        return round(sum(float(row["seconds"]) for row in csv.DictReader(stream)), 3)


def _describe_weights(recipe: Recipe) -> str:
    """Return the origin of a model's initial weights, without the path of a local folder."""
    named = recipe.portable_weights
    return "imagenet, from a folder" if named == "imagenet" != recipe.weights else named


class _StepTimer:
    """Wall time of consecutive steps."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._last = time.monotonic()

    def lap(self, name: str) -> None:
        now = time.monotonic()
        self.seconds[name], self._last = round(now - self._last, 3), now
