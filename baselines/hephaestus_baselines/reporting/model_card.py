"""The model card of an exported model: what it is, what it may be used for, and what it finds."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

import yaml

from hephaestus_baselines.config.architecture_catalog import MODELS
from hephaestus_baselines.config.tasks import TASK_SPECS
from hephaestus_baselines.evaluation.result_schema import RunResult
from hephaestus_baselines.reporting.headline import (
    SCORE_TITLES,
    UNIT_TITLES,
    Headline,
    find_headline,
    format_with_interval,
)
from hephaestus_baselines.training.exported_model import ModelCalibration, ModelDescription
from hephaestus_build.core.plain_text import count_of
from hephaestus_build.report.markdown import code_span, escape_markdown, markdown_table

_PIPELINES = {"classification": "image-classification", "segmentation": "image-segmentation"}
_SIMULATED = (
    "**SIMULATED.** This model was trained and scored on simulated interferograms. Its scores show that the "
    "software works, and say nothing of a volcano. Do not use it on real data for any decision."
)
_USE = (
    "Research on volcanic deformation in wrapped Sentinel-1 interferograms, and sorting of new ones for an "
    "expert to look at. It is not meant to raise an alarm without an expert, to measure a displacement, or "
    "to show that a volcano is quiet: what it finds depends on coherence, atmosphere, season and terrain, "
    "and volcanoes that it has not seen may look different. Probabilities are the model's own; "
    "`calibration.json` maps those of interferograms to calibrated ones, and its thresholds were chosen on "
    "validation alone."
)
_SCORES = (
    "95 % intervals are over events. The best control looks at no image; a gap whose interval includes 0 "
    "shows nothing. `result.json` has all scores, groups and controls."
)
_CREDIT = (
    "The interferograms of training are made of modified Copernicus Sentinel data by COMET (LiCSAR, Open "
    "Government Licence v3); ERA5 is generated using Copernicus Climate Change Service information; the "
    "labels are those of Hephaestus."
)


def render_model_card(
    about: ModelDescription, calibration: ModelCalibration, result: RunResult, *, license_id: str
) -> str:
    """Return the model card as Markdown with YAML in front, as model hubs read it.

    Parameters
    ----------
    about : ModelDescription
    calibration : ModelCalibration
    result : RunResult
        The scores of the run.
    license_id : str
        Identifier of the licence of the weights.
    """
    recipe = about.recipe
    headlines = [find_headline(result.assessment, unit) for unit in TASK_SPECS[recipe.task].units]
    marked = " (simulated data)" if about.simulated else ""
    scores = [
        (
            UNIT_TITLES[found.unit],
            SCORE_TITLES[found.score],
            format_with_interval(found.value, found.low, found.high),
            format_with_interval(found.gap.value, found.gap.low, found.gap.high, signed=True),
            escape_markdown(found.control or "-"),
            f"{calibration.thresholds[found.unit].value:.4f}",
        )
        for found in headlines
    ]
    credit = f"{_CREDIT} Here, all of them are simulated." if about.simulated else _CREDIT
    parts = [
        f"---\n{_front_matter(about, headlines, license_id)}---",
        f"# {MODELS[recipe.model].title}: {recipe.task} of volcanic deformation{marked}",
        *([f"> {_SIMULATED}"] if about.simulated else []),
        f"Run {code_span(recipe.key)}, exported by hephaestus-build.",
        "## Intended use",
        _USE,
        "## How to use it",
        "```sh\nhephaestus benchmark predict FRAME --model THIS_FOLDER\n```",
        "It needs no network and no other file. Every file is checked against `manifest.json` first.",
        "## Model",
        markdown_table(("", ""), _model_rows(about, result)),
        "## Training data",
        markdown_table(("", ""), _data_rows(about, result)),
        "## Scores on the test part",
        _SCORES,
        markdown_table(("unit", "score", "value", "gap to the best control", "control", "threshold"), scores),
        markdown_table(("control", "unit", "score", "value"), _control_rows(result, headlines)),
        markdown_table(("alarms of interferograms", ""), _alarm_rows(result)),
        "## Licence and credit",
        f"Licence of the weights: {escape_markdown(license_id)}. {credit}",
    ]
    return "\n\n".join(parts) + "\n"


def _front_matter(about: ModelDescription, headlines: Iterable[Headline], license_id: str) -> str:
    task = {"type": _PIPELINES[about.recipe.task]}
    data = f"hephaestus-build cubes, split {about.split}" + (" (simulated)" if about.simulated else "")
    metrics = [
        {
            "type": found.score,
            "name": f"{SCORE_TITLES[found.score]} of {UNIT_TITLES[found.unit]}, test",
            "value": round(found.value, 6),
        }
        for found in headlines
        if not math.isnan(found.value)
    ]
    scored = {
        "task": task,
        "dataset": {"name": data, "type": "hephaestus-build", "revision": about.split_sha256},
        "metrics": metrics,
    }
    tags = ["InSAR", "Sentinel-1", "volcano", "deformation"]
    matter = {
        "license": license_id,
        "library_name": "hephaestus-build",
        "pipeline_tag": task["type"],
        "tags": [*tags, "simulated"] if about.simulated else tags,
        "model-index": [{"name": about.recipe.key, "results": [scored]}],
    }
    return yaml.safe_dump(matter, sort_keys=False, allow_unicode=False, width=110)


def _model_rows(about: ModelDescription, result: RunResult) -> list[tuple[str, str]]:
    recipe = about.recipe
    form = "three interferograms of one primary date" if recipe.series else "one interferogram"
    return [
        ("architecture", f"{MODELS[recipe.model].title} ({recipe.model})"),
        ("parameters", f"{result.parameters:,}"),
        ("input", f"{form}, windows of {recipe.size} x {recipe.size} pixels"),
        ("channels", escape_markdown(", ".join(about.normalisation))),
        ("first weights", escape_markdown(result.weights)),
        ("epoch", f"{about.epoch} of {result.epochs}, chosen on validation"),
        ("command", code_span(result.command)),
    ]


def _data_rows(about: ModelDescription, result: RunResult) -> list[tuple[str, str]]:
    counts = [
        f"{part} {found['positive']} with deformation, {found['negative']} without"
        for part, found in result.split.counts.items()
    ]
    versions = ", ".join(f"{name} {number}" for name, number in about.versions.items())
    frames = count_of(len(about.generations), "frame")
    return [
        ("data", "simulated" if about.simulated else "LiCSAR interferograms, Hephaestus annotations"),
        ("split", f"{escape_markdown(about.split)}, version {result.split.version}, {about.split_sha256}"),
        ("series of the split" if about.recipe.series else "samples of the split", "; ".join(counts)),
        ("windows of validation and test", escape_markdown(result.tiling)),
        ("cubes", f"{frames}; recipe.json names the generation of each"),
        ("versions", escape_markdown(versions)),
    ]


def _control_rows(result: RunResult, headlines: Iterable[Headline]) -> list[tuple[str, ...]]:
    rows: list[tuple[str, ...]] = []
    for found in headlines:
        scores = result.assessment.units[found.unit]
        values: Mapping[str, float] = {
            "chance": scores.test.chance[found.score],
            "always deformation": scores.test.constant[found.score],
            **{name: one.test.values[found.score] for name, one in scores.controls.items()},
        }
        rows += [
            (escape_markdown(name), UNIT_TITLES[found.unit], SCORE_TITLES[found.score], _number(value))
            for name, value in values.items()
        ]
    return rows


def _alarm_rows(result: RunResult) -> list[tuple[str, str]]:
    events, alarms = result.assessment.events, result.assessment.false_alarms
    calibration = result.assessment.calibration
    return [
        ("events found", f"{events.found} of {events.events}"),
        ("false alarms per frame-year", _number(alarms.per_frame_year)),
        ("days with false alarms per frame-year", _number(alarms.days_per_frame_year)),
        ("calibration error", _number(calibration.ece)),
        ("calibration error, calibrated", _number(calibration.ece_calibrated)),
    ]


def _number(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.3f}"
