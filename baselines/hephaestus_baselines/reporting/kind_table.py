"""Tables of models that tell the kind of deformation: trained ones, heads, and controls."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence

from hephaestus_baselines.config.tasks import KIND_TASKS, TASK_SPECS
from hephaestus_baselines.evaluation.kind_schema import (
    KindAssessment,
    KindReport,
    KindRunResult,
    ScoreEstimate,
)
from hephaestus_baselines.evaluation.result_schema import Gap
from hephaestus_baselines.reporting.table_rows import closest_gap, group_settings, make_cell
from hephaestus_baselines.reporting.table_schema import (
    CLASS_RECALL,
    ScoreCell,
    ScoreTable,
    ScoreTableRow,
    TrainedControlGaps,
)

_TITLES = {"activity": "Type of activity", "intensity": "Intensity"}


def make_kind_tables(
    results: Sequence[KindRunResult],
    reports: Sequence[KindReport],
    trained_gaps: Mapping[str, TrainedControlGaps],
    *,
    simulated: bool,
) -> list[ScoreTable]:
    """Return a table for each task that tells the kind of deformation.

    Parameters
    ----------
    results : sequence of KindRunResult
        Finished runs on one split.
    reports : sequence of KindReport
        Reports of heads on frozen networks on the same split.
    trained_gaps : mapping of str to TrainedControlGaps
        Gaps of runs to trained controls, by the run's key.
    simulated : bool
        Whether to mark the titles.
    """
    tables = []
    for task in KIND_TASKS:
        runs = [result for result in results if result.task == task]
        heads = [report for report in reports if report.task == task]
        known: list[KindAssessment] = [*(run.assessment for run in runs), *heads]
        if not known:
            continue
        shown = [one.name for one in known[0].classes if any(one.windows.values())]
        columns = [*TASK_SPECS[task].scores, *(f"{CLASS_RECALL}{name}" for name in shown)]
        rows: list[ScoreTableRow] = []
        for series in (False, True):
            of_form = [run for run in runs if run.series == series]
            with_heads = [report for report in heads if report.series == series]
            rows += _run_rows(of_form, columns, trained_gaps)
            rows += [_head_row(report, columns) for report in with_heads]
            rows += _control_rows(of_form, with_heads, columns)
        left_out = [
            f"{one.name} ({one.too_few})"
            for one in known[0].classes
            if one.too_few and any(one.windows.values())
        ]
        notes = [f"In no mean over classes: {', '.join(left_out)}."] if left_out else []
        tables.append(
            ScoreTable(
                title=f"{_TITLES[task]} of deforming windows{', simulated data' if simulated else ''}",
                task=task,
                unit="deforming-items",
                columns=columns,
                rows=rows,
                notes=notes,
            )
        )
    return tables


def _run_rows(
    runs: Sequence[KindRunResult], columns: Sequence[str], trained_gaps: Mapping[str, TrainedControlGaps]
) -> list[ScoreTableRow]:
    rows = []
    for members, variant in group_settings(runs):
        first = members[0]
        gaps: dict[str, list[Gap]] = defaultdict(list)
        score = columns[0]
        for run in members:
            _add_computed_gaps(gaps, run.assessment, score)
            for name, by_unit in trained_gaps.get(run.key, {}).items():
                gaps[name].append(by_unit["deforming-items"][score])
        rows.append(
            ScoreTableRow(
                kind="model",
                model=first.model,
                series=first.series,
                atmosphere=first.atmosphere,
                variant=variant,
                seeds=[run.seed for run in members],
                gap=closest_gap(gaps, score),
                parameters=first.parameters,
                cells=_cells([run.assessment for run in members], columns),
            )
        )
    return rows


def _head_row(report: KindReport, columns: Sequence[str]) -> ScoreTableRow:
    gaps: dict[str, list[Gap]] = defaultdict(list)
    _add_computed_gaps(gaps, report, columns[0])
    return ScoreTableRow(
        kind="model",
        model=f"{report.model}, linear probe",
        series=report.series,
        atmosphere=report.atmosphere,
        variant=f"weights {report.weights}",
        seeds=[report.seed],
        gap=closest_gap(gaps, columns[0]),
        parameters=None,
        cells=_cells([report], columns),
    )


def _control_rows(
    runs: Sequence[KindRunResult], reports: Sequence[KindReport], columns: Sequence[str]
) -> list[ScoreTableRow]:
    """Return the rows of computed controls, which are those of any model here, and of trained ones."""
    if not runs and not reports:
        return []
    series = (runs or reports)[0].series
    some = runs[0].assessment if runs else reports[0]
    made = [(name, "", _cells([some], columns, name)) for name in some.controls]
    made += [
        (run.recipe["control"], run.model, _cells([run.assessment], columns))
        for run in runs
        if run.recipe.get("control")
    ]
    return [
        ScoreTableRow(
            kind="control",
            model=name,
            series=series,
            atmosphere=None,
            variant=of,
            seeds=[],
            gap=None,
            parameters=None,
            cells=cells,
        )
        for name, of, cells in made
    ]


def _cells(
    found: Sequence[KindAssessment], columns: Sequence[str], control: str = ""
) -> dict[str, ScoreCell]:
    cells = {}
    for column in columns:
        values = [_read(one, column, control) for one in found]
        cell = make_cell([value.value for value in values], values)
        reason = next((one.undefined for one in found if one.undefined), "")
        if math.isnan(cell.mean):
            reason = "no such window in test" if column.startswith(CLASS_RECALL) else reason
            cell = cell.model_copy(update={"undefined": reason})
        cells[column] = cell
    return cells


def _read(found: KindAssessment, column: str, control: str) -> ScoreEstimate:
    """Return a score of a model, or of one of its controls."""
    if not column.startswith(CLASS_RECALL):
        return found.controls[control].scores[column] if control else found.scores[column]
    name = column.removeprefix(CLASS_RECALL)
    shown = next(one for one in found.classes if one.name == name)
    return (shown.controls[control] if control else shown.scores)["recall"]


def _add_computed_gaps(gaps: dict[str, list[Gap]], found: KindAssessment, score: str) -> None:
    for name, control in found.controls.items():
        gap = control.gaps[score]
        gaps[name].append(Gap(value=gap.value, low=gap.low, high=gap.high))
