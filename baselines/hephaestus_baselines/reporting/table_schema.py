"""Schema of ``tables.json``: all tables of a grid, from which Markdown and CSV are rendered."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, TypeAdapter

from hephaestus_baselines.config.run_config import Task
from hephaestus_baselines.evaluation.result_schema import NullableFloat, ResultModel, RunResult, ScoringUnit

#: Listed among the scores, but a number per frame-year rather than a fraction.
FALSE_ALARM_RATE = "false_alarms_per_frame_year"


class ScoreSummary(ResultModel):
    """Mean and standard deviation of a score over seeds, as fractions; false alarms as a number."""

    mean: NullableFloat
    deviation: NullableFloat = Field(
        description="Sample standard deviation over seeds; null for a single seed."
    )


class ScoreCell(ScoreSummary):
    """One score of one row."""

    seeds: int = Field(description="Number of the row's seeds for which the score is defined.")
    low: NullableFloat = Field(description="Lowest lower end of the seeds' bootstrap intervals.")
    high: NullableFloat = Field(description="Highest upper end of the seeds' bootstrap intervals.")
    paper: ScoreSummary | None = Field(
        default=None, description="The paper's score, if the data is the paper's."
    )
    undefined: str = ""


class ScoreTableRow(ResultModel):
    """Scores of a model with its inputs, or of a trivial baseline."""

    kind: Literal["model", "constant", "chance"]
    model: str
    series: bool
    atmosphere: bool | None
    variant: str = Field(description="Settings that differ from the first row of the same model.")
    seeds: list[int]
    above_constant: int | None = Field(
        description="Number of seeds whose F1 is above the constant predictor's."
    )
    parameters: int | None
    cells: dict[str, ScoreCell]


class ScoreTable(ResultModel):
    """One table."""

    title: str
    task: Task
    unit: ScoringUnit
    columns: list[str]
    rows: list[ScoreTableRow]


class TablesDocument(ResultModel):
    """All tables of a grid (``tables.json``)."""

    format: Literal["hephaestus-tables/1"] = "hephaestus-tables/1"
    simulated: bool
    runs: int
    commands: list[str]
    seeds: list[int]
    split: str
    split_sha256: str
    size: int
    tiling: str
    training: list[str]
    weights: list[str]
    generations: dict[str, list[str]]
    versions: dict[str, list[str]]
    devices: list[str]
    code: list[str]
    paper: str = Field(description="Why the paper's scores are left out; empty if they are shown.")
    tables: list[ScoreTable]


def results_json_schema() -> dict[str, Any]:
    """Return the JSON Schema of results and tables, stored as ``schemas/results.json``."""
    content = TypeAdapter(RunResult | TablesDocument).json_schema(mode="serialization")
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Results of the benchmark",
        "description": "One run (result.json) or the tables of a grid (tables.json): see docs/scoring.md. "
        "Written from the types in baselines/hephaestus_baselines (result_schema.py, table_schema.py).",
        **content,
    }
