"""Types of the report of a head that tells the kind of deformation: type of activity, or intensity."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field, ValidationError

from hephaestus_baselines.evaluation.result_schema import NullableFloat, ResultModel, SanitizedText
from hephaestus_build.core.errors import HephaestusError
from hephaestus_build.core.parsing import parse_json, read_bounded
from hephaestus_build.core.plain_text import sanitize_text
from hephaestus_build.dataset.splits import SplitPart

KindTask = Literal["activity", "intensity"]
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
    windows: dict[SplitPart, int] = Field(description="Windows of each part that show it.")
    events: int = Field(description="Events of the test part that show it.")
    too_few: SanitizedText = Field("", description="Why it is in no mean over classes; empty if it is.")
    threshold: NullableFloat = Field(description="Chosen on validation; null of levels.")
    scores: dict[str, ScoreEstimate] = Field(description="By score; empty for levels.")
    controls: dict[str, dict[str, ScoreEstimate]] = Field(description="Of controls, by control and score.")


class KindControl(ResultModel):
    """A predictor that looks at no image, and by how much the head is better."""

    scores: dict[str, ScoreEstimate]
    gaps: dict[str, ScoreEstimate] = Field(description="Above 0 where the head is better, in every score.")


class KindReport(ResultModel):
    """Scores of a head on frozen features that tells the kind of deformation in deforming windows."""

    format: Literal["hephaestus-kinds/1"] = "hephaestus-kinds/1"
    task: KindTask
    model: SanitizedText = Field(description="Encoder, or key of the run whose network it is.")
    weights: SanitizedText
    simulated: bool
    split: SanitizedText
    split_sha256: str
    generations: dict[SanitizedText, SanitizedText]
    penalty: float = Field(description="Penalty of the regression, chosen on validation.")
    windows: dict[SplitPart, int] = Field(description="Deforming windows of each part.")
    events: int = Field(description="Events of the test part, over which intervals are resampled.")
    classes: list[KindSupport]
    scores: dict[str, ScoreEstimate]
    controls: dict[str, KindControl]


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
        first = error.errors()[0]["msg"] if isinstance(error, ValidationError) else error
        raise HephaestusError(
            f"{path} is no report that can be read ({sanitize_text(first, 200)}); remove it and run "
            "`hephaestus benchmark probe` again"
        ) from error
