"""The pictures of a grid, made of what its finished runs left behind."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

import numpy as np
from matplotlib.figure import Figure

from hephaestus_baselines.config.run_config import TASKS, Recipe
from hephaestus_baselines.data.preparation import Prepared
from hephaestus_baselines.evaluation.predictions import Predictions
from hephaestus_baselines.evaluation.result_schema import RunResult
from hephaestus_baselines.reporting.prediction_figures import (
    Example,
    predictions_over_phase,
    series_predictions,
    write_figure,
)
from hephaestus_baselines.reporting.published_scores import TITLES
from hephaestus_baselines.reporting.training_plots import learning_curves, reliability
from hephaestus_baselines.training.history import BEST, METRICS, checked
from hephaestus_build.core.errors import HephaestusError

T = TypeVar("T")

#: What a run leaves, by the result that it ended in.
Homes = Mapping[str, Path]
_TEST = "test.npz"


def draw_all(
    folder: Path,
    results: Sequence[RunResult],
    homes: Homes,
    prepared: Callable[[Recipe], Prepared],
    problems: list[str],
) -> list[Path]:
    """Write learning curves, reliability and examples into `folder`; return the files.

    Parameters
    ----------
    folder : pathlib.Path
    results : sequence of RunResult
        Of a grid.
    homes : mapping of str to pathlib.Path
        Folder of each run by its key. What is not there (a run of another machine) is left out.
    prepared : callable
        Gives the data of a run.
    problems : list of str
        Takes what is damaged, which is left out.
    """
    figures: dict[str, Figure] = {}
    for task in TASKS:
        members = [result for result in results if result.task == task]
        curves = _by_setting(members, homes, METRICS, lambda path: checked(path.parent, METRICS), problems)
        if curves:
            simulated = any(result.simulated for result in members)
            title = f"Learning curves of {task}"
            figures[f"learning-curves-{task}"] = learning_curves(curves, title, simulated=simulated)
        if said := _by_setting(members, homes, _TEST, Predictions.read, problems):
            figures[f"reliability-{task}"] = reliability(said, f"Reliability of {task} on the test part")
    for series, name in ((False, "predictions"), (True, "predictions-series")):
        if best := best_segmenter(results, homes, series):
            try:
                shown = examples(best, homes[best.key], prepared(Recipe.model_validate(best.recipe)))
            except HephaestusError as error:
                problems.append(str(error))
                continue
            draw = series_predictions if series else predictions_over_phase
            figures[name] = draw(shown, f"{_setting(best)}, seed {best.seed}, on the test part")
    for name, figure in figures.items():
        write_figure(figure, folder / f"{name}.png")
    return [folder / f"{name}.png" for name in figures]


def best_segmenter(results: Sequence[RunResult], homes: Homes, series: bool) -> RunResult | None:
    """Return the segmentation with the highest F1 on validation, of those whose checkpoint is here."""
    known = [
        result
        for result in results
        if result.task == "segmentation"
        and result.series == series
        and (homes[result.key] / BEST).is_file()
        and (homes[result.key] / _TEST).is_file()
    ]
    return max(known, key=lambda result: _f1(result), default=None)


def _f1(result: RunResult) -> float:
    return float(np.nan_to_num(result.assessment.units["pixels"].validation.values["f1"], nan=-1))


def spread(label: np.ndarray, probability: np.ndarray, positive: int, negative: int) -> list[int]:
    """Return positions of windows to show: good, middling and bad ones alike.

    Parameters
    ----------
    label : numpy.ndarray
        bool, shape (N,): whether a window shows deformation.
    probability : numpy.ndarray
        Shape (N,): what was said of it.
    positive, negative : int
        Of the windows with deformation so many, from the most to the least probable at equal distances; of
        those without the most probable, which are the worst.
    """
    deforming = np.flatnonzero(label)[np.argsort(-probability[label], kind="stable")]
    quiet = np.flatnonzero(~label)[np.argsort(-probability[~label], kind="stable")]
    places = np.unique(np.linspace(0, len(deforming) - 1, positive).round().astype(int))
    chosen = deforming[places] if len(deforming) else deforming
    return [*chosen.tolist(), *quiet[:negative].tolist()]


def examples(result: RunResult, home: Path, prepared: Prepared) -> list[Example]:
    """Return windows of the test part with what a segmentation says of them."""
    from torch.utils.data import default_collate

    from hephaestus_baselines.training.inference import load, windows_of

    trained = load(checked(home, BEST), device="cpu")
    test = Predictions.read(home / _TEST)
    counts = (2, 0) if result.series else (4, 2)
    items = [prepared.items["test"][place] for place in spread(test.label, test.probability, *counts)]
    windows = windows_of(trained.recipe, items, prepared)
    batch = default_collate([windows[place] for place in range(len(items))])
    probability = trained.probabilities(batch).cpu().numpy()
    threshold = result.assessment.units["pixels"].threshold.value
    return [
        Example(item.frame, item.pairs, phase, mask, said, threshold, result.simulated)
        for item, phase, mask, said in zip(
            items, batch["phase"].numpy(), batch["mask"].numpy(), probability, strict=True
        )
    ]


def _by_setting(
    results: Sequence[RunResult], homes: Homes, name: str, read: Callable[[Path], T], problems: list[str]
) -> dict[str, list[T]]:
    """Return what a file of each run holds, by setting."""
    found: dict[str, list[T]] = defaultdict(list)
    for result in results:
        if (homes[result.key] / name).is_file():
            try:
                value = read(homes[result.key] / name)
            except HephaestusError as error:
                problems.append(str(error))
            else:
                found[_setting(result)].append(value)
    return dict(found)


def _setting(result: RunResult) -> str:
    form = "series" if result.series else "single"
    return f"{TITLES.get(result.model, result.model)}, {form}{', atmosphere' if result.atmosphere else ''}"
