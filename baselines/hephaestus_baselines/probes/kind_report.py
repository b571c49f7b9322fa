"""How well the kind of deformation is told from frozen features: type of activity, or intensity."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from hephaestus_baselines.config.run_config import Recipe
from hephaestus_baselines.data.dataset_items import SampleDraw
from hephaestus_baselines.data.preparation import PreparedData
from hephaestus_baselines.evaluation.bootstrap import CONFIDENCE_LEVEL, RESAMPLES, resample_clusters
from hephaestus_baselines.evaluation.kind_schema import (
    KindControl,
    KindReport,
    KindSupport,
    KindTask,
    ScoreEstimate,
)
from hephaestus_baselines.evaluation.predictions import PredictedItem, cluster_items
from hephaestus_baselines.probes.deformation_kinds import (
    INTENSITY_LEVELS,
    WindowKinds,
    activity_types,
    read_window_kinds,
)
from hephaestus_baselines.probes.frozen_encoder import FrozenEncoder
from hephaestus_baselines.probes.kind_heads import (
    fit_activity_head,
    fit_intensity_head,
    median_levels,
    predict_levels,
    shares_by_frame,
)
from hephaestus_baselines.probes.kind_scores import (
    best_f1_threshold,
    gaps,
    interval,
    macro,
    score_classes,
    score_levels,
)
from hephaestus_baselines.probes.window_features import FeatureReader, draw_training_windows
from hephaestus_baselines.training.inference import make_collector, make_window_dataset
from hephaestus_build.core.errors import HephaestusError
from hephaestus_build.core.plain_text import count_of
from hephaestus_build.core.progress import NullListener, ProgressListener
from hephaestus_build.dataset.splits import PARTS, SplitPart

#: A class with fewer windows in a part, or fewer events in test, is in no mean over classes.
MIN_WINDOWS, MIN_EVENTS = 10, 2
_Scores = dict[str, npt.NDArray[np.float64]]


@dataclass(frozen=True)
class _Part:
    """Deforming windows of one part."""

    features: npt.NDArray[np.float32]
    kinds: WindowKinds
    rows: tuple[PredictedItem, ...]

    @property
    def frames(self) -> list[str]:
        return [row.frame for row in self.rows]

    def select(self, chosen: npt.NDArray[np.bool]) -> _Part:
        kinds = WindowKinds(self.kinds.activities[chosen], self.kinds.level[chosen])
        rows = tuple(row for row, kept in zip(self.rows, chosen, strict=True) if kept)
        return _Part(self.features[chosen], kinds, rows)


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
        Types of activity (a window may show several), or the highest level of intensity.
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
    found = {part: _read_part(reader, part) for part in PARTS}
    if task == "intensity":
        found = {part: one.select(one.kinds.level >= 0) for part, one in found.items()}
    for part, one in found.items():
        if not one.rows:
            raise HephaestusError(
                f"no window of the {part} part of {prepared.split.name} shows deformation of a known {task}; "
                "build further frames or dates with `hephaestus build`, or choose another split"
            )
    measure = _measure_activity if task == "activity" else _measure_intensity
    penalty, classes, scores, controls = measure(found, recipe.seed)
    return KindReport(
        task=task,
        model=model,
        weights=weights,
        simulated=prepared.is_simulated,
        split=prepared.split.name,
        split_sha256=prepared.split.sha256,
        generations=dict(prepared.generations),
        penalty=penalty,
        windows={part: len(one.rows) for part, one in found.items()},
        events=len(set(cluster_items(found["test"].rows).tolist())),
        classes=classes,
        scores=scores,
        controls=controls,
    )


def _read_part(reader: FeatureReader, part: SplitPart) -> _Part:
    recipe, prepared = reader.recipe, reader.prepared
    items = prepared.items[part]
    if part == "train":
        draws = [draw for draw in draw_training_windows(recipe, prepared) if items[draw.item].positive]
    else:
        draws = [SampleDraw(place, 0) for place, item in enumerate(items) if item.pixels and not item.sliver]
    rows = make_collector(recipe, part, items, prepared).rows
    kinds = read_window_kinds(make_window_dataset(recipe, items, prepared), draws)
    shown = kinds.activities.any(1)
    kept = [draw for draw, known in zip(draws, shown, strict=True) if known]
    if not kept:
        return _Part(np.empty((0, 0), "f4"), WindowKinds(kinds.activities[:0], kinds.level[:0]), ())
    return _Part(
        reader.read(part, kept).features,
        WindowKinds(kinds.activities[shown], kinds.level[shown]),
        tuple(rows[draw.item] for draw in kept),
    )


_Measured = tuple[float, list[KindSupport], dict[str, ScoreEstimate], dict[str, KindControl]]


def _measure_activity(found: Mapping[SplitPart, _Part], seed: int) -> _Measured:
    train, seen, test = found["train"], found["validation"], found["test"]
    truth = {part: one.kinds.activities for part, one in found.items()}
    shown = np.any([flags.any(0) for flags in truth.values()], axis=0)
    names = [name for name, any_ in zip(activity_types(), shown, strict=True) if any_]
    truth = {part: flags[:, shown] for part, flags in truth.items()}
    supports = _supports(names, truth, test.rows)
    kept = np.array([not one.too_few for one in supports])
    head = fit_activity_head(train.features, truth["train"], seen.features, truth["validation"])

    def majority(one: _Part) -> npt.NDArray[np.float32]:
        return np.broadcast_to(truth["train"].mean(0).astype("f4"), (len(one.rows), len(names)))

    predictors: dict[str, Callable[[_Part], npt.NDArray[np.float32]]] = {
        "head": lambda one: head.predict(one.features),
        "majority": majority,
        "frame only": lambda one: shares_by_frame(train.frames, truth["train"], one.frames),
    }
    weight = _weights(test.rows, seed)
    by_class: dict[str, _Scores] = {}
    means: dict[str, _Scores] = {}
    thresholds: dict[str, npt.NDArray[np.float64]] = {}
    for name, predict in predictors.items():
        known = predict(seen)
        limits = [best_f1_threshold(truth["validation"][:, at], known[:, at]) for at in range(len(names))]
        thresholds[name] = np.array(limits)
        scored = score_classes(truth["test"], predict(test), thresholds[name], weight)
        by_class[name] = scored
        means[name] = {f"macro_{score}": macro(values, kept) for score, values in scored.items()}
    classes = []
    for at, support in enumerate(supports):
        single = {
            name: {score: _estimate(values[at]) for score, values in scored.items()}
            for name, scored in by_class.items()
        }
        own = single.pop("head")
        update = {"scores": own, "controls": single, "threshold": float(thresholds["head"][at])}
        classes.append(support.model_copy(update=update))
    return head.penalty, classes, *_compare(means)


def _measure_intensity(found: Mapping[SplitPart, _Part], seed: int) -> _Measured:
    train, seen, test = found["train"], found["validation"], found["test"]
    steps = np.arange(len(INTENSITY_LEVELS))
    shown = {part: one.kinds.level[:, None] == steps for part, one in found.items()}
    head = fit_intensity_head(train.features, train.kinds.level, seen.features, seen.kinds.level)
    predicted = {
        "head": predict_levels(head.predict(test.features)),
        "majority": median_levels(train.frames, train.kinds.level, [""] * len(test.rows)),
        "frame only": median_levels(train.frames, train.kinds.level, test.frames),
    }
    weight = _weights(test.rows, seed)
    scores = {
        name: score_levels(test.kinds.level, said, len(INTENSITY_LEVELS), weight)
        for name, said in predicted.items()
    }
    return head.penalty, _supports(INTENSITY_LEVELS, shown, test.rows), *_compare(scores)


def _supports(
    names: Sequence[str], truth: Mapping[SplitPart, npt.NDArray[np.bool]], rows: Sequence[PredictedItem]
) -> list[KindSupport]:
    """Return how many windows and events show each class, without scores."""
    clusters = cluster_items(rows)
    supports = []
    for at, name in enumerate(names):
        windows = {part: int(flags[:, at].sum()) for part, flags in truth.items()}
        events = len(set(clusters[truth["test"][:, at]].tolist()))
        few = [
            f"{count_of(count, 'window')} in {part}" for part, count in windows.items() if count < MIN_WINDOWS
        ]
        if events < MIN_EVENTS:
            few.append(f"{count_of(events, 'event')} in test")
        supports.append(
            KindSupport(
                name=name,
                windows=windows,
                events=events,
                too_few=", ".join(few),
                threshold=float("nan"),
                scores={},
                controls={},
            )
        )
    return supports


def _weights(rows: Sequence[PredictedItem], seed: int) -> npt.NDArray[np.float64]:
    """Return the weights of the windows: first all alike, then those of resamples of events."""
    clusters = cluster_items(rows)
    events = np.ones(int(clusters.max()) + 1, bool)
    drawn = resample_clusters(events, resamples=RESAMPLES if events.size > 1 else 0, seed=seed)
    return np.concatenate([np.ones((1, len(rows))), drawn[:, clusters]])


def _estimate(values: npt.NDArray[np.float64]) -> ScoreEstimate:
    low, high = interval(values[1:], CONFIDENCE_LEVEL)
    return ScoreEstimate(value=float(values[0]), low=low, high=high)


def _compare(scores: Mapping[str, _Scores]) -> tuple[dict[str, ScoreEstimate], dict[str, KindControl]]:
    ours = scores["head"]
    controls = {
        name: KindControl(
            scores={score: _estimate(values) for score, values in known.items()},
            gaps={score: _estimate(values) for score, values in gaps(ours, known).items()},
        )
        for name, known in scores.items()
        if name != "head"
    }
    return {score: _estimate(values) for score, values in ours.items()}, controls
