"""Tests that predictions hold all data that scores need, without losses or duplicates."""

import errno
from dataclasses import replace

import numpy as np
import pytest

from hephaestus_baselines.evaluation import predictions
from hephaestus_baselines.evaluation.predictions import (
    ALARM_PIXELS,
    PROBABILITY_BINS,
    PredictionCollector,
    Predictions,
    cluster_items,
    count_pixel_histograms,
    item_probability,
)
from hephaestus_baselines.training import checkpoints
from hephaestus_build.core.errors import HephaestusError
from hephaestus_build.dataset.tiling import tile_whole_frame
from toy_predictions import CLASSIFIER, SEGMENTER, classified, row, segmented


@pytest.fixture
def chance():
    return np.random.default_rng(7)


@pytest.mark.parametrize(
    ("module", "write"),
    [
        (predictions, lambda path: classified([1, 0], [0.5, 0.1]).write(path)),
        (checkpoints, lambda path: checkpoints.write_checkpoint({"a": 1}, path)),
    ],
)
def test_a_full_disk_leaves_no_memory_in_use(tmp_path, monkeypatch, module, write):
    # what is kept by the error would be named in lines of their own when it is collected
    given = []

    def full(path, content, **options):
        given.append(content)
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(module, "write_atomic", full)
    with pytest.raises((OSError, HephaestusError)):
        write(tmp_path / "file")
    with pytest.raises(ValueError, match="released"):
        given[0].tobytes()


def test_written_predictions_are_read_back_as_they_were(tmp_path, chance):
    rows = [
        row(positive=True, tile=(0, 512, 512), events=("a", "b"), region="etna", activity_types=("Dyke",)),
        row("144A_SM_REUN_S6", ("20200101_20200113", "20200101_20200125"), intensities=("Low", "High")),
    ]
    pixels = {name: chance.integers(0, 9, (2, 2, PROBABILITY_BINS), dtype="u4") for name in ("data", "all")}
    probability = chance.random(2, "f4")
    scored = np.array([False, True])
    said = Predictions(SEGMENTER, "test", tuple(rows), np.array([True, False]), probability, scored, pixels)
    said.write(tmp_path / "test.npz")
    read = Predictions.read(tmp_path / "test.npz")
    assert (read.source, read.part, read.rows) == (SEGMENTER, "test", tuple(rows))
    assert np.array_equal(read.label, said.label)
    assert np.array_equal(read.probability, probability)
    assert np.array_equal(read.scored, scored)
    assert all(np.array_equal(read.pixels[name], pixels[name]) for name in pixels)
    assert [path.name for path in tmp_path.iterdir()] == ["test.npz"]


@pytest.mark.parametrize("damage", ["missing", "cut", "other"])
def test_predictions_that_cannot_be_read_say_what_to_do(tmp_path, damage):
    path = tmp_path / "test.npz"
    if damage != "missing":
        classified([1, 0], [0.5, 0.1]).write(path)
        path.write_bytes(path.read_bytes()[:200] if damage == "cut" else b"not an archive")
    with pytest.raises(HephaestusError, match=r"test\.npz holds no predictions .* remove it and run"):
        Predictions.read(path)


def test_batches_in_any_order_give_the_same_predictions(chance):
    rows = [row(f"{place:03d}A") for place in range(20)]
    label, probability = chance.random(20) < 0.5, chance.random(20, "f4")
    collector = PredictionCollector(CLASSIFIER, "validation", rows)
    for batch in np.split(chance.permutation(20), 4):
        collector.add(batch, label[batch], probability[batch])
    said = collector.finish()
    assert np.array_equal(said.label, label)
    assert np.array_equal(said.probability, probability)


def test_an_item_that_nobody_asked_for_is_not_scored_as_zero():
    collector = PredictionCollector(CLASSIFIER, "test", [row(), row("002A")])
    collector.add(np.array([1]), np.array([0]), np.array([0.5]))
    with pytest.raises(HephaestusError, match="1 of 2 items of test have no probability"):
        collector.finish()


@pytest.mark.parametrize("wrong", [np.nan, -0.1, 1.5])
def test_what_is_no_probability_is_refused(wrong):
    with pytest.raises(HephaestusError, match="invalid probabilities"):
        classified([1, 0], [0.5, wrong])
    with pytest.raises(HephaestusError, match="invalid probabilities"):
        count_pixel_histograms(np.full((1, 2, 2), wrong), np.zeros((1, 2, 2)), np.array(True), np.array(True))


def test_tiles_that_overlap_count_each_pixel_of_the_frame_once(chance):
    shape, size = (70, 90), 32
    probability, mask = chance.random(shape), chance.random(shape) < 0.2
    data = chance.random(shape) < 0.7
    total = {"data": 0, "all": 0}
    for tile in tile_whole_frame(shape, size).tiles:
        inside = np.zeros((size, size), bool)
        top, bottom, left, right = tile.core
        inside[top - tile.row : bottom - tile.row, left - tile.column : right - tile.column] = True
        parts = [tile.read(values)[None] for values in (probability, mask)]
        counted = count_pixel_histograms(*parts, inside, tile.read(data)[None])
        total = {name: total[name] + counted[name] for name in total}
    whole = count_pixel_histograms(probability[None], mask[None], np.array(True), data[None])
    assert all(np.array_equal(total[name], whole[name]) for name in total)
    assert whole["all"].sum() == 70 * 90
    assert whole["data"][0, 1].sum() == (mask & data).sum()


def test_a_certain_pixel_is_counted_in_the_last_step():
    counted = count_pixel_histograms(
        np.array([[[0.0, 1.0, 0.5]]]), np.array([[[0, 2, 0]]]), np.array(True), np.array(True)
    )
    assert counted["all"][0, 1, PROBABILITY_BINS - 1] == 1
    assert list(np.flatnonzero(counted["all"][0, 0])) == [0, PROBABILITY_BINS // 2]


@pytest.mark.parametrize("count", [1, 99, 100, 101, 4000])
def test_an_item_is_as_probable_as_a_square_kilometre_of_its_pixels(chance, count):
    pixels = chance.integers(0, PROBABILITY_BINS, (1, 1, count)) / PROBABILITY_BINS
    counted = count_pixel_histograms(pixels, np.zeros_like(pixels), np.array(True), np.array(True))["data"]
    exact = np.sort(pixels.ravel())[::-1][min(count, ALARM_PIXELS) - 1]
    assert item_probability(counted)[0] == np.float32(exact)


def test_an_item_without_pixels_alarms_nobody():
    assert item_probability(np.zeros((1, 2, PROBABILITY_BINS), "u4"))[0] == 0


def test_an_interferogram_is_as_probable_as_its_highest_tile_and_labelled_by_the_expert():
    one, other = ("20200101_20200113",), ("20200101_20200125",)
    rows = [
        row(pairs=one, positive=True, tile=(0, 0, 512)),
        row(pairs=other, tile=(0, 0, 512)),
        row(pairs=one, positive=True, tile=(0, 512, 512)),
        row("002A", one, tile=(0, 0, 512)),
    ]
    # deformation that lies in no tile: the expert saw it all the same
    whole = classified([0, 0, 0, 0], [0.25, 0.5, 0.75, 0.125], rows).by_interferogram()
    assert [(item.frame, item.pairs) for item in whole.rows] == [
        ("001A", one),
        ("001A", other),
        ("002A", one),
    ]
    assert list(whole.probability) == [0.75, 0.5, 0.125]
    assert list(whole.label) == [True, False, False]
    again = whole.by_interferogram()
    assert again.rows == whole.rows
    assert np.array_equal(again.probability, whole.probability)


def test_pixels_of_an_interferograms_tiles_are_added_up():
    rows = [row(tile=(0, 0, 512)), row(tile=(0, 512, 512))]
    whole = segmented([{3: 5}, {3: 2, 8: 1}], [{}, {9: 4}], rows).by_interferogram()
    assert whole.pixels["data"].sum() == 12
    assert whole.pixels["data"][0, 0, 3] == 7
    assert whole.pixels["data"][0, 1, 9] == 4


def test_events_that_one_item_links_are_one_piece_of_evidence():
    rows = [
        row(events=("a",)), row(events=("b",)), row(events=("c",)), row("002A", events=("a", "b")),
        row("003A"), row("003A", ("20200101_20200125",)), row("003A", ("20200113_20200125",)), row("004A"),
    ]  # fmt: skip
    assert list(cluster_items(rows)) == [0, 0, 1, 0, 2, 2, 3, 4]


def test_arrays_of_another_length_are_refused():
    said = classified([1, 0], [0.5, 0.1])
    with pytest.raises(ValueError, match="2 items"):
        replace(said, label=said.label[:1])
