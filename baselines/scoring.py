"""Scores: how good predictions are, beside what chance and a constant predictor would reach."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import numpy as np
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PlainSerializer, WithJsonSchema

#: A score; NaN where it is undefined, which JSON writes as null.
Number = Annotated[
    float,
    BeforeValidator(lambda value: np.nan if value is None else value),
    PlainSerializer(lambda value: None if np.isnan(value) else value, when_used="json"),
    WithJsonSchema({"type": ["number", "null"]}),
]
#: ``items``: tiles. ``interferograms``: the highest of their tiles. ``pixels``: those that hold data.
#: ``all-pixels``: those without data too.
Unit = Literal["items", "interferograms", "pixels", "all-pixels"]


class Record(BaseModel):
    """A part of a result: fixed fields, none unknown."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Threshold(Record):
    """From which probability on there is deformation; only validation may choose it."""

    value: float = Field(ge=0, le=1, description="Predicted where the probability is at least this.")
    unit: Unit
    chosen_on: Literal["validation", "nothing"] = Field(
        description="What was looked at to choose it; nothing for a fixed one."
    )
    model: str = Field(description="Key of the run it was chosen for.")
    split_sha256: str
    reason: str = Field("", description="Why it could not be chosen, where it could not.")


class Scores(Record):
    """The scores of one set of items or pixels at one threshold."""

    items: int = Field(description="Items, or pixels of a segmentation.")
    positives: int
    true_positives: int
    false_positives: int
    false_negatives: int
    true_negatives: int
    threshold: float
    values: dict[str, Number] = Field(description="precision, recall, f1, and what else the unit has.")
    undefined: dict[str, str] = Field(description="Why a value is null.")
    chance: dict[str, Number] = Field(description="Of guessing at random as often as there is deformation.")
    constant: dict[str, Number] = Field(description="Of predicting deformation always.")


class Interval(Record):
    """A bootstrap interval of one score over events."""

    low: Number
    high: Number
    level: float
    resamples: int
    events: int = Field(description="Independent pieces of evidence with deformation that were resampled.")
    quiet: int = Field(description="Frames and primary acquisitions without deformation.")
    undefined: str = ""


class FrameAlarms(Record):
    """False alarms of one frame."""

    interferograms: int = Field(description="Those without deformation.")
    false_alarms: int = Field(description="How many of them raised an alarm.")
    alarm_days: int = Field(description="Different last acquisitions of these: how often someone is called.")
    years: float = Field(description="Length of the union of the spans of all its interferograms.")


class FalseAlarms(Record):
    """False alarms over all frames."""

    per_frame_year: Number
    days_per_frame_year: Number
    frame_years: float
    total: FrameAlarms
    frames: dict[str, FrameAlarms]
    threshold: float
    undefined: str = ""


class UnitScores(Record):
    """All that is said about one unit."""

    threshold: Threshold
    validation: Scores
    test: Scores
    test_at_half: Scores = Field(description="At 0.5, which nothing chose.")
    intervals: dict[str, Interval] = Field(description="Of the test scores, by score.")
    groups: dict[str, dict[str, Scores]] = Field(
        description="Test scores by frame, region, activity type and intensity."
    )


class Assessment(Record):
    """A run's scores on validation and test."""

    units: dict[Unit, UnitScores]
    false_alarms: FalseAlarms


def assess(validation: Any, test: Any, *, seed: int = 0, resamples: int = 1000) -> Assessment:
    """Choose thresholds on `validation` and score both parts with them."""
    raise NotImplementedError
