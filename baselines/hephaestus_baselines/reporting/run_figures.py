"""Figures of a grid, drawn from the files of its finished runs."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
from matplotlib.figure import Figure

from hephaestus_baselines.config.run_config import Recipe
from hephaestus_baselines.config.tasks import DETECTION_TASKS, KIND_TASKS
from hephaestus_baselines.data.preparation import PreparedData
from hephaestus_baselines.evaluation.kind_schema import KindRunResult
from hephaestus_baselines.evaluation.predictions import Predictions
from hephaestus_baselines.evaluation.result_schema import RunRecord, RunResult
from hephaestus_baselines.reporting.atmosphere_effect import match_atmosphere_runs
from hephaestus_baselines.reporting.prediction_figures import (
    PredictionExample,
    draw_atmosphere_comparison,
    draw_predictions,
    draw_series_predictions,
    write_figure,
)
from hephaestus_baselines.reporting.training_plots import (
    draw_alarm_curves,
    draw_detection,
    draw_learning_curves,
    draw_reliability_diagram,
    setting_title,
)
from hephaestus_baselines.training.history import BEST_CHECKPOINT_FILE, METRICS_FILE, verified_training_file
from hephaestus_build.core.errors import HephaestusError
from hephaestus_build.cube.reading.dataset import open_pinned_cube
from hephaestus_build.cube.reading.window_reader import WindowReader
from hephaestus_build.report.vapour_gradients import VapourGradients, compute_vapour_gradients

T = TypeVar("T")

#: Folder of each run, by the run's key.
RunFolders = Mapping[str, Path]
_TEST_PREDICTIONS_FILE = "test.npz"


def write_run_figures(
    folder: Path,
    finished: Sequence[RunResult | KindRunResult],
    homes: RunFolders,
    prepared: Callable[[Recipe], PreparedData] | None,
    problems: list[str],
) -> list[Path]:
    """Write learning curves, reliability diagrams and example predictions to `folder`; return the files.

    Parameters
    ----------
    folder : pathlib.Path
        Destination of the figures.
    finished : sequence of RunResult and KindRunResult
        Finished runs of a grid.
    homes : mapping of str to pathlib.Path
        Folder of each run, by its key. Missing files (of runs on another machine) are skipped.
    prepared : callable or None
        Returns the data of a run, given its recipe; None where the cubes are gone, so that no predictions are
        drawn.
    problems : list of str
        Descriptions of damaged files, which are skipped, are appended here.
    """
    results = [result for result in finished if isinstance(result, RunResult)]
    figures: dict[str, Figure] = {}
    for task in (*DETECTION_TASKS, *KIND_TASKS):
        of_task = [result for result in finished if result.task == task]
        curves = _read_by_setting(
            of_task,
            homes,
            METRICS_FILE,
            lambda path: verified_training_file(path.parent, METRICS_FILE),
            problems,
        )
        if curves:
            simulated = any(result.simulated for result in of_task)
            title = f"Learning curves of {task}"
            figures[f"learning-curves-{task}"] = draw_learning_curves(curves, title, simulated=simulated)
        members = [result for result in results if result.task == task]
        if said := _read_by_setting(members, homes, _TEST_PREDICTIONS_FILE, Predictions.read, problems):
            figures[f"reliability-{task}"] = draw_reliability_diagram(
                said, f"Reliability of {task} on the test part"
            )
        if members:
            figures[f"alarm-curves-{task}"] = draw_alarm_curves(members, f"Alarms of {task} on the test part")
            figures[f"detection-{task}"] = draw_detection(
                members, f"Detection by kind of deformation, {task}, test part"
            )
    for series, name in ((False, "predictions"), (True, "predictions-series")):
        best = best_segmentation_run(results, homes, series)
        if best and prepared:
            try:
                shown = predict_examples(best, homes[best.key], prepared(Recipe.model_validate(best.recipe)))
            except HephaestusError as error:
                problems.append(str(error))
                continue
            draw = draw_series_predictions if series else draw_predictions
            figures[name] = draw(shown, f"{setting_title(best)}, seed {best.seed}, on the test part")
    if prepared and (pair := _best_atmosphere_pair(results, homes)):
        try:
            shown_pairs = compare_atmosphere(*pair, homes, prepared)
        except HephaestusError as error:
            problems.append(str(error))
        else:
            figures["predictions-atmosphere"] = draw_atmosphere_comparison(
                shown_pairs, f"{setting_title(pair[0])}: the worst false alarms without it, and a deformation"
            )
    for name, figure in figures.items():
        write_figure(figure, folder / f"{name}.png")
    return [folder / f"{name}.png" for name in figures]


def best_segmentation_run(results: Sequence[RunResult], homes: RunFolders, series: bool) -> RunResult | None:
    """Return the segmentation run with the highest validation F1 whose checkpoint is present."""
    known = _with_predictions(results, homes, series)
    return max(known, key=_validation_f1, default=None)


def _with_predictions(results: Sequence[RunResult], homes: RunFolders, series: bool) -> list[RunResult]:
    """Return segmentation runs whose checkpoint and predictions are present, controls left out."""
    return [
        result
        for result in results
        if result.task == "segmentation"
        and not result.recipe.get("control")
        and result.series == series
        and (homes[result.key] / BEST_CHECKPOINT_FILE).is_file()
        and (homes[result.key] / _TEST_PREDICTIONS_FILE).is_file()
    ]


def _best_atmosphere_pair(
    results: Sequence[RunResult], homes: RunFolders
) -> tuple[RunResult, RunResult] | None:
    """Return the best run with atmosphere that has one without beside it, and that one."""
    pairs = match_atmosphere_runs(_with_predictions(results, homes, series=False))
    return max(pairs, key=lambda pair: _validation_f1(pair[0]), default=None)


def compare_atmosphere(
    informed: RunResult,
    without: RunResult,
    homes: RunFolders,
    prepared: Callable[[Recipe], PreparedData],
) -> list[tuple[PredictionExample, PredictionExample, VapourGradients]]:
    """Return test windows as two runs predict them, and the gradients of water vapour of their frames.

    The windows are the two without deformation that the run without atmosphere takes for it most, and the one
    with deformation that it is surest of.

    Parameters
    ----------
    informed, without : RunResult
        Runs with and without atmosphere that are equal in everything else.
    homes : mapping of str to pathlib.Path
        Folder of each run, by its key.
    prepared : callable
        Returns the data of a run, given its recipe.

    Raises
    ------
    HephaestusError
        If a file is damaged, or a frame has no water vapour.
    """
    test = Predictions.read(homes[without.key] / _TEST_PREDICTIONS_FILE)
    places = select_example_windows(test.label, test.probability, 1, 2)[::-1]
    rows = []
    data = prepared(Recipe.model_validate(without.recipe))
    plain = predict_examples(without, homes[without.key], data, places)
    helped = predict_examples(
        informed, homes[informed.key], prepared(Recipe.model_validate(informed.recipe)), places
    )
    gradients: dict[str, VapourGradients] = {}
    for one, other in zip(plain, helped, strict=True):
        if (one.frame, one.pairs) != (other.frame, other.pairs):
            raise HephaestusError(f"{informed.key} and {without.key} were not scored on the same windows")
        if one.frame not in gradients:
            with open_pinned_cube(data.stores[one.frame], chunks=None) as cube:
                gradients[one.frame] = compute_vapour_gradients(cube)
        rows.append((one, other, gradients[one.frame]))
    return rows


def _validation_f1(result: RunResult) -> float:
    return float(np.nan_to_num(result.assessment.units["pixels"].validation.values["f1"], nan=-1))


def select_example_windows(
    label: npt.NDArray[np.bool], probability: npt.NDArray[Any], positive: int, negative: int
) -> list[int]:
    """Return the positions of representative windows: well, moderately and badly predicted ones.

    Parameters
    ----------
    label : numpy.ndarray
        bool, shape (N,): whether a window shows deformation.
    probability : numpy.ndarray
        Predicted probability of each window, shape (N,).
    positive : int
        Number of windows with deformation, evenly spaced from the most to the least probable.
    negative : int
        Number of windows without deformation: those with the highest probability, the worst errors.
    """
    deforming = np.flatnonzero(label)[np.argsort(-probability[label], kind="stable")]
    quiet = np.flatnonzero(~label)[np.argsort(-probability[~label], kind="stable")]
    places = np.unique(np.linspace(0, len(deforming) - 1, positive).round().astype(int))
    chosen = deforming[places] if len(deforming) else deforming
    return [*chosen.tolist(), *quiet[:negative].tolist()]


def predict_examples(
    result: RunResult, home: Path, prepared: PreparedData, places: Sequence[int] | None = None
) -> list[PredictionExample]:
    """Return windows of the test part with the predictions of a segmentation model.

    Parameters
    ----------
    result : RunResult
        The run.
    home : pathlib.Path
        Its folder.
    prepared : PreparedData
        Its data.
    places : sequence of int, optional
        Positions of the windows in the test part; by default those of :func:`select_example_windows`.
    """
    from torch.utils.data import default_collate

    from hephaestus_baselines.training.inference import load_trained_model, make_window_dataset

    trained = load_trained_model(verified_training_file(home, BEST_CHECKPOINT_FILE), device="cpu")
    if places is None:
        test = Predictions.read(home / _TEST_PREDICTIONS_FILE)
        counts = (2, 0) if result.series else (4, 2)
        places = select_example_windows(test.label, test.probability, *counts)
    items = [prepared.items["test"][place] for place in places]
    windows = make_window_dataset(trained.recipe, items, prepared)
    batch = default_collate([windows[place] for place in range(len(items))])
    probability = trained.predict_probabilities(batch).cpu().numpy()
    threshold = result.assessment.units["pixels"].threshold.value
    frames = {item.frame for item in items}
    size = {frame: WindowReader(prepared.stores[frame]).grid.pixel_size_m()[0] / 1000 for frame in frames}
    return [
        PredictionExample(
            item.frame, item.pairs, phase, mask, said, threshold, result.simulated, size[item.frame]
        )
        for item, phase, mask, said in zip(
            items, batch["phase"].numpy(), batch["mask"].numpy(), probability, strict=True
        )
    ]


def _read_by_setting(
    results: Sequence[RunRecord], homes: RunFolders, name: str, read: Callable[[Path], T], problems: list[str]
) -> dict[str, list[T]]:
    """Read one file of each run; return the contents by setting."""
    found: dict[str, list[T]] = defaultdict(list)
    for result in results:
        if (homes[result.key] / name).is_file():
            try:
                value = read(homes[result.key] / name)
            except HephaestusError as error:
                problems.append(str(error))
            else:
                found[setting_title(result)].append(value)
    return dict(found)
