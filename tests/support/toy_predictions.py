"""Synthetic predictions for tests, and what two assessments are compared by."""

import json
from typing import Any

import numpy as np

from hephaestus_baselines.evaluation.predictions import (
    PROBABILITY_BINS,
    PredictedItem,
    Predictions,
    PredictionSource,
    item_probability,
)
from hephaestus_baselines.evaluation.result_schema import Assessment

CLASSIFIER = PredictionSource("classification", "toy", "strict-temporal", "0" * 64, True)
SEGMENTER = PredictionSource("segmentation", "toy", "strict-temporal", "0" * 64, True)


def row(frame="001A", pairs=("20200101_20200113",), positive=False, **fields):
    return PredictedItem(frame, tuple(pairs), positive, **fields)


def everything(label):
    """Return that every item is scored."""
    return np.ones(len(label), bool)


def classified(label, probability, rows=None, part="test", source=CLASSIFIER):
    label = np.asarray(label, bool)
    if rows is None:
        rows = [
            row(f"{place:03d}A", positive=bool(value), events=(f"event {place}",) if value else ())
            for place, value in enumerate(label)
        ]
    return Predictions(source, part, tuple(rows), label, np.asarray(probability, "f4"), everything(label))


def segmented(negative, positive, rows=None, part="test", everywhere=None):
    """Return segmentation predictions from histograms, given as {step: count} for every item."""
    pixels = np.zeros((len(negative), 2, PROBABILITY_BINS), np.uint32)
    for truth, items in enumerate((negative, positive)):
        for place, steps in enumerate(items):
            for step, count in steps.items():
                pixels[place, truth, step] = count
    label = pixels[:, 1].any(axis=1)
    if rows is None:
        rows = [row(f"{place:03d}A", positive=bool(value)) for place, value in enumerate(label)]
    both = {"data": pixels, "all": pixels if everywhere is None else everywhere}
    return Predictions(SEGMENTER, part, tuple(rows), label, item_probability(pixels), everything(label), both)


def without_names(assessment: Assessment | dict[str, Any]) -> str:
    """Return all scores as JSON, with every digit; only the name of the model in thresholds differs."""
    found = assessment if isinstance(assessment, dict) else assessment.model_dump(mode="json")
    document = json.loads(json.dumps(found))
    for unit in document["units"].values():
        for threshold in (unit["threshold"], *(one["threshold"] for one in unit["controls"].values())):
            threshold["model"] = ""
    return json.dumps(document)
