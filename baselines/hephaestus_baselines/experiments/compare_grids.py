"""Comparison of two grids: the mean difference of their scores over seeds, on the same test items."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hephaestus_baselines.config.tasks import ScoringUnit
from hephaestus_baselines.evaluation.assess_kinds import compare_kinds
from hephaestus_baselines.evaluation.bootstrap import bootstrap_mean_gaps
from hephaestus_baselines.evaluation.kind_metrics import ERRORS
from hephaestus_baselines.evaluation.kind_schema import KindRunResult, read_run_result
from hephaestus_baselines.evaluation.predictions import Predictions
from hephaestus_baselines.evaluation.result_schema import Gap, RunResult
from hephaestus_build.core.errors import HephaestusError, UsageError

#: Runs that are compared with each other: the task, whether they are of series, and the model.
_Setting = tuple[str, bool, str]
#: A finished run and its folder.
_Run = tuple[RunResult | KindRunResult, Path]


@dataclass(frozen=True)
class GridComparison:
    """The difference between two grids for one task, form and model.

    Attributes
    ----------
    task, model : str
    series : bool
    unit : str
        Scoring unit.
    score : str
        Name of the score.
    first, second : float
        Mean score of each grid over the seeds.
    gap : Gap
        Mean of the second less the first, with its interval over events and seeds.
    seeds : tuple of int
        Seeds that both grids have.
    simulated : bool
        Whether any frame is simulated.
    """

    task: str
    model: str
    series: bool
    unit: ScoringUnit
    score: str
    first: float
    second: float
    gap: Gap
    seeds: tuple[int, ...]
    simulated: bool


def compare_grids(first: Path, second: Path, *, part: str = "test") -> Iterator[GridComparison]:
    """Compare the finished runs of two grids that differ in their recipes only.

    Parameters
    ----------
    first, second : pathlib.Path
        Folders of the grids, ``<results>/<preset>``.
    part : str
        ``test``, or ``validation`` as long as recipes are being chosen.

    Raises
    ------
    UsageError
        If they have no setting and seed in common, or several runs of one.
    HephaestusError
        If a result or its predictions cannot be read, or the splits differ.
    """
    runs = [_read_runs(folder) for folder in (first, second)]
    shared = [setting for setting in runs[0] if runs[1].get(setting, {}).keys() & runs[0][setting].keys()]
    if not shared:
        raise UsageError(
            f"{first} and {second} have no finished runs of the same task, model and seed; "
            "`hephaestus benchmark run` trains them"
        )
    for setting in shared:
        ours, theirs = (known[setting] for known in runs)
        seeds = tuple(sorted(ours.keys() & theirs.keys()))
        yield from _compare_setting(setting, {seed: (ours[seed], theirs[seed]) for seed in seeds}, part)


def _compare_setting(
    setting: _Setting, runs: Mapping[int, tuple[_Run, _Run]], part: str
) -> Iterator[GridComparison]:
    read: dict[int, tuple[tuple[Any, Predictions], ...]] = {}
    for seed, both in runs.items():
        if len({result.split.sha256 for result, _ in both}) > 1:
            raise HephaestusError(
                f"{both[0][0].key} and {both[1][0].key} have other splits or cubes, so their scores cannot "
                "be compared; run both on the same cubes"
            )
        read[seed] = tuple((result, Predictions.read(home / f"{part}.npz")) for result, home in both)
    known = next(iter(read.values()))[0][0]
    if isinstance(known, KindRunResult):
        yield from _compare_kinds(known, read, part)
        return
    for unit in known.assessment.units:
        trained = [
            (
                (found[1][1], found[1][0].assessment.units[unit].threshold),
                (found[0][1], found[0][0].assessment.units[unit].threshold),
            )
            for found in read.values()
        ]
        for name, gap in bootstrap_mean_gaps(trained).items():
            means = []
            for place in (0, 1):
                scores = [found[place][0].assessment.units[unit] for found in read.values()]
                values = [(one.test if part == "test" else one.validation).values[name] for one in scores]
                means.append(sum(values) / len(values))
            yield GridComparison(
                task=setting[0],
                model=setting[2],
                series=setting[1],
                unit=unit,
                score=name,
                first=means[0],
                second=means[1],
                gap=gap,
                seeds=tuple(runs),
                simulated=any(result.simulated for both in runs.values() for result, _ in both),
            )


def _compare_kinds(
    known: KindRunResult, read: Mapping[int, Sequence[tuple[Any, Predictions]]], part: str
) -> Iterator[GridComparison]:
    """Yield the differences of scores over all classes of two recipes that tell the kind of deformation."""
    pairs = [(both[1][1], both[0][1]) for both in read.values()]
    for name, better in compare_kinds(pairs, known.assessment.kept).items():
        gap = better
        if name in ERRORS:  # the second less the first is above 0 where it is worse
            gap = Gap(value=-better.value, low=-better.high, high=-better.low)
        means = []
        for place in (0, 1):
            scores = [both[place][0].assessment for both in read.values()]
            values = [one.scores[name].value if part == "test" else one.validation[name] for one in scores]
            means.append(sum(values) / len(values))
        yield GridComparison(
            task=known.task,
            model=known.model,
            series=known.series,
            unit="deforming-items",
            score=name,
            first=means[0],
            second=means[1],
            gap=gap,
            seeds=tuple(read),
            simulated=any(result.simulated for both in read.values() for result, _ in both),
        )


def _read_runs(folder: Path) -> dict[_Setting, dict[int, _Run]]:
    found: dict[_Setting, dict[int, _Run]] = defaultdict(dict)
    for path in sorted(folder.glob("runs/*/result.json")):
        result = read_run_result(path)
        if result.recipe.get("control"):
            continue
        setting = result.task, result.series, result.model
        if result.seed in found[setting]:
            raise UsageError(
                f"{folder} has several runs of {result.model} with seed {result.seed} ("
                f"{found[setting][result.seed][1].name}, {path.parent.name}); a comparison needs one: give "
                "each recipe a results folder of its own"
            )
        found[setting][result.seed] = result, path.parent
    return found
