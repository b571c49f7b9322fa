"""Pooling of the folds of a split: one result over all tests, as if one model had been scored on all of them.

Each fold's model is scored on regions that it has not seen. Their probabilities are put on one scale by each
fold's own calibration, which was fitted on its validation part; thresholds are chosen on all validation parts
together.
"""

from __future__ import annotations

import hashlib
import json
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from hephaestus_baselines.config.run_config import Recipe, fold_family
from hephaestus_baselines.config.tasks import TASK_SPECS
from hephaestus_baselines.evaluation.bootstrap import RESAMPLES
from hephaestus_baselines.evaluation.calibration import apply_platt
from hephaestus_baselines.evaluation.evaluate import compare_with_control, evaluate_predictions
from hephaestus_baselines.evaluation.item_controls import ITEM_CONTROLS_FILE, ItemControls
from hephaestus_baselines.evaluation.metrics import cases_by_unit
from hephaestus_baselines.evaluation.pixel_controls import PIXEL_CONTROLS, pixel_control_file
from hephaestus_baselines.evaluation.predictions import PredictedItem, Predictions, PredictionSource
from hephaestus_baselines.evaluation.result_schema import PartCoverageRecord, RunResult, SplitRecord
from hephaestus_build.dataset.splits import PARTS, SplitPart

#: Scores of items by computed controls, of one fold.
FoldControls = Mapping[str, Callable[[PredictedItem], float]]


def group_folds(results: Sequence[RunResult]) -> list[list[RunResult]]:
    """Return the results that differ in nothing but the fold, each group in the order of the folds' names."""
    groups: dict[str, list[RunResult]] = defaultdict(list)
    for result in results:
        kept = {name: value for name, value in result.recipe.items() if name != "split"}
        groups[json.dumps([result.task, kept], sort_keys=True)].append(result)
    return [sorted(members, key=lambda result: result.split.name) for members in groups.values()]


def pool_folds(
    results: Sequence[RunResult],
    homes: Mapping[str, Path],
    controls: Callable[[Recipe], FoldControls],
    *,
    resamples: int = RESAMPLES,
) -> tuple[RunResult, Predictions]:
    """Return one result of the folds of one setting and seed, and the predictions for all tests.

    Parameters
    ----------
    results : sequence of RunResult
        One result for each fold.
    homes : mapping of str to pathlib.Path
        Folder of each run, by its key, with its predictions.
    controls : callable
        Returns the computed controls of a fold. It is asked only for a run without the file
        :data:`~hephaestus_baselines.evaluation.item_controls.ITEM_CONTROLS_FILE`, as of earlier versions.
    resamples : int
        Number of bootstrap resamples.

    Raises
    ------
    HephaestusError
        If predictions, or the scores of controls, are missing or damaged.
    """
    first = results[0]
    family = fold_family([result.split.name for result in results])
    digest = hashlib.sha256("\n".join(result.split.sha256 for result in results).encode()).hexdigest()
    key = f"{first.key}-and-{len(results) - 1}-folds"
    source = PredictionSource(first.task, key, family, digest, first.simulated)
    parts: tuple[SplitPart, ...] = ("validation", "test")
    read = {
        part: [Predictions.read(homes[result.key] / f"{part}.npz") for result in results] for part in parts
    }
    pooled = {
        part: _concatenate(
            [_calibrate(one, result) for one, result in zip(read[part], results, strict=True)], source
        )
        for part in parts
    }
    assessment = evaluate_predictions(
        pooled["validation"], pooled["test"], seed=first.seed, resamples=resamples
    )
    known_controls = [
        _read_item_controls(result, homes[result.key], (seen, unseen), controls)
        for result, seen, unseen in zip(results, read["validation"], read["test"], strict=True)
    ]
    units = dict(assessment.units)
    for unit in TASK_SPECS[first.task].units:
        by_pixel = unit in ("pixels", "all-pixels")
        compared = {}
        for name in PIXEL_CONTROLS if by_pixel else known_controls[0].names:
            known = [
                _concatenate(
                    [
                        Predictions.read(homes[result.key] / pixel_control_file(name, part))
                        if by_pixel
                        else kept.predict(name, unit, one)
                        for result, one, kept in zip(results, read[part], known_controls, strict=True)
                    ],
                    replace(source, model=f"control: {name}"),
                )
                for part in parts
            ]
            cases = cases_by_unit(pooled["test"], unit)
            compared[name] = compare_with_control(
                (cases, units[unit].threshold), (known[0], known[1]), seed=first.seed, resamples=resamples
            )
        units[unit] = units[unit].model_copy(update={"controls": compared})
    counts = {
        part: {
            sign: sum(result.split.counts[part][sign] for result in results) if part == "test" else 0
            for sign in ("positive", "negative")
        }
        for part in PARTS
    }
    result = first.model_copy(
        update={
            "key": key,
            "split": SplitRecord.model_validate(
                {"name": family, "version": first.split.version, "sha256": digest, "counts": counts}
            ),
            "recipe": {**first.recipe, "split": family},
            "coverage": _sum_coverage(results),
            "generations": {name: value for result in results for name, value in result.generations.items()},
            "seconds": {
                name: sum(result.seconds.get(name, 0.0) for result in results) for name in first.seconds
            },
            "assessment": assessment.model_copy(update={"units": units}),
        }
    )
    return result, pooled["test"]


def _read_item_controls(
    result: RunResult,
    home: Path,
    predictions: tuple[Predictions, Predictions],
    controls: Callable[[Recipe], FoldControls],
) -> ItemControls:
    """Return what the run kept of its controls, else compute it from its validation and test predictions."""
    if (kept := home / ITEM_CONTROLS_FILE).exists():
        return ItemControls.read(kept)
    return ItemControls.compute(controls(Recipe.model_validate(result.recipe)), *predictions)


def _calibrate(predictions: Predictions, result: RunResult) -> Predictions:
    """Return predictions on the scale of probabilities of the run; pixels stay as they are."""
    fitted = result.assessment.calibration
    mapped = apply_platt(predictions.probability, fitted.slope, fitted.offset).astype(np.float32)
    return replace(predictions, probability=mapped)


def _concatenate(parts: Sequence[Predictions], source: PredictionSource) -> Predictions:
    """Return the predictions of all folds for one part.

    Folds share regions of validation. What two models say of one interferogram is two cases, so frames of
    validation get the number of their fold.
    """
    rows = [
        row if one.part == "test" else replace(row, frame=f"fold {fold}: {row.frame}")
        for fold, one in enumerate(parts, 1)
        for row in one.rows
    ]
    pixels = None
    if parts[0].pixels is not None:
        pixels = {
            name: np.concatenate([one.pixels[name] for one in parts if one.pixels is not None])
            for name in parts[0].pixels
        }
    return Predictions(
        source,
        parts[0].part,
        tuple(rows),
        np.concatenate([one.label for one in parts]),
        np.concatenate([one.probability for one in parts]),
        np.concatenate([one.scored for one in parts]),
        pixels,
    )


def _sum_coverage(results: Sequence[RunResult]) -> dict[SplitPart, PartCoverageRecord]:
    """Return the coverage of all tests together; the other parts are those of the fold that shows least."""
    tests = [result.coverage["test"] for result in results]
    names = ("positives", "seen", "touched", "uncertain", "uncertain_left_out")
    summed = {name: sum(getattr(one, name) for one in tests) for name in names}
    weights = [one.positives for one in tests]
    shares = [0.0 if np.isnan(one.pixels_seen) else one.pixels_seen for one in tests]
    pixels = float(np.average(shares, weights=weights)) if sum(weights) else float("nan")
    worst: dict[SplitPart, PartCoverageRecord] = {
        part: min(
            (result.coverage[part] for result in results),
            key=lambda one: one.seen / one.positives if one.positives else 1.0,
        )
        for part in PARTS
        if part != "test"
    }
    return {**worst, "test": PartCoverageRecord(**summed, pixels_seen=pixels)}
