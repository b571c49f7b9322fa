"""Estimate of what a grid will need before it starts: runs, samples, hours, disk space."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hephaestus_baselines.config.run_config import Recipe
from hephaestus_baselines.data.pinned_cubes import resolve_pin
from hephaestus_baselines.evaluation.result_schema import RunRecord
from hephaestus_baselines.experiments.experiment_grid import ExperimentGrid, select_part
from hephaestus_baselines.reporting.published_scores import PUBLISHED_RUNTIME_HOURS
from hephaestus_build.cube.discovery import list_cubes
from hephaestus_build.cube.reading.dataset import open_pinned_cube
from hephaestus_build.dataset.coverage import CoverageCounts, summarize_coverage, visible_in_cubes
from hephaestus_build.dataset.samples import Sample, count_classes, samples_from_cube
from hephaestus_build.dataset.splits import PARTS, Split, make_split, split_rule

#: Bytes per trainable parameter: 4 in the best checkpoint; 12 in the last one, with AdamW's two moments.
_BYTES_PER_BEST_PARAMETER, _BYTES_PER_LAST_PARAMETER = 4, 12
#: Epochs of the paper's training runs, to which its published hours refer.
_PAPER_EPOCHS = 90


@dataclass(frozen=True)
class RuntimeEstimate:
    """Estimated duration of the runs whose estimate has the same source.

    Attributes
    ----------
    hours : float
        Total duration of these runs.
    runs : int
        Number of these runs.
    source : str
        Origin of the estimate, such as earlier runs or the paper.
    """

    hours: float
    runs: int
    source: str


@dataclass(frozen=True)
class CostEstimate:
    """Estimated cost of a grid, or of one part of it.

    Attributes
    ----------
    preset : str
        Name of the preset.
    part : tuple of int
        The i-th of n parts, as (i, n).
    runs, finished : int
        Number of runs in this part, and of those that are finished.
    models : tuple of str
        Names of the models.
    epochs : tuple of int
        Smallest and largest number of epochs of a run.
    samples : mapping
        For ``single`` and ``series``: number of samples in each part of the split, and of those in an epoch.
    hours : tuple of RuntimeEstimate
        Duration of the remaining runs, by source of the estimate.
    unknown : int
        Number of remaining runs without an estimate.
    disk_bytes : int
        Disk space of checkpoints: those that are kept, and the largest temporary one.
    simulated : bool
        Whether any cube is simulated.
    coverage : mapping of part to CoverageCounts
        What the windows show of the deformation of each part.
    changed : tuple of str
        Frames whose published cube is no longer the generation that the grid reads.
    """

    preset: str
    part: tuple[int, int]
    runs: int
    finished: int
    models: tuple[str, ...]
    epochs: tuple[int, int]
    samples: Mapping[str, Mapping[str, int]]
    hours: tuple[RuntimeEstimate, ...]
    unknown: int
    disk_bytes: int
    simulated: bool
    coverage: Mapping[str, CoverageCounts]
    changed: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """Return the estimate as JSON values."""
        return {
            **vars(self),
            "part": list(self.part),
            "hours": [vars(item) for item in self.hours],
            "coverage": {part: counts.to_json() for part, counts in self.coverage.items()},
        }


def estimate_cost(bench: ExperimentGrid, part: tuple[int, int] = (1, 1)) -> CostEstimate:
    """Estimate the cost of a grid, or of one part of it."""
    recipes = select_part(bench.recipes, part)
    todo = [recipe for recipe in recipes if not bench.is_finished(recipe)]
    results = bench.read_results([])  # damaged results are reported when they are used
    samples, simulated = _read_samples(bench)
    hours, unknown = estimate_runtimes(todo, results)
    splits = {recipe.split: make_split(split_rule(recipe.split), samples) for recipe in recipes}
    return CostEstimate(
        preset=bench.preset.name,
        part=part,
        runs=len(recipes),
        finished=len(recipes) - len(todo),
        models=tuple(dict.fromkeys(recipe.model_title for recipe in recipes)),
        epochs=(min(recipe.epochs for recipe in recipes), max(recipe.epochs for recipe in recipes)),
        samples=_count_samples(recipes, splits),
        hours=tuple(hours),
        unknown=unknown,
        disk_bytes=_checkpoint_bytes(recipes, results),
        simulated=simulated,
        coverage=_measure_coverage(bench, recipes[0], splits[recipes[0].split]) if recipes else {},
        changed=bench.changed_frames,
    )


def estimate_runtimes(
    todo: Sequence[Recipe], results: Iterable[RunRecord]
) -> tuple[list[RuntimeEstimate], int]:
    """Estimate the duration of runs from finished runs or from the paper; count those without an estimate.

    Parameters
    ----------
    todo : sequence of Recipe
        The runs to estimate.
    results : iterable of RunRecord
        Finished runs; they serve for runs of the same model, inputs, number of epochs and window size.

    Returns
    -------
    estimates : list of RuntimeEstimate
        One for each source.
    unknown : int
        Number of runs without an estimate.
    """
    measured: dict[tuple[Any, ...], list[float]] = defaultdict(list)
    for result in results:
        measured[_runtime_key(result.task, result.model, result.series, result.recipe)].append(
            sum(result.seconds.values()) / 3600
        )
    hours: dict[str, float] = defaultdict(float)
    runs: Counter[str] = Counter()
    for recipe in todo:
        fields = recipe.model_dump(mode="json")
        known = measured.get(_runtime_key(recipe.task, recipe.model_title, recipe.series, fields))
        if known:
            source, each = "as measured here", sum(known) / len(known)
        elif recipe.model_title in PUBLISHED_RUNTIME_HOURS and not recipe.spec.tells_kind:
            source = "on the paper's RTX 3090 Ti"
            each = PUBLISHED_RUNTIME_HOURS[recipe.model][recipe.series] * recipe.epochs / _PAPER_EPOCHS
        else:
            continue
        hours[source] += each
        runs[source] += 1
    return [RuntimeEstimate(hours[source], runs[source], source) for source in sorted(runs)], len(
        todo
    ) - runs.total()


def _runtime_key(task: str, model: str, series: bool, fields: Mapping[str, Any]) -> tuple[Any, ...]:
    return task, model, series, fields["atmosphere"] != "none", fields["epochs"], fields["size"]


def _read_samples(bench: ExperimentGrid) -> tuple[list[Sample], bool]:
    samples, simulated = [], False
    whole = bench.make_integrity_checker()
    for store in map(resolve_pin, list_cubes([bench.cubes] if bench.cubes else [])):
        if whole:
            whole.check_cube(store, ())
        with open_pinned_cube(store, chunks=None) as cube:
            samples += samples_from_cube(cube)
            simulated |= bool(cube.attrs.get("simulated", False))
    return samples, simulated


def _measure_coverage(bench: ExperimentGrid, recipe: Recipe, split: Split) -> dict[str, CoverageCounts]:
    stores = {path.stem: resolve_pin(path) for path in list_cubes([bench.cubes] if bench.cubes else [])}
    visible = visible_in_cubes(split.all_samples, stores, recipe.tiling, recipe.size)
    coverage = summarize_coverage(split, recipe.tiling, recipe.size, visible)
    return {part: coverage.parts[part].total for part in PARTS}


def _count_samples(recipes: Iterable[Recipe], splits: Mapping[str, Split]) -> dict[str, dict[str, int]]:
    counts: dict[str, dict[str, int]] = {}
    for recipe in recipes:
        split = splits[recipe.split]
        items = split.series if recipe.series else split.parts
        train = count_classes(items["train"])
        epoch = 2 * min(train.values()) if recipe.balance else sum(train.values())
        if recipe.spec.tells_kind:
            epoch = train["positive"]
        counts["series" if recipe.series else "single"] = {
            **{part: len(items[part]) for part in PARTS},
            "an epoch": epoch,
        }
    return counts


def _checkpoint_bytes(recipes: Iterable[Recipe], results: Iterable[RunRecord]) -> int:
    counted = {(result.model, result.series): float(result.parameters) for result in results}
    sizes = [
        counted.get((recipe.model_title, recipe.series)) or _published_parameters(recipe)
        for recipe in recipes
    ]
    most = max(sizes, default=0.0)
    return round(sum(sizes) * _BYTES_PER_BEST_PARAMETER + most * _BYTES_PER_LAST_PARAMETER)


def _published_parameters(recipe: Recipe) -> float:
    if recipe.model_title not in PUBLISHED_RUNTIME_HOURS:
        return 0.0
    from hephaestus_baselines.models.architectures import (
        MODELS,  # imported late: it takes seconds
    )

    paper = MODELS[recipe.model].published_parameters
    return paper[recipe.series] * 1e6 if paper else 0.0
