"""The leaderboard: submissions and our own runs, scored on the same samples, beside controls."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from hephaestus_baselines.config.run_config import Recipe
from hephaestus_baselines.config.tasks import TASK_SPECS, DetectionTask, ScoringUnit
from hephaestus_baselines.evaluation.result_schema import (
    Assessment,
    NullableFloat,
    ResultModel,
    RunResult,
    SanitizedText,
    library_versions,
    source_code_hash,
)
from hephaestus_baselines.reporting.headline import (
    UNIT_TITLES,
    find_headline,
    format_with_interval,
)
from hephaestus_baselines.reporting.render_tables import escape_formula
from hephaestus_baselines.submissions.submission_file import Submission
from hephaestus_build.core.atomic_io import translate_os_errors, write_atomic
from hephaestus_build.report.markdown import escape_markdown, markdown_table

LEADERBOARD_FORMAT: Literal["hephaestus-leaderboard/1"] = "hephaestus-leaderboard/1"


class LeaderboardEntry(ResultModel):
    """One model with its scores.

    Attributes
    ----------
    model : str
    kind : {"submission", "run"}
        Whether the model was made elsewhere, or is a run of this benchmark.
    file : str
        Name of the file that was scored or read.
    blake3 : str
        Hash of a submission.
    task, split, split_sha256, series, tiling, size, positives, uncertain, simulated
        What was scored; only entries for which all of these agree stand in one table.
    assessment : Assessment
    """

    model: SanitizedText
    kind: Literal["submission", "run"]
    file: SanitizedText
    blake3: str = ""
    task: DetectionTask
    split: SanitizedText
    split_sha256: str
    series: bool
    tiling: SanitizedText
    size: int
    positives: SanitizedText
    uncertain: SanitizedText
    simulated: bool
    assessment: Assessment

    @property
    def samples(self) -> tuple[Any, ...]:
        """What was scored: entries of one table agree in this."""
        return (
            self.task, self.split, self.split_sha256, self.series, self.tiling, self.size, self.positives,
            self.uncertain, self.simulated,
        )  # fmt: skip

    @property
    def best(self) -> float:
        """The headline score by which entries are ranked, highest first; -1 if it is not defined."""
        units = [unit for unit in TASK_SPECS[self.task].units if unit in self.assessment.units]
        value = find_headline(self.assessment, units[0]).value
        # what has no windows scored comes after all that has
        return -1.0 if math.isnan(value) else value + (units[0] == TASK_SPECS[self.task].units[0])


class LeaderboardScore(ResultModel):
    """The headline of an entry in one unit."""

    unit: ScoringUnit
    score: str
    value: NullableFloat
    low: NullableFloat
    high: NullableFloat
    control: SanitizedText = Field(description="The control that comes closest.")
    gap: NullableFloat = Field(description="The score minus that of this control.")
    gap_low: NullableFloat
    gap_high: NullableFloat
    threshold: float = Field(description="Chosen on validation.")


def entry_of_submission(submission: Submission, assessment: Assessment) -> LeaderboardEntry:
    """Return the entry of a submission that was scored."""
    header = submission.header
    return LeaderboardEntry(
        model=header.model,
        kind="submission",
        file=submission.path.name,
        blake3=submission.blake3,
        task=header.task,
        split=header.split,
        split_sha256=header.split_sha256,
        series=header.series,
        tiling=header.tiling,
        size=header.size,
        positives=header.positives,
        uncertain=header.uncertain,
        simulated=header.simulated,
        assessment=assessment,
    )


def entry_of_run(result: RunResult, path: Path) -> LeaderboardEntry:
    """Return the entry of a finished run of this benchmark."""
    recipe = Recipe.model_validate(result.recipe)
    return LeaderboardEntry(
        model=result.key,
        kind="run",
        file=path.name,
        task=result.task,
        split=result.split.name,
        split_sha256=result.split.sha256,
        series=result.series,
        tiling=result.tiling,
        size=result.size,
        positives=recipe.positives,
        uncertain=recipe.uncertain,
        simulated=result.simulated,
        assessment=result.assessment,
    )


def rank_entries(entries: Iterable[LeaderboardEntry]) -> list[list[LeaderboardEntry]]:
    """Return the entries of each table, the best first; a table has the same samples in all entries."""
    tables: dict[tuple[Any, ...], list[LeaderboardEntry]] = {}
    for entry in entries:
        tables.setdefault(entry.samples, []).append(entry)
    return [sorted(table, key=lambda entry: -entry.best) for table in tables.values()]


def score_entry(entry: LeaderboardEntry) -> list[LeaderboardScore]:
    """Return the headlines of an entry in its units."""
    scores = []
    for unit in TASK_SPECS[entry.task].units:
        if unit in entry.assessment.units:
            found = find_headline(entry.assessment, unit)
            scores.append(
                LeaderboardScore(
                    unit=unit,
                    score=found.score,
                    value=found.value,
                    low=found.low,
                    high=found.high,
                    control=found.control,
                    gap=found.gap.value,
                    gap_low=found.gap.low,
                    gap_high=found.gap.high,
                    threshold=entry.assessment.units[unit].threshold.value,
                )
            )
    return scores


def table_title(table: Sequence[LeaderboardEntry]) -> str:
    """Return what the entries of a table were scored on."""
    first = table[0]
    form = "series" if first.series else "single interferograms"
    simulated = " (simulated data)" if first.simulated else ""
    return (
        f"{first.task.capitalize()}, {form}, split {first.split} {first.split_sha256[:12]}, windows of "
        f"{first.size} pixels, {first.tiling}{simulated}"
    )


def table_columns(task: DetectionTask) -> list[str]:
    """Return the headings of a table."""
    columns = ["model", "from"]
    for unit in TASK_SPECS[task].units:
        if unit != "all-pixels":
            name = "AP" if unit in ("items", "interferograms") else "F1"
            columns += [f"{name} of {UNIT_TITLES[unit]}", "above the best control"]
    return [*columns, "events found", "days with false alarms / frame-year"]


def table_rows(table: Sequence[LeaderboardEntry]) -> list[list[str]]:
    """Return the cells of a table: its entries, and below them the controls, which look at no image."""
    return [*map(_entry_cells, table), *_control_cells(table[0])]


def _entry_cells(entry: LeaderboardEntry) -> list[str]:
    scores = {score.unit: score for score in score_entry(entry)}
    cells = [entry.model, entry.kind]
    for unit in TASK_SPECS[entry.task].units:
        if unit == "all-pixels":
            continue
        if (found := scores.get(unit)) is None:
            cells += ["-", "-"]
            continue
        gap = format_with_interval(found.gap, found.gap_low, found.gap_high, signed=True)
        cells += [
            format_with_interval(found.value, found.low, found.high),
            f"{gap}, {found.control}" if found.control else "-",
        ]
    events = entry.assessment.events
    days = entry.assessment.false_alarms.days_per_frame_year
    return [*cells, f"{events.found} of {events.events}", "-" if math.isnan(days) else f"{days:.2f}"]


def _control_cells(entry: LeaderboardEntry) -> list[list[str]]:
    units = [unit for unit in TASK_SPECS[entry.task].units if unit != "all-pixels"]
    values: dict[str, dict[str, float]] = {}
    for unit in units:
        if (found := entry.assessment.units.get(unit)) is None:
            continue
        score = find_headline(entry.assessment, unit).score
        values.setdefault("chance", {})[unit] = found.test.chance[score]
        values.setdefault("always deformation", {})[unit] = found.test.constant[score]
        for name, control in found.controls.items():
            values.setdefault(name, {})[unit] = control.test.values[score]
    rows = []
    for name, by_unit in values.items():
        cells = [name, "control"]
        for unit in units:
            value = by_unit.get(unit, math.nan)
            cells += [format_with_interval(value, math.nan, math.nan), ""]
        rows.append([*cells, "", ""])
    return rows


def render_leaderboard(tables: Sequence[Sequence[LeaderboardEntry]]) -> str:
    """Return the tables as Markdown."""
    simulated = any(table[0].simulated for table in tables)
    parts = ["# Leaderboard" + (" (simulated data)" if simulated else "")]
    for table in tables:
        rows = (map(escape_markdown, row) for row in table_rows(table))
        parts += [
            f"## {escape_markdown(table_title(table))}",
            markdown_table(table_columns(table[0].task), rows),
        ]
    parts.append(
        "Thresholds are chosen on validation; 95 % intervals are over events. Controls look at no image: a "
        "gap whose interval includes 0 shows nothing. docs/scoring.md defines all scores."
    )
    return "\n\n".join(parts) + "\n"


def render_leaderboard_csv(tables: Sequence[Sequence[LeaderboardEntry]]) -> str:
    """Return one line for each entry and unit."""
    names = [*LeaderboardEntry.model_fields]
    about = [name for name in names if name != "assessment"]
    stream = io.StringIO()
    writer = csv.DictWriter(stream, [*about, *LeaderboardScore.model_fields], lineterminator="\n")
    writer.writeheader()
    for entry in (entry for table in tables for entry in table):
        told = entry.model_dump(mode="json", exclude={"assessment"})
        for score in score_entry(entry):
            line = {**told, **score.model_dump(mode="json")}
            writer.writerow(
                {
                    name: escape_formula(value) if isinstance(value, str) else value
                    for name, value in line.items()
                }
            )
    return stream.getvalue()


class Leaderboard(ResultModel):
    """All entries with all of their scores (``leaderboard.json``).

    Attributes
    ----------
    format : str
    entries : list of LeaderboardEntry
    versions : dict of str to str
        Versions of Python and the libraries.
    code : str
        Hash of the project's source files.
    """

    format: Literal["hephaestus-leaderboard/1"] = LEADERBOARD_FORMAT
    entries: list[LeaderboardEntry]
    versions: dict[str, str] = Field(default_factory=library_versions)
    code: str = Field(default_factory=source_code_hash)


def leaderboard_json_schema() -> dict[str, Any]:
    """Return the JSON Schema of a leaderboard, stored as ``schemas/leaderboard.json``."""
    content = Leaderboard.model_json_schema(mode="serialization")
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **content,
        "title": "Leaderboard of submissions and runs",
        "description": "leaderboard.json: see docs/scoring.md. Written from Leaderboard.",
    }


def write_leaderboard(folder: Path, tables: Sequence[Sequence[LeaderboardEntry]]) -> list[Path]:
    """Write ``leaderboard.md``, ``.csv`` and ``.json``; return their paths.

    Raises
    ------
    HephaestusError
        If a file cannot be written.
    """
    document = Leaderboard(entries=[entry for table in tables for entry in table])
    contents = {
        "leaderboard.md": render_leaderboard(tables),
        "leaderboard.csv": render_leaderboard_csv(tables),
        "leaderboard.json": document.model_dump_json(indent=1) + "\n",
    }
    with translate_os_errors(f"leaderboard: writing into {folder}", setting="--to"):
        for name, text in contents.items():
            write_atomic(folder / name, text.encode())
    return [folder / name for name in contents]


def entry_to_json(entry: LeaderboardEntry) -> dict[str, Any]:
    """Return an entry as JSON values, with its headlines in place of all scores."""
    events, alarms = entry.assessment.events, entry.assessment.false_alarms
    return {
        **entry.model_dump(mode="json", exclude={"assessment", "size"}),
        "window_pixels": entry.size,
        "scores": [score.model_dump(mode="json") for score in score_entry(entry)],
        "events": events.events,
        "events_found": events.found,
        "false_alarm_days_per_frame_year": None
        if math.isnan(alarms.days_per_frame_year)
        else alarms.days_per_frame_year,
    }
