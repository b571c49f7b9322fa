"""Scores of models that tell the kind of deformation: trained ones, and heads on frozen networks."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
from pydantic import Field

from hephaestus_baselines.config.tasks import KindTask
from hephaestus_baselines.config.validation_errors import first_mistake
from hephaestus_baselines.evaluation.result_schema import (
    NullableFloat,
    ResultModel,
    RunRecord,
    RunResult,
    SanitizedText,
)
from hephaestus_build.core.errors import HephaestusError, UsageError
from hephaestus_build.core.parsing import parse_json, read_bounded
from hephaestus_build.dataset.splits import SplitPart

#: Folder of the reports, beside the grids of one folder of results.
KINDS_FOLDER = "kinds"
_MAX_REPORT_BYTES, _MAX_REPORTS = 4 << 20, 1000


class ScoreEstimate(ResultModel):
    """A score of test with its bootstrap interval over events."""

    value: NullableFloat
    low: NullableFloat
    high: NullableFloat


class KindSupport(ResultModel):
    """One type of activity, or one level of intensity, and its scores."""

    name: SanitizedText
    windows: dict[SplitPart, int] = Field(
        description="Windows of validation and test that show it; interferograms of train."
    )
    events: int = Field(description="Events of the test part that show it.")
    too_few: SanitizedText = Field("", description="Why it is in no mean over classes; empty if it is.")
    answers: list[int] = Field(
        description="Windows of test that show it, by answer in the order of the classes."
    )
    scores: dict[str, ScoreEstimate] = Field(description="Precision, recall and F1.")
    controls: dict[SanitizedText, dict[str, ScoreEstimate]] = Field(
        description="The same of controls, by control."
    )


class KindControl(ResultModel):
    """A predictor that looks at no image, and by how much the model is better."""

    scores: dict[str, ScoreEstimate]
    gaps: dict[str, ScoreEstimate] = Field(description="Above 0 where the model is better, in every score.")


class KindAssessment(ResultModel):
    """Scores of a model that tells the kind of deformation, on windows that show some of a known kind."""

    windows: dict[SplitPart, int] = Field(description="Scored windows of validation and test.")
    events: int = Field(description="Events of the test part, over which intervals are resampled.")
    classes: list[KindSupport]
    validation: dict[str, NullableFloat] = Field(description="Scores of validation.")
    scores: dict[str, ScoreEstimate] = Field(description="Scores over all classes, of test.")
    undefined: SanitizedText = Field(
        "", description="Why means over classes are null; empty if they are not."
    )
    controls: dict[SanitizedText, KindControl]

    @property
    def kept(self) -> npt.NDArray[np.bool]:
        """Whether each class is in the means, bool (K,)."""
        return np.array([not one.too_few for one in self.classes], bool)


class KindRunResult(RunRecord):
    """A finished run that tells the kind of deformation (``result.json``)."""

    task: KindTask
    assessment: KindAssessment


def read_run_result(path: Path) -> RunResult | KindRunResult:
    """Read the result of a run of any task.

    Raises
    ------
    HephaestusError
        As :meth:`RunRecord.read`.
    """
    try:
        return RunResult.read(path)
    except UsageError:  # it tells the kind of deformation
        return KindRunResult.read(path)


class KindReport(KindAssessment):
    """Scores of a head on frozen features that tells the kind of deformation in deforming windows."""

    format: Literal["hephaestus-kinds/2"] = "hephaestus-kinds/2"
    task: KindTask
    model: SanitizedText = Field(description="Encoder, or key of the run whose network it is.")
    weights: SanitizedText
    series: bool
    atmosphere: bool = Field(description="Whether the network sees the atmosphere, in any form.")
    seed: int
    simulated: bool
    split: SanitizedText
    split_sha256: str
    generations: dict[SanitizedText, SanitizedText]
    penalty: float = Field(description="Penalty of the regression, chosen on validation.")


def read_kind_reports(results: Path, split_sha256: str, problems: list[str]) -> list[KindReport]:
    """Return the reports in a folder of results that are of a split, by task and network.

    Parameters
    ----------
    results : pathlib.Path
        Folder of results, with ``kinds/`` in it.
    split_sha256 : str
        Hash of the split.
    problems : list of str
        Descriptions of reports that cannot be read are appended here.
    """
    found = []
    for path in sorted((results / KINDS_FOLDER).glob("*.json"))[:_MAX_REPORTS]:
        try:
            found.append(read_kind_report(path))
        except HephaestusError as error:
            problems.append(str(error))
    mine = [report for report in found if report.split_sha256 == split_sha256]
    return sorted(mine, key=lambda report: (report.task, report.model, report.weights))


def read_kind_report(path: Path) -> KindReport:
    """Read a report that ``hephaestus benchmark probe`` wrote.

    Raises
    ------
    HephaestusError
        If it is missing or damaged.
    """
    try:
        return KindReport.model_validate(parse_json(read_bounded(path, _MAX_REPORT_BYTES)))
    except (OSError, ValueError) as error:
        raise HephaestusError(
            f"{path} is no report that can be read ({first_mistake(error)}); remove it and run "
            "`hephaestus benchmark probe` again"
        ) from error
