"""The tables of a grid as one document: what ``tables.json`` holds, and what its pages are written from."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, TypeAdapter

from hephaestus_baselines.config.run_config import Task
from hephaestus_baselines.evaluation.result_schema import NullableFloat, ResultModel, RunResult, ScoringUnit

#: Stands among the scores, but is a number.
FALSE_ALARM_RATE = "false_alarms_per_frame_year"


class ScoreSummary(ResultModel):
    """A mean and its deviation, as fractions; false alarms as a number."""

    mean: NullableFloat
    deviation: NullableFloat = Field(description="Over seeds, of a sample; null for a single seed.")


class ScoreCell(ScoreSummary):
    """One score of one row."""

    seeds: int = Field(description="How many of the row's seeds it is defined for.")
    low: NullableFloat = Field(description="Lowest end of the seeds' intervals over events.")
    high: NullableFloat = Field(description="Highest end of the same.")
    paper: ScoreSummary | None = Field(
        default=None, description="The paper's figure, where the data is the paper's."
    )
    undefined: str = ""


class ScoreTableRow(ResultModel):
    """A model with its inputs, or what it has to be better than."""

    kind: Literal["model", "constant", "chance"]
    model: str
    series: bool
    atmosphere: bool | None
    variant: str = Field(description="Other settings in which it differs from the first row of its name.")
    seeds: list[int]
    above_constant: int | None = Field(description="Seeds whose F1 is above the constant predictor's.")
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
    paper: str = Field(description="Why the paper's figures are left out; empty where they stand beside.")
    tables: list[ScoreTable]


def results_json_schema() -> dict[str, Any]:
    """Return the JSON Schema of results and tables: what ``schemas/results.json`` holds."""
    content = TypeAdapter(RunResult | TablesDocument).json_schema(mode="serialization")
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Results of the benchmark",
        "description": "One run (result.json) or the tables of a grid (tables.json): see docs/scoring.md. "
        "Written from the types in baselines/hephaestus_baselines (result_schema.py, table_schema.py).",
        **content,
    }
