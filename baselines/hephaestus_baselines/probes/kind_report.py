"""How well the kind of deformation is told from frozen features: type of activity, or intensity."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from hephaestus_baselines.config.run_config import Recipe
from hephaestus_baselines.config.tasks import TASK_SPECS, KindTask
from hephaestus_baselines.data.dataset_items import SampleDraw
from hephaestus_baselines.data.preparation import PreparedData
from hephaestus_baselines.data.task_items import count_trained_classes
from hephaestus_baselines.evaluation.assess_kinds import assess_kinds
from hephaestus_baselines.evaluation.kind_controls import make_kind_controls
from hephaestus_baselines.evaluation.kind_metrics import rate_kinds
from hephaestus_baselines.evaluation.kind_schema import KindReport
from hephaestus_baselines.evaluation.predictions import PredictedItem, Predictions, PredictionSource
from hephaestus_baselines.probes.frozen_encoder import FrozenEncoder
from hephaestus_baselines.probes.kind_heads import KindHead, fit_kind_head
from hephaestus_baselines.probes.window_features import FeatureReader, draw_training_windows
from hephaestus_baselines.training.inference import make_predicted_item, make_window_dataset
from hephaestus_build.core.errors import HephaestusError
from hephaestus_build.core.progress import NullListener, ProgressListener
from hephaestus_build.dataset.splits import PARTS, SplitPart


def measure_kinds(
    task: KindTask,
    recipe: Recipe,
    prepared: PreparedData,
    encoder: FrozenEncoder,
    cache: Path,
    *,
    model: str,
    weights: str,
    listener: ProgressListener | None = None,
) -> KindReport:
    """Fit a head on deforming training windows, and score it on those of test.

    Parameters
    ----------
    task : {"activity", "intensity"}
    recipe : Recipe
        Windows and channels; `epochs` is how often training windows are drawn.
    prepared : PreparedData
    encoder : FrozenEncoder
    cache : pathlib.Path
        Folder where features are kept.
    model, weights : str
        What the encoder is, for the report.
    listener : ProgressListener, optional
        Receives progress.

    Raises
    ------
    HephaestusError
        If a part has no window with deformation of a known kind.
    """
    reader = FeatureReader(recipe, prepared, encoder, cache, listener or NullListener())
    found = {part: _read_part(reader, task, part) for part in PARTS}
    spec = TASK_SPECS[task]
    source = PredictionSource(task, model, prepared.split.name, prepared.split.sha256, prepared.is_simulated)

    def predict(head: KindHead, part: SplitPart) -> Predictions:
        features, label, rows = found[part]
        said = head.predict(features)
        return Predictions(source, part, tuple(rows), label, said, np.ones(len(rows), bool))

    features, label, _ = found["train"]
    head = fit_kind_head(
        features,
        label,
        len(spec.classes),
        lambda head: rate_kinds(predict(head, "validation")),
        ordered=spec.ordered,
    )
    assessment = assess_kinds(
        predict(head, "validation"),
        predict(head, "test"),
        count_trained_classes(task, prepared),
        make_kind_controls(task, prepared),
        seed=recipe.seed,
    )
    return KindReport(
        **dict(assessment),
        task=task,
        model=model,
        weights=weights,
        series=recipe.series,
        atmosphere=recipe.atmosphere != "none",
        seed=recipe.seed,
        simulated=prepared.is_simulated,
        split=prepared.split.name,
        split_sha256=prepared.split.sha256,
        generations=dict(prepared.generations),
        penalty=head.penalty,
    )


def _read_part(
    reader: FeatureReader, task: KindTask, part: SplitPart
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int8], Sequence[PredictedItem]]:
    """Return features, classes and descriptions of the deforming windows of a part."""
    recipe, prepared = reader.recipe, reader.prepared
    items = prepared.items[part]
    if part == "train":
        draws = [draw for draw in draw_training_windows(recipe, prepared) if items[draw.item].positive]
    else:
        draws = [SampleDraw(place, 0) for place, item in enumerate(items) if item.pixels and not item.sliver]
    windows = make_window_dataset(recipe.model_copy(update={"task": task}), items, prepared)
    label = np.array([windows.read_label(draw) for draw in draws], np.int8)
    kept = [draw for draw, known in zip(draws, label >= 0, strict=True) if known]
    if not kept:
        raise HephaestusError(
            f"no window of the {part} part of {prepared.split.name} shows deformation of a known {task}; "
            "build further frames or dates with `hephaestus build`, or choose another split"
        )
    rows = [make_predicted_item(items[draw.item], prepared) for draw in kept]
    return reader.read(part, kept).features, label[label >= 0], rows
