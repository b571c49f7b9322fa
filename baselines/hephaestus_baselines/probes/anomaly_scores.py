"""How unlike the quiet interferograms of its frame each window is: maps and scores of a memory bank.

No label of deformation is used but one: that the interferograms of the training part that make the bank show
none. The bank of one window of a frame is made, used and dropped before the next one, so memory is bounded.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d, interpolate

from hephaestus_baselines.config.run_config import Recipe
from hephaestus_baselines.data.dataset_items import DatasetItem, SampleDraw
from hephaestus_baselines.data.preparation import PreparedData
from hephaestus_baselines.data.samplers import derive_seed
from hephaestus_baselines.evaluation.predictions import ALARM_PIXELS, Predictions
from hephaestus_baselines.probes.frozen_encoder import FrozenEncoder
from hephaestus_baselines.probes.memory_bank import (
    NearestPatches,
    PatchGaussians,
    PatchSample,
    PositionMoments,
    choose_features,
)
from hephaestus_baselines.probes.window_features import reading
from hephaestus_baselines.training.batch_collector import BatchCollector
from hephaestus_baselines.training.inference import (
    DEFAULT_BATCH_SIZE,
    make_collector,
    make_window_dataset,
)
from hephaestus_baselines.training.prediction import MapReceiver, read_ahead, read_back_maps
from hephaestus_baselines.training.reader_count import count_readers
from hephaestus_build.core.errors import HephaestusError
from hephaestus_build.core.progress import ProgressListener
from hephaestus_build.dataset.splits import SplitPart
from hephaestus_build.dataset.tiling import Tile

#: Most quiet interferograms of a frame in its bank, evenly spread over the training part.
BANK_INTERFEROGRAMS = 64
#: Every n-th of them sets the scale of distances instead; with less than twice as many, none does.
_SCALE_EVERY = 4
#: Features of a patch that are kept, at random.
BANK_FEATURES = 64
#: Patches of a place, at all of its positions, that a nearest-neighbour bank keeps at random.
BANK_PATCHES = 4096
#: Share of a patch that must have data.
_PATCH_DATA = 0.5
#: Share of the quiet patches whose distance lies below that which becomes the score 0.5.
_SCALE_QUANTILE = 0.99
#: Quiet windows of all frames that stand for a frame without quiet interferograms in training.
_FOREIGN_WINDOWS = 128
_HELD_OUT: tuple[SplitPart, ...] = ("validation", "test")
Role = Literal["bank", "scale", "validation", "test"]


@dataclass(frozen=True)
class _Batch:
    """Windows at one place that are read together, and what for."""

    place: tuple[str, Tile]
    role: Role
    draws: list[SampleDraw]


def score_anomalies(
    recipe: Recipe,
    prepared: PreparedData,
    encoder: FrozenEncoder,
    listener: ProgressListener,
    *,
    on_map: MapReceiver | None = None,
) -> dict[SplitPart, Predictions]:
    """Return the anomaly scores of the windows of validation and test, in the form of predictions.

    A distance d becomes the score d / (d + q), where q is the 99th percentile of the distances of quiet
    training patches at this place, of interferograms that are not in the bank. For a segmentation the scores
    of patches are interpolated to pixels; for a classification a window has the score that 100 of its pixels
    reach. The maps of pixels are handed to `on_map`, frame by frame.

    Raises
    ------
    HephaestusError
        If the training part has less than two quiet interferograms or series.
    """
    quiet = _quiet_items(prepared)
    held_out = [(part, item) for part in _HELD_OUT for item in prepared.items[part]]
    first = {"validation": 0, "test": len(prepared.items["validation"])}
    items: list[DatasetItem] = [item for _, item in held_out]
    foreign = _ForeignBank(recipe, prepared, encoder, listener) if _needs_foreign(quiet, items) else None
    plan = list(_plan(quiet, held_out, items))
    collectors = {
        part: BatchCollector(make_collector(recipe, part, prepared.items[part], prepared))
        for part in _HELD_OUT
    }
    readback = read_back_maps(on_map) if on_map is not None else None
    bank = _PlaceBank(recipe, foreign)
    stage = f"{recipe.model}: anomalies"
    workers = count_readers(recipe, encoder.device)
    windows = make_window_dataset(recipe, items, prepared)
    batches = read_ahead(windows, [step.draws for step in plan], workers, encoder.device)
    with reading(stage, sum(len(batch.draws) for batch in plan), workers, listener):
        for step, (batch, fields) in zip(plan, batches, strict=True):
            features, known = _known_patches(encoder, fields)
            if step.role in ("bank", "scale"):
                bank.learn(step, features, known)
            else:
                part: SplitPart = "validation" if step.role == "validation" else "test"
                scores = bank.score(step, features, known)
                maps = _map_scores(scores, features.shape[1], recipe.size, fields)
                said = maps if recipe.task == "segmentation" else _window_scores(maps, fields)
                collectors[part].add(batch["index"] - first[part], batch["label"], fields, said)
                if readback is not None:
                    readback.add([items[place] for place in batch["index"].tolist()], {"maps": maps})
            listener.advance(stage, len(step.draws))
        if readback is not None:
            readback.finish()
    return {part: collector.finish() for part, collector in collectors.items()}


def _quiet_items(prepared: PreparedData) -> dict[str, list[DatasetItem]]:
    """Return the quiet training items of each frame that make its bank, in order of time."""
    found: dict[str, dict[tuple[str, ...], DatasetItem]] = defaultdict(dict)
    for item in prepared.items["train"]:
        if not item.positive:
            found[item.frame].setdefault(item.pairs, item)
    chosen = {}
    for frame, by_pairs in found.items():
        every = [by_pairs[pairs] for pairs in sorted(by_pairs)]
        count = min(len(every), BANK_INTERFEROGRAMS)
        chosen[frame] = [every[place * len(every) // count] for place in range(count)]
    if sum(map(len, chosen.values())) < 2:
        raise HephaestusError(
            "a memory bank needs two interferograms without deformation in the training part at least; build "
            "further dates with `hephaestus build`, or choose another split"
        )
    return chosen


def _needs_foreign(quiet: Mapping[str, Sequence[DatasetItem]], items: Sequence[DatasetItem]) -> bool:
    return any(len(quiet.get(item.frame, ())) < 2 for item in items)


def _plan(
    quiet: Mapping[str, Sequence[DatasetItem]],
    held_out: Sequence[tuple[SplitPart, DatasetItem]],
    items: list[DatasetItem],
) -> Iterator[_Batch]:
    """Yield what is read, place by place: the bank, what sets its scale, then what is scored.

    Windows of the bank are added to `items`.
    """
    places: dict[tuple[str, Tile], dict[SplitPart, list[int]]] = defaultdict(lambda: defaultdict(list))
    for position, (part, item) in enumerate(held_out):
        assert item.tile is not None, "windows of validation and test have places"
        places[item.frame, item.tile][part].append(position)
    for place, scored in sorted(places.items(), key=lambda one: one[0][0]):
        frame, tile = place
        members = quiet.get(frame, ())
        if len(members) >= 2:
            apart = _SCALE_EVERY if len(members) >= 2 * _SCALE_EVERY else len(members) + 1
            roles: dict[Role, list[int]] = {"bank": [], "scale": []}
            for number, item in enumerate(members, 1):
                roles["scale" if number % apart == 0 else "bank"].append(len(items))
                items.append(DatasetItem(item.members, positive=False, tile=tile))
            for role, positions in roles.items():
                yield from _batches(place, role, positions)
        for part in _HELD_OUT:
            role = "validation" if part == "validation" else "test"
            yield from _batches(place, role, scored[part])


def _batches(place: tuple[str, Tile], role: Role, positions: Sequence[int]) -> Iterator[_Batch]:
    for at in range(0, len(positions), DEFAULT_BATCH_SIZE):
        chosen = positions[at : at + DEFAULT_BATCH_SIZE]
        yield _Batch(place, role, [SampleDraw(position, 0) for position in chosen])


def _known_patches(encoder: FrozenEncoder, fields: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
    """Return the features of patches, (B, rows, rows, F), and which of them have data."""
    features = encoder.patches(fields)
    valid = (fields["valid"].any(1) & fields["inside"][:, 0]).float().unsqueeze(1)
    return features, adaptive_avg_pool2d(valid, features.shape[1])[:, 0] >= _PATCH_DATA


class _PlaceBank:
    """The bank of the place that is being read."""

    def __init__(self, recipe: Recipe, foreign: _ForeignBank | None) -> None:
        self._recipe, self._foreign = recipe, foreign
        self._place: tuple[str, Tile] | None = None
        self._begin(None)

    def _begin(self, place: tuple[str, Tile] | None) -> None:
        self._place = place
        self._seen: PositionMoments | PatchSample | None = None
        self._fit: PatchGaussians | NearestPatches | None = None
        self._distances: list[Tensor] = []
        self._scale: float | None = None

    def learn(self, step: _Batch, features: Tensor, known: Tensor) -> None:
        """Add quiet windows to the bank, or to what sets its scale."""
        if step.place != self._place:
            self._begin(step.place)
        chosen = reduce_patches(features, self._recipe.seed)
        seen = known.flatten(1)
        if step.role == "bank":
            if self._seen is None:
                self._seen = _begin_bank(self._recipe, chosen, chosen.shape[1])
            self._seen.update(chosen, seen)
        else:
            self._distances.append(torch.where(seen, self._fitted(chosen).distances(chosen), torch.nan))

    def score(self, step: _Batch, features: Tensor, known: Tensor) -> Tensor:
        """Return the scores of patches, float32 (B, P) from 0 to 1; 0 where there is no data."""
        if step.place != self._place:
            self._begin(step.place)
        chosen = reduce_patches(features, self._recipe.seed)
        if self._seen is None and self._foreign is not None:
            fit, scale = self._foreign.fit, self._foreign.scale
        else:
            fit = self._fitted(chosen)
            if self._scale is None:
                self._scale = distance_scale(self._distances, chosen.shape[2])
            scale = self._scale
        distance = fit.distances(chosen)
        score = distance / (distance + scale)
        return torch.where(known.flatten(1), score, 0.0).float()

    def _fitted(self, patches: Tensor) -> PatchGaussians | NearestPatches:
        if self._fit is None:
            assert self._seen is not None
            try:
                self._fit = _fit_bank(self._seen)
            except ValueError:  # a place without data in quiet interferograms
                if self._foreign is not None:
                    self._fit, self._scale = self._foreign.fit, self._foreign.scale
                else:
                    self._fit = _standard(patches)
        return self._fit


def _begin_bank(recipe: Recipe, patches: Tensor, positions: int) -> PositionMoments | PatchSample:
    """Return an empty bank of the kind that a recipe names, for patches (B, P, D)."""
    width, device = patches.shape[2], patches.device
    if recipe.method == "memory-bank-knn":
        return PatchSample(width, BANK_PATCHES, recipe.seed, device)
    return PositionMoments(positions, width, device)


def _fit_bank(seen: PositionMoments | PatchSample) -> PatchGaussians | NearestPatches:
    if isinstance(seen, PatchSample):
        return NearestPatches.fit(seen)
    return PatchGaussians.fit(seen)


def _standard(patches: Tensor) -> PatchGaussians:
    """Return a Gaussian of unit variance for all positions of a place of which nothing is known."""
    width = patches.shape[2]
    unit = torch.eye(width, dtype=torch.float64, device=patches.device)
    return PatchGaussians(torch.zeros(1, width, dtype=torch.float64, device=patches.device), unit[None])


class _ForeignBank:
    """What the quiet windows of all frames are like, for frames that have none in training."""

    def __init__(
        self, recipe: Recipe, prepared: PreparedData, encoder: FrozenEncoder, listener: ProgressListener
    ) -> None:
        items = [item for item in prepared.items["train"] if not item.positive]
        count = min(len(items), _FOREIGN_WINDOWS)
        chosen = [items[place * len(items) // count] for place in range(count)]
        draws = [SampleDraw(place, derive_seed(recipe.seed, place) % 2**32) for place in range(count)]
        batches = [draws[at : at + DEFAULT_BATCH_SIZE] for at in range(0, count, DEFAULT_BATCH_SIZE)]
        windows = make_window_dataset(recipe, chosen, prepared)
        seen: PositionMoments | PatchSample | None = None
        apart: list[tuple[Tensor, Tensor]] = []
        stage = f"{recipe.model}: quiet windows of all frames"
        workers = count_readers(recipe, encoder.device)
        with reading(stage, count, workers, listener):
            read = read_ahead(windows, batches, workers, encoder.device)
            for number, (batch, fields) in enumerate(read, 1):
                features, known = _known_patches(encoder, fields)
                patches = reduce_patches(features, recipe.seed)
                found = patches.flatten(0, 1).unsqueeze(1), known.flatten().unsqueeze(1)
                seen = seen or _begin_bank(recipe, patches, 1)
                if number % _SCALE_EVERY == 0:
                    apart.append(found)
                else:
                    seen.update(*found)
                listener.advance(stage, len(batch["index"]))
            assert seen is not None
            self.fit: PatchGaussians | NearestPatches
            try:
                self.fit = _fit_bank(seen)
            except ValueError:
                self.fit = _standard(patches)
            distances = [torch.where(counted, self.fit.distances(flat), torch.nan) for flat, counted in apart]
            self.scale = distance_scale(distances, patches.shape[2])


def reduce_patches(features: Tensor, seed: int) -> Tensor:
    """Return the kept features of patches, (B, P, D), of features (B, rows, columns, F)."""
    kept = choose_features(features.shape[-1], BANK_FEATURES, seed).to(features.device)
    return features.flatten(1, 2).index_select(-1, kept)


def distance_scale(distances: Sequence[Tensor], width: int) -> float:
    """Return the distance that becomes the score 0.5: a high one of quiet patches.

    Without any quiet patch it is that of a Gaussian in `width` dimensions. NaN stands for patches that do not
    count.
    """
    every = torch.cat([one.flatten() for one in distances]).cpu().numpy() if distances else np.empty(0)
    known = every[~np.isnan(every)]
    expected = float(np.sqrt(width))
    if not known.size:
        return expected
    # numpy's takes any number of values
    return max(float(np.quantile(known, _SCALE_QUANTILE)), 1e-3 * expected)


def _map_scores(scores: Tensor, rows: int, size: int, fields: Mapping[str, Tensor]) -> Tensor:
    """Return the scores of pixels, float32 (B, S, S); 0 without data."""
    grid = scores.view(len(scores), 1, rows, -1)
    maps = interpolate(grid, size=(size, size), mode="bilinear", align_corners=False)[:, 0]
    return torch.where(fields["valid"].any(1), maps, 0.0).clamp(0, 1)


def _window_scores(maps: Tensor, fields: Mapping[str, Tensor]) -> Tensor:
    """Return the score that 100 pixels of each window's core reach, float32 (B,)."""
    inside = torch.where(fields["inside"][:, 0], maps, 0.0).flatten(1)
    return inside.topk(min(ALARM_PIXELS, inside.shape[1]), dim=1).values[:, -1]
