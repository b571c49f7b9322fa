"""Synthetic predictions for tests."""

import numpy as np

from hephaestus_baselines.evaluation.predictions import (
    PROBABILITY_BINS,
    PredictedItem,
    Predictions,
    PredictionSource,
    item_probability,
)

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
