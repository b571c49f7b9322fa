"""Smallest displacement that is found: curves of detection against displacement, and where they cross.

1. The threshold is the highest score that a stated share of windows without any source exceeds
   (:func:`threshold_of_false_alarms`), measured on interferograms of the validation part.
2. Each place of the test part is scored with sources of several displacements. An alarm is no discovery if
   the place would have raised it anyway: of the share p that raise one with the source, and f without it,
   (p - f) / (1 - f) are found because of the source (:func:`beyond_false_alarms`). This is the curve; it is
   made non-decreasing, as a larger source is no harder to find.
3. The limit is where the curve crosses a half or nine tenths, between two displacements in their logarithm.
4. Places of one acquisition share their atmosphere, so intervals resample frames' primary acquisitions.

For example, if 2 of 10 sources of 1 cm and 8 of 10 of 2 cm are found, and none of the places raises an alarm
without a source, half are found from 1.41 cm on.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from pydantic import Field
from scipy.optimize import isotonic_regression

from hephaestus_baselines.evaluation.bootstrap import CONFIDENCE_LEVEL, RESAMPLES, resample_clusters
from hephaestus_baselines.evaluation.interval_ends import interval_tails
from hephaestus_baselines.evaluation.result_schema import NullableFloat, ResultModel, SanitizedText
from hephaestus_build.core.errors import HephaestusError

#: Shares of the sources for which the smallest displacement is reported.
LIMIT_SHARES = (0.5, 0.9)
#: Fewest places of one interferogram whose limits are told: nine of ten cannot be told of fewer.
MIN_PLACES = 10


class CurvePoint(ResultModel):
    """The sources of one displacement."""

    displacement_cm: float = Field(description="Largest displacement towards or away from the satellite, cm.")
    fringes: float = Field(description="The same in fringes: half wavelengths.")
    cases: int
    detected: int = Field(description="Places that raise an alarm with the source.")
    low: NullableFloat = Field(description="Interval of the detected share; null with a single acquisition.")
    high: NullableFloat
    beyond_false_alarms: float = Field(
        description="Share that is found because of the source: (p - f) / (1 - f) of the detected share p "
        "and the share f of the same places that raise an alarm without it; 0 where p is below f."
    )
    beyond_low: NullableFloat = Field(description="Its interval; null with a single acquisition.")
    beyond_high: NullableFloat


class DetectionLimit(ResultModel):
    """The smallest displacement of which a share of the sources is found beyond false alarms."""

    share: float
    displacement_cm: NullableFloat = Field(description="Null if the curve does not cross the share.")
    fringes: NullableFloat
    low_cm: NullableFloat = Field(description="Interval; null where it is below what was tried, or unknown.")
    high_cm: NullableFloat = Field(description="Interval; null where it is above what was tried, or unknown.")
    note: SanitizedText = Field("", description="Why a value is null.")


class DetectionCurve(ResultModel):
    """Detection against displacement in one group of places."""

    places: int
    acquisitions: int = Field(description="Primary acquisitions: the clusters that intervals resample.")
    false_alarms: int = Field(description="Places that raise an alarm without a source.")
    points: list[CurvePoint]
    limits: list[DetectionLimit]


def threshold_of_false_alarms(scores: npt.NDArray[np.floating], rate: float) -> float:
    """Return the lowest score above which at most the share `rate` of quiet windows lies.

    Parameters
    ----------
    scores : numpy.ndarray
        Scores of windows without any source, (N,).
    rate : float
        Wanted share of false alarms, above 0 and below 1.

    Raises
    ------
    HephaestusError
        If there are too few windows to measure such a rate.

    Examples
    --------
    One of four windows may exceed it:

    >>> threshold_of_false_alarms(np.array([0.1, 0.9, 0.3, 0.2]), 0.25)
    0.3
    """
    wanted = math.ceil(1 / rate)
    if len(scores) < wanted:
        raise HephaestusError(
            f"a false-alarm rate of {rate:g} needs at least {wanted} windows of quiet interferograms in the "
            f"validation part, and there are {len(scores)}; choose a higher --false-alarms, or build further "
            "frames"
        )
    return float(np.sort(scores)[::-1][math.floor(rate * len(scores))])


def trace_detection_curve(
    displacements: Sequence[float],
    detected: npt.NDArray[np.bool],
    quiet: npt.NDArray[np.bool],
    acquisitions: npt.NDArray[np.int_],
    fringe: float,
    *,
    seed: int = 0,
    resamples: int = RESAMPLES,
) -> DetectionCurve:
    """Return the curve of one group of places, its limits, and their intervals.

    Parameters
    ----------
    displacements : sequence of float
        Ascending, metres, (L,).
    detected : numpy.ndarray
        bool, (P, L): whether each place raised an alarm with the source of each displacement.
    quiet : numpy.ndarray
        bool, (P,): whether it raised one without a source.
    acquisitions : numpy.ndarray
        int, (P,), from 0 on: the frame's primary acquisition of each place.
    fringe : float
        Displacement of one fringe, metres.
    seed : int
        Seed of the resampling.
    resamples : int
        Number of resamples.
    """
    places, clusters = len(detected), len(np.unique(acquisitions))
    # the first column: without a source
    alarms = np.column_stack([quiet, detected])
    found = alarms.sum(axis=0)
    by_cluster = np.zeros((int(acquisitions.max(initial=-1)) + 1, alarms.shape[1]))
    np.add.at(by_cluster, acquisitions, alarms)
    sizes = np.bincount(acquisitions, minlength=len(by_cluster)).astype(float)
    known = clusters > 1
    weight = resample_clusters(np.zeros(len(sizes), bool), resamples=resamples, seed=seed) if known else None
    shares = None if weight is None else (weight @ by_cluster) / np.maximum(weight @ sizes, 1)[:, None]
    tails = interval_tails(CONFIDENCE_LEVEL, sizes)
    beyond = beyond_false_alarms(found[None] / max(places, 1))[0]
    resampled = None if shares is None else beyond_false_alarms(shares)
    unknown = np.full((2, len(displacements)), np.nan)
    bounds = unknown if shares is None else np.quantile(shares[:, 1:], tails, axis=0)
    beyond_bounds = unknown if resampled is None else np.quantile(resampled, tails, axis=0)
    limits = []
    for share in LIMIT_SHARES:
        value = crossing_displacement(displacements, beyond, share)
        low = high = math.nan
        if resampled is not None:
            crossed = [crossing_displacement(displacements, row, share) for row in resampled]
            low, high = np.quantile(crossed, tails, method="nearest").tolist()
        limits.append(_make_limit(share, value, low, high, displacements, fringe, known=known))
    return DetectionCurve(
        places=places,
        acquisitions=clusters,
        false_alarms=int(found[0]),
        points=[
            CurvePoint(
                displacement_cm=100 * displacement,
                fringes=displacement / fringe,
                cases=places,
                detected=int(found[index + 1]),
                low=float(bounds[0, index]),
                high=float(bounds[1, index]),
                beyond_false_alarms=float(beyond[index]),
                beyond_low=float(beyond_bounds[0, index]),
                beyond_high=float(beyond_bounds[1, index]),
            )
            for index, displacement in enumerate(displacements)
        ],
        limits=limits,
    )


def beyond_false_alarms(shares: npt.NDArray[np.floating]) -> npt.NDArray[np.float64]:
    """Return the share of sources that is found because of them, not by an alarm that was there anyway.

    Parameters
    ----------
    shares : numpy.ndarray
        (N, 1 + L): the share f of places that raise an alarm without a source, then the share p with the
        source of each displacement.

    Returns
    -------
    numpy.ndarray
        (N, L): (p - f) / (1 - f), at least 0; 0 if every place raises an alarm without a source.

    Examples
    --------
    A model that raises an alarm at a fifth of the places whatever they show, and at all with a large source:

    >>> beyond_false_alarms(np.array([[0.2, 0.2, 0.6, 1.0]])).round(6).tolist()
    [[0.0, 0.5, 1.0]]
    """
    known = np.asarray(shares, np.float64)
    quiet, found = known[:, :1], known[:, 1:]
    left = 1 - quiet
    return np.clip(np.divide(found - quiet, left, out=np.zeros_like(found), where=left > 0), 0, 1)


def crossing_displacement(
    displacements: Sequence[float], shares: npt.NDArray[np.floating], share: float
) -> float:
    """Return where a curve, made non-decreasing, reaches a share.

    Parameters
    ----------
    displacements : sequence of float
        Ascending and positive, (L,).
    shares : numpy.ndarray
        Detected share of each, (L,).
    share : float
        The share to be reached.

    Returns
    -------
    float
        0 if the first displacement reaches it, infinite if the last does not.
    """
    curve = isotonic_regression(np.asarray(shares, np.float64)).x
    reached = np.flatnonzero(curve >= share - 1e-9)
    if not reached.size:
        return math.inf
    if (at := int(reached[0])) == 0:
        return 0.0
    before, after = curve[at - 1], curve[at]
    low, high = math.log(displacements[at - 1]), math.log(displacements[at])
    return math.exp(low + (high - low) * float((share - before) / (after - before)))


def unknown_limit(share: float, note: str) -> DetectionLimit:
    """Return a limit that is not known, and why."""
    nothing = math.nan
    return DetectionLimit(
        share=share, displacement_cm=nothing, fringes=nothing, low_cm=nothing, high_cm=nothing, note=note
    )


def _make_limit(
    share: float,
    value: float,
    low: float,
    high: float,
    displacements: Sequence[float],
    fringe: float,
    *,
    known: bool,
) -> DetectionLimit:
    smallest, largest = 100 * displacements[0], 100 * displacements[-1]
    notes = []
    if value == 0:
        notes.append(f"already found at {smallest:g} cm, the smallest tried")
    elif math.isinf(value):
        notes.append(f"not found up to {largest:g} cm, the largest tried")
    if not known:
        notes.append("no interval: all places are of one acquisition")
    crossing = math.nan if value == 0 or math.isinf(value) else value
    return DetectionLimit(
        share=share,
        displacement_cm=100 * crossing,
        fringes=crossing / fringe,
        low_cm=math.nan if low == 0 else 100 * low,
        high_cm=math.nan if math.isinf(high) else 100 * high,
        note="; ".join(notes),
    )
