"""Tables of heads that tell the kind of deformation, in Markdown."""

from __future__ import annotations

from collections.abc import Sequence

from hephaestus_baselines.evaluation.kind_schema import KindReport, ScoreEstimate
from hephaestus_baselines.reporting.headline import format_with_interval
from hephaestus_build.report import markdown

_TITLES = {"activity": "Type of activity", "intensity": "Intensity"}
_SCORES = {
    "macro_average_precision": "AP, mean of types",
    "macro_f1": "F1, mean of types",
    "mae": "mean absolute error, steps",
    "quadratic_kappa": "quadratic kappa",
    "accuracy": "accuracy",
}


def render_kinds(reports: Sequence[KindReport], mark: str) -> list[str]:
    """Return headings and tables, one for each task.

    Parameters
    ----------
    reports : sequence of KindReport
        Reports of one split.
    mark : str
        Ends each heading, such as ``, simulated data``.
    """
    parts = []
    for task, title in _TITLES.items():
        chosen = [report for report in reports if report.task == task]
        if chosen:
            heading = f"## {title} of deforming windows, told by heads on frozen networks{mark}"
            parts += [heading, _render_task(chosen), _NOTE]
    return parts


_NOTE = (
    "Of windows that show deformation alone, with 95 % intervals over the events of test. *majority* and "
    "*frame only* look at no image; below each stands by how much the head is better."
)


def _render_task(reports: Sequence[KindReport]) -> str:
    scores = list(reports[0].scores)
    heads = ["network", "weights", "windows of test", "events", *(_SCORES.get(name, name) for name in scores)]
    rows = []
    for report in reports:
        facts = [report.model, report.weights, str(report.windows.get("test", 0)), str(report.events)]
        rows.append([*facts, *(_format(report.scores.get(name)) for name in scores)])
        for control, found in report.controls.items():
            rows.append([f"{control}", "", "", "", *(_format(found.scores.get(name)) for name in scores)])
            better = [_format(found.gaps.get(name), signed=True) for name in scores]
            rows.append([f"better than {control} by", "", "", "", *better])
        left_out = [f"{one.name} ({one.too_few})" for one in report.classes if one.too_few]
        if left_out:
            rows.append([f"in no mean: {'; '.join(left_out)}", *[""] * (len(heads) - 1)])
    lines = [f"| {' | '.join(heads)} |", f"|{'---|' * len(heads)}"]
    return "\n".join([*lines, *(f"| {' | '.join(map(markdown.escape_markdown, row))} |" for row in rows)])


def _format(found: ScoreEstimate | None, *, signed: bool = False) -> str:
    return "-" if found is None else format_with_interval(found.value, found.low, found.high, signed=signed)
