"""The pictures of a grid, made of what its finished runs left behind."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
from matplotlib.figure import Figure

from hephaestus_baselines.config.run_config import TASKS, Recipe
from hephaestus_baselines.data.preparation import PreparedData
from hephaestus_baselines.evaluation.predictions import Predictions
from hephaestus_baselines.evaluation.result_schema import RunResult
from hephaestus_baselines.reporting.prediction_figures import (
    PredictionExample,
    draw_predictions,
    draw_series_predictions,
    write_figure,
)
from hephaestus_baselines.reporting.published_scores import MODEL_TITLES
from hephaestus_baselines.reporting.training_plots import draw_learning_curves, draw_reliability_diagram
from hephaestus_baselines.training.history import BEST_CHECKPOINT_FILE, METRICS_FILE, verified_training_file
from hephaestus_build.core.errors import HephaestusError

T = TypeVar("T")

#: What a run leaves, by the result that it ended in.
RunFolders = Mapping[str, Path]
_TEST_PREDICTIONS_FILE = "test.npz"


def write_run_figures(
    folder: Path,
    results: Sequence[RunResult],
    homes: RunFolders,
    prepared: Callable[[Recipe], PreparedData],
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
        curves = _read_by_setting(
            members,
            homes,
            METRICS_FILE,
            lambda path: verified_training_file(path.parent, METRICS_FILE),
            problems,
        )
        if curves:
            simulated = any(result.simulated for result in members)
            title = f"Learning curves of {task}"
            figures[f"learning-curves-{task}"] = draw_learning_curves(curves, title, simulated=simulated)
        if said := _read_by_setting(members, homes, _TEST_PREDICTIONS_FILE, Predictions.read, problems):
            figures[f"reliability-{task}"] = draw_reliability_diagram(
                said, f"Reliability of {task} on the test part"
            )
    for series, name in ((False, "predictions"), (True, "predictions-series")):
        if best := best_segmentation_run(results, homes, series):
            try:
                shown = predict_examples(best, homes[best.key], prepared(Recipe.model_validate(best.recipe)))
            except HephaestusError as error:
                problems.append(str(error))
                continue
            draw = draw_series_predictions if series else draw_predictions
            figures[name] = draw(shown, f"{_setting_title(best)}, seed {best.seed}, on the test part")
    for name, figure in figures.items():
        write_figure(figure, folder / f"{name}.png")
    return [folder / f"{name}.png" for name in figures]


def best_segmentation_run(results: Sequence[RunResult], homes: RunFolders, series: bool) -> RunResult | None:
    """Return the segmentation with the highest F1 on validation, of those whose checkpoint is here."""
    known = [
        result
        for result in results
        if result.task == "segmentation"
        and result.series == series
        and (homes[result.key] / BEST_CHECKPOINT_FILE).is_file()
        and (homes[result.key] / _TEST_PREDICTIONS_FILE).is_file()
    ]
    return max(known, key=lambda result: _validation_f1(result), default=None)


def _validation_f1(result: RunResult) -> float:
    return float(np.nan_to_num(result.assessment.units["pixels"].validation.values["f1"], nan=-1))


def select_example_windows(
    label: npt.NDArray[np.bool], probability: npt.NDArray[Any], positive: int, negative: int
) -> list[int]:
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


def predict_examples(result: RunResult, home: Path, prepared: PreparedData) -> list[PredictionExample]:
    """Return windows of the test part with what a segmentation says of them."""
    from torch.utils.data import default_collate

    from hephaestus_baselines.training.inference import load_trained_model, make_window_dataset

    trained = load_trained_model(verified_training_file(home, BEST_CHECKPOINT_FILE), device="cpu")
    test = Predictions.read(home / _TEST_PREDICTIONS_FILE)
    counts = (2, 0) if result.series else (4, 2)
    items = [
        prepared.items["test"][place]
        for place in select_example_windows(test.label, test.probability, *counts)
    ]
    windows = make_window_dataset(trained.recipe, items, prepared)
    batch = default_collate([windows[place] for place in range(len(items))])
    probability = trained.predict_probabilities(batch).cpu().numpy()
    threshold = result.assessment.units["pixels"].threshold.value
    return [
        PredictionExample(item.frame, item.pairs, phase, mask, said, threshold, result.simulated)
        for item, phase, mask, said in zip(
            items, batch["phase"].numpy(), batch["mask"].numpy(), probability, strict=True
        )
    ]


def _read_by_setting(
    results: Sequence[RunResult], homes: RunFolders, name: str, read: Callable[[Path], T], problems: list[str]
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
                found[_setting_title(result)].append(value)
    return dict(found)


def _setting_title(result: RunResult) -> str:
    form = "series" if result.series else "single"
    return (
        f"{MODEL_TITLES.get(result.model, result.model)}, {form}{', atmosphere' if result.atmosphere else ''}"
    )
