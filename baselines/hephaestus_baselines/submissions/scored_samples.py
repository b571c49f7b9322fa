"""The samples that a submission must have, and scoring it by the code that scores our own runs."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch

from hephaestus_baselines.config.run_config import Recipe
from hephaestus_baselines.data.cube_integrity import CubeIntegrityChecker
from hephaestus_baselines.data.dataset_items import DatasetItem
from hephaestus_baselines.data.preparation import PreparedData, prepare_recipe_data
from hephaestus_baselines.evaluation.bootstrap import RESAMPLES
from hephaestus_baselines.evaluation.controls import make_controls
from hephaestus_baselines.evaluation.evaluate import evaluate_predictions
from hephaestus_baselines.evaluation.pixel_controls import predict_in_both_parts
from hephaestus_baselines.evaluation.predictions import (
    PredictedItem,
    PredictionCollector,
    Predictions,
    PredictionSource,
)
from hephaestus_baselines.evaluation.result_schema import Assessment
from hephaestus_baselines.submissions.probability_maps import ProbabilityMaps, map_key
from hephaestus_baselines.submissions.submission_file import (
    SampleKey,
    Submission,
    SubmissionHeader,
    SubmissionUnit,
    match_rows,
)
from hephaestus_baselines.training.batch_collector import BatchCollector
from hephaestus_baselines.training.inference import (
    DEFAULT_BATCH_SIZE,
    expand_on_device,
    make_data_loader,
    make_predicted_item,
    make_window_dataset,
)
from hephaestus_build.core.errors import HephaestusError, UsageError
from hephaestus_build.core.progress import NullListener, ProgressListener
from hephaestus_build.dataset.splits import SplitPart

#: Parts that a submission has probabilities of.
SCORED_PARTS: tuple[SplitPart, ...] = ("validation", "test")


def prepare_scored_data(
    recipe: Recipe,
    cubes: Path | Sequence[Path],
    *,
    mixed: bool = False,
    unchecked: bool = False,
    results: Path | None = None,
    listener: ProgressListener | None = None,
) -> PreparedData:
    """Return the data of a recipe for scoring: no statistics are measured, as no model is trained.

    With `results`, the folder of a grid, its statistics are taken from there.

    Raises
    ------
    HephaestusError
        If there is no cube, a part is empty, or stored data is damaged.
    """
    return prepare_recipe_data(
        recipe,
        cubes,
        mixed=mixed,
        measure=results is not None,
        results=results,
        whole=None if unchecked else CubeIntegrityChecker(None, listener),
        listener=listener,
    )


def sample_name(item: DatasetItem | PredictedItem) -> str:
    """Return the name of an interferogram, ``20190106_20190118``, or of a series, with all its dates.

    Examples
    --------
    Of the three interferograms of a series, the primary date comes first and then each secondary:
    ``20190106_20190118_20190130_20190211``.
    """
    first, *further = item.pairs
    return "_".join([first, *(pair[9:] for pair in further)])


def list_samples(prepared: PreparedData, unit: SubmissionUnit) -> dict[SampleKey, SplitPart]:
    """Return all samples of validation and test, in order, with their parts."""
    samples: dict[SampleKey, SplitPart] = {}
    for part in SCORED_PARTS:
        for item in prepared.items[part]:
            samples[_sample_key(item, unit)] = part
    return samples


def hash_samples(prepared: PreparedData) -> str:
    """Return a hash of all windows of validation and test, with labels and numbers of deforming pixels."""
    digest = hashlib.sha256()
    for part in SCORED_PARTS:
        for item in prepared.items[part]:
            key = _sample_key(item, "window")
            told = (part, *key, prepared.split.name, int(item.positive), item.pixels, int(item.sliver))
            digest.update((" ".join(map(str, told)) + "\n").encode())
    return digest.hexdigest()


def describe_samples(
    recipe: Recipe, prepared: PreparedData, unit: SubmissionUnit, *, model: str, maps: str = ""
) -> SubmissionHeader:
    """Return the header of a submission for these samples."""
    return SubmissionHeader(
        model=model,
        task=recipe.task,
        unit=unit,
        split=prepared.split.name,
        split_sha256=prepared.split.sha256,
        samples_sha256=hash_samples(prepared),
        series=recipe.series,
        tiling=recipe.tiling,
        size=recipe.size,
        positives=recipe.positives,
        uncertain=recipe.uncertain,
        simulated=prepared.is_simulated,
        maps=maps,
    )


def score_submission(
    submission: Submission,
    prepared: PreparedData,
    *,
    seed: int = 0,
    resamples: int = RESAMPLES,
    listener: ProgressListener | None = None,
) -> Assessment:
    """Score a submission as a run is: thresholds from validation, controls beside, intervals over events.

    Parameters
    ----------
    submission : Submission
    prepared : PreparedData
        The data of its header's recipe.
    seed : int
        Seed of the bootstrap intervals.
    resamples : int
        Number of bootstrap resamples.
    listener : ProgressListener, optional
        Receives progress.

    Raises
    ------
    HephaestusError
        If it was made for other samples, a sample or map is missing, unknown or there twice, or a
        probability is none.
    """
    header, path = submission.header, submission.path
    _check_hashes(submission, prepared)
    unit: SubmissionUnit = "interferogram" if header.task == "segmentation" else header.unit
    wanted = list_samples(prepared, unit)
    answers = match_rows(submission, wanted)
    recipe = header.recipe
    controls = make_controls(recipe, prepared)
    source = PredictionSource(
        header.task, header.model, header.split, prepared.split.sha256, prepared.is_simulated
    )
    if header.task == "classification" and unit == "interferogram":
        validation, test = (_whole_interferograms(source, part, prepared, answers) for part in SCORED_PARTS)
        return evaluate_predictions(
            validation, test, controls=controls, seed=seed, resamples=resamples, units=("interferograms",)
        )
    maps = None
    if header.task == "segmentation":
        if not header.maps:
            raise UsageError(
                f"{path}: a segmentation needs maps; write '# maps: NAME' into its header, the name of a "
                "file .npz or a folder beside it (docs/scoring.md)"
            )
        maps = ProbabilityMaps(path.parent / header.maps, [map_key(key.frame, key.pair) for key in wanted])
    validation, test = (
        _collect(source, part, prepared, recipe, answers, maps, listener or NullListener())
        for part in SCORED_PARTS
    )
    pixel_controls = {}
    if maps is not None:
        volcanic_only = recipe.positives == "volcanic"
        pixel_controls = predict_in_both_parts(prepared, validation, test, volcanic_only=volcanic_only)
    return evaluate_predictions(
        validation, test, controls=controls, pixel_controls=pixel_controls, seed=seed, resamples=resamples
    )


def _check_hashes(submission: Submission, prepared: PreparedData) -> None:
    """Raise HephaestusError unless a submission was made for the samples of these cubes."""
    header = submission.header
    found = {"split": prepared.split.sha256, "samples": hash_samples(prepared)}
    given = {"split": header.split_sha256, "samples": header.samples_sha256}
    for name, what in (("split", f"the split {header.split}"), ("samples", "windows or labels")):
        if found[name] != given[name]:
            raise HephaestusError(
                f"{submission.path} was made for another version of {what} than these cubes have: "
                f"{name}_sha256 is {given[name]} in the file and {found[name]} here; give the cubes that it "
                "was made with (--cubes), or predict the samples of a new `hephaestus benchmark template`"
            )
    if header.simulated != prepared.is_simulated:
        kinds = ("real", "simulated")
        raise HephaestusError(
            f"{submission.path} says that its data are {kinds[header.simulated]}; those of these cubes are "
            f"{kinds[prepared.is_simulated]}; write a new `hephaestus benchmark template`"
        )


def _sample_key(item: DatasetItem, unit: SubmissionUnit) -> SampleKey:
    if unit == "interferogram":
        return SampleKey(item.frame, sample_name(item))
    assert item.tile is not None
    return SampleKey(item.frame, sample_name(item), item.tile.row, item.tile.column)


def _whole_interferograms(
    source: PredictionSource, part: SplitPart, prepared: PreparedData, answers: Mapping[SampleKey, float]
) -> Predictions:
    """Return the predictions of a model that gives each interferogram one probability."""
    items = {_sample_key(item, "interferogram"): item for item in prepared.items[part]}
    rows = [make_predicted_item(item, prepared) for item in items.values()]
    return Predictions(
        source,
        part,
        tuple(rows),
        np.array([row.positive for row in rows], bool),
        np.array([answers[key] for key in items], np.float32),
        np.ones(len(rows), bool),
    ).by_interferogram()


def _collect(
    source: PredictionSource,
    part: SplitPart,
    prepared: PreparedData,
    recipe: Recipe,
    answers: Mapping[SampleKey, float],
    maps: ProbabilityMaps | None,
    listener: ProgressListener,
) -> Predictions:
    """Return the predictions of windows, collected like those of our own models."""
    items = prepared.items[part]
    rows = [make_predicted_item(item, prepared) for item in items]
    collector = BatchCollector(PredictionCollector(source, part, rows))
    stage = f"{source.model}: {part}"
    listener.stage(stage, len(items))
    windows = make_window_dataset(recipe, items, prepared)
    reader = None if maps is None else _WindowedMaps(maps, prepared)
    for batch in make_data_loader(windows, 0, batch_size=DEFAULT_BATCH_SIZE):
        batch_items = [items[index] for index in batch["index"].tolist()]
        given = (
            np.array([answers[_sample_key(item, "window")] for item in batch_items], np.float32)
            if reader is None
            else np.stack([reader.read(item) for item in batch_items])
        )
        fields = expand_on_device(batch, torch.device("cpu"))
        collector.add(batch["index"], batch["label"], fields, torch.from_numpy(given))
        listener.advance(stage, len(batch_items))
    return collector.finish()


class _WindowedMaps:
    """Windows of the maps of a submission; those of one interferogram follow each other."""

    def __init__(self, maps: ProbabilityMaps, prepared: PreparedData) -> None:
        self._maps, self._shapes = maps, prepared.shapes
        self._last: tuple[str, np.ndarray] = ("", np.zeros((0, 0), np.float32))

    def read(self, item: DatasetItem) -> np.ndarray:
        name = map_key(item.frame, sample_name(item))
        if self._last[0] != name:
            self._last = name, self._maps.read(name, self._shapes[item.frame])
        assert item.tile is not None
        return item.tile.read(self._last[1])
