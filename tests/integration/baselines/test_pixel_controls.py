"""Tests of the controls of segmentation, against a computation on whole frames."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import toy_cube
from hephaestus_baselines.data.preparation import prepare_data
from hephaestus_baselines.evaluation.controls import REMEMBERED
from hephaestus_baselines.evaluation.pixel_controls import FrameHistory, predict_pixel_controls
from hephaestus_baselines.evaluation.predictions import (
    PROBABILITY_BINS,
    PredictedItem,
    Predictions,
    PredictionSource,
    count_pixel_histograms,
    item_probability,
)
from hephaestus_build.core.frames import Pair
from hephaestus_build.cube.reading.dataset import open_pinned_cube

TEST, VALIDATION, TRAIN = toy_cube.FRAME, "124D_05291_081406", "199A_00210_131313"
SPLIT = f"volcano-out-{TEST}"


@pytest.mark.parametrize(("series", "volcanic"), [(False, False), (True, False), (False, True)])
def test_maps_of_past_masks_are_counted_as_a_models(tmp_path: Path, series: bool, volcanic: bool) -> None:
    for frame in (TEST, VALIDATION, TRAIN):
        toy_cube.toy_cube(tmp_path, frame=frame)
    prepared = prepare_data(tmp_path, mixed=True, split=SPLIT, size=32, series=series, volcanic_only=volcanic)
    items = prepared.items["test"]
    with open_pinned_cube(tmp_path / f"{TEST}.zarr", chunks=None) as cube:

        def image(name: str, pair: Pair) -> np.ndarray:
            dates = {
                "primary_date": np.datetime64(pair.primary),
                "secondary_date": np.datetime64(pair.secondary),
            }
            return cube[name].sel(dates).to_numpy()

        def deforms(pair: Pair) -> np.ndarray:
            codes = image("deformation_mask", pair)
            return codes == 1 if volcanic else codes > 0  # 2 is that of an earthquake

        pairs = sorted(
            (Pair.parse(name) for name in toy_cube.PAIRS[:-1]), key=lambda one: (one.secondary, one.primary)
        )
        expected, counts = [], []
        for item in items:
            assert item.tile is not None
            members = sorted({member.pair for member in item.members})
            last = max(pair.secondary for pair in members)
            before = [pair for pair in pairs if pair.secondary < last and pair not in members][-REMEMBERED:]
            share = (
                np.mean([deforms(pair) for pair in before], axis=0) if before else np.zeros(cube.dem.shape)
            )
            mask = np.any([deforms(pair) for pair in members], axis=0)
            data = np.any([image("insar_difference", pair) != 0 for pair in members], axis=0)
            windows = [item.tile.read(values)[None] for values in (share.astype("f4"), mask, data)]
            inside = item.tile.inside[None]
            expected.append(count_pixel_histograms(windows[0], windows[1], inside, windows[2]))
            counts.append(
                count_pixel_histograms(np.full_like(windows[0], 0.3), windows[1], inside, windows[2])
            )
    pixels = {name: np.concatenate([one[name] for one in counts]) for name in ("data", "all")}  # type: ignore[index]
    model = Predictions(
        PredictionSource("segmentation", "toy", SPLIT, "0" * 64, True),
        "test",
        tuple(PredictedItem(item.frame, item.pairs, item.positive) for item in items),
        np.array([item.pixels > 0 for item in items]),
        item_probability(pixels["data"]),
        np.ones(len(items), bool),
        pixels,
    )
    found = predict_pixel_controls(
        items, model, FrameHistory(prepared.known, prepared.stores, volcanic_only=volcanic)
    )
    persistence = found["persistence"]
    assert persistence.pixels is not None
    for name in ("data", "all"):
        np.testing.assert_array_equal(
            persistence.pixels[name],
            np.concatenate([one[name] for one in expected]),  # type: ignore[index]
        )
    assert persistence.pixels["data"][:, 1, 1:].any()  # some deformation was expected by it
    # the frame is not in train
    prior = found["frame prior"]
    assert prior.pixels is not None
    assert prior.pixels["all"][..., 0].sum() == pixels["all"].sum()
    assert not prior.pixels["all"][..., 1:PROBABILITY_BINS].any()
