"""What a finished run leaves behind: one JSON document that says all it takes to judge its scores."""

from __future__ import annotations

import hashlib
import platform
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    ValidationError,
    WithJsonSchema,
)

import hephaestus_build
from hephaestus_baselines.config.run_config import Task
from hephaestus_build.core.atomic_io import translate_os_errors, write_atomic
from hephaestus_build.core.embedded_hash import add_json_hash, parse_hashed_json
from hephaestus_build.core.errors import HephaestusError
from hephaestus_build.core.parsing import read_bounded
from hephaestus_build.core.plain_text import sanitize_text
from hephaestus_build.dataset.splits import SplitPart

RESULT_FORMAT: Literal["hephaestus-result/1"] = "hephaestus-result/1"
#: Bytes of a result; that of all 38 frames has less than one million.
_MAX_RESULT_BYTES = 64 << 20
#: What numbers depend on.
_LIBRARIES = (
    "hephaestus-build", "numpy", "torch", "torchvision", "lightning", "torchmetrics", "timm",
    "segmentation-models-pytorch", "zarr", "xarray",
)  # fmt: skip


#: A score; NaN where it is undefined, which JSON writes as null.
NullableFloat = Annotated[
    float,
    BeforeValidator(lambda value: np.nan if value is None else value),
    PlainSerializer(lambda value: None if np.isnan(value) else value, when_used="json"),
    WithJsonSchema({"type": ["number", "null"]}),
]
#: ``items``: tiles. ``interferograms``: the highest of their tiles. ``pixels``: those that hold data.
#: ``all-pixels``: those without data too.
ScoringUnit = Literal["items", "interferograms", "pixels", "all-pixels"]


#: A text that may come from elsewhere: cleaned here, escaped where a page is written.
SanitizedText = Annotated[str, AfterValidator(lambda text: sanitize_text(text, 2000))]


class ResultModel(BaseModel):
    """A part of a result: fixed fields, none unknown."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Threshold(ResultModel):
    """From which probability on there is deformation; only validation may choose it."""

    value: float = Field(ge=0, le=1, description="Predicted where the probability is at least this.")
    unit: ScoringUnit
    chosen_on: Literal["validation", "nothing"] = Field(
        description="What was looked at to choose it; nothing for a fixed one."
    )
    model: SanitizedText = Field(description="Key of the run it was chosen for.")
    split_sha256: str
    reason: SanitizedText = Field("", description="Why it could not be chosen, where it could not.")


class Scores(ResultModel):
    """The scores of one set of items or pixels at one threshold."""

    items: int = Field(description="Items, or pixels of a segmentation.")
    positives: int
    true_positives: int
    false_positives: int
    false_negatives: int
    true_negatives: int
    threshold: float
    values: dict[str, NullableFloat] = Field(description="precision, recall, f1, and what else the unit has.")
    undefined: dict[SanitizedText, SanitizedText] = Field(description="Why a value is null.")
    chance: dict[str, NullableFloat] = Field(
        description="Of guessing at random as often as there is deformation."
    )
    constant: dict[str, NullableFloat] = Field(description="Of predicting deformation always.")


class Interval(ResultModel):
    """A bootstrap interval of one score over events."""

    low: NullableFloat
    high: NullableFloat
    level: float
    resamples: int
    events: int = Field(description="Independent pieces of evidence with deformation that were resampled.")
    quiet: int = Field(description="Frames and primary acquisitions without deformation.")
    undefined: SanitizedText = ""


class FrameAlarms(ResultModel):
    """False alarms of one frame."""

    interferograms: int = Field(description="Those without deformation.")
    false_alarms: int = Field(description="How many of them raised an alarm.")
    alarm_days: int = Field(description="Different last acquisitions of these: how often someone is called.")
    years: float = Field(description="Length of the union of the spans of all its interferograms.")


class FalseAlarms(ResultModel):
    """False alarms over all frames."""

    per_frame_year: NullableFloat = Field(description="False alarms, over the years of all frames.")
    days_per_frame_year: NullableFloat = Field(description="Alarm days, over the same.")
    total: FrameAlarms
    frames: dict[SanitizedText, FrameAlarms]
    threshold: float
    undefined: SanitizedText = ""


class UnitScores(ResultModel):
    """All that is said about one unit."""

    threshold: Threshold
    validation: Scores
    test: Scores
    test_at_half: Scores = Field(description="At 0.5, which nothing chose.")
    intervals: dict[str, Interval] = Field(description="Of the test scores, by score.")
    groups: dict[SanitizedText, dict[SanitizedText, Scores]] = Field(
        description="Test scores by frame, region, activity type and intensity."
    )


class Assessment(ResultModel):
    """A run's scores on validation and test."""

    units: dict[ScoringUnit, UnitScores]
    false_alarms: FalseAlarms


class SplitRecord(ResultModel):
    """The split that was trained and scored on."""

    name: SanitizedText
    version: int = Field(ge=1)
    sha256: str = Field(pattern="^[0-9a-f]{64}$")
    counts: dict[SplitPart, dict[Literal["positive", "negative"], int]] = Field(
        description="Samples (or series) of each part that the cubes at hand hold, before tiling."
    )


class RunResult(ResultModel):
    """One finished run (``result.json``). It is written last: where it stands, the run is finished."""

    format: Literal["hephaestus-result/1"] = RESULT_FORMAT
    key: SanitizedText = Field(
        description="Name of the run's folder: a readable name and a hash of the recipe."
    )
    task: Task
    model: SanitizedText
    series: bool
    atmosphere: bool = Field(description="Whether the model sees the atmosphere, of whichever form.")
    seed: int
    size: int = Field(ge=1, description="Rows and columns of a window.")
    training: SanitizedText = Field(description="How windows were placed in training.")
    tiling: SanitizedText = Field(description="How windows were placed in validation and test.")
    weights: SanitizedText = Field(description="Where the first weights came from; none is from scratch.")
    recipe: dict[str, Any] = Field(description="All settings of the run.")
    command: SanitizedText = Field(description="What was typed, without paths of the machine.")
    simulated: bool = Field(description="Whether any frame is simulated: then no number is of a volcano.")
    split: SplitRecord
    generations: dict[SanitizedText, SanitizedText] = Field(description="Generation of every frame's cube.")
    versions: dict[SanitizedText, SanitizedText]
    code: SanitizedText = Field(description="Hash over the project's own source files.")
    device: SanitizedText
    parameters: int = Field(ge=0, description="Trainable parameters.")
    epochs: int = Field(ge=0, description="Epochs trained.")
    best_epoch: int = Field(ge=0, description="The epoch whose weights were kept, by validation, from 0.")
    seconds: dict[str, float] = Field(description="Wall time of each step: training, prediction.")
    samples_per_second: float = Field(ge=0, description="Items trained per second of training.")
    assessment: Assessment
    seal: str = Field(
        default="",
        pattern="^(blake3:[0-9a-f]{64})?$",
        description="BLAKE3 of all that stands before it in the file.",
    )

    def write(self, path: Path) -> None:
        """Write the result to `path`, sealed, whole or not at all.

        Raises
        ------
        HephaestusError
            If it cannot be written.
        """
        with translate_os_errors(f"{self.key}: writing {path}"):
            content = self.model_dump_json(indent=1, exclude={"seal"}).encode()
            write_atomic(path, add_json_hash(content), durable=True)

    def check_complete(self) -> None:
        """Raise ValueError unless all scores are there that tables and pictures are made of."""
        from hephaestus_baselines.evaluation.metrics import (  # which are of the types here
            METRICS_BY_UNIT,
            UNITS_BY_TASK,
        )

        for unit in UNITS_BY_TASK[self.task]:
            if (scores := self.assessment.units.get(unit)) is None:
                raise ValueError(f"it has no scores of {unit}")
            alarms = {"false_alarms_per_frame_year"} if unit == "interferograms" else set()
            sets = [set(one.values) for one in (scores.validation, scores.test, scores.test_at_half)]
            sets += [set(scores.test.constant), set(scores.test.chance), set(scores.intervals) - alarms]
            if any(set(METRICS_BY_UNIT[unit]) != names for names in sets) or alarms - scores.intervals.keys():
                raise ValueError(f"it lacks scores of {unit}")
            if scores.test.items < 1:
                raise ValueError(f"it has no {unit} in the test part")

    @classmethod
    def read(cls, path: Path) -> RunResult:
        """Read what :meth:`write` wrote.

        Raises
        ------
        HephaestusError
            If it is missing, not sealed, not what was sealed, or of another form than
            ``schemas/results.json``.
        """
        try:
            found = cls.model_validate(parse_hashed_json(read_bounded(path, _MAX_RESULT_BYTES)))
            found.check_complete()
            return found
        except (OSError, ValueError) as error:
            raise HephaestusError(
                f"{path} is no result that can be read ({_shorten_error(error)}); remove it and run "
                "`hephaestus benchmark run` again: what is trained is only scored again"
            ) from error


def library_versions() -> dict[str, str]:
    """Return the versions of Python and of the libraries that numbers depend on."""
    found = {"python": platform.python_version()}
    for name in _LIBRARIES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


@cache
def source_code_hash() -> str:
    """Return a hash over the project's own source, so that a result says which code made it without git."""
    digest = hashlib.sha256()
    packages = [Path(__file__).resolve().parents[1], Path(hephaestus_build.__file__).resolve().parent]
    for package in packages:
        for path in sorted(package.rglob("*.py")):
            digest.update(f"{path.relative_to(package.parent).as_posix()}\n".encode())
            digest.update(path.read_bytes())
    return digest.hexdigest()


def _shorten_error(error: Exception) -> str:
    if isinstance(error, ValidationError):
        first = error.errors()[0]
        return sanitize_text(f"{'.'.join(str(part) for part in first['loc'])}: {first['msg']}", 200)
    return sanitize_text(error, 200)
