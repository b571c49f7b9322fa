"""Bootstrap intervals of scores, resampled by event.

Fifty interferograms of one inflation are not independent. Therefore whole events are resampled, with all
items that show them; items without deformation are resampled by frame and primary acquisition, whose
atmosphere they share.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from hephaestus_baselines.evaluation.interval_ends import interval_ends, interval_tails
from hephaestus_baselines.evaluation.metrics import (
    METRICS_BY_UNIT,
    RankedScores,
    cases_by_unit,
    compute_rates,
    count_confusion,
    count_false_alarms,
)
from hephaestus_baselines.evaluation.predictions import Predictions
from hephaestus_baselines.evaluation.result_schema import Gap, Interval, Threshold
from hephaestus_build.core.errors import UsageError

RESAMPLES = 1000
CONFIDENCE_LEVEL = 0.95
#: Resamples scored at once; limits memory to some tens of MB for 20,000 items.
_RESAMPLES_PER_BLOCK = 50
#: With fewer events than this, no interval is computed.
_MIN_CLUSTERS = 2


def resample_clusters(events: npt.NDArray[np.bool], *, resamples: int, seed: int) -> npt.NDArray[np.float32]:
    """Draw clusters with replacement, stratified by whether they have events.

    Each resample has as many clusters with and without events as the original.

    Parameters
    ----------
    events : numpy.ndarray
        bool, shape (C,): whether the cluster has events.
    resamples : int
        Number of resamples.
    seed : int
        Seed of the random generator.

    Returns
    -------
    numpy.ndarray
        float32, shape (resamples, C): how often each cluster was drawn.
    """
    rng = np.random.default_rng(seed)
    weight = np.zeros((resamples, len(events)), "f4")
    for members in (np.flatnonzero(events), np.flatnonzero(~events)):
        if count := len(members):
            drawn = rng.integers(count, size=(resamples, count))
            drawn += np.arange(resamples)[:, None] * count
            weight[:, members] = np.bincount(drawn.ravel(), minlength=resamples * count).reshape(
                resamples, count
            )
    return weight


def bootstrap_intervals(
    predictions: Predictions,
    threshold: Threshold,
    *,
    seed: int = 0,
    resamples: int = RESAMPLES,
    level: float = CONFIDENCE_LEVEL,
) -> dict[str, Interval]:
    """Return a bootstrap interval of every score of the threshold's unit; see :func:`interval_tails`.

    Threshold and model are fixed: the interval reflects the sampling of the test part only, whereas the
    deviation over seeds reflects that of training. For interferograms, the false alarms per frame-year get an
    interval too.

    Parameters
    ----------
    predictions : Predictions
    threshold : Threshold
    seed : int
    resamples : int
    level : float
        Share of such intervals that hold the truth.
    """
    cases = cases_by_unit(predictions, threshold.unit)
    events = _clusters_with_events(cases)
    drawn = resample_scores(cases, threshold, resample_clusters(events, resamples=resamples, seed=seed))
    names = [*METRICS_BY_UNIT[threshold.unit]]
    if threshold.unit == "interferograms":
        names.append("false_alarms_per_frame_year")
    positives, cases_in_all = _cluster_sizes(cases, threshold)
    sizes = {"events": positives[events], "quiet": cases_in_all[~events]}
    return {name: _make_interval(name, drawn[name], level, sizes) for name in names}


def bootstrap_gaps(
    model: tuple[Predictions, Threshold],
    control: tuple[Predictions, Threshold],
    *,
    seed: int = 0,
    resamples: int = RESAMPLES,
    level: float = CONFIDENCE_LEVEL,
) -> dict[str, Gap]:
    """Return the difference of every score of a model from that of a control, with bootstrap intervals.

    Both are scored on the same resamples of events. What makes a resample hard is hard for both, so the
    interval of the difference is narrower than the two intervals suggest.

    Parameters
    ----------
    model, control : tuple of Predictions and Threshold
        Test predictions for the same items, and the threshold of each, in the same unit.
    seed : int
    resamples : int
    level : float
        Share of such intervals that hold the truth.

    Raises
    ------
    UsageError
        If the items differ.
    """
    return bootstrap_mean_gaps([(model, control)], seed=seed, resamples=resamples, level=level)


def bootstrap_mean_gaps(
    trained: Sequence[tuple[tuple[Predictions, Threshold], tuple[Predictions, Threshold]]],
    *,
    seed: int = 0,
    resamples: int = RESAMPLES,
    level: float = CONFIDENCE_LEVEL,
) -> dict[str, Gap]:
    """Return the mean difference of every score of one recipe from that of another over several trainings.

    A resample draws events, the same for all, and trainings, with replacement. The interval therefore
    reflects both the sampling of the test part and the deviation between trainings.

    Parameters
    ----------
    trained : sequence of pairs
        For each training seed, test predictions and threshold of both recipes, as in
        :func:`bootstrap_gaps`.
    seed : int
    resamples : int
    level : float
        Share of such intervals that hold the truth.

    Raises
    ------
    UsageError
        If the items differ, or there are none.
    """
    if not trained:
        raise UsageError("there are no trainings to compare")
    (first, limit), _ = trained[0]
    reference = cases_by_unit(first, limit.unit)
    items = [(row.frame, row.pairs, row.tile) for row in reference.rows]
    events = _clusters_with_events(reference)
    weight = resample_clusters(events, resamples=resamples, seed=seed)
    tails = interval_tails(level, _cluster_sizes(reference, limit)[0][events])
    # the first row is the sample itself
    weight = np.concatenate([np.ones((1, weight.shape[1]), weight.dtype), weight])
    differences: dict[str, list[npt.NDArray[np.float64]]] = {}
    for (ours, threshold), (theirs, other) in trained:
        both = []
        for predictions, bound in ((ours, threshold), (theirs, other)):
            cases = cases_by_unit(predictions, bound.unit)
            if [(row.frame, row.pairs, row.tile) for row in cases.rows] != items:
                raise UsageError(
                    f"{first.source.model} and {predictions.source.model} were not scored on the same items"
                )
            # clusters depend on the items alone
            both.append(resample_scores(cases, bound, weight, reference.clusters))
        for name in METRICS_BY_UNIT[threshold.unit]:
            differences.setdefault(name, []).append(both[0][name] - both[1][name])
    count = len(trained)
    chosen = np.random.default_rng((seed, 1)).integers(count, size=(resamples, count))
    chosen = np.concatenate([np.arange(count)[None], chosen])
    gaps = {}
    for name, found in differences.items():
        drawn = np.take_along_axis(np.stack(found, 1), chosen, 1).mean(1)
        low, high = interval_ends(drawn[1:], tails)
        gaps[name] = Gap(value=float(drawn[0]), low=low, high=high)
    return gaps


def _clusters_with_events(cases: Predictions) -> npt.NDArray[np.bool]:
    clusters = cases.clusters
    events = np.zeros(int(clusters.max(initial=-1)) + 1, bool)
    events[clusters[np.array([row.positive for row in cases.rows], bool)]] = True
    return events


def _cluster_sizes(
    cases: Predictions, threshold: Threshold
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Return what each cluster has of deformation, in items or pixels, and how many cases."""
    clusters = cases.clusters
    hit, _, missed, _ = count_confusion(cases, threshold).T
    return np.bincount(clusters, hit + missed), np.bincount(clusters).astype("f8")


def resample_scores(
    cases: Predictions,
    threshold: Threshold,
    weight: npt.NDArray[np.float32],
    clusters: npt.NDArray[Any] | None = None,
) -> dict[str, npt.NDArray[np.float64]]:
    """Return every score of the threshold's unit for weighted clusters.

    Parameters
    ----------
    cases : Predictions
        Cases of the threshold's unit.
    threshold : Threshold
    weight : numpy.ndarray
        Shape (resamples, C): weight of each cluster.
    clusters : numpy.ndarray, optional
        int, shape (N,): cluster of each case; by default from the cases.
    """
    clusters = cases.clusters if clusters is None else clusters
    per_cluster = np.zeros((weight.shape[1], 4))
    np.add.at(per_cluster, clusters, count_confusion(cases, threshold))
    # float64: float32 cannot count this many pixels exactly
    sums = weight.astype("f8") @ per_cluster
    drawn: dict[str, np.ndarray] = compute_rates(sums[:, 0], sums[:, 1], sums[:, 2])
    if "auroc" in METRICS_BY_UNIT[threshold.unit]:
        drawn |= _resampled_areas(cases, weight, clusters)
    if threshold.unit == "interferograms":
        years = count_false_alarms(cases, threshold).total.years
        drawn["false_alarms_per_frame_year"] = sums[:, 1] / years if years else np.full(len(sums), np.nan)
    return drawn


def _resampled_areas(
    cases: Predictions, weight: np.ndarray, clusters: np.ndarray
) -> Mapping[str, np.ndarray]:
    ranking = RankedScores(cases.label, cases.probability)
    blocks = [
        ranking.compute_areas(weight[start : start + _RESAMPLES_PER_BLOCK, clusters])
        for start in range(0, len(weight), _RESAMPLES_PER_BLOCK)
    ]
    return {name: np.concatenate([block[name] for block in blocks]) for name in blocks[0]}


def _make_interval(
    name: str, drawn: npt.NDArray[np.float64], level: float, sizes: Mapping[str, npt.NDArray[np.float64]]
) -> Interval:
    low = high = math.nan
    undefined = int(np.isnan(drawn).sum())
    reason = ""
    # false alarms come only from items without deformation
    kind = "quiet" if name == "false_alarms_per_frame_year" else "events"
    counts = {of: len(found) for of, found in sizes.items()}
    if counts[kind] < _MIN_CLUSTERS:
        reason = f"{counts[kind]} of {kind}: too few to resample"
    elif undefined == len(drawn):
        reason = "the score is undefined"
    else:
        low, high = interval_ends(drawn, interval_tails(level, sizes[kind]))
        if undefined:
            reason = f"undefined in {undefined} of {len(drawn)} resamples, which are left out"
    return Interval(low=low, high=high, level=level, resamples=len(drawn), **counts, undefined=reason)
