"""Tests of preparing items from a folder of cubes: pinned, split, tiled, grouped; no annotation archive."""

from __future__ import annotations

import json
from datetime import date
from pathlib import Path

import numpy as np
import pytest
import shapely

import toy_cube
from hephaestus_baselines.config.run_config import Preset
from hephaestus_baselines.config.tasks import KIND_TASKS
from hephaestus_baselines.data.preparation import PreparedData, prepare_data
from hephaestus_baselines.data.sample_attributes import assign_events
from hephaestus_baselines.data.samplers import draw_epoch
from hephaestus_baselines.data.task_items import select_task_items
from hephaestus_baselines.data.window_dataset import WindowDataset
from hephaestus_baselines.experiments.cost_estimate import estimate_cost
from hephaestus_baselines.experiments.experiment_grid import open_experiment_grid
from hephaestus_build.core.errors import HephaestusError, UsageError
from hephaestus_build.core.frames import Frame, Pair
from hephaestus_build.cube.reading.dataset import open_pinned_cube
from hephaestus_build.dataset.samples import Sample
from hephaestus_build.dataset.splits import PARTS
from hephaestus_build.dataset.tiling import Tile, Tiling

#: Frames for test, validation (a published frame of etna), and two for training.
TEST, VALIDATION, TRAIN = toy_cube.FRAME, "124D_05291_081406", ("199A_00210_131313", "200D_00210_131313")
SPLIT = f"volcano-out-{TEST}"


@pytest.fixture(scope="module")
def cubes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data") / "cubes"
    for frame in (TEST, VALIDATION, *TRAIN):
        toy_cube.toy_cube(folder, frame=frame)
    return folder


@pytest.fixture(scope="module")
def prepared(cubes: Path) -> PreparedData:
    return prepare_data(cubes, mixed=True, split=SPLIT, size=32)


def test_every_annotated_interferogram_is_in_the_part_of_its_region(prepared: PreparedData) -> None:
    frames = {part: {item.frame for item in items} for part, items in prepared.items.items()}
    assert frames == {"train": set(TRAIN), "validation": {VALIDATION}, "test": {TEST}}
    # the last pair is not annotated
    assert len(prepared.items["train"]) == len(TRAIN) * (len(toy_cube.PAIRS) - 1)
    assert prepared.is_simulated
    assert prepared.missing_frames == ()


def test_training_windows_are_drawn_and_others_cover_without_looking(prepared: PreparedData) -> None:
    assert all(item.tile is None for item in prepared.items["train"])
    tested = prepared.items["test"]
    assert len(tested) == (len(toy_cube.PAIRS) - 1) * 6  # 60 x 70 pixels are covered by 2 x 3 windows
    by_pair = {item.pairs: set() for item in tested}
    for item in tested:
        by_pair[item.pairs].add(item.tile)
    assert len({frozenset(tiles) for tiles in by_pair.values()}) == 1


def test_each_window_knows_how_much_of_the_deformation_it_shows(cubes: Path, prepared: PreparedData) -> None:
    shown = 0
    for item in prepared.items["test"]:
        assert item.tile is not None
        with open_pinned_cube(cubes / f"{item.frame}.zarr", chunks=None) as cube:
            dates = {
                "primary_date": np.datetime64(item.members[0].pair.primary),
                "secondary_date": np.datetime64(item.members[0].pair.secondary),
            }
            mask = cube["deformation_mask"].sel(dates).to_numpy() > 0
        pixels = int(item.tile.read(mask).sum())
        assert item.pixels == pixels
        whole = int(mask.sum())
        assert item.sliver == (0 < pixels < max(min(100, whole), 0.1 * whole))
        shown += pixels > 0
    assert shown
    assert prepared.coverage is not None
    counts = prepared.coverage.parts["test"].total
    assert counts.seen == counts.positives == sum(s.positive for s in prepared.split.parts["test"])


def test_a_validation_part_without_a_positive_window_is_an_error_before_training(
    cubes: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No epoch and no threshold could be chosen by it."""
    empty = Tiling("grid", False, (60, 70), (Tile(0, 0, 4, (0, 4, 0, 4)),))
    monkeypatch.setattr("hephaestus_build.dataset.tiling.tile_on_grid", lambda *_: empty)
    with pytest.raises(HephaestusError, match=r"no window of the validation part .* choose another tiling"):
        prepare_data(cubes, mixed=True, split=SPLIT, size=4, tiling="grid")


def test_slivers_alone_are_no_positive_windows_either(cubes: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hephaestus_baselines.data.preparation.SLIVER_SHARE", 2.0)
    with pytest.raises(HephaestusError, match=r"no window of the validation part .* more than a sliver"):
        prepare_data(cubes, mixed=True, split=SPLIT, size=32)


def test_frames_with_uncertain_outlines_are_left_out_where_pixels_are_labels(tmp_path: Path) -> None:
    for frame in (TEST, VALIDATION, *TRAIN):
        toy_cube.toy_cube(tmp_path, frame=frame)
    group = tmp_path / f"{TRAIN[0]}.zarr" / "zarr.json"
    metadata = json.loads(group.read_bytes())
    metadata["attributes"]["uncertain_geometry"] = "narrow previews"
    group.write_text(json.dumps(metadata))
    kept = prepare_data(tmp_path, mixed=True, split=SPLIT, size=32)
    assert {item.frame for item in kept.items["train"]} == set(TRAIN)
    left = prepare_data(tmp_path, mixed=True, split=SPLIT, size=32, uncertain=False)
    assert {item.frame for item in left.items["train"]} == {TRAIN[1]}
    assert left.uncertain_left_out == {"train": len(toy_cube.PAIRS) - 1, "validation": 0, "test": 0}
    assert left.split.sha256 == kept.split.sha256  # one split, so that all tasks stand in one table
    group = tmp_path / f"{VALIDATION}.zarr" / "zarr.json"
    metadata = json.loads(group.read_bytes())
    metadata["attributes"]["uncertain_geometry"] = "narrow previews"
    group.write_text(json.dumps(metadata))
    with pytest.raises(HephaestusError, match=rf"uncertain outlines alone \({VALIDATION}\).*uncertain=keep"):
        prepare_data(tmp_path, mixed=True, split=SPLIT, size=32, uncertain=False)


def test_earthquakes_alone_are_left_out_where_only_volcanic_deformation_counts(tmp_path: Path) -> None:
    for frame in (TEST, VALIDATION, *TRAIN):
        toy_cube.toy_cube(tmp_path, frame=frame)
    every = prepare_data(tmp_path, mixed=True, split=SPLIT, size=32)
    volcanic = prepare_data(tmp_path, mixed=True, split=SPLIT, size=32, volcanic_only=True)
    shown = {item.pairs for item in volcanic.items["test"] if item.pixels}
    assert shown
    assert shown <= {item.pairs for item in every.items["test"] if item.pixels}
    windows = WindowDataset(volcanic.items["test"], volcanic.stores, size=32, volcanic_only=True)
    whole = WindowDataset(every.items["test"], every.stores, size=32)
    for index, item in enumerate(volcanic.items["test"]):
        mask = windows[index]["mask"].numpy()
        assert set(np.unique(mask)) <= {0, 1}
        assert int(windows[index]["label"]) == (item.pixels > 0)
        both = whole[
            every.items["test"].index(
                next(one for one in every.items["test"] if (one.pairs, one.tile) == (item.pairs, item.tile))
            )
        ]["mask"].numpy()
        np.testing.assert_array_equal(mask == 1, both == 1)
    assert any((whole[i]["mask"].numpy() == 2).any() for i in range(len(whole)))


def test_an_earthquake_alone_is_no_positive_that_windows_fail_to_show(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    planes = toy_cube.masks
    monkeypatch.setattr(  # of the second of the two, the earthquake alone
        toy_cube,
        "masks",
        lambda on, name: {
            variable: np.where(plane == 1, 0, plane) if name == toy_cube.PAIRS[1] else plane
            for variable, plane in planes(on, name).items()
        },
    )
    for frame in (TEST, VALIDATION, *TRAIN):
        toy_cube.toy_cube(tmp_path, frame=frame)
    counts = {}
    for volcanic in (False, True):
        found = prepare_data(tmp_path, mixed=True, split=SPLIT, size=32, volcanic_only=volcanic)
        assert found.coverage is not None
        test = found.coverage.parts["test"].total
        assert test.seen == test.positives
        counts[volcanic] = test.positives
        known = {item.pair.name: item.positive for item in found.known if item.frame == TEST}
        assert known[toy_cube.PAIRS[1]] == (not volcanic)  # what controls remember
        assert known[toy_cube.PAIRS[3]]
        shown = {name for one in found.attributes.values() for name in one.activities}
        assert ("Earthquake" in shown) == (not volcanic)
        deformation = "volcanic" if volcanic else "any"
        preset = Preset(
            name=deformation,
            description="",
            fields={"split": SPLIT, "size": 32, "positives": deformation, "weights": "none"},
            tasks={task: {"models": {"resnet-tiny": {}}} for task in ("classification", *KIND_TASKS)},
            series=(False,),
            atmosphere=("none",),
        )
        planned = estimate_cost(open_experiment_grid(preset, tmp_path, tmp_path / "results", mixed=True))
        assert planned.coverage["test"] == test
        for task in ("classification", *KIND_TASKS):
            used = {
                part: {(item.frame, item.pairs) for item in select_task_items(task, found, part)}
                for part in PARTS
            }
            samples = planned.samples[f"single, {task}"]
            assert {part: samples[part] for part in PARTS} == {
                part: len(pairs) for part, pairs in used.items()
            }
            train = [item.positive for item in found.items["train"]]
            drawn = len(used["train"]) if task in KIND_TASKS else len(draw_epoch(train, 0, 0))
            assert samples["an epoch"] == drawn
    assert counts == {False: 2, True: 1}


def test_series_have_three_steps_of_one_primary(cubes: Path) -> None:
    found = prepare_data(cubes, mixed=True, split=SPLIT, series=True, size=32)
    for item in (item for items in found.items.values() for item in items):
        assert len(item.members) == 3
        assert len({sample.pair.primary for sample in item.members}) == 1
        assert item.positive == any(sample.positive for sample in item.members)


def test_label_centred_windows_hold_the_label_in_training_too(cubes: Path) -> None:
    found = prepare_data(
        cubes, mixed=True, split=SPLIT, size=50, training="label-centred", tiling="label-centred"
    )
    for part in ("train", "test"):
        for item in found.items[part]:  # type: ignore[index]
            assert item.tile is not None
            if item.positive:
                with open_pinned_cube(cubes / f"{item.frame}.zarr", chunks=None) as cube:
                    pair = item.members[0].pair
                    mask = cube["deformation_mask"].sel(
                        primary_date=np.datetime64(pair.primary), secondary_date=np.datetime64(pair.secondary)
                    )
                    assert item.tile.read(mask.to_numpy()).any()
    assert len(found.items["test"]) == len(toy_cube.PAIRS) - 1


def test_words_and_days_come_from_the_cube(prepared: PreparedData) -> None:
    moving = prepared.attributes[TEST, toy_cube.PAIRS[1]]
    assert moving.activities == ("Earthquake", "Mogi")
    assert moving.intensities == ("High", "None")
    assert (moving.region, moving.days) == (TEST, 24)
    assert prepared.attributes[TEST, toy_cube.PAIRS[0]].activities == ()
    assert prepared.attributes[VALIDATION, toy_cube.PAIRS[0]].region == "etna"


def test_each_positive_belongs_to_an_event_of_its_region(prepared: PreparedData) -> None:
    used = [sample for part in prepared.split.parts.values() for sample in part]
    assert set(prepared.events) == {(s.frame.id, s.pair.name) for s in used if s.positive}
    # both pairs cover the same place and share days; one shows an earthquake beside
    assert set(prepared.events[TEST, toy_cube.PAIRS[1]]) & set(prepared.events[TEST, toy_cube.PAIRS[3]])
    assert f"{TEST}-20190101-1" in prepared.events[TEST, toy_cube.PAIRS[1]]
    # an earthquake and an inflation, seen apart
    assert len({event for events in prepared.events.values() for event in events}) == 8


def sample_at(primary: date, secondary: date, region: str = "x") -> Sample:
    return Sample(Frame(TEST), Pair(primary, secondary), True, region=region)


def test_events_need_a_place_and_a_day_in_common() -> None:
    first = sample_at(date(2019, 1, 1), date(2019, 2, 1))
    later = sample_at(date(2019, 8, 1), date(2019, 9, 1))
    between = sample_at(date(2019, 1, 20), date(2019, 6, 10))
    here, there = shapely.box(0, 0, 1, 1), shapely.box(5, 5, 6, 6)
    apart = assign_events({first: [here], later: [here]})
    assert len(set(apart.values())) == 2
    linked = assign_events({first: [here], later: [here], between: [here]})
    assert len(set(linked.values())) == 1
    elsewhere = assign_events({first: [here], between: [there]})
    assert len(set(elsewhere.values())) == 2
    both = assign_events({first: [here], later: [there], between: [there, here]})
    assert len(both["198A_00210_131313", between.pair.name]) == 2  # an interferogram may show several
    assert len({event for events in both.values() for event in events}) == 2


def test_statistics_are_kept_and_measured_once(
    cubes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    once = prepare_data(cubes, mixed=True, split=SPLIT, size=32, results=tmp_path)
    assert (tmp_path / "statistics" / f"{SPLIT}.json").is_file()

    def refuse(*_: object) -> None:
        raise AssertionError("measured again")

    monkeypatch.setattr("hephaestus_build.dataset.channel_statistics.compute_product_moments", refuse)
    again = prepare_data(cubes, mixed=True, split=SPLIT, size=32, results=tmp_path)
    assert again.statistics == once.statistics
    assert set(again.statistics.weights) == set(TRAIN)


def test_what_is_pinned_stays_when_a_cube_grows(tmp_path: Path) -> None:
    for frame in (TEST, VALIDATION, *TRAIN):
        toy_cube.toy_cube(tmp_path, frame=frame)
    before = prepare_data(tmp_path, mixed=True, split=SPLIT, size=32)
    toy_cube.toy_cube(tmp_path, toy_cube.grid(61, 70), frame=TEST)
    assert before.stores[TEST].is_dir()
    after = prepare_data(tmp_path, mixed=True, split=SPLIT, size=32)
    assert after.stores[TEST] != before.stores[TEST]
    assert after.generations[TEST] != before.generations[TEST]
    assert after.generations[VALIDATION] == before.generations[VALIDATION]


def test_a_limit_spreads_over_the_part(cubes: Path) -> None:
    found = prepare_data(cubes, mixed=True, split=SPLIT, size=32, limit=3)
    assert len(found.items["train"]) == 3
    assert {item.frame for item in found.items["train"]} == set(TRAIN)


def test_an_empty_part_and_no_cube_say_what_to_do(cubes: Path, tmp_path: Path) -> None:
    with pytest.raises(HephaestusError, match=r"the validation part of the split paper is empty.*hephaestus"):
        prepare_data(cubes, mixed=True, split="paper", size=32)
    with pytest.raises(HephaestusError, match=r"there is no cube in .*hephaestus build"):
        prepare_data(tmp_path / "nothing")
    with pytest.raises(UsageError, match="no tiling mode"):
        prepare_data(cubes, mixed=True, split=SPLIT, tiling="everywhere")  # type: ignore[arg-type]
