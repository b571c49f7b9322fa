"""Result tables of a grid, laid out like the paper's Tables 3 and 4, with one table of false alarms per task.

The paper's scores are shown next to ours only if settings, split and windows are those of the preset
``legacy`` and nearly all of the paper's samples are there; ours are then computed in the same way (every
pixel, threshold 0.5). Otherwise the page states why they are left out.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

from hephaestus_baselines.config.run_config import read_preset
from hephaestus_baselines.config.tasks import TASK_SPECS, ScoringUnit, Task
from hephaestus_baselines.evaluation.alarms import BUDGETS
from hephaestus_baselines.evaluation.kind_schema import KindReport, KindRunResult
from hephaestus_baselines.evaluation.result_schema import (
    Assessment,
    Gap,
    RunRecord,
    RunResult,
    Scores,
)
from hephaestus_baselines.reporting.detection_by_kind import detections_by_kind
from hephaestus_baselines.reporting.kind_table import make_kind_tables
from hephaestus_baselines.reporting.published_scores import (
    PAPER_COLUMNS,
    PUBLISHED_RUNTIME_HOURS,
    PUBLISHED_SCORES,
    PublishedSize,
)
from hephaestus_baselines.reporting.render_tables import render_csv, render_markdown
from hephaestus_baselines.reporting.table_rows import (
    closest_gap,
    group_settings,
    make_cell,
    nan_mean,
    plain_row,
    settings_key,
)
from hephaestus_baselines.reporting.table_schema import (
    FALSE_ALARM_RATE,
    HEADLINE_SCORE,
    AtmosphereEffect,
    EventCount,
    GapCell,
    KindDetection,
    ModelCost,
    PublishedShare,
    ScoreCell,
    ScoreSummary,
    ScoreTable,
    ScoreTableRow,
    TablesDocument,
    TrainedControlGaps,
)
from hephaestus_build.core.atomic_io import translate_os_errors, write_atomic
from hephaestus_build.core.errors import HephaestusError, UsageError
from hephaestus_build.dataset.coverage import SUFFICIENT_COVERAGE
from hephaestus_build.dataset.published_counts import PUBLISHED_TABLE_2
from hephaestus_build.dataset.splits import PARTS, SplitPart

_ALARM_COLUMNS = ("precision", "recall", "f1", "auroc", "average_precision", FALSE_ALARM_RATE)
#: What an observatory asks, read from an assessment: column to function.
_OBSERVATORY: Mapping[str, Callable[[Assessment], float]] = {
    "same_place_auroc": lambda found: found.same_places.auroc,
    "event_recall": lambda found: found.events.recall,
    "event_macro_recall": lambda found: found.events.macro_recall,
    "delay_days": lambda found: found.events.median_delay_days,
    **{
        f"recall_at_{budget}": partial(lambda budget, found: found.alarm_curve.budgets[budget].recall, budget)
        for budget in map(str, BUDGETS)
    },
    "ece": lambda found: found.calibration.ece,
    "ece_calibrated": lambda found: found.calibration.ece_calibrated,
}
_PAPER_TABLE = {"classification": "Table 3", "segmentation": "Table 4"}
#: Share of the paper's samples of each part from which its scores are shown: an archive loses single files.
_SUFFICIENT_SHARE = 0.99
#: Recipe fields in which a run may differ from the preset ``legacy`` and have the paper's scores beside it.
_FIELDS_NOT_PUBLISHED = {"seed", "workers", "devices", "precision", "control"}


@dataclass(frozen=True)
class ResultTables:
    """The tables of a grid, written as JSON, CSV and Markdown.

    Attributes
    ----------
    document : TablesDocument
    """

    document: TablesDocument

    def to_json(self) -> str:
        """Return the tables as JSON that conforms to ``schemas/results.json``."""
        return self.document.model_dump_json(indent=1) + "\n"

    def to_csv(self) -> str:
        """Return the tables as CSV, one score per line, after comment lines (``#``) with their provenance."""
        return render_csv(self.document)

    def to_markdown(self) -> str:
        """Return the tables as Markdown, in the paper's layout."""
        return render_markdown(self.document)

    def write(self, folder: Path) -> tuple[Path, ...]:
        """Write ``tables.md``, ``tables.csv`` and ``tables.json`` to `folder`, each atomically.

        Raises
        ------
        HephaestusError
            If a file cannot be written.
        """
        forms = {"md": self.to_markdown(), "csv": self.to_csv(), "json": self.to_json()}
        with translate_os_errors(f"tables: writing {folder}", setting="--results"):
            for ending, text in forms.items():
                write_atomic(folder / f"tables.{ending}", text.encode())
        return tuple(folder / f"tables.{ending}" for ending in forms)


def make_result_tables(
    results: Sequence[RunResult | KindRunResult],
    trained_gaps: Mapping[str, TrainedControlGaps] | None = None,
    atmosphere_effects: Sequence[AtmosphereEffect] = (),
    published_sizes: Mapping[str, PublishedSize] | None = None,
    kinds: Sequence[KindReport] = (),
    *,
    allow_unseen: bool = False,
) -> ResultTables:
    """Aggregate finished runs into tables.

    Parameters
    ----------
    results : sequence of RunResult and KindRunResult
        Finished runs that share the split and the placement of windows.
    trained_gaps : mapping of str to TrainedControlGaps, optional
        Gaps of runs to trained controls, by the run's key.
    atmosphere_effects : sequence of AtmosphereEffect
        What the atmosphere changes, from :func:`measure_atmosphere_effects`.
    published_sizes : mapping of str to PublishedSize, optional
        The paper's numbers of parameters, by model.
    kinds : sequence of KindReport
        Reports of heads that tell the kind of deformation, on the same split.
    allow_unseen : bool
        Whether to make tables although the windows show too little of the deformation.

    Raises
    ------
    HephaestusError
        If there are no results.
    UsageError
        If splits or placements of windows differ, or the windows show less than
        :data:`~hephaestus_build.dataset.coverage.SUFFICIENT_COVERAGE` of the positives of validation or test.
    """
    if not results:
        raise HephaestusError("no run is finished; start the runs with `hephaestus benchmark run`")
    first = results[0]
    for result in results:
        if (result.split.sha256, result.tiling, result.size, result.simulated) != (
            first.split.sha256, first.tiling, first.size, first.simulated,
        ):  # fmt: skip
            raise UsageError(
                f"{result.key} and {first.key} have different splits or windows; make their tables separately"
            )
    if not allow_unseen:
        _check_coverage(first)
    found = [result for result in results if isinstance(result, RunResult)]
    if found:
        reason = next(filter(None, map(paper_mismatch_reason, found)), "")
    else:
        reason = "the paper tells no kind of deformation"
    made: list[ScoreTable] = []
    detection: list[KindDetection] = []
    for task, columns in PAPER_COLUMNS.items():
        if members := [result for result in found if result.task == task]:
            unit: ScoringUnit = "items" if task == "classification" else "pixels" if reason else "all-pixels"
            mark = ", simulated data" if first.simulated else ""
            known: dict[str, Any] = {"task": members[0].task}
            title = f"Deformation {task}, in the form of the paper's {_PAPER_TABLE[task]}{mark}"
            rows = _make_rows(members, unit, columns, trained_gaps or {}, paper=not reason)
            made.append(ScoreTable(title=title, unit=unit, columns=list(columns), rows=rows, **known))
            title = f"Alarms of {task} by interferogram{mark}"
            rows = _make_rows(members, "interferograms", _ALARM_COLUMNS, trained_gaps or {})
            made.append(
                ScoreTable(
                    title=title, unit="interferograms", columns=list(_ALARM_COLUMNS), rows=rows, **known
                )
            )
            title = f"What an observatory asks of {task}{mark}"
            rows = _make_observatory_rows(members)
            made.append(
                ScoreTable(title=title, unit="interferograms", columns=list(_OBSERVATORY), rows=rows, **known)
            )
            detection += detections_by_kind(members[0].task, group_settings(members))
    told = [result for result in results if isinstance(result, KindRunResult)]
    made += make_kind_tables(told, kinds, trained_gaps or {}, simulated=first.simulated)
    document = TablesDocument(
        simulated=first.simulated,
        runs=len(results),
        commands=_unique(result.command for result in results),
        seeds=_unique(result.seed for result in results),
        split=first.split.name,
        split_sha256=first.split.sha256,
        size=first.size,
        tiling=first.tiling,
        training=_unique(result.training for result in results),
        weights=_unique(result.weights for result in results),
        coverage=first.coverage,
        events={
            "series" if result.series else "single": EventCount(
                events=result.assessment.events.events, effective=result.assessment.events.effective_events
            )
            for result in found
        },
        generations=_merge_values(result.generations for result in results),
        versions=_merge_values(result.versions for result in results),
        devices=_unique(result.device for result in results),
        code=_unique(result.code for result in results),
        trials=_count_trials(results),
        paper=reason,
        paper_samples={}
        if reason
        else {"series" if result.series else "single": published_shares(result) for result in found},
        tables=made,
        costs=_model_costs(results, published_sizes or {}),
        atmosphere=list(atmosphere_effects),
        detection=detection,
        kinds=list(kinds),
    )
    return ResultTables(document)


def _model_costs(
    results: Sequence[RunRecord], published_sizes: Mapping[str, PublishedSize]
) -> list[ModelCost]:
    """Return parameters and mean hours of each model and input, controls left out."""
    groups: dict[tuple[Task, str, bool, bool], list[RunRecord]] = defaultdict(list)
    for result in results:
        if not result.recipe.get("control"):
            groups[result.task, result.model, result.series, result.atmosphere].append(result)
    costs = []
    for (task, model, series, atmosphere), members in sorted(groups.items()):
        size = published_sizes.get(model, PublishedSize())
        published = size.parameters if atmosphere and not TASK_SPECS[task].tells_kind else None
        hours = None if TASK_SPECS[task].tells_kind else PUBLISHED_RUNTIME_HOURS.get(model)
        costs.append(
            ModelCost(
                task=task,
                model=model,
                series=series,
                atmosphere=atmosphere,
                parameters=members[0].parameters,
                published_parameters=published[series] if published else None,
                hours=nan_mean([sum(result.seconds.values()) / 3600 for result in members]),
                epochs=sorted({result.epochs for result in members}),
                published_hours=hours[series] if hours else None,
                note="" if TASK_SPECS[task].tells_kind else size.note,
            )
        )
    return costs


def paper_mismatch_reason(result: RunResult) -> str:
    """Return why the paper's scores are not comparable with a run's; empty if they are.

    A part may lack up to 1 % of the paper's samples, which :func:`published_shares` counts.
    """
    if result.simulated:
        return "the data is simulated"
    if result.split.name != "paper":
        return f"the split is {result.split.name}, not the paper's"
    if (result.tiling, result.training, result.size) != ("label-centred", "label-centred", 512):
        return "the windows are not placed around the deformation as the paper's are"
    if reason := _setting_mismatch(result):
        return reason
    noun = "series" if result.series else "samples"
    for part, share in published_shares(result).items():
        here = f"the {part} part has {share.samples:,} {noun}, of which {share.positives:,} positive"
        theirs = f"the paper's {share.published_samples:,} and {share.published_positives:,}"
        if (
            share.positives > share.published_positives
            or share.samples - share.positives > share.published_samples - share.published_positives
        ):
            return f"{here}, more than {theirs}"
        if share.samples < _SUFFICIENT_SHARE * share.published_samples:
            return f"{here}, less than {_SUFFICIENT_SHARE:.0%} of {theirs}"
    return ""


def published_shares(result: RunResult) -> dict[SplitPart, PublishedShare]:
    """Return how many of the paper's samples, or series, each part of a run's split has."""
    shares: dict[SplitPart, PublishedShare] = {}
    for part in PARTS:
        here = result.split.counts.get(part, {"positive": 0, "negative": 0})
        published = PUBLISHED_TABLE_2[part]["series" if result.series else "single"]
        shares[part] = PublishedShare(
            samples=sum(here.values()),
            published_samples=sum(published.values()),
            positives=here["positive"],
            published_positives=published["positive"],
        )
    return shares


def _setting_mismatch(result: RunResult) -> str:
    """Return the first setting of a run that is not the one of the preset ``legacy``, in words."""
    key = result.task, result.model, result.series, result.atmosphere
    if result.recipe.get("control") or key not in (published := _published_settings()):
        return ""
    for name, value in published[key].items():
        found = result.recipe.get(name, value)
        if name == "weights":
            found, value = ("none" if text == "none" else "imagenet" for text in (found, value))
        if found != value:
            return f"{name} of {result.model} is {found}, not {value} as in the preset legacy"
    return ""


@cache
def _published_settings() -> dict[tuple[str, str, bool, bool], dict[str, Any]]:
    """Return the settings of ``legacy`` by task, model, series and atmosphere."""
    return {
        (one.task, one.model, one.series, one.atmosphere != "none"): one.model_dump(
            mode="json", exclude=_FIELDS_NOT_PUBLISHED
        )
        for one in read_preset("legacy").make_recipes()
        if not one.control
    }


def _count_trials(results: Iterable[RunRecord]) -> dict[str, int]:
    """Return for each model the largest number of settings that it was trained with for the same inputs."""
    settings: dict[tuple[str, str, bool, bool], set[str]] = defaultdict(set)
    for result in results:
        if not result.recipe.get("control"):
            key = result.task, result.model, result.series, result.atmosphere
            settings[key].add(settings_key(result))
    trials: dict[str, int] = {}
    for (_, model, *_), found in settings.items():
        trials[model] = max(trials.get(model, 0), len(found))
    return trials


def _make_rows(
    results: Sequence[RunResult],
    unit: ScoringUnit,
    columns: Sequence[str],
    trained_gaps: Mapping[str, TrainedControlGaps],
    *,
    paper: bool = False,
) -> list[ScoreTableRow]:
    """Return the rows of a table: single interferograms, then series, each followed by the controls."""
    rows = []
    for series in (False, True):
        found = [result for result in results if result.series == series]
        settings = group_settings(found)
        for members, variant in settings:
            row = _model_row(members, unit, columns, variant, paper)
            gap = _gap_to_best_control(members, unit, trained_gaps)
            rows.append(row.model_copy(update={"gap": gap}))
        if settings:
            some = settings[0][0][0]
            known = some.assessment.units[unit].controls
            rows += [
                _control_row(some, name, unit, columns) for name in ("chance", "constant", *sorted(known))
            ]
        rows += [_trained_control_row(one, unit, columns) for one in found if one.recipe.get("control")]
    return rows


def _make_observatory_rows(results: Sequence[RunResult]) -> list[ScoreTableRow]:
    """Return rows of events, delays, budgets and calibration; controls have those that follow from alarms."""
    rows = []
    for series in (False, True):
        found = [result for result in results if result.series == series]
        for members, variant in group_settings(found):
            first = members[0]
            row = plain_row(first, first.model, _observatory_cells(members), variant=variant)
            shown = {"kind": "model", "atmosphere": first.atmosphere, "parameters": first.parameters}
            rows.append(row.model_copy(update={**shown, "seeds": [result.seed for result in members]}))
        computed = found[0].assessment.units["interferograms"].controls if found else {}
        for name, scores in sorted(computed.items()):
            values = dict.fromkeys(_OBSERVATORY, math.nan)
            if scores.events is not None:
                values |= {
                    "event_recall": scores.events.recall,
                    "event_macro_recall": scores.events.macro_recall,
                    "delay_days": scores.events.median_delay_days,
                }
            values |= {f"recall_at_{budget}": point.recall for budget, point in scores.budgets.items()}
            cells = {column: make_cell([value], []) for column, value in values.items()}
            rows.append(plain_row(found[0], name, cells))
        rows += [
            plain_row(one, one.recipe["control"], _observatory_cells([one]), variant=one.model)
            for one in found
            if one.recipe.get("control")
        ]
    return rows


def _observatory_cells(members: Sequence[RunResult]) -> dict[str, ScoreCell]:
    return {
        name: make_cell([read(result.assessment) for result in members], [])
        for name, read in _OBSERVATORY.items()
    }


def _gap_to_best_control(
    members: Sequence[RunResult], unit: ScoringUnit, trained_gaps: Mapping[str, TrainedControlGaps]
) -> GapCell:
    """Return the gap of a model to the control that leaves the smallest one in the headline score."""
    score = HEADLINE_SCORE[unit]
    gaps: dict[str, list[Gap]] = defaultdict(list)
    for result in members:
        found = result.assessment.units[unit]
        interval = found.intervals[score]
        for name, known in (("chance", found.test.chance), ("constant", found.test.constant)):
            gaps[name].append(
                Gap(
                    value=found.test.values[score] - known[score],
                    low=interval.low - known[score],
                    high=interval.high - known[score],
                )
            )
        for name, control in found.controls.items():
            gaps[name].append(control.gaps[score])
        for name, by_unit in trained_gaps.get(result.key, {}).items():
            gaps[name].append(by_unit[unit][score])
    return closest_gap(gaps, score)


def _check_coverage(result: RunRecord) -> None:
    """Raise UsageError if the windows show too little of the deformation of validation or test."""
    for part, counts in result.coverage.items():
        if part != "train" and counts.positives and counts.seen < SUFFICIENT_COVERAGE * counts.positives:
            raise UsageError(
                f"the windows of the tiling {result.tiling} show {counts.seen} of {counts.positives} "
                f"positives of {part}, so its scores say little; choose another tiling (`hephaestus splits "
                f"coverage {result.split.name}`), or ask for the tables all the same with --allow-unseen"
            )


def _scores(result: RunResult, unit: ScoringUnit, paper: bool) -> Scores:
    scores = result.assessment.units[unit]
    return scores.test_at_half if paper else scores.test


def _model_row(
    members: Sequence[RunResult], unit: ScoringUnit, columns: Sequence[str], variant: str, paper: bool
) -> ScoreTableRow:
    first = members[0]
    published = (
        PUBLISHED_SCORES.get((first.task, first.model, first.series, first.atmosphere)) if paper else None
    )
    cells = {}
    for name in columns:
        found, reasons = zip(*(_score_value(result, unit, name, paper) for result in members), strict=True)
        # the intervals belong to the chosen threshold, not to 0.5
        ranges = [] if paper else [result.assessment.units[unit].intervals[name] for result in members]
        beside = published[name] if published else None
        cells[name] = make_cell(found, ranges).model_copy(
            update={
                "undefined": next(filter(None, reasons), ""),
                "paper": beside and ScoreSummary(mean=beside.mean / 100, deviation=beside.deviation / 100),
            }
        )
    return ScoreTableRow(
        kind="model",
        model=first.model,
        series=first.series,
        atmosphere=first.atmosphere,
        variant=variant,
        seeds=[result.seed for result in members],
        gap=None,
        parameters=first.parameters,
        cells=cells,
    )


def _score_value(result: RunResult, unit: ScoringUnit, name: str, paper: bool) -> tuple[float, str]:
    if name == FALSE_ALARM_RATE:
        alarms = result.assessment.false_alarms
        return alarms.per_frame_year, alarms.undefined
    scores = _scores(result, unit, paper)
    return scores.values[name], scores.undefined.get(name, "")


def _control_row(result: RunResult, name: str, unit: ScoringUnit, columns: Sequence[str]) -> ScoreTableRow:
    """Return the row of a computed control, from a run on the same windows."""
    found = result.assessment.units[unit]
    alarms = result.assessment.false_alarms.total
    if name in ("chance", "constant"):
        known = dict(found.test.constant if name == "constant" else found.test.chance)
        share = 1.0 if name == "constant" else found.test.positives / found.test.items
        false_alarms = share * alarms.interferograms
    else:
        known = dict(found.controls[name].test.values)
        false_alarms = found.controls[name].test.false_positives
    known[FALSE_ALARM_RATE] = false_alarms / alarms.years if alarms.years else math.nan
    return plain_row(result, name, {column: make_cell([known[column]], []) for column in columns})


def _trained_control_row(result: RunResult, unit: ScoringUnit, columns: Sequence[str]) -> ScoreTableRow:
    row = _model_row([result], unit, columns, "", paper=False)
    return row.model_copy(
        update={
            "kind": "control",
            "model": result.recipe["control"],
            "variant": result.model,
            "atmosphere": None,
        }
    )


def _unique(values: Iterable[Any]) -> list[Any]:
    return list(dict.fromkeys(values))


def _merge_values(maps: Iterable[Mapping[str, str]]) -> dict[str, list[str]]:
    merged: dict[str, list[str]] = {}
    for known in maps:
        for name, value in known.items():
            if value not in merged.setdefault(name, []):
                merged[name].append(value)
    return merged
