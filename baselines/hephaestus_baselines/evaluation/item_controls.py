"""Scores of the computed controls, kept beside the predictions of a run: folds are pooled without cubes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Literal

import msgspec
import numpy as np

from hephaestus_baselines.config.tasks import TASK_SPECS, ScoringUnit
from hephaestus_baselines.evaluation.controls import predict_control
from hephaestus_baselines.evaluation.metrics import cases_by_unit
from hephaestus_baselines.evaluation.predictions import PredictedItem, Predictions
from hephaestus_build.core.atomic_io import translate_os_errors, write_atomic
from hephaestus_build.core.embedded_hash import add_json_hash, parse_hashed_json
from hephaestus_build.core.errors import HephaestusError
from hephaestus_build.core.parsing import read_bounded
from hephaestus_build.core.plain_text import sanitize_text
from hephaestus_build.dataset.splits import SplitPart

#: Name of the file in a run's folder.
ITEM_CONTROLS_FILE = "item-controls.json"
_MAX_BYTES = 64 << 20


class ItemControls(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Scores of the computed controls for the cases of one run.

    Attributes
    ----------
    scores : dict
        Scores, 0 to 1, by part (``validation``, ``test``), control and unit; in the order of the cases that
        :func:`~hephaestus_baselines.evaluation.metrics.cases_by_unit` returns. Units of pixels have controls
        of their own (:mod:`hephaestus_baselines.evaluation.pixel_controls`).
    """

    scores: dict[SplitPart, dict[str, dict[ScoringUnit, list[float]]]]
    format: Literal["hephaestus-item-controls/1"] = "hephaestus-item-controls/1"

    @classmethod
    def compute(
        cls,
        controls: Mapping[str, Callable[[PredictedItem], float]],
        validation: Predictions,
        test: Predictions,
    ) -> ItemControls:
        """Return the scores of controls for the predictions of a run."""
        return cls(
            {
                found.part: {
                    name: {
                        unit: predict_control(name, score, cases_by_unit(found, unit)).probability.tolist()
                        for unit in item_units(found)
                    }
                    for name, score in controls.items()
                }
                for found in (validation, test)
            }
        )

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the controls."""
        return tuple(self.scores.get("test", ()))

    def predict(self, name: str, unit: ScoringUnit, model: Predictions) -> Predictions:
        """Return a control's predictions for the cases of the model's, in a unit of items or interferograms.

        Raises
        ------
        HephaestusError
            If they are not the scores of these cases.
        """
        cases = cases_by_unit(model, unit)
        values = self.scores.get(model.part, {}).get(name, {}).get(unit, [])
        if len(values) != len(cases):
            raise HephaestusError(
                f"{model.source.model}: {ITEM_CONTROLS_FILE} has {len(values)} scores of {name} for "
                f"{len(cases)} {unit} of {model.part}; remove it, and give the cubes to "
                "`hephaestus benchmark tables` with --cubes"
            )
        source = replace(cases.source, model=f"control: {name}")
        return replace(cases, source=source, probability=np.array(values, np.float32))

    def write(self, path: Path) -> None:
        """Write the scores to `path` with a content hash, atomically.

        Raises
        ------
        HephaestusError
            If the file cannot be written.
        """
        with translate_os_errors(f"writing {path}", setting="--results"):
            write_atomic(path, add_json_hash(msgspec.json.encode(self)))

    @classmethod
    def read(cls, path: Path) -> ItemControls:
        """Read a file that :meth:`write` wrote.

        Raises
        ------
        HephaestusError
            If the file is missing, damaged or of another format.
        """
        try:
            return msgspec.convert(parse_hashed_json(read_bounded(path, _MAX_BYTES)), cls)
        except (OSError, ValueError) as error:
            raise HephaestusError(
                f"{path} holds no scores of controls that can be read ({sanitize_text(error, 200)}); remove "
                "it, and give the cubes to `hephaestus benchmark tables` with --cubes"
            ) from error


def item_units(predictions: Predictions) -> tuple[ScoringUnit, ...]:
    """Return the units of a task whose cases are items or interferograms, not pixels."""
    units = TASK_SPECS[predictions.source.task].units
    return tuple(unit for unit in units if unit not in ("pixels", "all-pixels"))
