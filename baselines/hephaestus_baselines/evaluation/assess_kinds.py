"""Assessment of predictions of the kind of deformation, with intervals over events and beside controls."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from hephaestus_baselines.config.tasks import TASK_SPECS
from hephaestus_baselines.evaluation.bootstrap import CONFIDENCE_LEVEL, RESAMPLES, resample_clusters
from hephaestus_baselines.evaluation.interval_ends import interval_ends, interval_tails
from hephaestus_baselines.evaluation.kind_controls import KindControlScore
from hephaestus_baselines.evaluation.kind_metrics import (
    compare_scores,
    count_confusion_by_cluster,
    predict_classes,
    score_classes,
    score_confusion,
)
from hephaestus_baselines.evaluation.kind_schema import (
    KindAssessment,
    KindControl,
    KindSupport,
    ScoreEstimate,
)
from hephaestus_baselines.evaluation.metrics import cases_by_unit
from hephaestus_baselines.evaluation.predictions import Predictions
from hephaestus_baselines.evaluation.result_schema import Gap
from hephaestus_build.core.errors import HephaestusError, UsageError
from hephaestus_build.core.plain_text import count_of
from hephaestus_build.dataset.splits import SplitPart

#: A class with fewer windows or events in test, or none in training, is in no mean over classes.
MIN_WINDOWS, MIN_EVENTS = 10, 2


def assess_kinds(
    validation: Predictions,
    test: Predictions,
    trained: Sequence[int],
    controls: Mapping[str, KindControlScore],
    *,
    seed: int = 0,
    resamples: int = RESAMPLES,
) -> KindAssessment:
    """Score the windows of test whose class is known. Nothing is chosen on them.

    Parameters
    ----------
    validation, test : Predictions
        Predictions of one model.
    trained : sequence of int
        Training interferograms that show each class.
    controls : mapping of str to callable
        From :func:`~hephaestus_baselines.evaluation.kind_controls.make_kind_controls`.
    seed : int
        Seed of the bootstrap intervals.
    resamples : int
        Number of bootstrap resamples, of events.

    Raises
    ------
    HephaestusError
        If a part has no window of a known class.
    """
    spec = TASK_SPECS[test.source.task]
    seen, cases = (cases_by_unit(found, "deforming-items") for found in (validation, test))
    for found in (seen, cases):
        if not len(found):
            raise HephaestusError(
                f"{test.source.model}: no window of {found.part} shows deformation of a known "
                f"{test.source.task}; build further frames or dates with `hephaestus build`, or choose "
                "another split"
            )
    classes = len(spec.classes)
    shown: dict[SplitPart, npt.NDArray[Any]] = {"train": np.asarray(trained)}
    shown |= {found.part: np.bincount(found.label, minlength=classes) for found in (seen, cases)}
    supports = _count_support(spec.classes, shown, cases)
    kept = np.array([not one.too_few for one in supports])
    weight, tails = _resample(cases, seed, resamples)
    predicted = {"": cases} | {
        name: replace(cases, probability=np.stack([score(row) for row in cases.rows]).astype("f4"))
        for name, score in controls.items()
    }
    single, means = {}, {}
    for name, found in predicted.items():
        drawn = _resampled_confusion(found, weight)
        single[name] = score_classes(drawn)
        means[name] = score_confusion(drawn, kept, ordered=spec.ordered)
    each = [
        {
            name: {score: _estimate(values[:, at], tails) for score, values in one.items()}
            for name, one in single.items()
        }
        for at in range(classes)
    ]
    answers = _resampled_confusion(cases, weight[:1])[0].astype(int).tolist()
    return KindAssessment(
        windows={found.part: len(found) for found in (seen, cases)},
        events=int(cases.clusters.max()) + 1,
        classes=[
            support.model_copy(update={"answers": said, "scores": known.pop(""), "controls": known})
            for support, said, known in zip(supports, answers, each, strict=True)
        ],
        validation={
            score: float(values)
            for score, values in score_confusion(
                _resampled_confusion(seen, np.ones((1, int(seen.clusters.max()) + 1)))[0],
                kept,
                ordered=spec.ordered,
            ).items()
        },
        scores={score: _estimate(values, tails) for score, values in means[""].items()},
        undefined="" if kept.sum() > 1 else f"of {count_of(int(kept.sum()), 'class')} alone there is no mean",
        controls={
            name: KindControl(
                scores={score: _estimate(values, tails) for score, values in means[name].items()},
                gaps={
                    score: _estimate(values, tails)
                    for score, values in compare_scores(means[""], means[name]).items()
                },
            )
            for name in controls
        },
    )


def compare_kinds(
    pairs: Sequence[tuple[Predictions, Predictions]],
    kept: npt.NDArray[np.bool],
    *,
    seed: int = 0,
    resamples: int = RESAMPLES,
) -> dict[str, Gap]:
    """Return by how much the first of each pair is better, as a mean over trainings, with intervals.

    A resample draws events, the same for all, and trainings, with replacement.

    Parameters
    ----------
    pairs : sequence of pairs of Predictions
        Test predictions of two models for the same items, for each training.
    kept : numpy.ndarray
        bool (K,): the classes in the means.
    seed, resamples
        As of :func:`assess_kinds`.

    Raises
    ------
    UsageError
        If they were not scored on the same windows.
    """
    known = [tuple(cases_by_unit(one, "deforming-items") for one in both) for both in pairs]
    first = known[0][0]
    windows = [(row.frame, row.pairs, row.tile) for row in first.rows]
    for one in (one for both in known for one in both):
        if [(row.frame, row.pairs, row.tile) for row in one.rows] != windows:
            raise UsageError(
                f"{first.source.model} and {one.source.model} were not scored on the same windows"
            )
    weight, tails = _resample(first, seed, resamples)
    ordered = TASK_SPECS[first.source.task].ordered
    differences: dict[str, list[npt.NDArray[np.float64]]] = {}
    for both in known:
        ours, theirs = (
            score_confusion(_resampled_confusion(one, weight), kept, ordered=ordered) for one in both
        )
        for name, gap in compare_scores(ours, theirs).items():
            differences.setdefault(name, []).append(gap)
    count = len(pairs)
    chosen = np.random.default_rng((seed, 1)).integers(count, size=(len(weight) - 1, count))
    chosen = np.concatenate([np.arange(count)[None], chosen])
    return {
        name: Gap(**dict(_estimate(np.take_along_axis(np.stack(found, 1), chosen, 1).mean(1), tails)))
        for name, found in differences.items()
    }


def _count_support(
    names: Sequence[str], shown: Mapping[SplitPart, npt.NDArray[Any]], test: Predictions
) -> list[KindSupport]:
    supports = []
    for at, name in enumerate(names):
        windows = {part: int(counts[at]) for part, counts in shown.items()}
        events = len(set(test.clusters[test.label == at].tolist()))
        few = [] if windows["train"] else ["no interferogram in train"]
        if windows["test"] < MIN_WINDOWS:
            few.append(f"{count_of(windows['test'], 'window')} in test")
        if events < MIN_EVENTS:
            few.append(f"{count_of(events, 'event')} in test")
        supports.append(
            KindSupport(
                name=name,
                windows=windows,
                events=events,
                too_few=", ".join(few),
                answers=[],
                scores={},
                controls={},
            )
        )
    return supports


def _resample(
    cases: Predictions, seed: int, resamples: int
) -> tuple[npt.NDArray[np.float64], tuple[float, float]]:
    """Return the weights of the clusters, first all alike, then those of resamples, and ends of intervals."""
    sizes = np.bincount(cases.clusters).astype("f8")
    count = len(sizes)
    drawn = resample_clusters(np.ones(count, bool), resamples=resamples if count > 1 else 0, seed=seed)
    return np.concatenate([np.ones((1, count)), drawn]), interval_tails(CONFIDENCE_LEVEL, sizes)


def _resampled_confusion(cases: Predictions, weight: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return the confusion matrices of resamples, (R, K, K)."""
    spec = TASK_SPECS[cases.source.task]
    answers = predict_classes(cases.probability, ordered=spec.ordered)
    counted = count_confusion_by_cluster(cases.label, answers, len(spec.classes), cases.clusters)
    return np.tensordot(weight, counted, 1)


def _estimate(values: npt.NDArray[np.float64], tails: tuple[float, float]) -> ScoreEstimate:
    low, high = interval_ends(values[1:], tails)
    return ScoreEstimate(value=float(values[0]), low=low, high=high)
