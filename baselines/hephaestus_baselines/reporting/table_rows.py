"""Rows and cells of result tables, of whatever task."""

from __future__ import annotations

import json
import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Protocol, TypeVar

from hephaestus_baselines.evaluation.result_schema import Gap, RunRecord
from hephaestus_baselines.reporting.table_schema import GapCell, ScoreCell, ScoreSummary, ScoreTableRow

R = TypeVar("R", bound=RunRecord)
#: Recipe fields that do not start a new row.
_FIELDS_NOT_IN_ROW = ("seed", "workers", "devices", "control")


class _Range(Protocol):
    """An interval of a score."""

    @property
    def low(self) -> float: ...
    @property
    def high(self) -> float: ...


def group_settings(results: Sequence[R]) -> list[tuple[list[R], str]]:
    """Return the runs of each setting, controls left out, and what tells it from the first of its model."""
    groups: dict[str, list[R]] = defaultdict(list)
    for result in results:
        if not result.recipe.get("control"):
            groups[settings_key(result)].append(result)
    firsts: dict[tuple[str, bool, bool], R] = {}
    settings = []
    for members in groups.values():
        some = members[0]
        first = firsts.setdefault((some.model, some.series, some.atmosphere), some)
        settings.append((members, _describe_variant(some, first)))
    return settings


def settings_key(result: RunRecord) -> str:
    """Return what runs of one row have in common."""
    kept = {name: value for name, value in result.recipe.items() if name not in _FIELDS_NOT_IN_ROW}
    return json.dumps([result.task, result.model, result.series, result.atmosphere, kept], sort_keys=True)


def _describe_variant(result: RunRecord, first: RunRecord) -> str:
    return ", ".join(
        f"{name} {value}"
        for name, value in result.recipe.items()
        if name not in _FIELDS_NOT_IN_ROW and value != first.recipe.get(name)
    )


def plain_row(
    result: RunRecord, name: str, cells: dict[str, ScoreCell], *, variant: str = ""
) -> ScoreTableRow:
    """Return the row of a control, from a run on the same windows."""
    return ScoreTableRow(
        kind="control",
        model=name,
        series=result.series,
        atmosphere=None,
        variant=variant,
        seeds=[],
        gap=None,
        parameters=None,
        cells=cells,
    )


def make_cell(found: Sequence[float], ranges: Sequence[_Range]) -> ScoreCell:
    """Return the cell of the values of several seeds, with their intervals."""
    lows = [interval.low for interval in ranges if not math.isnan(interval.low)]
    highs = [interval.high for interval in ranges if not math.isnan(interval.high)]
    return ScoreCell(
        **vars(ScoreSummary.over_seeds(found)),
        seeds=sum(not math.isnan(value) for value in found),
        low=min(lows, default=math.nan),
        high=max(highs, default=math.nan),
    )


def nan_mean(values: Sequence[float]) -> float:
    """Return the mean of the values that are defined; NaN without any."""
    known = [value for value in values if not math.isnan(value)]
    return sum(known) / len(known) if known else math.nan


def closest_gap(gaps: Mapping[str, Sequence[Gap]], score: str) -> GapCell:
    """Return the gap to the control that leaves the smallest one, a mean over seeds; NaN if none is defined.

    Parameters
    ----------
    gaps : mapping of str to sequence of Gap
        Gaps of each seed, by control.
    score : str
        The score that they are of.
    """
    means = {name: nan_mean([gap.value for gap in found]) for name, found in gaps.items()}
    known = {name: mean for name, mean in means.items() if not math.isnan(mean)}
    best = min(known, key=known.__getitem__, default="")
    found = gaps.get(best, ())
    return GapCell(
        score=score,
        control=best,
        mean=known.get(best, math.nan),
        low=min((gap.low for gap in found if not math.isnan(gap.low)), default=math.nan),
        high=max((gap.high for gap in found if not math.isnan(gap.high)), default=math.nan),
    )
