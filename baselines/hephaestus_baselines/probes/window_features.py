"""Features that a frozen encoder gives of whole windows, read from the cubes or from the cache."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from hephaestus_baselines.config.run_config import Recipe
from hephaestus_baselines.data.dataset_items import SampleDraw
from hephaestus_baselines.data.preparation import PreparedData
from hephaestus_baselines.data.samplers import draw_epoch
from hephaestus_baselines.probes.feature_cache import WindowFeatures, cached_features
from hephaestus_baselines.probes.frozen_encoder import FrozenEncoder
from hephaestus_baselines.training.batch_collector import data_shares
from hephaestus_baselines.training.inference import (
    DEFAULT_BATCH_SIZE,
    make_window_dataset,
    translate_reader_errors,
)
from hephaestus_baselines.training.prediction import read_ahead
from hephaestus_baselines.training.readback import Readback
from hephaestus_baselines.training.reader_count import count_readers
from hephaestus_build.core.progress import ProgressListener
from hephaestus_build.dataset.splits import SplitPart


def draw_training_windows(recipe: Recipe, prepared: PreparedData) -> list[SampleDraw]:
    """Return the training windows of a probe: those of all epochs of a training with this recipe.

    An item with a window of its own (as those centred on labels) is drawn once.
    """
    items = prepared.items["train"]
    flags = [item.positive for item in items]
    frames = [item.frame for item in items] if recipe.negatives == "matched" else None
    drawn = [
        draw
        for epoch in range(recipe.epochs)
        for draw in draw_epoch(flags, recipe.seed, epoch, balance=recipe.balance, frames=frames)
    ]
    fixed: dict[int, SampleDraw] = {}
    return [
        draw for draw in drawn if items[draw.item].tile is None or fixed.setdefault(draw.item, draw) is draw
    ]


@dataclass(frozen=True)
class FeatureReader:
    """Reads the features of windows of a run's parts.

    Attributes
    ----------
    recipe : Recipe
    prepared : PreparedData
    encoder : FrozenEncoder
    cache : pathlib.Path
        Folder of the cache.
    listener : ProgressListener
        Receives progress.
    """

    recipe: Recipe
    prepared: PreparedData
    encoder: FrozenEncoder
    cache: Path
    listener: ProgressListener

    def read(self, part: SplitPart, draws: Sequence[SampleDraw] | None = None) -> WindowFeatures:
        """Return the features of windows of a part, in the order of `draws`; of every item by default."""
        items = self.prepared.items[part]
        chosen = [SampleDraw(place, 0) for place in range(len(items))] if draws is None else list(draws)
        return cached_features(
            self.cache,
            self._describe(part, chosen),
            len(chosen),
            lambda: self._compute(part, chosen),
        )

    def _describe(self, part: SplitPart, draws: Sequence[SampleDraw]) -> dict[str, Any]:
        recipe, items = self.recipe, self.prepared.items[part]
        windows = [
            [items[draw.item].frame, items[draw.item].pairs, asdict(tile) if tile else list(draw)]
            for draw in draws
            for tile in [items[draw.item].tile]
        ]
        # a draw takes the window of another item: the order of all items belongs to it
        known = [[item.frame, item.pairs, item.positive] for item in items]
        listed = json.dumps([windows, known]).encode()
        return {
            "encoder": recipe.model,
            "weights": self.encoder.hash_weights(),
            "inputs": asdict(recipe.inputs),
            "moments": {name: list(pair) for name, pair in self.encoder.stack.moments.items()},
            "steps": recipe.steps,
            "size": recipe.size,
            "looks": recipe.looks,
            "positives": recipe.positives,
            "part": part,
            "cubes": dict(self.prepared.generations),
            "drawn": hashlib.sha256(listed).hexdigest(),
            "libraries": {name: version(name) for name in ("timm", "torch")},
        }

    def _compute(self, part: SplitPart, draws: Sequence[SampleDraw]) -> WindowFeatures:
        recipe = self.recipe
        windows = make_window_dataset(recipe, self.prepared.items[part], self.prepared)
        batches = [draws[at : at + DEFAULT_BATCH_SIZE] for at in range(0, len(draws), DEFAULT_BATCH_SIZE)]
        stage = f"{recipe.model}: features of {part}"
        parts: list[WindowFeatures] = []
        readback: Readback[npt.NDArray[np.uint8]] = Readback(
            lambda label, read: parts.append(WindowFeatures(read["features"], label, read["share"]))
        )
        workers = count_readers(recipe, self.encoder.device)
        with reading(stage, len(draws), workers, self.listener):
            for batch, fields in read_ahead(windows, batches, workers, self.encoder.device):
                label = batch["label"].numpy().astype("u1")
                readback.add(label, {"features": self.encoder.pool(fields), "share": data_shares(fields)})
                self.listener.advance(stage, len(label))
            readback.finish()
        return WindowFeatures(
            np.concatenate([one.features for one in parts]),
            np.concatenate([one.label for one in parts]),
            np.concatenate([one.data_share for one in parts]),
        )


@contextmanager
def reading(stage: str, count: int, workers: int, listener: ProgressListener) -> Iterator[None]:
    """Announce the reading of windows, and say what to do if a reader process fails."""
    listener.stage(stage, count)
    with translate_reader_errors(stage, workers), torch.inference_mode():
        yield
