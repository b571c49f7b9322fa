"""Result of a finished run (``result.json``): its scores, and all that is needed to interpret them."""

from __future__ import annotations

import hashlib
import platform
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import numpy as np
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    WithJsonSchema,
)

import hephaestus_build
from hephaestus_baselines.config.tasks import (
    KIND_TASKS,
    TASK_SPECS,
    DetectionTask,
    ScoringUnit,
    Task,
    require_detection,
)
from hephaestus_baselines.config.validation_errors import first_mistake
from hephaestus_build.core.atomic_io import translate_os_errors, write_atomic
from hephaestus_build.core.embedded_hash import add_json_hash, parse_hashed_json
from hephaestus_build.core.errors import HephaestusError
from hephaestus_build.core.parsing import read_bounded
from hephaestus_build.core.plain_text import sanitize_text
from hephaestus_build.dataset.splits import SplitPart

RESULT_FORMAT: Literal["hephaestus-result/2"] = "hephaestus-result/2"
#: Maximum bytes of a result; one for all 38 frames has less than 1 MB.
_MAX_RESULT_BYTES = 64 << 20
#: Libraries that results depend on.
_LIBRARIES = (
    "hephaestus-build", "numpy", "torch", "torchvision", "lightning", "torchmetrics", "timm",
    "segmentation-models-pytorch", "zarr", "xarray",
)  # fmt: skip


#: A score; NaN if undefined, written as null in JSON.
NullableFloat = Annotated[
    float,
    BeforeValidator(lambda value: np.nan if value is None else value),
    PlainSerializer(lambda value: None if np.isnan(value) else value, when_used="json"),
    WithJsonSchema({"type": ["number", "null"]}),
]

#: A text from an untrusted source: control characters are removed here; pages escape it.
SanitizedText = Annotated[str, AfterValidator(lambda text: sanitize_text(text, 2000))]


class ResultModel(BaseModel):
    """Base of all parts of a result; unknown fields are rejected."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Threshold(ResultModel):
    """Probability at or above which deformation is predicted; it may be chosen on validation only."""

    value: float = Field(ge=0, le=1, description="Probability from which deformation is predicted.")
    unit: ScoringUnit
    chosen_on: Literal["validation", "nothing"] = Field(
        description="Part that it was chosen on; nothing for a fixed threshold."
    )
    model: SanitizedText = Field(description="Key of the run that it was chosen for.")
    split_sha256: str
    reason: SanitizedText = Field("", description="Why it could not be chosen; empty if it could.")


class Scores(ResultModel):
    """The scores of one set of items or pixels at one threshold."""

    items: int = Field(description="Number of items, or of pixels of a segmentation.")
    positives: int
    true_positives: int
    false_positives: int
    false_negatives: int
    true_negatives: int
    threshold: float
    values: dict[str, NullableFloat] = Field(description="Scores of the unit: precision, recall, f1, others.")
    undefined: dict[SanitizedText, SanitizedText] = Field(description="Why a value is null.")
    chance: dict[str, NullableFloat] = Field(
        description="Expected scores of predicting deformation at random, at its true frequency."
    )
    constant: dict[str, NullableFloat] = Field(description="Scores of always predicting deformation.")


class Interval(ResultModel):
    """A bootstrap interval of one score over events."""

    low: NullableFloat
    high: NullableFloat
    level: float
    resamples: int
    events: int = Field(description="Number of resampled clusters with deformation.")
    quiet: int = Field(description="Number of resampled clusters without deformation.")
    undefined: SanitizedText = ""


class FrameAlarms(ResultModel):
    """False alarms of one frame."""

    interferograms: int = Field(description="Number of interferograms without deformation.")
    false_alarms: int = Field(description="Number of these with an alarm.")
    alarm_days: int = Field(description="Number of distinct last acquisitions of false alarms.")
    years: float = Field(description="Length of the union of the time spans of all interferograms.")


class FalseAlarms(ResultModel):
    """False alarms over all frames."""

    per_frame_year: NullableFloat = Field(description="False alarms divided by the years of all frames.")
    days_per_frame_year: NullableFloat = Field(description="Alarm days divided by the years of all frames.")
    total: FrameAlarms
    frames: dict[SanitizedText, FrameAlarms]
    threshold: float
    undefined: SanitizedText = ""


class Gap(ResultModel):
    """Difference of a model's score from a control's, with a bootstrap interval over the same resamples."""

    value: NullableFloat
    low: NullableFloat
    high: NullableFloat


class SamePlaceScores(ResultModel):
    """Scores of windows matched by place: what depends on the place alone has an AUROC of exactly 0.5."""

    places: int = Field(description="Windows of frames that have deformation in some interferograms only.")
    positives: int = Field(description="Items with deformation in these windows.")
    quiet: int = Field(description="Items without, weighted to the same sum in each window.")
    auroc: NullableFloat
    average_precision: NullableFloat
    undefined: SanitizedText = ""


class EventDetection(ResultModel):
    """Alarms of one event."""

    event: SanitizedText
    interferograms: int = Field(description="Number of interferograms that show the event.")
    alarms: int = Field(description="Number of these with an alarm.")
    onset: str = Field(description="Last acquisition of the first interferogram that shows the event.")
    delay_days: int | None = Field(description="Days from onset to the first alarm; null without an alarm.")
    delay_acquisitions: int | None = Field(
        description="Acquisitions with an interferogram of the event from onset to the first alarm."
    )


class EventAlarms(ResultModel):
    """Alarms by event: each event weighs one, however many interferograms show it."""

    events: int
    found: int = Field(description="Number of events with an alarm.")
    recall: NullableFloat = Field(description="Share of the events with an alarm.")
    recall_low: NullableFloat = Field(description="Lower end of its 95 % interval (Wilson) over events.")
    recall_high: NullableFloat
    macro_recall: NullableFloat = Field(
        description="Mean over events of the share of their interferograms that raise an alarm."
    )
    macro_recall_low: NullableFloat = Field(
        description="Lower end of its 95 % interval (Student's t) over events."
    )
    macro_recall_high: NullableFloat
    effective_events: float = Field(
        description="Effective number of events, (sum n)^2 / sum n^2 over their numbers of interferograms."
    )
    median_delay_days: NullableFloat
    median_delay_acquisitions: NullableFloat
    detections: list[EventDetection]


class AlarmBudget(ResultModel):
    """Best operating point within a number of days with false alarms for each frame-year."""

    days_per_frame_year: NullableFloat
    recall: NullableFloat = Field(
        description="Share of the interferograms with deformation that raise an alarm."
    )
    event_recall: NullableFloat = Field(description="Share of the events of which one does.")
    threshold: NullableFloat = Field(description="Null where any alarm at all is too many.")


class AlarmCurve(ResultModel):
    """Recall against the days with false alarms, over all thresholds."""

    budgets: dict[SanitizedText, AlarmBudget] = Field(
        description="By the accepted days with false alarms for each frame-year."
    )
    days_per_frame_year: list[NullableFloat]
    recall: list[NullableFloat]
    event_recall: list[NullableFloat]


class ReliabilityBin(ResultModel):
    """One bin of a reliability diagram."""

    cases: int
    probability: float = Field(description="Mean predicted probability.")
    share: float = Field(description="Share of the cases that have deformation.")


class CalibrationScores(ResultModel):
    """Calibration of probabilities on test, before and after a mapping that was fitted on validation."""

    slope: float = Field(description="Slope of the mapping of logits.")
    offset: float
    fitted_on: Literal["validation", "nothing"]
    brier: NullableFloat
    brier_calibrated: NullableFloat
    brier_constant: NullableFloat = Field(description="Brier score of the share of positives.")
    ece: NullableFloat = Field(description="Expected calibration error, in bins of equally many cases.")
    ece_calibrated: NullableFloat
    bins: list[ReliabilityBin]
    bins_calibrated: list[ReliabilityBin]


class ControlScores(ResultModel):
    """Scores of a control, which looks at no image, on the same cases as a model."""

    threshold: Threshold
    test: Scores
    gaps: dict[str, Gap] = Field(description="The model's score minus the control's, by score.")
    events: EventAlarms | None = Field(
        default=None, description="Its alarms by event; of interferograms only, without the single events."
    )
    budgets: dict[SanitizedText, AlarmBudget] = Field(
        default_factory=dict, description="Its best operating points; of interferograms only."
    )


class UnitScores(ResultModel):
    """Scores, thresholds and intervals in one scoring unit."""

    threshold: Threshold
    validation: Scores
    test: Scores
    test_at_half: Scores = Field(description="Test scores at the fixed threshold 0.5.")
    intervals: dict[str, Interval] = Field(description="Bootstrap intervals of the test scores, by score.")
    groups: dict[SanitizedText, dict[SanitizedText, Scores]] = Field(
        description="Test scores by frame, region, volcano, activity type and intensity (of fringes)."
    )
    controls: dict[SanitizedText, ControlScores] = Field(
        description="Scores of computed controls on the same cases."
    )


class Assessment(ResultModel):
    """A run's scores on validation and test."""

    units: dict[ScoringUnit, UnitScores]
    false_alarms: FalseAlarms
    same_places: SamePlaceScores
    events: EventAlarms
    alarm_curve: AlarmCurve
    calibration: CalibrationScores = Field(description="Of the highest probability of each interferogram.")


class PartCoverageRecord(ResultModel):
    """How much of the deformation of a part the windows contain."""

    positives: int
    seen: int = Field(description="Interferograms with at least half of their deforming pixels in windows.")
    touched: int = Field(description="Interferograms with any deforming pixel in windows.")
    pixels_seen: NullableFloat = Field(description="Share of the deforming pixels that lie in windows.")
    uncertain: int = Field(description="Positives whose outlines are uncertain.")
    uncertain_left_out: int = Field(description="Samples or series left out because outlines are uncertain.")


class SplitRecord(ResultModel):
    """The split of training and scoring."""

    name: SanitizedText
    version: int = Field(ge=1)
    sha256: str = Field(pattern="^[0-9a-f]{64}$")
    counts: dict[SplitPart, dict[Literal["positive", "negative"], int]] = Field(
        description="Samples (or series) of each part in the cubes of the run, before tiling."
    )


class RunRecord(ResultModel):
    """One finished run (``result.json``). The file is written last, so a run that has it is finished."""

    format: Literal["hephaestus-result/2"] = RESULT_FORMAT
    key: SanitizedText = Field(
        description="Name of the run's folder: a readable name and a hash of the recipe."
    )
    task: Task
    model: SanitizedText
    series: bool
    atmosphere: bool = Field(description="Whether the model uses the atmosphere, in any form.")
    seed: int
    size: int = Field(ge=1, description="Rows and columns of a window.")
    training: SanitizedText = Field(description="How windows were placed in training.")
    tiling: SanitizedText = Field(description="How windows were placed in validation and test.")
    weights: SanitizedText = Field(description="Source of the initial weights; none is from scratch.")
    recipe: dict[str, Any] = Field(description="All settings of the run.")
    command: SanitizedText = Field(description="The command, without paths of the machine.")
    simulated: bool = Field(description="Whether any frame is simulated, not a real volcano.")
    split: SplitRecord
    coverage: dict[SplitPart, PartCoverageRecord] = Field(
        description="What the windows of validation and test show of the deformation, whatever the model."
    )
    generations: dict[SanitizedText, SanitizedText] = Field(description="Generation of every frame's cube.")
    versions: dict[SanitizedText, SanitizedText]
    code: SanitizedText = Field(description="Hash of the project's source files.")
    device: SanitizedText
    parameters: int = Field(ge=0, description="Trainable parameters.")
    epochs: int = Field(ge=0, description="Epochs trained.")
    best_epoch: int = Field(ge=0, description="Epoch of the kept weights, chosen on validation, from 0.")
    seconds: dict[str, float] = Field(description="Wall time of each step: training, prediction.")
    samples_per_second: float = Field(ge=0, description="Items trained per second of training.")
    seal: str = Field(
        default="",
        pattern="^(blake3:[0-9a-f]{64})?$",
        description="BLAKE3 hash of the file up to this field.",
    )

    def write(self, path: Path) -> None:
        """Write the result to `path` with its content hash, atomically.

        Raises
        ------
        HephaestusError
            If the file cannot be written.
        """
        with translate_os_errors(f"{self.key}: writing {path}", setting="--results"):
            content = self.model_dump_json(indent=1, exclude={"seal"}).encode()
            write_atomic(path, add_json_hash(content), durable=True)

    def check_complete(self) -> None:
        """Raise ValueError unless all scores that tables and figures need are present."""

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read a file that :meth:`write` wrote.

        Raises
        ------
        UsageError
            If the run tells the kind of deformation, and one that tells it from none is asked for.
        HephaestusError
            If the file is missing or without content hash, does not match its hash, or does not follow
            ``schemas/results.json``.
        """
        try:
            document = parse_hashed_json(read_bounded(path, _MAX_RESULT_BYTES))
            if issubclass(cls, RunResult) and document.get("task") in KIND_TASKS:
                require_detection(document["task"], f"{path}: what is asked for")
            found = cls.model_validate(document)
            found.check_complete()
            return found
        except (OSError, ValueError) as error:
            raise HephaestusError(
                f"{path} is no result that can be read ({first_mistake(error)}); remove it and run "
                "`hephaestus benchmark run` again: the trained model is only scored again"
            ) from error


class RunResult(RunRecord):
    """A finished run that tells deformation from none."""

    task: DetectionTask
    assessment: Assessment

    def check_complete(self) -> None:
        """Raise ValueError unless all scores that tables and figures need are present."""
        from hephaestus_baselines.evaluation.metrics import METRICS_BY_UNIT  # it imports this module

        for unit in TASK_SPECS[self.task].units:
            if (scores := self.assessment.units.get(unit)) is None:
                raise ValueError(f"it has no scores of {unit}")
            alarms = {"false_alarms_per_frame_year"} if unit == "interferograms" else set()
            sets = [set(one.values) for one in (scores.validation, scores.test, scores.test_at_half)]
            sets += [set(scores.test.constant), set(scores.test.chance), set(scores.intervals) - alarms]
            if any(set(METRICS_BY_UNIT[unit]) != names for names in sets) or alarms - scores.intervals.keys():
                raise ValueError(f"it lacks scores of {unit}")
            if scores.test.items < 1:
                raise ValueError(f"it has no {unit} in the test part")


def library_versions() -> dict[str, str]:
    """Return the versions of Python and of the libraries that results depend on."""
    found = {"python": platform.python_version()}
    for name in _LIBRARIES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


@cache
def source_code_hash() -> str:
    """Return a hash of the project's source files, which identifies the code of a result without git."""
    digest = hashlib.sha256()
    packages = [Path(__file__).resolve().parents[1], Path(hephaestus_build.__file__).resolve().parent]
    for package in packages:
        for path in sorted(package.rglob("*.py")):
            digest.update(f"{path.relative_to(package.parent).as_posix()}\n".encode())
            digest.update(path.read_bytes())
    return digest.hexdigest()
