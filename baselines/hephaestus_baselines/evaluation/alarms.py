"""What an observatory asks of alarms: which events are found, how late, and at how many false alarms.

An alarm is an interferogram (or series) whose highest probability reaches a threshold. An event is found if
any interferogram that shows it raises an alarm. Onset is the last acquisition of the first interferogram that
shows it: nobody could have seen it earlier.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from datetime import date

import numpy as np
from scipy.special import ndtri, stdtrit

from hephaestus_baselines.evaluation.controls import last_day
from hephaestus_baselines.evaluation.interval_ends import effective_number
from hephaestus_baselines.evaluation.metrics import count_observed_days, date_span
from hephaestus_baselines.evaluation.predictions import Predictions
from hephaestus_baselines.evaluation.result_schema import (
    AlarmBudget,
    AlarmCurve,
    EventAlarms,
    EventDetection,
)

#: Days with a false alarm for each frame and year of observation that an observatory may accept.
BUDGETS = (1, 2, 5, 12)
#: Points of the alarm curve in a result.
_CURVE_POINTS = 200
_DAYS_PER_YEAR = 365.25


def detect_events(interferograms: Predictions, threshold: float) -> EventAlarms:
    """Return which events raise an alarm, and how long after their onset.

    Parameters
    ----------
    interferograms : Predictions
        One case for each interferogram.
    threshold : float
        Probability at or above which an alarm is raised.
    """
    alarm = interferograms.probability >= np.float32(threshold)
    members: dict[str, list[int]] = defaultdict(list)
    for index, row in enumerate(interferograms.rows):
        for event in row.events:
            members[event].append(index)
    detections = []
    for event, indices in sorted(members.items()):
        days = [last_day(interferograms.rows[index]) for index in indices]
        onset = min(days)
        alarmed = sorted(day for day, index in zip(days, indices, strict=True) if alarm[index])
        acquisitions = sorted(set(days))
        detections.append(
            EventDetection(
                event=event,
                interferograms=len(indices),
                alarms=len(alarmed),
                onset=onset.isoformat(),
                delay_days=(alarmed[0] - onset).days if alarmed else None,
                delay_acquisitions=acquisitions.index(alarmed[0]) if alarmed else None,
            )
        )
    found = [one for one in detections if one.alarms]
    shares = [one.alarms / one.interferograms for one in detections]
    low, high = share_interval(len(found), len(detections))
    macro_low, macro_high = mean_interval(shares)
    sizes = np.array([one.interferograms for one in detections], float)
    return EventAlarms(
        events=len(detections),
        found=len(found),
        recall=len(found) / len(detections) if detections else math.nan,
        recall_low=low,
        recall_high=high,
        macro_recall=sum(shares) / len(shares) if shares else math.nan,
        macro_recall_low=macro_low,
        macro_recall_high=macro_high,
        effective_events=effective_number(sizes),
        median_delay_days=_median([one.delay_days for one in found]),
        median_delay_acquisitions=_median([one.delay_acquisitions for one in found]),
        detections=detections,
    )


def share_interval(found: int, events: int, level: float = 0.95) -> tuple[float, float]:
    """Return the Wilson interval of a share of independent events; NaN without events.

    Examples
    --------
    >>> [round(end, 3) for end in share_interval(10, 10)]
    [0.722, 1.0]
    """
    if not events:
        return math.nan, math.nan
    limit = float(ndtri((1 + level) / 2))
    share, excess = found / events, limit**2 / events
    middle = (share + excess / 2) / (1 + excess)
    reach = limit * math.sqrt(share * (1 - share) / events + excess / (4 * events)) / (1 + excess)
    return max(0.0, middle - reach), min(1.0, middle + reach)


def mean_interval(shares: Sequence[float], level: float = 0.95) -> tuple[float, float]:
    """Return the interval of a mean of shares by Student's t, cut off at 0 and 1; NaN for fewer than two."""
    if len(shares) < 2:
        return math.nan, math.nan
    values = np.asarray(shares, np.float64)
    reach = float(stdtrit(len(values) - 1, (1 + level) / 2) * values.std(ddof=1) / math.sqrt(len(values)))
    return max(0.0, float(values.mean()) - reach), min(1.0, float(values.mean()) + reach)


def trace_alarm_curve(interferograms: Predictions) -> AlarmCurve:
    """Return recall against the days with false alarms for each frame-year, over all thresholds.

    The thresholds are those of the scored part itself: the curve says how well alarms are ranked, not what a
    threshold chosen beforehand gives.
    """
    years = count_years(interferograms)
    label, probability = interferograms.label, interferograms.probability
    events = [row.events for row in interferograms.rows]
    every_event = {event for found in events for event in found}
    keys = [(row.frame, last_day(row)) for row in interferograms.rows]
    order = np.argsort(-probability, kind="stable")
    seen_days: set[tuple[str, date]] = set()
    seen_events: set[str] = set()
    positives = int(label.sum())
    hits = 0
    # without any alarm; no probability is a threshold for that, since one may be 1
    points = [(0.0, 0.0 if positives else math.nan, 0.0 if every_event else math.nan, math.nan)]
    for place, index in enumerate(order):
        if label[index]:
            hits += 1
            seen_events.update(events[index])
        else:
            seen_days.add(keys[index])
        value = float(probability[index])
        last = place + 1 == len(order) or probability[order[place + 1]] != probability[index]
        if last:  # tied probabilities share one threshold
            points.append(
                (
                    len(seen_days) / years if years else math.nan,
                    hits / positives if positives else math.nan,
                    len(seen_events) / len(every_event) if every_event else math.nan,
                    value,
                )
            )
    budgets = {}
    for budget in BUDGETS:
        days, recall, event_recall, threshold = max(
            (point for point in points if point[0] <= budget), key=lambda point: (point[1], -point[0])
        )
        budgets[str(budget)] = AlarmBudget(
            days_per_frame_year=days, recall=recall, event_recall=event_recall, threshold=threshold
        )
    step = max(1, len(points) // _CURVE_POINTS)
    kept = [*points[::step], points[-1]]
    return AlarmCurve(
        budgets=budgets,
        days_per_frame_year=[round(point[0], 6) for point in kept],
        recall=[round(point[1], 6) for point in kept],
        event_recall=[round(point[2], 6) for point in kept],
    )


def count_years(interferograms: Predictions) -> float:
    """Return the years over which the frames were observed, together."""
    spans: dict[str, list[tuple[date, date]]] = defaultdict(list)
    for row in interferograms.rows:
        spans[row.frame].append(date_span(row))
    return math.fsum(count_observed_days(found) for found in spans.values()) / _DAYS_PER_YEAR


def _median(values: Sequence[int | None]) -> float:
    known = [value for value in values if value is not None]
    return float(np.median(known)) if known else math.nan
