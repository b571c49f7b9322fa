"""Synthetic results of benchmark runs for tests."""

from functools import cache

import numpy as np

from hephaestus_baselines.data.dataset_items import KnownInterferogram
from hephaestus_baselines.evaluation.controls import frame_prior, persistence
from hephaestus_baselines.evaluation.evaluate import evaluate_predictions
from hephaestus_baselines.evaluation.predictions import (
    PROBABILITY_BINS,
    Predictions,
    PredictionSource,
    item_probability,
)
from hephaestus_baselines.evaluation.result_schema import RunResult, SplitRecord
from hephaestus_build.core.frames import Pair
from hephaestus_build.dataset.published_counts import PUBLISHED_TABLE_2
from toy_predictions import row


def toy_predictions(result):
    """The test predictions of a result that :func:`result` made."""
    return _predictions(result.task, result.seed, 0.3 + 0.1 * result.atmosphere)[1]


@cache
def _predictions(task, seed, skill):
    chance = np.random.default_rng(seed)
    said = []
    for part in ("validation", "test"):
        rows = [
            row(
                f"{200 + place % 3}A_00001_000001",
                [f"2020{place // 28 + 1:02d}{place % 28 + 1:02d}_20210101"],
                positive=place % 5 == 0,
                events=(f"event {place % 4}",) * (place % 5 == 0),
                region="simulated",
                activity_types=("Mogi",) * (place % 5 == 0),
            )
            for place in range(60)
        ]
        label = np.array([item.positive for item in rows])
        probability = np.clip(skill * label + chance.normal(0.3, 0.15, len(rows)), 0, 1).astype("f4")
        pixels = None
        if task == "segmentation":
            values = np.zeros((len(rows), 2, PROBABILITY_BINS), np.uint32)
            values[
                np.arange(len(rows)), label.astype(int), (probability * (PROBABILITY_BINS - 1)).astype(int)
            ] = 400
            values[:, 0, 20] += 4000
            pixels, probability = {"data": values, "all": values}, item_probability(values)
        source = PredictionSource(task, "toy", "strict-temporal", "0" * 64, True)
        said.append(
            Predictions(source, part, tuple(rows), label, probability, np.ones(len(rows), bool), pixels)
        )
    return said


@cache
def assessment(task, seed, skill):
    said = _predictions(task, seed, skill)
    known = [
        KnownInterferogram(item.frame, Pair.parse(item.pairs[0]), place % 2 == 0, item.positive)
        for place, item in enumerate(said[0].rows)
    ]
    controls = {"frame prior": frame_prior(known), "persistence": persistence(known)}
    return evaluate_predictions(*said, controls=controls, resamples=40)


def result(
    model="resnet-10", task="classification", *, series=False, atmosphere=False, seed=0, skill=0.3,
    simulated=True, split="strict-temporal", tiling="whole-frame", training="random", size=512, control="",
    epochs=3, weights="none", **fields,
):  # fmt: skip
    kind = "series" if series else "single"
    recipe = {"model": model, "seed": seed, "atmosphere": "both" if atmosphere else "none", "epochs": epochs}
    recipe |= {"control": control, "weights": weights}
    counts = {"positives": 40, "seen": 39, "touched": 40, "pixels_seen": 0.96, "uncertain": 2}
    record = {
        "key": f"{model}-{kind}-{atmosphere}-{seed}",
        "task": task,
        "model": model,
        "series": series,
        "atmosphere": atmosphere,
        "seed": seed,
        "size": size,
        "training": training,
        "tiling": tiling,
        "weights": weights,
        "recipe": recipe,
        "command": "hephaestus benchmark run small",
        "simulated": simulated,
        "split": SplitRecord(
            name=split, version=1, sha256="a" * 64,
            counts={part: PUBLISHED_TABLE_2[part][kind] for part in ("train", "validation", "test")},
        ),
        "coverage": {
            part: {**counts, "uncertain_left_out": 0} for part in ("train", "validation", "test")
        },
        "generations": {"200A_00001_000001": "3:abc"},
        "versions": {"python": "3.11.7", "torch": "2.15.0"},
        "code": "c" * 64,
        "device": "cpu",
        "parameters": 5_000_000,
        "epochs": 3,
        "best_epoch": 2,
        "seconds": {"training": 10.0},
        "samples_per_second": 12.5,
        "assessment": assessment(task, seed, skill + 0.1 * atmosphere),
    }  # fmt: skip
    return RunResult(**{**record, **fields})


def grid(models=("resnet-10",), segmenters=("unet-small",), seeds=(0, 1), **fields):
    return [
        result(model, task, series=series, atmosphere=atmosphere, seed=seed, **fields)
        for task, names in (("classification", models), ("segmentation", segmenters))
        for model in names
        for series in (False, True)
        for atmosphere in (False, True)
        for seed in seeds
    ]
