"""Renderers of a grid's tables as Markdown and CSV."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any

from hephaestus_baselines.evaluation.result_schema import PartCoverageRecord
from hephaestus_baselines.reporting.published_scores import MODEL_TITLES
from hephaestus_baselines.reporting.table_schema import (
    CLASS_RECALL,
    FALSE_ALARM_RATE,
    AtmosphereEffect,
    KindDetection,
    ModelCost,
    PublishedShare,
    ScoreCell,
    ScoreSummary,
    ScoreTable,
    ScoreTableRow,
    TablesDocument,
)
from hephaestus_build.core.plain_text import sanitize_text
from hephaestus_build.dataset.splits import SplitPart
from hephaestus_build.report import markdown

_COLUMN_TITLES = {
    "precision": "Prec", "recall": "Rec", "f1": "F1", "auroc": "AUROC", "iou": "IoU",
    "average_precision": "AP", FALSE_ALARM_RATE: "False alarms / frame-year",
    "same_place_auroc": "AUROC, same places", "event_recall": "Events found",
    "event_macro_recall": "Recall, event mean", "delay_days": "Median delay, days",
    "recall_at_1": "Rec at 1 alarm day / frame-year", "recall_at_2": "at 2", "recall_at_5": "at 5",
    "recall_at_12": "at 12", "ece": "Calibration error", "ece_calibrated": "calibrated",
    "macro_f1": "Macro F1", "balanced_accuracy": "Balanced acc", "accuracy": "Acc", "mae": "MAE, steps",
    "macro_mae": "MAE, class mean", "quadratic_kappa": "Kappa",
}  # fmt: skip
_CONTROL_NOTES = (
    (
        "Controls, in italics, look at no image. Above the best control: the model's score minus that of the "
        "control that comes closest, in points, with the lowest lower and highest upper end of the seeds' "
        "95 % bootstrap intervals of the difference over events. If it includes 0, nothing is shown."
    ),
    (
        "Chance: guessing at random, with the share of deformation as probability. Frame prior: how often "
        "the frame's training interferograms deform in the window. Persistence: how many of the frame's last "
        "10 interferograms did. Terrain only: the same network without phase and coherence."
    ),
)
_KIND_NOTE = (
    "Type of activity and intensity are told of windows that show deformation, among the classes of the "
    "experts: means weigh each class alike, errors are in steps from Low to High. Majority: the shares of "
    "the classes in training. Frame and volcano prior: those of the frame, or of events at the volcano. "
    "Persistence: those of the frame's last 10 deforming interferograms."
)
#: Words of the kinds of deformation in Markdown.
_KIND_TITLES = {"intensity": "intensity", "activity_type": "activity", "volcano": "volcano"}
_LESS_IS_BETTER = (FALSE_ALARM_RATE, "delay_days", "ece", "ece_calibrated", "mae", "macro_mae")
#: Scores that are no shares.
_NOT_IN_PERCENT = (FALSE_ALARM_RATE, "delay_days", "mae", "macro_mae")
#: Scores whose intervals stand in a column of their own.
_WITH_INTERVAL = ("f1", "macro_f1")
_CONTROL_TITLES = {"constant": "always deformation"}
_MAX_COMMENT_LENGTH = 100_000  # characters; a comment line may list the generations of all frames
#: Up to this many frames, the Markdown lists their generations; CSV and JSON always list all.
_MAX_LISTED_FRAMES = 6


def render_csv(document: TablesDocument) -> str:
    """Return the tables as CSV, one score per line, after comment lines (``#``) with their provenance."""
    stream = io.StringIO()
    for name, text in _header_lines(document, partial(sanitize_text, limit=_MAX_COMMENT_LENGTH), full=True):
        stream.write(f"# {name}: {text.replace('**', '').replace('`', '')}\n")
    lines = [line for table in document.tables for line in _csv_lines(document, table)]
    lines += [line for found in document.detection for line in _detection_csv_lines(document, found)]
    lines += _effect_csv_lines(document)
    # what a line of detection does not have stays empty
    writer = csv.DictWriter(stream, lines[0].keys(), restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(lines)
    return stream.getvalue()


def render_markdown(document: TablesDocument) -> str:
    """Return the tables as Markdown; in each block the best score is bold, the second underlined."""
    title = "# Benchmark" + (" (simulated data)" if document.simulated else "")
    parts = [
        title,
        "\n".join(f"- {name}: {text}" for name, text in _header_lines(document, markdown.escape_markdown)),
    ]
    for table in document.tables:
        parts += [f"## {markdown.escape_markdown(table.title)}", _render_table(table)]
        parts += map(markdown.escape_markdown, table.notes)
    mark = ", simulated data" if document.simulated else ""
    if document.atmosphere:
        parts += [f"## What the atmosphere changes{mark}", _render_atmosphere(document.atmosphere)]
    for task, number in (("classification", 6), ("segmentation", 7)):
        if costs := [cost for cost in document.costs if cost.task == task]:
            title = f"## Parameters and hours of {task}, beside the paper's Table {number}{mark}"
            parts += [title, _render_costs(costs)]
    for task in dict.fromkeys(found.task for found in document.detection):
        parts += [
            f"## What {task} finds, by intensity (fringes), activity and volcano{mark}",
            _render_detection([found for found in document.detection if found.task == task and found.best]),
        ]
    parts.append(_render_notes(document))
    return "\n\n".join(parts) + "\n"


def escape_formula(text: str) -> str:
    """Escape a text that a spreadsheet would evaluate as a formula."""
    return f"'{text}" if text.startswith(("=", "+", "-", "@")) else text


def _header_lines(
    document: TablesDocument, shown: Callable[[str], str], *, full: bool = False
) -> list[tuple[str, str]]:
    generations = [f"{frame} {' and '.join(found)}" for frame, found in document.generations.items()]
    if len(generations) > _MAX_LISTED_FRAMES and not full:
        generations = [f"{len(generations)} frames, listed in tables.json"]
    versions = [f"{name} {' and '.join(found)}" for name, found in document.versions.items()]
    return [
        ("data", "**simulated**, not of real volcanoes" if document.simulated else "real"),
        ("command", "; ".join(map(markdown.code_span, document.commands))),
        ("runs", f"{document.runs}, seeds {', '.join(map(str, document.seeds))}"),
        ("split", shown(f"{document.split}, sha256 {document.split_sha256}")),
        (
            "windows",
            shown(f"{document.size} pixels, test {document.tiling}, training {', '.join(document.training)}"),
        ),
        *[
            (f"coverage of {part}", shown(_describe_coverage(counts)))
            for part, counts in document.coverage.items()
        ],
        *[
            (
                f"events of test, {kind}",
                f"{found.events}, worth {found.effective:.1f} of equal size",
            )
            for kind, found in sorted(document.events.items())
        ],
        ("first weights", shown(", ".join(document.weights))),
        ("cube generations", shown("; ".join(generations))),
        ("versions", shown(", ".join(versions))),
        ("code", shown(", ".join(code[:12] for code in document.code))),
        ("device", shown(", ".join(document.devices))),
        ("trained controls", shown(_describe_trained_controls(document.tables))),
        ("trials of settings", shown(_describe_trials(document.trials))),
        ("the paper's figures", shown(f"left out: {document.paper}") if document.paper else "in brackets"),
        *[
            ("of the paper's data", shown(_describe_shares("samples" if kind == "single" else kind, shares)))
            for kind, shares in document.paper_samples.items()
        ],
    ]


def _describe_trained_controls(tables: Sequence[ScoreTable]) -> str:
    # these alone name the network that they train
    names = {row.model for table in tables for row in table.rows if row.kind == "control" and row.variant}
    return ", ".join(sorted(names)) or "none in this grid"


def _describe_trials(trials: Mapping[str, int]) -> str:
    counts = set(trials.values())
    if len(counts) > 1:
        each = ", ".join(f"{MODEL_TITLES.get(model, model)} {count}" for model, count in trials.items())
        return f"not the same number for each model, which favours those with more: {each}"
    if counts == {1}:
        return "1 for each model, no setting was tuned"
    return f"{max(counts, default=0)} for each model, each in a row of its own"


def _describe_shares(noun: str, shares: Mapping[SplitPart, PublishedShare]) -> str:
    samples, published = (
        sum(getattr(share, name) for share in shares.values()) for name in ("samples", "published_samples")
    )
    parts = [
        f"{part} {share.samples:,} of {share.published_samples:,}, with {share.positives:,} of "
        f"{share.published_positives:,} positives"
        for part, share in shares.items()
    ]
    return f"{samples:,} of {published:,} {noun} ({'; '.join(parts)})"


def _describe_coverage(counts: PartCoverageRecord) -> str:
    pixels = "" if math.isnan(counts.pixels_seen) else f", {counts.pixels_seen:.1%} of the deforming pixels"
    uncertain = f", {counts.uncertain} with uncertain outlines" if counts.uncertain else ""
    left_out = f" ({counts.uncertain_left_out} such left out)" if counts.uncertain_left_out else ""
    return f"{counts.seen} of {counts.positives} positives seen{pixels}{uncertain}{left_out}"


def _csv_lines(document: TablesDocument, table: ScoreTable) -> Iterable[dict[str, Any]]:
    for row in table.rows:
        for name, cell in row.cells.items():
            figures = {
                "mean": cell.mean,
                "deviation": cell.deviation,
                "low": cell.low,
                "high": cell.high,
                "paper_mean": cell.paper.mean if cell.paper else math.nan,
                "paper_deviation": cell.paper.deviation if cell.paper else math.nan,
            }
            gap = row.gap if row.gap and row.gap.score == name else None
            figures |= {
                "gap": gap.mean if gap else math.nan,
                "gap_low": gap.low if gap else math.nan,
                "gap_high": gap.high if gap else math.nan,
            }
            yield {
                "simulated": str(document.simulated).lower(),
                "task": table.task,
                "unit": table.unit,
                "input": "series" if row.series else "single",
                "kind": row.kind,
                "model": escape_formula(row.model),
                "atmosphere": "" if row.atmosphere is None else str(row.atmosphere).lower(),
                "variant": escape_formula(row.variant),
                "deformation": "",
                "score": name,
                "seeds": cell.seeds if row.kind == "model" else "",
                "best_control": row.gap.control if row.gap and row.gap.score == name else "",
                **{key: "" if math.isnan(value) else repr(value) for key, value in figures.items()},
                "undefined": escape_formula(cell.undefined),
                "split": escape_formula(document.split),
                "split_sha256": document.split_sha256,
            }


def _detection_csv_lines(document: TablesDocument, found: KindDetection) -> Iterable[dict[str, Any]]:
    for name, figure in (("recall", found.recall), ("auroc", found.auroc)):
        figures = {"mean": figure.mean, "deviation": figure.deviation}
        yield {
            "simulated": str(document.simulated).lower(),
            "task": found.task,
            "unit": "interferograms",
            "input": "series" if found.series else "single",
            "kind": "model",
            "model": escape_formula(found.model),
            "atmosphere": str(found.atmosphere).lower(),
            "variant": escape_formula(found.variant),
            "deformation": f"{found.kind}: {found.name}",
            "score": name,
            **{key: "" if math.isnan(value) else repr(value) for key, value in figures.items()},
            "split": escape_formula(document.split),
            "split_sha256": document.split_sha256,
        }


def _render_atmosphere(effects: Sequence[AtmosphereEffect]) -> str:
    lines = ["| | Model | Atmosphere as | Of | Score | With − without (95 %) |", "|---|---|---|---|---|---:|"]
    for one in effects:
        form = "Time-series" if one.series else "Single-timestep"
        low, high = one.low * 100, one.high * 100
        shown = "–" if math.isnan(one.mean) else f"{one.mean * 100:+.1f}"
        shown += "" if math.isnan(low) else f" ({low:+.1f} to {high:+.1f})"
        cells = [form, MODEL_TITLES.get(one.model, one.model), one.form, one.unit, _COLUMN_TITLES[one.score]]
        lines.append("| " + " | ".join([*map(markdown.escape_markdown, cells), shown]) + " |")
    return "\n".join(lines)


def _render_costs(costs: Sequence[ModelCost]) -> str:
    lines = [
        "| | Model | Atm. | Parameters (M) | in the paper | Hours | Epochs | in the paper (90 epochs) | |",
        "|---|---|:-:|---:|---:|---:|---:|---:|---|",
    ]
    for one in costs:
        cells = [
            "Time-series" if one.series else "Single-timestep",
            markdown.escape_markdown(MODEL_TITLES.get(one.model, one.model)),
            "✓" if one.atmosphere else "×",
            f"{one.parameters / 1e6:.2f}",
            "–" if one.published_parameters is None else f"{one.published_parameters:.1f}",
            "–" if math.isnan(one.hours) else f"{one.hours:.3g}",
            "-".join(map(str, one.epochs)),
            "–" if one.published_hours is None else f"{one.published_hours:.1f}",
            markdown.escape_markdown(one.note),
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _effect_csv_lines(document: TablesDocument) -> Iterable[dict[str, Any]]:
    """Yield the effects of the atmosphere, as gaps, and parameters and hours, as scores."""
    known = {
        "simulated": str(document.simulated).lower(),
        "split": escape_formula(document.split),
        "split_sha256": document.split_sha256,
    }
    for one in document.atmosphere:
        gaps = {"gap": one.mean, "gap_low": one.low, "gap_high": one.high}
        yield known | {
            "task": one.task,
            "unit": one.unit,
            "input": "series" if one.series else "single",
            "kind": "effect of the atmosphere",
            "model": escape_formula(one.model),
            "atmosphere": "true",
            "variant": escape_formula(one.form),
            "score": one.score,
            "seeds": len(one.seeds),
            **{key: "" if math.isnan(value) else repr(value) for key, value in gaps.items()},
        }
    for cost in document.costs:
        for name, value, published in (
            ("parameters_millions", cost.parameters / 1e6, cost.published_parameters),
            ("hours", cost.hours, cost.published_hours),
        ):
            yield known | {
                "task": cost.task,
                "input": "series" if cost.series else "single",
                "kind": "cost",
                "model": escape_formula(cost.model),
                "atmosphere": str(cost.atmosphere).lower(),
                "score": name,
                "mean": "" if math.isnan(value) else repr(value),
                "paper_mean": "" if published is None else repr(published),
            }


def _render_detection(found: Sequence[KindDetection]) -> str:
    lines = ["| | Of | Interferograms | Rec | AUROC |", "|---|---|---:|---:|---:|"]
    shown: tuple[bool, str] | None = None
    for one in found:
        title = MODEL_TITLES.get(one.model, one.model)
        setting = f"{title} ({one.variant})" if one.variant else title
        form = "Time-series" if one.series else "Single-timestep"
        block = markdown.escape_markdown(f"{form}, {setting}{', atmosphere' if one.atmosphere else ''}")
        kind = _KIND_TITLES[one.kind]
        scores = [
            "–" if math.isnan(figure.mean) else _format_mean(figure, 100)
            for figure in (one.recall, one.auroc)
        ]
        named = markdown.escape_markdown(f"{kind} {one.name}")
        first = "" if shown == (one.series, one.model) else block
        shown = one.series, one.model
        lines.append("| " + " | ".join([first, named, str(one.positives), *scores]) + " |")
    return "\n".join(lines)


def _render_table(table: ScoreTable) -> str:
    names = [_column_title(name) for name in table.columns]
    ranged = next((name for name in _WITH_INTERVAL if name in table.columns), "")
    with_ranges = bool(ranged) and any(not math.isnan(row.cells[ranged].low) for row in table.rows)
    score = next((row.gap.score for row in table.rows if row.gap), "")
    heads = ["", "Model", "Atm.", *names, *([f"{_column_title(ranged)}, 95 %"] if with_ranges else [])]
    heads += [f"{_column_title(score)} above the best control"] if score else []
    lines = ["| " + " | ".join(heads) + " |", "|---|---|:-:|" + "---:|" * (len(heads) - 3)]
    for series in (False, True):
        rows = [row for row in table.rows if row.series == series]
        marks = {name: _rank_styles(rows, name) for name in table.columns}
        for place, row in enumerate(rows):
            block = ("Time-series" if series else "Single-timestep") if place == 0 else ""
            cells = [marks[name][place](_format_cell(row.cells[name], name)) for name in table.columns]
            ranges = [_format_interval(row.cells[ranged])] if with_ranges else []
            ranges += [_format_gap(row)] if score else []
            lines.append("| " + " | ".join([block, *_row_title(row), *cells, *ranges]) + " |")
    return "\n".join(lines)


def _column_title(name: str) -> str:
    if name.startswith(CLASS_RECALL):
        return f"Rec {markdown.escape_markdown(name.removeprefix(CLASS_RECALL))}"
    return _COLUMN_TITLES[name]


def _row_title(row: ScoreTableRow) -> tuple[str, str]:
    if row.kind != "model":
        of = f" ({MODEL_TITLES.get(row.variant, row.variant)})" if row.variant else ""
        return f"*{markdown.escape_markdown(_CONTROL_TITLES.get(row.model, row.model) + of)}*", ""
    title = MODEL_TITLES.get(row.model, row.model)
    named = markdown.escape_markdown(f"{title} ({row.variant})" if row.variant else title)
    return named, "✓" if row.atmosphere else "×"


def _format_gap(row: ScoreTableRow) -> str:
    if row.gap is None or math.isnan(row.gap.mean):
        return ""
    interval = "" if math.isnan(row.gap.low) else f" ({row.gap.low * 100:+.1f} to {row.gap.high * 100:+.1f})"
    control = _CONTROL_TITLES.get(row.gap.control, row.gap.control)
    return f"{row.gap.mean * 100:+.1f}{interval}, {markdown.escape_markdown(control)}"


def _rank_styles(rows: Sequence[ScoreTableRow], name: str) -> list[Callable[[str], str]]:
    """Return the Markdown style of each row's score: bold for the best, underlined for the second."""
    sign = -1 if name in _LESS_IS_BETTER else 1
    means = [sign * row.cells[name].mean if row.kind == "model" else math.nan for row in rows]
    ranks = sorted({mean for mean in means if not math.isnan(mean)}, reverse=True)
    styles: list[Callable[[str], str]] = ["**{}**".format, "<u>{}</u>".format]
    found = dict(zip(ranks, styles, strict=False)) if len(ranks) > 1 else {}
    return [found.get(mean, str) for mean in means]


def _format_cell(cell: ScoreCell, name: str) -> str:
    scale = 1 if name in _NOT_IN_PERCENT else 100
    if math.isnan(cell.mean):
        return "–"
    text = _format_mean(cell, scale)
    return f"{text} ({_format_mean(cell.paper, scale)})" if cell.paper else text


def _format_mean(figure: ScoreSummary, scale: float) -> str:
    mean = f"{figure.mean * scale:.2f}"
    return mean if math.isnan(figure.deviation) else f"{mean} ± {figure.deviation * scale:.2f}"


def _format_interval(cell: ScoreCell) -> str:
    return "" if math.isnan(cell.low) else f"{cell.low * 100:.1f} – {cell.high * 100:.1f}"


def _render_notes(document: TablesDocument) -> str:
    threshold = (
        "chosen on the validation part (highest F1)"
        if document.paper
        else "0.5 for models in the first table of each task, as in the paper; elsewhere chosen on validation"
    )
    lines = [
        f"Per cent, mean ± sample standard deviation over seeds; the threshold is {threshold}.",
        "In each block the best score is bold and the second underlined.",
        "F1, 95 %: lowest lower and highest upper end of the seeds' bootstrap intervals over events.",
        *_CONTROL_NOTES,
        (
            "By intensity, activity and volcano: interferograms that show it, against all without any "
            "deformation, for the setting of each input with the highest average precision on validation; "
            "all settings are in tables.csv. Intensity counts visible fringes: Low 1, Medium 2 or 3, High "
            "more."
        ),
        "Pixels without data are ignored." if document.paper else "Pixels without data are included.",
    ]
    reasons = {
        markdown.escape_markdown(
            f"{_column_title(name)} of {MODEL_TITLES.get(row.model, row.model)}: {cell.undefined}"
        )
        for table in document.tables
        for row in table.rows
        for name, cell in row.cells.items()
        if cell.undefined
    }
    if any(table.unit == "deforming-items" for table in document.tables):
        lines.append(_KIND_NOTE)
    if reasons:
        lines.append("Undefined (–, or left out of a mean): " + "; ".join(sorted(reasons)) + ".")
    return "\n".join(f"- {line}" for line in lines)
