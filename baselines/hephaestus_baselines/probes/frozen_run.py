"""One run with a frozen encoder: what takes the place of training and prediction."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from hephaestus_baselines.config.run_config import Recipe
from hephaestus_baselines.data.preparation import PreparedData
from hephaestus_baselines.evaluation.predictions import Predictions
from hephaestus_baselines.probes.anomaly_scores import score_anomalies
from hephaestus_baselines.probes.feature_cache import WindowFeatures
from hephaestus_baselines.probes.frozen_encoder import open_encoder
from hephaestus_baselines.probes.window_features import FeatureReader, draw_training_windows
from hephaestus_baselines.probes.window_probes import fit_knn_probe, fit_linear_probe
from hephaestus_baselines.training.inference import describe_device, make_collector, resolve_device
from hephaestus_build.core.progress import NullListener, ProgressListener
from hephaestus_build.dataset.splits import SplitPart


@dataclass(frozen=True)
class FrozenPredictions:
    """What a run with a frozen encoder gives.

    Attributes
    ----------
    predictions : dict of part to Predictions
        Of validation and test.
    parameters : int
        Numbers that were fitted.
    device : str
    seconds : dict of str to float
        Wall time of reading and fitting ("training") and of prediction.
    """

    predictions: dict[SplitPart, Predictions]
    parameters: int
    device: str
    seconds: dict[str, float]


def predict_with_frozen_encoder(
    recipe: Recipe,
    prepared: PreparedData,
    cache: Path,
    *,
    device: str = "auto",
    listener: ProgressListener | None = None,
) -> FrozenPredictions:
    """Fit a probe or a memory bank on training windows, and predict validation and test.

    Parameters
    ----------
    recipe : Recipe
        Its method is not ``trained``.
    prepared : PreparedData
    cache : pathlib.Path
        Folder where features of windows are kept.
    device : str
        Device of the encoder.
    listener : ProgressListener, optional
        Receives progress.

    Raises
    ------
    UsageError
        If timm has no such encoder.
    HephaestusError
        If its weights are unavailable, or training has no quiet interferograms for a bank.
    """
    listener = listener or NullListener()
    started = time.monotonic()
    encoder = open_encoder(recipe, prepared, resolve_device(device))
    said = describe_device(encoder.device)
    if recipe.method in ("memory-bank", "memory-bank-knn"):
        found = score_anomalies(recipe, prepared, encoder, listener)
        passed = round(time.monotonic() - started, 3)
        return FrozenPredictions(found, 0, said, {"training": 0.0, "prediction": passed})
    reader = FeatureReader(recipe, prepared, encoder, cache, listener)
    training = reader.read("train", draw_training_windows(recipe, prepared))
    held_out: dict[SplitPart, WindowFeatures] = {}
    parts: tuple[SplitPart, ...] = ("validation", "test")
    for part in parts:
        held_out[part] = reader.read(part)
    fit = fit_linear_probe if recipe.method == "linear-probe" else fit_knn_probe
    known = held_out["validation"]
    blank = _collect(recipe, prepared, "validation", known, np.zeros(len(known.label), "f4"))
    probe = fit(training, known, blank.scored)
    fitted = time.monotonic()
    predictions = {
        part: _collect(recipe, prepared, part, seen, probe.predict(seen.features))
        for part, seen in held_out.items()
    }
    seconds = {"training": fitted - started, "prediction": time.monotonic() - fitted}
    rounded = {name: round(passed, 3) for name, passed in seconds.items()}
    return FrozenPredictions(predictions, probe.parameters, said, rounded)


def _collect(
    recipe: Recipe,
    prepared: PreparedData,
    part: SplitPart,
    seen: WindowFeatures,
    probability: npt.NDArray[np.float32],
) -> Predictions:
    collector = make_collector(recipe, part, prepared.items[part], prepared)
    places = np.arange(len(seen.label))
    collector.add(places, seen.label, probability, data_share=seen.data_share)
    return collector.finish()
