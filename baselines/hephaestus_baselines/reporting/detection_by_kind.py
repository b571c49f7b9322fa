"""Detection by kind of deformation: which intensities (fringes), activities and volcanoes a model finds."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from statistics import mean

from hephaestus_baselines.config.tasks import DetectionTask
from hephaestus_baselines.evaluation.metrics import DEFORMATION_KINDS
from hephaestus_baselines.evaluation.result_schema import RunResult
from hephaestus_baselines.reporting.table_schema import KindDetection, ScoreSummary, kind_order


def detections_by_kind(
    task: DetectionTask, settings: Sequence[tuple[Sequence[RunResult], str]]
) -> list[KindDetection]:
    """Return recall and AUROC of each kind of deformation by interferogram, for each setting of a task.

    Parameters
    ----------
    task : {"classification", "segmentation"}
    settings : sequence of tuple
        Runs of one setting, one for each seed, and what tells it from others of the same model.
    """
    best = {
        series: max(
            (members for members, _ in settings if members[0].series == series), key=_validation_score
        )
        for series in {members[0].series for members, _ in settings}
    }
    found = []
    for members, variant in settings:
        first = members[0]
        scores = [result.assessment.units["interferograms"].groups for result in members]
        for kind in DEFORMATION_KINDS:
            for name in sorted(scores[0].get(kind, {}), key=partial(kind_order, kind)):
                known = [one[kind][name] for one in scores if name in one.get(kind, {})]
                found.append(
                    KindDetection(
                        task=task,
                        kind=kind,
                        name=name,
                        positives=known[0].positives,
                        model=first.model,
                        series=first.series,
                        atmosphere=first.atmosphere,
                        variant=variant,
                        best=members is best[first.series],
                        recall=ScoreSummary.over_seeds(one.values["recall"] for one in known),
                        auroc=ScoreSummary.over_seeds(one.values["auroc"] for one in known),
                    )
                )
    return found


def _validation_score(members: Sequence[RunResult]) -> float:
    values = [
        result.assessment.units["interferograms"].validation.values["average_precision"] for result in members
    ]
    return mean(-1.0 if math.isnan(value) else value for value in values)
