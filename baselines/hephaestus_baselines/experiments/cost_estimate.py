"""Estimate of what a grid will need before it starts: runs, samples, hours, disk space."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hephaestus_baselines.config.architecture_catalog import MODELS
from hephaestus_baselines.config.run_config import Recipe
from hephaestus_baselines.data.dataset_items import count_draws
from hephaestus_baselines.data.pinned_cubes import resolve_pin
from hephaestus_baselines.data.preparation import select_groups
from hephaestus_baselines.data.sample_attributes import read_sample_attributes
from hephaestus_baselines.evaluation.result_schema import RunRecord
from hephaestus_baselines.experiments.experiment_grid import ExperimentGrid, select_part
from hephaestus_baselines.reporting.published_scores import PUBLISHED_RUNTIME_HOURS
from hephaestus_build.cube.discovery import list_cubes
from hephaestus_build.cube.reading.dataset import open_pinned_cube
from hephaestus_build.cube.reading.window_reader import WindowReader
from hephaestus_build.dataset.coverage import (
    CoverageCounts,
    VisibleDeformation,
    find_earthquakes_alone,
    summarize_coverage,
    visible_in_cubes,
)
from hephaestus_build.dataset.samples import Sample, samples_from_cube
from hephaestus_build.dataset.splits import PARTS, Split, SplitPart, make_split, split_rule

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
        For ``single`` and ``series``, or for each task of them: number of samples that are used of each
        part of the split, and of those in an epoch.
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
    known = _read_samples(bench)
    hours, unknown = estimate_runtimes(todo, results)
    return CostEstimate(
        preset=bench.preset.name,
        part=part,
        runs=len(recipes),
        finished=len(recipes) - len(todo),
        models=tuple(dict.fromkeys(recipe.model_title for recipe in recipes)),
        epochs=(min(recipe.epochs for recipe in recipes), max(recipe.epochs for recipe in recipes)),
        samples=_count_samples(recipes, known),
        hours=tuple(hours),
        unknown=unknown,
        disk_bytes=_checkpoint_bytes(recipes, results),
        simulated=known.is_simulated,
        coverage=known.coverage_of(recipes[0]) if recipes else {},
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


@dataclass
class _PinnedSamples:
    """The samples of the grid's cubes, and what their masks show.

    Attributes
    ----------
    stores : mapping of frame id to pathlib.Path
        Store of each cube's generation.
    samples : list of Sample
        All usable samples.
    doubtful : frozenset of str
        Frames whose outlines are uncertain.
    is_simulated : bool
        Whether any cube is simulated.
    """

    stores: Mapping[str, Path]
    samples: Sequence[Sample]
    doubtful: frozenset[str]
    is_simulated: bool
    _splits: dict[str, Split] = field(default_factory=dict)
    _visible: dict[Any, dict[Sample, VisibleDeformation]] = field(default_factory=dict)
    _names: dict[Any, tuple[str, ...]] = field(default_factory=dict)

    def split_of(self, recipe: Recipe) -> Split:
        """Return the split of a run."""
        if recipe.split not in self._splits:
            self._splits[recipe.split] = make_split(split_rule(recipe.split), self.samples)
        return self._splits[recipe.split]

    def visible_to(self, recipe: Recipe) -> dict[Sample, VisibleDeformation]:
        """Return what the windows of a run show of its positives."""
        key = recipe.split, recipe.tiling, recipe.size, recipe.positives
        if key not in self._visible:
            self._visible[key] = visible_in_cubes(
                self.split_of(recipe).all_samples, self.stores, recipe.tiling, recipe.size,
                volcanic_only=recipe.positives == "volcanic",
            )  # fmt: skip
        return self._visible[key]

    def earthquakes_left_out_of(self, recipe: Recipe) -> frozenset[Sample]:
        """Return the positives that a run leaves out as earthquakes."""
        if recipe.positives == "any":
            return frozenset()
        return find_earthquakes_alone(self.visible_to(recipe))

    def coverage_of(self, recipe: Recipe) -> dict[str, CoverageCounts]:
        """Return what the windows of a run show of the deformation of each part."""
        coverage = summarize_coverage(
            self.split_of(recipe), recipe.tiling, recipe.size, self.visible_to(recipe),
            leave_out=self.earthquakes_left_out_of(recipe),
        )  # fmt: skip
        return {part: coverage.parts[part].total for part in PARTS}

    def count_samples(self, recipe: Recipe) -> dict[str, int]:
        """Return how many samples or series a run uses of each part, and how many an epoch trains on."""
        groups = {
            part: select_groups(
                self.split_of(recipe), part, series=recipe.series,
                uncertain_frames=() if recipe.uses_uncertain else self.doubtful,
                earthquakes=self.earthquakes_left_out_of(recipe),
            )[0]
            for part in PARTS
        }  # fmt: skip
        if recipe.spec.tells_kind:
            groups = {
                part: [group for group in groups[part] if self._tells_kind(recipe, part, group)]
                for part in PARTS
            }
            epoch = len(groups["train"])
        else:
            positives = sum(any(sample.positive for sample in group) for group in groups["train"])
            epoch = count_draws(positives, len(groups["train"]), balance=recipe.balance)
        return {**{part: len(groups[part]) for part in PARTS}, "an epoch": epoch}

    def _tells_kind(self, recipe: Recipe, part: SplitPart, group: Sequence[Sample]) -> bool:
        """Whether samples are used where the kind of deformation is asked for.

        In training those with a known class are used, else those with deformation in a window.
        """
        positives = [sample for sample in group if sample.positive]
        if part != "train":
            visible = self.visible_to(recipe)
            return any(visible[sample].touched for sample in positives)
        names = [name for sample in positives for name in self._class_names(recipe, sample)]
        return bool(recipe.spec.classes_of_names(names))

    def _class_names(self, recipe: Recipe, sample: Sample) -> tuple[str, ...]:
        key = recipe.spec.labels, recipe.positives, sample
        if key not in self._names:
            cube, volcanic = WindowReader(self.stores[sample.frame.id]), recipe.positives == "volcanic"
            found = read_sample_attributes(cube, sample, volcanic_only=volcanic)
            self._names[key] = found.names_in(recipe.spec.labels)
        return self._names[key]


def _read_samples(bench: ExperimentGrid) -> _PinnedSamples:
    stores = {path.stem: resolve_pin(path) for path in list_cubes([bench.cubes] if bench.cubes else [])}
    samples, doubtful, simulated = [], set(), False
    whole = bench.make_integrity_checker()
    for frame, store in stores.items():
        if whole:
            whole.check_cube(store, ())
        with open_pinned_cube(store, chunks=None) as cube:
            samples += samples_from_cube(cube)
            simulated |= bool(cube.attrs.get("simulated", False))
            if cube.attrs.get("uncertain_geometry"):
                doubtful.add(frame)
    return _PinnedSamples(stores, samples, frozenset(doubtful), simulated)


def _count_samples(recipes: Iterable[Recipe], known: _PinnedSamples) -> dict[str, dict[str, int]]:
    """Return the counts of each form; of each task and form where tasks use different ones."""
    forms: dict[str, dict[str, dict[str, int]]] = defaultdict(dict)
    for recipe in recipes:
        forms["series" if recipe.series else "single"][recipe.task] = known.count_samples(recipe)
    counts: dict[str, dict[str, int]] = {}
    for form, tasks in forms.items():
        alike = all(found == next(iter(tasks.values())) for found in tasks.values())
        for task, found in tasks.items():
            counts[form if alike else f"{form}, {task}"] = found
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
    paper = MODELS[recipe.model].published_parameters
    return paper[recipe.series] * 1e6 if paper else 0.0
