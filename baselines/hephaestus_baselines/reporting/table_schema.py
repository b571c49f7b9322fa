"""The tables of a grid as one document: what ``tables.json`` holds, and what its pages are written from."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, TypeAdapter

from hephaestus_baselines.evaluation.predictions import Task
from hephaestus_baselines.evaluation.result_schema import Number, Record, RunResult, Unit

#: Stands among the scores, but is a number.
FALSE_ALARMS = "false_alarms_per_frame_year"


class Figure(Record):
    """A mean and its deviation, as fractions; false alarms as a number."""

    mean: Number
    deviation: Number = Field(description="Over seeds, of a sample; null for a single seed.")


class Cell(Figure):
    """One score of one row."""

    seeds: int = Field(description="How many of the row's seeds it is defined for.")
    low: Number = Field(description="Lowest end of the seeds' intervals over events.")
    high: Number = Field(description="Highest end of the same.")
    paper: Figure | None = Field(
        default=None, description="The paper's figure, where the data is the paper's."
    )
    undefined: str = ""


class TableRow(Record):
    """A model with its inputs, or what it has to be better than."""

    kind: Literal["model", "constant", "chance"]
    model: str
    series: bool
    atmosphere: bool | None
    variant: str = Field(description="Other settings in which it differs from the first row of its name.")
    seeds: list[int]
    above_constant: int | None = Field(description="Seeds whose F1 is above the constant predictor's.")
    parameters: int | None
    cells: dict[str, Cell]


class Table(Record):
    """One table."""

    title: str
    task: Task
    unit: Unit
    columns: list[str]
    rows: list[TableRow]


class Document(Record):
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
    tables: list[Table]


def schema() -> dict[str, Any]:
    """Return the JSON Schema of results and tables: what ``schemas/results.json`` holds."""
    content = TypeAdapter(RunResult | Document).json_schema(mode="serialization")
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Results of the benchmark",
        "description": "One run (result.json) or the tables of a grid (tables.json): see docs/scoring.md. "
        "Written from the types in baselines/hephaestus_baselines (result_schema.py, table_schema.py).",
        **content,
    }
