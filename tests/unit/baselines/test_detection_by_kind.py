"""Tests of detection by kind of deformation: which interferograms count, over seeds, and what is shown."""

from __future__ import annotations

import csv
import io
import math

import pytest

from hephaestus_baselines.evaluation.evaluate import evaluate_predictions
from hephaestus_baselines.evaluation.result_schema import Assessment, RunResult
from hephaestus_baselines.reporting.aggregate_tables import make_result_tables
from hephaestus_baselines.reporting.table_schema import KindDetection
from toy_predictions import classified, row
from toy_results import result

#: Intensity and volcano of the deforming interferograms; two more show none.
SHOWN = (("Low", "Monte Esempio"), ("Low", "Monte Esempio"), ("High", "Monte Esempio"), ("High", "=Cerro"))


def assess(probability: list[float]) -> Assessment:
    """Return the assessment of six interferograms, of which the first four deform."""
    made = []
    for part in ("validation", "test"):
        rows = [
            row(
                "001A",
                (f"2020{place + 1:02d}01_20210101",),
                positive=place < 4,
                events=(f"event {place}",) * (place < 4),
                intensities=SHOWN[place][:1] if place < 4 else (),
                volcanoes=SHOWN[place][1:] if place < 4 else (),
            )
            for place in range(6)
        ]
        # validation separates what deforms, so that the threshold is 0.5
        said = probability if part == "test" else [0.8] * 4 + [0.2] * 2
        made.append(classified([1, 1, 1, 1, 0, 0], said, rows, part))
    return evaluate_predictions(*made, resamples=20)


def runs() -> list[RunResult]:
    first = assess([0.1, 0.6, 0.9, 0.9, 0.2, 0.3])
    second = assess([0.6, 0.7, 0.9, 0.4, 0.2, 0.3])
    return [
        result(seed=0, assessment=first),
        result(seed=1, assessment=second),
        result(seed=0, series=True, assessment=second),
        result(seed=0, control="terrain only", assessment=first),
    ]


def found_of(made: list[KindDetection], name: str, *, series: bool = False) -> KindDetection:
    [one] = [found for found in made if (found.name, found.series) == (name, series)]
    return one


def test_each_kind_is_scored_against_what_shows_no_deformation() -> None:
    made = make_result_tables(runs()).document.detection
    low = found_of(made, "Low")
    assert (low.kind, low.positives) == ("intensity", 2)
    # of two, one seed finds one and the other both
    assert low.recall.mean == pytest.approx(0.75)
    assert low.recall.deviation == pytest.approx(math.sqrt(0.125))
    # seed 0 ranks 0.6 above both quiet ones and 0.1 below them; seed 1 ranks all above
    assert low.auroc.mean == pytest.approx((0.5 + 1) / 2)
    assert found_of(made, "Monte Esempio").positives == 3
    assert math.isnan(found_of(made, "Low", series=True).recall.deviation)  # of a single seed
    assert len(made) == 8  # two intensities and two volcanoes, twice; the control has none


def test_intensities_are_in_the_order_of_their_fringes_and_only_the_best_setting_is_in_markdown() -> None:
    weak = result("resnet-18", assessment=assess([0.6] * 6))
    weak = weak.model_copy(
        update={
            "assessment": weak.assessment.model_copy(
                update={
                    "units": {name: _ranked_at_random(unit) for name, unit in weak.assessment.units.items()}
                }
            )
        }
    )
    tables = make_result_tables([weak, *runs()])
    assert {found.model for found in tables.document.detection if found.best} == {"resnet-10"}
    text = tables.to_markdown()
    [section] = [part for part in text.split("## ") if part.startswith("What classification finds")]
    assert section.index("intensity Low") < section.index("intensity High")
    assert section.count("intensity Low") == 2
    assert section.startswith(
        "What classification finds, by intensity (fringes), activity and volcano, simulated"
    )
    assert "| 75.00 ± 35.36 | 75.00 ± 35.36 |" in section
    lines = csv.DictReader(line for line in io.StringIO(tables.to_csv()) if not line.startswith("#"))
    detected = [line for line in lines if line["deformation"]]
    assert len(detected) == 2 * 12
    assert {line["deformation"] for line in detected} == {
        "intensity: Low", "intensity: High", "volcano: Monte Esempio", "volcano: =Cerro",
    }  # fmt: skip
    assert all(line["simulated"] == "true" and line["unit"] == "interferograms" for line in detected)


def _ranked_at_random(unit):
    values = {**unit.validation.values, "average_precision": 0.3}
    return unit.model_copy(update={"validation": unit.validation.model_copy(update={"values": values})})
