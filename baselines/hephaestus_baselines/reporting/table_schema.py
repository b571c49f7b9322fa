"""Schema of ``tables.json``: all tables of a grid, from which Markdown and CSV are rendered."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any, Literal

import numpy as np
from pydantic import Field, TypeAdapter

from hephaestus_baselines.config.tasks import INTENSITY_LEVELS, DetectionTask, ScoringUnit, Task
from hephaestus_baselines.evaluation.kind_schema import KindReport, KindRunResult
from hephaestus_baselines.evaluation.metrics import DEFORMATION_KINDS, DeformationKind
from hephaestus_baselines.evaluation.result_schema import (
    Gap,
    NullableFloat,
    PartCoverageRecord,
    ResultModel,
    RunResult,
)
from hephaestus_build.dataset.splits import SplitPart

#: Score of the headline, by unit.
HEADLINE_SCORE: Mapping[ScoringUnit, str] = {
    "items": "average_precision",
    "interferograms": "average_precision",
    "pixels": "f1",
    "all-pixels": "f1",
    "deforming-items": "macro_f1",
}
#: Begins the name of the recall of one class.
CLASS_RECALL = "recall_of_"
#: Gaps of a run to trained controls, by control, unit and score.
TrainedControlGaps = dict[str, dict[ScoringUnit, dict[str, Gap]]]
#: Listed among the scores, but a number per frame-year rather than a fraction.
FALSE_ALARM_RATE = "false_alarms_per_frame_year"


def kind_order(kind: DeformationKind, name: str) -> tuple[int, int, str]:
    """Return the place of a kind of deformation among the others, for sorting.

    Examples
    --------
    >>> sorted(["High", "Low", "None"], key=lambda name: kind_order("intensity", name))
    ['Low', 'High', 'None']
    """
    known = INTENSITY_LEVELS.index(name) if name in INTENSITY_LEVELS else len(INTENSITY_LEVELS)
    return DEFORMATION_KINDS.index(kind), known, name


class ScoreSummary(ResultModel):
    """Mean and standard deviation of a score over seeds, as fractions; false alarms as a number."""

    mean: NullableFloat
    deviation: NullableFloat = Field(
        description="Sample standard deviation over seeds; null for a single seed."
    )

    @staticmethod
    def over_seeds(values: Iterable[float]) -> ScoreSummary:
        """Return the summary of the values that are defined."""
        known = np.array([value for value in values if not math.isnan(value)])
        return ScoreSummary(
            mean=float(known.mean()) if len(known) else math.nan,
            deviation=float(known.std(ddof=1)) if len(known) > 1 else math.nan,
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


class EventCount(ResultModel):
    """Number of events, and of equally large ones that would be worth as much."""

    events: int
    effective: float


class GapCell(ResultModel):
    """How far a model is above the best control, which looks at no image, in one score."""

    score: str
    control: str = Field(description="The best control in this score.")
    mean: NullableFloat = Field(description="Mean over seeds of the model's score minus the control's.")
    low: NullableFloat = Field(description="Lowest lower end of the seeds' intervals of the difference.")
    high: NullableFloat = Field(description="Highest upper end of the seeds' intervals of the difference.")


class ScoreTableRow(ResultModel):
    """Scores of a model with its inputs, or of a control."""

    kind: Literal["model", "control"]
    model: str = Field(description="Name of the model, or of the control.")
    series: bool
    atmosphere: bool | None
    variant: str = Field(description="Settings that differ from the first row of the same model.")
    seeds: list[int]
    gap: GapCell | None = Field(description="Headline: the gap to the best control; null for controls.")
    parameters: int | None
    cells: dict[str, ScoreCell]


class ScoreTable(ResultModel):
    """One table."""

    title: str
    task: Task
    unit: ScoringUnit
    columns: list[str]
    rows: list[ScoreTableRow]
    notes: list[str] = Field(default_factory=list, description="What stands below the table.")


class KindDetection(ResultModel):
    """How well a model finds interferograms with one kind of deformation among all those without any."""

    task: DetectionTask
    kind: DeformationKind
    name: str = Field(description="Name of the intensity, activity type or volcano.")
    positives: int = Field(description="Interferograms, or series, of the test part that show it.")
    model: str
    series: bool
    atmosphere: bool
    variant: str = Field(description="Settings that differ from the first row of the same model.")
    best: bool = Field(
        description="Whether the setting has the highest average precision of its input on validation; "
        "Markdown shows only these."
    )
    recall: ScoreSummary = Field(description="Share of them that raise an alarm.")
    auroc: ScoreSummary


class ModelCost(ResultModel):
    """Parameters and hours of a model with its inputs, as in the paper's Tables 6 and 7."""

    task: Task
    model: str
    series: bool
    atmosphere: bool
    parameters: int = Field(description="Trainable parameters.")
    published_parameters: float | None = Field(
        description="The paper's, in millions; with atmosphere alone, whose channels it counts."
    )
    hours: NullableFloat = Field(description="Mean wall time of a run, prediction included.")
    epochs: list[int]
    published_hours: float | None = Field(
        description="The paper's: mean over inputs with and without atmosphere, 90 epochs on one RTX 3090 Ti."
    )
    note: str = Field(description="Why the parameters differ from the paper's.")


class AtmosphereEffect(ResultModel):
    """What the atmosphere changes in one score, all else equal, on the same items and resamples of events."""

    task: DetectionTask
    model: str
    series: bool
    form: str = Field(description="How the model gets the atmosphere.")
    unit: ScoringUnit
    score: str
    seeds: list[int]
    mean: NullableFloat = Field(description="Mean over seeds of the score with minus without.")
    low: NullableFloat = Field(description="Lowest lower end of the seeds' intervals of the difference.")
    high: NullableFloat = Field(description="Highest upper end of the seeds' intervals of the difference.")


class PublishedShare(ResultModel):
    """Samples, or series, of a part here and in the paper's Table 2."""

    samples: int
    published_samples: int
    positives: int = Field(description="Samples with deformation.")
    published_positives: int


class TablesDocument(ResultModel):
    """All tables of a grid (``tables.json``)."""

    format: Literal["hephaestus-tables/2"] = "hephaestus-tables/2"
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
    coverage: dict[SplitPart, PartCoverageRecord] = Field(
        description="What the windows show of the deformation, whatever the model."
    )
    events: dict[str, EventCount] = Field(
        description="Events that the test part shows, by input: single or series."
    )
    generations: dict[str, list[str]]
    versions: dict[str, list[str]]
    devices: list[str]
    code: list[str]
    trials: dict[str, int] = Field(
        description="By model: number of settings that it was trained with, for the same inputs. No setting "
        "is chosen among them, each has its own row."
    )
    paper: str = Field(description="Why the paper's scores are left out; empty if they are shown.")
    paper_samples: dict[Literal["single", "series"], dict[SplitPart, PublishedShare]] = Field(
        description="How many of the paper's samples and series are here; empty if its scores are left out."
    )
    tables: list[ScoreTable]
    costs: list[ModelCost] = Field(description="Parameters and hours beside the paper's.")
    atmosphere: list[AtmosphereEffect] = Field(
        description="Effect of the atmosphere; empty unless runs with and without it are there."
    )
    detection: list[KindDetection] = Field(
        description="Detection by intensity, activity type and volcano, for each setting."
    )
    kinds: list[KindReport] = Field(
        description="Heads that tell the kind of deformation, of `hephaestus benchmark probe` on this split."
    )


def results_json_schema() -> dict[str, Any]:
    """Return the JSON Schema of results and tables, stored as ``schemas/results.json``."""
    content = TypeAdapter(RunResult | KindRunResult | TablesDocument).json_schema(mode="serialization")
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Results of the benchmark",
        "description": "One run (result.json) or the tables of a grid (tables.json): see docs/scoring.md. "
        "Written from the types in baselines/hephaestus_baselines (result_schema.py, table_schema.py).",
        **content,
    }
