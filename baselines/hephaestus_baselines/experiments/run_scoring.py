"""Scores of one run, beside the controls of its task."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from hephaestus_baselines.config.run_config import Recipe
from hephaestus_baselines.data.preparation import PreparedData
from hephaestus_baselines.data.task_items import count_trained_classes
from hephaestus_baselines.evaluation.assess_kinds import assess_kinds
from hephaestus_baselines.evaluation.controls import make_controls
from hephaestus_baselines.evaluation.evaluate import evaluate_predictions
from hephaestus_baselines.evaluation.item_controls import ITEM_CONTROLS_FILE, ItemControls
from hephaestus_baselines.evaluation.kind_controls import make_kind_controls
from hephaestus_baselines.evaluation.kind_schema import KindAssessment
from hephaestus_baselines.evaluation.pixel_controls import (
    pixel_control_file,
    predict_in_both_parts,
)
from hephaestus_baselines.evaluation.predictions import Predictions
from hephaestus_baselines.evaluation.result_schema import Assessment
from hephaestus_build.dataset.splits import SplitPart


def score_run(
    recipe: Recipe, prepared: PreparedData, predictions: Mapping[SplitPart, Predictions], home: Path
) -> Assessment | KindAssessment:
    """Return the scores of a run; what its controls say of each item is kept in its folder.

    Parameters
    ----------
    recipe : Recipe
    prepared : PreparedData
    predictions : mapping of part to Predictions
        Of validation and test.
    home : pathlib.Path
        Folder of the run.
    """
    seen, unseen = predictions["validation"], predictions["test"]
    if recipe.task == "activity" or recipe.task == "intensity":
        trained = count_trained_classes(recipe.task, prepared)
        controls = make_kind_controls(recipe.task, prepared)
        return assess_kinds(seen, unseen, trained, controls, seed=recipe.seed)
    pixel_controls: dict[str, tuple[Predictions, Predictions]] = {}
    if recipe.spec.per_pixel:
        volcanic_only = recipe.positives == "volcanic"
        pixel_controls = predict_in_both_parts(prepared, seen, unseen, volcanic_only=volcanic_only)
        for control, found in pixel_controls.items():
            for one in found:
                one.write(home / pixel_control_file(control, one.part))
    item_controls = make_controls(recipe, prepared)
    ItemControls.compute(item_controls, seen, unseen).write(home / ITEM_CONTROLS_FILE)
    return evaluate_predictions(
        seen, unseen, controls=item_controls, pixel_controls=pixel_controls, seed=recipe.seed
    )
