"""The headline of a run in one unit: its score with an interval, and the gap to the best control."""

from __future__ import annotations

import math
from dataclasses import dataclass

from hephaestus_baselines.config.tasks import TASK_SPECS, ScoringUnit
from hephaestus_baselines.evaluation.kind_schema import KindRunResult
from hephaestus_baselines.evaluation.result_schema import Assessment, Gap
from hephaestus_baselines.reporting.table_rows import closest_gap
from hephaestus_baselines.reporting.table_schema import HEADLINE_SCORE

#: Headline scores in words.
SCORE_TITLES = {"average_precision": "average precision", "f1": "F1", "macro_f1": "macro F1"}
UNIT_TITLES: dict[ScoringUnit, str] = {
    "items": "windows",
    "interferograms": "interferograms",
    "pixels": "pixels",
    "all-pixels": "pixels, with those without data",
    "deforming-items": "windows with deformation",
}


@dataclass(frozen=True)
class Headline:
    """The headline of a run in one unit.

    Attributes
    ----------
    unit : str
    score : str
        Name of the score, as in ``Scores.values``.
    value, low, high : float
        The score on test, and its 95 % interval over events.
    control : str
        The computed control that comes closest; empty if no gap is defined.
    gap : Gap
        The score minus that of the control.
    """

    unit: ScoringUnit
    score: str
    value: float
    low: float
    high: float
    control: str
    gap: Gap


def find_headline(assessment: Assessment, unit: ScoringUnit) -> Headline:
    """Return the headline of an assessment in one of its units."""
    found, score = assessment.units[unit], HEADLINE_SCORE[unit]
    value, interval = found.test.values[score], found.intervals[score]
    gaps = {
        name: Gap(value=value - known, low=interval.low - known, high=interval.high - known)
        for name, known in (
            ("chance", found.test.chance[score]),
            ("always deformation", found.test.constant[score]),
        )
    }
    gaps |= {name: control.gaps[score] for name, control in found.controls.items() if score in control.gaps}
    defined = {name: gap for name, gap in gaps.items() if not math.isnan(gap.value)}
    best = min(defined, key=lambda name: defined[name].value, default="")
    nothing = Gap(value=math.nan, low=math.nan, high=math.nan)
    return Headline(unit, score, value, interval.low, interval.high, best, defined.get(best, nothing))


def find_kind_headline(result: KindRunResult) -> Headline:
    """Return the headline of a run that tells the kind of deformation."""
    score = TASK_SPECS[result.task].scores[0]
    found, controls = result.assessment.scores[score], result.assessment.controls
    gaps = {name: [Gap(**dict(control.gaps[score]))] for name, control in controls.items()}
    best = closest_gap(gaps, score)
    gap = Gap(value=best.mean, low=best.low, high=best.high)
    return Headline("deforming-items", score, found.value, found.low, found.high, best.control, gap)


def format_with_interval(value: float, low: float, high: float, *, signed: bool = False) -> str:
    """Return a value with its interval, such as ``0.812 (0.700 to 0.900)``; a dash if it is undefined."""
    if math.isnan(value):
        return "-"
    form = "+.3f" if signed else ".3f"
    interval = "" if math.isnan(low) or math.isnan(high) else f" ({low:{form}} to {high:{form}})"
    return f"{value:{form}}{interval}"
